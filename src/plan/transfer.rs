//! INSERT … SELECT over shards: the query's rows are gathered, and inserted as VALUES where each one's key is.

use std::sync::Arc;

use super::gather::Gathering;
use super::keys::Keyed;
use super::relations::{Class, Resolved, Sharded};
use super::rewrite::{self, Splice};
use super::template::Surroundings;
use super::{Access, Part, Plan, Route, Spread, Tag, Transfer, access};
use crate::error::{Error, SqlState};
use crate::statement::{Insert, InsertSource, SourceQuery, Statement, Tokens, Values, quoted_literal};
use crate::topology::ShardId;

/// An INSERT of a query's rows, its values left open.
#[derive(Debug)]
pub(super) struct Transferring {
    keyed: Keyed,
    gathering: Gathering,
    /// What stands in front of the query, and behind it.
    head: Tokens,
    tail: Tokens,
    table: String,
    destination: Destination,
    columns: Vec<Target>,
    returning: bool,
}

/// Where rows go.
#[derive(Clone, Debug, PartialEq)]
enum Destination {
    /// By the value of this column.
    Keyed(usize, Arc<Sharded>),
    One(ShardId),
}

/// A column that is inserted into.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Target {
    type_oid: u32,
    source: Source,
}

/// What it gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Source {
    /// A value without a type of its own: the text that a query makes of it is not its type.
    Untyped,
    /// What it had already.
    Itself,
    Typed,
}

/// How the rows of a query are inserted.
#[derive(Clone, Debug, PartialEq)]
pub struct Inserted {
    /// `INSERT INTO t (a, b)`
    head: Arc<str>,
    /// ON CONFLICT …, RETURNING …
    tail: Arc<str>,
    table: String,
    destination: Destination,
    columns: Vec<Target>,
    returning: bool,
}

impl Transferring {
    /// `None`: this cannot be done so.
    pub(super) fn new(
        statement: &Statement,
        insert: &Insert,
        resolved: &[Resolved],
        surroundings: &Surroundings<'_>,
    ) -> Option<Self> {
        let InsertSource::Query(SourceQuery { tokens, untyped }) = &insert.source else { return None };
        let target = resolved.iter().find(|relation| relation.written && relation.block == 0)?;
        let table = target.catalog.as_ref()?;
        if statement.calls.iter().any(|call| access::is_user_defined(call, surroundings.catalog)) {
            return None;
        }
        let names: Vec<&str> = match insert.columns.as_slice() {
            [] => table.columns.iter().map(|column| column.name.as_str()).collect(),
            listed => listed.iter().map(String::as_str).collect(),
        };
        let column = |(index, name): (usize, &&str)| {
            let type_oid = table.column(name)?.type_oid;
            let source = if untyped.contains(&index) { Source::Untyped } else { Source::Typed };
            Some(Target { type_oid, source })
        };
        let columns = names.iter().enumerate().map(column).collect::<Option<Vec<Target>>>()?;
        let destination = match &target.class {
            Class::Sharded(sharded) => {
                let position = names.iter().position(|name| *name == sharded.column)?;
                Destination::Keyed(position, Arc::clone(sharded))
            }
            Class::Home => Destination::One(surroundings.database.home),
            _ => return None,
        };
        let keyed = Keyed::new(statement, resolved);
        let gathering = Gathering::new(statement, resolved, surroundings, &keyed).ok()?;
        let Tokens { start, end } = statement.tokens;
        Some(Self {
            keyed,
            gathering,
            head: Tokens { start, end: tokens.start },
            tail: Tokens { start: tokens.end, end },
            table: target.name.clone(),
            destination,
            columns,
            returning: insert.returning,
        })
    }

    pub(super) fn plan(&self, values: &Values<'_>) -> Result<Plan, Error> {
        let source = self.gathering.source(&self.keyed.shards(values), values, [self.head, self.tail]);
        let splice = Splice::new(values.text);
        let tail = if self.tail.start < self.tail.end { splice.words(self.tail) } else { "" };
        let insert = Inserted {
            head: Arc::from(splice.words(self.head)),
            tail: Arc::from(tail.trim_end_matches(';')),
            table: self.table.clone(),
            destination: self.destination.clone(),
            columns: self.columns.clone(),
            returning: self.returning,
        };
        Ok(Plan { route: Route::Transfer(Box::new(Transfer { source, insert })), access: Access::Write })
    }
}

impl Inserted {
    /// The write of `rows`, values as text, whose columns have these types.
    pub fn spread(&self, types: &[u32], rows: &[Vec<Option<&str>>]) -> Result<Spread, Error> {
        if types.len() > self.columns.len() {
            return Err(Error::new(SqlState::SYNTAX, "INSERT has more expressions than target columns"));
        }
        let casts = casts(&self.columns, types)?;
        let shards = rows.iter().map(|row| self.shard_of(row)).collect::<Result<Vec<ShardId>, Error>>()?;
        let mut distinct = shards.clone();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.is_empty() {
            let nothing = vec!["NULL"; types.len()].join(", ");
            let text = format!("{} SELECT {nothing} WHERE false {}", self.head, self.tail);
            distinct.push(match &self.destination {
                Destination::One(shard) => *shard,
                Destination::Keyed(_, sharded) => sharded.mapping.all().iter().next().unwrap_or(ShardId(0)),
            });
            return Ok(self.parts(&distinct, &[], |_| text.clone()));
        }
        let text = |shard: ShardId| {
            let own = rows.iter().zip(&shards).filter(|(_, of)| **of == shard).map(|(row, _)| row.as_slice());
            format!("{} VALUES {} {}", self.head, written(own, &casts), self.tail)
        };
        Ok(self.parts(&distinct, &shards, text))
    }

    fn parts(&self, distinct: &[ShardId], shards: &[ShardId], text: impl Fn(ShardId) -> String) -> Spread {
        let parts: Vec<Part> = distinct.iter().map(|&shard| rewrite::part(shard, text(shard))).collect();
        let part_of = |shard: &ShardId| distinct.binary_search(shard).ok().and_then(|part| u16::try_from(part).ok());
        let row_order = if self.returning { shards.iter().filter_map(part_of).collect() } else { Vec::new() };
        Spread { parts, tag: Tag::Sum, row_order, transactional: true, fetches: Vec::new() }
    }

    fn shard_of(&self, row: &[Option<&str>]) -> Result<ShardId, Error> {
        let (position, sharded) = match &self.destination {
            Destination::One(shard) => return Ok(*shard),
            Destination::Keyed(position, sharded) => (*position, sharded),
        };
        sharded.shard_of_text(&self.table, row.get(position).copied().flatten())
    }

    /// In words.
    pub(super) fn render(&self) -> String {
        let to = match &self.destination {
            Destination::Keyed(_, sharded) => format!("by {}", sharded.column),
            Destination::One(shard) => format!("on shard {}", shard.0),
        };
        format!("{} VALUES … {}, {to}", self.head, self.tail).replace(" ,", ",")
    }
}

/// What each value is cast to before it is assigned to its column.
pub(super) fn casts(columns: &[Target], types: &[u32]) -> Result<Vec<&'static str>, Error> {
    types.iter().zip(columns).map(|(of, column)| column.cast(*of)).collect()
}

/// Rows as VALUES has them.
pub(super) fn written<'r>(rows: impl Iterator<Item = &'r [Option<&'r str>]>, casts: &[&str]) -> String {
    let value = |(value, cast): (&Option<&str>, &&str)| match value {
        None => "NULL".to_owned(),
        Some(value) => format!("{}{cast}", quoted_literal(value)),
    };
    let row = |row: &[Option<&str>]| {
        let values: Vec<String> = row.iter().zip(casts).map(value).collect();
        format!("({})", values.join(", "))
    };
    rows.map(row).collect::<Vec<_>>().join(", ")
}

impl Target {
    pub(super) fn new(type_oid: u32, source: Source) -> Self {
        Self { type_oid, source }
    }

    /// What makes a value that was read as text one of type `of` again: assigned to the column, PostgreSQL converts it
    /// as it would have.
    fn cast(&self, of: u32) -> Result<&'static str, Error> {
        let is_own = match self.source {
            Source::Itself => true,
            Source::Untyped => of == TEXT || of == self.type_oid,
            Source::Typed => of == self.type_oid,
        };
        if is_own {
            return Ok("");
        }
        let known = NAMES.iter().find(|(oid, _)| *oid == of).map(|(_, cast)| *cast);
        known.ok_or_else(|| {
            let what = "INSERT … SELECT of values of a type of its own into a column of another one";
            Error::unsupported(what, "Cast the value to the column's type.")
        })
    }
}

const TEXT: u32 = 25;
/// Types of PostgreSQL's own, which have the same number everywhere.
const NAMES: [(u32, &str); 22] = [
    (16, "::bool"),
    (17, "::bytea"),
    (20, "::int8"),
    (21, "::int2"),
    (23, "::int4"),
    (25, "::text"),
    (26, "::oid"),
    (114, "::json"),
    (700, "::float4"),
    (701, "::float8"),
    (1042, "::bpchar"),
    (1043, "::varchar"),
    (1082, "::date"),
    (1083, "::time"),
    (1114, "::timestamp"),
    (1184, "::timestamptz"),
    (1186, "::interval"),
    (1266, "::timetz"),
    (1700, "::numeric"),
    (2950, "::uuid"),
    (3802, "::jsonb"),
    (1009, "::text[]"),
];
