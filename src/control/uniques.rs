//! Columns that are declared unique over all shards: triggers on every shard tell what a write changes, and the home shard
//! has all values (`pgweir.unique_values`). Both are made here.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use futures_util::future::join_all;

use super::catalog::{flag, text};
use super::connect::{Client, Login, SqlError, connect};
use super::primaries::Primaries;
use crate::catalog::{Catalog, Relation, RelationKind};
use crate::statement::{quoted_literal, quoted_name};
use crate::topology::Database;

/// Which tables have their triggers.
#[derive(Default)]
pub(super) struct Uniques {
    /// Some could not be given theirs, which may be otherwise at the next attempt.
    behind: bool,
}

impl Uniques {
    pub(super) fn are_behind(&self) -> bool {
        self.behind
    }

    /// Gives tables without rows their triggers; `true`: some have been given now. Rows that are there are looked at by
    /// [`fill`] only.
    pub(super) async fn keep(&mut self, primaries: &Primaries, database: &Database, catalog: &Catalog) -> bool {
        // Who is stopped half way comes again.
        self.behind = true;
        let (mut made, mut behind) = (false, false);
        for (table, columns) in declared(database, catalog) {
            if table.kept_unique == columns {
                continue;
            }
            let Some(logins) = primaries.all() else { continue };
            match fill(&logins, usize::from(database.home.0), &table, columns, false).await {
                Ok(Filled::Kept(_)) => made = true,
                Ok(Filled::Refused(why)) => {
                    tracing::warn!(table = table.name, why, "values of its unique columns are not kept");
                }
                Err(cause) => {
                    tracing::warn!(%cause, table = table.name, "values of its unique columns are not kept yet");
                    behind |= cause.sqlstate() != Some(INSUFFICIENT_PRIVILEGE);
                }
            }
        }
        self.behind = behind;
        made
    }
}

/// Each table of the catalog with such columns.
pub(super) fn declared<'d>(database: &'d Database, catalog: &Catalog) -> Vec<(Arc<Relation>, &'d [String])> {
    let tables = catalog.relations.values().flat_map(|names| names.values());
    let declared = tables.map(|table| (Arc::clone(table), database.unique(Some(&table.schema), &table.name)));
    declared.filter(|(_, columns)| !columns.is_empty()).collect()
}

/// What became of an attempt.
pub(super) enum Filled {
    /// So many values.
    Kept(usize),
    Refused(String),
}

/// Makes the triggers on all shards, and the list of values anew on home. `rows`: tables may have some.
pub(super) async fn fill(
    logins: &[Login],
    home: usize,
    table: &Relation,
    columns: &[String],
    rows: bool,
) -> Result<Filled, SqlError> {
    if let Some(why) = fault(table, columns) {
        return Ok(Filled::Refused(why));
    }
    // Sessions of their own: whatever stops this, their end undoes it.
    let mut clients = Vec::new();
    for login in logins {
        clients.push(connect(login).await?);
    }
    let name = format!("{}.{}", quoted_name(&table.schema), quoted_name(&table.name));
    let lock = format!("BEGIN; {SETTINGS}; LOCK TABLE {name} IN SHARE ROW EXCLUSIVE MODE");
    for client in &clients {
        client.batch(&lock).await?;
    }
    if !rows {
        let any = format!("SELECT EXISTS (SELECT FROM {name})");
        let found = join_all(clients.iter().map(|client| client.rows(&any))).await;
        for found in found {
            if found?.first().is_some_and(|row| flag(row, 0)) {
                return Ok(Filled::Refused("it has rows: run `pgweir check --live --repair` once".to_owned()));
            }
        }
    }
    for client in &clients {
        client.batch(&triggers(&name, columns)).await?;
    }
    let relation = relation_of(&clients[home], table).await?;
    let forget = format!("DELETE FROM pgweir.unique_values WHERE relation = {}", quoted_literal(&relation));
    clients[home].batch(&forget).await?;
    let mut kept = 0;
    for column in columns {
        let mut shards: HashMap<String, usize> = HashMap::new();
        for (shard, client) in clients.iter().enumerate() {
            for row in client.rows(&values_of(&name, column)).await? {
                let value = text(&row, 0);
                if let Some(other) = shards.insert(value.clone(), shard) {
                    let why = format!("{column} = {value} is on shard {other} and on shard {shard}");
                    return Ok(Filled::Refused(why));
                }
            }
        }
        let mut data = String::new();
        for value in shards.keys() {
            let fields = [relation.as_str(), column, value].map(|field| format!("\"{}\"", field.replace('"', "\"\"")));
            writeln!(data, "{}", fields.join(",")).expect("writing to a String cannot fail");
        }
        let copy = "COPY pgweir.unique_values (relation, field, value) FROM STDIN (FORMAT csv)";
        clients[home].copy_in(copy, data.into()).await?;
        kept += shards.len();
    }
    // Home last: by its triggers it is known that the values are kept.
    let (last, others): (Vec<_>, Vec<_>) = clients.iter().enumerate().partition(|(shard, _)| *shard == home);
    for (_, client) in others.into_iter().chain(last) {
        client.batch("COMMIT").await?;
    }
    Ok(Filled::Kept(kept))
}

/// Why values of these columns cannot be kept.
pub(super) fn fault(table: &Relation, columns: &[String]) -> Option<String> {
    if table.kind != RelationKind::Table || !table.descendants.is_empty() || !table.ancestors.is_empty() {
        return Some("columns of tables that are partitioned or inherit cannot be kept unique".to_owned());
    }
    columns.iter().find_map(|name| match table.column(name) {
        None => Some(format!("it has no column {name}")),
        Some(column) if column.is_nondeterministic => Some(format!("equal values of {name} may have different texts")),
        Some(column) if !TYPES.contains(&column.type_oid) => {
            Some(format!("{name} is not of a type whose equal values have equal texts: integer, text, uuid, date"))
        }
        Some(_) => None,
    })
}

/// As the triggers name it.
pub(super) async fn relation_of(home: &Client, table: &Relation) -> Result<String, SqlError> {
    let (schema, name) = (quoted_literal(&table.schema), quoted_literal(&table.name));
    let rows = home.rows(&format!("SELECT format('%I.%I', {schema}::text, {name}::text)")).await?;
    Ok(rows.first().map(|row| text(row, 0)).unwrap_or_default())
}

/// The values of a column as texts, NULLs left out, as the triggers write them.
pub(super) fn values_of(table: &str, column: &str) -> String {
    let column = quoted_name(column);
    format!("SELECT {column}::text AS value FROM {table} WHERE {column} IS NOT NULL")
}

fn triggers(table: &str, columns: &[String]) -> String {
    let arguments: Vec<String> = columns.iter().map(|column| quoted_literal(column)).collect();
    let call = format!("FOR EACH STATEMENT EXECUTE FUNCTION pgweir.note_unique({})", arguments.join(", "));
    let each = |(name, when): &(&str, &str)| {
        let (event, seen) = when.split_once('|').unwrap_or((*when, ""));
        format!(
            "DROP TRIGGER IF EXISTS pgweir_unique_{name} ON {table}; \
             CREATE TRIGGER pgweir_unique_{name} {event} ON {table} {seen} {call}; "
        )
    };
    EVENTS.iter().map(each).collect()
}

const INSUFFICIENT_PRIVILEGE: &str = "42501";
const EVENTS: [(&str, &str); 4] = [
    ("insert", "AFTER INSERT|REFERENCING NEW TABLE AS new_rows"),
    ("update", "AFTER UPDATE|REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows"),
    ("delete", "AFTER DELETE|REFERENCING OLD TABLE AS old_rows"),
    ("truncate", "BEFORE TRUNCATE"),
];
/// smallint, integer, bigint, text, varchar, uuid, date.
const TYPES: [u32; 7] = [21, 23, 20, 25, 1043, 2950, 1082];
/// Nobody waits long for a table that is in use; notices of triggers that were not there are of no interest.
const SETTINGS: &str = "SET LOCAL lock_timeout = '5s'; SET LOCAL client_min_messages = warning; \
     SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD'";
