//! Writes of the session that are decided, and that a shard has not committed yet: its next statement there waits.

use tokio::time::{Instant, timeout};

use super::Session;
use super::lent::Lent;
use crate::error::{Error, SqlState};
use crate::topology::ShardId;

/// What a shard has still to commit.
pub(super) struct Late {
    shard: ShardId,
    gid: String,
}

impl Late {
    /// Of the connections that carried a write of this name: those that did not answer its COMMIT PREPARED.
    pub(super) fn of<'l>(lents: impl Iterator<Item = &'l mut Lent>, gid: &str) -> Vec<Self> {
        let late = lents.filter(|lent| lent.connection.is_tainted());
        late.map(|lent| Self { shard: lent.shard, gid: gid.to_owned() }).collect()
    }
}

impl Session {
    pub(super) fn is_late(&self, shard: ShardId) -> bool {
        self.late.iter().any(|late| late.shard == shard)
    }

    /// Returns when the shard has what the session wrote there; a cancel request ends the wait.
    pub(super) async fn await_late(&mut self, shard: ShardId) -> Result<(), Error> {
        let waiting = Instant::now();
        let limit = self.snapshot.topology.process.query_wait_timeout;
        let (control, database) = (&self.station.shared.control, &self.snapshot.name);
        let committed = async {
            for late in self.late.iter().filter(|late| late.shard == shard) {
                control.ended(database, shard, &late.gid).await;
            }
        };
        let in_time = async { timeout(limit, committed).await.map_err(|_| still_late(shard)) };
        let outcome = self.client.wait_for(in_time).await;
        self.meter.waited(waiting.elapsed());
        outcome?;
        self.late.retain(|late| late.shard != shard);
        // Only from here on do replicas count that show it.
        self.note_write(shard, Instant::now());
        Ok(())
    }
}

fn still_late(shard: ShardId) -> Error {
    let message = format!("shard {} has not committed yet what this session has written there", shard.0);
    Error::new(SqlState::UNAVAILABLE, message).with_hint("Its write is decided: it will be there when the shard is.")
}
