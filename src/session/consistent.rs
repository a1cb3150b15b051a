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
use super::lent::Lent;
use super::transaction::{Begun, Open, Transaction};
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
        let has_one_state = match &self.transaction {
            Transaction::Begun(begun) => self.level_of(begun).has_one_snapshot(),
            Transaction::Open(open) => open.begun.as_ref().is_some_and(|begun| self.level_of(begun).has_one_snapshot()),
            Transaction::Idle | Transaction::Failed(_) => false,
        };
        self.snapshot.topology.process.consistent_reads
            && access != Access::Write
            && reading.shards().len() > 1
            && !has_one_state
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

    /// Opens a block on every shard, all of it at one state: nothing of it ran before.
    pub(super) async fn open_everywhere(&mut self, begun: &Begun) -> Result<Box<Open>, Stopped> {
        let shards: Vec<ShardId> = self.snapshot.database.all_shards().iter().collect();
        let mut lents = self.lend_all(shards.clone(), Access::PrimaryRead).await?;
        let mut inputs: Vec<_> = lents.iter_mut().map(|lent| &mut *lent.connection).collect();
        if let Err(stopped) = self.begin_on_all(&mut inputs, &shards, begun).await {
            lents.into_iter().for_each(Lent::abandon);
            return Err(stopped);
        }
        let mut lents = lents.into_iter();
        let first = lents.next().expect("a database has shards");
        let mut open = Box::new(Open::new(first, Some(begun.clone())));
        lents.for_each(|lent| open.join(lent));
        Ok(open)
    }

    async fn begin_on_all(
        &mut self,
        inputs: &mut [&mut Connection],
        shards: &[ShardId],
        begun: &Begun,
    ) -> Result<(), Stopped> {
        // What a transaction is must be said before its first query.
        let is_first = |text: &&String| {
            let mut words = text.split_whitespace().map(str::to_ascii_uppercase);
            let (one, other) = (words.next(), words.next());
            matches!(one.as_deref(), Some("BEGIN" | "START")) || other.as_deref() == Some("TRANSACTION")
        };
        let (first, others): (Vec<&String>, Vec<&String>) = begun.texts.iter().partition(is_first);
        let begin: String = first.iter().map(|text| format!("{text};")).collect();
        if self.snapshot.topology.process.consistent_reads {
            self.agree(inputs, shards, &begin).await?;
        } else {
            // Through this process, at least, nothing commits meanwhile.
            let held = timeout(HOLD, self.station.shared.control.hold_writes()).await.ok();
            let begin = format!("{begin}SELECT");
            let opened = join_all(inputs.iter_mut().map(async |input| input.ask_all(&begin).await)).await;
            drop(held);
            for came in opened {
                came?.map_err(Stopped::Server)?;
            }
        }
        let others: Vec<&str> = others.into_iter().map(String::as_str).collect();
        let mut news = Vec::new();
        for input in inputs.iter_mut() {
            let mut report = |name: &str, value: &str| news.push((name.to_owned(), value.to_owned()));
            input.run_all(&others, &mut report).await?.map_err(Stopped::Server)?;
        }
        news.iter().for_each(|(name, value)| self.hear_and_tell(name, value));
        Ok(())
    }

    /// The block that begins is to see one state of the database, and may be on several connections.
    pub(super) fn sees_one_state(&self, begun: &Begun) -> bool {
        self.level_of(begun) == Isolation::RepeatableRead
            && self.snapshot.database.is_sharded()
            && self.pin.is_none()
            && self.pinned.is_none()
            && !self.is_session_pooled()
    }

    pub(super) fn level_of(&self, begun: &Begun) -> Isolation {
        begun.isolation.unwrap_or(self.isolation)
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
pub(super) fn take_back_end(out: &mut BytesMut) -> Option<BytesMut> {
    let ends = |start: &usize| {
        let frame = &out[*start..];
        let length = frame.get(1..5).and_then(|length| <[u8; 4]>::try_from(length).ok()).map(u32::from_be_bytes);
        frame[0] == server::COMMAND_COMPLETE && length.is_some_and(|length| length as usize == frame.len() - 1)
    };
    let found = (out.len().saturating_sub(LONGEST_END)..out.len()).rev().find(ends);
    found.map(|start| out.split_off(start))
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
