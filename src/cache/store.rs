//! Where answers are kept, and the queries under way that will give some. The only file that knows `moka`.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::quality::RandomState;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy as Eviction;
use tokio::sync::watch;
use tokio::time::Instant;

use super::figures::{Counters, increment};
use super::flight::Outcome;
use super::key::Key;
use super::{Entry, Figures, Fill, Follow, KeyBytes, Lead, Reason, Stamp};
use crate::topology::{CacheLimits, EvictionPolicy};

/// How much is kept and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all entries, keys and what they take beside.
    pub memory: usize,
    /// The longest that any entry lives.
    pub ttl: Duration,
    /// Bytes of one answer.
    pub max_result: usize,
    pub policy: Policy,
}

/// Which entries make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The seldom used ones; a newcomer that is asked for less than what it would push out stays out (TinyLFU).
    Lfu,
    /// The ones not used for longest.
    Lru,
}

/// One for the process. Replaced, empty, when its limits change; its counters go on.
pub struct Cache {
    limits: Limits,
    kept: moka::sync::Cache<Key, Kept, RandomState>,
    flights: [Mutex<Flights>; FLIGHTS],
    hasher: RandomState,
    counters: Arc<Counters>,
}

type Flights = HashMap<Key, watch::Receiver<Outcome>, RandomState>;

/// What a look-up came to.
pub enum Found {
    Hit(Arc<Entry>),
    /// Run the query and keep what it gives.
    Lead(Lead),
    /// Somebody runs it already.
    Follow(Follow),
    /// Run the query, past the cache.
    Pass(Reason),
}

#[derive(Clone)]
enum Kept {
    Entry(Arc<Entry>),
    /// Its answer was too large; not waited for again before this moment.
    TooLarge(Instant),
}

/// What is known of a key.
enum Known {
    Hit(Arc<Entry>),
    /// A hit; its query has to run again soon, and nobody does that yet.
    Ageing(Arc<Entry>),
    Missed(Reason),
}

impl From<&CacheLimits> for Limits {
    fn from(limits: &CacheLimits) -> Self {
        let CacheLimits { memory, ttl, max_result, policy } = *limits;
        let policy = match policy {
            EvictionPolicy::Lfu => Policy::Lfu,
            EvictionPolicy::Lru => Policy::Lru,
        };
        Self { memory, ttl, max_result, policy }
    }
}

impl Cache {
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self::with_counters(limits, Arc::default()))
    }

    /// The same counters over an empty store of other limits.
    pub fn replaced(&self, limits: Limits) -> Arc<Self> {
        Arc::new(Self::with_counters(limits, Arc::clone(&self.counters)))
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Looks a key up. `stamp` is asked where the query has to run: it takes the state of all that will be read.
    pub fn find(
        self: &Arc<Self>,
        key: &KeyBytes,
        now: Instant,
        stamp: impl FnOnce() -> Result<Stamp, Reason>,
    ) -> Found {
        let key = key.as_slice();
        match self.known(key, now) {
            Known::Hit(entry) => self.hit(entry),
            Known::Ageing(entry) => self.refresh(key, entry, stamp),
            Known::Missed(reason @ (Reason::Pending | Reason::TooLarge)) => Found::Pass(self.counters.passed(reason)),
            Known::Missed(cause) => match stamp() {
                Ok(stamp) => self.lead_or_follow(key, now, stamp, cause),
                Err(reason) => Found::Pass(self.counters.passed(reason)),
            },
        }
    }

    /// A statement that is not looked up.
    pub fn pass(&self, reason: Reason) {
        self.counters.miss(reason);
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.kept.invalidate_all();
    }

    pub fn figures(&self) -> Figures {
        self.kept.run_pending_tasks();
        Figures {
            entries: self.kept.entry_count(),
            bytes: self.kept.weighted_size(),
            limit_bytes: self.limits.memory as u64,
            ..self.counters.figures()
        }
    }

    pub(super) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Keeps an answer that may be kept.
    pub(super) fn insert(&self, key: &Key, fill: Fill, stamp: Stamp, now: Instant) -> Result<Arc<Entry>, Reason> {
        if fill.answer.bytes() > self.limits.max_result {
            let until = now + self.limits.ttl.min(fill.ttl);
            self.kept.insert(key.clone(), Kept::TooLarge(until));
            return Err(Reason::TooLarge);
        }
        let entry = Arc::new(Entry::new(fill, stamp, self.limits.ttl));
        if weigh(key, &Kept::Entry(Arc::clone(&entry))) as usize > self.limits.memory {
            return Err(Reason::TooLarge);
        }
        self.kept.insert(key.clone(), Kept::Entry(Arc::clone(&entry)));
        increment(&self.counters.fills);
        Ok(entry)
    }

    /// A flight is over, and what it gave is kept.
    pub(super) fn land(&self, key: &Key) {
        self.flights(&key.0).remove(key);
        self.counters.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    fn with_counters(limits: Limits, counters: Arc<Counters>) -> Self {
        let counted = Arc::clone(&counters);
        let kept = moka::sync::Cache::builder()
            .max_capacity(limits.memory as u64)
            .weigher(weigh)
            .time_to_live(limits.ttl)
            .eviction_policy(match limits.policy {
                Policy::Lfu => Eviction::tiny_lfu(),
                Policy::Lru => Eviction::lru(),
            })
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    increment(&counted.evictions);
                }
            })
            .build_with_hasher(RandomState::default());
        let flights = std::array::from_fn(|_| Mutex::default());
        Self { limits, kept, flights, hasher: RandomState::default(), counters }
    }

    fn known(&self, key: &[u8], now: Instant) -> Known {
        match self.kept.get(key) {
            None => Known::Missed(Reason::Absent),
            Some(Kept::TooLarge(until)) if now < until => Known::Missed(Reason::TooLarge),
            Some(Kept::TooLarge(_)) => Known::Missed(Reason::Absent),
            Some(Kept::Entry(entry)) if entry.is_expired(now) => Known::Missed(Reason::Expired),
            Some(Kept::Entry(entry)) if entry.stamp().holds() => match entry.claims_refresh(now) {
                true => Known::Ageing(entry),
                false => Known::Hit(entry),
            },
            Some(Kept::Entry(entry)) => {
                // A pending write may yet be rolled back: then the entry is good again.
                let reason = entry.stamp().why_not();
                if reason == Reason::Stale {
                    increment(&self.counters.invalidations);
                }
                Known::Missed(reason)
            }
        }
    }

    fn hit(&self, entry: Arc<Entry>) -> Found {
        self.counters.hit();
        Found::Hit(entry)
    }

    fn lead_or_follow(self: &Arc<Self>, key: &[u8], now: Instant, stamp: Stamp, cause: Reason) -> Found {
        let mut flights = self.flights(key);
        if let Some(outcome) = flights.get(key) {
            increment(&self.counters.follows);
            return Found::Follow(Follow { cache: Arc::clone(self), outcome: outcome.clone() });
        }
        // The flight that was under way at the first look may have landed since: its entry came before.
        if let Some(Kept::Entry(entry)) = self.kept.get(key)
            && entry.is_valid(now)
        {
            drop(flights);
            return self.hit(entry);
        }
        Found::Lead(self.lead(&mut flights, key, stamp, cause))
    }

    /// One leads while the others are still served what is there.
    fn refresh(
        self: &Arc<Self>,
        key: &[u8],
        entry: Arc<Entry>,
        stamp: impl FnOnce() -> Result<Stamp, Reason>,
    ) -> Found {
        let mut flights = self.flights(key);
        match stamp() {
            Ok(stamp) if !flights.contains_key(key) => {
                let mut lead = self.lead(&mut flights, key, stamp, Reason::Expired);
                lead.refreshes = Some(entry);
                Found::Lead(lead)
            }
            _ => {
                drop(flights);
                entry.unclaim_refresh();
                self.hit(entry)
            }
        }
    }

    fn lead(self: &Arc<Self>, flights: &mut Flights, key: &[u8], stamp: Stamp, cause: Reason) -> Lead {
        let key = Key::new(key);
        let (outcome, waiting) = watch::channel(Outcome::Flying);
        flights.insert(key.clone(), waiting);
        self.counters.in_flight.fetch_add(1, Ordering::Relaxed);
        Lead { cache: Arc::clone(self), key, stamp, cause, outcome, refreshes: None, ended: false }
    }

    fn flights(&self, key: &[u8]) -> MutexGuard<'_, Flights> {
        let hash = self.hasher.hash_one(key);
        let index = usize::try_from(hash % FLIGHTS as u64).expect("below FLIGHTS");
        self.flights[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn weigh(key: &Key, kept: &Kept) -> u32 {
    let entry = match kept {
        Kept::Entry(entry) => entry.weight(),
        Kept::TooLarge(_) => 0,
    };
    u32::try_from(key.0.len() + entry + OVERHEAD).unwrap_or(u32::MAX)
}

/// Locks over the flights: they are taken on misses only.
const FLIGHTS: usize = 64;
/// Bytes that an entry takes in the store beside its key and answer: table, order of use, order of age, counts.
const OVERHEAD: usize = 500;
