//! One logged-in connection to a server, with all that is known about its state.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::login::{self, Address, Login, Opened};
use super::numbering::{Looks, Numbering};
use super::owed::{Cause, Event, Owed, Payee, Verdict};
use super::pool::Place;
use super::settings::{LoginRole, Settings, difference, has_identity};
use crate::error::{Error, SqlState};
use crate::topology::Server;
use crate::wire::frame::{Header, client, malformed, put, server};
use crate::wire::message::{error_field, put_bare, put_error, put_named, put_query};
use crate::wire::{CancelKey, Channel, Severity, Status};

/// Owned by whoever uses it; dropping it closes it and frees its place in the pool.
pub struct Connection {
    pub channel: Channel,
    pub owed: Owed,
    pub status: Status,
    /// What the server's settings are, when no transaction is open.
    pub applied: Settings,
    pub server: Arc<Server>,
    /// What it reports while a session has set nothing.
    pub reported: Reported,
    /// What it remarked at the log-in: NoticeResponse frames.
    pub remarks: Bytes,
    /// The client speaks: CopyInResponse was seen, and neither its end nor an error.
    pub copying_in: bool,
    pub(super) numbering: Numbering,
    /// The number of its unnamed statement, if that is known.
    pub unnamed: Option<u64>,
    prepared: Prepared,
    target: Arc<CancelTarget>,
    opened: Instant,
    pub(super) used: Instant,
    /// The worker whose runtime the socket is registered with.
    pub(super) worker: usize,
    pub(super) place: Option<Place>,
    tainted: bool,
    /// What ran for its client may have changed more of the server's session than can be told.
    unsure: bool,
    /// Who wrote last: the server's session knows the numbers that it drew.
    pub writer: Option<Writer>,
    /// As `unsure`, and the client is another one now.
    unclean: bool,
    /// What the server made of its prepared statements may not hold any more.
    outdated: bool,
    /// See [`Connection::doubt_role`].
    roles: u64,
}

/// A client's write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    /// The client's process number.
    pub client: i32,
    /// Which of its writes that was.
    pub nth: u64,
}

/// ParameterStatus messages: names and values in the order of a log-in, shared by connections alike.
pub type Reported = Arc<Vec<(String, String)>>;

/// Where a CancelRequest for a connection goes.
#[derive(Debug)]
pub struct CancelTarget {
    server: Arc<Server>,
    address: Address,
    key: Option<CancelKey>,
    /// A request was or is being sent.
    announced: AtomicBool,
    /// Of a request of the proxy's own: what the client is told in the place of 57014.
    reason: Mutex<Option<Error>>,
    pub opened: Instant,
    /// This end of the connection.
    pub local: Option<SocketAddr>,
    /// Protocol and cipher.
    pub encryption: Option<String>,
}

/// What one frame was, for whoever relays.
#[derive(Debug, PartialEq, Eq)]
pub struct Settled {
    pub verdict: Verdict,
    pub event: Event,
}

/// Statements that the server holds under names of ours.
#[derive(Default)]
struct Prepared {
    /// By number.
    known: HashMap<u64, Known, foldhash::fast::RandomState>,
    uses: u64,
    /// Of the unnamed one of this number.
    unnamed: Option<(u64, Looks)>,
}

struct Known {
    /// When it was last used.
    used: u64,
    description: u32,
    looks: Option<Looks>,
}

impl Connection {
    pub(super) async fn open(server: &Arc<Server>, login: &Login, terms: OpeningTerms<'_>) -> Result<Self, Error> {
        let opening = login::open(server, login, terms.parameters, terms.keepalive);
        let Opened { channel, address, key, parameters, remarks, .. } =
            match timeout(terms.connect_timeout, opening).await {
                Ok(opened) => opened?,
                Err(_) => return Err(login::refused(server, "connecting took too long")),
            };
        let target = CancelTarget {
            server: Arc::clone(server),
            address,
            key,
            announced: AtomicBool::new(false),
            reason: Mutex::default(),
            opened: Instant::now(),
            local: channel.local(),
            encryption: channel.encryption(),
        };
        Ok(Self {
            channel,
            owed: Owed::default(),
            status: Status::Idle,
            applied: Settings::default(),
            server: Arc::clone(server),
            reported: Arc::new(parameters),
            remarks,
            copying_in: false,
            numbering: Numbering::default(),
            unnamed: None,
            prepared: Prepared::default(),
            target: Arc::new(target),
            opened: Instant::now(),
            used: Instant::now(),
            worker: terms.worker,
            place: None,
            tainted: false,
            unsure: false,
            writer: None,
            unclean: false,
            outdated: false,
            roles: 0,
        })
    }

    pub fn target(&self) -> &Arc<CancelTarget> {
        &self.target
    }

    /// Never to be used for another client again.
    pub fn taint(&mut self) {
        self.tainted = true;
    }

    pub fn is_tainted(&self) -> bool {
        self.tainted
    }

    /// Its session may have been changed out of sight: it is cleared before another client has it.
    pub fn distrust(&mut self) {
        self.unsure = true;
    }

    /// What it reports is not what its client has set out of sight.
    pub fn is_trusted(&self) -> bool {
        !self.unsure && !self.tainted
    }

    /// `roles` changes with the roles that there are: by the name that the connection has, there may be another one now.
    pub(super) fn doubt_role(&mut self, roles: u64) {
        let is_another = std::mem::replace(&mut self.roles, roles) != roles;
        self.unclean |= is_another && has_identity(&self.applied);
    }

    /// Its client is done with it.
    pub(super) fn change_hands(&mut self) {
        self.unclean |= std::mem::take(&mut self.unsure);
        self.unnamed = None;
    }

    /// Everything asked was answered, no transaction is open, nothing unaccounted is there.
    pub fn is_clean(&self) -> bool {
        self.is_at_rest() && !self.tainted && !self.target.announced.load(Ordering::Acquire)
    }

    /// The same, but perhaps never to be used for another client.
    pub fn is_at_rest(&self) -> bool {
        self.owed.is_empty()
            && self.status == Status::Idle
            && self.channel.input.is_empty()
            && self.channel.output.is_empty()
            && !self.copying_in
    }

    pub(super) fn is_older_than(&self, lifetime: Duration, now: Instant) -> bool {
        !lifetime.is_zero() && now.saturating_duration_since(self.opened) > lifetime
    }

    /// The server neither closed the idle connection nor said anything on it. Costs no system call while it is quiet.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.channel.is_quiet()
    }

    pub fn knows(&mut self, statement: u64) -> bool {
        self.prepared.touch(statement).is_some()
    }

    /// As [`Connection::knows`]: what its server's copy looks like (see [`crate::wire::message::mix_description`]), 0 if
    /// nobody asked.
    pub fn description(&mut self, statement: u64) -> Option<u32> {
        self.prepared.touch(statement)
    }

    /// What the server's copy looks like is known now.
    pub fn note_description(&mut self, statement: u64, description: u32) {
        self.prepared.known.get_mut(&statement).into_iter().for_each(|known| known.description = description);
    }

    /// The same of its parameters and columns, where numbers in values count.
    pub fn note_looks(&mut self, statement: u64, looks: Looks) {
        match self.prepared.known.get_mut(&statement) {
            Some(known) => known.looks = Some(looks),
            None => self.prepared.unnamed = Some((statement, looks)),
        }
    }

    /// What is known of that.
    pub fn looks(&self, statement: u64) -> Option<&Looks> {
        let unnamed = self.prepared.unnamed.as_ref().filter(|(number, _)| *number == statement);
        match self.prepared.known.get(&statement) {
            Some(known) => known.looks.as_ref(),
            None => unnamed.filter(|_| self.unnamed == Some(statement)).map(|(_, looks)| looks),
        }
    }

    /// The unnamed statement is the one of this number, once what is put on the connection next is carried out.
    pub fn take_unnamed(&mut self, statement: u64) {
        self.unnamed = Some(statement);
        self.prepared.unnamed = None;
    }

    /// Numbers are others now.
    pub(super) fn forget_looks(&mut self) {
        self.prepared.unnamed = None;
        self.prepared.known.values_mut().for_each(|known| known.looks = None);
    }

    /// A Parse of this statement is on its way.
    pub fn expect(&mut self, statement: u64) {
        self.prepared.touch_or_insert(statement);
    }

    fn mind_skipped(&mut self) {
        let skipped = self.owed.take_skipped();
        for statement in skipped.parses {
            self.prepared.known.remove(&statement);
        }
        if skipped.close {
            self.taint();
        }
        if skipped.unnamed {
            self.unnamed = None;
        }
    }

    /// The server has no such statement any more.
    pub fn forget(&mut self, statement: u64) {
        self.prepared.known.remove(&statement);
    }

    /// All prepared statements of the server session are gone (DISCARD ALL, DEALLOCATE ALL).
    pub fn forget_statements(&mut self) {
        self.prepared.known.clear();
    }

    /// Tables may have changed under the prepared statements: they are made anew before they are used again.
    pub fn outdate_statements(&mut self) {
        self.outdated = true;
    }

    pub fn has_outdated_statements(&self) -> bool {
        self.outdated
    }

    /// Makes room for one more prepared statement by closing the one unused for longest.
    pub fn make_room(&mut self, limit: usize) {
        if self.prepared.known.len() < limit {
            return;
        }
        let oldest = self.prepared.known.iter().min_by_key(|(_, known)| known.used).map(|(statement, _)| *statement);
        if let Some(statement) = oldest {
            self.close_statement(statement);
        }
    }

    /// The server forgets a prepared statement.
    pub fn close_statement(&mut self, statement: u64) {
        self.prepared.known.remove(&statement);
        put_named(&mut self.channel.output, client::CLOSE, b'S', &statement_name(statement));
        self.owed.push(Cause::Close, Payee::Nobody);
    }

    /// Takes the next whole frame off the input and settles it against what is owed.
    /// `None`: there is no whole frame.
    pub fn settle_whole(&mut self) -> Result<Option<(Settled, Header)>, Error> {
        match Header::whole(&self.channel.input)? {
            Some(header) => {
                let first = self.channel.input.get(Header::BYTES).copied();
                Ok(Some((self.settle(header.kind, first)?, header)))
            }
            None => Ok(None),
        }
    }

    /// Within a block that goes on after an error: see [`Connection::outdate_statements`].
    pub async fn renew_statements(&mut self) -> Result<(), Error> {
        if self.status == Status::InTransaction && std::mem::take(&mut self.outdated) {
            self.close_statements(&mut |_, _| {}).await?;
        }
        Ok(())
    }

    /// The server forgets all that were prepared under names of ours.
    async fn close_statements(&mut self, report: &mut (dyn FnMut(&str, &str) + Send)) -> Result<(), Error> {
        let known: Vec<u64> = self.prepared.known.keys().copied().collect();
        self.make_anew(&[], &known, report).await.map(|_| ())
    }

    /// Settles a frame of which at least the header and, for ReadyForQuery, the status byte are there.
    pub fn settle(&mut self, kind: u8, first: Option<u8>) -> Result<Settled, Error> {
        let (verdict, event) = self.owed.settle(kind)?;
        self.number_as_known((kind, event == Event::Described), 0);
        match event {
            Event::Ready => {
                self.status = Status::from_byte(first.unwrap_or_default())?;
                self.copying_in = false;
            }
            Event::Parsed(statement) => {
                self.prepared.touch_or_insert(statement);
            }
            Event::Failed(_) => {
                self.copying_in = false;
                self.mind_skipped();
            }
            Event::CopyIn(_) => self.copying_in = true,
            Event::Nothing | Event::Described => {}
        }
        Ok(Settled { verdict, event })
    }

    /// As [`Connection::settle`], of the whole frame at this place of the input, if it is for the client and no more than
    /// the status follows from it. `false`: it is not.
    pub fn passes(&mut self, header: Header, place: usize) -> Result<bool, Error> {
        if !self.owed.passes(header.kind) {
            return Ok(false);
        }
        self.number_as_known((header.kind, false), place);
        if header.kind == server::READY {
            let status = self.channel.input[place..place + header.length].get(Header::BYTES).copied();
            self.status = Status::from_byte(status.unwrap_or_default())?;
            self.copying_in = false;
        }
        Ok(true)
    }

    /// What has come without being asked for is none of the replies to what is asked next.
    fn check_unasked(&self) -> Result<(), Error> {
        let mut rest = &self.channel.input[..];
        while let Some(kind) = rest.first() {
            let header = Header::whole(rest)?;
            match (*kind, header) {
                // The server ends the session, and says why.
                (server::ERROR, Some(header)) => return Err(self.ended(&rest[Header::BYTES..header.length])),
                (server::ERROR, None) => return Err(self.lost(&std::io::ErrorKind::ConnectionAborted.into())),
                (server::NOTICE | server::NOTIFICATION | server::PARAMETER_STATUS, _) => {}
                _ => return Err(malformed("a reply that nobody asked for")),
            }
            let Some(header) = header else { break };
            rest = &rest[header.length..];
        }
        Ok(())
    }

    /// Runs statements of the proxy's own and waits for their end; gives the body of the first error.
    pub async fn run(&mut self, sql: &str) -> Result<Result<(), Bytes>, Error> {
        self.run_all(&[sql], &mut |_, _| {}).await
    }

    /// As [`Connection::run`] for several texts in one go; `report` hears of ParameterStatus messages.
    pub async fn run_all(
        &mut self,
        texts: &[&str],
        report: &mut (dyn FnMut(&str, &str) + Send),
    ) -> Result<Result<(), Bytes>, Error> {
        self.put_texts(texts)?;
        self.finish(report).await
    }

    /// As [`Connection::run`]; notices are appended to what a client is told.
    pub async fn run_telling(&mut self, sql: &str, told: &mut BytesMut) -> Result<Result<(), Bytes>, Error> {
        self.put_texts(&[sql])?;
        self.hear(&mut |_, _| {}, &mut |_, kind, body| put_notice(told, kind, body)).await
    }

    fn put_texts(&mut self, texts: &[&str]) -> Result<(), Error> {
        self.check_unasked()?;
        self.unnamed = None;
        for sql in texts {
            put_query(&mut self.channel.output, sql);
            self.owed.push(Cause::Query, Payee::Nobody);
        }
        Ok(())
    }

    /// What the server has against a statement, which is not run.
    pub async fn check(&mut self, sql: &str) -> Result<Result<(), Bytes>, Error> {
        self.put_parse("", sql.as_bytes(), &[]);
        put_bare(&mut self.channel.output, client::SYNC);
        self.owed.push(Cause::Parse(None), Payee::Nobody);
        self.owed.push(Cause::Sync, Payee::Nobody);
        self.finish(&mut |_, _| {}).await
    }

    /// Sends what waits and reads everything that is owed.
    async fn finish(&mut self, report: &mut (dyn FnMut(&str, &str) + Send)) -> Result<Result<(), Bytes>, Error> {
        self.hear(report, &mut |_, _, _| {}).await
    }

    /// As [`Connection::finish`]; `each` sees what every frame brought about, its kind and body.
    pub(super) async fn hear(
        &mut self,
        report: &mut (dyn FnMut(&str, &str) + Send),
        each: &mut (dyn FnMut(Event, u8, &[u8]) + Send),
    ) -> Result<Result<(), Bytes>, Error> {
        let mut failure = None;
        self.channel.flush().await.map_err(|cause| self.lost(&cause))?;
        while !self.owed.is_empty() {
            let Some((settled, header)) = self.settle_whole()? else {
                if self.channel.fill().await.map_err(|cause| self.lost(&cause))? == 0 {
                    return Err(self.lost(&std::io::ErrorKind::UnexpectedEof.into()));
                }
                continue;
            };
            let body = self.channel.input.split_to(header.length).freeze().slice(Header::BYTES..);
            if settled.verdict == Verdict::Parameter {
                let (name, value) = login::read_parameter(&body)?;
                report(&name, &value);
            }
            each(settled.event, header.kind, &body);
            if matches!(settled.event, Event::Failed(_)) {
                let instead = self.instead_of(&body).map(|frame| frame.slice(Header::BYTES..));
                failure.get_or_insert(instead.unwrap_or(body));
            }
        }
        Ok(failure.map_or(Ok(()), Err))
    }

    /// The first value of the first row that a text of the proxy's own gives.
    pub async fn ask(&mut self, sql: &str) -> Result<Option<String>, Error> {
        Ok(self.ask_all(sql).await?.ok().and_then(|values| values.into_iter().next()))
    }

    /// The first value of each row that a text of the proxy's own gives, or the body of the error.
    pub async fn ask_all(&mut self, sql: &str) -> Result<Result<Vec<String>, Bytes>, Error> {
        self.unnamed = None;
        put_query(&mut self.channel.output, sql);
        self.owed.push(Cause::Query, Payee::Nobody);
        self.channel.flush().await.map_err(|cause| self.lost(&cause))?;
        let (mut values, mut failure) = (Vec::new(), None);
        while !self.owed.is_empty() {
            let Some((settled, header)) = self.settle_whole()? else {
                if self.channel.fill().await.map_err(|cause| self.lost(&cause))? == 0 {
                    return Err(self.lost(&std::io::ErrorKind::UnexpectedEof.into()));
                }
                continue;
            };
            let frame = self.channel.input.split_to(header.length).freeze();
            // Column count, length, value.
            if header.kind == crate::wire::frame::server::DATA_ROW {
                values.extend(frame.get(Header::BYTES + 6..).map(|bytes| String::from_utf8_lossy(bytes).into_owned()));
            } else if matches!(settled.event, Event::Failed(_)) {
                failure.get_or_insert(frame.slice(Header::BYTES..));
            }
        }
        Ok(failure.map_or(Ok(values), Err))
    }

    /// The ErrorResponse that stands for one that the server has sent because the proxy ended its statement.
    pub fn instead_of(&self, body: &[u8]) -> Option<Bytes> {
        let reason = self.target.take_reason(body)?;
        let mut frame = BytesMut::new();
        put_error(&mut frame, Severity::Error, &reason);
        Some(frame.freeze())
    }

    /// Whether [`Connection::apply`] would have nothing to do.
    pub fn has(&self, wanted: &Settings) -> bool {
        !self.unclean && !self.outdated && Arc::ptr_eq(&self.applied, wanted)
    }

    /// Makes the server's settings what a session wants. An error of the server leaves the connection unusable.
    pub async fn apply(
        &mut self,
        wanted: &Settings,
        report: &mut (dyn FnMut(&str, &str) + Send),
    ) -> Result<Result<(), Bytes>, Error> {
        self.apply_telling(wanted, report, &mut BytesMut::new()).await
    }

    /// The same; notices are appended to what a client is told.
    pub async fn apply_telling(
        &mut self,
        wanted: &Settings,
        report: &mut (dyn FnMut(&str, &str) + Send),
        told: &mut BytesMut,
    ) -> Result<Result<(), Bytes>, Error> {
        if std::mem::take(&mut self.outdated) {
            self.close_statements(report).await?;
        }
        let sql = match self.unclean {
            true => CLEARING.to_owned() + &difference(&Settings::default(), wanted, self.login_role()),
            false => difference(&self.applied, wanted, self.login_role()),
        };
        if !sql.is_empty() {
            self.put_texts(&[&sql])?;
            if let Err(failure) = self.hear(report, &mut |_, kind, body| put_notice(told, kind, body)).await? {
                self.taint();
                return Ok(Err(failure));
            }
        }
        self.applied = Arc::clone(wanted);
        self.unclean = false;
        Ok(Ok(()))
    }

    fn login_role(&self) -> LoginRole {
        let is_superuser = self.reported.iter().any(|(name, value)| name == "is_superuser" && value == "on");
        if is_superuser { LoginRole::Superuser } else { LoginRole::Other }
    }

    /// The client of a statement has gone: ends the statement on the server, then the connection.
    pub fn abandon(mut self) {
        self.taint();
        if self.owed.is_empty() {
            return;
        }
        let target = Arc::clone(&self.target);
        tokio::spawn(async move {
            if let Err(cause) = target.cancel().await {
                tracing::debug!(%cause, "cancelling a statement whose client has gone");
            }
            drop(self);
        });
    }

    /// Hears what the server said while nothing was asked of it. An error: it has ended the session.
    pub fn overhear(&mut self) -> Result<(), Error> {
        let mut gone = None;
        while gone.is_none() {
            match self.channel.poll_fill(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => gone = Some(std::io::ErrorKind::UnexpectedEof.into()),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(cause)) => gone = Some(cause),
            }
        }
        if self.owed.is_empty()
            && let Some(header) = Header::whole(&self.channel.input)?
        {
            let body = &self.channel.input[Header::BYTES..header.length];
            if header.kind == server::ERROR || (header.kind == server::NOTICE && is_last_word(body)) {
                return Err(self.ended(body));
            }
        }
        gone.map_or(Ok(()), |cause| Err(self.lost(&cause)))
    }

    /// As [`Connection::expired`], of what comes while nothing is asked; else the waker is woken when something does.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>) -> Option<Error> {
        if !self.owed.is_empty() {
            return None;
        }
        while let Poll::Ready(Ok(1..)) = self.channel.poll_fill(cx) {}
        self.expired()
    }

    /// The server has ended the session because its client said nothing for too long: its words.
    pub fn expired(&self) -> Option<Error> {
        let header = Header::whole(&self.channel.input).ok()??;
        let body = &self.channel.input[Header::BYTES..header.length];
        let code = error_field(body, b'C').filter(|_| header.kind == server::ERROR)?;
        let sqlstate = EXPIRED.into_iter().find(|known| known.0 == code)?;
        Some(Error::new(sqlstate, error_field(body, b'M').unwrap_or_default()))
    }

    /// The server has ended the session, and said why.
    pub fn ended(&self, body: &[u8]) -> Error {
        let (server, lost) = (&self.server, self.lost(&std::io::ErrorKind::ConnectionAborted.into()));
        lost.with_detail(format!("{}:{}: {}", server.host, server.port, describe_failure(body)))
    }

    /// The connection broke.
    pub fn lost(&self, cause: &std::io::Error) -> Error {
        let server = &self.server;
        let message = format!("server connection lost on shard {} of database \"{}\"", server.shard.0, server.database);
        Error::new(SqlState::CONNECTION_LOST, message).with_detail(format!("{}:{}: {cause}", server.host, server.port))
    }
}

impl CancelTarget {
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Number of the server's process; 0 if it did not tell.
    pub fn process(&self) -> i32 {
        self.key.as_ref().map_or(0, |key| key.process)
    }

    /// A cancel request was or is being sent: the connection is closed when its client is done with it.
    pub fn is_announced(&self) -> bool {
        self.announced.load(Ordering::Acquire)
    }

    /// A cancel request is about to be sent. It may hit late: the connection is never used for another client.
    pub fn announce(&self) {
        self.announced.store(true, Ordering::Release);
    }

    /// As [`CancelTarget::cancel`]; the client is told another reason than its own request.
    pub async fn cancel_for(&self, reason: Error) -> std::io::Result<()> {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
        self.cancel().await
    }

    /// What the client is told in the place of an ErrorResponse with this body, once.
    fn take_reason(&self, body: &[u8]) -> Option<Error> {
        if !self.is_announced() || error_field(body, b'C') != Some(SqlState::CANCELED.0) {
            return None;
        }
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Asks the server to end what the connection runs; returns when the server has sent the signal.
    pub async fn cancel(&self) -> std::io::Result<()> {
        self.announce();
        let Some(key) = self.key else { return Err(std::io::Error::other("the server gave no key to cancel with")) };
        let attempt = async {
            let mut stream = login::dial(&self.server, &self.address).await?;
            stream.write_all(&crate::wire::Startup::Cancel(key.encode()).encode()).await?;
            stream.flush().await?;
            // Some servers close, some reset: either way the signal has been sent.
            match stream.read_to_end(&mut Vec::new()).await {
                Ok(_) => Ok(()),
                Err(cause) if cause.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
                Err(cause) => Err(cause),
            }
        };
        timeout(CANCEL_TIMEOUT, attempt).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
    }
}

impl Prepared {
    fn touch(&mut self, statement: u64) -> Option<u32> {
        self.uses += 1;
        let known = self.known.get_mut(&statement)?;
        known.used = self.uses;
        Some(known.description)
    }

    fn touch_or_insert(&mut self, statement: u64) {
        self.uses += 1;
        let used = self.uses;
        self.known.entry(statement).or_insert(Known { used, description: 0, looks: None }).used = used;
    }
}

/// How a connection is opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpeningTerms<'p> {
    /// Of the startup packet, beside user and database.
    pub parameters: &'p [(String, String)],
    pub connect_timeout: Duration,
    pub keepalive: Duration,
    pub worker: usize,
}

fn put_notice(told: &mut BytesMut, kind: u8, body: &[u8]) {
    if kind == server::NOTICE && !is_last_word(body) {
        put(told, kind, |out| out.extend_from_slice(body));
    }
}

/// Limits of a session's own: `idle_in_transaction_session_timeout`, `transaction_timeout`, `idle_session_timeout`.
const EXPIRED: [SqlState; 3] = [SqlState::IDLE_IN_TRANSACTION, SqlState("25P04"), SqlState("57P05")];

/// 20 digits, at most.
pub type StatementName = arrayvec::ArrayString<27>;

/// What the names begin with under which servers know prepared statements.
pub const PREFIX: &str = "pgweir_";

/// The name under which servers know a prepared statement.
pub fn statement_name(statement: u64) -> StatementName {
    let mut name = StatementName::from(PREFIX).expect("it is shorter than the longest");
    // A statement in most units: by hand it costs a tenth of what formatting does.
    let (mut digits, mut start, mut rest) = ([0; 20], 20, statement);
    while rest > 0 || start == digits.len() {
        start -= 1;
        digits[start] = b'0' + u8::try_from(rest % 10).expect("a digit");
        rest /= 10;
    }
    digits[start..].iter().for_each(|digit| name.push(char::from(*digit)));
    name
}

/// Message and SQLSTATE of an ErrorResponse's body, for logs.
pub fn describe_failure(body: &[u8]) -> String {
    let field = |code| error_field(body, code).unwrap_or_default();
    format!("{} (SQLSTATE {})", field(b'M'), field(b'C'))
}

/// Whether an ErrorResponse ends the server's session.
pub fn is_fatal(body: &[u8]) -> bool {
    matches!(error_field(body, b'V'), Some("FATAL" | "PANIC"))
}

/// Whether a NoticeResponse is what a server process says when it is made to leave at once: no reply follows.
pub fn is_last_word(body: &[u8]) -> bool {
    error_field(body, b'R') == Some("quickdie")
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Polite where it costs nothing: an idle server session ends without a line in the server's log.
        if self.owed.is_empty() && self.channel.output.is_empty() {
            put_bare(&mut self.channel.output, client::TERMINATE);
            let said: Poll<_> = self.channel.poll_flush(&mut Context::from_waker(Waker::noop()));
            drop(said);
        }
    }
}

/// Takes the frame at the front of `input` away.
pub fn skip(input: &mut BytesMut, header: Header) {
    input.advance(header.length);
}

/// As DISCARD ALL (PostgreSQL documentation, DISCARD), but for plans and prepared statements, and within a text of more.
const CLEARING: &str = "RESET ROLE;SET SESSION AUTHORIZATION DEFAULT;RESET ALL;CLOSE ALL;UNLISTEN *;\
                        SELECT pg_advisory_unlock_all();DISCARD TEMP;DISCARD SEQUENCES;";

const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);
