//! A write on several shards, whichever way it is done.

use crate::plan::{CopyIn, Spread, Staged, shards_of};
use crate::topology::ShardId;

/// Its plan.
#[derive(Clone, Copy)]
pub enum Writing<'p> {
    Spread(&'p Spread),
    Staged(&'p Staged),
    /// Rows come from the client.
    Copy(&'p CopyIn),
}

impl Writing<'_> {
    /// Each of which it needs one connection to, in this order.
    pub fn shards(self) -> Vec<ShardId> {
        match self {
            Self::Spread(plan) => shards_of(&plan.parts),
            Self::Staged(plan) => plan.shards().to_vec(),
            Self::Copy(plan) => plan.shards.clone(),
        }
    }

    /// It takes two phases, unless it is in a block.
    pub fn takes_two_phases(self) -> bool {
        match self {
            Self::Spread(plan) => plan.transactional && plan.parts.len() > 1,
            Self::Staged(Staged::Local(_)) => false,
            Self::Staged(plan) => plan.shards().len() > 1,
            Self::Copy(plan) => plan.shards.len() > 1,
        }
    }

    /// Of its shards, those that it only reads.
    pub fn reads_only(self, shard: ShardId) -> bool {
        matches!(self, Self::Staged(Staged::Local(plan)) if plan.shards.first() != Some(&shard))
    }

    /// It ties the session to the connection to its first shard.
    pub fn ties(self) -> bool {
        matches!(self, Self::Staged(Staged::Local(plan)) if plan.ties)
    }

    /// Rows go from server to server.
    pub fn carries_rows(self) -> bool {
        match self {
            Self::Spread(plan) => !plan.fetches.is_empty(),
            Self::Staged(_) => true,
            Self::Copy(_) => false,
        }
    }
}
