//! COPY TO STDOUT over several shards: the rows of one after another, as bytes.

use bytes::Bytes;

use super::failure::Failure;
use super::relay::{BUFFER_BYTES, Broken, move_front};
use super::request::Request;
use super::scatter::{Ended, read, send, take_answer};
use crate::backend::Connection;
use crate::copy::binary_header;
use crate::error::Error;
use crate::plan::{CopyOut, Part};
use crate::wire::Channel;
use crate::wire::frame::{self, Header, server};
use crate::wire::message::{put_bare, put_command_complete};

/// A shard is asked when the one before it has given all of its rows: one that fails has none behind it to be stopped.
pub(super) async fn copy_out(
    client: &mut Channel,
    inputs: &mut [&mut Connection],
    plan: &CopyOut,
    request: Request<'_>,
) -> Result<Ended, Broken> {
    let mut whole = Whole { plan, opened: None, rows: 0 };
    for (input, &shard) in inputs.iter_mut().zip(&plan.shards) {
        request.put(input, &Part { shard, text: None, parameters: None }, 0, 0);
        input.expect_copy(&plan.types);
        send(client, input).await?;
        if let Err(failure) = whole.append(client, input).await? {
            return Ok(failure.tell(client));
        }
    }
    if plan.binary {
        put_data(client, TRAILER);
    }
    put_bare(&mut client.output, server::COPY_DONE);
    put_command_complete(&mut client.output, &format!("COPY {}", whole.rows));
    Ok(Ended::Done)
}

/// The copy that the client sees.
struct Whole<'p> {
    plan: &'p CopyOut,
    /// The first shard's CopyOutResponse.
    opened: Option<Bytes>,
    rows: u64,
}

/// How far a shard's answer has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Start,
    /// What stands before its rows is none of the client's.
    Head,
    Rows,
}

impl Whole<'_> {
    async fn append(&mut self, client: &mut Channel, input: &mut Connection) -> Result<Result<(), Failure>, Broken> {
        let (mut at, mut failure) = (At::Start, None);
        while !input.owed.is_empty() {
            if at == At::Rows && !self.plan.binary {
                let run = run_of_rows(input)?;
                move_front(&mut input.channel.input, run, &mut client.output);
                pass_long(client, input).await?;
            }
            match take_answer(client, input, &mut |_, _| {})? {
                None => read(client, input).await?,
                Some((server::COPY_OUT, answer)) => match self.open(client, input, answer) {
                    Ok(next) => at = next,
                    Err(error) => return Ok(Err(Failure::Proxy(error))),
                },
                Some((server::COPY_DATA, answer)) => at = self.give(client, at, &answer[Header::BYTES..]),
                Some((server::COMMAND_COMPLETE, answer)) => self.rows += count(&answer[Header::BYTES..]),
                Some((server::ERROR, answer)) => failure = Some(Failure::Server(answer)),
                Some(_) => {}
            }
            if client.output.len() >= BUFFER_BYTES {
                client.flush().await.map_err(Broken::Client)?;
            }
        }
        Ok(failure.map_or(Ok(()), Err))
    }

    fn open(&mut self, client: &mut Channel, input: &Connection, answer: Bytes) -> Result<At, Error> {
        let has_head = self.plan.header || self.plan.binary;
        match &self.opened {
            None => {
                client.output.extend_from_slice(&answer);
                self.opened = Some(answer);
                Ok(if self.plan.binary { At::Start } else { At::Rows })
            }
            Some(opened) if *opened == answer => Ok(if has_head { At::Head } else { At::Rows }),
            Some(_) => {
                let what = format!("a COPY whose columns differ on shard {}", input.server.shard.0);
                let hint = "The table's columns must be the same, in the same order, on every shard.";
                Err(Error::unsupported(what, hint))
            }
        }
    }

    /// A message that has to be looked at.
    fn give(&self, client: &mut Channel, at: At, data: &[u8]) -> At {
        let head = match at {
            At::Rows => 0,
            // The first row may stand in the same message, and so may what is behind the last one.
            At::Start | At::Head if self.plan.binary => binary_header(data).unwrap_or(0),
            At::Start | At::Head => data.len(),
        };
        let (head, rows) = data.split_at(head);
        let head = if at == At::Start { head } else { &[] };
        let rows = if self.plan.binary && rows == TRAILER { &[] } else { rows };
        if head.len() + rows.len() > 0 {
            frame::put(&mut client.output, server::COPY_DATA, |body| {
                body.extend_from_slice(head);
                body.extend_from_slice(rows);
            });
        }
        At::Rows
    }
}

/// How many bytes of whole rows are at the front of the input.
fn run_of_rows(input: &mut Connection) -> Result<usize, Broken> {
    let untrusted = |error| Broken::Server { error, midway: false };
    let mut end = 0;
    while let Some(header) = Header::whole(&input.channel.input[end..]).map_err(untrusted)? {
        if header.kind != server::COPY_DATA || !input.passes(header, end).map_err(untrusted)? {
            break;
        }
        end += header.length;
    }
    Ok(end)
}

/// A row that is longer than what is there of it goes on as it comes.
async fn pass_long(client: &mut Channel, input: &mut Connection) -> Result<(), Broken> {
    let untrusted = |error| Broken::Server { error, midway: false };
    let Some(header) = Header::read(&input.channel.input).map_err(untrusted)? else { return Ok(()) };
    if header.kind != server::COPY_DATA || header.length <= BUFFER_BYTES {
        return Ok(());
    }
    input.settle(header.kind, None).map_err(untrusted)?;
    let mut left = header.length;
    loop {
        let now = left.min(input.channel.input.len());
        move_front(&mut input.channel.input, now, &mut client.output);
        left -= now;
        if left == 0 {
            return Ok(());
        }
        client.flush().await.map_err(Broken::Client)?;
        read(client, input).await.map_err(|broken| match broken {
            Broken::Server { error, .. } => Broken::Server { error, midway: true },
            other => other,
        })?;
    }
}

fn put_data(client: &mut Channel, data: &[u8]) {
    frame::put(&mut client.output, server::COPY_DATA, |body| body.extend_from_slice(data));
}

/// Of a command tag.
fn count(tag: &[u8]) -> u64 {
    let text = std::str::from_utf8(tag.strip_suffix(&[0]).unwrap_or(tag)).unwrap_or_default();
    text.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Behind the last row of the binary format.
const TRAILER: &[u8] = &[0xff, 0xff];
