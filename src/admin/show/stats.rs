//! Counters: STATS, CACHE.

use std::time::Duration;

use tokio::time::Instant;

use super::yes;
use crate::admin::table::{Table, Value};
use crate::cache::Figures as CacheFigures;
use crate::session::Shared;

/// Times in microseconds; `avg_` columns over the last whole `stats_period`.
pub(super) fn stats(shared: &Shared) -> Table {
    let (totals, now) = (shared.figures.totals(), Instant::now());
    let mut table = Table::new(
        "database total_xact_count# total_query_count# total_received# total_sent# total_xact_time# \
         total_query_time# total_wait_time# avg_xact_count# avg_query_count# avg_recv# avg_sent# avg_xact_time# \
         avg_query_time# avg_wait_time# total_errors# total_refused# total_retries#",
    );
    let mut names: Vec<String> = shared.control.topology().databases.keys().cloned().collect();
    names.sort();
    for name in names {
        let totals = totals.get(name.as_str()).cloned().unwrap_or_default();
        let averages = shared.figures.periods.averages(&name, now, &totals);
        let micros = |time: Duration| Value::number(time.as_micros());
        table.push(vec![
            name.into(),
            Value::number(totals.transactions),
            Value::number(totals.units),
            Value::number(totals.received),
            Value::number(totals.sent),
            micros(totals.transaction_time),
            micros(totals.unit_time),
            micros(totals.wait_time),
            Value::number(averages.transactions),
            Value::number(averages.units),
            Value::number(averages.received),
            Value::number(averages.sent),
            Value::number(averages.transaction_time),
            Value::number(averages.unit_time),
            Value::number(averages.wait_time),
            Value::number(totals.errors.values().sum::<u64>()),
            Value::number(totals.refused.values().sum::<u64>()),
            Value::number(totals.retries),
        ]);
    }
    table
}

pub(super) fn cache(shared: &Shared) -> Table {
    cache_table(&cache_figures(shared))
}

/// All zero where there is no cache.
pub(in crate::admin) fn cache_figures(shared: &Shared) -> CacheFigures {
    shared.cache().map(|cache| cache.figures()).unwrap_or_default()
}

/// One row, and the reasons of misses in a column of their own: `absent 3, stale 1`.
fn cache_table(figures: &CacheFigures) -> Table {
    let mut table = Table::new(
        "enabled# entries# bytes# limit_bytes# hits# misses# fills# evictions# invalidations# in_flight# follows# miss_reasons",
    );
    let met = figures.misses.iter().filter(|(_, count)| *count > 0);
    let reasons: Vec<String> = met.map(|(reason, count)| format!("{reason} {count}")).collect();
    table.push(vec![
        yes(figures.enabled),
        Value::number(figures.entries),
        Value::number(figures.bytes),
        Value::number(figures.limit_bytes),
        Value::number(figures.hits),
        Value::number(figures.misses.iter().map(|(_, count)| count).sum::<u64>()),
        Value::number(figures.fills),
        Value::number(figures.evictions),
        Value::number(figures.invalidations),
        Value::number(figures.in_flight),
        Value::number(figures.follows),
        reasons.join(", ").into(),
    ]);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misses_are_summed_and_told_apart() {
        let figures = CacheFigures {
            enabled: true,
            hits: 7,
            misses: vec![("absent", 2), ("off", 0), ("stale", 3)],
            ..CacheFigures::default()
        };
        let row = cache_table(&figures).rows.remove(0);
        assert_eq!((&row[0], &row[4], &row[5]), (&Value::Integer(1), &Value::Integer(7), &Value::Integer(5)));
        assert_eq!(row[11], Value::text("absent 2, stale 3"));
    }
}
