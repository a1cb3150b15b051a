//! COPY FROM STDIN on several shards: the client's rows, each to where its key is.
//!
//! Client and servers are served together, each bounded: the slowest server holds back the client, an error of one is
//! heard at once.

use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::failure::Failure;
use super::relay::{BUFFER_BYTES, Broken, poll_client};
use super::request::Request;
use super::scatter::{next, send, take_answer};
use super::spread::{Answers, tag};
use crate::backend::Connection;
use crate::copy::{Field, Lines, Piece, Reader};
use crate::error::{Error, SqlState};
use crate::plan::{CopyIn, Misplaced, Part, Tag};
use crate::wire::Channel;
use crate::wire::frame::{self, Header, client as sent, malformed, put_text, server};
use crate::wire::message::{error_field, put_bare};

/// Asks each of `inputs` to take rows, then gives them the client's.
pub(super) async fn copy_in(
    client: &mut Channel,
    inputs: &mut [&mut Connection],
    plan: &CopyIn,
    request: Request<'_>,
) -> Result<Result<Answers, Failure>, Broken> {
    for (input, &shard) in inputs.iter_mut().zip(&plan.shards) {
        request.put(input, &Part { shard, text: None, parameters: None }, 0, 0);
        input.expect_copy(&plan.types);
        send(client, input).await?;
    }
    match open(client, inputs).await? {
        Ok(answer) => client.output.extend_from_slice(&answer),
        Err(failure) => {
            end(client, inputs, &copy_fail()).await?;
            return Ok(Err(failure));
        }
    }
    let mut copying = Copying::new(plan);
    let came = std::future::poll_fn(|cx| copying.poll(cx, client, inputs)).await?;
    copying.put_back(client);
    let failure = match came {
        Came::Done => {
            end(client, inputs, &bare(sent::COPY_DONE)).await?;
            return copying.collect(client, inputs).await;
        }
        Came::Failed(failure) => {
            end(client, inputs, &copy_fail()).await?;
            failure
        }
        Came::GaveUp(frame) => {
            end(client, inputs, &frame).await?;
            copying.line_of(first_failure(client, inputs).await?, |_, copying| Some(copying.reader.line() + 1))
        }
        Came::Doubtful(place, error) => {
            end(client, &mut inputs[place..=place], &bare(sent::COPY_DONE)).await?;
            end(client, inputs, &copy_fail()).await?;
            let answer = first_failure(client, &mut inputs[place..=place]).await?;
            match answer {
                Failure::Proxy(_) => Failure::Proxy(error),
                answer => copying.line_of(answer, |own, copying| copying.outlets[place].lines.in_whole(own)),
            }
        }
    };
    Ok(Err(failure))
}

/// The CopyInResponse that all have given.
async fn open(client: &mut Channel, inputs: &mut [&mut Connection]) -> Result<Result<Bytes, Failure>, Broken> {
    let (mut opened, mut failed): (Option<Bytes>, _) = (None, None);
    for input in inputs.iter_mut() {
        let failure = match next(client, input).await? {
            (server::COPY_IN, answer) if opened.as_ref().is_none_or(|known| *known == answer) => {
                opened = Some(answer);
                continue;
            }
            (server::ERROR, answer) => Failure::Server(answer),
            _ => {
                let what = format!("a COPY whose columns differ on shard {}", input.server.shard.0);
                let hint = "The table's columns must be the same, in the same order, on every shard.";
                Failure::Proxy(Error::unsupported(what, hint))
            }
        };
        failed.get_or_insert(failure);
    }
    Ok(match (opened, failed) {
        (Some(opened), None) => Ok(opened),
        (_, failed) => Err(failed.unwrap_or_else(|| Failure::Proxy(malformed("no answer to COPY")))),
    })
}

/// Those that wait for rows hear of their end.
async fn end(client: &mut Channel, inputs: &mut [&mut Connection], message: &[u8]) -> Result<(), Broken> {
    for input in inputs.iter_mut().filter(|input| input.copying_in) {
        input.end_copied();
        input.channel.output.extend_from_slice(message);
        input.copying_in = false;
        send(client, input).await?;
    }
    Ok(())
}

fn copy_fail() -> BytesMut {
    let mut out = BytesMut::new();
    frame::put(&mut out, sent::COPY_FAIL, |body| put_text(body, "the statement has failed on another shard"));
    out
}

fn bare(kind: u8) -> BytesMut {
    let mut out = BytesMut::new();
    put_bare(&mut out, kind);
    out
}

/// What the servers have against what they were given; an error of the proxy's own, if nothing.
async fn first_failure(client: &mut Channel, inputs: &mut [&mut Connection]) -> Result<Failure, Broken> {
    for input in inputs.iter_mut() {
        while !input.owed.is_empty() {
            if let (server::ERROR, frame) = next(client, input).await? {
                return Ok(Failure::Server(frame));
            }
        }
    }
    Ok(Failure::Proxy(Error::new(SqlState::CANCELED, "COPY from stdin failed")))
}

/// How the client's rows ended.
enum Came {
    Done,
    /// With the client's CopyFail.
    GaveUp(Bytes),
    Failed(Failure),
    /// The connection of this index was given a row that should be refused there; else this is its error.
    Doubtful(usize, Error),
}

struct Copying<'p> {
    plan: &'p CopyIn,
    reader: Reader,
    /// The beginning of a row.
    pending: BytesMut,
    /// Bytes still to come of a CopyData that has been begun.
    passing: usize,
    /// One for each connection.
    outlets: Vec<Outlet>,
}

/// Rows on their way to one shard.
#[derive(Default)]
struct Outlet {
    lines: Lines,
    /// Where the length of a CopyData stands that has been begun.
    begun: Option<usize>,
}

impl Outlet {
    fn put(&mut self, connection: &mut Connection, bytes: &[u8]) {
        let out = &mut connection.channel.output;
        if self.begun.is_none() {
            out.put_u8(sent::COPY_DATA);
            self.begun = Some(out.len());
            out.put_u32(0);
        }
        connection.put_copied(bytes);
    }

    fn close(&mut self, connection: &mut Connection) {
        let Some(start) = self.begun.take() else { return };
        let out = &mut connection.channel.output;
        let length = u32::try_from(out.len() - start).expect("rows and buffers are far below 4 GiB");
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }
}

impl<'p> Copying<'p> {
    fn new(plan: &'p CopyIn) -> Self {
        let reader = Reader::new(plan.format.clone(), plan.column().unwrap_or(0));
        let outlets = plan.shards.iter().map(|_| Outlet::default()).collect();
        Self { plan, reader, pending: BytesMut::new(), passing: 0, outlets }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Channel,
        inputs: &mut [&mut Connection],
    ) -> Poll<Result<Came, Broken>> {
        loop {
            let full =
                |inputs: &[&mut Connection]| inputs.iter().any(|input| input.channel.output.len() >= BUFFER_BYTES);
            // As much as there is, before any of it is sent on.
            while !full(inputs) {
                if let Some(came) = self.take(client, inputs)? {
                    return Poll::Ready(Ok(came));
                }
                if !poll_client(cx, client, BUFFER_BYTES)? {
                    break;
                }
            }
            let mut progress = false;
            for (place, input) in inputs.iter_mut().enumerate() {
                progress |= poll_flush(cx, input);
                if !poll_fill(cx, input)? {
                    continue;
                }
                progress = true;
                if let Some(failure) = hear(client, input)? {
                    let found = |own, copying: &Self| copying.outlets[place].lines.in_whole(own);
                    return Poll::Ready(Ok(Came::Failed(self.line_of(failure, found))));
                }
            }
            progress |= poll_client(cx, client, BUFFER_BYTES)?;
            if !progress {
                return Poll::Pending;
            }
        }
    }

    /// Takes what the client has sent. `None`: it has more to say.
    fn take(&mut self, client: &mut Channel, inputs: &mut [&mut Connection]) -> Result<Option<Came>, Broken> {
        loop {
            if self.passing > 0 {
                let now = self.passing.min(client.input.len());
                if now == 0 {
                    return Ok(None);
                }
                let came = self.feed(&client.input[..now], inputs);
                client.input.advance(now);
                self.passing -= now;
                if came.is_some() {
                    return Ok(came);
                }
                continue;
            }
            let Some(header) = Header::read(&client.input).map_err(Broken::Refused)? else { return Ok(None) };
            if header.kind == sent::COPY_DATA {
                client.input.advance(Header::BYTES);
                self.passing = header.length - Header::BYTES;
                continue;
            }
            if header.length > MESSAGE_BYTES {
                return Err(Broken::Refused(malformed("a message of this length during COPY FROM STDIN")));
            }
            if header.length > client.input.len() {
                return Ok(None);
            }
            let frame = client.input.split_to(header.length).freeze();
            match header.kind {
                // Servers ignore them, too.
                sent::SYNC | sent::FLUSH => {}
                sent::COPY_DONE => return Ok(Some(self.finish(inputs))),
                sent::COPY_FAIL => return Ok(Some(Came::GaveUp(frame))),
                sent::TERMINATE => return Err(Broken::Client(std::io::ErrorKind::UnexpectedEof.into())),
                _ => return Err(Broken::Refused(malformed("neither copy data nor its end during COPY FROM STDIN"))),
            }
        }
    }

    fn feed(&mut self, data: &[u8], inputs: &mut [&mut Connection]) -> Option<Came> {
        if self.plan.column().is_none() {
            for (outlet, input) in self.outlets.iter_mut().zip(inputs) {
                outlet.put(input, data);
                outlet.close(input);
            }
            return None;
        }
        if self.pending.is_empty() {
            match self.split(data, false, inputs) {
                Ok(used) => self.pending.extend_from_slice(&data[used..]),
                Err(came) => return Some(came),
            }
        } else {
            self.pending.extend_from_slice(data);
            let pending = std::mem::take(&mut self.pending);
            match self.split(&pending, false, inputs) {
                Ok(used) => {
                    self.pending = pending;
                    self.pending.advance(used);
                }
                Err(came) => return Some(came),
            }
        }
        (self.pending.len() > ROW_BYTES).then(|| {
            let message = format!("a row longer than {ROW_BYTES} bytes is not supported in COPY into several shards");
            self.fail(Error::new(SqlState::TOO_LARGE, message), None)
        })
    }

    /// The client has no more.
    fn finish(&mut self, inputs: &mut [&mut Connection]) -> Came {
        let pending = std::mem::take(&mut self.pending);
        match self.split(&pending, true, inputs) {
            Ok(_) => Came::Done,
            Err(came) => came,
        }
    }

    /// Gives whole rows to their outlets; says how many bytes they were.
    fn split(&mut self, data: &[u8], last: bool, inputs: &mut [&mut Connection]) -> Result<usize, Came> {
        let mut at = 0;
        // Rows next to each other that go the same way: to which outlet, and from where.
        let mut run = (0, 0);
        let outcome = loop {
            let piece = match self.reader.next(&data[at..], last) {
                Ok(Some(piece)) => piece,
                Ok(None) => break Ok(()),
                Err(error) => break Err(self.fail(error, None)),
            };
            match piece {
                Piece::Row { bytes, field, lines } | Piece::Last { bytes, field, lines } => {
                    let (place, doubt) = match self.place(&field) {
                        Ok(place) => (place, None),
                        Err(Misplaced::Nowhere(error)) => break Err(self.fail(error, Some(&field))),
                        Err(Misplaced::Unread(error)) => (0, Some(self.doubt(error, &field))),
                    };
                    if place != run.0 {
                        self.put(run.0, &data[run.1..at], inputs);
                        run = (place, at);
                    }
                    at += bytes.len();
                    self.outlets[place].lines.push(lines, self.reader.line());
                    if let Some(came) = doubt {
                        break Err(came);
                    }
                }
                Piece::Head(bytes) => {
                    at += bytes.len();
                    run.1 = at;
                    self.put_head(bytes, inputs);
                }
                Piece::End(bytes) => {
                    self.put(run.0, &data[run.1..at], inputs);
                    at += bytes.len();
                    run.1 = at;
                }
            }
        };
        self.put(run.0, &data[run.1..at], inputs);
        self.outlets.iter_mut().zip(inputs).for_each(|(outlet, input)| outlet.close(input));
        outcome.map(|()| at)
    }

    /// Every shard is given it.
    fn put_head(&mut self, bytes: &[u8], inputs: &mut [&mut Connection]) {
        let line = self.reader.line();
        for (outlet, input) in self.outlets.iter_mut().zip(inputs) {
            outlet.put(input, bytes);
            // That of the binary format is none.
            outlet.lines.push(u32::from(line > 0), line);
        }
    }

    fn put(&mut self, place: usize, rows: &[u8], inputs: &mut [&mut Connection]) {
        if !rows.is_empty() {
            self.outlets[place].put(inputs[place], rows);
        }
    }

    /// Which connection a row goes to.
    fn place(&self, field: &Field<'_>) -> Result<usize, Misplaced> {
        let shard = self.plan.shard_of(field)?;
        Ok(self.plan.shards.binary_search(&shard).expect("every shard of the mapping takes part"))
    }

    /// In the line that was read last, or is being read.
    fn fail(&self, error: Error, field: Option<&Field<'_>>) -> Came {
        let context = match field {
            Some(field) => self.plan.context(self.reader.line(), field),
            None => format!("COPY {}, line {}", self.plan.table, self.reader.line() + 1),
        };
        Came::Failed(Failure::Proxy(error.with_context(context)))
    }

    /// As [`Copying::fail`], unless the server has something better to say.
    fn doubt(&self, error: Error, field: &Field<'_>) -> Came {
        Came::Doubtful(0, error.with_context(self.plan.context(self.reader.line(), field)))
    }

    /// What is left of a message is a message of its own, for whoever reads on.
    fn put_back(&mut self, client: &mut Channel) {
        let length = std::mem::take(&mut self.passing);
        if length > 0 {
            let rest = std::mem::take(&mut client.input);
            client.input.put_u8(sent::COPY_DATA);
            client.input.put_u32(u32::try_from(length + 4).expect("a message is below 1 GiB"));
            client.input.unsplit(rest);
        }
    }

    async fn collect(
        &self,
        client: &mut Channel,
        inputs: &mut [&mut Connection],
    ) -> Result<Result<Answers, Failure>, Broken> {
        let mut answers = Answers::default();
        for (place, input) in inputs.iter_mut().enumerate() {
            if let Err(failure) = answers.collect(client, input, 0).await? {
                return Ok(Err(self.line_of(failure, |own, copying| copying.outlets[place].lines.in_whole(own))));
            }
        }
        let how = if self.plan.column().is_some() { Tag::Sum } else { Tag::First };
        answers.tag = tag(&answers.tags, how);
        Ok(Ok(answers))
    }

    /// The server's error, its line the one that the client has sent.
    fn line_of(&self, failure: Failure, find: impl Fn(u64, &Self) -> Option<u64>) -> Failure {
        match failure {
            Failure::Server(frame) if self.plan.column().is_some() => {
                let body = &frame[Header::BYTES..];
                let renumbered = error_field(body, b'W')
                    .and_then(|context| renumbered(context, &self.plan.table, |own| find(own, self)))
                    .map(|context| with_context(body, &context));
                Failure::Server(renumbered.unwrap_or(frame))
            }
            other => other,
        }
    }
}

/// `COPY table, line N`, whatever the word for line is. `None`: it does not say so.
fn renumbered(context: &str, table: &str, find: impl Fn(u64) -> Option<u64>) -> Option<String> {
    let start = context.find(&format!("COPY {table}, "))? + "COPY , ".len() + table.len();
    let start = start + context[start..].find(|letter: char| letter.is_ascii_digit())?;
    let digits = context[start..].bytes().take_while(u8::is_ascii_digit).count();
    let own = context[start..start + digits].parse().ok()?;
    let found = find(own).map_or_else(|| format!("{own} of a shard"), |line| line.to_string());
    Some(format!("{}{found}{}", &context[..start], &context[start + digits..]))
}

fn with_context(body: &[u8], context: &str) -> Bytes {
    let mut out = BytesMut::new();
    frame::put(&mut out, server::ERROR, |out| {
        for field in body.split(|&byte| byte == 0).filter(|field| !field.is_empty()) {
            match field {
                [b'W', ..] => {
                    out.put_u8(b'W');
                    out.put_slice(context.as_bytes());
                }
                field => out.put_slice(field),
            }
            out.put_u8(0);
        }
        out.put_u8(0);
    });
    out.freeze()
}

/// `true`: there is room again.
fn poll_flush(cx: &mut Context<'_>, input: &mut Connection) -> bool {
    let channel = &mut input.channel;
    if channel.is_written() {
        return false;
    }
    let full = channel.output.len() >= BUFFER_BYTES;
    if let Poll::Ready(Err(_)) = channel.poll_flush(cx) {
        // What the server had to say before it left may still be there to read.
        channel.output.clear();
    }
    full && channel.output.len() < BUFFER_BYTES
}

/// `true`: the server has said something.
fn poll_fill(cx: &mut Context<'_>, input: &mut Connection) -> Result<bool, Broken> {
    let cause = match input.channel.poll_fill(cx) {
        Poll::Pending => return Ok(false),
        Poll::Ready(Ok(0)) => std::io::ErrorKind::UnexpectedEof.into(),
        Poll::Ready(Ok(_)) => return Ok(true),
        Poll::Ready(Err(cause)) => cause,
    };
    Err(Broken::Server { error: input.lost(&cause), midway: false })
}

/// Nothing but an error ends rows on their way.
fn hear(client: &mut Channel, input: &mut Connection) -> Result<Option<Failure>, Broken> {
    match take_answer(client, input, &mut |_, _| {})? {
        None => Ok(None),
        Some((server::ERROR, frame)) => Ok(Some(Failure::Server(frame))),
        Some(_) => Err(Broken::Server { error: malformed("an answer to COPY that is still under way"), midway: false }),
    }
}

/// Of a message that is not data.
const MESSAGE_BYTES: usize = 64 * 1024;
/// Of a row as far as it is held: its key may stand at its end.
const ROW_BYTES: usize = 16 * 1024 * 1024;
