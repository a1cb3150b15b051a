//! PREPARE, EXECUTE and DEALLOCATE as SQL. The client's names stand for statements that all sessions share, as those
//! of the extended protocol do: a text that names them is sent with the server's names in their place.

use std::ops::Range;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::Session;
use super::carry::Stopped;
use super::effects::{self, Effect};
use super::prepared::{Kin, Prepared};
use super::run::End;
use super::transaction::{Open, Transaction};
use crate::backend::{Anew, Connection, PREFIX, statement_name};
use crate::error::Error;
use crate::statement::{Naming, Standardized, Values, prepared_names};
use crate::wire::frame::{Header, client, put, put_in_front, server};
use crate::wire::message::put_query;
use crate::wire::{Channel, Status};

/// What a text names of the client's statements.
#[derive(Default)]
pub(super) struct ByName {
    /// Those that the server must know, with the numbers that they are named by.
    pub needs: Vec<(u64, Arc<Prepared>)>,
    /// What PREPARE makes, and the client's names.
    gives: Vec<(Box<str>, u64, Arc<Prepared>)>,
    /// The client's names that DEALLOCATE ends.
    ends: Vec<(Box<str>, u64)>,
    /// Names of the server's that are longer than the client's: where they end, in characters from 1, and by how much.
    shifts: Vec<(usize, isize)>,
    /// What PREPARE has made so far, in this unit.
    made: Vec<u64>,
    /// DEALLOCATE ALL or DISCARD ALL was bound.
    forgets: bool,
    /// Where that, or the last PREPARE, was bound to.
    portal: Box<str>,
    /// PREPARE or DEALLOCATE is one message among others.
    among: bool,
    /// The statements are only to be shown, for this text of the client's.
    listed: Option<Box<str>>,
}

impl ByName {
    /// Of a text that shows these statements.
    pub(super) fn listing(text: &str, needs: Vec<(u64, Arc<Prepared>)>, shifts: Vec<(usize, isize)>) -> Self {
        Self { needs, shifts, listed: Some(Box::from(text)), ..Self::default() }
    }

    pub(super) fn is_listing(&self) -> bool {
        self.listed.is_some()
    }

    pub(super) fn listed(&self) -> Option<&str> {
        self.listed.as_deref()
    }

    pub(super) fn gives_some(&self) -> bool {
        !self.gives.is_empty()
    }

    /// Which statements the server has is not known, if the unit failed.
    pub(super) fn leaves_doubt(&self) -> bool {
        self.among
    }
}

impl Session {
    /// A Query at the front of the input that names prepared statements: carried out with the server's names.
    pub(super) async fn serve_by_name(&mut self, client: &mut Channel, header: Header) -> Result<(), End> {
        let frame = client.input.split_to(header.length);
        let text = std::str::from_utf8(&frame[Header::BYTES..header.length - 1]).unwrap_or_default();
        let sent = match self.rename(text) {
            Some((sent, by_name)) => {
                self.by_name = Some(Box::new(by_name));
                sent
            }
            None => text.to_owned(),
        };
        let (entry, literals) = self.station.resolve(&sent);
        let planned = entry.extra.get(&entry.analysis, &self.snapshot, &self.search_path);
        let checked = self.check_block(&entry.analysis);
        let decided = checked.and_then(|()| self.decide_query(&sent, &entry.analysis, &literals, &planned));
        match decided {
            Ok(decided) => {
                let mut query = BytesMut::new();
                put_query(&mut query, &sent);
                put_in_front(&mut client.input, &query);
                self.relay_or_tell(client, decided, Header { kind: client::QUERY, length: query.len() }).await
            }
            Err(error) => {
                self.tell(client, &error.into());
                Ok(())
            }
        }
    }

    /// The Query at the front of the input by a text that says the same. Errors speak of places in the client's own.
    pub(super) async fn serve_standardized(
        &mut self,
        client: &mut Channel,
        header: Header,
        made: Standardized,
    ) -> Result<(), End> {
        self.by_name = Some(Box::new(ByName { shifts: made.shifts, ..ByName::default() }));
        self.serve_instead(client, header, &made.text).await
    }

    /// A Query behind messages of the extended protocol, with the server's names.
    pub(super) fn renamed_query(&mut self, text: &str) -> Option<BytesMut> {
        if self.snapshot.database.is_sharded() || !self.station.resolve(text).0.analysis.names_prepared {
            return None;
        }
        let (sent, by_name) = self.rename(text)?;
        let among = !by_name.gives.is_empty() || !by_name.ends.is_empty();
        self.by_name = Some(Box::new(ByName { among, ..by_name }));
        let mut frame = BytesMut::new();
        put_query(&mut frame, &sent);
        Some(frame)
    }

    /// A text with the server's names of prepared statements; `None`: it names none that is known.
    pub(super) fn rename(&self, text: &str) -> Option<(String, ByName)> {
        let (mut by_name, mut sent, mut from) = (ByName::default(), String::with_capacity(text.len() + 16), 0);
        let found = prepared_names(text);
        let is_alone = found.len() == 1 && self.station.resolve(text).0.analysis.statements.len() == 1;
        for named in found {
            let known = self.known_by(&named.name);
            let number = match (known, named.naming) {
                (Some(prepared), naming) => {
                    let number = prepared.number ^ self.variant();
                    if naming == Naming::Ends {
                        by_name.ends.push((Box::from(&*named.name), number));
                    }
                    by_name.needs.push((number, prepared));
                    number
                }
                // Among others, it stays with the connection.
                (None, Naming::Makes(body)) if is_alone => {
                    let prepared = self.made_by_sql(text, &named.place, &text[body]);
                    let number = prepared.number ^ self.variant();
                    by_name.gives.push((Box::from(&*named.name), number, prepared));
                    number
                }
                _ => continue,
            };
            sent.push_str(&text[from..named.place.start]);
            from = named.place.end;
            by_name.shifts.push(push_name(&mut sent, number, &text[named.place]));
        }
        sent.push_str(&text[from..]);
        (from > 0).then_some((sent, by_name))
    }

    /// The statement that a PREPARE of this text makes of `body`, the client's name at this place.
    pub(super) fn made_by_sql(&self, text: &str, place: &Range<usize>, body: &str) -> Arc<Prepared> {
        let sql = format!("{}\0{}", &text[..place.start], &text[place.end..]);
        let body = body.as_bytes();
        self.station.shared.interner.intern_by_sql(self.snapshot.epoch, &sql, || (body, self.analysed(body)))
    }

    /// A text that names one statement, with the server's name of this number in the place of the client's; what is said
    /// of it is told in the client's words.
    pub(super) fn renamed_to(&mut self, text: &str, place: &Range<usize>, to: (&str, u64, &Arc<Prepared>)) -> String {
        let (name, number, prepared) = to;
        let mut sent = text[..place.start].to_owned();
        let shifts = vec![push_name(&mut sent, number, &text[place.clone()])];
        sent.push_str(&text[place.end..]);
        let gives = vec![(Box::from(name), number, Arc::clone(prepared))];
        self.by_name = Some(Box::new(ByName { gives, shifts, ..ByName::default() }));
        sent
    }

    fn known_by(&self, name: &str) -> Option<Arc<Prepared>> {
        let coming = self.by_name.iter().flat_map(|by_name| &by_name.gives).find(|(given, ..)| **given == *name);
        let coming = coming.map(|(.., prepared)| prepared);
        coming.or_else(|| self.names.find(name).filter(|_| !name.is_empty())).cloned()
    }

    /// The statement of a Parse whose text names others, if they are known.
    pub(super) fn renamed(&mut self, prepared: &Prepared) -> Option<Arc<Prepared>> {
        if self.snapshot.database.is_sharded() {
            return None;
        }
        let (sent, by_name) = self.rename(prepared.readable()?)?;
        let analysed = self.analysed(sent.as_bytes());
        let types = Arc::clone(&prepared.types);
        let interner = &self.station.shared.interner;
        let renamed = interner.make_kin(sent.as_bytes(), types, analysed, Kin::Names(by_name));
        self.expect_errors(&renamed);
        Some(renamed)
    }

    /// A Bind of what [`Session::renamed`] gave.
    pub(super) fn note_bound(&mut self, prepared: &Prepared, portal: &str) {
        self.expect_errors(prepared);
        if prepared.forgets_all() {
            let noted = self.by_name.get_or_insert_default();
            noted.portal = Box::from(portal);
            noted.forgets = true;
        }
        if let (Some(by_name), Some(noted)) = (prepared.names(), &mut self.by_name) {
            noted.portal = Box::from(portal);
            noted.among |= !by_name.gives.is_empty() || !by_name.ends.is_empty();
            noted.gives.extend(by_name.gives.iter().cloned());
            noted.ends.extend(by_name.ends.iter().cloned());
        }
    }

    /// A PREPARE is about to be executed: the server's copy for other clients is no reason to refuse it.
    pub(super) fn make_way(&mut self, by_name: &ByName, connection: &mut Connection) {
        for (name, number, _) in &by_name.gives {
            let is_new = self.names.before(name).is_none();
            let made = &mut self.by_name.get_or_insert_default().made;
            if is_new && !made.contains(number) {
                if connection.knows(*number) {
                    connection.close_statement(*number);
                }
                connection.expect(*number);
                made.push(*number);
            }
        }
    }

    /// Another statement is bound to a portal: what was bound to it before is not executed any more.
    pub(super) fn note_rebound(&mut self, portal: &str) {
        if let Some(by_name) = self.by_name.as_mut().filter(|by_name| *by_name.portal == *portal) {
            by_name.gives.clear();
            by_name.forgets = false;
        }
    }

    /// An Execute: what follows may name what it makes.
    pub(super) fn note_executed(&mut self, portal: &str) {
        if self.by_name.as_ref().is_none_or(|by_name| *by_name.portal != *portal) {
            return;
        }
        if self.by_name.as_mut().is_some_and(|by_name| std::mem::take(&mut by_name.forgets)) {
            self.names.take_all();
        }
        let given = self.by_name.iter_mut().flat_map(|by_name| by_name.gives.drain(..));
        given.for_each(|(name, _, prepared)| self.names.give(&name, prepared));
    }

    /// The client's name of a statement, by itself or by the server's.
    pub(super) fn own_name(&self, name: &str) -> Option<String> {
        if !name.is_empty() && self.names.find(name).is_some() {
            return Some(name.to_owned());
        }
        let number: u64 = name.strip_prefix(PREFIX)?.parse().ok()?;
        self.names.name_of(|prepared| prepared.number ^ self.variant() == number).map(str::to_owned)
    }

    fn expect_errors(&mut self, prepared: &Prepared) {
        if let Some(by_name) = prepared.names() {
            self.by_name.get_or_insert_default().shifts.clone_from(&by_name.shifts);
        }
    }

    /// Adds what the statements that a text executes do.
    pub(super) fn add_effects_of_named(&self, by_name: &ByName, effects: &mut Vec<Effect>) {
        for (_, prepared) in by_name.needs.iter().filter(|_| !by_name.is_listing()) {
            let planned = prepared.plans.get(&prepared.analysis, &self.snapshot, &self.search_path);
            for (statement, template) in prepared.analysis.statements.iter().zip(&planned.templates) {
                effects::of(statement, None::<&Values<'_>>, effects);
                effects::of_template(template, effects);
            }
        }
    }

    /// Before a text is sent: its server knows what it names.
    pub(super) async fn make_named_known(&mut self, mut open: Box<Open>) -> Result<Box<Open>, Stopped> {
        let Some(by_name) = self.by_name.take() else { return Ok(open) };
        let limit = self.snapshot.topology.process.prepared_statements_limit;
        let made = make_known(&mut open.lent.connection, &by_name, limit).await;
        self.by_name = Some(by_name);
        match made {
            Ok(None) => Ok(open),
            Ok(Some(body)) if open.lent.connection.status == Status::Idle => {
                self.settle(open, &[], true, false);
                Err(Stopped::Server(body))
            }
            Ok(Some(body)) => {
                self.transaction = Transaction::Open(open);
                Err(Stopped::Server(body))
            }
            Err(error) => {
                let was_in_block = open.begun.is_some();
                self.lose(*open, was_in_block, &[]);
                Err(error.into())
            }
        }
    }

    /// PREPARE or DEALLOCATE has succeeded.
    pub(super) fn take_named(&mut self, connection: &mut Connection) {
        let Some(by_name) = &mut self.by_name else { return };
        for (name, number, prepared) in by_name.gives.drain(..) {
            connection.expect(number);
            self.names.give(&name, prepared);
        }
        for (name, number) in by_name.ends.drain(..) {
            connection.forget(number);
            self.names.deallocate(&name);
        }
    }

    /// An ErrorResponse that speaks of a statement by the server's name for it, or of a place in a text that was sent with
    /// such names, as the client must read it. `None`: it may read it as it is.
    pub(super) fn in_own_words(&self, body: &[u8]) -> Option<BytesMut> {
        let shifts = self.by_name.as_ref().map_or(&[][..], |by_name| &by_name.shifts);
        if shifts.is_empty() && memchr::memmem::find(body, PREFIX.as_bytes()).is_none() {
            return None;
        }
        let mut frame = BytesMut::new();
        put(&mut frame, server::ERROR, |out| {
            for field in body.split(|&byte| byte == 0).filter(|field| !field.is_empty()) {
                match field {
                    [b'P', place @ ..] => out.put_slice(&place_before(place, shifts)),
                    field => out.put_slice(&self.with_own_name(field).unwrap_or_else(|| field.to_vec())),
                }
                out.put_u8(0);
            }
            out.put_u8(0);
        });
        Some(frame)
    }

    fn with_own_name(&self, field: &[u8]) -> Option<Vec<u8>> {
        let start = memchr::memmem::find(field, PREFIX.as_bytes())?;
        let digits = start + PREFIX.len();
        let end = digits + field[digits..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number: u64 = std::str::from_utf8(&field[digits..end]).ok()?.parse().ok()?;
        let given = self.by_name.iter().flat_map(|by_name| &by_name.gives).find(|(_, given, _)| *given == number);
        let name = match given {
            Some((name, ..)) => name,
            None => self.names.name_of(|prepared| prepared.number ^ self.variant() == number)?,
        };
        Some([&field[..start], name.as_bytes(), &field[end..]].concat())
    }
}

/// Puts the server's name of this number in the place of what was `written`. Gives where it ends, in characters from 1, and
/// how much longer it is.
fn push_name(sent: &mut String, number: u64, written: &str) -> (usize, isize) {
    let name = statement_name(number);
    sent.push_str(&name);
    (sent.chars().count() + 1, name.len().cast_signed() - written.chars().count().cast_signed())
}

/// The connection's server has the statement under this number then, or has said why not.
pub(super) async fn make_one_known(
    connection: &mut Connection,
    (number, prepared): (u64, &Prepared),
    limit: usize,
) -> Result<Result<(), Bytes>, Error> {
    if connection.knows(number) {
        return Ok(Ok(()));
    }
    connection.make_room(limit);
    let made = match prepared.sql(number) {
        Some(sql) => connection.run(&sql).await?,
        None => {
            let anew = Anew { number, text: &prepared.text, types: &prepared.types };
            connection.make_anew(&[anew], &[], &mut |_, _| {}).await?.map(|_| ())
        }
    };
    if made.is_ok() {
        connection.expect(number);
    }
    Ok(made)
}

/// Gives the body of a server's error.
async fn make_known(connection: &mut Connection, by_name: &ByName, limit: usize) -> Result<Option<Bytes>, Error> {
    for (number, prepared) in &by_name.needs {
        if let Err(body) = make_one_known(connection, (*number, prepared), limit).await?
            // What a table is gone of cannot be shown.
            && !(by_name.is_listing() && connection.status == Status::Idle)
        {
            return Ok(Some(body));
        }
    }
    for (_, number, _) in &by_name.gives {
        if connection.knows(*number) {
            connection.make_anew(&[], &[*number], &mut |_, _| {}).await?.ok();
        }
        connection.make_room(limit);
    }
    Ok(None)
}

/// The field that says at which character of the text an error is, by the text as the client sent it.
fn place_before(place: &[u8], shifts: &[(usize, isize)]) -> Vec<u8> {
    match std::str::from_utf8(place).ok().and_then(|place| place.parse::<usize>().ok()) {
        None => [b"P", place].concat(),
        Some(at) => {
            let longer: isize = shifts.iter().filter(|(end, _)| *end <= at).map(|(_, by)| by).sum();
            format!("P{}", at.saturating_add_signed(-longer)).into_bytes()
        }
    }
}
