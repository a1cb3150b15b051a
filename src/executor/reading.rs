//! A read on several shards, whichever way it is done.

use super::copy_out::copy_out;
use super::gather::gather;
use super::relay::Broken;
use super::request::Request;
use super::scatter::{Ended, is_of_columns, scatter};
use crate::backend::Connection;
use crate::error::SqlState;
use crate::plan::{CopyOut, Gather, Scatter, shards_of};
use crate::topology::ShardId;
use crate::wire::Channel;

/// Its plan.
#[derive(Clone, Copy)]
pub enum Reading<'p> {
    Scatter(&'p Scatter),
    Gather(&'p Gather),
    Copy(&'p CopyOut),
}

/// How many bytes one statement may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub merge: usize,
    pub gather: usize,
}

impl<'p> Reading<'p> {
    /// Each of which it needs one connection to, in this order.
    pub fn shards(self) -> Vec<ShardId> {
        match self {
            Self::Scatter(plan) => shards_of(&plan.parts),
            Self::Gather(plan) => plan.shards(),
            Self::Copy(plan) => plan.shards.clone(),
        }
    }

    /// It makes a cursor that outlasts its transaction, on its first shard.
    pub fn ties(self) -> bool {
        matches!(self, Self::Gather(Gather { holds: true, .. }))
    }

    /// What to do instead, where the rows turned out not to be mergeable here.
    pub fn otherwise(self, ended: &Result<Ended, Broken>) -> Option<Self> {
        match (self, ended) {
            (Self::Scatter(plan), Ok(Ended::Refused(error)))
                if error.sqlstate == SqlState::UNSUPPORTED && !is_of_columns(error) =>
            {
                plan.otherwise.as_deref().map(Self::Gather)
            }
            _ => None,
        }
    }
}

/// Carries it out on `inputs`, the answer into the client's output.
pub async fn read(
    client: &mut Channel,
    inputs: &mut [&mut Connection],
    reading: Reading<'_>,
    request: Request<'_>,
    limits: Limits,
) -> Result<Ended, Broken> {
    match reading {
        Reading::Scatter(plan) => scatter(client, inputs, plan, request, limits.merge).await,
        Reading::Gather(plan) => gather(client, inputs, plan, request, limits.gather).await,
        Reading::Copy(plan) => copy_out(client, inputs, plan, request).await,
    }
}
