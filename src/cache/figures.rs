//! What the cache did, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Reason;
use super::reason::REASONS;

/// The cache at one moment, for metrics and the console.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub enabled: bool,
    pub entries: u64,
    pub bytes: u64,
    pub limit_bytes: u64,
    pub hits: u64,
    /// Statements that ran although there is a cache, by reason; each counted once.
    pub misses: Vec<(&'static str, u64)>,
    pub fills: u64,
    /// Entries that made room for others.
    pub evictions: u64,
    /// Entries met that were written since.
    pub invalidations: u64,
    /// Statements that waited for another client's same query.
    pub follows: u64,
    /// Queries under way whose answers are to be kept.
    pub in_flight: u64,
}

pub(super) struct Counters {
    hits: AtomicU64,
    misses: [AtomicU64; REASONS],
    pub fills: AtomicU64,
    pub evictions: AtomicU64,
    pub invalidations: AtomicU64,
    pub follows: AtomicU64,
    pub in_flight: AtomicU64,
}

impl Counters {
    pub(super) fn hit(&self) {
        increment(&self.hits);
    }

    pub(super) fn miss(&self, reason: Reason) {
        increment(&self.misses[reason as usize]);
    }

    /// Counts and gives the reason.
    pub(super) fn passed(&self, reason: Reason) -> Reason {
        self.miss(reason);
        reason
    }

    /// All but what the store itself knows.
    pub(super) fn figures(&self) -> Figures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            enabled: true,
            hits: read(&self.hits),
            misses: Reason::all().zip(&self.misses).map(|(reason, count)| (reason.as_str(), read(count))).collect(),
            fills: read(&self.fills),
            evictions: read(&self.evictions),
            invalidations: read(&self.invalidations),
            follows: read(&self.follows),
            in_flight: read(&self.in_flight),
            ..Figures::default()
        }
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            hits: AtomicU64::default(),
            misses: std::array::from_fn(|_| AtomicU64::default()),
            fills: AtomicU64::default(),
            evictions: AtomicU64::default(),
            invalidations: AtomicU64::default(),
            follows: AtomicU64::default(),
            in_flight: AtomicU64::default(),
        }
    }
}

pub(super) fn increment(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
