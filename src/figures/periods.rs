//! Averages over the last whole period, as PgBouncer's `avg_` columns have them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::database::Totals;

type Sample = (Instant, BTreeMap<Arc<str>, Totals>);

/// Totals at the last two turns of the period.
pub struct Periods(Mutex<(Sample, Option<Sample>)>);

/// Counts are per second, times in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Averages {
    pub transactions: u64,
    pub units: u64,
    pub received: u64,
    pub sent: u64,
    /// Of one transaction, and of one unit.
    pub transaction_time: u64,
    pub unit_time: u64,
    /// In one second, of all clients together.
    pub wait_time: u64,
}

impl Periods {
    pub fn new(now: Instant) -> Self {
        Self(Mutex::new(((now, BTreeMap::new()), None)))
    }

    /// A period has passed.
    pub fn turn(&self, now: Instant, totals: BTreeMap<Arc<str>, Totals>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (older, newer) = &mut *known;
        if let Some(newer) = newer.take() {
            *older = newer;
        }
        *newer = Some((now, totals));
    }

    /// Of the last whole period; before there was one, since the start.
    pub fn averages(&self, database: &str, now: Instant, totals: &Totals) -> Averages {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (older, newer) = &*known;
        let nothing = Totals::default();
        let from = older.1.get(database).unwrap_or(&nothing);
        let (end, until) = match newer {
            Some((end, totals)) => (*end, totals.get(database).unwrap_or(&nothing)),
            None => (now, totals),
        };
        average(end.saturating_duration_since(older.0).as_micros(), from, until)
    }
}

fn average(micros: u128, from: &Totals, until: &Totals) -> Averages {
    let per_second = |amount: u64| ratio(u128::from(amount) * 1_000_000, micros);
    let (units, transactions) = (until.units - from.units, until.transactions - from.transactions);
    Averages {
        transactions: per_second(transactions),
        units: per_second(units),
        received: per_second(until.received - from.received),
        sent: per_second(until.sent - from.sent),
        transaction_time: ratio((until.transaction_time - from.transaction_time).as_micros(), transactions.into()),
        unit_time: ratio((until.unit_time - from.unit_time).as_micros(), units.into()),
        wait_time: ratio((until.wait_time - from.wait_time).as_micros() * 1_000_000, micros),
    }
}

fn ratio(amount: u128, parts: u128) -> u64 {
    amount.checked_div(parts).map_or(0, |part| u64::try_from(part).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn totals(units: u64) -> Totals {
        Totals { units, unit_time: Duration::from_millis(3 * units), received: 100 * units, ..Totals::default() }
    }

    #[test]
    fn averages_are_of_the_last_whole_period() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let periods = Periods::new(start);
        let of = |now: Instant, units: u64| {
            let averages = periods.averages("shop", now, &totals(units));
            (averages.units, averages.unit_time, averages.received)
        };
        assert_eq!(of(after(2), 20), (10, 3000, 1000));
        let taken = |units| BTreeMap::from([(Arc::from("shop"), totals(units))]);
        periods.turn(after(10), taken(50));
        assert_eq!(of(after(11), 1000), (5, 3000, 500));
        periods.turn(after(20), taken(50));
        assert_eq!(of(after(21), 1000), (0, 0, 0));
    }
}
