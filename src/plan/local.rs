//! Writes of tables that only the home shard has, temporary ones among them, over rows of several: there, once those rows
//! are fetched. Nothing is written elsewhere.

use std::sync::Arc;

use super::gather::Gathering;
use super::keys::Keyed;
use super::relations::{Class, Resolved};
use super::rewrite::Splice;
use super::surroundings::Surroundings;
use super::{Access, Fetch, Local, Plan, Route, Staged, access};
use crate::statement::{Statement, Values};
use crate::topology::ShardId;

/// Such a statement, its values left open.
#[derive(Debug)]
pub(super) struct Localized {
    home: ShardId,
    keyed: Keyed,
    gathering: Gathering,
}

impl Localized {
    /// `None`: it writes something else, or its rows cannot be fetched.
    pub(super) fn new(statement: &Statement, resolved: &[Resolved], surroundings: &Surroundings<'_>) -> Option<Self> {
        let keyed = Keyed::new(statement, resolved);
        let is_user_defined = access::reading_function(statement, resolved, surroundings.catalog).is_some();
        if !writes_at_home(resolved) || keyed.relations.is_empty() || is_user_defined {
            return None;
        }
        let gathering = Gathering::new(statement, resolved, surroundings, &keyed).ok()?;
        Some(Self { home: surroundings.database.home, keyed, gathering })
    }

    pub(super) fn plan(&self, values: &Values<'_>) -> Plan {
        let (text, fetches) = self.gathering.over(&self.keyed.shards(values), values, Splice::new(values.text));
        of(self.home, (text, fetches), false)
    }
}

/// `ties`: it makes a temporary table, all of it written out.
pub(super) fn of(home: ShardId, (text, fetches): (String, Vec<Fetch>), ties: bool) -> Plan {
    let mut shards = vec![home];
    for part in fetches.iter().flat_map(|fetch| &fetch.parts) {
        if !shards.contains(&part.shard) {
            shards.push(part.shard);
        }
    }
    let local = Local { shards, fetches, text: Arc::from(text), written_out: ties, ties };
    Plan { route: Route::Staged(Box::new(Staged::Local(local))), access: Access::Write }
}

/// All that it writes is on the home shard, and nowhere else.
pub(super) fn writes_at_home(resolved: &[Resolved]) -> bool {
    let mut written = resolved.iter().filter(|known| known.written).peekable();
    written.peek().is_some() && written.all(|known| matches!(known.class, Class::Home | Class::Unknown))
}
