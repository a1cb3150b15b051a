//! A unit of work on its way to a server connection: the client's messages, under names that the server knows.

mod sending;

use std::sync::Arc;
use std::task::Waker;

use bytes::{Buf, BufMut, BytesMut};

use super::Session;
use super::again::{Trouble, trouble_of};
use super::describing::Describing;
use super::digest::{Step, Steps, only_prepares};
use super::effects::Effect;
use super::numbers::{Portals, copy_comes_late};
use super::replan::columns_changed;
use super::run::terminated;
use super::ties;
use super::transaction::Open;
use super::unit::STATEMENT_BYTES;
use crate::backend::{Cause, Connection, Fault, Payee};
use crate::error::{Error, SqlState};
use crate::executor::{BUFFER_BYTES, Unit, move_front};
use crate::statement::standardized;
use crate::topology::ShardId;
use crate::wire::frame::{Header, client, malformed, put_in_front, put_text};
use crate::wire::message::{error_field, put_bare};
use crate::wire::{Bind, Oids};

use sending::{bare, forward};

/// What one relay carries.
pub(super) struct Carried<'s> {
    session: &'s mut Session,
    /// Messages at the front of the input that were understood while deciding.
    steps: smallvec::IntoIter<[Step; 5]>,
    shard: ShardId,
    /// Bytes still to come of a frame that has been begun.
    passing: usize,
    passing_to: Destination,
    /// A Sync or Query was sent.
    complete: bool,
    /// After an error or a refusal: everything up to the Sync is dropped.
    skipping: bool,
    /// The unit ends with its Flush: see [`super::digest::only_prepares`].
    prepares: bool,
    /// Something of the unit was taken: what it was decided by is behind.
    begun: bool,
    /// What comes next depends on how what was sent before it ends.
    waiting: bool,
    /// The Bind at the front of the input, which waits for what its statement looks like;
    held: Option<Step>,
    /// and it does not wait any more.
    has_looked: bool,
    /// The server was sent a Flush for that.
    asked: bool,
    /// It waits for statements that it names.
    names_first: bool,
    /// The portal of a PREPARE, or of what ends all prepared statements (`true`).
    naming: Option<(Box<str>, bool)>,
    /// The server forgets its prepared statements, and the connection has already.
    pub forgets: bool,
    /// The client said Terminate, and the server was told.
    pub leaves: bool,
    pub failed: bool,
    /// What the unit failed of, where another attempt may do better.
    pub trouble: Option<Trouble>,
    /// Statements whose descriptions are to come.
    describing: Option<Box<Describing>>,
    /// ParameterStatus messages: name and value.
    pub heard: Vec<(String, String)>,
    /// Notifications are for this client.
    listens: bool,
    /// Processes are signalled whose numbers are known at execution only.
    signals: bool,
    /// Those that the server does not have.
    pub strangers: Vec<i32>,
    /// See [`Open::renamed`].
    renamed: bool,
    /// It makes statements,
    parses: bool,
    /// or uses one of an earlier unit.
    reuses: bool,
    /// Of messages that were not known while deciding.
    effects: Vec<Effect>,
    /// Where numbers in values count; else nobody asks.
    portals: Portals,
    /// They do.
    counts_numbers: bool,
}

/// Where the rest of a frame goes that has been begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Destination {
    Server,
    /// As data of COPY, which may be changed on its way.
    Copy,
    Nowhere,
}

impl<'s> Carried<'s> {
    pub(super) fn new(session: &'s mut Session, steps: Steps, open: &Open, effects: &[Effect]) -> Self {
        Self {
            session,
            heard: Vec::new(),
            listens: effects.contains(&Effect::Pin(ties::LISTEN)),
            signals: effects.iter().any(|effect| matches!(effect, Effect::Signal { .. })),
            strangers: Vec::new(),
            parses: false,
            reuses: false,
            renamed: open.renamed || effects.iter().any(Effect::renames),
            prepares: only_prepares(&steps),
            steps: steps.into_iter(),
            shard: open.lent.shard,
            passing: 0,
            passing_to: Destination::Nowhere,
            complete: false,
            skipping: false,
            begun: false,
            waiting: false,
            held: None,
            has_looked: false,
            asked: false,
            names_first: false,
            naming: None,
            forgets: false,
            leaves: false,
            failed: false,
            trouble: None,
            describing: None,
            effects: Vec::new(),
            portals: Portals::default(),
            counts_numbers: open.lent.connection.has_numbers_in_values(),
        }
    }

    fn note_descriptions(&mut self, connection: &mut Connection) {
        if let Some(describing) = self.describing.take() {
            describing.note_in(connection);
        }
    }

    /// Whether the last message of the unit was taken off the input, and how much of a begun one is still to come.
    pub(super) fn taken(&self) -> (bool, usize) {
        (self.complete, self.passing)
    }

    /// Gives the effects that were not known while deciding; the connection keeps in mind what was described.
    pub(super) fn end(&mut self, connection: &mut Connection) -> Vec<Effect> {
        self.note_descriptions(connection);
        std::mem::take(&mut self.effects)
    }

    /// Understands a message that comes after the unit's way was chosen: it must go the same way.
    fn digest(&mut self, kind: u8, body: &[u8]) -> Step {
        let step = self.session.digest(kind, body);
        let Step::Bind { prepared, .. } = &step else { return step };
        let checked = self.session.check_bind(prepared, body, self.shard);
        match checked.and_then(|effects| self.check_late(effects)) {
            Ok(effects) => {
                self.effects.extend(effects);
                step
            }
            Err(error) => Step::Refused(Box::new(error)),
        }
    }

    /// Only the front of the message is there: on a sharded database its key may be behind.
    fn digest_long_bind(&mut self, body: &[u8]) -> Step {
        let step = self.session.digest(client::BIND, body);
        let Step::Bind { prepared, .. } = &step else { return step };
        if self.session.snapshot.database.is_sharded() {
            let hint = "Send the long value in a statement of its own, by COPY or in parts.";
            let message = "parameters longer than 16 MiB are not supported on a sharded database";
            return Step::Refused(Box::new(Error::new(SqlState::TOO_LARGE, message).with_hint(hint)));
        }
        prepared
            .analysis
            .statements
            .iter()
            .for_each(|statement| super::effects::of(statement, None, &mut self.effects));
        step
    }

    fn pass(&mut self, input: &mut BytesMut, connection: &mut Connection) {
        let now = self.passing.min(input.len());
        match self.passing_to {
            Destination::Server => move_front(input, now, &mut connection.channel.output),
            Destination::Copy => {
                connection.put_copy_data(&input[..now]);
                input.advance(now);
            }
            Destination::Nowhere => input.advance(now),
        }
        self.passing -= now;
    }

    /// Starts to send on (or drop) a frame as it is, of which some may still have to come.
    fn relay(&mut self, input: &mut BytesMut, connection: &mut Connection, header: Header, to_server: bool) {
        self.passing = header.length;
        self.passing_to = if to_server { Destination::Server } else { Destination::Nowhere };
        self.pass(input, connection);
    }

    /// Sends data of COPY on with the server's numbers in its values.
    fn convert(&mut self, input: &mut BytesMut, connection: &mut Connection, header: Header) {
        input.advance(Header::BYTES);
        self.passing = header.length - Header::BYTES;
        self.passing_to = Destination::Copy;
        self.pass(input, connection);
    }

    /// While the server waits for copy data: only that, and nothing that it would ignore.
    fn feed_copy(&mut self, input: &mut BytesMut, connection: &mut Connection, header: Header) -> Result<(), Error> {
        match header.kind {
            client::COPY_DATA if connection.converts_copy() => self.convert(input, connection, header),
            client::COPY_DATA => self.relay(input, connection, header, true),
            client::COPY_DONE | client::COPY_FAIL => {
                connection.end_copied();
                self.relay(input, connection, header, true);
                connection.copying_in = false;
                // A Flush before the data says nothing of what comes of it.
                self.asked = false;
            }
            client::SYNC | client::FLUSH => self.relay(input, connection, header, false),
            client::TERMINATE => self.leave(input, connection, header),
            _ => return Err(malformed("neither copy data nor its end during COPY FROM STDIN")),
        }
        Ok(())
    }

    fn feed_one(&mut self, input: &mut BytesMut, connection: &mut Connection, header: Header) -> Result<bool, Error> {
        let whole = header.length <= input.len();
        let begun = std::mem::replace(&mut self.begun, true);
        self.waiting = begun && (is_ahead(header.kind) || self.held.is_some()) && !connection.owed.is_empty();
        self.asked &= self.waiting;
        match header.kind {
            _ if self.waiting => return Ok(self.wait(connection)),
            client::TERMINATE => self.leave(input, connection, header),
            client::QUERY | client::FUNCTION_CALL if begun => return self.feed_later_query(input, connection, header),
            client::QUERY | client::FUNCTION_CALL => self.relay_query(input, connection, header),
            // Left over from a COPY that failed: the server would ignore it.
            client::COPY_DATA | client::COPY_DONE | client::COPY_FAIL => self.relay(input, connection, header, false),
            client::BIND if !whole && header.length > STATEMENT_BYTES => {
                return self.feed_long_bind(input, connection, header);
            }
            _ if !whole && header.length > STATEMENT_BYTES => {
                let message = format!("a message longer than {STATEMENT_BYTES} bytes is not supported here");
                return Err(Error::new(SqlState::TOO_LARGE, message));
            }
            _ if !whole => return Ok(false),
            _ => self.feed_step(input, connection, header),
        }
        Ok(true)
    }

    fn relay_query(&mut self, input: &mut BytesMut, connection: &mut Connection, header: Header) {
        connection.owed.push(Cause::Query, Payee::Client);
        if header.kind == client::QUERY {
            connection.unnamed = None;
        }
        self.complete = true;
        self.relay(input, connection, header, true);
    }

    /// A Query behind messages of the extended protocol, without a Sync in between. All of those were answered.
    fn feed_later_query(
        &mut self,
        input: &mut BytesMut,
        connection: &mut Connection,
        header: Header,
    ) -> Result<bool, Error> {
        // After an error the server would skip it.
        if self.skipping {
            self.relay(input, connection, header, false);
            if std::mem::take(&mut self.names_first) {
                // Its own error it was, and it ends what came before.
                forward(connection, &bare(client::SYNC), Cause::Sync);
                self.complete = true;
            }
            return Ok(true);
        }
        if header.kind == client::QUERY {
            self.session.names.forget_unnamed();
        }
        if header.kind == client::QUERY && header.length <= STATEMENT_BYTES {
            if header.length > input.len() {
                return Ok(false);
            }
            let text = input[Header::BYTES..header.length].strip_suffix(&[0]).unwrap_or_default();
            let text = std::str::from_utf8(text).map_err(|_| malformed("a text that is not UTF-8"))?;
            let made = self.session.escapes.then(|| standardized(text)).flatten();
            let text = made.as_ref().map_or(text, |made| &*made.text);
            if let Some(frame) = self.session.renamed_query(text) {
                return Ok(self.feed_by_name(input, connection, (header, &frame)));
            }
            let checked = self.session.check_query(text, self.shard);
            match checked.and_then(|effects| self.check_late(effects)) {
                Ok(effects) => {
                    if effects.iter().any(|effect| matches!(effect, Effect::Discard | Effect::ForgetStatements)) {
                        connection.forget_statements();
                        self.session.names.mark();
                        self.forgets = true;
                    }
                    self.effects.extend(effects);
                }
                Err(error) => {
                    input.advance(header.length);
                    self.refuse(&error, connection);
                    // A Query ends what came before it also where it fails.
                    forward(connection, &bare(client::SYNC), Cause::Sync);
                    self.complete = true;
                    return Ok(true);
                }
            }
        } else if self.session.snapshot.database.is_sharded() {
            return Err(malformed("a function call or a long query within a pipeline"));
        }
        self.relay_query(input, connection, header);
        Ok(true)
    }

    /// What a later Query names, the server must know before it comes.
    fn feed_by_name(
        &mut self,
        input: &mut BytesMut,
        connection: &mut Connection,
        (header, frame): (Header, &[u8]),
    ) -> bool {
        let Some(by_name) = self.session.by_name.take() else { return false };
        self.ensure_named(&by_name, connection);
        self.session.by_name = Some(Box::default());
        self.session.make_way(&by_name, connection);
        self.session.by_name = Some(by_name);
        self.names_first = !connection.owed.is_empty();
        if self.names_first {
            self.waiting = true;
            return self.wait(connection);
        }
        input.advance(header.length);
        put_in_front(input, frame);
        let text = std::str::from_utf8(&frame[Header::BYTES..frame.len() - 1]).unwrap_or_default();
        // There is one server only.
        self.effects.extend(self.session.check_query(text, self.shard).unwrap_or_default());
        self.relay_query(input, connection, Header { kind: client::QUERY, length: frame.len() });
        true
    }

    /// The server answers what it was sent, so that the next message can be understood.
    fn wait(&mut self, connection: &mut Connection) -> bool {
        if !self.asked {
            put_bare(&mut connection.channel.output, client::FLUSH);
            self.asked = true;
        }
        false
    }

    /// The server ends its session when it has done everything before.
    fn leave(&mut self, input: &mut BytesMut, connection: &mut Connection, header: Header) {
        self.relay(input, connection, header, true);
        self.leaves = true;
        self.complete = true;
    }

    /// What comes behind a Bind as a rule, and goes on as it is: in one piece.
    fn feed_plain(&mut self, input: &mut BytesMut, connection: &mut Connection) {
        if self.skipping || self.passing > 0 || self.held.is_some() || self.naming.is_some() {
            return;
        }
        let mut end = 0;
        while let Some(cause) = self.steps.as_slice().first().and_then(plain_cause)
            && let Ok(Some(header)) = Header::whole(&input[end..])
        {
            if self.counts_numbers && !self.keeps_numbers(&cause, &input[end + Header::BYTES..end + header.length]) {
                break;
            }
            end += header.length;
            self.complete = cause == Cause::Sync;
            connection.owed.push(cause, Payee::Client);
            self.steps.next();
        }
        connection.channel.output.extend_from_slice(&input[..end]);
        input.advance(end);
    }

    /// `false`: an Execute with this body needs a Describe in front.
    fn keeps_numbers(&mut self, cause: &Cause, body: &[u8]) -> bool {
        match cause {
            Cause::Execute => self.portals.may_execute(body),
            Cause::DescribePortal => {
                self.portals.describe(body);
                true
            }
            _ => true,
        }
    }

    /// What a message does that came after the unit's way was chosen: no COPY whose columns nobody has looked at.
    fn check_late(&self, effects: Vec<Effect>) -> Result<Vec<Effect>, Error> {
        match self.counts_numbers && effects.contains(&Effect::Copies) {
            true => Err(copy_comes_late()),
            false => Ok(effects),
        }
    }

    fn feed_step(&mut self, input: &mut BytesMut, connection: &mut Connection, header: Header) {
        let frame = &input[..header.length];
        let held = self.held.take();
        self.has_looked = held.is_some();
        if self.has_looked {
            self.note_descriptions(connection);
        }
        let step = held.or_else(|| self.steps.next());
        if !self.skipping || header.kind == client::SYNC {
            let step = step.unwrap_or_else(|| self.digest(header.kind, &frame[Header::BYTES..]));
            self.send(step, frame, connection);
        }
        if self.held.is_none() {
            input.advance(header.length);
        }
    }

    /// A Bind with parameters longer than is held: its names are at the front, the rest is sent on as it comes.
    fn feed_long_bind(
        &mut self,
        input: &mut BytesMut,
        connection: &mut Connection,
        header: Header,
    ) -> Result<bool, Error> {
        if input.len() < BUFFER_BYTES {
            return Ok(false);
        }
        let known = &input[Header::BYTES..];
        let (portal, name) = Bind::names(known)?;
        let (portal, named) = (portal.to_owned(), !name.is_empty());
        let behind = known.len() - Bind::after_names(known)?.len();
        match self.digest_long_bind(known) {
            Step::Bind { prepared, .. } => {
                self.ensure(&prepared, named, connection);
                let name = self.name_of(&prepared, named);
                let rest = header.length - Header::BYTES - behind;
                let length = 4 + portal.len() + 1 + name.len() + 1 + rest;
                let out = &mut connection.channel.output;
                out.put_u8(client::BIND);
                out.put_u32(u32::try_from(length).expect("a message is below 1 GiB"));
                put_text(out, &portal);
                put_text(out, &name);
                connection.owed.push(Cause::Bind, Payee::Client);
                input.advance(Header::BYTES + behind);
                self.relay(input, connection, Header { kind: client::BIND, length: rest }, true);
            }
            Step::Refused(error) => {
                self.refuse(&error, connection);
                self.relay(input, connection, header, false);
            }
            _ => unreachable!("a Bind is digested to one of these"),
        }
        Ok(true)
    }
}

impl Unit for Carried<'_> {
    fn feed(&mut self, input: &mut BytesMut, connection: &mut Connection) -> Result<bool, Error> {
        loop {
            if self.passing > 0 {
                self.pass(input, connection);
            }
            let done = self.complete && !connection.copying_in;
            let full = connection.channel.output.len() >= BUFFER_BYTES;
            if self.passing > 0 || done || full {
                return Ok(self.complete && self.passing == 0);
            }
            let Some(header) = Header::read(input)? else { return Ok(self.complete) };
            if connection.copying_in {
                self.waiting = false;
                self.feed_copy(input, connection, header)?;
            } else if self.feed_one(input, connection, header)? {
                self.feed_plain(input, connection);
            } else {
                return Ok(false);
            }
        }
    }

    fn waits(&self) -> bool {
        self.waiting
    }

    fn asks(&mut self) {
        self.session.client.is_to_write();
    }

    fn has_asked(&mut self, connection: &Connection) {
        if self.session.client.has_written() {
            cancel_late(connection);
        }
    }

    fn parameter(&mut self, name: &str, value: &str) -> bool {
        self.heard.push((name.to_owned(), value.to_owned()));
        self.session.hear(name, value)
    }

    fn described(&mut self, kind: u8, body: &[u8], oids: Option<&Oids>) {
        let described = self.describing.as_mut().and_then(|describing| describing.hear(kind, body, oids));
        if let Some((name, description)) = described {
            self.session.names.tell(&name, description);
        }
    }

    fn failed(&mut self, body: &[u8], fault: Fault) -> Option<BytesMut> {
        if !self.failed {
            self.trouble = trouble_of(body, fault);
        }
        self.failed = true;
        // What comes before the Sync, the server would skip without an answer.
        self.skipping |= !self.complete;
        self.session.meter.failed(body);
        // As many formats as the statement had columns. The server's copy was made after they had changed.
        if self.reuses
            && fault == Fault::Use
            && error_field(body, b'M').is_some_and(|message| message.contains("result formats but query has"))
        {
            return Some(BytesMut::from(&columns_changed()[..]));
        }
        self.session.in_own_words(body)
    }

    fn ends(&self) -> Option<Error> {
        self.session.client.is_terminated().then(terminated)
    }

    fn idles(&mut self, waker: &Waker) -> Option<Error> {
        self.session.client.waits(waker);
        self.ends()
    }

    fn hopes(&self) -> bool {
        self.trouble.is_some()
    }

    fn reopen(&mut self) {
        self.complete = false;
    }

    fn noticed(&mut self, body: &[u8]) -> bool {
        let stranger = process_in(body).filter(|_| self.signals);
        self.strangers.extend(stranger);
        let client = stranger.and_then(|process| self.session.station.shared.registry.find(process));
        client.is_none_or(|client| !self.session.may_signal(&client))
    }

    fn own_number(&self) -> i32 {
        self.session.client.number()
    }

    fn wants_notification(&self, body: &[u8]) -> bool {
        (self.listens || self.session.pinned.is_some()) && !self.session.is_told_elsewhere(body)
    }
}

/// Tells the server of a CancelRequest that it has slept through.
#[cold]
fn cancel_late(connection: &Connection) {
    let target = Arc::clone(connection.target());
    target.announce();
    tokio::spawn(async move {
        if let Err(cause) = target.cancel().await {
            tracing::debug!(%cause, "cancel request");
        }
    });
}

/// The number in the server's warning that it has no such process, whatever its language.
fn process_in(body: &[u8]) -> Option<i32> {
    let message = error_field(body, b'M').filter(|_| error_field(body, b'C') == Some("01000"))?;
    let digits = message.split(|letter: char| !letter.is_ascii_digit());
    digits.filter(|digits| !digits.is_empty()).find_map(|digits| digits.parse().ok())
}

/// Messages that mean something else after an error, or while the server waits for copy data.
fn is_ahead(kind: u8) -> bool {
    matches!(kind, client::QUERY | client::FUNCTION_CALL | client::COPY_DATA | client::COPY_DONE | client::COPY_FAIL)
}

fn plain_cause(step: &Step) -> Option<Cause> {
    match step {
        Step::DescribePortal => Some(Cause::DescribePortal),
        Step::Execute => Some(Cause::Execute),
        Step::Sync => Some(Cause::Sync),
        _ => None,
    }
}
