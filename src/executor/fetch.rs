//! Rows of tables that a statement needs from several shards.

use std::collections::HashSet;

use bytes::Bytes;

use super::failure::Failure;
use super::relay::Broken;
use super::request::Request;
use super::scatter::{differ, next, send};
use super::single::put_describe;
use crate::backend::Connection;
use crate::error::{Error, SqlState};
use crate::merge::{Columns, cells};
use crate::plan::{Fetch, MARK, Narrowed, Part, fill_marks};
use crate::topology::ShardId;
use crate::wire::frame::{Header, server};
use crate::wire::{Channel, TextArray};

/// The rows of each table, from the connections to its shards. What is narrowed by others' values is asked for when these
/// are there, all else at once.
pub(super) async fn fetch(
    client: &mut Channel,
    (inputs, shards): (&mut [&mut Connection], &[ShardId]),
    fetches: &[Fetch],
    request: Request<'_>,
    limit_bytes: usize,
) -> Result<Result<Vec<TextArray>, Failure>, Broken> {
    let mut left = limit_bytes;
    let mut fetched: Vec<Option<Fetched>> = fetches.iter().map(|_| None).collect();
    loop {
        let may_go = |(index, fetch): &(usize, &Fetch)| {
            let waits = fetch.narrowed.as_ref().is_some_and(|narrowed| fetched[narrowed.by.0].is_none());
            fetched[*index].is_none() && !waits
        };
        let ready = fetches.iter().enumerate().filter(may_go);
        let asked: Vec<(usize, Vec<Part>)> = ready.map(|(index, fetch)| (index, narrow(fetch, &fetched))).collect();
        if asked.is_empty() {
            break;
        }
        let place = |part: &Part| shards.iter().position(|known| *known == part.shard).expect("it is among the plan's");
        for (index, parts) in &asked {
            for part in parts {
                let input = &mut *inputs[place(part)];
                if parts.len() > 1 {
                    put_describe(input, (fetches[*index].columns.as_bytes(), &[]));
                }
                request.put_fetch(input, part);
            }
        }
        for input in inputs.iter_mut() {
            send(client, input).await?;
        }
        for (index, parts) in &asked {
            let fetch = &fetches[*index];
            let (mut found, mut columns) = (Fetched::new(fetch), None);
            // Each connection answers in the order it was asked in.
            for part in parts {
                if parts.len() > 1
                    && let Err(failure) = check_columns(client, inputs[place(part)], &mut columns).await?
                {
                    return Ok(Err(failure));
                }
                if let Some(failure) = found.read(client, inputs[place(part)], left).await? {
                    return Ok(Err(Failure::Server(failure)));
                }
                if found.rows.bytes() > left {
                    return Ok(Err(Failure::Proxy(too_much(fetch, &found.rows, limit_bytes))));
                }
            }
            left -= found.rows.bytes();
            fetched[*index] = Some(found);
        }
    }
    Ok(Ok(fetched.into_iter().flatten().map(|fetched| fetched.rows).collect()))
}

/// Reads what the columns of a table are; they must be the same as those that are known.
async fn check_columns(
    client: &mut Channel,
    input: &mut Connection,
    known: &mut Option<Columns>,
) -> Result<Result<(), Failure>, Broken> {
    let mut outcome = Ok(());
    loop {
        let (kind, frame) = next(client, input).await?;
        match kind {
            server::ROW_DESCRIPTION => match (Columns::parse(&frame[Header::BYTES..]), &*known) {
                (Ok(found), None) => *known = Some(found),
                (Ok(found), Some(columns)) => {
                    if let Some(what) = found.difference(columns) {
                        outcome = Err(Failure::Proxy(differ(input, &what)));
                    }
                }
                (Err(error), _) => outcome = Err(Failure::Proxy(error)),
            },
            server::ERROR => outcome = Err(Failure::Server(frame)),
            server::READY => return Ok(outcome),
            _ => {}
        }
    }
}

/// The text with each table's rows as a literal.
pub(super) fn write_out(text: &str, tables: &[TextArray]) -> Result<String, Error> {
    fill_marks(text, |number, out| {
        let written = tables.get(number).and_then(|table| table.write_literal(out));
        written.ok_or_else(|| Error::unsupported("rows that are not UTF-8 in a command", "Use client_encoding UTF8."))
    })
}

struct Fetched {
    rows: TextArray,
    keys: Vec<Keys>,
}

/// Different values of a column.
#[derive(Default)]
struct Keys {
    values: HashSet<Box<[u8]>>,
    bytes: usize,
}

impl Keys {
    /// It costs more to ask for these than for all.
    fn are_too_many(&self) -> bool {
        self.values.len() > MOST_KEYS || self.bytes > MOST_KEY_BYTES
    }

    fn add(&mut self, value: &[u8]) {
        if !self.are_too_many() && !self.values.contains(value) {
            self.bytes += value.len();
            self.values.insert(value.into());
        }
    }
}

impl Fetched {
    fn new(fetch: &Fetch) -> Self {
        Self { rows: TextArray::default(), keys: (0..fetch.keys).map(|_| Keys::default()).collect() }
    }

    /// Reads the answer to one part; gives the ErrorResponse frame in its place. More than `most` bytes are not read to the
    /// end.
    async fn read(
        &mut self,
        client: &mut Channel,
        input: &mut Connection,
        most: usize,
    ) -> Result<Option<Bytes>, Broken> {
        let mut failure = None;
        while self.rows.bytes() <= most {
            let (kind, frame) = next(client, input).await?;
            match kind {
                server::DATA_ROW => self.add(&frame[Header::BYTES..]),
                server::ERROR => failure = Some(frame),
                server::READY => return Ok(failure),
                _ => {}
            }
        }
        Ok(None)
    }

    fn add(&mut self, body: &[u8]) {
        let mut cells = cells(body);
        self.rows.push(cells.next().flatten().unwrap_or_default());
        // What is NULL equals nothing.
        for (keys, value) in self.keys.iter_mut().zip(cells) {
            value.into_iter().for_each(|value| keys.add(value));
        }
    }
}

/// What the parts of a fetch are, once the values are there by which it is narrowed.
fn narrow(fetch: &Fetch, fetched: &[Option<Fetched>]) -> Vec<Part> {
    let keys = fetch.narrowed.as_ref().and_then(|narrowed| {
        let (by, key) = narrowed.by;
        fetched[by].as_ref().map(|fetched| (narrowed, &fetched.keys[key]))
    });
    let narrowed = keys.filter(|(_, keys)| !keys.are_too_many());
    narrowed.and_then(|(narrowed, keys)| narrowed_parts(fetch, narrowed, keys)).unwrap_or_else(|| fetch.parts.clone())
}

/// Each asks for the values that may be there; where there are none, nothing is asked. `None`: some value is not UTF-8.
fn narrowed_parts(fetch: &Fetch, narrowed: &Narrowed, keys: &Keys) -> Option<Vec<Part>> {
    let mut values = Vec::with_capacity(keys.values.len());
    for value in &keys.values {
        let text = std::str::from_utf8(value).ok()?;
        values.push((value, narrowed.shard_of(text)));
    }
    let mut parts = Vec::with_capacity(fetch.parts.len());
    for part in &fetch.parts {
        let mut array = TextArray::default();
        let here = values.iter().filter(|(_, shard)| shard.is_none_or(|shard| shard == part.shard));
        here.for_each(|(value, _)| array.push(value));
        if array.elements() == 0 {
            continue;
        }
        let mut literal = String::new();
        array.write_literal(&mut literal)?;
        let text = part.text.as_deref().unwrap_or_default();
        let text = format!("{text}{}", narrowed.condition.replace(MARK, &literal));
        parts.push(Part { text: Some(text.into()), ..part.clone() });
    }
    Some(parts)
}

fn too_much(fetch: &Fetch, rows: &TextArray, limit_bytes: usize) -> Error {
    let message = format!(
        "the rows of \"{}\" that the statement needs from all shards exceed gather_limit ({limit_bytes} B)",
        fetch.table
    );
    Error::new(SqlState::TOO_LARGE, message)
        .with_detail(format!("{} rows of it had been read.", rows.elements()))
        .with_hint(format!("Add a condition on columns of \"{}\" alone, or raise gather_limit.", fetch.table))
}

/// So many values a statement may name, and so long they may be.
const MOST_KEYS: usize = 20_000;
const MOST_KEY_BYTES: usize = 1 << 20;
