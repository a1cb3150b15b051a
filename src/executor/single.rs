//! One statement of a pipeline on one shard: its answer as it comes.

use super::relay::{BUFFER_BYTES, Broken};
use super::request::Request;
use super::scatter::{Ended, drain, next_reporting, send};
use bytes::{BufMut, Bytes};

use crate::backend::{Cause, Connection, Payee};
use crate::error::Error;
use crate::wire::Channel;
use crate::wire::frame::{Header, client, put, server};
use crate::wire::message::{put_bare, put_named, types_in};

/// Who hears of ParameterStatus messages: name and value.
pub(super) type Report<'a> = &'a mut (dyn FnMut(&str, &str) + Send);

/// Gives the client the answer of `input`, which has been sent the statement.
pub async fn single(
    client: &mut Channel,
    input: &mut Connection,
    request: Request<'_>,
    report: Report<'_>,
) -> Result<Ended, Broken> {
    send(client, input).await?;
    let mut ended = Ended::Done;
    while !input.owed.is_empty() {
        let (kind, frame) = next_reporting(client, input, report).await?;
        let for_client = match kind {
            server::PARSE_COMPLETE | server::READY => false,
            server::BIND_COMPLETE => request.announces_bind(),
            server::ROW_DESCRIPTION | server::NO_DATA => request.wants_columns(),
            server::COPY_IN | server::COPY_OUT if request.is_extended() => {
                let hint = "Send it by itself, or by the simple protocol.";
                let error = Error::unsupported("COPY within a pipeline", hint);
                return Err(Broken::Server { error, midway: false });
            }
            server::ERROR => {
                ended = Ended::Failed(frame.clone());
                true
            }
            _ => true,
        };
        if for_client {
            client.output.extend_from_slice(&frame);
        }
        if client.output.len() >= BUFFER_BYTES {
            client.flush().await.map_err(Broken::Client)?;
        }
    }
    Ok(ended)
}

/// What a client hears of a statement's description, beside what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    All,
    /// And that it has no parameters.
    Columns,
    Nothing,
}

/// What a statement's parameters and columns are.
pub async fn describe(
    client: &mut Channel,
    input: &mut Connection,
    (text, types): (&[u8], &[u32]),
    told: Told,
) -> Result<Ended, Broken> {
    put_describe(input, (text, types));
    send(client, input).await?;
    let mut ended = Ended::Done;
    while !input.owed.is_empty() {
        let (kind, frame) = next_reporting(client, input, &mut |_, _| {}).await?;
        match kind {
            server::PARSE_COMPLETE | server::READY => continue,
            server::ERROR => ended = Ended::Failed(frame.clone()),
            _ if told == Told::Nothing => continue,
            server::PARAMETER_DESCRIPTION if told == Told::Columns => {
                put(&mut client.output, kind, |body| body.put_u16(0));
                continue;
            }
            _ => {}
        }
        client.output.extend_from_slice(&frame);
    }
    Ok(ended)
}

/// The types of a statement's parameters, whether declared or not; or the server's ErrorResponse frame.
pub async fn parameter_types(
    client: &mut Channel,
    input: &mut Connection,
    (text, types): (&[u8], &[u32]),
) -> Result<Result<Vec<u32>, Bytes>, Broken> {
    put_describe(input, (text, types));
    send(client, input).await?;
    let mut found = Ok(Vec::new());
    while !input.owed.is_empty() {
        let (kind, frame) = next_reporting(client, input, &mut |_, _| {}).await?;
        match kind {
            server::ERROR => found = Err(frame),
            server::PARAMETER_DESCRIPTION => {
                found = Ok(types_in(&frame[Header::BYTES..]));
            }
            _ => {}
        }
    }
    Ok(found)
}

pub(super) fn put_describe(input: &mut Connection, (text, types): (&[u8], &[u32])) {
    input.unnamed = None;
    input.put_parse("", text, types);
    let out = &mut input.channel.output;
    put_named(out, client::DESCRIBE, b'S', "");
    put_bare(out, client::SYNC);
    [Cause::Parse(None), Cause::DescribeStatement, Cause::Sync]
        .into_iter()
        .for_each(|cause| input.owed.push(cause, Payee::Client));
}

/// Reads away what a statement that has failed left on the connections it ran on.
pub async fn drain_all(client: &mut Channel, inputs: &mut [&mut Connection]) -> Result<(), Broken> {
    for input in inputs.iter_mut() {
        // The client has its error already.
        drain(client, input).await?;
    }
    Ok(())
}
