//! `currval` and `lastval`: of numbers that were drawn for the session, which its servers do not know of, and of those
//! that they know.

use super::Session;
use super::carry::Stopped;
use super::effects::Effect;
use super::transaction::Open;
use crate::catalog::{RelationKind, Sequence};
use crate::plan::{Access, Draw, Drawn, Plan, Route};
use crate::statement::{Statement, Values};
use crate::wire::Status;

/// The newest number of each sequence, by the name that it was drawn by; the sequence that was used last comes last.
#[derive(Default)]
pub(super) struct Recalled(Vec<(String, String)>);

impl Recalled {
    pub(super) fn note(&mut self, sequence: &str, number: &str) {
        self.0.retain(|(known, _)| known != sequence);
        self.0.push((sequence.to_owned(), number.to_owned()));
    }

    fn last(&self) -> Option<String> {
        self.0.last().map(|(_, number)| number.clone())
    }

    fn of(&self, sequence: &str) -> Option<String> {
        self.0.iter().find(|(known, _)| known == sequence).map(|(_, number)| number.clone())
    }
}

impl Session {
    /// The statement with what is known in the place of its calls. `None`: it has none of those, or nothing is known.
    pub(super) fn recall(&self, statement: &Statement, values: &Values<'_>) -> Option<Plan> {
        let recalled = self.recalled.as_deref()?;
        statement.calls.iter().any(|call| matches!(call.name.name.as_str(), "currval" | "lastval")).then_some(())?;
        let find = |name: Option<&str>| match name {
            None => recalled.last(),
            Some(name) => recalled.of(&self.sequence(name)?),
        };
        let draw = Draw::recalled(values.text, statement, find)?;
        Some(Plan { route: Route::Draw(Box::new(draw)), access: Access::Write })
    }

    /// Before a unit of these effects has its connection: what it may ask for, itself or out of sight.
    pub(super) fn foresee_recalls(&mut self, access: Access, effects: &[Effect]) {
        let hidden = access == Access::Write && self.snapshot.catalog.has_hidden_recalls;
        self.recalls = effects.contains(&Effect::Recalls);
        self.asks |= self.recalls || hidden;
        self.counts |= self.asks || effects.contains(&Effect::Counts);
    }

    /// What the session writes there need not draw a number: one that another drew is not to pass for its own.
    pub(super) fn may_be_misled(&self, access: Access, open: &Open) -> bool {
        let is_others = open.lent.connection.writer.is_some_and(|writer| writer.client != self.client.key.process);
        access == Access::Write && self.asks && is_others
    }

    /// A connection that knows no numbers which others drew.
    pub(super) async fn with_own_numbers(
        &mut self,
        mut open: Box<Open>,
        effects: &[Effect],
    ) -> Result<Box<Open>, Stopped> {
        let connection = &mut open.lent.connection;
        let was_in_block = connection.status != Status::Idle;
        let are_own = connection.writer == Some(self.last_write);
        if are_own || connection.status == Status::Failed || self.snapshot.database.is_sharded() {
            return Ok(open);
        }
        let forgotten = connection.run("DISCARD SEQUENCES").await;
        connection.writer = None;
        match forgotten {
            Ok(Ok(())) => Ok(open),
            Ok(Err(body)) => {
                self.settle(open, effects, true, was_in_block);
                Err(Stopped::Server(body))
            }
            Err(error) => {
                self.lose(*open, was_in_block, effects);
                Err(error.into())
            }
        }
    }

    /// What a sequence is drawn by that is called so.
    fn sequence(&self, name: &str) -> Option<String> {
        let (schema, name) = match name.split_once('.') {
            Some((schema, name)) => (Some(plain(schema)?), plain(name)?),
            None => (None, plain(name)?),
        };
        let found = self.snapshot.catalog.relation(schema.as_deref(), &name, &self.search_path)?;
        (found.kind == RelationKind::Sequence).then_some(())?;
        let sequence = Sequence { schema: found.schema.clone(), name: found.name.clone(), always: false };
        Some(Drawn::of(&sequence).name)
    }
}

/// A name as it is written, in quotes or not.
fn plain(written: &str) -> Option<String> {
    match written.strip_prefix('"') {
        None => (!written.contains('"')).then(|| written.trim().to_lowercase()),
        Some(quoted) => quoted.strip_suffix('"').filter(|name| !name.contains('"')).map(str::to_owned),
    }
}
