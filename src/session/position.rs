//! What the session has written and seen, by local time: which replica may serve its next read
//! (see `balance` for the clock ladder).

use smallvec::SmallVec;
use tokio::time::Instant;

use crate::topology::{ServerId, ShardId};

/// Per shard; nothing for shards never touched.
#[derive(Debug, Default)]
pub(super) struct Position(SmallVec<[(ShardId, Seen); 1]>);

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// When the last write was acknowledged, or the last replica read ended.
    write: Option<Instant>,
    replica_read: Option<(Instant, ServerId)>,
}

impl Position {
    pub(super) fn wrote(&mut self, shard: ShardId, now: Instant) {
        self.of(shard).write = Some(now);
    }

    pub(super) fn read_replica(&mut self, shard: ShardId, server: ServerId, now: Instant) {
        self.of(shard).replica_read = Some((now, server));
    }

    /// The session was shown the shard's rows as they were at `then`, or a little earlier: not by a server that it could
    /// be told to stay with.
    pub(super) fn saw(&mut self, shard: ShardId, then: Instant) {
        let write = &mut self.of(shard).write;
        *write = (*write).max(Some(then));
    }

    /// A replica must have caught up to a later rung than this to serve the session.
    pub(super) fn floor(&self, shard: ShardId) -> Floor {
        let seen = self.0.iter().find(|(known, _)| *known == shard).map(|(_, seen)| *seen).unwrap_or_default();
        Floor { write: seen.write, replica_read: seen.replica_read }
    }

    /// Servers were numbered anew: which one was read from is not known any more, only when.
    pub(super) fn forget_servers(&mut self) {
        for (_, seen) in &mut self.0 {
            seen.replica_read = seen.replica_read.map(|(read, _)| (read, NO_SERVER));
        }
    }

    fn of(&mut self, shard: ShardId) -> &mut Seen {
        match self.0.iter().position(|(known, _)| *known == shard) {
            Some(position) => &mut self.0[position].1,
            None => {
                self.0.push((shard, Seen::default()));
                &mut self.0.last_mut().expect("just pushed").1
            }
        }
    }
}

/// No topology has so many.
const NO_SERVER: ServerId = ServerId(u16::MAX);

/// See [`Position::floor`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Floor {
    pub write: Option<Instant>,
    pub replica_read: Option<(Instant, ServerId)>,
}
