//! A Query of several statements that do not all go one way: carried out one after the other.
//!
//! PostgreSQL makes one transaction of it, as far as the text itself does not begin and end some (documentation,
//! 55.2.2.1). So does this, on as many shards as it needs.

use super::Session;
use super::block::{Came, concerns_all};
use super::carry::Stopped;
use super::decide::{Decided, Way};
use super::local::slice;
use super::named::Wanted;
use super::portals::Pipeline;
use super::run::{CHECKED_BYTES, End};
use super::transaction::{Begun, Transaction};
use crate::error::Error;
use crate::executor::{BUFFER_BYTES, Request};
use crate::statement::{Analysis, Isolation, Kind, TransactionControl};
use crate::wire::Channel;
use crate::wire::frame::Header;
use crate::wire::message::{error_field, put_ready};

impl Session {
    pub(super) fn goes_one_by_one(&self, text: &str, analysis: &Analysis, decided: &Result<Decided, Error>) -> bool {
        if analysis.statements.len() <= 1 || !self.snapshot.database.is_sharded() {
            return false;
        }
        let concerns_all = || analysis.statements.iter().any(|statement| concerns_all(&statement.kind));
        let goes_one_way = matches!(decided, Ok(Decided { way: Way::One { .. }, .. }));
        let sees_one_state = || {
            let kinds = || analysis.statements.iter().map(|statement| &statement.kind);
            matches!(self.transaction, Transaction::Idle) && kinds().any(begins_at_one_state)
        };
        !goes_one_way || sees_one_state() || (self.spans() && concerns_all()) || self.names_statement(text, analysis)
    }

    /// Carries out the Query at the front of the input.
    pub(super) async fn serve_texts(
        &mut self,
        client: &mut Channel,
        header: Header,
        analysis: &Analysis,
    ) -> Result<(), End> {
        let frame = client.input.split_to(header.length).freeze();
        let text = std::str::from_utf8(&frame[Header::BYTES..header.length - 1]).unwrap_or_default();
        if let Err(stopped) = self.check_syntax(text, analysis).await? {
            self.tell(client, &stopped);
            return Ok(());
        }
        let mut implicit = false;
        let mut stopped = None;
        for (index, statement) in analysis.statements.iter().enumerate() {
            let is_last = index + 1 == analysis.statements.len();
            let came = self.take_text(client, slice(text, statement.tokens), (&mut implicit, is_last)).await?;
            stopped = came.err();
            if stopped.is_some() {
                break;
            }
            self.put_news(&mut client.output);
            if client.output.len() >= BUFFER_BYTES {
                client.flush().await.map_err(End::Gone)?;
            }
        }
        if let Some(stopped) = &stopped {
            self.put_stopped(&mut client.output, stopped);
        }
        if let Err(stopped) = self.end_implicit(client, implicit).await? {
            self.put_stopped(&mut client.output, &stopped);
        }
        self.put_news(&mut client.output);
        put_ready(&mut client.output, self.transaction.status());
        Ok(())
    }

    /// A server reads a text as a whole before it does anything of it. Within a block one is asked only where there is
    /// doubt: the question fails the block.
    async fn check_syntax(&mut self, text: &str, analysis: &Analysis) -> Came<()> {
        let unknown = |kind: &Kind| matches!(kind, Kind::Unknown { .. });
        let is_clear = !analysis.statements.iter().any(|statement| unknown(&statement.kind));
        if (is_clear && !matches!(self.transaction, Transaction::Idle)) || text.len() > CHECKED_BYTES {
            return Ok(Ok(()));
        }
        let sent = text.to_owned();
        match self.ask_any(async move |connection| connection.check(&sent).await).await? {
            // That it is more than one statement is no error here.
            Err(Stopped::Server(body)) if error_field(&body, b'P').is_none() => Ok(Ok(())),
            said => Ok(said),
        }
    }

    /// One statement of it. `implicit`: the open block, if any, is PostgreSQL's own.
    async fn take_text(
        &mut self,
        client: &mut Channel,
        text: &str,
        (implicit, is_last): (&mut bool, bool),
    ) -> Came<()> {
        let resolved = self.station.resolve(text);
        let (entry, literals) = (&resolved.0, &resolved.1);
        let Some(statement) = entry.analysis.statements.first() else { return Ok(Ok(())) };
        if let Err(error) = self.check_block(&entry.analysis) {
            return Ok(Err(error.into()));
        }
        if let Kind::Transaction(control) = &statement.kind {
            return self.execute_control(client, implicit, (statement, text), control).await;
        }
        if let Some(answer) = self.answer_statement(text, statement) {
            return Ok(answer.map(|answer| self.put_answer(&mut client.output, &answer, true)).map_err(Into::into));
        }
        if concerns_all(&statement.kind) && self.has_open_block() {
            return self.execute_in_all(client, (statement, text)).await;
        }
        if matches!(self.transaction, Transaction::Idle) && !is_last {
            self.transaction = Transaction::Begun(Begun::implicit());
            *implicit = true;
        }
        if self.names_statement(text, &entry.analysis) {
            let mut pipeline = Pipeline { implicit: *implicit, ..Pipeline::of_one() };
            return Box::pin(self.run_named(client, &mut pipeline, (statement, text), Wanted::default())).await;
        }
        let planned = entry.extra.get(&entry.analysis, &self.snapshot, &self.search_path);
        let takes_rows = matches!(&statement.kind, Kind::Copy(copy) if copy.from && copy.is_client);
        match self.decide_query(text, &entry.analysis, literals, &planned) {
            Ok(Decided { way: Way::One { .. }, .. }) if takes_rows => {
                let what = "COPY FROM STDIN into one shard in a text of statements for several";
                Ok(Err(Error::unsupported(what, "Send it in a text of its own.").into()))
            }
            Ok(decided) => self.carry_decided(client, decided, Request::Simple { text: text.as_bytes() }).await,
            Err(error) => Ok(Err(Box::pin(self.reason_of(error, text, &entry.analysis)).await)),
        }
    }
}

/// It begins on all shards, though what comes with it is for one.
fn begins_at_one_state(kind: &Kind) -> bool {
    use TransactionControl as Control;
    matches!(
        kind,
        Kind::Transaction(
            Control::Begin { isolation: Some(Isolation::RepeatableRead), .. }
                | Control::SetTransaction { isolation: Some(Isolation::RepeatableRead), .. }
        )
    )
}
