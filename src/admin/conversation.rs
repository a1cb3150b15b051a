//! The console's side of the protocol: simple queries, and the extended protocol that drivers speak.

use std::collections::HashMap;

use bytes::BytesMut;
use tracing::Instrument;

use super::command::{Command, parts};
use super::table::{Table, Value, put_values};
use super::{Console, MAX_COMMAND};
use crate::error::{Error, SqlState};
use crate::session::{Client, End, State};
use crate::topology::User;
use crate::wire::frame::{client as message, malformed, put, server, take_str, take_u32};
use crate::wire::message::{put_bare, put_command_complete, put_error, put_ready};
use crate::wire::{Bind, Channel, Severity, Status};

/// One client of the console.
struct Conversation<'c> {
    console: &'c Console,
    user: &'c User,
    client: &'c Client,
    statements: HashMap<String, Option<Command>>,
    portals: HashMap<String, Portal>,
    /// After an error: everything up to the Sync is dropped.
    skipping: bool,
    /// Drivers open transactions; what the console does is never undone.
    in_block: bool,
}

struct Portal {
    command: Option<Command>,
    formats: Vec<u16>,
    /// Rows that are still to be fetched, once it was executed.
    rows: Option<std::vec::IntoIter<Vec<Value>>>,
}

impl Console {
    /// Serves one user until it leaves.
    pub async fn run(&self, channel: &mut Channel, user: &User, client: &Client) -> End {
        let conversation = Conversation {
            console: self,
            user,
            client,
            statements: HashMap::new(),
            portals: HashMap::new(),
            skipping: false,
            in_block: false,
        };
        let span = tracing::debug_span!("console", user = user.name);
        conversation.run(channel).instrument(span).await
    }
}

impl Conversation<'_> {
    async fn run(mut self, channel: &mut Channel) -> End {
        let mut closing = self.console.shared.closing.clone();
        loop {
            self.client.become_(State::Idle);
            if let Err(cause) = channel.flush().await {
                return End::Gone(cause);
            }
            let frame = tokio::select! {
                frame = channel.frame(MAX_COMMAND) => frame,
                _ = closing.wait_for(|closing| *closing) => {
                    return End::Refused(Error::new(SqlState::SHUTTING_DOWN, "the proxy is shutting down"));
                }
            };
            self.client.become_(State::Active);
            match frame {
                Err(cause) => return End::Gone(cause),
                Ok(Err(error)) => return End::Refused(error),
                Ok(Ok(None | Some((message::TERMINATE, _)))) => return End::Left,
                Ok(Ok(Some((message::QUERY, body)))) => self.query(&body, channel).await,
                Ok(Ok(Some((message::SYNC, _)))) => self.sync(&mut channel.output),
                Ok(Ok(Some((message::FLUSH, _)))) => {}
                Ok(Ok(Some(_))) if self.skipping => {}
                Ok(Ok(Some((kind, body)))) => {
                    if let Err(error) = self.step(kind, &body, channel).await {
                        put_error(&mut channel.output, Severity::Error, &error);
                        self.skipping = true;
                    }
                }
            }
        }
    }

    async fn query(&mut self, mut body: &[u8], channel: &mut Channel) {
        let outcome = match take_str(&mut body) {
            Ok(text) => self.query_text(text, channel).await,
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            put_error(&mut channel.output, Severity::Error, &error);
        }
        put_ready(&mut channel.output, self.status());
    }

    async fn query_text(&mut self, text: &str, channel: &mut Channel) -> Result<(), Error> {
        let mut empty = true;
        for part in parts(text) {
            let Some(command) = Command::parse(part)? else { continue };
            empty = false;
            self.console.authorize(&command, self.user)?;
            if let Command::Show(topic) = &command {
                let table = (topic.table)(&self.console.shared);
                table.put_columns(&[], &mut channel.output);
                table.rows.iter().for_each(|row| put_values(row, &[], &mut channel.output));
            }
            self.carry_out(&command, channel).await?;
        }
        if empty {
            put_bare(&mut channel.output, server::EMPTY_QUERY);
        }
        Ok(())
    }

    async fn carry_out(&mut self, command: &Command, channel: &mut Channel) -> Result<(), Error> {
        let tag = self.console.carry_out(command, channel, self.client).await?;
        put_command_complete(&mut channel.output, tag);
        self.in_block = match tag {
            "BEGIN" => true,
            "COMMIT" | "ROLLBACK" => false,
            _ => self.in_block,
        };
        if let Command::Shutdown(wait) = command {
            // The answer goes out first: the end may be quick. Whoever gave the command may be gone already.
            let _ = channel.flush().await;
            // Nobody listens any more: the process is ending already.
            let _ = self.console.controls.shutdown.send(*wait);
        }
        Ok(())
    }

    fn sync(&mut self, out: &mut BytesMut) {
        self.skipping = false;
        if !self.in_block {
            self.portals.clear();
        }
        put_ready(out, self.status());
    }

    fn status(&self) -> Status {
        if self.in_block { Status::InTransaction } else { Status::Idle }
    }

    /// One message of the extended protocol.
    async fn step(&mut self, kind: u8, body: &[u8], channel: &mut Channel) -> Result<(), Error> {
        let out = &mut channel.output;
        match kind {
            message::PARSE => self.parse(body, out),
            message::BIND => self.bind(body, out),
            message::DESCRIBE => self.describe(body, out),
            message::EXECUTE => self.execute(body, channel).await,
            message::CLOSE => {
                let (what, name) = named(body)?;
                if what == b'S' {
                    drop(self.statements.remove(name))
                } else {
                    drop(self.portals.remove(name))
                }
                put_bare(out, server::CLOSE_COMPLETE);
                Ok(())
            }
            _ => Err(malformed("a message that the console does not know")),
        }
    }

    fn parse(&mut self, body: &[u8], out: &mut BytesMut) -> Result<(), Error> {
        let mut rest = body;
        let (name, text) = (take_str(&mut rest)?, take_str(&mut rest)?);
        let mut commands = parts(text);
        let (first, second) = (commands.next(), commands.next());
        if second.is_some() {
            return Err(Error::new(SqlState::SYNTAX, "cannot insert multiple commands into a prepared statement"));
        }
        let command = first.map_or(Ok(None), Command::parse)?;
        self.statements.insert(name.to_owned(), command);
        if self.statements.len() > MOST_STATEMENTS {
            return Err(Error::new(SqlState::TOO_LARGE, "too many prepared statements for the console"));
        }
        put_bare(out, server::PARSE_COMPLETE);
        Ok(())
    }

    fn bind(&mut self, body: &[u8], out: &mut BytesMut) -> Result<(), Error> {
        let bind = Bind::read(body)?;
        let command = self.statement(bind.statement)?.clone();
        let portal = Portal { command, formats: bind.result_formats.to_vec(), rows: None };
        self.portals.insert(bind.portal.to_owned(), portal);
        if self.portals.len() > MOST_STATEMENTS {
            return Err(Error::new(SqlState::TOO_LARGE, "too many portals for the console"));
        }
        put_bare(out, server::BIND_COMPLETE);
        Ok(())
    }

    fn describe(&self, body: &[u8], out: &mut BytesMut) -> Result<(), Error> {
        let (what, name) = named(body)?;
        let (command, formats) = match what {
            b'S' => (self.statement(name)?, &[][..]),
            _ => {
                let portal = self.portals.get(name).ok_or_else(|| unknown_portal(name))?;
                (&portal.command, &portal.formats[..])
            }
        };
        if what == b'S' {
            put(out, server::PARAMETER_DESCRIPTION, |body| body.extend_from_slice(&[0, 0]));
        }
        match command {
            Some(Command::Show(topic)) => self.table(topic).put_columns(formats, out),
            _ => put_bare(out, server::NO_DATA),
        }
        Ok(())
    }

    async fn execute(&mut self, body: &[u8], channel: &mut Channel) -> Result<(), Error> {
        let mut rest = body;
        let (name, limit) = (take_str(&mut rest)?, take_u32(&mut rest)?);
        let portal = self.portals.get(name).ok_or_else(|| unknown_portal(name))?;
        let Some(command) = portal.command.clone() else {
            put_bare(&mut channel.output, server::EMPTY_QUERY);
            return Ok(());
        };
        self.console.authorize(&command, self.user)?;
        if let Command::Show(topic) = &command {
            let fresh = self.table(topic).rows.into_iter();
            let portal = self.portals.get_mut(name).expect("it was there above");
            let rows = portal.rows.get_or_insert(fresh);
            let most = if limit == 0 { usize::MAX } else { limit as usize };
            rows.take(most).for_each(|row| put_values(&row, &portal.formats, &mut channel.output));
            if rows.len() > 0 {
                put_bare(&mut channel.output, server::PORTAL_SUSPENDED);
                return Ok(());
            }
        }
        self.carry_out(&command, channel).await
    }

    fn table(&self, topic: &super::show::Topic) -> Table {
        (topic.table)(&self.console.shared)
    }

    fn statement(&self, name: &str) -> Result<&Option<Command>, Error> {
        let missing =
            || Error::new(SqlState::UNKNOWN_STATEMENT, format!("prepared statement \"{name}\" does not exist"));
        self.statements.get(name).ok_or_else(missing)
    }
}

/// What Describe and Close name: `S`, a statement, or `P`, a portal.
fn named(body: &[u8]) -> Result<(u8, &str), Error> {
    let (&what, mut rest) = body.split_first().ok_or_else(|| malformed("no name"))?;
    match what {
        b'S' | b'P' => Ok((what, take_str(&mut rest)?)),
        _ => Err(malformed("neither a statement nor a portal")),
    }
}

fn unknown_portal(name: &str) -> Error {
    Error::new(SqlState::UNKNOWN_PORTAL, format!("portal \"{name}\" does not exist"))
}

/// Of one client.
const MOST_STATEMENTS: usize = 1000;
