//! Texts that ask for numbers of processes, or name them: clients have numbers of ours, servers' processes their own.
//!
//! PostgreSQL documentation: 9.26 (`pg_backend_pid`), 9.27.2 (signalling functions), 28.2 (the views).

use std::ops::Range;

use super::names::is_own;
use super::scan::{Lexer, LiteralKind, TokenKind};
use super::showing::{Call, calls};
use super::types::{BACKEND_PID, Kind, SIGNALS, Statement};

/// A number of the session's own has to stand in the place of [`BACKEND_PID`]: the statement asks for it, and for nothing
/// that knows processes by the server's numbers.
pub fn shows_number(statement: &Statement) -> bool {
    matches!(statement.kind, Kind::Query)
        && statement.calls.iter().any(|call| is_own(&call.name, |name| name == BACKEND_PID))
        && !names_processes(statement)
        && !signals(statement)
        && statement.blocks.iter().flat_map(|block| &block.relations).all(|relation| relation.table.is_none())
}

/// The statement signals processes: some may be clients.
pub fn signals(statement: &Statement) -> bool {
    matches!(statement.kind, Kind::Query)
        && statement.calls.iter().any(|call| is_own(&call.name, |name| SIGNALS.contains(&name)))
}

/// The statement knows processes by the server's numbers.
pub fn names_processes(statement: &Statement) -> bool {
    let mut tables =
        statement.blocks.iter().flat_map(|block| &block.relations).filter_map(|known| known.table.as_ref());
    tables.any(|table| is_own(table, |name| VIEWS.contains(&name) || name.starts_with(PROGRESS)))
        || statement.calls.iter().any(|call| is_own(&call.name, |name| FUNCTIONS.contains(&name)))
}

/// Where this part of the text calls `pg_backend_pid()`, and what gives this number there.
pub fn number_shown(text: &str, within: Range<usize>, number: i32) -> Vec<(Range<usize>, String)> {
    let calls = calls(text, within, BACKEND_PID).into_iter().filter(|call| call.arguments.is_empty());
    let instead = |call: Call| match call.is_table {
        true => (call.place.clone(), format!("pg_catalog.abs({number}){}", call.alias(BACKEND_PID))),
        false => selected(&call, BACKEND_PID, &number.to_string()),
    };
    calls.map(instead).collect()
}

/// Where this part of the text signals processes by this function, and what answers there as it should if those of these
/// numbers have been signalled.
pub fn signals_shown(text: &str, within: Range<usize>, name: &str, numbers: &[i32]) -> Vec<(Range<usize>, String)> {
    let all: Vec<_> = numbers.iter().map(i32::to_string).collect();
    let calls = calls(text, within, name).into_iter().filter(|call| !call.arguments.is_empty() && !call.is_table);
    let instead = |call: Call| {
        let (written, process) = (&text[call.place.clone()], &text[call.arguments[0].clone()]);
        // Of a number that is written down, nothing else matters.
        let listed = match process.parse::<i32>() {
            Ok(number) => numbers.contains(&number).then(|| number.to_string())?,
            Err(_) => all.join(","),
        };
        let known = format!("'{{{listed}}}'::pg_catalog.int4[]");
        let known = format!("pg_catalog.array_position({known}, {process}) IS NOT NULL");
        // The planner leaves out neither half, as it may do with OR.
        let both = format!("CASE WHEN {written} THEN true ELSE {known} END");
        Some(selected(&call, name, &both))
    };
    calls.filter_map(instead).collect()
}

/// A query for one value has the name of its column, also where it is cast.
fn selected(call: &Call, name: &str, value: &str) -> (Range<usize>, String) {
    (call.place.clone(), format!("(SELECT {value} AS {name})"))
}

/// Where literals in this part of the text are such numbers, or hold some (`'{1,2}'`), and what is to stand there; `own` is
/// the number of whoever asks.
pub fn numbers_in(
    text: &str,
    within: Range<usize>,
    own: i32,
    instead: impl Fn(i32) -> Option<i32>,
) -> Vec<(Range<usize>, String)> {
    let tokens = Lexer::new(text.as_bytes());
    let literals = tokens.filter(|token| {
        within.contains(&(token.start as usize))
            && matches!(token.kind, TokenKind::Literal(LiteralKind::Integer | LiteralKind::Text | LiteralKind::Dollar))
    });
    let places = literals.map(|token| token.start as usize..token.end as usize);
    let other = |place: Range<usize>| match text[place.clone()].parse() == Ok(own) {
        true => Some((place, format!("pg_catalog.{BACKEND_PID}()"))),
        false => Some((place.clone(), numbers_in_text(&text[place], &instead)?)),
    };
    places.filter_map(other).collect()
}

/// The text with other numbers in the place of some that it holds, if it does.
pub fn numbers_in_text(text: &str, instead: impl Fn(i32) -> Option<i32>) -> Option<String> {
    let (mut made, mut rest, mut found) = (String::new(), text, false);
    while let Some(start) = rest.find(|letter: char| letter.is_ascii_digit()) {
        let (before, digits) = rest.split_at(start);
        let length = digits.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(digits.len());
        let (digits, behind) = digits.split_at(length);
        let is_whole =
            |next: Option<char>| !next.is_some_and(|letter| letter.is_alphanumeric() || letter == '_' || letter == '.');
        let stands_alone = is_whole(before.chars().next_back()) && is_whole(behind.chars().next());
        let other = digits.parse().ok().filter(|_| stands_alone).and_then(&instead);
        made.push_str(before);
        match other {
            Some(other) => made.push_str(&other.to_string()),
            None => made.push_str(digits),
        }
        found |= other.is_some();
        rest = behind;
    }
    made.push_str(rest);
    found.then_some(made)
}

/// They have a column of process numbers.
const VIEWS: [&str; 8] = [
    "pg_locks",
    "pg_replication_slots",
    "pg_stat_activity",
    "pg_stat_gssapi",
    "pg_stat_replication",
    "pg_stat_ssl",
    "pg_stat_subscription",
    "pg_stat_wal_receiver",
];
const PROGRESS: &str = "pg_stat_progress_";
/// They take or give process numbers.
const FUNCTIONS: [&str; 7] = [
    "pg_blocking_pids",
    "pg_isolation_test_session_is_blocked",
    "pg_lock_status",
    "pg_log_backend_memory_contexts",
    "pg_safe_snapshot_blocking_pids",
    "pg_stat_get_activity",
    "pg_stat_get_wal_senders",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::spliced;

    fn of(text: &str, places: Vec<(Range<usize>, String)>) -> String {
        spliced(text, places).0
    }

    #[test]
    fn a_number_stands_in_the_place_of_the_call() {
        for (text, expected) in [
            ("select pg_backend_pid()", "select (SELECT 7 AS pg_backend_pid)"),
            ("select pg_backend_pid() as pid, 1", "select (SELECT 7 AS pg_backend_pid) as pid, 1"),
            ("SELECT pg_catalog.PG_backend_pid()::text;", "SELECT (SELECT 7 AS pg_backend_pid)::text;"),
            ("select * from pg_backend_pid()", "select * from pg_catalog.abs(7) AS pg_backend_pid"),
            ("select p from pg_backend_pid() p", "select p from pg_catalog.abs(7) p"),
            ("select 'pg_backend_pid()', pg_backend_pid", "select 'pg_backend_pid()', pg_backend_pid"),
        ] {
            assert_eq!(of(text, number_shown(text, 0..text.len(), 7)), expected, "{text}");
        }
        let text = "select pg_backend_pid(); select pg_backend_pid()";
        assert_eq!(
            of(text, number_shown(text, 0..23, 7)),
            "select (SELECT 7 AS pg_backend_pid); select pg_backend_pid()"
        );
    }

    #[test]
    fn who_signals_a_client_is_told_so() {
        let name = "pg_terminate_backend";
        let known = |argument: &str| {
            format!("ELSE pg_catalog.array_position('{{5,6}}'::pg_catalog.int4[], {argument}) IS NOT NULL END")
        };
        for (text, expected) in [
            (
                "select pg_terminate_backend($1)",
                format!(
                    "select (SELECT CASE WHEN pg_terminate_backend($1) THEN true {} AS pg_terminate_backend)",
                    known("$1")
                ),
            ),
            (
                "select pg_terminate_backend(greatest(a.pid, 1), 100) from a",
                format!(
                    "select (SELECT CASE WHEN pg_terminate_backend(greatest(a.pid, 1), 100) THEN true \
                     {} AS pg_terminate_backend) from a",
                    known("greatest(a.pid, 1)")
                ),
            ),
            ("select pg_terminate_backend(7)", "select pg_terminate_backend(7)".to_owned()),
            ("select pg_terminate_backend(", "select pg_terminate_backend(".to_owned()),
        ] {
            assert_eq!(of(text, signals_shown(text, 0..text.len(), name, &[5, 6])), expected, "{text}");
        }
    }

    #[test]
    fn numbers_are_found_in_literals() {
        let instead = |number: i32| (number > 99).then_some(number - 100);
        for (text, expected) in [
            ("select * from pg_locks where pid = 142", "select * from pg_locks where pid = 42"),
            ("select f(101, '{142,3,143}', $$199$$), a142", "select f(1, '{42,3,43}', $$99$$), a142"),
            ("select '1.142', '142x', 99, 99999999999999", "select '1.142', '142x', 99, 99999999999999"),
            ("select 7 = pid, '7'", "select pg_catalog.pg_backend_pid() = pid, '7'"),
        ] {
            assert_eq!(of(text, numbers_in(text, 0..text.len(), 7, instead)), expected, "{text}");
        }
    }
}
