//! One logged-in connection to a server, with all that is known about its state.

mod cancel;
mod prepared;
mod running;

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
pub use cancel::CancelTarget;
use prepared::Prepared;
pub use prepared::{PREFIX, StatementName, statement_name};
use tokio::time::{Instant, timeout};

use super::login::{self, Login, Opened};
use super::numbering::Numbering;
use super::owed::{Event, Owed, Verdict};
use super::pool::Place;
use super::settings::{Settings, has_identity};
use crate::error::{Error, SqlState};
use crate::topology::Server;
use crate::wire::frame::{Header, client, server};
use crate::wire::message::{error_field, put_bare, put_error};
use crate::wire::{Channel, Severity, Status};

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
    /// Those of its pool before it was opened.
    pub(super) renewals: u64,
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

/// What one frame was, for whoever relays.
#[derive(Debug, PartialEq, Eq)]
pub struct Settled {
    pub verdict: Verdict,
    pub event: Event,
}

impl Connection {
    pub(super) async fn open(server: &Arc<Server>, login: &Login, terms: OpeningTerms<'_>) -> Result<Self, Error> {
        let opening = login::open(server, login, terms.parameters, terms.keepalive);
        let Opened { channel, address, key, parameters, remarks, .. } =
            match timeout(terms.connect_timeout, opening).await {
                Ok(opened) => opened?,
                Err(_) => return Err(login::refused(server, "connecting took too long")),
            };
        let target = CancelTarget::new(server, address, key, &channel);
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
            renewals: 0,
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
        self.is_at_rest() && !self.tainted && !self.target.is_announced()
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

    /// The ErrorResponse that stands for one that the server has sent because the proxy ended its statement.
    pub fn instead_of(&self, body: &[u8]) -> Option<Bytes> {
        let reason = self.target.take_reason(body)?;
        let mut frame = BytesMut::new();
        put_error(&mut frame, Severity::Error, &reason);
        Some(frame.freeze())
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

/// How a connection is opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpeningTerms<'p> {
    /// Of the startup packet, beside user and database.
    pub parameters: &'p [(String, String)],
    pub connect_timeout: Duration,
    pub keepalive: Duration,
    pub worker: usize,
}

/// Limits of a session's own: `idle_in_transaction_session_timeout`, `transaction_timeout`, `idle_session_timeout`.
const EXPIRED: [SqlState; 3] = [SqlState::IDLE_IN_TRANSACTION, SqlState("25P04"), SqlState::IDLE_SESSION];

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
