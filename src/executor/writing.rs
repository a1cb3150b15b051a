//! A write on several shards, whichever way it is done.

use crate::plan::{CopyIn, Spread, Tag, shards_of};
use crate::topology::ShardId;

/// Its plan.
#[derive(Clone, Copy)]
pub enum Writing<'p> {
    Spread(&'p Spread),
    /// Rows come from the client.
    Copy(&'p CopyIn),
}

impl Writing<'_> {
    /// Each of which it needs one connection to, in this order.
    pub fn shards(self) -> Vec<ShardId> {
        match self {
            Self::Spread(plan) => shards_of(&plan.parts),
            Self::Copy(plan) => plan.shards.clone(),
        }
    }

    /// It takes two phases, unless it is in a block.
    pub fn takes_two_phases(self) -> bool {
        match self {
            Self::Spread(plan) => plan.transactional && plan.parts.len() > 1,
            Self::Copy(plan) => plan.shards.len() > 1,
        }
    }

    pub(super) fn tag(self) -> Tag {
        match self {
            Self::Spread(plan) => plan.tag,
            Self::Copy(plan) if plan.column().is_none() => Tag::First,
            Self::Copy(_) => Tag::Sum,
        }
    }

    pub(super) fn row_order(&self) -> &[u16] {
        match self {
            Self::Spread(plan) => &plan.row_order,
            Self::Copy(_) => &[],
        }
    }
}
