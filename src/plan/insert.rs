//! INSERT: every row goes where its key is.

use std::sync::Arc;

use super::keys::KeyValue;
use super::relations::{Class, Resolved, Sharded};
use super::rewrite::{self, Splice};
use super::surroundings::Surroundings;
use super::through::Through;
use super::transfer::Transferring;
use super::{Access, Plan, Route, Spread, Tag, access};
use crate::catalog::Catalog;
use crate::error::Error;
use crate::statement::{Call, Given, Insert, InsertSource, Row, Statement, Tokens, Value, Values};
use crate::topology::ShardId;

/// An INSERT of rows into a sharded table.
#[derive(Debug)]
pub(super) struct Inserting {
    table: String,
    sharded: Arc<Sharded>,
    /// Which of a row's values is the key; `None`: no row has one, and every server refuses that.
    position: Option<usize>,
    /// How many values a row must have.
    listed: Option<usize>,
    rows: Vec<Row>,
    returning: bool,
    /// A function that must not be called on several shards.
    of_one_shard: Option<Call>,
    /// Any server refuses a row whose key is NULL or beyond its type, in PostgreSQL's words.
    refuses_null: bool,
    /// The same of a row without one.
    needs_key: bool,
    /// What to do where a key is known to a server only.
    computed: Option<Box<Transferring>>,
}

impl Inserting {
    /// `None`: the table is not sharded.
    pub(super) fn new(
        statement: &Statement,
        insert: &Insert,
        resolved: &[Resolved],
        surroundings: &Surroundings<'_>,
    ) -> Result<Option<Self>, Error> {
        let Some(target) = resolved.iter().find(|relation| relation.written && relation.block == 0) else {
            return Ok(None);
        };
        let others_are_plain = resolved.iter().filter(|relation| !relation.written).all(|relation| {
            matches!(
                (&target.class, &relation.class),
                (Class::Home, Class::Home | Class::Reference | Class::Catalog) | (_, Class::Reference)
            )
        });
        if !others_are_plain {
            return Err(Error::unsupported(
                "INSERT … SELECT from tables on other shards",
                "Read the rows first, then insert them, or name the shard in a routing hint.",
            ));
        }
        if matches!(target.class, Class::View) {
            let refused = Through::refused(statement, target);
            return Err(refused.unwrap_or_else(|| {
                Error::unsupported("INSERT into a view over sharded tables", "Insert into its table.")
            }));
        }
        let Some(sharded) = target.sharded() else { return Ok(None) };
        let column = target.catalog.as_ref().and_then(|table| table.column(&sharded.column));
        let is_checked = target.catalog.as_ref().is_some_and(|table| !table.has_triggers);
        let needs_key = is_checked && column.is_some_and(|column| column.needs_value);
        let rows: &[Row] = match &insert.source {
            InsertSource::Values(rows) => rows,
            InsertSource::DefaultValues if needs_key => &[],
            InsertSource::DefaultValues | InsertSource::Query(_) => {
                return Err(Error::unsupported(
                    format!("INSERT into sharded table \"{}\" without VALUES", target.name),
                    "Give the rows as VALUES, or name the shard in a routing hint.",
                ));
            }
        };
        let position = if insert.columns.is_empty() {
            let columns = target.catalog.as_ref().map_or(&[][..], |relation| &relation.columns);
            columns.iter().position(|column| column.name == sharded.column)
        } else {
            insert.columns.iter().position(|column| *column == sharded.column)
        };
        let position = position.filter(|_| !rows.is_empty());
        if position.is_none() && !needs_key {
            return Err(no_key(&target.name, &sharded.column));
        }
        debug_assert!(!statement.blocks.is_empty(), "an INSERT has a block for its target");
        Ok(Some(Self {
            table: target.name.clone(),
            sharded: Arc::clone(sharded),
            position,
            listed: (!insert.columns.is_empty()).then_some(insert.columns.len()),
            rows: rows.to_vec(),
            returning: insert.returning,
            refuses_null: is_checked && column.is_some_and(|column| column.not_null),
            needs_key,
            computed: Transferring::new(statement, insert, resolved, surroundings).map(Box::new),
            of_one_shard: statement.calls.iter().find(|call| !is_of_any_shard(call, surroundings.catalog)).cloned(),
        }))
    }

    pub(super) fn plan(&self, values: &Values<'_>) -> Result<Plan, Error> {
        if self.position.is_none() || self.rows.iter().any(|row| self.is_refused(row, values)) {
            return Ok(Plan { route: Route::One(self.sharded.any()), access: Access::Write });
        }
        if let Some(computed) = &self.computed
            && self.rows.iter().any(|row| self.is_computed(row, values))
        {
            return computed.plan(values);
        }
        let shards = self.rows.iter().map(|row| self.shard(row, values)).collect::<Result<Vec<ShardId>, Error>>()?;
        let mut distinct = shards.clone();
        distinct.sort_unstable();
        distinct.dedup();
        if let [only] = distinct.as_slice() {
            return Ok(Plan { route: Route::One(*only), access: Access::Write });
        }
        if let Some(call) = &self.of_one_shard {
            let what = format!("function {} in an INSERT of rows on several shards", call.name.name);
            return Err(Error::unsupported(what, "Insert the rows of each shard by a statement of their own."));
        }
        let parts = distinct.iter().map(|&shard| rewrite::part(shard, self.text(shard, &shards, values.text)));
        let part_of = |shard: &ShardId| distinct.binary_search(shard).ok().and_then(|part| u16::try_from(part).ok());
        let row_order = if self.returning { shards.iter().filter_map(part_of).collect() } else { Vec::new() };
        let spread = Spread { parts: parts.collect(), tag: Tag::Sum, row_order, one_by_one: None, fetches: Vec::new() };
        Ok(Plan { route: Route::Spread(Box::new(spread)), access: Access::Write })
    }

    /// The key of each row and its shard, as far as they are known.
    pub(super) fn describe(&self, values: &Values<'_>) -> Vec<String> {
        let row = |row: &Row| {
            let key = self.key(row).map_or_else(String::new, |value| self.sharded.show(value, values));
            let shard = self.shard(row, values).ok().map(|shard| format!(": shard {}", shard.0));
            format!("{} = {key}{}", self.sharded.column, shard.unwrap_or_default())
        };
        let more = self.rows.len().checked_sub(SHOWN_ROWS).filter(|more| *more > 0);
        self.rows.iter().take(SHOWN_ROWS).map(row).chain(more.map(|more| format!("{more} more rows"))).collect()
    }

    fn key<'r>(&self, row: &'r Row) -> Option<&'r Value> {
        row.values.get(self.position?)
    }

    /// Every server says the same of it: what PostgreSQL says.
    fn is_refused(&self, row: &Row, values: &Values<'_>) -> bool {
        if self.listed.is_some_and(|listed| listed != row.values.len()) {
            return true;
        }
        match self.key(row) {
            None | Some(Value::Default) => self.needs_key,
            Some(value) => {
                let key = self.sharded.key(value, values);
                self.refuses_null && matches!(key, KeyValue::Null | KeyValue::Outside(_))
            }
        }
    }

    /// Its key is there, but a server must say what it is.
    fn is_computed(&self, row: &Row, values: &Values<'_>) -> bool {
        let is_given = |value: &&Value| match value {
            Value::Parameter { index, .. } => values.parameter(*index) != Given::Missing,
            _ => true,
        };
        let key = self.key(row).filter(is_given);
        key.is_some_and(|value| self.sharded.key(value, values) == KeyValue::Unknown)
    }

    fn shard(&self, row: &Row, values: &Values<'_>) -> Result<ShardId, Error> {
        let (table, column) = (&self.table, &self.sharded.column);
        let value = self.key(row).ok_or_else(|| no_key(table, column))?;
        self.sharded.place(table, value, values).unwrap_or_else(|| Err(no_key(table, column)))
    }

    /// The statement with the rows of one shard only.
    fn text(&self, shard: ShardId, shards: &[ShardId], text: &str) -> String {
        let mut splice = Splice::new(text);
        let own = self.rows.iter().zip(shards).filter(|(_, of)| **of == shard);
        let rows: Vec<&str> = own.map(|(row, _)| splice.words(row.tokens)).collect();
        let (first, last) = (self.rows.first(), self.rows.last());
        let start = first.map_or(0, |row| row.tokens.start);
        let end = last.map_or(0, |row| row.tokens.end);
        splice.replace(Tokens { start, end }, rows.join(", "));
        splice.finish()
    }
}

const SHOWN_ROWS: usize = 8;

/// It neither writes nor reads tables of which a shard has a part only.
fn is_of_any_shard(call: &Call, catalog: &Catalog) -> bool {
    access::is_harmless(call, catalog) && !access::may_read_tables(call, catalog)
}

fn no_key(table: &str, column: &str) -> Error {
    Error::unsupported(
        format!("INSERT into sharded table \"{table}\" whose shard is not known from \"{column}\""),
        format!("Give \"{column}\" as a constant or a parameter."),
    )
}
