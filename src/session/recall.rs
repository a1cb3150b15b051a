//! Numbers that were drawn for the session, which its servers do not know of: `currval` and `lastval` of them.

use super::Session;
use crate::catalog::{RelationKind, Sequence};
use crate::plan::{Access, Draw, Drawn, Plan, Route};
use crate::statement::{Statement, Values};

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
