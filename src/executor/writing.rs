//! A write on several shards, whichever way it is done.

use crate::plan::{CopyIn, Keeping, Spread, Staged, shards_of};
use crate::topology::ShardId;

/// Its plan.
#[derive(Clone, Copy)]
pub struct Writing<'p> {
    pub plan: Written<'p>,
    /// It may change values that are unique over all shards.
    pub keeping: Option<Keeping>,
}

#[derive(Clone, Copy)]
pub enum Written<'p> {
    Spread(&'p Spread),
    Staged(&'p Staged),
    /// Rows come from the client.
    Copy(&'p CopyIn),
}

impl Writing<'_> {
    /// Each of which it needs one connection to, in this order: those where rows are written, then perhaps the one where
    /// unique values are kept.
    pub fn shards(self) -> Vec<ShardId> {
        let mut shards = self.plan.shards();
        if let Some(Keeping { at, .. }) = self.keeping
            && !shards.contains(&at)
        {
            shards.push(at);
        }
        shards
    }

    /// It takes two phases, unless it is in a block.
    pub fn takes_two_phases(self) -> bool {
        let can = match self.plan {
            Written::Spread(plan) => plan.one_by_one.is_none(),
            Written::Staged(plan) => !matches!(plan, Staged::Local(_)),
            Written::Copy(_) => true,
        };
        can && (self.keeping.is_some() || self.plan.shards().len() > 1)
    }

    /// Of its shards, those that it only reads.
    pub fn reads_only(self, shard: ShardId) -> bool {
        let Written::Staged(Staged::Local(plan)) = self.plan else { return false };
        plan.shards.first() != Some(&shard)
    }

    /// It ties the session to the connection to its first shard.
    pub fn ties(self) -> bool {
        matches!(self.plan, Written::Staged(Staged::Local(plan)) if plan.ties)
    }

    /// Rows go from server to server.
    pub fn carries_rows(self) -> bool {
        match self.plan {
            Written::Spread(plan) => !plan.fetches.is_empty(),
            Written::Staged(_) => true,
            Written::Copy(_) => false,
        }
    }
}

impl Written<'_> {
    pub(super) fn shards(self) -> Vec<ShardId> {
        match self {
            Self::Spread(plan) => shards_of(&plan.parts),
            Self::Staged(plan) => plan.shards().to_vec(),
            Self::Copy(plan) => plan.shards.clone(),
        }
    }
}
