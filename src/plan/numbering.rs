//! INSERT into a sharded table that leaves a column to its sequence: the numbers are drawn on the home shard, and stand in
//! the statement before it is known where its rows go.

use std::sync::Arc;

use super::relations::{Class, Place, Resolved, places};
use super::rewrite::Splice;
use super::{Access, MARK, Plan, Route};
use crate::catalog::{Catalog, Column, Sequence};
use crate::error::Error;
use crate::statement::{
    Insert, InsertPlaces, InsertSource, Kind, Overriding, Row, Statement, Tokens, Value, Values, quoted_literal,
    quoted_name,
};
use crate::topology::Database;

/// An INSERT of rows, the numbers of some columns left open.
#[derive(Debug)]
pub(super) struct Numbering {
    columns: Vec<Numbered>,
    /// All columns that the statement gives, where it lists none and must.
    list: Option<String>,
    places: InsertPlaces,
    /// Empty: DEFAULT VALUES.
    rows: Vec<Row>,
    overriding: bool,
}

#[derive(Debug)]
struct Numbered {
    name: String,
    sequence: Sequence,
    /// Where a row has its value; `None`: behind its last one.
    position: Option<usize>,
}

/// An INSERT to which numbers are to be drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Draw {
    /// One for each column.
    pub sequences: Vec<Drawn>,
    /// The statement: between two [`MARK`]s each the index of a sequence, where its next number is to be.
    text: Arc<str>,
}

/// So many numbers of a sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// Of the sequence, as `nextval` takes it.
    pub name: String,
    pub count: usize,
}

impl Numbering {
    /// `None`: nothing is left to a sequence, or the table is not sharded.
    pub(super) fn new(insert: &Insert, resolved: &[Resolved]) -> Result<Option<Self>, Error> {
        let target = resolved.iter().find(|relation| relation.written && relation.block == 0);
        let Some((target, Class::Sharded(_))) = target.map(|target| (target, &target.class)) else { return Ok(None) };
        let rows: &[Row] = match &insert.source {
            InsertSource::Values(rows) => rows,
            InsertSource::DefaultValues => &[],
            InsertSource::Query(_) => return Ok(None),
        };
        let (Some(table), Some(places)) = (&target.catalog, &insert.places) else { return Ok(None) };
        let given = rows.iter().map(|row| row.values.len()).max().unwrap_or(0);
        let place = |column: &Column| {
            let place = table.place_of(&column.name, &insert.columns);
            place.filter(|&place| !insert.columns.is_empty() || place < given)
        };
        let is_default =
            |row: &Row, place: Option<usize>| place.is_none_or(|place| row.values.get(place) == Some(&Value::Default));
        let (mut columns, mut overriding) = (Vec::new(), false);
        for (column, sequence) in table.columns.iter().filter_map(|column| Some((column, column.sequence.as_ref()?))) {
            let position = place(column);
            if !rows.is_empty() && !rows.iter().any(|row| is_default(row, position)) {
                continue;
            }
            match (sequence.always, places.overriding) {
                (_, Some(Overriding::User)) => {
                    let what = format!("OVERRIDING USER VALUE in an INSERT into \"{}\"", target.name);
                    return Err(Error::unsupported(what, "Leave out the columns that are not to be given."));
                }
                // PostgreSQL refuses what is given.
                (true, None) if !rows.iter().all(|row| is_default(row, position)) => return Ok(None),
                (always, given) => overriding |= always && given.is_none(),
            }
            columns.push(Numbered { name: column.name.clone(), sequence: sequence.clone(), position });
        }
        if columns.is_empty() {
            return Ok(None);
        }
        let adds = columns.iter().any(|column| column.position.is_none());
        let list = (insert.columns.is_empty() && adds).then(|| {
            let before = table.columns.iter().take(given).map(|column| column.name.as_str());
            let added = columns.iter().filter(|column| column.position.is_none()).map(|column| column.name.as_str());
            before.chain(added).map(quoted_name).collect::<Vec<_>>().join(", ")
        });
        Ok(Some(Self { columns, list, places: places.clone(), rows: rows.to_vec(), overriding }))
    }

    pub(super) fn plan(&self, values: &Values<'_>) -> Plan {
        let mut splice = Splice::new(values.text);
        let added: Vec<usize> =
            (0..self.columns.len()).filter(|&index| self.columns[index].position.is_none()).collect();
        let places = &self.places;
        match (&self.list, places.listed) {
            (Some(list), _) => splice.insert_before(places.head, format!("({list}) ")),
            (None, Some(end)) => {
                let names = added.iter().map(|&index| format!(", {}", quoted_name(&self.columns[index].name)));
                splice.insert_before(end, names.collect::<String>());
            }
            (None, None) => {}
        }
        if self.overriding {
            splice.insert_before(places.source, "OVERRIDING SYSTEM VALUE ");
        }
        let mut sequences: Vec<Drawn> = self.columns.iter().map(Numbered::none).collect();
        let mut draw = |index: usize| {
            sequences[index].count += 1;
            format!("{MARK}{index}{MARK}")
        };
        if self.rows.is_empty() {
            let row: Vec<String> = added.iter().map(|&index| draw(index)).collect();
            let values = Tokens { start: places.source, end: places.source + 2 };
            splice.replace(values, format!("VALUES ({})", row.join(", ")));
        }
        for row in &self.rows {
            for (index, column) in self.columns.iter().enumerate() {
                let Some(position) = column.position else { continue };
                if row.values.get(position) == Some(&Value::Default)
                    && let Some(value) = value_of(&splice, row.tokens, position)
                {
                    splice.replace(value, draw(index));
                }
            }
            let more: String = added.iter().map(|&index| format!(", {}", draw(index))).collect();
            splice.insert_before(row.tokens.end - 1, more);
        }
        let draw = Draw { sequences, text: Arc::from(splice.finish()) };
        Plan { route: Route::Draw(Box::new(draw)), access: Access::Write }
    }
}

/// Those that give columns of sharded tables their values.
pub fn sequences_of(database: &Database, catalog: &Catalog) -> Vec<Sequence> {
    let sharded = places(database, catalog).into_iter().filter(|(_, place)| matches!(place, Place::Sharded(_)));
    sharded.flat_map(|(table, _)| table.columns.clone()).filter_map(|column| column.sequence).collect()
}

/// The tokens of a row's value of this index.
fn value_of(splice: &Splice<'_>, row: Tokens, position: usize) -> Option<Tokens> {
    let (mut depth, mut index, mut start) = (0usize, 0, row.start + 1);
    for token in row.start + 1..row.end {
        match splice.words(Tokens { start: token, end: token + 1 }) {
            "(" | "[" => depth += 1,
            ")" | "]" if depth > 0 => depth -= 1,
            "," | ")" if depth == 0 => {
                if index == position {
                    return Some(Tokens { start, end: token });
                }
                (index, start) = (index + 1, token + 1);
            }
            _ => {}
        }
    }
    None
}

impl Numbered {
    fn none(&self) -> Drawn {
        Drawn::new(&self.sequence, 0)
    }
}

/// A call of `lastval` or `currval`.
struct Recall {
    function: &'static str,
    /// As it is written, without quotes.
    sequence: Option<String>,
    tokens: Tokens,
}

impl Recall {
    /// The one that begins there.
    fn read(splice: &Splice<'_>, start: u32, end: u32) -> Option<Self> {
        let word = |token: u32| if token < end { splice.words(Tokens { start: token, end: token + 1 }) } else { "" };
        let is = |token: u32, known: &str| word(token).eq_ignore_ascii_case(known);
        let first = if is(start, "pg_catalog") && word(start + 1) == "." { start + 2 } else { start };
        if is(first, "lastval") && word(first + 1) == "(" && word(first + 2) == ")" {
            return Some(Self { function: "lastval", sequence: None, tokens: Tokens { start, end: first + 3 } });
        }
        let name = word(first + 2).strip_prefix('\'').and_then(|name| name.strip_suffix('\''))?;
        (is(first, "currval") && word(first + 1) == "(").then_some(())?;
        let is_cast = word(first + 3) == "::" && is(first + 4, "regclass");
        let closing = if is_cast { first + 5 } else { first + 3 };
        let sequence = Some(name.replace("''", "'"));
        (word(closing) == ")").then_some(Self {
            function: "currval",
            sequence,
            tokens: Tokens { start, end: closing + 1 },
        })
    }
}

impl Drawn {
    /// Of this sequence, by which it is found again.
    pub fn of(sequence: &Sequence) -> Self {
        Self::new(sequence, 0)
    }

    pub(super) fn new(Sequence { schema, name, .. }: &Sequence, count: usize) -> Self {
        Self { name: quoted_literal(&format!("{}.{}", quoted_name(schema), quoted_name(name))), count }
    }
}

impl Draw {
    /// A statement whose calls of `lastval` and `currval` are answered by what is known: of the sequence that it names, or
    /// whichever was the last. `None`: there are none.
    pub fn recalled(text: &str, statement: &Statement, find: impl Fn(Option<&str>) -> Option<String>) -> Option<Self> {
        let mut splice = Splice::new(text);
        let (tokens, is_query) = (statement.tokens, matches!(statement.kind, Kind::Query));
        let (mut token, mut found) = (tokens.start, false);
        while token < tokens.end {
            let call = Recall::read(&splice, token, tokens.end);
            let number = call.as_ref().and_then(|call| find(call.sequence.as_deref()));
            if let (Some(call), Some(number)) = (&call, number) {
                let before = splice.words(Tokens { start: token.saturating_sub(1), end: token });
                let may_be_column = is_query && (before == "," || before.eq_ignore_ascii_case("select"));
                let words = match may_be_column {
                    // Of the name that the call's column has.
                    true => format!("(SELECT {number}::bigint AS {})", call.function),
                    false => format!("{number}::bigint"),
                };
                splice.replace(call.tokens, words);
                found = true;
            }
            token = call.map_or(token + 1, |call| call.tokens.end);
        }
        found.then(|| Self { sequences: Vec::new(), text: Arc::from(splice.finish()) })
    }

    /// The statement with these numbers, of each sequence so many as it asks for.
    pub fn text(&self, numbers: &[Vec<String>]) -> String {
        let mut left: Vec<_> = numbers.iter().map(|numbers| numbers.iter()).collect();
        let mut out = String::with_capacity(self.text.len());
        for (index, piece) in self.text.split(MARK).enumerate() {
            match index % 2 {
                0 => out.push_str(piece),
                _ => {
                    let number = piece.parse::<usize>().ok().and_then(|index| left.get_mut(index)?.next());
                    out.push_str(number.map_or("DEFAULT", String::as_str));
                }
            }
        }
        out
    }

    /// In words.
    pub(super) fn shown(&self) -> String {
        self.text.split(MARK).enumerate().map(|(index, piece)| if index % 2 == 0 { piece } else { "…" }).collect()
    }
}
