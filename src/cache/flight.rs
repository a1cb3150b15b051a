//! One query for many who ask the same: one leads, the others wait for what it gets.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::key::Key;
use super::store::{Cache, Found};
use super::{Answer, Entry, KeyBytes, Origin, Reason, Stamp};

/// The one whose query fills the cache. Ends by [`Lead::keep`] or [`Lead::give_up`]; dropped, the next who asks leads.
#[must_use = "others wait for it"]
pub struct Lead {
    pub(super) cache: Arc<Cache>,
    pub(super) key: Key,
    pub(super) stamp: Stamp,
    /// Why the query has to run.
    pub(super) cause: Reason,
    pub(super) outcome: watch::Sender<Outcome>,
    /// The entry whose end is near.
    pub(super) refreshes: Option<Arc<Entry>>,
    pub(super) ended: bool,
}

/// One who waits for the leader.
pub struct Follow {
    pub(super) cache: Arc<Cache>,
    pub(super) outcome: watch::Receiver<Outcome>,
}

/// What waiting came to.
pub enum Followed {
    Hit(Arc<Entry>),
    /// Nothing that may be served: look again.
    Again,
    /// Run the query, past the cache.
    Pass(Reason),
}

/// What the leader's query gave.
pub struct Fill {
    pub answer: Answer,
    /// Just before the query was sent (of several: the first).
    pub sent: Instant,
    pub ended: Instant,
    /// Each server that gave a part.
    pub origins: SmallVec<[Origin; 1]>,
    /// How long it may be served at most; the cache's own limit holds as well.
    pub ttl: Duration,
}

#[derive(Clone)]
pub(super) enum Outcome {
    Flying,
    Kept(Arc<Entry>),
    Vain(Reason),
}

impl Lead {
    /// Keeps what the query gave, unless it may be older than a write, or is too large.
    pub fn keep(mut self, fill: Fill, now: Instant) -> Result<Arc<Entry>, Reason> {
        let kept = self.try_keep(fill, now);
        let outcome = match &kept {
            Ok(entry) => Outcome::Kept(Arc::clone(entry)),
            Err(reason) => Outcome::Vain(*reason),
        };
        let counters = self.cache.counters();
        counters.miss(kept.as_ref().map_or_else(|reason| *reason, |_| self.cause));
        self.end(Some(outcome));
        kept
    }

    /// What a replica has not caught up with, its answer is not kept: later than this it must be.
    pub fn floor(&self) -> Option<Instant> {
        self.stamp.written()
    }

    /// The answer is not to be kept: an error, a notice, a part of a result …
    pub fn give_up(mut self, reason: Reason) {
        self.cache.counters().miss(reason);
        self.end(Some(Outcome::Vain(reason)));
    }

    fn try_keep(&self, fill: Fill, now: Instant) -> Result<Arc<Entry>, Reason> {
        if !self.stamp.holds() {
            return Err(Reason::Overtaken);
        }
        let has_all = |caught_up: Option<Instant>| caught_up.is_some_and(|at| self.stamp.is_reached_by(at));
        if !fill.origins.iter().filter_map(|origin| origin.replica).all(has_all) {
            return Err(Reason::Behind);
        }
        self.cache.insert(&self.key, fill, self.stamp.clone(), now)
    }

    /// Who asks from now on finds the entry or leads; who waits is told.
    fn end(&mut self, outcome: Option<Outcome>) {
        if !std::mem::replace(&mut self.ended, true) {
            self.cache.land(&self.key);
            self.refreshes.iter().for_each(|entry| entry.unclaim_refresh());
            outcome.into_iter().for_each(|outcome| drop(self.outcome.send_replace(outcome)));
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if !self.ended {
            self.cache.counters().miss(Reason::Abandoned);
            self.end(None);
        }
    }
}

impl Follow {
    /// Waits for the leader, until a moment at most.
    pub async fn wait(mut self, deadline: Instant) -> Followed {
        let counters = Arc::clone(self.cache.counters());
        let landed = timeout_at(deadline, self.outcome.wait_for(|outcome| !matches!(outcome, Outcome::Flying))).await;
        let outcome = match landed {
            Err(_) => return Followed::Pass(counters.passed(Reason::FollowedTooLong)),
            // Dropped: the leader's client went away.
            Ok(Err(_)) => return Followed::Again,
            Ok(Ok(outcome)) => outcome.clone(),
        };
        match outcome {
            Outcome::Kept(entry) if entry.is_valid(Instant::now()) => {
                counters.hit();
                Followed::Hit(entry)
            }
            Outcome::Kept(_) | Outcome::Flying | Outcome::Vain(Reason::Overtaken | Reason::Cancelled) => {
                Followed::Again
            }
            Outcome::Vain(_) => Followed::Pass(counters.passed(Reason::FollowedInVain)),
        }
    }
}

impl Cache {
    /// [`Cache::find`], with the waiting: never [`Found::Follow`]. `stamp` is called just before leading.
    pub async fn look(
        self: &Arc<Self>,
        key: &KeyBytes,
        longest_wait: Duration,
        stamp: impl Fn() -> Result<Stamp, Reason>,
    ) -> Found {
        let deadline = Instant::now() + longest_wait;
        let mut waits = 0;
        loop {
            let follow = match self.find(key, Instant::now(), &stamp) {
                Found::Follow(follow) if waits < MOST_WAITS => follow,
                Found::Follow(_) => return Found::Pass(self.counters().passed(Reason::FollowedInVain)),
                found => return found,
            };
            waits += 1;
            match follow.wait(deadline).await {
                Followed::Hit(entry) => return Found::Hit(entry),
                Followed::Pass(reason) => return Found::Pass(reason),
                Followed::Again => {}
            }
        }
    }
}

/// Leaders that one client waits for. More than a few in a row fail where something is wrong with the query.
const MOST_WAITS: usize = 8;
