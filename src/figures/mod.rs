//! What is counted: written by the worker that serves, read by whoever asks.
//!
//! Each worker has counters of its own for each database, so that counting takes no lock and shares no cache line. Knows
//! numbers and how they are named; nothing of sessions, connections or how figures are shown.

mod classes;
mod counter;
mod database;
mod periods;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

pub use counter::{BOUNDS_MICROS, Counter, Distribution, Histogram};
pub use database::{DatabaseFigures, Route, Series, Totals, Unit};
pub use periods::{Averages, Periods};

/// Of all workers and databases.
pub struct Figures {
    pub started: Instant,
    pub periods: Periods,
    /// Configurations read again: taken, and refused.
    pub reloads: [Counter; 2],
    databases: Mutex<Databases>,
}

/// By worker and name.
type Databases = HashMap<(usize, Arc<str>), Arc<DatabaseFigures>>;

impl Default for Figures {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            periods: Periods::new(Instant::now()),
            reloads: Default::default(),
            databases: Mutex::default(),
        }
    }
}

impl Figures {
    /// The figures of a database that this worker counts in, with room for so many shards.
    pub fn of(&self, worker: usize, database: &Arc<str>, shards: usize) -> Arc<DatabaseFigures> {
        let mut databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        let known = databases.entry((worker, Arc::clone(database))).or_default();
        if known.shards() < shards {
            *known = Arc::new(known.with_room(shards));
        }
        Arc::clone(known)
    }

    /// Sums over the workers, by database.
    pub fn totals(&self) -> BTreeMap<Arc<str>, Totals> {
        let mut sums: BTreeMap<Arc<str>, Totals> = BTreeMap::new();
        for (database, figures) in self.all() {
            sums.entry(database).or_default().add(&figures.totals());
        }
        sums
    }

    /// How long units took and waited, over all workers, by database and route; routes that were gone only.
    pub fn series(&self) -> BTreeMap<(Arc<str>, Route), [Distribution; 2]> {
        let mut sums: BTreeMap<(Arc<str>, Route), [Distribution; 2]> = BTreeMap::new();
        for (database, figures) in self.all() {
            figures.each_series(|route, series| {
                let [took, waited] = sums.entry((Arc::clone(&database), route)).or_default();
                took.add(&series.took.read());
                waited.add(&series.waited.read());
            });
        }
        sums
    }

    fn all(&self) -> Vec<(Arc<str>, Arc<DatabaseFigures>)> {
        let databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        databases.iter().map(|((_, database), figures)| (Arc::clone(database), Arc::clone(figures))).collect()
    }
}
