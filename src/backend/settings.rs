//! Run-time settings of a session: what a client wants, what a server connection has, and the SQL between the two.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// Settings that differ from the server's own, by lower-case name; values as `SET name TO …` takes them.
pub type Settings = Arc<BTreeMap<String, String>>;

/// Who has logged in, as far as it matters for what may be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginRole {
    /// May set anything: before it becomes somebody who may not.
    Superuser,
    /// May become somebody who may set more.
    Other,
}

/// The statements that turn `applied` into `wanted`; empty when nothing differs.
pub fn difference(applied: &Settings, wanted: &Settings, login: LoginRole) -> String {
    if Arc::ptr_eq(applied, wanted) {
        return String::new();
    }
    let others = differing_others(applied, wanted);
    let as_oneself = login == LoginRole::Superuser && !others.is_empty();
    // Who becomes another session user has no role any more.
    let anew = as_oneself || applied.get(SESSION_USER) != wanted.get(SESSION_USER);
    let changed = |name: &&str| anew || applied.get(*name) != wanted.get(*name);
    let (mut back, mut on) = (String::new(), String::new());
    for name in IDENTITY.into_iter().filter(changed).filter(|name| applied.contains_key(*name)) {
        reset(&mut back, name);
    }
    for name in IDENTITY.into_iter().rev().filter(changed) {
        wanted.get(name).into_iter().for_each(|value| set(&mut on, name, value));
    }
    // Whoever the session is decides what it may set.
    match login {
        LoginRole::Superuser => back + &others + &on,
        LoginRole::Other => back + &on + &others,
    }
}

/// Somebody else has been set than who has logged in.
pub(super) fn has_identity(settings: &Settings) -> bool {
    settings.keys().any(|name| is_identity(name))
}

/// The setting says who the session is.
pub fn is_identity(name: &str) -> bool {
    IDENTITY.contains(&name)
}

/// Of all but who the session is.
fn differing_others(applied: &Settings, wanted: &Settings) -> String {
    let mut sql = String::new();
    let others = |name: &&String| !is_identity(name);
    applied.keys().filter(others).filter(|name| !wanted.contains_key(*name)).for_each(|name| reset(&mut sql, name));
    for (name, value) in wanted.iter().filter(|(name, value)| others(name) && applied.get(*name) != Some(value)) {
        if name == DATE_STYLE && !is_whole_date_style(value) && applied.contains_key(name) {
            reset(&mut sql, name);
        }
        set(&mut sql, name, value);
    }
    sql
}

/// What there is when `value` is set over what was `before`: it need not say both in which style dates are written and
/// which of day and month comes first (PostgreSQL documentation, DateStyle).
pub fn date_style_over(before: Option<&str>, value: &str) -> String {
    let Some((style, order)) = date_style(value) else { return value.to_owned() };
    // German dates begin with the day, if nothing else is said.
    let order = order.or((style == Some("german")).then_some("dmy"));
    let (old_style, old_order) = before.and_then(date_style).unwrap_or_default();
    let words = [style.or(old_style), order.or(old_order)];
    quoted(&words.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

fn is_whole_date_style(value: &str) -> bool {
    matches!(date_style(value), Some((Some(_), Some(_))))
}

/// Style and order as far as they are given. `None`: it is not understood.
fn date_style(value: &str) -> Option<(Option<&'static str>, Option<&'static str>)> {
    let (mut style, mut order) = (None, None);
    let plain = value.replace(['\'', '"'], "").to_ascii_lowercase();
    for word in plain.split(',').map(str::trim) {
        match word {
            "iso" => style = Some("iso"),
            "sql" => style = Some("sql"),
            word if word.starts_with("postgres") => style = Some("postgres"),
            word if word.starts_with("german") => style = Some("german"),
            "ymd" => order = Some("ymd"),
            "dmy" => order = Some("dmy"),
            "mdy" | "us" => order = Some("mdy"),
            word if word.starts_with("euro") => order = Some("dmy"),
            word if word.starts_with("noneuro") => order = Some("mdy"),
            _ => return None,
        }
    }
    Some((style, order))
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
const IDENTITY: [&str; 2] = ["role", SESSION_USER];
pub const SESSION_USER: &str = "session_authorization";
pub const DATE_STYLE: &str = "datestyle";

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        Arc::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    type Pairs = [(&'static str, &'static str)];

    fn check(applied: &Pairs, wanted: &Pairs, expected: &str) {
        check_as(LoginRole::Other, (applied, wanted), expected);
    }

    fn check_as(login: LoginRole, (applied, wanted): (&Pairs, &Pairs), expected: &str) {
        assert_eq!(difference(&settings(applied), &settings(wanted), login), expected);
    }

    #[test]
    fn only_differences_are_sent() {
        check(&[], &[], "");
        check(&[("timezone", "'UTC'")], &[("timezone", "'UTC'")], "");
        check(&[("timezone", "'UTC'")], &[("timezone", "'Asia/Tokyo'")], "SET \"timezone\" TO 'Asia/Tokyo';");
        let offset = "INTERVAL '+02:00' HOUR TO MINUTE";
        check(&[], &[("timezone", offset)], "SET TIME ZONE INTERVAL '+02:00' HOUR TO MINUTE;");
        check(&[("a.b", "1")], &[("c", "x, y")], "RESET \"a\".\"b\";SET \"c\" TO x, y;");
    }

    #[test]
    fn who_one_is_comes_before_what_it_sets() {
        check(
            &[("role", "a")],
            &[("role", "b"), ("session_authorization", "c"), ("x", "1")],
            "RESET ROLE;SET SESSION AUTHORIZATION c;SET ROLE b;SET \"x\" TO 1;",
        );
        let both = [("role", "a"), ("session_authorization", "b")];
        check(&both, &[("role", "a")], "RESET ROLE;RESET SESSION AUTHORIZATION;SET ROLE a;");
        check(&both, &[both[0], both[1], ("x", "1")], "SET \"x\" TO 1;");
    }

    #[test]
    fn a_superuser_sets_before_it_is_somebody_else() {
        let (both, more) = ([("role", "a"), ("session_authorization", "b")], ("x", "1"));
        let check =
            |applied: &[_], wanted: &[_], expected: &str| check_as(LoginRole::Superuser, (applied, wanted), expected);
        check(&[], &[more, both[1]], "SET \"x\" TO 1;SET SESSION AUTHORIZATION b;");
        let back = "RESET ROLE;RESET SESSION AUTHORIZATION;";
        let on = "SET SESSION AUTHORIZATION b;SET ROLE a;";
        check(&both, &[more, both[0], both[1]], &format!("{back}SET \"x\" TO 1;{on}"));
        check(&both, &both[1..], "RESET ROLE;");
    }

    #[test]
    fn a_date_style_says_two_things() {
        let over = |before: &str, value: &str| date_style_over(Some(before), value);
        assert_eq!(over("ISO, MDY", "ymd"), "'iso, ymd'");
        assert_eq!(over("'SQL, DMY'", "Postgres"), "'postgres, dmy'");
        assert_eq!(over("iso", "'German'"), "'german, dmy'");
        assert_eq!(over("'iso', 'European'", "German, US"), "'german, mdy'");
        assert_eq!(over("ISO, MDY", "nonsense"), "nonsense");
        assert_eq!(date_style_over(None, "YMD"), "'ymd'");
        let half = "RESET \"datestyle\";SET \"datestyle\" TO ymd;";
        check(&[("datestyle", "'sql, dmy'")], &[("datestyle", "ymd")], half);
        check(&[("datestyle", "ymd")], &[("datestyle", "'sql, dmy'")], "SET \"datestyle\" TO 'sql, dmy';");
    }
}
