//! INSERT … SELECT over shards: the query's rows are gathered, and inserted as VALUES where each one's key is.

use std::sync::Arc;

use super::gather::Gathering;
use super::keys::Keyed;
use super::relations::{Class, Resolved, Sharded};
use super::rewrite::{self, Splice};
use super::surroundings::Surroundings;
use super::{Access, Drawn, Part, Plan, Route, Spread, Tag, Transfer, access};
use crate::catalog::Sequence;
use crate::error::{Error, SqlState};
use crate::statement::{Insert, Overriding, SourceQuery, Statement, Tokens, Values, quoted_literal, quoted_name};
use crate::topology::ShardId;

/// An INSERT of a query's rows, its values left open.
#[derive(Debug)]
pub(super) struct Transferring {
    keyed: Keyed,
    gathering: Gathering,
    /// What stands in front of the columns, between them and the query, and behind it.
    head: Tokens,
    middle: Tokens,
    tail: Tokens,
    table: String,
    destination: Destination,
    columns: Vec<Target>,
    names: Arc<[String]>,
    /// `columns` are those that the statement lists; else all of the table's.
    listed: bool,
    refuses_null: bool,
    numbered: Vec<(String, Sequence)>,
    returning: bool,
}

/// Where rows go.
#[derive(Clone, Debug, PartialEq)]
enum Destination {
    /// By the value of its column.
    Keyed(Arc<Sharded>),
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
    /// `INSERT INTO t`
    head: Arc<str>,
    /// OVERRIDING …
    middle: Arc<str>,
    /// ON CONFLICT …, RETURNING …
    tail: Arc<str>,
    table: String,
    destination: Destination,
    columns: Vec<Target>,
    names: Arc<[String]>,
    listed: bool,
    /// Any server refuses a row whose key is NULL, in PostgreSQL's words.
    refuses_null: bool,
    /// Columns that sequences give their values where the query gives none.
    numbered: Vec<(String, Sequence)>,
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
        let SourceQuery { tokens, untyped } = insert.query.as_ref()?;
        let target = resolved.iter().find(|relation| relation.written && relation.block == 0)?;
        let table = target.catalog.as_ref()?;
        if access::reading_function(statement, resolved, surroundings.catalog).is_some() {
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
        let mut refuses_null = false;
        let destination = match &target.class {
            Class::Sharded(sharded) => {
                let key = table.column(&sharded.column)?;
                (names.contains(&key.name.as_str()) || key.sequence.is_some()).then_some(())?;
                refuses_null = key.not_null && !table.has_triggers;
                Destination::Keyed(Arc::clone(sharded))
            }
            Class::Home => Destination::One(surroundings.database.home),
            _ => return None,
        };
        let places = insert.places.as_ref()?;
        let numbered: Vec<(String, Sequence)> = match &destination {
            Destination::Keyed(_) => {
                let sequences = table.columns.iter();
                sequences.filter_map(|column| Some((column.name.clone(), column.sequence.clone()?))).collect()
            }
            // Home's rows take home's own.
            Destination::One(_) => Vec::new(),
        };
        // What the query gives an identity column does not count.
        (numbered.is_empty() || places.overriding != Some(Overriding::User)).then_some(())?;
        let keyed = Keyed::new(statement, resolved);
        let gathering = Gathering::new(statement, resolved, surroundings, &keyed).ok()?;
        let Tokens { start, end } = statement.tokens;
        Some(Self {
            keyed,
            gathering,
            head: Tokens { start, end: places.head },
            middle: Tokens { start: places.listed.map_or(places.head, |end| end + 1), end: tokens.start },
            tail: Tokens { start: tokens.end, end },
            table: target.name.clone(),
            destination,
            columns,
            names: names.into_iter().map(str::to_owned).collect(),
            listed: !insert.columns.is_empty(),
            refuses_null,
            numbered,
            returning: insert.returning,
        })
    }

    pub(super) fn plan(&self, values: &Values<'_>) -> Result<Plan, Error> {
        let before = Tokens { start: self.head.start, end: self.middle.end };
        let source = self.gathering.source(&self.keyed.shards(values), values, [before, self.tail]);
        let splice = Splice::new(values.text);
        let words = |tokens: Tokens| if tokens.start < tokens.end { splice.words(tokens) } else { "" };
        let insert = Inserted {
            head: Arc::from(words(self.head)),
            middle: Arc::from(words(self.middle)),
            tail: Arc::from(words(self.tail).trim_end_matches(';')),
            table: self.table.clone(),
            destination: self.destination.clone(),
            columns: self.columns.clone(),
            names: Arc::clone(&self.names),
            listed: self.listed,
            refuses_null: self.refuses_null,
            numbered: self.numbered.clone(),
            returning: self.returning,
        };
        Ok(Plan { route: Route::Transfer(Box::new(Transfer { source, insert })), access: Access::Write })
    }
}

impl Inserted {
    /// What is to be drawn for so many rows of so many columns.
    pub fn draws(&self, columns: usize, rows: usize) -> Vec<Drawn> {
        self.left(columns).map(|(_, sequence)| Drawn::new(sequence, rows)).filter(|drawn| drawn.count > 0).collect()
    }

    /// Columns that a query of so many leaves to their sequences.
    fn left(&self, columns: usize) -> impl Iterator<Item = &(String, Sequence)> {
        let given = &self.names[..columns.min(self.names.len())];
        self.numbered.iter().filter(move |(name, _)| !given.contains(name))
    }

    /// The write of `rows`, values as text, whose columns have these types. `numbers`: what was drawn.
    pub fn spread<'r>(
        &self,
        types: &[u32],
        mut rows: Vec<Vec<Option<&'r str>>>,
        numbers: &'r [Vec<String>],
    ) -> Result<Spread, Error> {
        if types.len() > self.columns.len() {
            return Err(Error::new(SqlState::SYNTAX, "INSERT has more expressions than target columns"));
        }
        if self.listed && types.len() < self.columns.len() {
            return Err(Error::new(SqlState::SYNTAX, "INSERT has more target columns than expressions"));
        }
        let mut casts = casts(&self.columns, types)?;
        let mut names: Vec<&str> = self.names[..types.len()].iter().map(String::as_str).collect();
        let mut overriding = "";
        for ((name, sequence), numbers) in self.left(types.len()).zip(numbers) {
            rows.iter_mut().zip(numbers).for_each(|(row, number)| row.push(Some(number)));
            casts.push("");
            names.push(name);
            if sequence.always && self.middle.is_empty() {
                overriding = "OVERRIDING SYSTEM VALUE";
            }
        }
        let head = if self.listed || names.len() > types.len() {
            let listed: Vec<String> = names.iter().map(|name| quoted_name(name)).collect();
            format!("{} ({}) {}{overriding}", self.head, listed.join(", "), self.middle)
        } else {
            format!("{} {}", self.head, self.middle)
        };
        let shards = rows.iter().map(|row| self.shard_of(&names, row)).collect::<Result<Vec<ShardId>, Error>>()?;
        let mut distinct = shards.clone();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.is_empty() {
            let nothing = vec!["NULL"; types.len()].join(", ");
            let text = format!("{head} SELECT {nothing} WHERE false {}", self.tail);
            distinct.push(match &self.destination {
                Destination::One(shard) => *shard,
                Destination::Keyed(sharded) => sharded.any(),
            });
            return Ok(self.parts(&distinct, &[], |_| text.clone()));
        }
        let text = |shard: ShardId| {
            let own = rows.iter().zip(&shards).filter(|(_, of)| **of == shard).map(|(row, _)| row.as_slice());
            format!("{head} VALUES {} {}", written(own, &casts), self.tail)
        };
        Ok(self.parts(&distinct, &shards, text))
    }

    fn parts(&self, distinct: &[ShardId], shards: &[ShardId], text: impl Fn(ShardId) -> String) -> Spread {
        let parts: Vec<Part> = distinct.iter().map(|&shard| rewrite::part(shard, text(shard))).collect();
        let part_of = |shard: &ShardId| distinct.binary_search(shard).ok().and_then(|part| u16::try_from(part).ok());
        let row_order = if self.returning { shards.iter().filter_map(part_of).collect() } else { Vec::new() };
        Spread { parts, tag: Tag::Sum, row_order, one_by_one: None, fetches: Vec::new() }
    }

    fn shard_of(&self, names: &[&str], row: &[Option<&str>]) -> Result<ShardId, Error> {
        let sharded = match &self.destination {
            Destination::One(shard) => return Ok(*shard),
            Destination::Keyed(sharded) => sharded,
        };
        let position = names.iter().position(|name| *name == sharded.column);
        let key = position.and_then(|position| row.get(position).copied().flatten());
        if key.is_none() && self.refuses_null {
            return Ok(sharded.any());
        }
        if let Some(text) = key
            && let Some(error) = sharded.malformed(text)
        {
            return Err(error);
        }
        sharded.shard_of_text(&self.table, key)
    }

    /// In words.
    pub(super) fn render(&self) -> String {
        let to = match &self.destination {
            Destination::Keyed(sharded) => format!("by {}", sharded.column),
            Destination::One(shard) => format!("on shard {}", shard.0),
        };
        let listed = if self.listed { format!(" ({})", self.names.join(", ")) } else { String::new() };
        format!("{}{listed} {} VALUES … {}, {to}", self.head, self.middle, self.tail)
            .replace("  ", " ")
            .replace(" ,", ",")
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
