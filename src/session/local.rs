//! Units that need no server: their replies, in either protocol.

use bytes::{BufMut, BytesMut};

use super::Session;
use super::control::Answer;
use super::digest::{Step, Steps};
use super::prepared::Prepared;
use crate::error::Error;
use crate::statement::{Kind, SettingControl, Statement, Tokens, bytes_of, token_ranges};
use crate::wire::Severity;
use crate::wire::frame::{put, server};
use crate::wire::message::{
    put_bare, put_command_complete, put_error, put_ready, put_text_columns, put_text_row, put_warning,
};

impl Session {
    /// Answers a text of one statement, if no server is needed for it.
    pub(super) fn answer_query(&mut self, text: &str, statement: &Statement, out: &mut BytesMut) -> bool {
        let Some(answer) = self.answer_statement(text, statement) else { return false };
        match answer {
            Ok(answer) => put_answer(out, &answer, true),
            Err(error) => self.put_failure(out, &error),
        }
        put_ready(out, self.transaction.status());
        true
    }

    fn answer_statement(&mut self, text: &str, statement: &Statement) -> Option<Result<Answer, Error>> {
        match statement.kind {
            Kind::ExplainRoute { inner } => Some(self.explain_route(slice(text, inner))),
            Kind::Transaction(_) | Kind::Setting(_) | Kind::Deallocate { .. } => {
                self.answer(statement, slice(text, statement.tokens))
            }
            _ => None,
        }
    }

    /// Answers an extended unit that is complete and asks no server for anything.
    pub(super) fn answer_steps(&mut self, steps: Steps, out: &mut BytesMut) {
        let mut bound = None;
        let mut skipping = false;
        for step in steps {
            if skipping && !matches!(step, Step::Sync) {
                continue;
            }
            match step {
                Step::Parse { .. } => put_bare(out, server::PARSE_COMPLETE),
                Step::Bind { prepared, .. } => {
                    put_bare(out, server::BIND_COMPLETE);
                    bound = Some(prepared);
                }
                Step::DescribeStatement { prepared, .. } => {
                    put(out, server::PARAMETER_DESCRIPTION, |body| body.put_u16(0));
                    put_columns(out, &prepared);
                }
                Step::DescribePortal => bound.iter().for_each(|prepared| put_columns(out, prepared)),
                Step::Execute => {
                    if let Some(prepared) = &bound
                        && let Err(error) = self.execute_here(prepared, out)
                    {
                        self.put_failure(out, &error);
                        skipping = true;
                    }
                }
                Step::CloseStatement | Step::ClosePortal => put_bare(out, server::CLOSE_COMPLETE),
                Step::Flush => {}
                Step::Refused(error) => {
                    self.put_failure(out, &error);
                    skipping = true;
                }
                Step::Sync => put_ready(out, self.transaction.status()),
            }
        }
    }

    fn execute_here(&mut self, prepared: &Prepared, out: &mut BytesMut) -> Result<(), Error> {
        let text = prepared.readable().unwrap_or_default();
        let Some(statement) = prepared.analysis.statements.first() else {
            put_bare(out, server::EMPTY_QUERY);
            return Ok(());
        };
        match self.answer_statement(text, statement) {
            Some(answer) => answer.map(|answer| put_answer(out, &answer, false)),
            None => Err(crate::wire::frame::malformed("a statement that needs a server")),
        }
    }

    /// An error of the proxy's own. Inside a block it fails the block.
    pub(super) fn put_failure(&mut self, out: &mut BytesMut, error: &Error) {
        self.fail_transaction();
        self.meter.figures.refused(error.sqlstate.0);
        put_error(out, Severity::Error, error);
    }
}

/// What a statement would give, were it executed.
fn put_columns(out: &mut BytesMut, prepared: &Prepared) {
    match prepared.analysis.statements.first().map(|statement| &statement.kind) {
        Some(Kind::ExplainRoute { .. }) => put_text_columns(out, &["property", "value"]),
        Some(Kind::Setting(SettingControl::Show { .. })) => put_text_columns(out, &["setting"]),
        _ => put_bare(out, server::NO_DATA),
    }
}

fn put_answer(out: &mut BytesMut, answer: &Answer, with_columns: bool) {
    if let Some(warning) = &answer.warning {
        put_warning(out, warning);
    }
    if let Some(columns) = answer.columns.as_ref().filter(|_| with_columns) {
        put_text_columns(out, columns);
    }
    answer.rows.iter().for_each(|row| put_text_row(out, row));
    put_command_complete(out, &answer.tag);
}

/// A statement's own text, without its neighbours.
pub(super) fn slice(text: &str, tokens: Tokens) -> &str {
    let ranges = token_ranges(text);
    text.get(bytes_of(&ranges, tokens)).unwrap_or(text)
}
