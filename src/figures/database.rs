//! What one worker counts of one database.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::classes::{self, CLASSES};
use super::counter::{Counter, Histogram};
use crate::topology::{Role, ShardId};

/// One worker's counters of one database.
#[derive(Default)]
pub struct DatabaseFigures {
    common: Arc<Common>,
    /// By shard and role.
    one: Vec<Arc<[OnceLock<Series>; 2]>>,
}

/// What no shard has for itself.
#[derive(Default)]
struct Common {
    units: Counter,
    unit_nanos: Counter,
    wait_nanos: Counter,
    transactions: Counter,
    transaction_nanos: Counter,
    received: Counter,
    sent: Counter,
    retries: Counter,
    errors: Errors,
    /// Errors of the proxy's own, by SQLSTATE. They are seldom: a lock that only this worker and readers take.
    refused: Mutex<BTreeMap<&'static str, u64>>,
    /// Scatter, spread, local, cache.
    others: [OnceLock<Series>; 5],
}

/// By class of SQLSTATE; the last is for all others.
struct Errors([Counter; CLASSES.len() + 1]);

/// Of one route.
#[derive(Debug, Default)]
pub struct Series {
    pub took: Histogram,
    pub waited: Histogram,
}

/// The way that a unit of work went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    One(ShardId, Role),
    /// A read on several shards.
    Scatter,
    /// A read on one shard, over rows fetched from several.
    Gather,
    /// A write on several shards.
    Spread,
    /// Answered without any server.
    Local,
    /// Answered from the cache.
    Cache,
}

/// A unit of work that has ended: one Query, or all messages up to a Sync.
#[derive(Clone, Copy, Debug)]
pub struct Unit {
    pub route: Route,
    pub took: Duration,
    /// For server connections, if any were lent.
    pub waited: Option<Duration>,
    /// How long the transaction has lasted that ended with it.
    pub transaction: Option<Duration>,
}

/// Counters as they were when they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub units: u64,
    pub unit_time: Duration,
    pub wait_time: Duration,
    pub transactions: u64,
    pub transaction_time: Duration,
    /// Bytes from and to clients.
    pub received: u64,
    pub sent: u64,
    /// Servers asked in place of one that could not be reached.
    pub retries: u64,
    /// Errors that clients were told, by class of SQLSTATE.
    pub errors: BTreeMap<&'static str, u64>,
    /// Those of the proxy's own among them, by SQLSTATE.
    pub refused: BTreeMap<&'static str, u64>,
}

impl Route {
    pub fn name(self) -> &'static str {
        match self {
            Self::One(..) => "one",
            Self::Scatter => "scatter",
            Self::Gather => "gather",
            Self::Spread => "spread",
            Self::Local => "local",
            Self::Cache => "cache",
        }
    }

    pub fn shard(self) -> Option<ShardId> {
        match self {
            Self::One(shard, _) => Some(shard),
            _ => None,
        }
    }

    pub fn role(self) -> Option<Role> {
        match self {
            Self::One(_, role) => Some(role),
            _ => None,
        }
    }
}

impl DatabaseFigures {
    pub(super) fn shards(&self) -> usize {
        self.one.len()
    }

    /// The same counters, and more for further shards.
    pub(super) fn with_room(&self, shards: usize) -> Self {
        let mut one = self.one.clone();
        one.resize_with(shards, Arc::default);
        Self { common: Arc::clone(&self.common), one }
    }

    /// A unit of work has ended.
    pub fn count(&self, unit: &Unit) {
        let common = &self.common;
        common.units.add(1);
        common.unit_nanos.add(nanos(unit.took));
        if let Some(lasted) = unit.transaction {
            common.transactions.add(1);
            common.transaction_nanos.add(nanos(lasted));
        }
        let Some(series) = self.of(unit.route) else { return };
        series.took.observe(unit.took);
        if let Some(waited) = unit.waited {
            common.wait_nanos.add(nanos(waited));
            series.waited.observe(waited);
        }
    }

    pub fn traffic(&self, received: u64, sent: u64) {
        self.common.received.add(received);
        self.common.sent.add(sent);
    }

    /// A client was told an error of a server.
    pub fn error(&self, sqlstate: &str) {
        self.common.errors.0[classes::place(sqlstate)].add(1);
    }

    /// A client was told an error of the proxy's own.
    pub fn refused(&self, sqlstate: &'static str) {
        self.error(sqlstate);
        *self.common.refused.lock().unwrap_or_else(PoisonError::into_inner).entry(sqlstate).or_default() += 1;
    }

    pub fn retried(&self) {
        self.common.retries.add(1);
    }

    pub fn totals(&self) -> Totals {
        let common = &self.common;
        let errors = common.errors.0.iter().enumerate().map(|(place, count)| (classes::name(place), count.read()));
        Totals {
            units: common.units.read(),
            unit_time: Duration::from_nanos(common.unit_nanos.read()),
            wait_time: Duration::from_nanos(common.wait_nanos.read()),
            transactions: common.transactions.read(),
            transaction_time: Duration::from_nanos(common.transaction_nanos.read()),
            received: common.received.read(),
            sent: common.sent.read(),
            retries: common.retries.read(),
            errors: errors.filter(|(_, count)| *count > 0).collect(),
            refused: common.refused.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Those that were ever gone.
    pub fn each_series(&self, mut look: impl FnMut(Route, &Series)) {
        for (shard, roles) in (0..).zip(&self.one) {
            for (role, series) in [Role::Primary, Role::Replica].into_iter().zip(roles.iter()) {
                series.get().into_iter().for_each(|series| look(Route::One(ShardId(shard), role), series));
            }
        }
        for (route, series) in OTHERS.into_iter().zip(&self.common.others) {
            series.get().into_iter().for_each(|series| look(route, series));
        }
    }

    fn of(&self, route: Route) -> Option<&Series> {
        let place = match route {
            Route::One(shard, role) => &self.one.get(usize::from(shard.0))?[usize::from(role == Role::Replica)],
            Route::Scatter => &self.common.others[0],
            Route::Spread => &self.common.others[1],
            Route::Local => &self.common.others[2],
            Route::Cache => &self.common.others[3],
            Route::Gather => &self.common.others[4],
        };
        Some(place.get_or_init(Series::default))
    }
}

impl Default for Errors {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl Totals {
    pub fn add(&mut self, other: &Self) {
        self.units += other.units;
        self.unit_time += other.unit_time;
        self.wait_time += other.wait_time;
        self.transactions += other.transactions;
        self.transaction_time += other.transaction_time;
        self.received += other.received;
        self.sent += other.sent;
        self.retries += other.retries;
        other.errors.iter().for_each(|(class, count)| *self.errors.entry(class).or_default() += count);
        other.refused.iter().for_each(|(code, count)| *self.refused.entry(code).or_default() += count);
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

const OTHERS: [Route; 5] = [Route::Scatter, Route::Spread, Route::Local, Route::Cache, Route::Gather];

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(route: Route, millis: u64) -> Unit {
        let took = Duration::from_millis(millis);
        Unit { route, took, waited: Some(Duration::from_millis(1)), transaction: Some(took) }
    }

    #[test]
    fn what_was_counted_stays_when_shards_are_added() {
        let before = DatabaseFigures::default().with_room(1);
        let first = Route::One(ShardId(0), Role::Replica);
        before.count(&unit(first, 3));
        let after = before.with_room(2);
        after.count(&unit(Route::One(ShardId(1), Role::Primary), 4));
        after.count(&unit(first, 5));
        before.count(&unit(Route::Scatter, 6));
        let mut seen = Vec::new();
        after.each_series(|route, series| seen.push((route, series.took.read().count())));
        assert_eq!(seen, [(first, 2), (Route::One(ShardId(1), Role::Primary), 1), (Route::Scatter, 1)]);
        let totals = after.totals();
        assert_eq!((totals.units, totals.transactions, totals.unit_time.as_millis()), (4, 4, 18));
        assert_eq!(totals.wait_time.as_millis(), 4);
    }

    #[test]
    fn refusals_are_errors_too() {
        let figures = DatabaseFigures::default();
        figures.error("23505");
        figures.error("Q1234");
        figures.refused("0A000");
        let totals = figures.totals();
        assert_eq!(totals.errors, BTreeMap::from([("23", 1), ("0A", 1), ("other", 1)]));
        assert_eq!(totals.refused, BTreeMap::from([("0A000", 1)]));
    }
}
