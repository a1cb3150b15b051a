//! Rows of several shards become parameters of the statement that one of them computes.

use bytes::Bytes;

use super::failure::Failure;
use super::relay::Broken;
use super::request::Request;
use super::scatter::{Ended, differ, next, send};
use super::single::{parameter_types, put_describe, single};
use crate::backend::Connection;
use crate::error::{Error, SqlState};
use crate::merge::Columns;
use crate::plan::{Fetch, Gather, MARK};
use crate::topology::ShardId;
use crate::wire::frame::{Header, malformed, server, take_u16, take_u32};
use crate::wire::{Channel, TextArray};

/// `inputs` are connections to the plan's shards, in their order: the statement runs on the first.
pub(super) async fn gather(
    client: &mut Channel,
    inputs: &mut [&mut Connection],
    plan: &Gather,
    request: Request<'_>,
    limit_bytes: usize,
) -> Result<Ended, Broken> {
    let shards = plan.shards();
    let tables = match fetch(client, (inputs, &shards), &plan.fetches, request, limit_bytes).await? {
        Ok(tables) => tables,
        Err(failure) => return Ok(failure.tell(client)),
    };
    let home = &mut *inputs[0];
    if let Err(error) = put_with(home, request, (&plan.text, plan.written_out), tables) {
        return Ok(Ended::Refused(error));
    }
    single(client, home, request, &mut |_, _| {}).await
}

/// Puts a statement on the connection with the rows of its tables, as parameters or `written_out`.
pub(super) fn put_with(
    input: &mut Connection,
    request: Request<'_>,
    (text, written_out): (&str, bool),
    tables: Vec<TextArray>,
) -> Result<(), Error> {
    if written_out {
        request.put_written_out(input, &write_out(text, &tables)?);
    } else {
        request.put_gathered(input, text, &tables);
    }
    Ok(())
}

/// The rows of a query, held here.
#[derive(Debug, Default)]
pub struct Collected {
    pub types: Vec<u32>,
    /// Of the statement's parameters.
    pub parameters: Vec<u32>,
    rows: Vec<Bytes>,
}

/// What the server takes a statement's parameters for, which it would not know of the query alone.
pub(super) async fn types_of(
    client: &mut Channel,
    input: &mut Connection,
    request: Request<'_>,
) -> Result<Result<Vec<u32>, Bytes>, Broken> {
    match request {
        Request::Extended { text, types, bind, .. } if bind.parameters() > 0 => {
            input.unnamed = None;
            parameter_types(client, input, (text, types)).await
        }
        Request::Extended { .. } | Request::Simple { .. } => Ok(Ok(Vec::new())),
    }
}

/// As [`gather`], but the answer stays here, as text.
pub async fn collect(
    client: &mut Channel,
    inputs: &mut [&mut Connection],
    plan: &Gather,
    request: Request<'_>,
    limit_bytes: usize,
) -> Result<Result<Collected, Ended>, Broken> {
    let known = match types_of(client, &mut *inputs[0], request).await? {
        Ok(types) => types,
        Err(frame) => return Ok(Err(Failure::Server(frame).tell(client))),
    };
    let request = request.with_types(&known);
    let tables = match fetch(client, (inputs, &plan.shards()), &plan.fetches, request, limit_bytes).await? {
        Ok(tables) => tables,
        Err(failure) => return Ok(Err(failure.tell(client))),
    };
    let home = &mut *inputs[0];
    request.put_collected(home, &plan.text, &tables);
    drop(tables);
    send(client, home).await?;
    Ok(match rows_of(client, home, limit_bytes).await? {
        Ok(collected) => Ok(Collected { parameters: known.clone(), ..collected }),
        Err(failure) => Err(failure.tell(client)),
    })
}

/// The answer to a query that was put on the connection (see [`Request::put_collected`]).
pub(super) async fn rows_of(
    client: &mut Channel,
    input: &mut Connection,
    limit_bytes: usize,
) -> Result<Result<Collected, Failure>, Broken> {
    let (mut collected, mut bytes, mut failure) = (Collected::default(), 0, None);
    while !input.owed.is_empty() {
        let (kind, frame) = next(client, input).await?;
        match kind {
            server::ROW_DESCRIPTION => match Columns::parse(&frame[Header::BYTES..]) {
                Ok(columns) => collected.types = columns.types(),
                Err(error) => return Ok(Err(Failure::Proxy(error))),
            },
            server::DATA_ROW => {
                bytes += frame.len();
                if bytes > limit_bytes {
                    let message = format!("the rows to write exceed gather_limit ({limit_bytes} B)");
                    return Ok(Err(Failure::Proxy(Error::new(SqlState::TOO_LARGE, message))));
                }
                collected.rows.push(frame.slice(Header::BYTES..));
            }
            server::ERROR => failure = Some(frame),
            _ => {}
        }
    }
    Ok(match failure {
        None => Ok(collected),
        Some(frame) => Err(Failure::Server(frame)),
    })
}

impl Collected {
    /// The values of each row. An error: some text is not UTF-8.
    pub fn rows(&self) -> Result<Vec<Vec<Option<&str>>>, Error> {
        self.rows.iter().map(|body| values_of(body)).collect()
    }
}

pub(super) fn values_of(body: &[u8]) -> Result<Vec<Option<&str>>, Error> {
    let mut rest = body;
    let count = take_u16(&mut rest)?;
    let mut value = || match take_u32(&mut rest)? {
        NULL => Ok(None),
        length => {
            let cut = rest.split_at_checked(length as usize).ok_or_else(|| malformed("a short row"))?;
            rest = cut.1;
            let text = std::str::from_utf8(cut.0);
            text.map(Some).map_err(|_| Error::unsupported("rows that are not UTF-8", "Use client_encoding UTF8."))
        }
    };
    (0..count).map(|_| value()).collect()
}

/// A length of -1.
const NULL: u32 = u32::MAX;

/// The rows of each table, from the connections to its shards.
pub(super) async fn fetch(
    client: &mut Channel,
    (inputs, shards): (&mut [&mut Connection], &[ShardId]),
    fetches: &[Fetch],
    request: Request<'_>,
    limit_bytes: usize,
) -> Result<Result<Vec<TextArray>, Failure>, Broken> {
    let place = |shard| shards.iter().position(|known| *known == shard).expect("it is among the plan's");
    for fetch in fetches {
        for part in &fetch.parts {
            let input = &mut *inputs[place(part.shard)];
            put_describe(input, (fetch.columns.as_bytes(), &[]));
            request.put_fetch(input, part);
        }
    }
    for input in inputs.iter_mut() {
        send(client, input).await?;
    }
    let mut left = limit_bytes;
    let mut tables = Vec::with_capacity(fetches.len());
    for fetch in fetches {
        let (mut rows, mut columns) = (TextArray::default(), None);
        // Each connection answers in the order it was asked in.
        for part in &fetch.parts {
            let input = &mut *inputs[place(part.shard)];
            if let Err(failure) = check_columns(client, input, &mut columns).await? {
                return Ok(Err(failure));
            }
            if let Some(failure) = fetch_rows(client, inputs[place(part.shard)], &mut rows, left).await? {
                return Ok(Err(Failure::Server(failure)));
            }
            if rows.bytes() > left {
                return Ok(Err(Failure::Proxy(too_much(fetch, &rows, limit_bytes))));
            }
        }
        left -= rows.bytes();
        tables.push(rows);
    }
    Ok(Ok(tables))
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
    let mut out = String::new();
    for (index, piece) in text.split(MARK).enumerate() {
        if index % 2 == 0 {
            out.push_str(piece);
            continue;
        }
        let table = piece.parse::<usize>().ok().and_then(|place| tables.get(place));
        if table.and_then(|table| table.write_literal(&mut out)).is_none() {
            return Err(Error::unsupported("rows that are not UTF-8 in a command", "Use client_encoding UTF8."));
        }
    }
    Ok(out)
}

/// Reads the answer to one part; gives the ErrorResponse frame in its place. More than `most` bytes are not read to the end.
async fn fetch_rows(
    client: &mut Channel,
    input: &mut Connection,
    rows: &mut TextArray,
    most: usize,
) -> Result<Option<Bytes>, Broken> {
    let mut failure = None;
    while rows.bytes() <= most {
        let (kind, frame) = next(client, input).await?;
        match kind {
            // One column: its count, then length and text.
            server::DATA_ROW => rows.push(&frame[Header::BYTES + 2..]),
            server::ERROR => failure = Some(frame),
            server::READY => return Ok(failure),
            _ => {}
        }
    }
    Ok(None)
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
