//! The life of a session: read a unit, decide, carry it out, until the client leaves.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Buf;
use smallvec::SmallVec;
use tokio::time::timeout;
use tracing::{Instrument, Span};

use super::carry::{Carriage, Halted, Stopped};
use super::decide::{Decided, Way, check_failed};
use super::digest::{Step, Steps, only_prepares};
use super::names::Done;
use super::prepared::Prepared;
use super::transaction::Transaction;
use super::unit::{self, Extended, STATEMENT_BYTES, Unit};
use super::{Client, Session, State};
use crate::backend::{Event, Verdict};
use crate::error::{Error, SqlState};
use crate::executor::Request;
use crate::plan::Access;
use crate::wire::frame::{Header, malformed};
use crate::wire::message::{put_bare, put_ready};
use crate::wire::{Bind, Channel, frame};

/// How a session ends.
#[derive(Debug)]
pub enum End {
    /// Terminate.
    Left,
    Gone(std::io::Error),
    /// Not ended: it goes on at the worker of this number.
    Moves(usize),
    /// The client is to be told, and that is the end.
    Refused(Error),
}

impl Session {
    /// Serves the client until it leaves. Whatever is open then is ended.
    pub async fn run(&mut self, client: &mut Channel) -> End {
        loop {
            if let Err(end) = self.turn(client).await {
                if let End::Refused(error) = &end {
                    self.meter.figures.refused(error.sqlstate.0);
                }
                self.meter.traffic(client);
                return end;
            }
        }
    }

    async fn turn(&mut self, client: &mut Channel) -> Result<(), End> {
        let limit = self.snapshot.topology.process.query_timeout;
        match unit::next(&client.input).map_err(End::Refused)? {
            Unit::Incomplete => self.read(client).await,
            Unit::Terminate => Err(End::Left),
            Unit::Stray(header) => drop_frame(client, header).await,
            Unit::Unknown(kind) => Err(End::Refused(malformed(&format!("invalid frontend message type {kind}")))),
            unit => {
                self.begin()?;
                self.retrying = self.again.take();
                let client_of = (!limit.is_zero()).then(|| Arc::clone(&self.client));
                let span = statement_span();
                // On the heap, so that an idle client does not carry the room for it.
                let serving = Box::pin(self.serve(client, unit).instrument(span.clone()));
                let outcome = match client_of {
                    None => serving.await,
                    Some(client) => within(limit, &client, serving).await,
                };
                self.end(&span);
                outcome
            }
        }
    }

    fn begin(&mut self) -> Result<(), End> {
        let now = self.meter.begin();
        self.client.begin_unit(now);
        if self.station.shared.refresh(&mut self.snapshot).map_err(End::Refused)? {
            self.meter.figures = self.station.figures(&self.snapshot);
        }
        self.derive();
        Ok(())
    }

    fn end(&mut self, span: &Span) {
        let is_idle = matches!(self.transaction, Transaction::Idle);
        self.client.become_(if is_idle { State::Idle } else { State::InTransaction });
        let took = self.meter.end(is_idle);
        if !span.is_disabled() {
            self.meter.log(span, took);
        }
    }

    async fn serve(&mut self, client: &mut Channel, unit: Unit) -> Result<(), End> {
        match unit {
            Unit::Query { header, whole: true } => self.serve_query(client, header).await,
            Unit::Query { header, .. } => self.serve_long_query(client, header).await,
            Unit::FunctionCall(header) => self.relay_or_tell(client, self.unread(), header).await,
            Unit::Extended(extended) => self.serve_extended(client, extended).await,
            Unit::Incomplete | Unit::Terminate | Unit::Stray(_) | Unit::Unknown(_) => Ok(()),
        }
    }

    async fn serve_query(&mut self, client: &mut Channel, header: Header) -> Result<(), End> {
        self.names.forget_unnamed();
        let body = &client.input[Header::BYTES..header.length];
        let Some(text) = body.strip_suffix(&[0]).filter(|text| memchr::memchr(0, text).is_none()) else {
            return Err(End::Refused(malformed("a query without its end")));
        };
        let decided = match std::str::from_utf8(text) {
            Ok(text) => {
                let resolved = self.station.resolve(text);
                let (entry, literals) = (&resolved.0, &resolved.1);
                if let Some(answered) = self.answer_now(text, &entry.analysis) {
                    client.input.advance(header.length);
                    client.output.extend_from_slice(&answered);
                    return Ok(());
                }
                let planned = entry.extra.get(&entry.analysis, &self.snapshot, &self.search_path);
                match self.check_block(&entry.analysis) {
                    Ok(()) => self.decide_query(text, &entry.analysis, literals, &planned),
                    Err(error) => Err(error),
                }
            }
            Err(_) => self.decide_unreadable(),
        };
        match decided {
            Err(error) => {
                client.input.advance(header.length);
                self.tell(client, &Stopped::Refused(error));
                Ok(())
            }
            Ok(decided @ Decided { way: Way::One { .. }, .. }) => self.relay_or_tell(client, decided, header).await,
            Ok(decided) => {
                let frame = client.input.split_to(header.length).freeze();
                let text = &frame[Header::BYTES..header.length - 1];
                self.serve_several(client, decided, Request::Simple { text }).await
            }
        }
    }

    /// Replies to a text that needs no server.
    fn answer_now(&mut self, text: &str, analysis: &crate::statement::Analysis) -> Option<bytes::BytesMut> {
        let mut out = bytes::BytesMut::new();
        match analysis.statements.as_slice() {
            [] => {
                put_bare(&mut out, frame::server::EMPTY_QUERY);
                put_ready(&mut out, self.transaction.status());
                Some(out)
            }
            [only] => self.answer_query(text, only, &mut out).then_some(out),
            _ => None,
        }
    }

    /// In a block that the proxy has failed, only its end may pass.
    fn check_block(&self, analysis: &crate::statement::Analysis) -> Result<(), Error> {
        match self.transaction {
            Transaction::Failed(_) => check_failed(analysis),
            _ => Ok(()),
        }
    }

    fn decide_unreadable(&self) -> Result<Decided, Error> {
        if self.snapshot.database.is_sharded() {
            let hint = "Use client_encoding UTF8.";
            return Err(Error::unsupported("a text that is not UTF-8", hint));
        }
        Ok(self.unread())
    }

    /// What was not understood goes to home's primary.
    fn unread(&self) -> Decided {
        let way = Way::One { shard: self.snapshot.database.home, access: Access::Write };
        Decided { way, effects: SmallVec::new() }
    }

    /// A text too long to be understood goes to the primary as it comes, where there is only one.
    async fn serve_long_query(&mut self, client: &mut Channel, header: Header) -> Result<(), End> {
        self.names.forget_unnamed();
        if self.snapshot.database.is_sharded() {
            let message = format!("a statement longer than {STATEMENT_BYTES} bytes is not supported here");
            return Err(End::Refused(Error::new(SqlState::TOO_LARGE, message)));
        }
        self.relay_or_tell(client, self.unread(), header).await
    }

    async fn serve_extended(&mut self, client: &mut Channel, unit: Extended) -> Result<(), End> {
        let mut steps = Steps::new();
        for frame in &unit.frames {
            steps.push(self.digest(frame.kind, frame.body(&client.input)));
        }
        let end = unit.frames.last().map_or(0, |frame| frame.end);
        if unit.complete && self.needs_no_server(&steps) {
            let input = client.input.split_to(end);
            self.answer_steps(steps, (&unit.frames, &input), &mut client.output);
            return Ok(());
        }
        let prepares = only_prepares(&steps);
        let decided = self
            .check_block_of(&steps)
            .and_then(|()| self.decide_steps(&steps, &unit.frames, &client.input, unit.complete || prepares));
        match decided {
            Err(error) => {
                self.names.settle(Done::Some(0));
                let halted = Halted { why: Stopped::Refused(error), taken: false, left: 0 };
                self.tell_extended(client, halted).await
            }
            Ok(decided @ Decided { way: Way::One { .. }, .. }) => {
                match self.carry_one(client, decided, steps, end).await? {
                    Ok(Carriage::Failed) if prepares => {
                        skip_to_sync(client).await?;
                        put_ready(&mut client.output, self.transaction.status());
                        Ok(())
                    }
                    Ok(_) => Ok(()),
                    Err(halted) => self.tell_extended(client, halted).await,
                }
            }
            Ok(decided) => {
                let input = client.input.split_to(end).freeze();
                self.serve_several_extended(client, decided, &steps, (&unit, &input)).await
            }
        }
    }

    /// Nothing in it is for a server, as the session stands.
    fn needs_no_server(&self, steps: &[Step]) -> bool {
        let bound = steps.iter().filter(|step| matches!(step, Step::Bind { .. })).count();
        let no_server = !matches!(self.transaction, Transaction::Open(_) | Transaction::Failed(Some(_)));
        steps.iter().all(|step| match step {
            Step::Parse { prepared, .. } | Step::DescribeStatement { prepared, .. } => prepared.is_control(),
            Step::Bind { prepared, .. } => bound == 1 && prepared.is_control() && self.would_answer(prepared),
            Step::Execute | Step::DescribePortal | Step::ClosePortal => bound == 1 || no_server,
            Step::CloseStatement | Step::Sync | Step::Flush => true,
            Step::Refused(_) => no_server && bound == 0,
            Step::Taken(_) => false,
        })
    }

    fn check_block_of(&self, steps: &[Step]) -> Result<(), Error> {
        let first = steps.iter().find_map(|step| match step {
            Step::Bind { prepared, .. } => Some(prepared),
            _ => None,
        });
        first.map_or(Ok(()), |prepared| self.check_block(&prepared.analysis))
    }

    /// An error: the client hears of it; up to its Sync nothing else happens.
    async fn tell_extended(&mut self, client: &mut Channel, halted: Halted) -> Result<(), End> {
        // At once: a client that sent a Flush waits for it before it sends its Sync.
        self.put_stopped(&mut client.output, &halted.why);
        skip(client, halted.left).await?;
        if !halted.taken {
            skip_to_sync(client).await?;
        }
        put_ready(&mut client.output, self.transaction.status());
        Ok(())
    }

    /// Relays the Query or FunctionCall at the front of the input.
    async fn relay_or_tell(&mut self, client: &mut Channel, decided: Decided, header: Header) -> Result<(), End> {
        let Err(halted) = self.carry_one(client, decided, Steps::new(), header.length).await? else {
            return Ok(());
        };
        skip(client, halted.left).await?;
        if !halted.taken {
            drop_frame(client, header).await?;
        }
        self.tell(client, &halted.why);
        Ok(())
    }

    async fn serve_several(&mut self, client: &mut Channel, decided: Decided, request: Request<'_>) -> Result<(), End> {
        let ddl = decided.effects.contains(&super::effects::Effect::Ddl);
        let outcome = match &decided.way {
            Way::Scatter(plan, access) => self.carry_scatter(client, plan, *access, request).await?,
            Way::Spread(plan) => self.carry_spread(client, plan, request).await?,
            Way::One { .. } => unreachable!("one shard is relayed"),
        };
        if ddl {
            self.station.shared.catalog_changed(&self.snapshot.name).await;
            self.meter.answered();
        }
        match outcome {
            Ok(()) => put_ready(&mut client.output, self.transaction.status()),
            Err(stopped) => self.tell(client, &stopped),
        }
        Ok(())
    }

    /// Of the extended protocol, one statement bound and executed once can go to several shards.
    async fn serve_several_extended(
        &mut self,
        client: &mut Channel,
        decided: Decided,
        steps: &[Step],
        (unit, input): (&Extended, &[u8]),
    ) -> Result<(), End> {
        let several = match Several::new(steps, unit, input) {
            Ok(several) => several,
            Err(error) => {
                self.names.settle(Done::Some(0));
                let halted = Halted { why: Stopped::Refused(error), taken: unit.complete, left: 0 };
                return self.tell_extended(client, halted).await;
            }
        };
        if several.parsed {
            put_bare(&mut client.output, frame::server::PARSE_COMPLETE);
        }
        self.names.settle(Done::All);
        let Several { prepared, bind, described, .. } = &several;
        let request = Request::Extended { text: &prepared.text, types: &prepared.types, bind, described: *described };
        self.serve_several(client, decided, request).await
    }

    /// Of a Query or what stands for one.
    fn tell(&mut self, client: &mut Channel, stopped: &Stopped) {
        self.put_stopped(&mut client.output, stopped);
        put_ready(&mut client.output, self.transaction.status());
    }

    /// Sends what is due and waits for more of the client; meanwhile notifications pass on a pinned connection.
    async fn read(&mut self, client: &mut Channel) -> Result<(), End> {
        client.flush().await.map_err(End::Gone)?;
        self.meter.traffic(client);
        client.relax();
        if client.may_move()
            && self.pin.is_none()
            && matches!(self.transaction, Transaction::Idle)
            && let Some(worker) = self.station.elsewhere()
        {
            return Err(End::Moves(worker));
        }
        let process = &self.snapshot.topology.process;
        let in_block = !matches!(self.transaction, Transaction::Idle);
        let limit = process.idle_transaction_timeout;
        if in_block && !limit.is_zero() && client.input.is_empty() {
            return match timeout(limit, self.wait(client)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(End::Refused(idle_too_long(limit))),
            };
        }
        self.wait(client).await
    }

    async fn wait(&mut self, client: &mut Channel) -> Result<(), End> {
        let may_end = matches!(self.transaction, Transaction::Idle);
        let heard = std::future::poll_fn(|cx| {
            if let Some(pin) = &mut self.pin
                && pin.lent.connection.channel.poll_fill(cx).is_ready()
            {
                return Poll::Ready(Heard::Server);
            }
            if let Poll::Ready(filled) = client.poll_fill(cx) {
                return Poll::Ready(Heard::Client(filled));
            }
            self.client.waits(cx.waker());
            if may_end && self.station.shared.registry.is_ending() { Poll::Ready(Heard::End) } else { Poll::Pending }
        });
        match heard.await {
            Heard::End => Err(End::Refused(shutting_down())),
            Heard::Client(Ok(0)) => Err(End::Gone(std::io::ErrorKind::UnexpectedEof.into())),
            Heard::Client(Ok(_)) => Ok(()),
            Heard::Client(Err(cause)) => Err(End::Gone(cause)),
            Heard::Server => self.hear_pinned(client),
        }
    }

    /// What a server says on a pinned connection while nothing is asked of it.
    fn hear_pinned(&mut self, client: &mut Channel) -> Result<(), End> {
        let Some(pin) = &mut self.pin else { return Ok(()) };
        let connection = &mut pin.lent.connection;
        let lost = || connection_lost(&connection.server);
        if connection.channel.input.is_empty() {
            return Err(End::Refused(lost()));
        }
        while let Some(header) = Header::whole(&connection.channel.input).map_err(End::Refused)? {
            match connection.owed.settle(header.kind) {
                Ok((Verdict::Notification | Verdict::Swallow | Verdict::Parameter, Event::Nothing)) => {
                    client.output.extend_from_slice(&connection.channel.input.split_to(header.length));
                }
                _ => return Err(End::Refused(connection_lost(&connection.server))),
            }
        }
        Ok(())
    }

    /// The session is over: a block is rolled back by closing its connection, a clean pinned one is not kept either.
    pub fn close(mut self) {
        match std::mem::replace(&mut self.transaction, Transaction::Idle) {
            Transaction::Open(open) | Transaction::Failed(Some(open)) => open.lent.abandon(),
            Transaction::Idle | Transaction::Begun(_) | Transaction::Failed(None) => {}
        }
        if let Some(mut pin) = self.pin.take() {
            pin.lent.connection.taint();
            pin.lent.give_back();
        }
    }
}

enum Heard {
    Client(std::io::Result<usize>),
    Server,
    /// The process ends.
    End,
}

/// One statement, bound and executed once: what an extended unit must be to go to several shards.
struct Several<'a> {
    prepared: Arc<Prepared>,
    bind: Bind<'a>,
    parsed: bool,
    described: bool,
}

impl<'a> Several<'a> {
    fn new(steps: &[Step], unit: &Extended, input: &'a [u8]) -> Result<Self, Error> {
        let frames = &unit.frames;
        let shape: String = steps.iter().map(Step::letter).collect();
        let bound = steps.iter().zip(frames).find_map(|(step, frame)| match step {
            Step::Bind { prepared, .. } => Some((Arc::clone(prepared), frame.body(input))),
            _ => None,
        });
        let plain = matches!(shape.trim_end_matches(['S', 'C']), "PBE" | "PBDE" | "BE" | "BDE");
        let (prepared, body) = bound.filter(|_| plain && unit.complete).ok_or_else(|| {
            let hint = "Send Parse, Bind, Describe, Execute and Sync for it alone.";
            Error::unsupported("a statement on several shards within a longer pipeline", hint)
        })?;
        let bind = Bind::read(body)?;
        let mut executes = steps.iter().zip(frames).filter(|(step, _)| matches!(step, Step::Execute));
        if !bind.portal.is_empty() || !executes.all(|(_, frame)| frame.body(input).ends_with(&[0; 4])) {
            let hint = "Execute it without a row limit, on the unnamed portal.";
            return Err(Error::unsupported("a portal that is read in parts", hint));
        }
        Ok(Self { prepared, bind, parsed: shape.starts_with('P'), described: shape.contains('D') })
    }
}

/// Drops so many bytes, which may still have to come.
async fn skip(client: &mut Channel, length: usize) -> Result<(), End> {
    drop_frame(client, Header { kind: 0, length }).await
}

/// Drops the frame at the front of the input, of which some may still have to come.
async fn drop_frame(client: &mut Channel, header: Header) -> Result<(), End> {
    let mut left = header.length;
    loop {
        let now = left.min(client.input.len());
        client.input.advance(now);
        left -= now;
        if left == 0 {
            return Ok(());
        }
        fill(client).await?;
    }
}

/// Drops everything up to the client's Sync, that too.
async fn skip_to_sync(client: &mut Channel) -> Result<(), End> {
    client.flush().await.map_err(End::Gone)?;
    loop {
        match Header::read(&client.input).map_err(End::Refused)? {
            None => fill(client).await?,
            Some(header) => {
                drop_frame(client, header).await?;
                match header.kind {
                    frame::client::SYNC => return Ok(()),
                    frame::client::TERMINATE => return Err(End::Left),
                    _ => {}
                }
            }
        }
    }
}

async fn fill(client: &mut Channel) -> Result<(), End> {
    match client.fill().await {
        Ok(0) => Err(End::Gone(std::io::ErrorKind::UnexpectedEof.into())),
        Ok(_) => Ok(()),
        Err(cause) => Err(End::Gone(cause)),
    }
}

/// Of one unit; costs nothing to speak of while nobody listens at level debug.
fn statement_span() -> Span {
    use tracing::field::Empty;
    tracing::debug_span!("statement", route = Empty, shard = Empty, role = Empty, cache = Empty)
}

/// What takes longer is cancelled on its servers; what that does not end, ends the session.
async fn within(
    limit: Duration,
    client: &Arc<Client>,
    mut serving: Pin<Box<impl Future<Output = Result<(), End>>>>,
) -> Result<(), End> {
    if let Ok(outcome) = timeout(limit, &mut serving).await {
        return outcome;
    }
    let client = Arc::clone(client);
    tokio::spawn(async move { client.cancel().await });
    timeout(CANCEL_GRACE, serving).await.unwrap_or_else(|_| Err(End::Refused(too_slow(limit))))
}

fn too_slow(limit: Duration) -> Error {
    let message = format!("canceling statement due to query_timeout ({} ms)", limit.as_millis());
    Error::new(SqlState::CANCELED, message)
}

fn idle_too_long(limit: Duration) -> Error {
    let message = format!("terminating connection due to idle_transaction_timeout ({} ms)", limit.as_millis());
    Error::new(SqlState::IDLE_IN_TRANSACTION, message)
}

fn shutting_down() -> Error {
    Error::new(SqlState::SHUTTING_DOWN, "terminating connection because the proxy is shutting down")
}

fn connection_lost(server: &crate::topology::Server) -> Error {
    let message = format!("the server connection that the session was bound to is lost (shard {})", server.shard.0);
    Error::new(SqlState::CONNECTION_LOST, message)
}

/// A server that was asked to cancel has this long to answer.
const CANCEL_GRACE: Duration = Duration::from_secs(5);
