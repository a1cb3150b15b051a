//! Units that need no server: their replies, in either protocol.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::Session;
use super::control::Answer;
use super::decide::block_has_failed;
use super::digest::{Step, Steps};
use super::names::Done;
use super::prepared::Prepared;
use super::transaction::Transaction;
use super::unit::Frame;
use crate::error::{Error, SqlState};
use crate::statement::{Kind, SettingControl, Statement, Tokens, bytes_of, token_ranges};
use crate::wire::frame::{put, server, take_str};
use crate::wire::message::{
    put_bare, put_command_complete, put_error, put_ready, put_text_columns, put_text_row, put_warning,
};
use crate::wire::{Bind, Severity};

impl Session {
    /// Answers a text of one statement, if no server is needed for it.
    pub(super) fn answer_query(&mut self, text: &str, statement: &Statement, out: &mut BytesMut) -> bool {
        let Some(answer) = self.answer_statement(text, statement) else { return false };
        match answer {
            Ok(answer) => self.put_answer(out, &answer, true),
            Err(error) => self.put_failure(out, &error),
        }
        put_ready(out, self.transaction.status());
        true
    }

    pub(super) fn answer_statement(&mut self, text: &str, statement: &Statement) -> Option<Result<Answer, Error>> {
        match statement.kind {
            Kind::ExplainRoute { inner } => Some(self.explain_route(slice(text, inner))),
            Kind::Transaction(_) | Kind::Setting(_) | Kind::Deallocate { .. } => {
                self.answer(statement, slice(text, statement.tokens))
            }
            _ => None,
        }
    }

    /// Answers an extended unit that is complete and asks no server for anything.
    pub(super) fn answer_steps(&mut self, steps: Steps, (frames, input): (&[Frame], &[u8]), out: &mut BytesMut) {
        let mut bound = self.portal.take().map(|portal| *portal);
        let (mut named, mut failed) = (0, false);
        for (step, frame) in steps.into_iter().zip(frames) {
            match step {
                Step::Sync => put_ready(out, self.transaction.status()),
                _ if failed => {}
                step => {
                    named += usize::from(match step {
                        Step::Parse { .. } | Step::CloseStatement => true,
                        Step::Execute => bound.as_ref().is_some_and(|bound| bound.prepared.forgets_all()),
                        _ => false,
                    });
                    if let Err(error) = self.answer_step(step, frame.body(input), &mut bound, out) {
                        self.put_failure(out, &error);
                        failed = true;
                    }
                }
            }
        }
        if matches!(self.transaction, Transaction::Begun(_)) {
            self.portal = bound.map(Box::new);
        }
        self.names.settle(if failed { Done::Some(named) } else { Done::All });
    }

    fn answer_step(
        &mut self,
        step: Step,
        body: &[u8],
        bound: &mut Option<Bound>,
        out: &mut BytesMut,
    ) -> Result<(), Error> {
        match step {
            Step::Parse { prepared, .. } if self.has_failed() && !prepared.ends_block() => {
                return Err(block_has_failed());
            }
            Step::Parse { .. } => put_bare(out, server::PARSE_COMPLETE),
            Step::Bind { prepared, .. } => {
                let bind = Bind::read(body)?;
                if bind.parameters() > 0 {
                    return Err(too_many_parameters(&bind));
                }
                put_bare(out, server::BIND_COMPLETE);
                *bound = Some(Bound { portal: bind.portal.to_owned(), prepared, executed: false });
            }
            Step::DescribeStatement { prepared, .. } => {
                put(out, server::PARAMETER_DESCRIPTION, |body| body.put_u16(0));
                put_columns(out, &prepared);
            }
            Step::DescribePortal => put_columns(out, &find(bound.as_ref(), &portal_of(body, 1)?)?.prepared),
            Step::Execute => {
                let portal = portal_of(body, 0)?;
                let found = find(bound.as_ref(), &portal)?;
                if found.executed {
                    return Err(Error::new(SqlState("55000"), format!("portal \"{portal}\" cannot be run")));
                }
                let prepared = Arc::clone(&found.prepared);
                self.execute_here(&prepared, out)?;
                // The end of a block is that of its portals.
                *bound = (!prepared.ends_block()).then_some(Bound { portal, prepared, executed: true });
            }
            Step::ClosePortal => {
                let portal = portal_of(body, 1)?;
                bound.take_if(|bound| bound.portal == portal);
                put_bare(out, server::CLOSE_COMPLETE);
            }
            Step::CloseStatement => put_bare(out, server::CLOSE_COMPLETE),
            Step::Flush | Step::Sync => {}
            Step::Refused(error) | Step::Taken(error) => return Err(*error),
        }
        Ok(())
    }

    pub(super) fn execute_here(&mut self, prepared: &Prepared, out: &mut BytesMut) -> Result<(), Error> {
        let text = prepared.readable().unwrap_or_default();
        let Some(statement) = prepared.analysis.statements.first() else {
            put_bare(out, server::EMPTY_QUERY);
            return Ok(());
        };
        self.execute_statement_here(text, statement, out)
    }

    pub(super) fn execute_statement_here(
        &mut self,
        text: &str,
        statement: &Statement,
        out: &mut BytesMut,
    ) -> Result<(), Error> {
        match self.answer_statement(text, statement) {
            Some(answer) => answer.map(|answer| self.put_answer(out, &answer, false)),
            None => Err(crate::wire::frame::malformed("a statement that needs a server")),
        }
    }

    pub(super) fn put_answer(&self, out: &mut BytesMut, answer: &Answer, with_columns: bool) {
        answer.warning.iter().for_each(|warning| self.warn(out, warning));
        if let Some(columns) = answer.columns.as_ref().filter(|_| with_columns) {
            put_text_columns(out, columns);
        }
        answer.rows.iter().for_each(|row| put_text_row(out, row));
        put_command_complete(out, &answer.tag);
    }

    /// A warning of the proxy's own, unless the client has said that it wants none.
    pub(super) fn warn(&self, out: &mut BytesMut, warning: &Error) {
        let least = self.settings.value("client_min_messages").map(|level| level.trim_matches('\''));
        if !least.is_some_and(|level| ABOVE_WARNING.iter().any(|above| level.eq_ignore_ascii_case(above))) {
            put_warning(out, warning);
        }
    }

    /// An error of the proxy's own. Inside a block it fails the block.
    pub(super) fn put_failure(&mut self, out: &mut BytesMut, error: &Error) {
        self.fail_transaction();
        self.meter.figures.refused(error.sqlstate.0);
        put_error(out, Severity::Error, error);
    }
}

/// A portal that no server knows.
pub(super) struct Bound {
    portal: String,
    prepared: Arc<Prepared>,
    executed: bool,
}

/// The name that begins so far into the body of a message.
fn portal_of(body: &[u8], from: usize) -> Result<String, Error> {
    take_str(&mut body.get(from..).unwrap_or_default()).map(str::to_owned)
}

fn find<'a>(bound: Option<&'a Bound>, portal: &str) -> Result<&'a Bound, Error> {
    let unknown = || Error::new(SqlState::UNKNOWN_PORTAL, format!("portal \"{portal}\" does not exist"));
    bound.filter(|bound| bound.portal == portal).ok_or_else(unknown)
}

fn too_many_parameters(bind: &Bind<'_>) -> Error {
    let (count, name) = (bind.parameters(), bind.statement);
    let message = format!("bind message supplies {count} parameters, but prepared statement \"{name}\" requires 0");
    Error::new(SqlState::PROTOCOL, message)
}

/// What a statement would give, were it executed.
pub(super) fn put_columns(out: &mut BytesMut, prepared: &Prepared) {
    match prepared.analysis.statements.first().map(|statement| &statement.kind) {
        Some(Kind::ExplainRoute { .. }) => put_text_columns(out, &["property", "value"]),
        Some(Kind::Setting(SettingControl::Show { .. })) => put_text_columns(out, &["setting"]),
        _ => put_bare(out, server::NO_DATA),
    }
}

/// A statement's own text, without its neighbours.
pub(super) fn slice(text: &str, tokens: Tokens) -> &str {
    let ranges = token_ranges(text);
    text.get(bytes_of(&ranges, tokens)).unwrap_or(text)
}

/// Values of `client_min_messages`.
const ABOVE_WARNING: [&str; 3] = ["error", "fatal", "panic"];
