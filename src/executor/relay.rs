//! One client, one server connection: bytes in both directions until everything asked is answered.
//!
//! Both directions are always served together, each bounded: a client that sends without reading cannot dead-lock
//! us, a slow reader holds back only its own server.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BytesMut};

use crate::backend::{Connection, Event, Fault, Verdict};
use crate::error::Error;
use crate::wire::frame::{Header, server};
use crate::wire::{Channel, Oids};

/// What a relay asks of the unit of work it carries.
pub trait Unit: Send {
    /// Takes what the client sent off `input` and sends it on, as far as it can. `true`: the unit is complete.
    fn feed(&mut self, input: &mut BytesMut, connection: &mut Connection) -> Result<bool, Error>;

    /// What the client sent next can be taken only when the server has answered.
    fn waits(&self) -> bool;

    /// A setting has a new value. `true`: the client does not know yet.
    fn parameter(&mut self, name: &str, value: &str) -> bool;

    /// The server speaks of an error; `body` is that of the ErrorResponse, as far as it is there. Gives what the client is to be told in its place, if anything.
    fn failed(&mut self, body: &[u8], fault: Fault) -> Option<BytesMut>;

    /// It failed because its client is to go, who is told this instead.
    fn ends(&self) -> Option<Error>;

    /// It waits for nothing but its client, for now; who wants it to end wakes it. Gives the error that ends it.
    fn idles(&mut self, waker: &Waker) -> Option<Error>;

    /// What it failed of, another attempt may do better: the client should not see the error yet.
    fn hopes(&self) -> bool;

    /// Something is about to be put on the connection that the server is to answer, and nothing else is owed.
    fn asks(&mut self);

    /// All of that has been written.
    fn has_asked(&mut self, connection: &Connection);

    /// A part of a statement's description; `body` as far as it is there, `oids` by whose numbers it was.
    fn described(&mut self, kind: u8, body: &[u8], oids: Option<&Oids>);

    /// Within the extended protocol the client was asked for copy data: one more Sync must come from it.
    fn reopen(&mut self);

    /// A NoticeResponse comes for the client. `false`: it is not to have it.
    fn noticed(&mut self, body: &[u8]) -> bool;

    /// A NotificationResponse is for this client; `body` is that of the message.
    fn wants_notification(&self, body: &[u8]) -> bool;

    /// The number of its client's process, as others are told it.
    fn own_number(&self) -> i32;
}

/// Why a relay ended early.
#[derive(Debug)]
pub enum Broken {
    /// Nobody is there to be told.
    Client(std::io::Error),
    /// The server is gone or not to be trusted. `midway`: half a message has reached the client.
    Server { error: Error, midway: bool },
    /// The client broke the protocol, or asked for what cannot be: the error is for it.
    Refused(Error),
}

/// Relays until the unit is complete and nothing is owed. What the client has not been sent yet is in its `output`.
pub async fn relay(client: &mut Channel, connection: &mut Connection, unit: &mut dyn Unit) -> Result<(), Broken> {
    let mut relay = Relay { complete: false, asked: true, answered: false, passing: 0, passing_to_client: false };
    std::future::poll_fn(|cx| relay.poll(cx, client, connection, unit)).await
}

struct Relay {
    complete: bool,
    /// What is owed has been asked for.
    asked: bool,
    /// Something of the server's is for the client, and it should have it.
    answered: bool,
    /// Bytes still to come of a frame of the server that has been settled already.
    passing: usize,
    passing_to_client: bool,
}

impl Relay {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Channel,
        connection: &mut Connection,
        unit: &mut dyn Unit,
    ) -> Poll<Result<(), Broken>> {
        loop {
            self.forward(client, connection, unit)?;
            let mut hungry = false;
            if !self.complete || connection.copying_in {
                hungry = self.feed(client, connection, unit)?;
            }
            if self.is_done(connection) {
                return Poll::Ready(Ok(()));
            }
            // What it waited for came from nowhere.
            let waits_no_more = unit.waits() && connection.owed.is_empty();
            let mut progress = self.poll_server(cx, client, connection, unit)?;
            progress |= waits_no_more && connection.channel.output.len() < BUFFER_BYTES;
            if !progress {
                let most = if hungry { usize::MAX } else { BUFFER_BYTES };
                // What stands for replies of the server goes with those.
                let waits = self.complete && !self.answered && client.output.len() < BUFFER_BYTES;
                progress = if waits { poll_input(cx, client, most)? } else { poll_client(cx, client, most)? };
            }
            if !progress {
                let idles = connection.copying_in || (!self.complete && connection.owed.is_empty());
                return match idles.then(|| unit.idles(cx.waker())).flatten() {
                    Some(error) => Poll::Ready(Err(Broken::Refused(error))),
                    None => Poll::Pending,
                };
            }
        }
    }

    /// `true`: what is there does not do, however much it is.
    fn feed(&mut self, client: &mut Channel, connection: &mut Connection, unit: &mut dyn Unit) -> Result<bool, Broken> {
        if connection.channel.output.len() >= BUFFER_BYTES {
            return Ok(false);
        }
        if self.asked && connection.owed.is_empty() {
            self.asked = false;
            unit.asks();
        }
        self.complete = unit.feed(&mut client.input, connection).map_err(Broken::Refused)?;
        connection.owed.give(&mut client.output);
        Ok(!self.complete && !unit.waits() && connection.channel.output.len() < BUFFER_BYTES)
    }

    /// `true`: there is more to do at once.
    fn poll_server(
        &mut self,
        cx: &mut Context<'_>,
        client: &Channel,
        connection: &mut Connection,
        unit: &mut dyn Unit,
    ) -> Result<bool, Broken> {
        let full = connection.channel.output.len() >= BUFFER_BYTES;
        let lost = |connection: &Connection, cause: &std::io::Error, midway| Broken::Server {
            error: connection.lost(cause),
            midway,
        };
        let mut written = false;
        if !connection.channel.is_written() {
            match connection.channel.poll_flush_in_turn(cx) {
                Poll::Ready(Ok(())) => {
                    written = full;
                    if !std::mem::replace(&mut self.asked, true) {
                        unit.has_asked(connection);
                    }
                }
                // What the server had to say before it left may still be there to read.
                Poll::Ready(Err(_)) => connection.channel.output.clear(),
                Poll::Pending => {}
            }
        }
        if client.output.len() >= BUFFER_BYTES {
            return Ok(written);
        }
        match connection.channel.poll_fill(cx) {
            Poll::Pending => Ok(written),
            Poll::Ready(Ok(0)) => Err(lost(connection, &std::io::ErrorKind::UnexpectedEof.into(), self.is_midway())),
            Poll::Ready(Ok(_)) => Ok(true),
            Poll::Ready(Err(cause)) => Err(lost(connection, &cause, self.is_midway())),
        }
    }

    fn is_done(&self, connection: &Connection) -> bool {
        self.complete && self.passing == 0 && connection.owed.is_empty()
    }

    fn is_midway(&self) -> bool {
        self.passing > 0 && self.passing_to_client
    }

    /// Moves what the server sent to the client's output, frame by frame as far as it goes.
    fn forward(
        &mut self,
        client: &mut Channel,
        connection: &mut Connection,
        unit: &mut dyn Unit,
    ) -> Result<(), Broken> {
        // What is there beyond the last reply is none of this client's.
        while client.output.len() < BUFFER_BYTES && !connection.channel.input.is_empty() && !self.is_done(connection) {
            if self.passing > 0 {
                if !self.pass(client, connection) {
                    break;
                }
                continue;
            }
            let run = run_of_answers(connection)?;
            if run > 0 {
                self.answered = true;
                move_front(&mut connection.channel.input, run, &mut client.output);
                connection.owed.give(&mut client.output);
                continue;
            }
            if !self.forward_one(client, connection, unit)? {
                break;
            }
        }
        Ok(())
    }

    /// `false`: not enough of the next frame is there.
    fn forward_one(
        &mut self,
        client: &mut Channel,
        connection: &mut Connection,
        unit: &mut dyn Unit,
    ) -> Result<bool, Broken> {
        let untrusted = |error| Broken::Server { error, midway: false };
        let Some(header) = Header::read(&connection.channel.input).map_err(untrusted)? else { return Ok(false) };
        let there = connection.channel.input.len();
        if header.length > there && (header.length <= WHOLE_BYTES || connection.needs_whole(header.kind)) {
            return Ok(false);
        }
        let first =
            (header.length > Header::BYTES).then(|| connection.channel.input.get(Header::BYTES).copied()).flatten();
        if header.kind == server::ERROR && connection.owed.is_empty() {
            // Nobody asked: the server ends the session, and says why.
            let body = &connection.channel.input[Header::BYTES..header.length.min(there)];
            return Err(untrusted(fatal_of(connection, body)));
        }
        let settled = connection.settle(header.kind, first).map_err(untrusted)?;
        let body = &connection.channel.input[Header::BYTES..header.length.min(there)];
        let mut to_client = settled.verdict == Verdict::ToClient;
        let mut hopes = false;
        match (settled.verdict, settled.event) {
            (Verdict::Parameter, _) => to_client = told(unit, body),
            (Verdict::Notification, _) => {
                to_client = unit.wants_notification(body);
                if to_client && body.starts_with(&connection.target().process().to_be_bytes()) {
                    let own = unit.own_number().to_be_bytes();
                    connection.channel.input[Header::BYTES..][..own.len()].copy_from_slice(&own);
                }
            }
            (_, Event::Failed(true)) if crate::backend::is_fatal(body) => {
                let error = fatal_of(connection, body);
                return Err(Broken::Server { error, midway: false });
            }
            (_, Event::Failed(_)) => {
                if let Some(error) = unit.ends() {
                    return Err(Broken::Refused(error));
                }
                let fault = connection.owed.fault();
                let reason = connection.instead_of(body);
                let told = reason.as_ref().map_or(body, |frame| &frame[Header::BYTES..]);
                let instead = unit.failed(told, fault).map(BytesMut::freeze).or(reason);
                if let Some(instead) = instead.filter(|_| to_client && header.length <= there) {
                    client.output.extend_from_slice(&instead);
                    to_client = false;
                }
                hopes = unit.hopes();
            }
            (_, Event::Described) => unit.described(header.kind, body, connection.oids().map(Arc::as_ref)),
            (_, Event::Nothing) if header.kind == server::NOTICE && crate::backend::is_last_word(body) => {
                let error = fatal_of(connection, body);
                return Err(Broken::Server { error, midway: false });
            }
            (Verdict::ToClient, Event::Nothing) if header.kind == server::NOTICE => to_client = unit.noticed(body),
            (_, Event::CopyIn(true)) => {
                self.complete = false;
                unit.reopen();
            }
            _ => {}
        }
        let now = connection.passable_at_first(header.length.min(there));
        self.passing = header.length - now;
        self.passing_to_client = to_client;
        if to_client {
            self.answered = !hopes;
            move_front(&mut connection.channel.input, now, &mut client.output);
        } else {
            self.answered &= !hopes;
            connection.channel.input.advance(now);
        }
        connection.owed.give(&mut client.output);
        Ok(true)
    }

    /// `false`: more must come first.
    fn pass(&mut self, client: &mut Channel, connection: &mut Connection) -> bool {
        let there = self.passing.min(connection.channel.input.len());
        let now = connection.passable(there, self.passing - there);
        if self.passing_to_client {
            move_front(&mut connection.channel.input, now, &mut client.output);
        } else {
            connection.channel.input.advance(now);
        }
        self.passing -= now;
        now > 0
    }
}

/// How many bytes of whole frames at the front of the input are for the client as they come, up to where it is given a
/// reply that comes from nowhere, or the last one.
fn run_of_answers(connection: &mut Connection) -> Result<usize, Broken> {
    let untrusted = |error| Broken::Server { error, midway: false };
    let mut end = 0;
    while let Some(header) = Header::whole(&connection.channel.input[end..]).map_err(untrusted)? {
        if !connection.passes(header, end).map_err(untrusted)? {
            break;
        }
        end += header.length;
        if connection.owed.is_empty() || connection.owed.gives() {
            break;
        }
    }
    Ok(end)
}

/// Writes what waits and reads what is there, while less than `most` bytes wait. `true`: there is more to do at once.
pub(super) fn poll_client(cx: &mut Context<'_>, client: &mut Channel, most: usize) -> Result<bool, Broken> {
    let mut progress = false;
    if !client.is_written() {
        let full = client.output.len() >= BUFFER_BYTES;
        match client.poll_flush(cx) {
            Poll::Ready(Ok(())) => progress = full,
            Poll::Ready(Err(cause)) => return Err(Broken::Client(cause)),
            Poll::Pending => progress = full && client.output.len() < BUFFER_BYTES,
        }
    }
    Ok(progress | poll_input(cx, client, most)?)
}

/// The second half of that.
fn poll_input(cx: &mut Context<'_>, client: &mut Channel, most: usize) -> Result<bool, Broken> {
    if client.input.len() >= most {
        return Ok(false);
    }
    match client.poll_fill(cx) {
        Poll::Pending => Ok(false),
        Poll::Ready(Ok(0)) => Err(Broken::Client(std::io::ErrorKind::UnexpectedEof.into())),
        Poll::Ready(Ok(_)) => Ok(true),
        Poll::Ready(Err(cause)) => Err(Broken::Client(cause)),
    }
}

/// Moves the first `count` bytes; without copying where all of one buffer goes to an empty one.
pub fn move_front(from: &mut BytesMut, count: usize, to: &mut BytesMut) {
    if to.is_empty() && count == from.len() {
        to.clear();
        std::mem::swap(from, to);
    } else {
        if to.capacity() - to.len() < count {
            // What comes behind it goes the same way, as a rule.
            to.reserve(from.len());
        }
        to.extend_from_slice(&from[..count]);
        from.advance(count);
    }
}

fn told(unit: &mut dyn Unit, body: &[u8]) -> bool {
    let mut rest = body;
    let mut text = || crate::wire::frame::take_str(&mut rest);
    match (text(), text()) {
        (Ok(name), Ok(value)) => unit.parameter(name, value),
        _ => false,
    }
}

/// A server's FATAL ends its connection, not the client's: it is told as an error of the statement.
pub(super) fn fatal_of(connection: &Connection, body: &[u8]) -> Error {
    connection.ended(body)
}

/// Each buffer of a relay holds about this much at most.
pub const BUFFER_BYTES: usize = 64 * 1024;
/// Frames up to this are relayed whole, longer ones as they come.
const WHOLE_BYTES: usize = 16 * 1024;
