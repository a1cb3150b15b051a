//! Rows of several shards become parameters of the statement that one of them computes.

use bytes::Bytes;

use super::failure::Failure;
use super::fetch::{fetch, write_out};
use super::relay::Broken;
use super::request::Request;
use super::scatter::{Ended, next, send};
use super::single::{parameter_types, single};
use crate::backend::Connection;
use crate::error::{Error, SqlState};
use crate::merge::{Columns, cells};
use crate::plan::Gather;
use crate::statement::copied_query;
use crate::wire::frame::{Header, malformed, server, take_u16};
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
    if plan.written_out
        && let Err(failure) = expect_copy(home, &plan.text, &tables).await?
    {
        return Ok(failure.tell(client));
    }
    if let Err(error) = put_with(home, request, (&plan.text, plan.written_out), tables) {
        return Ok(Ended::Refused(error));
    }
    single(client, home, request, &mut |_, _| {}).await
}

/// Of a statement that may be a COPY: what its columns are, where that counts.
async fn expect_copy(input: &mut Connection, text: &str, tables: &[TextArray]) -> Result<Result<(), Failure>, Broken> {
    if !input.has_numbers_in_values() || copied_query(text).is_none() {
        return Ok(Ok(()));
    }
    let text = match write_out(text, tables) {
        Ok(text) => text,
        Err(error) => return Ok(Err(Failure::Proxy(error))),
    };
    let types = input.column_types(copied_query(&text).unwrap_or_default()).await;
    Ok(match types.map_err(|error| Broken::Server { error, midway: false })? {
        Ok(types) => {
            input.expect_copy(&types);
            Ok(())
        }
        Err(body) => Err(Failure::server(&body)),
    })
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
    let count = take_u16(&mut &*body)?;
    let text = |cell| {
        std::str::from_utf8(cell)
            .map_err(|_| Error::unsupported("rows that are not UTF-8", "Use client_encoding UTF8."))
    };
    let values: Vec<_> = cells(body).map(|cell| cell.map(text).transpose()).collect::<Result<_, _>>()?;
    if values.len() == usize::from(count) { Ok(values) } else { Err(malformed("a short row")) }
}
