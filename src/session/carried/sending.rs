//! What is sent for each message of the extended protocol: under the server's name of its statement, and behind whatever
//! the server must know before.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::Carried;
use crate::backend::{Cause, Connection, Looks, Payee, StatementName, statement_name};
use crate::error::Error;
use crate::session::again::Trouble;
use crate::session::by_name::ByName;
use crate::session::digest::Step;
use crate::session::names::Told;
use crate::session::portals::portal_of;
use crate::session::prepared::Prepared;
use crate::session::replan::columns_changed;
use crate::wire::frame::{Header, client, put, put_text, server, take_str};
use crate::wire::message::{put_bare, put_error, put_execute, put_named};
use crate::wire::{Bind, Severity, Status, wants_binary};

impl Carried<'_> {
    pub(super) fn send(&mut self, step: Step, frame: &[u8], connection: &mut Connection) {
        let body = &frame[Header::BYTES..];
        match step {
            Step::Parse { prepared, named } => {
                self.parses = true;
                self.send_parse(&prepared, named, frame, connection);
            }
            Step::Bind { prepared, named, told } => self.send_bind(prepared, (named, told), frame, connection),
            Step::DescribeStatement { prepared, .. } if prepared.is_control() => {
                let mut reply = vec![server::PARAMETER_DESCRIPTION, 0, 0, 0, 6, 0, 0];
                reply.extend_from_slice(&bare(server::NO_DATA));
                give(connection, &reply, false);
            }
            Step::DescribeStatement { prepared, named } => {
                self.ensure(&prepared, named, connection);
                let name = body.get(1..).map(|mut name| take_str(&mut name).unwrap_or_default());
                self.describes(self.number(&prepared), name.unwrap_or_default());
                put(&mut connection.channel.output, client::DESCRIBE, |out| {
                    out.put_u8(b'S');
                    put_text(out, &self.name_of(&prepared, named));
                });
                connection.owed.push(Cause::DescribeStatement, Payee::Client);
            }
            Step::CloseStatement => give(connection, &bare(server::CLOSE_COMPLETE), true),
            Step::DescribePortal => {
                if self.counts_numbers {
                    self.portals.describe(body);
                }
                forward(connection, frame, Cause::DescribePortal);
            }
            Step::ClosePortal => forward(connection, frame, Cause::Close),
            Step::Execute => {
                let portal = |naming: &str| body.starts_with(naming.as_bytes()) && body.get(naming.len()) == Some(&0);
                let naming = self.naming.take_if(|(naming, _)| portal(naming));
                if self.counts_numbers && !self.portals.may_execute(body) {
                    let name = portal_of(body).unwrap_or_default();
                    put_named(&mut connection.channel.output, client::DESCRIBE, b'P', name);
                    connection.owed.push(Cause::DescribePortal, Payee::Nobody);
                    self.portals.forget();
                }
                if let Some((_, true)) = naming {
                    connection.forget_statements();
                    self.forgets = true;
                }
                forward(connection, frame, if naming.is_some() { Cause::ExecuteNaming } else { Cause::Execute });
            }
            Step::Flush if self.prepares => {
                // The server is done: what is bound to its transaction comes with the next unit, if at all.
                put_bare(&mut connection.channel.output, client::SYNC);
                connection.owed.push(Cause::Sync, Payee::Nobody);
                self.complete = true;
            }
            Step::Flush => connection.channel.output.extend_from_slice(frame),
            Step::Sync => {
                forward(connection, frame, Cause::Sync);
                self.complete = true;
                self.skipping = false;
            }
            Step::Refused(error) => self.refuse(&error, connection),
            Step::Taken(error) => {
                // What the server has against the text comes first.
                let behind = memchr::memchr(0, body).unwrap_or(0);
                put(&mut connection.channel.output, client::PARSE, |out| out.extend_from_slice(&body[behind..]));
                connection.owed.push(Cause::Parse(None), Payee::Nobody);
                connection.unnamed = None;
                self.refuse(&error, connection);
            }
        }
    }

    /// Of a unit in which SQL names prepared statements.
    fn note_naming(&mut self, prepared: &Prepared, body: &[u8], connection: &mut Connection) {
        let portal = Bind::names(body).map_or("", |(portal, _)| portal);
        self.naming.take_if(|(naming, _)| **naming == *portal);
        if let Some(by_name) = prepared.names() {
            self.ensure_named(by_name, connection);
            self.session.make_way(by_name, connection);
        }
        let forgets = prepared.forgets_all();
        if forgets || prepared.names().is_some_and(ByName::gives_some) {
            self.naming = Some((Box::from(portal), forgets));
        }
    }

    pub(super) fn send_bind(
        &mut self,
        prepared: Arc<Prepared>,
        (named, told): (bool, Told),
        frame: &[u8],
        connection: &mut Connection,
    ) {
        if self.session.by_name.is_some() {
            self.note_naming(&prepared, &frame[Header::BYTES..], connection);
        }
        let body = &frame[Header::BYTES..];
        let looks = self.ensure(&prepared, named, connection);
        self.reuses |= named && !self.parses;
        if told.description != 0 && looks != Some(told.description) {
            match self.may_bind(&prepared, (looks, told, body), connection) {
                Some(true) => {}
                Some(false) => return self.refuse_changed(connection),
                None => {
                    self.held = Some(Step::Bind { prepared, named, told });
                    return;
                }
            }
        }
        let looks = match self.counts_numbers {
            false => None,
            true => match self.looks_for_bind(&prepared, named, body, connection) {
                Some(looks) => looks,
                None => {
                    self.held = Some(Step::Bind { prepared, named, told });
                    return;
                }
            },
        };
        let names_processes = prepared.analysis.names_processes;
        let made = names_processes.then(|| self.session.with_processes(body, &prepared.types)).flatten();
        let frame = made.as_deref().unwrap_or(frame);
        let body = &frame[Header::BYTES..];
        let out = &mut connection.channel.output;
        let start = out.len();
        if named {
            put_bind(out, body, &statement_name(self.number(&prepared)));
        } else {
            out.extend_from_slice(frame);
        }
        if self.counts_numbers {
            self.portals.bind(body, looks.as_ref().is_some_and(|looks| looks.plain));
            connection.number_bind(start, looks.as_ref().map_or(&prepared.types, |looks| &looks.parameters));
        }
        connection.owed.push(Cause::Bind, Payee::Client);
    }

    /// What the server's copy of a statement looks like, if that is known: it is where its values cannot be read without.
    /// `None`: the server is being asked.
    fn looks_for_bind(
        &mut self,
        prepared: &Prepared,
        named: bool,
        body: &[u8],
        connection: &mut Connection,
    ) -> Option<Option<Looks>> {
        let number = self.number(prepared);
        let looks = connection.looks(number).cloned();
        if looks.is_some() || self.has_looked {
            return Some(looks);
        }
        let waits = connection.has_unknown_values(body, &prepared.types);
        let is_asked = self.describing.as_ref().is_some_and(|describing| describing.expects(number));
        // Whoever binds it next should know whether its rows are to be described.
        if (waits || (named && wants_binary(body))) && !is_asked {
            self.describe(prepared, named, connection);
        }
        (!waits).then_some(looks)
    }

    fn send_parse(&self, prepared: &Prepared, named: bool, frame: &[u8], connection: &mut Connection) {
        let known = named && connection.knows(self.number(prepared));
        let given = match connection.status {
            // The server lets nothing pass but the end of the block.
            Status::Failed => prepared.is_control() && prepared.ends_block(),
            _ => prepared.is_control() || (known && !self.renamed),
        };
        if given {
            give(connection, &bare(server::PARSE_COMPLETE), true);
        } else if named {
            if known {
                connection.close_statement(self.number(prepared));
            }
            self.parse(prepared, named, Payee::Client, connection);
        } else if prepared.kin.is_some() || (connection.oids().is_some() && !prepared.types.is_empty()) {
            self.parse(prepared, named, Payee::Client, connection);
        } else {
            connection.take_unnamed(self.number(prepared));
            forward(connection, frame, Cause::Parse(None));
        }
    }

    /// The client was told what the statement looks like; the server's copy may look otherwise.
    /// `None`: the server is being asked.
    #[cold]
    fn may_bind(
        &mut self,
        prepared: &Prepared,
        (looks, told, bind): (Option<u32>, Told, &[u8]),
        connection: &mut Connection,
    ) -> Option<bool> {
        // Who wants each column in a format of its own counts on those that it was told.
        let counts = Bind::read(bind).is_ok_and(|bind| bind.result_formats.len() > 1);
        // It may ask again.
        let asks = |step: &Step| matches!(step, Step::DescribePortal | Step::DescribeStatement { .. });
        match looks.filter(|looks| *looks != 0) {
            _ if !counts && !told.firm && self.steps.as_slice().iter().any(asks) => Some(true),
            Some(_) => Some(false),
            None if self.has_looked => Some(true),
            None => {
                self.describe(prepared, true, connection);
                None
            }
        }
    }

    /// As PostgreSQL refuses a statement whose columns are not any more what they were. If it is the copy that is old,
    /// another attempt does better.
    fn refuse_changed(&mut self, connection: &mut Connection) {
        self.trouble = Some(Trouble::Outdated);
        self.refuse_with(columns_changed(), connection);
    }

    /// Asks what the server's copy of a statement looks like, that others who believe to know find out.
    fn describe(&mut self, prepared: &Prepared, named: bool, connection: &mut Connection) {
        put_named(&mut connection.channel.output, client::DESCRIBE, b'S', &self.name_of(prepared, named));
        connection.owed.push(Cause::DescribeStatement, Payee::Nobody);
        self.describes(self.number(prepared), "");
    }

    fn describes(&mut self, number: u64, name: &str) {
        self.describing.get_or_insert_default().expect(number, name);
    }

    /// Sends a Parse in front of what needs it, unless the server knows the statement: then gives what is known of its
    /// looks.
    pub(super) fn ensure(&self, prepared: &Prepared, named: bool, connection: &mut Connection) -> Option<u32> {
        let number = self.number(prepared);
        let known =
            if named { connection.description(number) } else { (connection.unnamed == Some(number)).then_some(0) };
        if known.is_none() {
            self.parse(prepared, named, Payee::Nobody, connection);
        }
        known
    }

    fn parse(&self, prepared: &Prepared, named: bool, payee: Payee, connection: &mut Connection) {
        if let Some(by_name) = prepared.names() {
            self.ensure_named(by_name, connection);
        }
        let number = self.number(prepared);
        if let Some(sql) = prepared.sql(number) {
            return self.prepare(&sql, number, connection);
        }
        if named {
            connection.make_room(self.session.snapshot.topology.process.prepared_statements_limit);
        } else {
            connection.take_unnamed(number);
        }
        let name = self.name_of(prepared, named);
        connection.put_parse(&name, &prepared.text, &prepared.types);
        connection.owed.push(Cause::Parse(named.then_some(number)), payee);
        if named {
            // The server executes in order: what follows may count on it, and an error skips what follows.
            connection.expect(number);
        }
    }

    /// What a text names is there before it.
    pub(super) fn ensure_named(&self, by_name: &ByName, connection: &mut Connection) {
        let limit = self.session.snapshot.topology.process.prepared_statements_limit;
        for (number, prepared) in &by_name.needs {
            if connection.knows(*number) {
                continue;
            }
            if let Some(sql) = prepared.sql(*number) {
                self.prepare(&sql, *number, connection);
                continue;
            }
            connection.make_room(limit);
            connection.put_parse(&statement_name(*number), &prepared.text, &prepared.types);
            connection.owed.push(Cause::Parse(Some(*number)), Payee::Nobody);
            connection.expect(*number);
        }
    }

    /// A PREPARE among messages of the extended protocol.
    fn prepare(&self, sql: &str, number: u64, connection: &mut Connection) {
        connection.make_room(self.session.snapshot.topology.process.prepared_statements_limit);
        connection.unnamed = None;
        connection.put_parse("", sql.as_bytes(), &[]);
        let out = &mut connection.channel.output;
        put(out, client::BIND, |out| out.put_bytes(0, 8));
        put_execute(out, "", 0);
        for cause in [Cause::Parse(None), Cause::Bind, Cause::Prepare(number)] {
            connection.owed.push(cause, Payee::Nobody);
        }
        connection.expect(number);
    }

    /// Of the statement under the session's settings.
    pub(super) fn number(&self, prepared: &Prepared) -> u64 {
        prepared.number ^ self.session.variant()
    }

    pub(super) fn name_of(&self, prepared: &Prepared, named: bool) -> StatementName {
        if named { statement_name(self.number(prepared)) } else { StatementName::new() }
    }

    /// Makes the server fail too, so that what the unit did before is undone, and gives the client our reason.
    pub(super) fn refuse(&mut self, error: &Error, connection: &mut Connection) {
        let mut reply = BytesMut::new();
        put_error(&mut reply, Severity::Error, error);
        self.refuse_with(reply.freeze(), connection);
    }

    fn refuse_with(&mut self, reply: Bytes, connection: &mut Connection) {
        put(&mut connection.channel.output, client::BIND, |out| {
            put_text(out, "");
            put_text(out, "pgweir refuses");
            out.put_bytes(0, 6);
        });
        connection.owed.push(Cause::Refusal(reply), Payee::Client);
        self.skipping = true;
        self.failed = true;
    }
}

/// The Bind of `body` with the server's name of the statement.
fn put_bind(out: &mut BytesMut, body: &[u8], name: &str) {
    put(out, client::BIND, |out| {
        let portal = memchr::memchr(0, body).map_or(0, |end| end + 1);
        let statement = memchr::memchr(0, &body[portal..]).map_or(body.len(), |end| portal + end + 1);
        out.extend_from_slice(&body[..portal]);
        put_text(out, name);
        out.extend_from_slice(&body[statement..]);
    });
}

pub(super) fn forward(connection: &mut Connection, frame: &[u8], cause: Cause) {
    connection.channel.output.extend_from_slice(frame);
    connection.owed.push(cause, Payee::Client);
}

/// `names`: the reply to a message that gave or took the name of a statement.
fn give(connection: &mut Connection, reply: &[u8], names: bool) {
    let reply = Bytes::copy_from_slice(reply);
    connection.owed.push(Cause::Given { reply, names }, Payee::Client);
}

pub(super) fn bare(kind: u8) -> Vec<u8> {
    let mut out = BytesMut::new();
    put_bare(&mut out, kind);
    out.to_vec()
}
