//! Run-time settings of a session: what a client wants, what a server connection has, and the SQL between the two.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// Settings that differ from the server's own, by lower-case name; values as `SET name TO …` takes them.
pub type Settings = Arc<BTreeMap<String, String>>;

/// The statements that turn `applied` into `wanted`; empty when nothing differs.
pub fn difference(applied: &Settings, wanted: &Settings) -> String {
    let mut sql = String::new();
    if Arc::ptr_eq(applied, wanted) {
        return sql;
    }
    let changed = |name: &str| applied.get(name) != wanted.get(name);
    // Whoever the session is decides what it may set: first back to oneself, then on to another.
    for name in IDENTITY {
        if applied.contains_key(name) && changed(name) {
            reset(&mut sql, name);
        }
    }
    for name in IDENTITY.iter().rev() {
        if let Some(value) = wanted.get(*name).filter(|_| changed(name)) {
            set(&mut sql, name, value);
        }
    }
    let others = |name: &&String| !IDENTITY.contains(&name.as_str());
    applied.keys().filter(others).filter(|name| !wanted.contains_key(*name)).for_each(|name| reset(&mut sql, name));
    let new = wanted.iter().filter(|(name, _)| others(name) && changed(name));
    new.for_each(|(name, value)| set(&mut sql, name, value));
    sql
}

/// `value` as a literal of SQL, whatever it contains.
pub fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

fn set(sql: &mut String, name: &str, value: &str) {
    let written = match name {
        "session_authorization" => write!(sql, "SET SESSION AUTHORIZATION {value};"),
        "role" => write!(sql, "SET ROLE {value};"),
        "timezone" if is_interval(value) => write!(sql, "SET TIME ZONE {value};"),
        _ => write!(sql, "SET {} TO {value};", identifier(name)),
    };
    written.expect("a String takes everything");
}

/// `SET LOCAL` of a value as SET takes it.
pub fn local(name: &str, value: &str) -> String {
    match name {
        "session_authorization" => format!("SET LOCAL SESSION AUTHORIZATION {value}"),
        "role" => format!("SET LOCAL ROLE {value}"),
        "timezone" if is_interval(value) => format!("SET LOCAL TIME ZONE {value}"),
        _ => format!("SET LOCAL {} TO {value}", identifier(name)),
    }
}

/// The one kind of value that only `SET TIME ZONE` takes.
fn is_interval(value: &str) -> bool {
    value.get(..8).is_some_and(|word| word.eq_ignore_ascii_case("interval"))
}

fn reset(sql: &mut String, name: &str) {
    let written = match name {
        "session_authorization" => write!(sql, "RESET SESSION AUTHORIZATION;"),
        "role" => write!(sql, "RESET ROLE;"),
        _ => write!(sql, "RESET {};", identifier(name)),
    };
    written.expect("a String takes everything");
}

/// Each part of a dotted name quoted: a startup parameter's name comes from outside.
fn identifier(name: &str) -> String {
    name.split('.').map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect::<Vec<_>>().join(".")
}

/// Undone in this order, done in the reverse.
const IDENTITY: [&str; 2] = ["role", "session_authorization"];

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        Arc::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    fn check(applied: &[(&str, &str)], wanted: &[(&str, &str)], expected: &str) {
        assert_eq!(difference(&settings(applied), &settings(wanted)), expected);
    }

    #[test]
    fn only_differences_are_sent() {
        check(&[], &[], "");
        check(&[("timezone", "'UTC'")], &[("timezone", "'UTC'")], "");
        check(&[("timezone", "'UTC'")], &[("timezone", "'Asia/Tokyo'")], "SET \"timezone\" TO 'Asia/Tokyo';");
        let offset = "INTERVAL '+02:00' HOUR TO MINUTE";
        check(&[], &[("timezone", offset)], "SET TIME ZONE INTERVAL '+02:00' HOUR TO MINUTE;");
        check(&[("a.b", "1")], &[("c", "x, y")], "RESET \"a\".\"b\";SET \"c\" TO x, y;");
        check(
            &[("role", "a")],
            &[("role", "b"), ("session_authorization", "c"), ("x", "1")],
            "RESET ROLE;SET SESSION AUTHORIZATION c;SET ROLE b;SET \"x\" TO 1;",
        );
    }
}
