//! COPY of tables of which each shard has a part, or the same rows.

use std::sync::Arc;

use super::reference::varying_default;
use super::relations::{self, Class, Sharded};
use super::surroundings::Surroundings;
use super::{CopyOut, Route, access};
use crate::catalog::Relation;
use crate::copy::{Field, Forced, Format, Lined, Quoting, Writing};
use crate::error::{Error, SqlState};
use crate::statement::{Copy, CopyFormat, CopyOptions, ObjectName, OptionColumns, Statement, embeds_ascii};
use crate::topology::{Key, KeyType, ShardId, ShardSet};

/// COPY FROM STDIN: each row goes where its key is.
#[derive(Clone, Debug, PartialEq)]
pub struct CopyIn {
    /// Each takes part, ascending.
    pub shards: Vec<ShardId>,
    pub format: Format,
    pub table: String,
    /// Of the columns of the data.
    pub types: Vec<u32>,
    destination: Destination,
    /// Keys of other bytes than these cannot be read. `None`: as the client's encoding is.
    only_ascii: Option<bool>,
}

#[derive(Clone, Debug, PartialEq)]
enum Destination {
    /// By the value of the column of this index.
    Keyed(usize, Arc<Sharded>),
    /// The same rows on every shard.
    All,
}

/// Why a row has no shard.
#[derive(Debug)]
pub enum Misplaced {
    Nowhere(Error),
    /// The value is none that could be read here: PostgreSQL may say better what is wrong with it.
    Unread(Error),
}

/// `None`: home has all rows.
pub(super) fn route(
    statement: &Statement,
    copy: &Copy,
    table: &ObjectName,
    surroundings: &Surroundings<'_>,
) -> Result<Option<Route>, Error> {
    let (class, relation) = relations::classify(table, surroundings);
    let Some(relation) = relation else { return Ok(None) };
    let refuse = |what: String, hint: &str| Err(Error::unsupported(what, hint));
    let shards = match &class {
        Class::Sharded(sharded) => sharded.mapping.all(),
        Class::Reference if copy.from => ShardSet::first(surroundings.database.shards.len()),
        Class::View if copy.from => return refuse("COPY into a view over sharded tables".to_owned(), "Use its table."),
        _ => return Ok(None),
    };
    let shards: Vec<ShardId> = shards.iter().collect();
    if !copy.is_client {
        let way = if copy.from { "FROM STDIN" } else { "TO STDOUT" };
        let hint = format!("Use COPY … {way}, or name the shard in a routing hint: /* pgweir: shard=N */.");
        return refuse(format!("COPY of \"{}\" by a file or program of a server", table.name), &hint);
    }
    let Some(options) = &copy.options else {
        return refuse("COPY with options that are not understood".to_owned(), "Leave out what is new in COPY.");
    };
    if !copy.from {
        let (header, binary) = (options.header, options.format == CopyFormat::Binary);
        let types = types(copy, &relation);
        return Ok(Some(Route::CopyOut(Box::new(CopyOut { shards, header, binary, types }))));
    }
    if options.encoding.as_deref().is_some_and(embeds_ascii) {
        return refuse("COPY in an encoding that embeds ASCII".to_owned(), "Convert the data to UTF8.");
    }
    if let Some(call) = statement.calls.iter().find(|call| access::may_read_tables(call, surroundings.catalog)) {
        let what = format!("COPY with function {} in its condition", call.name.name);
        return refuse(what, "Use a condition without functions of your own.");
    }
    let destination = match class {
        Class::Sharded(sharded) => Destination::Keyed(position(copy, &relation, &sharded.column)?, sharded),
        _ => {
            check_same(statement, copy, &relation, surroundings)?;
            Destination::All
        }
    };
    let column = match &destination {
        Destination::Keyed(_, sharded) => sharded.column.as_str(),
        Destination::All => "",
    };
    Ok(Some(Route::CopyIn(Box::new(CopyIn {
        shards,
        format: format(options, column),
        table: relation.name.clone(),
        types: types(copy, &relation),
        only_ascii: options.encoding.as_deref().map(|encoding| !is_utf8(encoding)),
        destination,
    }))))
}

/// Of the columns that a COPY of the table gives or takes; 0 for one that it does not have.
pub fn types(copy: &Copy, relation: &Relation) -> Vec<u32> {
    match copy.columns.as_slice() {
        [] => relation.given_columns().map(|column| column.type_oid).collect(),
        listed => listed.iter().map(|name| relation.column(name).map_or(0, |column| column.type_oid)).collect(),
    }
}

/// Which column of the data is the key.
fn position(copy: &Copy, relation: &Relation, key: &str) -> Result<usize, Error> {
    let position = match copy.columns.as_slice() {
        [] => relation.given_columns().position(|column| column.name == key),
        listed => listed.iter().position(|column| column == key),
    };
    position.ok_or_else(|| {
        let what = format!("COPY into \"{}\" without its shard key \"{key}\"", relation.name);
        Error::unsupported(what, format!("List \"{key}\" among the columns, and give it a value in each row."))
    })
}

/// Each shard must make the same rows of the same data.
fn check_same(
    statement: &Statement,
    copy: &Copy,
    relation: &Relation,
    surroundings: &Surroundings<'_>,
) -> Result<(), Error> {
    let is_given = |name: &String| copy.columns.is_empty() || copy.columns.contains(name);
    if let Some(column) = relation.columns.iter().find(|column| column.varying_default && !is_given(&column.name)) {
        return Err(varying_default(&column.name));
    }
    match statement.calls.iter().find(|call| !access::is_immutable(call, surroundings.catalog)) {
        Some(call) => {
            let what = format!("COPY into a reference table with {} in its condition", call.name.name);
            Err(Error::unsupported(what, "Leave out the rows that are not wanted."))
        }
        None => Ok(()),
    }
}

/// What of the options counts for `column`. What is wrong with them, the servers say.
fn format(options: &CopyOptions, column: &str) -> Format {
    let byte = |option: &Option<String>, default: u8| {
        option.as_ref().and_then(|option| option.bytes().next()).unwrap_or(default)
    };
    let lined = |delimiter: u8, null: &str| Lined {
        delimiter: byte(&options.delimiter, delimiter),
        null: options.null.as_deref().unwrap_or(null).as_bytes().into(),
        header: options.header,
    };
    match options.format {
        CopyFormat::Binary => Format::Binary,
        CopyFormat::Text => Format::Text(lined(b'\t', "\\N")),
        CopyFormat::Csv => {
            let quote = byte(&options.quote, b'"');
            let quoting = Quoting {
                quote,
                escape: byte(&options.escape, quote),
                force_null: options.force_null.has(column),
                force_not_null: options.force_not_null.has(column),
                ends: true,
            };
            Format::Csv(lined(b',', ""), quoting)
        }
    }
}

/// How the rows of a query are written; `None`: they are left to a server, with whatever is wrong.
pub(super) fn written(copy: &Copy) -> Option<Writing> {
    let options = copy.options.as_ref()?;
    let forces_null =
        options.force_null != OptionColumns::default() || options.force_not_null != OptionColumns::default();
    if options.encoding.is_some() || forces_null {
        return None;
    }
    let is_byte = |option: &Option<String>| {
        let byte = option.as_ref().map(String::as_bytes);
        byte.is_none_or(|byte| matches!(byte, [byte @ 1..=127] if !matches!(byte, b'\n' | b'\r')))
    };
    if ![&options.delimiter, &options.quote, &options.escape].into_iter().all(is_byte) {
        return None;
    }
    let is_apt =
        |lined: &Lined| !lined.null.iter().any(|byte| matches!(byte, b'\n' | b'\r') || *byte == lined.delimiter);
    match format(options, "") {
        Format::Binary => None,
        Format::Text(lined) => {
            let is_of_csv =
                options.quote.is_some() || options.escape.is_some() || options.force_quote != OptionColumns::default();
            // A letter behind a backslash means something else, and servers before PostgreSQL 15 know no header here.
            let is_taken = matches!(lined.delimiter, b'\\' | b'.' | b'a'..=b'z' | b'0'..=b'9');
            (is_apt(&lined) && !is_of_csv && !is_taken && !lined.header).then_some(Writing::Text(lined))
        }
        Format::Csv(lined, Quoting { quote, escape, .. }) => {
            let forced = match &options.force_quote {
                OptionColumns::All => Forced::All,
                OptionColumns::These(names) => Forced::These(names.clone()),
            };
            let is_apt = is_apt(&lined) && lined.delimiter != quote && !lined.null.contains(&quote);
            is_apt.then_some(Writing::Csv { lined, quote, escape, forced })
        }
    }
}

impl CopyIn {
    /// For servers of this version; in this encoding, unless the statement names one.
    #[must_use]
    pub fn on(mut self, server_version: &str, client_encoding: &str) -> Self {
        if let Format::Csv(_, quoting) = &mut self.format {
            let major = server_version.split('.').next().and_then(|major| major.parse::<u32>().ok());
            quoting.ends = major.is_none_or(|major| major < 18);
        }
        self.only_ascii.get_or_insert(!is_utf8(client_encoding));
        self
    }

    /// Which column of the data is looked at; `None`: none is, all rows go everywhere.
    pub fn column(&self) -> Option<usize> {
        match &self.destination {
            Destination::Keyed(position, _) => Some(*position),
            Destination::All => None,
        }
    }

    /// Where a row of this key goes.
    pub fn shard_of(&self, field: &Field<'_>) -> Result<ShardId, Misplaced> {
        let Destination::Keyed(_, sharded) = &self.destination else {
            return Ok(self.shards[0]);
        };
        let key = match field {
            Field::Null => {
                return sharded.mapping.default.ok_or_else(|| Misplaced::Nowhere(self.nowhere(sharded, "a NULL")));
            }
            Field::Missing => None,
            Field::Binary(bytes) => Key::from_binary(sharded.key_type, 0, bytes),
            Field::Text(text)
                if self.only_ascii != Some(false) && sharded.key_type == KeyType::Text && !text.is_ascii() =>
            {
                None
            }
            Field::Text(text) => std::str::from_utf8(text).ok().and_then(|text| Key::from_text(sharded.key_type, text)),
        };
        let Some(key) = key else {
            let column = &sharded.column;
            let what = format!("COPY into \"{}\" of a row whose shard is not known from \"{column}\"", self.table);
            return Err(Misplaced::Unread(Error::unsupported(what, "Write the value as PostgreSQL shows it.")));
        };
        let shard = sharded.mapping.shard_of(&key);
        shard.ok_or_else(|| Misplaced::Nowhere(self.nowhere(sharded, &format!("value {key}"))))
    }

    fn nowhere(&self, sharded: &Sharded, what: &str) -> Error {
        let (table, column) = (&self.table, &sharded.column);
        let message = format!("{what} of column \"{column}\" of table \"{table}\" is in no shard's range");
        Error::new(SqlState::INVALID_VALUE, message).with_hint("Ranges are set by [[sharded_tables.mapping]].")
    }

    /// As PostgreSQL names the place of an error.
    pub fn context(&self, line: u64, field: &Field<'_>) -> String {
        let Destination::Keyed(_, sharded) = &self.destination else {
            return format!("COPY {}, line {line}", self.table);
        };
        let value = match field {
            Field::Null => ": null input".to_owned(),
            Field::Text(text) => {
                format!(": \"{}\"", String::from_utf8_lossy(text).chars().take(SHOWN).collect::<String>())
            }
            Field::Binary(_) | Field::Missing => String::new(),
        };
        format!("COPY {}, line {line}, column {}{value}", self.table, sharded.column)
    }

    /// In words.
    pub(super) fn how(&self) -> String {
        match &self.destination {
            Destination::Keyed(_, sharded) => format!("by {}", sharded.column),
            Destination::All => "the same rows".to_owned(),
        }
    }
}

fn is_utf8(encoding: &str) -> bool {
    matches!(encoding.to_ascii_lowercase().as_str(), "utf8" | "utf-8" | "unicode")
}

/// Characters of a value in a context.
const SHOWN: usize = 100;
