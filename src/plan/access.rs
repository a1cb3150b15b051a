//! Which server of a shard may serve: a proven read goes to replicas, everything else to the primary.

use super::Access;
use super::relations::{Class, Resolved};
use crate::catalog::{Catalog, ViewCall, Volatility};
use crate::statement::{Body, Call, Kind, ObjectName, RoleHint, SettingControl, Statement};

/// Which servers may serve, and why not any.
pub(super) fn of(statement: &Statement, relations: &[Resolved], catalog: &Catalog) -> (Access, String) {
    let (access, why) = natural(&statement.kind, statement, relations, catalog);
    match (statement.hints.role, access) {
        (Some(RoleHint::Primary), Access::Read) => (Access::PrimaryRead, "a hint asks for the primary".to_owned()),
        (Some(RoleHint::Replica), _) => (Access::ReplicaOnly, why),
        _ => (access, why),
    }
}

fn natural(kind: &Kind, statement: &Statement, relations: &[Resolved], catalog: &Catalog) -> (Access, String) {
    match kind {
        Kind::DeclareCursor { hold: true, .. } => match reading(statement, relations, catalog) {
            (Access::Read, _) => (Access::PrimaryRead, "the session stays there, and may write".to_owned()),
            otherwise => otherwise,
        },
        Kind::Query | Kind::DeclareCursor { .. } => reading(statement, relations, catalog),
        Kind::Copy(copy) if !copy.from && copy.is_client => reading(statement, relations, catalog),
        Kind::Explain { analyze: false, inner } if !matches!(**inner, Kind::Query) => {
            (Access::PrimaryRead, "planned, not run".to_owned())
        }
        Kind::Explain { inner, .. } => natural(inner, statement, relations, catalog),
        Kind::Setting(SettingControl::Show { .. }) => (Access::Read, "a read".to_owned()),
        Kind::Setting(_) | Kind::Deallocate { .. } | Kind::ExplainRoute { .. } => {
            (Access::PrimaryRead, "of the session".to_owned())
        }
        Kind::ModifyingQuery { into: true } => (Access::Write, "SELECT INTO makes a table".to_owned()),
        Kind::ModifyingQuery { into: false } => (Access::Write, "a write in WITH".to_owned()),
        Kind::Unknown { .. } => (Access::Write, "not understood".to_owned()),
        _ => (Access::Write, "a write".to_owned()),
    }
}

fn reading(statement: &Statement, relations: &[Resolved], catalog: &Catalog) -> (Access, String) {
    if statement.locks_rows {
        return (Access::Write, "FOR UPDATE or FOR SHARE locks rows".to_owned());
    }
    if let Some(call) = statement.calls.iter().find(|call| !is_harmless(call, catalog)) {
        return (Access::Write, format!("function {} may write", call.name.name));
    }
    let of_server = |call: &Call| {
        let name = call.name.name.as_str();
        OF_THE_SERVER.contains(&name) || name.starts_with("pg_stat_")
    };
    let mut primary = None;
    if relations.is_empty() && statement.calls.iter().any(of_server) {
        primary = Some("asks about the server itself".to_owned());
    }
    for relation in relations {
        let name = &relation.name;
        match relation.class {
            // What is not known may be anything: a view over a function that writes, a table just made.
            Class::Unknown => return (Access::Write, format!("{name} is not known")),
            _ if relation.volatile_view => {
                return (Access::Write, format!("view {name} calls functions that may write"));
            }
            Class::Catalog => primary = Some("replicas' catalogs may be late".to_owned()),
            _ if relation.primary_only => primary = Some(format!("replicas do not hold the rows of {name}")),
            _ => {}
        }
    }
    primary.map_or_else(|| (Access::Read, "a read".to_owned()), |why| (Access::PrimaryRead, why))
}

/// Its call changes nothing: by the catalog, or by name.
pub(super) fn is_harmless(call: &Call, catalog: &Catalog) -> bool {
    let name = call.name.name.as_str();
    let mut overloads = catalog.functions(call.name.schema.as_deref(), name).peekable();
    if overloads.peek().is_none() {
        return false;
    }
    overloads.all(|function| {
        function.volatility != Volatility::Volatile || (function.schema == "pg_catalog" && HARMLESS.contains(&name))
    })
}

/// The same of a function that a view calls.
pub(super) fn is_harmless_in_view(call: &ViewCall) -> bool {
    call.volatility != Volatility::Volatile || (call.schema == "pg_catalog" && HARMLESS.contains(&call.name.as_str()))
}

/// What it does must happen where others look for it: sequences, advisory locks, notifications count on one server only.
pub(super) fn is_anchored(call: &Call, catalog: &Catalog) -> bool {
    !is_harmless(call, catalog) && !OF_THE_SESSION.contains(&call.name.name.as_str())
}

/// Gives the same on every shard at any time.
pub(super) fn is_immutable(call: &Call, catalog: &Catalog) -> bool {
    is_immutable_name(&call.name, catalog)
}

pub(super) fn is_immutable_name(name: &ObjectName, catalog: &Catalog) -> bool {
    let mut overloads = catalog.functions(name.schema.as_deref(), &name.name).peekable();
    overloads.peek().is_some() && overloads.all(|function| function.volatility == Volatility::Immutable)
}

/// Two calls of one statement may give different values.
pub(super) fn is_volatile(call: &Call, catalog: &Catalog) -> bool {
    let mut overloads = catalog.functions(call.name.schema.as_deref(), &call.name.name).peekable();
    overloads.peek().is_none() || overloads.any(|function| function.volatility == Volatility::Volatile)
}

/// Its body may read tables of which a shard has a part only; so may that of one just made, or made for a session.
pub(super) fn may_read_tables(call: &Call, catalog: &Catalog) -> bool {
    let mut overloads = catalog.functions(call.name.schema.as_deref(), &call.name.name).peekable();
    overloads.peek().is_none() || overloads.any(|function| function.is_user_defined)
}

/// What in a statement may read tables of which a shard has a part only: a function's name.
pub(super) fn reading_function<'s>(
    statement: &'s Statement,
    resolved: &[Resolved],
    catalog: &Catalog,
) -> Option<&'s str> {
    let called = statement.calls.iter().find(|call| may_read_tables(call, catalog)).map(|call| &*call.name.name);
    // `t.f` is a call of f, too, where t has no such column.
    let reads = |field: &&String| {
        !is_column(field, resolved) && catalog.functions(None, field).any(|function| function.is_user_defined)
    };
    called.or_else(|| statement.uses.fields.iter().find(reads).map(String::as_str))
}

/// A view or function in it may read such tables.
pub(super) fn reads_unseen(statement: &Statement, resolved: &[Resolved], catalog: &Catalog) -> bool {
    resolved.iter().any(|relation| matches!(relation.class, Class::View))
        || reading_function(statement, resolved, catalog).is_some()
}

/// Of some relation whose columns are known.
pub(super) fn is_column(field: &str, resolved: &[Resolved]) -> bool {
    resolved.iter().filter_map(|relation| relation.catalog.as_ref()).any(|known| known.column(field).is_some())
}

/// But for the statements of SQL in it.
pub fn may_only_compute(body: &Body, catalog: &Catalog) -> bool {
    !body.words.iter().any(|word| may_reach_tables(word, catalog))
}

/// A word of PL/pgSQL by which tables, or what else is on every shard, could be reached.
fn may_reach_tables(word: &str, catalog: &Catalog) -> bool {
    let mut functions = catalog.functions(None, word);
    REACHING.contains(&word)
        || functions.any(|function| function.is_user_defined || function.volatility == Volatility::Volatile)
}

/// Its body may change more of the server's session than a text shows; so may that of one just made.
pub(super) fn is_opaque(call: &Call, catalog: &Catalog) -> bool {
    let mut overloads = catalog.functions(call.name.schema.as_deref(), &call.name.name).peekable();
    overloads.peek().is_none()
        || overloads.any(|function| function.is_user_defined && function.volatility == Volatility::Volatile)
}

/// An aggregate that the analysis does not know as one.
pub(super) fn is_foreign_aggregate(call: &Call, catalog: &Catalog) -> bool {
    let overloads = catalog.functions(call.name.schema.as_deref(), &call.name.name);
    overloads.into_iter().any(|function| function.is_aggregate && function.schema != "pg_catalog")
}

/// Volatile functions that change or tell what belongs to the transaction or session they are called in.
const OF_THE_SESSION: [&str; 4] = ["set_config", "setseed", "txid_current", "pg_current_xact_id"];
/// What they give is another thing on each server; clients that ask nothing else mean the one that takes writes, by
/// which drivers choose where to connect to. Who waits and nothing else is looked for there, too: in `pg_stat_activity`.
const OF_THE_SERVER: [&str; 10] = [
    "current_setting",
    "inet_server_addr",
    "inet_server_port",
    "pg_backend_pid",
    "pg_conf_load_time",
    "pg_current_wal_lsn",
    "pg_is_in_recovery",
    "pg_last_wal_replay_lsn",
    "pg_postmaster_start_time",
    "pg_sleep",
];
/// Volatile functions that write nothing.
pub(super) const HARMLESS: [&str; 9] = [
    "clock_timestamp",
    "gen_random_uuid",
    "pg_backend_pid",
    "pg_current_wal_lsn",
    "pg_is_in_recovery",
    "pg_last_wal_replay_lsn",
    "random",
    "timeofday",
    "pg_sleep",
];
const REACHING: [&str; 26] = [
    "select", "from", "table", "into", "insert", "update", "delete", "merge", "with", "values", "execute", "perform",
    "call", "copy", "create", "alter", "drop", "truncate", "grant", "revoke", "lock", "set", "reset", "notify",
    "listen", "refresh",
];
