//! The life of a session: read a unit, decide, carry it out, until the client leaves.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use tokio::time::{Instant, timeout};
use tracing::{Instrument, Span};

use super::block::concerns_all;
use super::cached::{Looked, put_entry};
use super::carry::Stopped;
use super::decide::{Decided, Way, check_failed};
use super::digest::Steps;
use super::effects::Effect;
use super::transaction::Transaction;
use super::unit::{self, STATEMENT_BYTES, Unit};
use super::{Altered, Client, Session, State};
use crate::backend::{Connection, Event, Verdict};
use crate::cache::Touched;
use crate::error::{Error, SqlState};
use crate::executor::Request;
use crate::plan::{Access, Template};
use crate::statement::{Kind, Values, standardized};
use crate::wire::frame::{Header, malformed, take_str};
use crate::wire::message::{error_field, put_bare, put_ready};
use crate::wire::{Channel, frame};

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
        let unit = loop {
            match unit::next(&client.input).map_err(End::Refused)? {
                Unit::Incomplete => {
                    if let Some(unit) = self.read_on(client).await? {
                        break unit;
                    }
                }
                unit => break unit,
            }
        };
        match unit {
            Unit::Incomplete => Ok(()),
            Unit::Terminate => Err(End::Left),
            Unit::Stray(header) => drop_frame(client, header).await,
            Unit::Unknown(kind) => Err(End::Refused(malformed(&format!("invalid frontend message type {kind}")))),
            unit => {
                let limit = self.snapshot.topology.process.query_timeout;
                self.begin()?;
                self.retrying = self.again.take();
                let (span, place) = (statement_span(), client.put_so_far());
                let outcome = if limit.is_zero() && span.is_disabled() {
                    self.serve(client, unit).await
                } else {
                    let client_of = Arc::clone(&self.client);
                    let serving = Box::pin(self.serve(client, unit).instrument(span.clone()));
                    Box::pin(within(limit, client_of, serving)).await
                };
                if outcome.is_ok() {
                    self.fill_cache(client);
                    if self.altered != Altered::Not {
                        Box::pin(self.settle_catalog()).await;
                    }
                    if self.doubtful && matches!(self.transaction, Transaction::Idle) {
                        // Before the client hears of the end of its unit.
                        Box::pin(self.settle_ties()).await;
                    }
                    if self.ears.is_some() && matches!(self.transaction, Transaction::Idle) {
                        Box::pin(self.tell_notifications(client)).await;
                    }
                }
                self.end(&span);
                if outcome.is_ok() && self.client.is_terminated() {
                    // Not that its statement was cancelled, but that this is the end.
                    if client.put_since(place).is_some() {
                        client.take_back(place);
                    }
                    return Err(End::Refused(terminated()));
                }
                outcome
            }
        }
    }

    fn begin(&mut self) -> Result<(), End> {
        let now = self.meter.begin();
        if self.client.is_terminated() {
            return Err(End::Refused(terminated()));
        }
        self.client.begin_unit(now);
        if self.refresh().map_err(End::Refused)? {
            self.meter.figures = self.station.figures(&self.snapshot);
        }
        self.derive();
        Ok(())
    }

    fn end(&mut self, span: &Span) {
        // What was to be kept and was not answered after all, the next one asks again.
        self.filling = None;
        if self.again.is_none() {
            self.by_name = None;
        }
        if self.retrying.is_some() {
            self.let_go();
        }
        let is_idle = matches!(self.transaction, Transaction::Idle);
        if is_idle {
            self.portals = None;
        }
        self.client.become_(if is_idle { State::Idle } else { State::InTransaction });
        let took = self.meter.end(is_idle);
        if !span.is_disabled() {
            self.meter.log(span, took);
        }
    }

    /// Takes what has changed in topology and catalogs; `true`: something has. A block whose database or user went may come to its end.
    fn refresh(&mut self) -> Result<bool, Error> {
        let in_block = !matches!(self.transaction, Transaction::Idle);
        let renewed = match self.station.shared.refresh(&mut self.snapshot) {
            Ok(renewed) => renewed,
            Err(error) if !in_block => return Err(error),
            Err(_) => false,
        };
        let topology = &self.snapshot.topology;
        if topology.epoch != self.user_of {
            match topology.user(&self.user.name, &self.snapshot.name) {
                Some(user) => self.user = user,
                None if in_block => return Ok(renewed),
                None => return Err(user_gone(&self.user.name)),
            }
            self.user_of = topology.epoch;
            self.position.forget_servers();
        }
        Ok(renewed)
    }

    /// What is rare is boxed, here and below: an idle client, too, carries the room for the rest.
    async fn serve(&mut self, client: &mut Channel, unit: Unit) -> Result<(), End> {
        match unit {
            Unit::Query { header, whole: true } => self.serve_query(client, header).await,
            Unit::Query { header, .. } => Box::pin(self.serve_long_query(client, header)).await,
            Unit::FunctionCall(header) => Box::pin(self.relay_or_tell(client, self.unread(), header)).await,
            Unit::Extended(extended) => self.serve_extended(client, extended).await,
            Unit::Incomplete | Unit::Terminate | Unit::Stray(_) | Unit::Unknown(_) => Ok(()),
        }
    }

    pub(super) async fn serve_query(&mut self, client: &mut Channel, header: Header) -> Result<(), End> {
        self.names.forget_unnamed();
        let body = &client.input[Header::BYTES..header.length];
        let Some(text) = body.strip_suffix(&[0]).filter(|text| memchr::memchr(0, text).is_none()) else {
            let message = if body.contains(&0) { "invalid message format" } else { "invalid string in message" };
            return self.serve_decided(client, header, Err(Error::new(SqlState::PROTOCOL, message))).await;
        };
        let decided = match std::str::from_utf8(text) {
            Ok(text) if self.is_unreadable(text.as_bytes()) => self.decide_unreadable(),
            Ok(text) => {
                if self.escapes
                    && let Some(made) = standardized(text)
                {
                    return Box::pin(self.serve_standardized(client, header, made)).await;
                }
                let resolved = self.station.resolve(text);
                let (entry, literals) = (&resolved.0, &resolved.1);
                if let Some(answered) = self.answer_now(text, &entry.analysis) {
                    client.input.advance(header.length);
                    client.output.extend_from_slice(&answered);
                    return Ok(());
                }
                if entry.analysis.shows_session && self.by_name.as_ref().is_none_or(|by_name| !by_name.is_listing()) {
                    let text = text.to_owned();
                    return Box::pin(self.serve_listing(client, header, &text)).await;
                }
                if entry.analysis.names_prepared && !self.snapshot.database.is_sharded() {
                    return Box::pin(self.serve_by_name(client, header)).await;
                }
                if entry.analysis.statements.len() == 1 && self.names_statement(text, &entry.analysis) {
                    return Box::pin(self.serve_named(client, header)).await;
                }
                let planned = entry.extra.get(&entry.analysis, &self.snapshot, &self.search_path);
                if planned.templates.iter().any(Template::has_views)
                    && let Some(written) = self.without_views(text)
                {
                    return Box::pin(self.serve_instead(client, header, &written)).await;
                }
                let checked = self.check_block(&entry.analysis);
                if checked.is_ok() && self.spans() && concerns_all_of(&entry.analysis) {
                    return Box::pin(self.serve_control(client, header, &entry.analysis)).await;
                }
                let decided = checked.and_then(|()| self.decide_query(text, &entry.analysis, literals, &planned));
                if self.goes_one_by_one(text, &entry.analysis, &decided) {
                    let analysis = Arc::clone(&entry.analysis);
                    return Box::pin(self.serve_texts(client, header, &analysis)).await;
                }
                let values = Values { text, literals, parameters: None };
                match self.look_up_query(decided, &planned, &values).await {
                    Ok(Looked::Hit(entry)) => {
                        client.input.advance(header.length);
                        put_entry(&mut client.output, &entry);
                        put_ready(&mut client.output, self.transaction.status());
                        return Ok(());
                    }
                    Ok(Looked::Not(decided)) => Ok(decided),
                    Err(error) => Err(error),
                }
            }
            Err(_) => self.decide_unreadable(),
        };
        self.serve_decided(client, header, decided).await
    }

    /// The Query at the front of the input, whose way is known, or why it has none.
    async fn serve_decided(
        &mut self,
        client: &mut Channel,
        header: Header,
        decided: Result<Decided, Error>,
    ) -> Result<(), End> {
        match decided {
            Err(error) => {
                let frame = client.input.split_to(header.length).freeze();
                let text = std::str::from_utf8(&frame[Header::BYTES..header.length - 1]).unwrap_or_default();
                let analysis = Arc::clone(&self.station.resolve(text).0.analysis);
                let stopped = Box::pin(self.reason_of(error, text, &analysis)).await;
                self.tell(client, &stopped);
                Ok(())
            }
            Ok(decided @ Decided { way: Way::One { .. }, .. }) => self.relay_or_tell(client, decided, header).await,
            Ok(decided) => {
                let frame = client.input.split_to(header.length).freeze();
                let text = &frame[Header::BYTES..header.length - 1];
                Box::pin(self.serve_several(client, decided, Request::Simple { text })).await
            }
        }
    }

    /// Replies to a text that needs no server.
    fn answer_now(&mut self, text: &str, analysis: &crate::statement::Analysis) -> Option<bytes::BytesMut> {
        let mut out = bytes::BytesMut::new();
        match analysis.statements.as_slice() {
            [] => {
                match self.overhear_block() {
                    Ok(()) => put_bare(&mut out, frame::server::EMPTY_QUERY),
                    Err(error) => self.put_failure(&mut out, &error),
                }
                put_ready(&mut out, self.transaction.status());
                Some(out)
            }
            [only] => self.answer_query(text, only, &mut out).then_some(out),
            _ => None,
        }
    }

    /// In a block that the proxy has failed, only its end may pass.
    pub(super) fn check_block(&self, analysis: &crate::statement::Analysis) -> Result<(), Error> {
        match self.transaction {
            Transaction::Failed(_) => check_failed(analysis),
            _ => Ok(()),
        }
    }

    /// COMMIT, SAVEPOINT, SET and the like in a block on several shards.
    async fn serve_control(
        &mut self,
        client: &mut Channel,
        header: Header,
        analysis: &crate::statement::Analysis,
    ) -> Result<(), End> {
        let frame = client.input.split_to(header.length).freeze();
        let text = std::str::from_utf8(&frame[Header::BYTES..header.length - 1]).unwrap_or_default();
        let Some(statement) = analysis.statements.first() else { return Ok(()) };
        match self.execute_in_all(client, (statement, text)).await? {
            Ok(()) => put_ready(&mut client.output, self.transaction.status()),
            Err(stopped) => self.tell(client, &stopped),
        }
        Ok(())
    }

    fn decide_unreadable(&self) -> Result<Decided, Error> {
        if self.snapshot.database.is_sharded() {
            return Err(not_utf8());
        }
        Ok(self.unread())
    }

    /// What was refused may be an error of the client's: the server says so better.
    pub(super) async fn reason_of(
        &mut self,
        error: Error,
        text: &str,
        analysis: &crate::statement::Analysis,
    ) -> Stopped {
        // What is no statement at all is not one that comes too late.
        let is_late = error.sqlstate == SqlState::FAILED_TRANSACTION
            && analysis.statements.iter().all(|statement| matches!(statement.kind, Kind::Unknown { .. }));
        let is_ours = error.sqlstate == SqlState::UNSUPPORTED || is_late;
        if analysis.statements.len() != 1 || !is_ours || text.len() > CHECKED_BYTES {
            return error.into();
        }
        let class = if is_late { SqlState::SYNTAX.0 } else { OF_THE_TEXT };
        let said = if let Transaction::Open(open) = &mut self.transaction {
            open.lent.connection.check(text).await
        } else {
            let Ok(mut lent) = self.lend_ready(self.snapshot.database.home, Access::PrimaryRead, None).await else {
                return error.into();
            };
            let said = lent.connection.check(text).await;
            self.part_with(lent, said.is_ok(), Instant::now());
            said
        };
        match said {
            Ok(Err(body)) if error_field(&body, b'C').is_some_and(|code| code.starts_with(class)) => {
                Stopped::Server(body)
            }
            _ => error.into(),
        }
    }

    /// What was not understood goes to home's primary, and may have done anything there.
    fn unread(&self) -> Decided {
        let way = Way::One { shard: self.snapshot.database.home, access: Access::Write };
        Decided { way, effects: vec![Effect::Unseen], touched: Touched::everything(), keeping: None }
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

    /// Relays the Query or FunctionCall at the front of the input.
    pub(super) async fn relay_or_tell(
        &mut self,
        client: &mut Channel,
        decided: Decided,
        header: Header,
    ) -> Result<(), End> {
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
        self.send_answers(client).await?;
        match self.carry_decided(client, decided, request).await? {
            Ok(()) => put_ready(&mut client.output, self.transaction.status()),
            Err(stopped) => self.tell(client, &stopped),
        }
        Ok(())
    }

    /// Of a Query or what stands for one.
    pub(super) fn tell(&mut self, client: &mut Channel, stopped: &Stopped) {
        self.put_stopped(&mut client.output, stopped);
        put_ready(&mut client.output, self.transaction.status());
    }

    /// Waits for the rest of a unit. A pipeline whose end does not come is sent on as it stands: an error in it is told at
    /// once by a server, and its client may wait for that.
    async fn read_on(&mut self, client: &mut Channel) -> Result<Option<Unit>, End> {
        let timed = self.settings.value("statement_timeout").is_some_and(|limit| limit.trim_matches('\'') != "0");
        if unit::as_it_stands(&client.input, timed).is_none() {
            return self.read(client).await.map(|()| None);
        }
        client.flush().await.map_err(End::Gone)?;
        let stall = if timed { TIMED_STALL } else { STALL };
        match timeout(stall, self.wait(client)).await {
            Ok(outcome) => outcome.map(|()| None),
            Err(_) => Ok(unit::as_it_stands(&client.input, timed)),
        }
    }

    /// Sends what is due and waits for more of the client; meanwhile notifications pass on a pinned connection.
    async fn read(&mut self, client: &mut Channel) -> Result<(), End> {
        self.client.meets_early_cancel(|| client.has_unread());
        std::future::poll_fn(|cx| client.poll_flush_in_turn(cx)).await.map_err(End::Gone)?;
        self.meter.traffic(client);
        client.relax();
        if client.may_move()
            && self.pin.is_none()
            && matches!(self.transaction, Transaction::Idle)
            && let Some(worker) = self.station.elsewhere()
        {
            return Err(End::Moves(worker));
        }
        self.derive();
        match self.patience().filter(|_| client.input.is_empty()) {
            None => self.wait(client).await,
            Some((limit, idling)) => match timeout(limit, self.wait(client)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(End::Refused(idling.too_long(limit))),
            },
        }
    }

    /// How long its client may do nothing, and why no longer. Where a server waits, that has the session's own limits.
    fn patience(&self) -> Option<(Duration, Idling)> {
        let configured = (self.snapshot.topology.process.idle_transaction_timeout, Idling::Configured);
        let limits = match self.transaction {
            Transaction::Idle if self.pin.is_some() => return None,
            Transaction::Idle => [Some((self.idling.session, Idling::Session)), None],
            Transaction::Begun(_) => [Some((self.idling.in_transaction, Idling::InTransaction)), Some(configured)],
            _ => [Some(configured), None],
        };
        limits.into_iter().flatten().filter(|(limit, _)| !limit.is_zero()).min_by_key(|(limit, _)| *limit)
    }

    /// Waits for more of a unit.
    pub(super) async fn read_within(&mut self, client: &mut Channel) -> Result<(), End> {
        std::future::poll_fn(|cx| self.poll_client(cx, client)).await
    }

    /// What the client sends. The servers of its transaction, and who wants it to go, are heard meanwhile.
    fn poll_client(&mut self, cx: &mut Context<'_>, client: &mut Channel) -> Poll<Result<(), End>> {
        if let Some(error) = self.transaction.poll_expired(cx) {
            // Its client hears of it as of a server that it is connected to itself.
            return Poll::Ready(Err(End::Refused(error)));
        }
        match client.poll_fill(cx) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(End::Gone(std::io::ErrorKind::UnexpectedEof.into()))),
            Poll::Ready(filled) => return Poll::Ready(filled.map(|_| ()).map_err(End::Gone)),
            Poll::Pending => {}
        }
        self.client.waits(cx.waker());
        if self.client.is_terminated() { Poll::Ready(Err(End::Refused(terminated()))) } else { Poll::Pending }
    }

    /// Drops everything up to the client's Sync, that too.
    pub(super) async fn skip_to_sync(&mut self, client: &mut Channel) -> Result<(), End> {
        client.flush().await.map_err(End::Gone)?;
        loop {
            match Header::read(&client.input).map_err(End::Refused)? {
                None => self.read_within(client).await?,
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

    async fn wait(&mut self, client: &mut Channel) -> Result<(), End> {
        let may_end = matches!(self.transaction, Transaction::Idle);
        let heard = std::future::poll_fn(|cx| {
            if let Some(pin) = &mut self.pin
                && pin.lent.connection.channel.poll_fill(cx).is_ready()
            {
                return Poll::Ready(Heard::Server);
            }
            if let Poll::Ready(came) = self.poll_client(cx, client) {
                return Poll::Ready(Heard::Client(came));
            }
            if self.hears(cx.waker()) {
                return Poll::Ready(Heard::Notified);
            }
            self.client.meets_early_cancel(|| client.has_unread());
            if may_end && self.station.shared.registry.is_ending() { Poll::Ready(Heard::End) } else { Poll::Pending }
        });
        match heard.await {
            Heard::End => Err(End::Refused(shutting_down())),
            Heard::Client(came) => came,
            Heard::Server => self.hear_pinned(client),
            Heard::Notified => {
                self.put_notifications(&mut client.output);
                Ok(())
            }
        }
    }

    /// What a server says on a pinned connection while nothing is asked of it.
    fn hear_pinned(&mut self, client: &mut Channel) -> Result<(), End> {
        let Some(pin) = &mut self.pin else { return Ok(()) };
        let (connection, mut told) = (&mut pin.lent.connection, Vec::new());
        let lost = |connection: &Connection| {
            Err(End::Refused(connection.expired().unwrap_or_else(|| connection_lost(&connection.server))))
        };
        if connection.channel.input.is_empty() {
            return lost(connection);
        }
        while let Some(header) = Header::whole(&connection.channel.input).map_err(End::Refused)? {
            let settled = connection.owed.settle(header.kind);
            let frame = connection.channel.input.split_to(header.length);
            match settled {
                Ok((Verdict::Parameter, Event::Nothing)) => {
                    let mut body = &frame[Header::BYTES..];
                    let name = take_str(&mut body).map_err(End::Refused)?.to_owned();
                    told.push((name, take_str(&mut body).map_err(End::Refused)?.to_owned()));
                }
                Ok((Verdict::Notification | Verdict::Swallow, Event::Nothing)) => {
                    client.output.extend_from_slice(&frame)
                }
                _ => return lost(connection),
            }
        }
        // The server's configuration has changed.
        for (name, value) in &told {
            if let Some(pin) = &mut self.pin {
                pin.lent.hear(name, value);
            }
            self.hear_and_tell(name, value);
        }
        self.put_news(&mut client.output);
        Ok(())
    }

    /// The session is over: a block is rolled back by closing its connection, a clean pinned one is not kept either.
    pub fn close(mut self) {
        match std::mem::replace(&mut self.transaction, Transaction::Idle) {
            Transaction::Open(open) | Transaction::Failed(Some(open)) => open.abandon(),
            Transaction::Idle | Transaction::Begun(_) | Transaction::Failed(None) => {}
        }
        if let Some(mut pin) = self.pin.take() {
            pin.lent.connection.taint();
            pin.lent.give_back(Instant::now());
        }
    }
}

enum Heard {
    Client(Result<(), End>),
    Server,
    /// What others told, by the shared connection.
    Notified,
    /// The process ends.
    End,
}

fn concerns_all_of(analysis: &crate::statement::Analysis) -> bool {
    matches!(analysis.statements.as_slice(), [only] if concerns_all(&only.kind))
}

/// Drops so many bytes, which may still have to come.
pub(super) async fn skip(client: &mut Channel, length: usize) -> Result<(), End> {
    drop_frame(client, Header { kind: 0, length }).await
}

/// Drops the frame at the front of the input, of which some may still have to come.
pub(super) async fn drop_frame(client: &mut Channel, header: Header) -> Result<(), End> {
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

pub(super) async fn fill(client: &mut Channel) -> Result<(), End> {
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

/// What takes longer (zero: nothing does) is cancelled on its servers; what that does not end, ends the session.
async fn within(
    limit: Duration,
    client: Arc<Client>,
    mut serving: Pin<Box<impl Future<Output = Result<(), End>>>>,
) -> Result<(), End> {
    if limit.is_zero() {
        return serving.await;
    }
    if let Ok(outcome) = timeout(limit, serving.as_mut()).await {
        return outcome;
    }
    tokio::spawn(async move { client.cancel().await });
    timeout(CANCEL_GRACE, serving).await.unwrap_or_else(|_| Err(End::Refused(too_slow(limit))))
}

fn user_gone(name: &str) -> Error {
    let message = format!("user \"{name}\" is not configured any more");
    Error::new(SqlState::INVALID_AUTHORIZATION, message)
}

fn too_slow(limit: Duration) -> Error {
    let message = format!("canceling statement due to query_timeout ({} ms)", limit.as_millis());
    Error::new(SqlState::CANCELED, message)
}

/// What its client may do for so long only.
enum Idling {
    /// `idle_session_timeout`
    Session,
    /// `idle_in_transaction_session_timeout`
    InTransaction,
    /// The configuration's `idle_transaction_timeout`.
    Configured,
}

impl Idling {
    fn too_long(&self, limit: Duration) -> Error {
        let (sqlstate, what) = match self {
            Self::Session => (SqlState::IDLE_SESSION, "idle-session timeout".to_owned()),
            Self::InTransaction => (SqlState::IDLE_IN_TRANSACTION, "idle-in-transaction timeout".to_owned()),
            Self::Configured => {
                (SqlState::IDLE_IN_TRANSACTION, format!("idle_transaction_timeout ({} ms)", limit.as_millis()))
            }
        };
        Error::new(sqlstate, format!("terminating connection due to {what}"))
    }
}

pub(super) fn shutting_down() -> Error {
    Error::new(SqlState::SHUTTING_DOWN, "terminating connection because the proxy is shutting down")
}

/// As a server says it of a process that `pg_terminate_backend` ends.
pub(super) fn terminated() -> Error {
    Error::new(SqlState::SHUTTING_DOWN, "terminating connection due to administrator command")
        .of_routine("ProcessInterrupts")
}

pub(super) fn not_utf8() -> Error {
    Error::unsupported("a text that is not UTF-8", "Use client_encoding UTF8.")
}

fn connection_lost(server: &crate::topology::Server) -> Error {
    let message = format!("the server connection that the session was bound to is lost (shard {})", server.shard.0);
    Error::new(SqlState::CONNECTION_LOST, message)
}

/// Some texts (comments in comments) take a server's parser time by the square of their length.
/// Class of errors that are found in the text alone (PostgreSQL documentation, appendix A).
const OF_THE_TEXT: &str = "42";
pub(super) const CHECKED_BYTES: usize = 64 * 1024;
/// So long an unfinished pipeline waits for more. Who sends slowly is not to lose the choice of a server by it.
const STALL: Duration = Duration::from_secs(1);
/// The same where the client has set `statement_timeout`, which counts from the first message of a unit.
const TIMED_STALL: Duration = Duration::from_millis(20);
/// A server that was asked to cancel has this long to answer.
const CANCEL_GRACE: Duration = Duration::from_secs(5);
