//! `consistent_reads`: what a read of several shards sees of commits over several (see `executor::Sight`).
//!
//! Outside of blocks it runs in transactions whose snapshots agree, opened again and again until they do. Within a block
//! each statement has a snapshot of its own on every shard: it is refused if something was committed meanwhile.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::Session;
use super::carry::Stopped;
use crate::backend::Connection;
use crate::error::{Error, SqlState};
use crate::executor::{Reading, Sight};
use crate::plan::Access;
use crate::statement::Isolation;
use crate::topology::ShardId;
use crate::wire::Status;
use crate::wire::frame::server;

impl Session {
    /// The read is to see one state of its shards.
    pub(super) fn is_consistent(&self, reading: Reading<'_>, access: Access) -> bool {
        self.snapshot.topology.process.consistent_reads && access != Access::Write && reading.shards().len() > 1
    }

    /// Opens transactions on all of them whose snapshots agree.
    pub(super) async fn open_snapshots(
        &self,
        inputs: &mut [&mut Connection],
        shards: &[ShardId],
    ) -> Result<(), Stopped> {
        let level = match self.isolation {
            Isolation::Serializable => "SERIALIZABLE",
            _ => "REPEATABLE READ",
        };
        let begin = format!("BEGIN ISOLATION LEVEL {level};");
        self.agree(inputs, shards, &begin).await.map(|_| ())
    }

    /// Within a block: before a statement.
    pub(super) async fn look_before(
        &self,
        inputs: &mut [&mut Connection],
        shards: &[ShardId],
    ) -> Result<Sight, Stopped> {
        self.agree(inputs, shards, "").await
    }

    /// Within a block, after the statement: nothing that it may have seen in part was committed.
    pub(super) async fn look_after(&self, inputs: &mut [&mut Connection], before: &Sight) -> Result<(), Stopped> {
        let later = before.again(inputs, self.lately()).await?.map_err(Stopped::Server)?;
        if before.is_as(&later) { Ok(()) } else { Err(changed().into()) }
    }

    /// Looks until no commit is seen in part; a cancel request ends that.
    async fn agree(&self, inputs: &mut [&mut Connection], shards: &[ShardId], begin: &str) -> Result<Sight, Stopped> {
        let deadline = Instant::now() + self.snapshot.topology.process.query_wait_timeout;
        let control = &self.station.shared.control;
        let mut pause = FIRST_PAUSE;
        for attempt in 0.. {
            // What was in vain more than once is done while nothing of this process's commits.
            let held = if attempt < 2 { None } else { timeout(HOLD, control.hold_writes()).await.ok() };
            let looking = timeout(LOOK, Sight::take(inputs, shards, begin, 2 * self.lately())).await;
            drop(held);
            let sight = looking.map_err(|_| unanswered())??.map_err(Stopped::Server)?;
            if sight.is_whole() {
                return Ok(sight);
            }
            if !begin.is_empty() {
                close_snapshots(inputs).await?;
            }
            if Instant::now() > deadline {
                return Err(changed().into());
            }
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
        unreachable!("attempts do not end")
    }

    /// What was decided longer ago was prepared everywhere before the look began, or has been undone.
    fn lately(&self) -> Duration {
        self.snapshot.topology.process.commit_timeout + 2 * LOOK
    }
}

/// Ends the transactions of a read that is over.
pub(super) async fn close_snapshots(inputs: &mut [&mut Connection]) -> Result<(), Error> {
    let open = inputs.iter_mut().filter(|input| input.owed.is_empty() && input.status != Status::Idle);
    let closing = open.map(async |input| {
        let end = if input.status == Status::Failed { "ROLLBACK" } else { "COMMIT" };
        input.run(end).await
    });
    for closed in join_all(closing).await {
        // It has changed nothing: a server that refuses to end it is not used again.
        let _: Result<(), Bytes> = closed?;
    }
    Ok(())
}

/// Takes the CommandComplete back that an answer ends with.
pub(super) fn take_back_end(out: &mut BytesMut) {
    let ends = |start: &usize| {
        let frame = &out[*start..];
        let length = frame.get(1..5).and_then(|length| <[u8; 4]>::try_from(length).ok()).map(u32::from_be_bytes);
        frame[0] == server::COMMAND_COMPLETE && length.is_some_and(|length| length as usize == frame.len() - 1)
    };
    let found = (out.len().saturating_sub(LONGEST_END)..out.len()).rev().find(ends);
    found.into_iter().for_each(|start| out.truncate(start));
}

fn changed() -> Error {
    Error::new(SqlState::SERIALIZATION_FAILURE, "could not read the same state of all shards due to concurrent commits")
        .with_hint("Try the transaction again. Outside of a transaction block, a read waits for such a state.")
}

fn unanswered() -> Error {
    Error::new(SqlState::CONNECTION_LOST, "a shard has not answered in time")
}

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(50);
/// So long it waits for commits that are under way.
const HOLD: Duration = Duration::from_millis(200);
const LOOK: Duration = Duration::from_secs(2);
/// `SELECT`, a number, and what is around them.
const LONGEST_END: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::put_command_complete;

    #[test]
    fn an_end_is_taken_back() {
        let mut out = BytesMut::from(&b"half of a row"[..]);
        put_command_complete(&mut out, "SELECT 12");
        take_back_end(&mut out);
        assert_eq!(out, b"half of a row"[..]);
        take_back_end(&mut out);
        assert_eq!(out, b"half of a row"[..]);
    }
}
