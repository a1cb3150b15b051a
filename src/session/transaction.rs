//! Where a client stands between two units of work.

use std::collections::{BTreeMap, HashSet};
use std::task::Context;

use super::lent::Lent;
use super::settings::Change;
use crate::backend::Connection;
use crate::error::Error;
use crate::executor::MergedCursor;
use crate::statement::Isolation;
use crate::topology::ShardId;
use crate::wire::Status;

/// A transaction block, as the client sees it.
pub(super) enum Transaction {
    Idle,
    /// BEGIN was answered here; no server is chosen before a statement needs one.
    Begun(Begun),
    Open(Box<Open>),
    /// Only the end of the block may pass. No connection if there was none or it was lost; else its servers may not
    /// know yet that the block has failed.
    Failed(Option<Box<Open>>),
}

/// How a block was begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Begun {
    /// What a server is told: BEGIN, and since then SET TRANSACTION, SET LOCAL and everything about savepoints.
    pub texts: Vec<String>,
    pub read_only: bool,
    pub isolation: Option<Isolation>,
}

impl Begun {
    /// A BEGIN that says nothing of isolation, and nothing since.
    pub(super) fn is_plain(&self) -> bool {
        self.texts.len() == 1 && self.isolation.is_none()
    }
}

pub(super) struct Open {
    /// Where the last statement ran.
    pub lent: Lent,
    /// Something ran there that is not a proven read.
    pub wrote: bool,
    /// Nothing ran but reads, each of what was current.
    pub reads_plainly: bool,
    /// The block's connections to other shards, each in a transaction of its own.
    pub others: Vec<Member>,
    /// For shards that the block reaches later. `None` outside of blocks.
    pub begun: Option<Begun>,
    /// Settings changed inside the block, for the connections' own account when it commits.
    pub changes: Vec<Change>,
    /// The connection knows already that the unit made its server forget all prepared statements.
    pub forgot: bool,
    /// ParameterStatus messages since the block began.
    pub heard: Vec<(String, String)>,
    pub cursors: Vec<Cursor>,
    /// Names in definitions that the block has made, by which there may be rows on several shards: the catalog does not
    /// know before it commits.
    pub doubtful: HashSet<String>,
    /// Temporary tables that it has made.
    pub temporary: HashSet<String>,
    /// Names in texts may mean something else by now than when their statements were prepared.
    pub renamed: bool,
}

/// A cursor of a block.
pub(super) enum Cursor {
    /// A server's own.
    On(String, ShardId),
    /// Over several shards. `doubted`: a savepoint before it may have been gone back to.
    Merged { cursor: Box<MergedCursor>, doubted: bool },
}

impl Cursor {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::On(name, _) => name,
            Self::Merged { cursor, .. } => &cursor.name,
        }
    }
}

/// A shard's part of a block.
pub(super) struct Member {
    pub lent: Lent,
    pub wrote: bool,
}

impl Transaction {
    /// See [`Connection::poll_expired`].
    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Option<Error> {
        match self {
            Self::Open(open) | Self::Failed(Some(open)) => {
                open.lents().find_map(|lent| lent.connection.poll_expired(cx))
            }
            Self::Idle | Self::Begun(_) | Self::Failed(None) => None,
        }
    }
}

impl Open {
    pub(super) fn new(lent: Lent, begun: Option<Begun>) -> Self {
        let reads_plainly = begun.as_ref().is_some_and(Begun::is_plain);
        let (others, changes, heard) = (Vec::new(), Vec::new(), Vec::new());
        let (cursors, doubtful, temporary) = (Vec::new(), HashSet::new(), HashSet::new());
        let (wrote, forgot) = (false, false);
        let renamed = false;
        Self {
            lent,
            wrote,
            reads_plainly,
            others,
            begun,
            changes,
            forgot,
            heard,
            cursors,
            doubtful,
            temporary,
            renamed,
        }
    }

    /// Makes a part of the block the current one; `false`: that shard has none.
    pub(super) fn switch(&mut self, shard: ShardId) -> bool {
        if self.lent.shard == shard {
            return true;
        }
        let Some(other) = self.others.iter_mut().find(|other| other.lent.shard == shard) else { return false };
        std::mem::swap(&mut self.lent, &mut other.lent);
        std::mem::swap(&mut self.wrote, &mut other.wrote);
        true
    }

    /// One more part, which becomes the current one.
    pub(super) fn join(&mut self, lent: Lent) {
        let lent = std::mem::replace(&mut self.lent, lent);
        let wrote = std::mem::replace(&mut self.wrote, false);
        self.others.push(Member { lent, wrote });
    }

    /// The connections of all parts.
    pub(super) fn lents(&mut self) -> impl Iterator<Item = &mut Lent> {
        std::iter::once(&mut self.lent).chain(self.others.iter_mut().map(|other| &mut other.lent))
    }

    /// All parts: connection, shard, and whether it wrote.
    pub(super) fn parts(&mut self) -> impl Iterator<Item = (&mut Connection, ShardId, bool)> {
        let current = (&mut *self.lent.connection, self.lent.shard, self.wrote);
        let others = self.others.iter_mut();
        std::iter::once(current).chain(others.map(|other| (&mut *other.lent.connection, other.lent.shard, other.wrote)))
    }

    /// The connections to these shards, in their order.
    pub(super) fn connections(&mut self, shards: &[ShardId]) -> Vec<&mut Connection> {
        let place = |shard: ShardId| shards.iter().position(|&wanted| wanted == shard);
        let mut placed: Vec<_> =
            self.parts().filter_map(|(connection, shard, _)| Some((place(shard)?, connection))).collect();
        placed.sort_by_key(|(place, _)| *place);
        placed.into_iter().map(|(_, connection)| connection).collect()
    }

    /// The session is tied to the connection to the first of these shards.
    pub(super) fn tie(&mut self, shards: &[ShardId]) {
        self.lents().filter(|lent| shards.first() == Some(&lent.shard)).for_each(|lent| lent.tied = true);
    }

    /// Where the session is tied to a connection of the block, or may be.
    pub(super) fn tied_shard(&self) -> Option<ShardId> {
        let others = self.others.iter().map(|other| &other.lent);
        std::iter::once(&self.lent).chain(others).find(|lent| lent.tied).map(|lent| lent.shard)
    }

    /// The same, but it is another one than the current.
    pub(super) fn is_tied_elsewhere(&self) -> bool {
        self.others.iter().any(|other| other.lent.tied)
    }

    /// Something ran on this shard that is not a proven read.
    pub(super) fn note_write(&mut self, shard: ShardId) {
        if self.lent.shard == shard {
            self.wrote = true;
        }
        self.others.iter_mut().filter(|other| other.lent.shard == shard).for_each(|other| other.wrote = true);
    }

    pub(super) fn wrote_elsewhere(&self, shard: ShardId) -> bool {
        (self.wrote && self.lent.shard != shard)
            || self.others.iter().any(|other| other.wrote && other.lent.shard != shard)
    }

    /// Something ran on some shard that is not a proven read.
    pub(super) fn has_written(&self) -> bool {
        self.wrote || self.others.iter().any(|other| other.wrote)
    }

    /// A block begins, unless one is under way.
    pub(super) fn begin(&mut self, begun: &Begun) {
        if self.begun.as_ref().is_none_or(|known| known.texts.len() <= 1) {
            self.begun = Some(begun.clone());
        }
    }

    /// The block has ended; one that is chained to it begins as it did.
    pub(super) fn begin_anew(&mut self) {
        self.begun.iter_mut().for_each(|begun| begun.texts.truncate(1));
        self.doubtful.clear();
        self.renamed = false;
    }

    pub(super) fn spans(&self) -> bool {
        !self.others.is_empty()
    }

    pub(super) fn has_failed(&self) -> bool {
        let failed = |lent: &Lent| lent.connection.status == Status::Failed;
        failed(&self.lent) || self.others.iter().any(|other| failed(&other.lent))
    }

    /// Ends what runs, and the connections.
    pub(super) fn abandon(self) {
        self.lent.abandon();
        self.others.into_iter().for_each(|other| other.lent.abandon());
    }
}

/// Values of ParameterStatus that a client was told, shared while they are the log-in's.
pub(super) type Reported = std::sync::Arc<BTreeMap<String, String>>;
