//! One read on several shards: their rows become one answer as they come.

use bytes::{BufMut, Bytes, BytesMut};

use super::failure::Failure;
use super::relay::{BUFFER_BYTES, Broken, fatal_of, poll_client};
use super::request::Request;
use super::single::Report;
use crate::backend::{Connection, Event, Verdict, read_parameter};
use crate::copy::Writer;
use crate::error::Error;
use crate::merge::{Columns, Merge, Merger, Step, cells};
use crate::plan::{MARK, Part, Scatter};
use crate::wire::frame::{Header, server};
use crate::wire::message::{put_bare, put_command_complete, put_row};
use crate::wire::{Channel, frame};

/// How a statement on several shards ended.
#[derive(Debug)]
pub enum Ended {
    Done,
    /// The ErrorResponse frame of a server: already in the client's output.
    Failed(Bytes),
    /// An error of the proxy's own: the client is to be told.
    Refused(Error),
}

/// Asks each of `inputs` for its part and merges their answers into the client's output.
pub(super) async fn scatter(
    client: &mut Channel,
    inputs: &mut [&mut Connection],
    plan: &Scatter,
    request: Request<'_>,
    limit_bytes: usize,
) -> Result<Ended, Broken> {
    if plan.in_turn {
        return in_turn(client, inputs, plan, request).await;
    }
    let merge = &plan.merge;
    let rows_of_each = rows_of_each(merge, request.rows());
    for (input, part) in inputs.iter_mut().zip(&plan.parts) {
        request.put(input, part, merge.hidden, rows_of_each);
        send(client, input).await?;
    }
    let mut columns: Option<Columns> = None;
    for input in inputs.iter_mut() {
        match head(client, input).await? {
            Head::Columns(body) => match Columns::parse(&body) {
                Ok(given) => match columns.as_ref().and_then(|known| given.difference(known)) {
                    None => drop(columns.get_or_insert(given)),
                    Some(what) => return Ok(Ended::Refused(differ(input, &what))),
                },
                Err(error) => return Ok(Ended::Refused(error)),
            },
            Head::None => return Ok(Ended::Refused(differ(input, "no columns"))),
            Head::Failed(frame) => {
                client.output.extend_from_slice(&frame);
                return Ok(Ended::Failed(frame));
            }
        }
    }
    let columns = columns.expect("a scatter has at least one part");
    let merge = &merge.located(columns.len());
    let mut merger = match Merger::new(merge, &columns, inputs.len(), limit_bytes) {
        Ok(merger) => merger,
        Err(error) => return Ok(Ended::Refused(error)),
    };
    let names = columns.names(merge);
    let answer = match plan.copied.as_deref().map(|copied| copied.of_columns(&names)) {
        None => Answer::Rows,
        Some(Some(writer)) => Answer::Copied(writer),
        Some(None) => {
            let what = "COPY of a query with an option for a column that it does not give";
            return Ok(Ended::Refused(Error::unsupported(what, "Name its columns.")));
        }
    };
    match &answer {
        Answer::Rows => put_head(client, &columns, merge, request),
        Answer::Copied(writer) => put_copy_head(client, writer, &names),
    }
    rows(client, inputs, &mut merger, &answer, request.rows()).await
}

/// What the client is given the rows as.
enum Answer<'w> {
    Rows,
    /// The data of COPY.
    Copied(Writer<'w>),
}

impl Answer<'_> {
    fn put_row(&self, row: &[u8], out: &mut BytesMut) {
        match self {
            Self::Rows => frame::put(out, server::DATA_ROW, |out| out.extend_from_slice(row)),
            Self::Copied(writer) => frame::put(out, server::COPY_DATA, |out| writer.put_row(cells(row), out)),
        }
    }

    fn put_end(&self, client: &mut Channel, given: u64, suspended: bool) {
        match self {
            Self::Rows => put_end(client, given, suspended),
            Self::Copied(_) => {
                put_bare(&mut client.output, server::COPY_DONE);
                put_command_complete(&mut client.output, &format!("COPY {given}"));
            }
        }
    }
}

/// CopyOutResponse, and the line in front of the rows.
fn put_copy_head(client: &mut Channel, writer: &Writer<'_>, names: &[&[u8]]) {
    frame::put(&mut client.output, server::COPY_OUT, |out| {
        out.put_u8(0);
        out.put_u16(u16::try_from(names.len()).expect("a row has at most 1664 columns"));
        out.put_bytes(0, 2 * names.len());
    });
    if writer.has_header() {
        frame::put(&mut client.output, server::COPY_DATA, |out| writer.put_header(names, out));
    }
}

/// As [`scatter`], but no shard is asked for more rows than are wanted when those of the others are there.
async fn in_turn(
    client: &mut Channel,
    inputs: &mut [&mut Connection],
    plan: &Scatter,
    request: Request<'_>,
) -> Result<Ended, Broken> {
    let (mut skip, mut left) = (plan.merge.offset, plan.merge.limit.unwrap_or(u64::MAX));
    if request.rows() > 0 {
        left = left.min(u64::from(request.rows()));
    }
    let mut columns: Option<Columns> = None;
    let mut given: u64 = 0;
    for (input, part) in inputs.iter_mut().zip(&plan.parts) {
        let text = part.text.as_ref().map(|text| text.replace(MARK, &left.saturating_add(skip).to_string()));
        let part = Part { text: text.map(Into::into), ..part.clone() };
        request.put(input, &part, 0, 0);
        send(client, input).await?;
        let found = match head(client, input).await? {
            Head::Columns(body) => Columns::parse(&body),
            Head::None => return Ok(Ended::Refused(differ(input, "no columns"))),
            Head::Failed(frame) => return Ok(Failure::Server(frame).tell(client)),
        };
        match (found, &columns) {
            (Err(error), _) => return Ok(Ended::Refused(error)),
            (Ok(found), Some(known)) => {
                if let Some(what) = found.difference(known) {
                    return Ok(Ended::Refused(differ(input, &what)));
                }
            }
            (Ok(found), None) => {
                put_head(client, &found, &plan.merge, request);
                columns = Some(found);
            }
        }
        // Of another type than text the plan is one document.
        if plan.explains && columns.as_ref().is_some_and(|columns| columns.types() == [TEXT]) {
            put_row(&mut client.output, &[Some(format!("Shard {}", part.shard.0))]);
        }
        loop {
            match row(client, input).await? {
                Row::One(_) if skip > 0 => skip -= 1,
                Row::One(body) => {
                    frame::put(&mut client.output, server::DATA_ROW, |out| out.extend_from_slice(&body));
                    (given, left) = (given + 1, left.saturating_sub(1));
                }
                Row::End => break,
                Row::Failed(frame) => return Ok(Failure::Server(frame).tell(client)),
            }
            if client.output.len() >= BUFFER_BYTES {
                client.flush().await.map_err(Broken::Client)?;
            }
        }
        if let Some(failure) = drain(client, input).await? {
            return Ok(Failure::Server(failure).tell(client));
        }
        if left == 0 {
            break;
        }
    }
    match plan.explains {
        true => put_command_complete(&mut client.output, "EXPLAIN"),
        false => put_end(client, given, given == u64::from(request.rows()) && given > 0),
    }
    Ok(Ended::Done)
}

const TEXT: u32 = 25;

/// What comes in front of the rows.
fn put_head(client: &mut Channel, columns: &Columns, merge: &Merge, request: Request<'_>) {
    let told = request.wants_columns().then(|| columns.visible(merge));
    request.put_head(&mut client.output, told.as_deref());
}

/// What comes behind the rows, of which there may be more (`suspended`).
pub fn put_end(client: &mut Channel, given: u64, suspended: bool) {
    if suspended {
        put_bare(&mut client.output, server::PORTAL_SUSPENDED);
    } else {
        put_command_complete(&mut client.output, &format!("SELECT {given}"));
    }
}

/// How many rows of each shard are of use where the client wants `rows` at most; 0: all.
fn rows_of_each(merge: &Merge, rows: u32) -> u32 {
    let passes = merge.aggregate.is_none() && !merge.distinct;
    let most = u32::try_from(merge.offset).ok().and_then(|offset| rows.checked_add(offset));
    if passes && rows > 0 { most.unwrap_or(0) } else { 0 }
}

async fn rows(
    client: &mut Channel,
    inputs: &mut [&mut Connection],
    merger: &mut Merger,
    answer: &Answer<'_>,
    most: u32,
) -> Result<Ended, Broken> {
    let mut given: u64 = 0;
    let mut suspended = false;
    loop {
        let fed = match merger.step() {
            Ok(Step::Row(row)) => {
                answer.put_row(&row, &mut client.output);
                given += 1;
                if given == u64::from(most) {
                    suspended = true;
                    break;
                }
                if client.output.len() >= BUFFER_BYTES {
                    client.flush().await.map_err(Broken::Client)?;
                }
                continue;
            }
            Ok(Step::Done) => break,
            Ok(Step::Need(input)) => match row(client, inputs[input]).await? {
                Row::One(body) => merger.feed(input, body),
                Row::End => merger.end(input),
                Row::Failed(frame) => {
                    client.output.extend_from_slice(&frame);
                    return Ok(Ended::Failed(frame));
                }
            },
            Err(error) => Err(error),
        };
        if let Err(error) = fed {
            return Ok(Ended::Refused(error));
        }
    }
    // What a LIMIT left over is at most a LIMIT's worth of each shard: read away, so that connections can be kept.
    for input in inputs.iter_mut() {
        if let Some(failure) = drain(client, input).await? {
            client.output.extend_from_slice(&failure);
            return Ok(Ended::Failed(failure));
        }
    }
    answer.put_end(client, given, suspended);
    Ok(Ended::Done)
}

/// What comes before the rows.
pub(super) enum Head {
    Columns(Bytes),
    /// The statement gives no rows.
    None,
    Failed(Bytes),
}

/// Reads up to the columns.
pub(super) async fn head(client: &mut Channel, input: &mut Connection) -> Result<Head, Broken> {
    loop {
        let (kind, frame) = next(client, input).await?;
        match kind {
            server::ROW_DESCRIPTION => return Ok(Head::Columns(frame.slice(Header::BYTES..))),
            server::NO_DATA => return Ok(Head::None),
            server::ERROR => return Ok(Head::Failed(frame)),
            _ => {}
        }
    }
}

pub(super) enum Row {
    One(Bytes),
    End,
    Failed(Bytes),
}

pub(super) async fn row(client: &mut Channel, input: &mut Connection) -> Result<Row, Broken> {
    loop {
        let (kind, frame) = next(client, input).await?;
        match kind {
            server::DATA_ROW => return Ok(Row::One(frame.slice(Header::BYTES..))),
            server::COMMAND_COMPLETE | server::PORTAL_SUSPENDED => return Ok(Row::End),
            server::ERROR => return Ok(Row::Failed(frame)),
            _ => {}
        }
    }
}

/// Reads everything that is still owed; gives the ErrorResponse frame among it.
pub(super) async fn drain(client: &mut Channel, input: &mut Connection) -> Result<Option<Bytes>, Broken> {
    let mut failure = None;
    while !input.owed.is_empty() {
        let (kind, frame) = next(client, input).await?;
        if kind == server::ERROR {
            failure.get_or_insert(frame);
        }
    }
    Ok(failure)
}

/// The next frame that is an answer; notices go to the client on the way. Meanwhile the client is served too: what it
/// has been sent is written, and its leaving is seen.
pub(super) async fn next(client: &mut Channel, input: &mut Connection) -> Result<(u8, Bytes), Broken> {
    next_reporting(client, input, &mut |_, _| {}).await
}

/// As [`next`]; `report` hears of ParameterStatus messages.
pub(super) async fn next_reporting(
    client: &mut Channel,
    input: &mut Connection,
    report: Report<'_>,
) -> Result<(u8, Bytes), Broken> {
    loop {
        if let Some(answer) = take_answer(client, input, report)? {
            return Ok(answer);
        }
        read(client, input).await?;
    }
}

/// The same of what is there already.
pub(super) fn take_answer(
    client: &mut Channel,
    input: &mut Connection,
    report: Report<'_>,
) -> Result<Option<(u8, Bytes)>, Broken> {
    let untrusted = |error| Broken::Server { error, midway: false };
    while let Some((settled, header)) = input.settle_whole().map_err(untrusted)? {
        let frame: BytesMut = input.channel.input.split_to(header.length);
        match (settled.verdict, settled.event) {
            (Verdict::Parameter, _) => {
                let (name, value) = read_parameter(&frame[Header::BYTES..]).map_err(untrusted)?;
                report(&name, &value);
            }
            (Verdict::Notification, _) => {}
            (_, Event::Failed(_)) if crate::backend::is_fatal(&frame[Header::BYTES..]) => {
                let error = fatal_of(input, &frame[Header::BYTES..]);
                return Err(Broken::Server { error, midway: false });
            }
            _ if header.kind == server::NOTICE && crate::backend::is_last_word(&frame[Header::BYTES..]) => {
                let error = fatal_of(input, &frame[Header::BYTES..]);
                return Err(Broken::Server { error, midway: false });
            }
            _ if header.kind == server::NOTICE => client.output.extend_from_slice(&frame),
            (_, Event::Failed(_)) => {
                let instead = input.instead_of(&frame[Header::BYTES..]);
                return Ok(Some((header.kind, instead.unwrap_or_else(|| frame.freeze()))));
            }
            _ => return Ok(Some((header.kind, frame.freeze()))),
        }
    }
    Ok(None)
}

/// Waits for more of the server; meanwhile the client is served.
pub(super) async fn read(client: &mut Channel, input: &mut Connection) -> Result<(), Broken> {
    let outcome = std::future::poll_fn(|cx| {
        let filled = input.channel.poll_fill(cx);
        if filled.is_pending() {
            while poll_client(cx, client, BUFFER_BYTES)? {}
        }
        filled.map(Ok)
    });
    let lost = |cause: std::io::Error, input: &Connection| Broken::Server { error: input.lost(&cause), midway: false };
    match outcome.await? {
        Ok(0) => Err(lost(std::io::ErrorKind::UnexpectedEof.into(), input)),
        Ok(_) => Ok(()),
        Err(cause) => Err(lost(cause, input)),
    }
}

/// Writes what was put on a connection. The server reads it whole before it answers, so nothing need be read meanwhile
/// unless it is long; then answers are taken in too.
pub(super) async fn send(client: &mut Channel, connection: &mut Connection) -> Result<(), Broken> {
    let outcome = std::future::poll_fn(|cx| {
        let flushed = connection.channel.poll_flush(cx);
        if flushed.is_pending() {
            while connection.channel.input.len() < BUFFER_BYTES {
                match connection.channel.poll_fill(cx) {
                    std::task::Poll::Ready(Ok(count)) if count > 0 => {}
                    // An end is seen again by whoever reads next.
                    _ => break,
                }
            }
            while poll_client(cx, client, BUFFER_BYTES)? {}
        }
        flushed.map(Ok::<_, Broken>)
    });
    match outcome.await? {
        Ok(()) => Ok(()),
        Err(cause) => Err(Broken::Server { error: connection.lost(&cause), midway: false }),
    }
}

pub(super) fn differ(input: &Connection, what: &str) -> Error {
    let shard = input.server.shard.0;
    Error::unsupported(format!("a result whose columns differ on shard {shard}"), SAME_COLUMNS)
        .with_detail(format!("Shard {shard} answers with {what}."))
}

/// No other way of reading helps: the tables are not the same.
pub(super) fn is_of_columns(error: &Error) -> bool {
    error.hint.as_deref() == Some(SAME_COLUMNS)
}

const SAME_COLUMNS: &str =
    "The table's columns must be the same, in the same order, on every shard: see `pgweir check --live`.";
