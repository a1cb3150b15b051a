//! Which server of a shard may serve: a proven read goes to replicas, everything else to the primary.

use super::Access;
use super::relations::{Class, Resolved};
use crate::catalog::{Catalog, ViewCall, Volatility};
use crate::statement::{Call, Kind, RoleHint, SettingControl, Statement};

pub(super) fn of(statement: &Statement, relations: &[Resolved], catalog: &Catalog) -> Access {
    let access = natural(&statement.kind, statement, relations, catalog);
    match (statement.hints.role, access) {
        (Some(RoleHint::Primary), Access::Read) => Access::PrimaryRead,
        (Some(RoleHint::Replica), _) => Access::ReplicaOnly,
        _ => access,
    }
}

fn natural(kind: &Kind, statement: &Statement, relations: &[Resolved], catalog: &Catalog) -> Access {
    match kind {
        Kind::Query | Kind::DeclareCursor { .. } => reading(statement, relations, catalog),
        Kind::Copy(copy) if copy.table.is_none() => reading(statement, relations, catalog),
        Kind::Explain { analyze: false, inner } if !matches!(**inner, Kind::Query) => Access::PrimaryRead,
        Kind::Explain { inner, .. } => natural(inner, statement, relations, catalog),
        Kind::Setting(SettingControl::Show { .. }) => Access::Read,
        Kind::Setting(_) | Kind::Deallocate { .. } | Kind::ExplainRoute { .. } => Access::PrimaryRead,
        _ => Access::Write,
    }
}

fn reading(statement: &Statement, relations: &[Resolved], catalog: &Catalog) -> Access {
    if statement.locks_rows || !statement.calls.iter().all(|call| is_harmless(call, catalog)) {
        return Access::Write;
    }
    let mut access = Access::Read;
    for relation in relations {
        match relation.class {
            // What is not known may be anything: a view over a function that writes, a table just made.
            Class::Unknown => return Access::Write,
            Class::Catalog => access = Access::PrimaryRead,
            _ if relation.primary_only => access = Access::PrimaryRead,
            _ if relation.volatile_view => return Access::Write,
            _ => {}
        }
    }
    access
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

/// Gives the same on every shard at any time.
pub(super) fn is_immutable(call: &Call, catalog: &Catalog) -> bool {
    let mut overloads = catalog.functions(call.name.schema.as_deref(), &call.name.name).peekable();
    overloads.peek().is_some() && overloads.all(|function| function.volatility == Volatility::Immutable)
}

/// Its body may read tables of which a shard has a part only.
pub(super) fn is_user_defined(call: &Call, catalog: &Catalog) -> bool {
    catalog.functions(call.name.schema.as_deref(), &call.name.name).any(|function| function.is_user_defined)
}

/// Its body may change more of the server's session than a text shows.
pub(super) fn is_opaque(call: &Call, catalog: &Catalog) -> bool {
    let overloads = catalog.functions(call.name.schema.as_deref(), &call.name.name);
    overloads.into_iter().any(|function| function.is_user_defined && function.volatility == Volatility::Volatile)
}

/// An aggregate that the analysis does not know as one.
pub(super) fn is_foreign_aggregate(call: &Call, catalog: &Catalog) -> bool {
    let overloads = catalog.functions(call.name.schema.as_deref(), &call.name.name);
    overloads.into_iter().any(|function| function.is_aggregate && function.schema != "pg_catalog")
}

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
