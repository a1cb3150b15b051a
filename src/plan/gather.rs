//! Reads that only PostgreSQL itself can compute over all rows: it does, on one shard, over rows fetched from the others.
//!
//! The statement stays as it is, but for each sharded table, which becomes `unnest($n::text[]::"schema"."table"[])`: its
//! rows as text, in a parameter. So names, types, whole rows and the order of columns are those of the table, nothing is
//! written anywhere, and a replica may serve it.

use std::sync::Arc;

use super::keys::{self, Keyed};
use super::relations::{Class, Resolved};
use super::rewrite::{self, Splice};
use super::template::{Surroundings, add_condition};
use super::{Access, Fetch, Gather, Plan, Route, access};
use crate::catalog::{Column, Relation};
use crate::error::Error;
use crate::statement::{ColumnRef, Condition, Statement, Tokens, Values};
use crate::topology::{ShardId, ShardSet};

/// A query whose sharded tables can be supplied with rows from everywhere.
#[derive(Debug)]
pub(super) struct Gathering {
    home: ShardId,
    /// Rows of tables that live there only take part.
    needs_home: bool,
    /// One for each of the keyed relations, in their order.
    tables: Vec<Table>,
}

#[derive(Debug)]
struct Table {
    name: String,
    place: Tokens,
    /// ` AS "name"`, where the statement gives it none.
    alias: String,
    /// With its schema.
    qualified: String,
    /// What is fetched: `SELECT … FROM …`.
    select: String,
    conditions: Vec<Tokens>,
    /// Columns that GROUP BY of its primary key covers, which for rows of a parameter must be written down: behind this
    /// token.
    covered: Option<(u32, String)>,
}

impl Gathering {
    pub(super) fn new(
        statement: &Statement,
        resolved: &[Resolved],
        surroundings: &Surroundings<'_>,
        keyed: &Keyed,
    ) -> Result<Self, Error> {
        let refuse = |what: &str| Err(Error::unsupported(what, add_condition(keyed)));
        if statement.locks_rows {
            return refuse("FOR UPDATE or FOR SHARE on several shards");
        }
        if let Some(call) = statement.calls.iter().find(|call| !access::is_harmless(call, surroundings.catalog)) {
            return refuse(&format!("function {}, which may write, on several shards", call.name.name));
        }
        if resolved.iter().any(|relation| relation.volatile_view) {
            return refuse("a view with functions that may write, on several shards");
        }
        if statement.uses.untraced || statement.uses.samples {
            return refuse("a query of this form over several shards");
        }
        let mut names = statement.uses.names.iter().flatten().chain(&statement.uses.fields);
        if names.any(|name| SYSTEM.contains(&name.as_str())) {
            return refuse("a system column over several shards");
        }
        let is_elsewhere = |class: &Class| !matches!(class, Class::Sharded(_) | Class::Reference);
        let tables = keyed.relations.iter().map(|relation| {
            let known =
                resolved.iter().find(|known| (known.block, known.relation) == (relation.block, relation.relation));
            let table = known.and_then(|known| Table::new(statement, resolved, surroundings, known));
            table.ok_or_else(|| {
                let what = format!("a query over several shards that uses \"{}\" in this way", relation.name);
                Error::unsupported(what, add_condition(keyed))
            })
        });
        Ok(Self {
            home: surroundings.database.home,
            needs_home: resolved.iter().any(|relation| is_elsewhere(&relation.class)),
            tables: tables.collect::<Result<_, _>>()?,
        })
    }

    /// `sets`: where the rows of each keyed relation are that matter.
    pub(super) fn plan(&self, sets: &[ShardSet], values: &Values<'_>, access: Access) -> Plan {
        // Where one table's rows are, nothing of it need be fetched.
        let at = sets.iter().find_map(ShardSet::only).filter(|_| !self.needs_home).unwrap_or(self.home);
        let given = values.parameters.map_or(0, |parameters| parameters.len());
        let mut splice = Splice::new(values.text);
        let mut fetches = Vec::new();
        for (table, set) in self.tables.iter().zip(sets) {
            if set.is_empty() || set.only() == Some(at) {
                continue;
            }
            let mut select = table.select.clone();
            for (index, condition) in table.conditions.iter().enumerate() {
                let word = if index == 0 { "WHERE" } else { "AND" };
                select.push_str(&format!(" {word} ({})", splice.words(*condition)));
            }
            let parts = set.iter().map(|shard| rewrite::part(shard, select.clone())).collect();
            fetches.push(Fetch { table: table.name.clone(), parts });
            let number = given + fetches.len();
            let Table { place, qualified, alias, .. } = table;
            splice.replace(*place, format!("unnest(${number}::text[]::{qualified}[]){alias}"));
            if let Some((token, columns)) = &table.covered {
                splice.insert_after(Tokens { start: *token, end: token + 1 }, columns.clone());
            }
        }
        let gather = Gather { at, text: Arc::from(splice.finish()), fetches };
        Plan { route: Route::Gather(gather), access }
    }
}

impl Table {
    /// `None`: its rows cannot be put in its place.
    fn new(
        statement: &Statement,
        resolved: &[Resolved],
        surroundings: &Surroundings<'_>,
        known: &Resolved,
    ) -> Option<Self> {
        let relation = &statement.blocks[known.block].relations[known.relation];
        let table = known.catalog.as_ref()?;
        let qualified = format!("{}.{}", quoted(&table.schema), quoted(&table.name));
        let alias = quoted(&relation.alias);
        let needed = |column: &&Column| {
            statement.uses.names.as_ref().is_none_or(|names| names.binary_search(&column.name).is_ok())
        };
        // A type of the database's own may be a domain that allows no NULL.
        let is_own_type = |column: &Column| column.type_oid >= FIRST_OWN_TYPE;
        let values = table.columns.iter().map(|column| match needed(&column) || is_own_type(column) {
            true => format!("{alias}.{}", quoted(&column.name)),
            false => "NULL".to_owned(),
        });
        let row = values.collect::<Vec<_>>().join(", ");
        let conditions = statement.blocks[known.block].conditions.iter();
        let is_own = |condition: &&Condition| {
            let pure = condition.calls.iter().all(|name| access::is_immutable_name(name, surroundings.catalog));
            let own = |column| is_of(statement, resolved, column, known);
            !known.nullable && pure && !condition.columns.is_empty() && condition.columns.iter().all(own)
        };
        Some(Self {
            name: known.name.clone(),
            place: relation.place?,
            alias: if relation.aliased { String::new() } else { format!(" AS {alias}") },
            select: format!("SELECT ROW({row})::{qualified}::text FROM {qualified} AS {alias}"),
            conditions: conditions.filter(is_own).map(|condition| condition.tokens).collect(),
            covered: covered(statement, resolved, known, table, &|column| needed(&column)),
            qualified,
        })
        .filter(|_| !table.columns.is_empty())
    }
}

/// A column that is certainly this relation's.
fn is_of(statement: &Statement, resolved: &[Resolved], column: &ColumnRef, known: &Resolved) -> bool {
    let has_it = known.catalog.as_ref().is_some_and(|table| table.column(&column.column).is_some());
    let owner = match column.relation {
        Some(of) => Some((of.block, of.relation)),
        None => keys::owner(statement, resolved, column),
    };
    has_it && owner == Some((known.block, known.relation))
}

/// Which columns a GROUP BY that has the whole primary key covers (PostgreSQL documentation, 7.2.3), and its last token.
fn covered(
    statement: &Statement,
    resolved: &[Resolved],
    known: &Resolved,
    table: &Relation,
    needed: &dyn Fn(&Column) -> bool,
) -> Option<(u32, String)> {
    let grouped = statement.blocks[known.block].grouped.iter();
    let own: Vec<_> = grouped.filter(|(column, _)| is_of(statement, resolved, column, known)).collect();
    let has = |name: &String| own.iter().any(|(column, _)| column.column == *name);
    if table.primary_key.is_empty() || !table.primary_key.iter().all(has) {
        return None;
    }
    let alias = quoted(&statement.blocks[known.block].relations[known.relation].alias);
    let more = table.columns.iter().filter(|column| needed(column) && !has(&column.name));
    let more = more.filter(|column| !UNGROUPABLE.contains(&column.type_oid));
    let columns: String = more.map(|column| format!(", {alias}.{}", quoted(&column.name))).collect();
    let last = own.iter().map(|(_, token)| *token).max()?;
    (!columns.is_empty()).then_some((last, columns))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Rows of a parameter have none of these (PostgreSQL documentation, 5.5).
const SYSTEM: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];
const FIRST_OWN_TYPE: u32 = 16_384;
/// json, xml, point, line, lseg, path, polygon: types without equality.
const UNGROUPABLE: [u32; 7] = [114, 142, 600, 628, 601, 602, 604];
