//! How a unit gets its server connections: those that its block has, the one that the session is tied to, or others of
//! the pools, with what the session and the block have set.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::again::Again;
use super::carry::Stopped;
use super::effects::Effect;
use super::lent::Lent;
use super::position::Position;
use super::station::{Borrowed, Borrower};
use super::transaction::{Begun, Open, Transaction};
use super::wishes::Wishes;
use super::{Pin, Session};
use crate::balance::Need;
use crate::error::{Error, SqlState};
use crate::plan::Access;
use crate::statement::Isolation;
use crate::topology::{Consistency, Database, ServerId, ShardId, User};
use crate::wire::Status;

impl Session {
    /// As [`Session::take_connection`]. An open block whose server has gone is found before anything is sent there:
    /// nothing of it was committed.
    pub(super) async fn take_live_connection(
        &mut self,
        shard: ShardId,
        access: Access,
        effects: &[Effect],
    ) -> Result<Box<Open>, Stopped> {
        let mut open = match self.take_at_once(shard, access) {
            Some(open) => open,
            None => Box::pin(self.take_connection(shard, access)).await?,
        };
        if self.by_name.is_some() {
            open = Box::pin(self.make_named_known(open)).await?;
        }
        if open.lent.connection.status != Status::Idle
            && let Err(error) = open.lent.connection.overhear()
        {
            self.lose(*open, true, effects);
            return Err(error.into());
        }
        Ok(open)
    }

    /// Where a statement needs no server: the open block may have lost one all the same.
    pub(super) fn overhear_block(&mut self) -> Result<(), Error> {
        let Transaction::Open(open) = &mut self.transaction else { return Ok(()) };
        let Some(error) = open.lents().find_map(|lent| lent.connection.overhear().err()) else { return Ok(()) };
        if let Transaction::Open(open) = std::mem::replace(&mut self.transaction, Transaction::Idle) {
            self.lose(*open, true, &[]);
        }
        Err(error)
    }

    /// As [`Session::take_connection`], where there is nothing to wait for.
    fn take_at_once(&mut self, shard: ShardId, access: Access) -> Option<Box<Open>> {
        match std::mem::replace(&mut self.transaction, Transaction::Idle) {
            Transaction::Open(open) if open.lent.shard == shard && !open.is_tied_elsewhere() => Some(open),
            Transaction::Idle if self.pin.is_none() && self.retrying.is_none() => {
                let lent = self.lend_at_once(shard, access, None)?;
                if lent.connection.has(self.settings.current()) {
                    self.meet(&lent.connection.reported);
                    return Some(Box::new(Open::new(lent, None)));
                }
                lent.give_back(self.meter.lately());
                None
            }
            other => {
                self.transaction = other;
                None
            }
        }
    }

    /// The connection of the open block or the pinned one, else one from the pool, with the session's settings and
    /// whatever of the block waits.
    pub(super) async fn take_connection(&mut self, shard: ShardId, access: Access) -> Result<Box<Open>, Stopped> {
        match std::mem::replace(&mut self.transaction, Transaction::Idle) {
            Transaction::Open(open) => self.reach(open, shard, access).await,
            Transaction::Idle => self.fresh(shard, access, None).await,
            Transaction::Begun(begun) => {
                let opened = match begun.isolation.is_some() && self.sees_one_state(&begun) {
                    true => self.open_everywhere(&begun).await.map(|mut open| {
                        open.switch(shard);
                        open
                    }),
                    false => self.fresh(shard, access, Some(&begun)).await,
                };
                if opened.is_err() {
                    // The block has failed before it reached a server.
                    self.transaction = Transaction::Failed(None);
                }
                opened
            }
            // Whatever gets this far ends the block, or goes back to a savepoint of it.
            Transaction::Failed(Some(open)) => self.fail_on_servers(open).await,
            // Behind the end of the block there may be more: a server takes it up where the client stands.
            Transaction::Failed(None) => {
                let begun = Begun { texts: vec!["BEGIN".to_owned()], ..Begun::default() };
                match self.fresh(shard, Access::Write, Some(&begun)).await {
                    Ok(open) => self.fail_on_servers(open).await,
                    Err(why) => {
                        self.transaction = Transaction::Failed(None);
                        Err(why)
                    }
                }
            }
        }
    }

    async fn fresh(&mut self, shard: ShardId, access: Access, begun: Option<&Begun>) -> Result<Box<Open>, Stopped> {
        let lent = self.lend_ready(shard, access, begun).await?;
        Ok(Box::new(Open::new(lent, begun.cloned())))
    }

    /// A connection that has what the session and the block have set.
    pub(super) async fn lend_ready(
        &mut self,
        shard: ShardId,
        access: Access,
        begun: Option<&Begun>,
    ) -> Result<Lent, Stopped> {
        if self.is_late(shard) {
            Box::pin(self.await_late(shard)).await?;
        }
        let access = match begun {
            // A block is whole on the primary unless it promised to write nothing. A standby has no serializable ones.
            Some(begun) if !begun.read_only || begun.isolation == Some(Isolation::Serializable) => Access::Write,
            _ if self.isolation == Isolation::Serializable && begun.is_none_or(|begun| begun.isolation.is_none()) => {
                Access::Write
            }
            _ => access,
        };
        let pinned = match self.pin.take() {
            Some(mut pin) if pin.lent.shard == shard => {
                pin.lent.tied = true;
                pin.lent.connection.number_by(self.snapshot.catalog.oids(shard.0));
                Some(pin.lent)
            }
            other => {
                self.pin = other;
                self.check_hidden().await?;
                None
            }
        };
        let lent = match pinned {
            Some(mut lent) => match self.make_ready(&mut lent, begun).await {
                Ok(()) => lent,
                Err(stopped) => {
                    self.part_with(lent, false, Instant::now());
                    return Err(stopped);
                }
            },
            None => self.lend_live(shard, access, begun).await?,
        };
        // Its server was told, while that did nothing.
        if begun.is_none()
            && let Err(error) = self.client.check_cancelled()
        {
            self.part_with(lent, true, Instant::now());
            return Err(error.into());
        }
        Ok(lent)
    }

    /// A connection that was found to be dead before anything of the unit was sent is replaced by another.
    async fn lend_live(&mut self, shard: ShardId, access: Access, begun: Option<&Begun>) -> Result<Lent, Stopped> {
        let mut without = match self.retrying {
            Some(Again::Without(server)) => Some(server),
            _ => None,
        };
        for last in [false, true] {
            let mut lent = self.lend(shard, access, without).await?;
            match self.make_ready(&mut lent, begun).await {
                Ok(()) => return Ok(lent),
                Err(Stopped::Refused(error)) if error.sqlstate == SqlState::CONNECTION_LOST && !last => {
                    without = Some(lent.server);
                    self.snapshot.fleet.suspect(&lent.connection.server);
                    lent.abandon();
                }
                Err(stopped) => {
                    lent.abandon();
                    return Err(stopped);
                }
            }
        }
        unreachable!("the last attempt returns")
    }

    async fn make_ready(&mut self, lent: &mut Lent, begun: Option<&Begun>) -> Result<(), Stopped> {
        if begun.is_none() && lent.connection.has(self.settings.current()) {
            self.meet(&lent.connection.reported);
            return Ok(());
        }
        let wanted = Arc::clone(self.settings.current());
        let mut news = Vec::new();
        let mut report = |name: &str, value: &str| news.push((name.to_owned(), value.to_owned()));
        lent.connection.apply(&wanted, &mut report).await?.map_err(Stopped::Server)?;
        if let Some(begun) = begun {
            let texts: Vec<&str> = begun.texts.iter().map(String::as_str).collect();
            lent.connection.run_all(&texts, &mut report).await?.map_err(Stopped::Server)?;
        }
        if !lent.connection.channel.input.is_empty() {
            // Behind the last answer came the server's last word.
            lent.connection.overhear()?;
        }
        // Of what was set and set again, the last value counts.
        for (index, (name, value)) in news.iter().enumerate() {
            if news[index + 1..].iter().all(|(later, _)| later != name) {
                self.hear_and_tell(name, value);
            }
        }
        self.meet(&lent.connection.reported);
        Ok(())
    }

    /// A connection to a server that may serve; a cancel request ends the wait.
    async fn lend(&mut self, shard: ShardId, access: Access, without: Option<ServerId>) -> Result<Lent, Error> {
        if let Some(lent) = self.lend_at_once(shard, access, without) {
            return Ok(lent);
        }
        let waiting = Instant::now();
        let mut pools = std::mem::take(&mut self.known_pools);
        let (need, borrower) = (self.need(shard, access), self.borrower(without));
        let outcome = self.client.wait_for(Box::pin(self.station.shared.lend(&borrower, &need, &mut pools))).await;
        self.known_pools = pools;
        self.meter.waited(waiting.elapsed());
        Ok(self.lent(outcome?, shard))
    }

    fn lent(&self, borrowed: Borrowed, shard: ShardId) -> Lent {
        let mut lent = Lent::new(borrowed, shard, &self.client);
        lent.connection.number_by(self.snapshot.catalog.oids(shard.0));
        lent
    }

    /// As [`Session::lend`], where nobody has to be waited for.
    fn lend_at_once(&mut self, shard: ShardId, access: Access, without: Option<ServerId>) -> Option<Lent> {
        if self.is_late(shard) {
            return None;
        }
        let mut pools = std::mem::take(&mut self.known_pools);
        let (need, borrower) = (self.need(shard, access), self.borrower(without));
        let borrowed = self.station.shared.lend_at_once(&borrower, &need, &mut pools);
        self.known_pools = pools;
        let borrowed = borrowed?;
        self.meter.waited(Duration::ZERO);
        Some(self.lent(borrowed, shard))
    }

    /// What a server must have to serve the unit.
    fn need(&self, shard: ShardId, access: Access) -> Need<'_> {
        let need = need(&self.wishes, &self.user, &self.position, (&self.snapshot.database, shard, access));
        let newest = match need.consistency {
            Consistency::Global => self.shard_state(shard).and_then(|state| state.newest_write()),
            _ => None,
        };
        let access = match self.retrying {
            Some(Again::OnPrimary) => crate::balance::Access::Primary,
            // It stays with the session, which may write there next.
            _ if access == Access::Read && self.is_session_pooled() => crate::balance::Access::Primary,
            _ => need.access,
        };
        self.need_of_fill(Need { access, wrote: need.wrote.max(newest), ..need }, self.meter.lately())
    }

    fn borrower(&self, without: Option<ServerId>) -> Borrower<'_> {
        Borrower {
            snapshot: &self.snapshot,
            user: &self.user,
            worker: self.station.worker,
            figures: &self.meter.figures,
            begun: self.meter.lately(),
            without,
            writer: Some(self.client.key.process),
            counts: self.counts,
            recalls: self.recalls || (self.counts && self.snapshot.catalog.has_hidden_recalls),
        }
    }

    pub(super) async fn lend_all(&mut self, shards: Vec<ShardId>, access: Access) -> Result<Vec<Lent>, Stopped> {
        self.check_hidden().await?;
        let mut lents = Vec::with_capacity(shards.len());
        for shard in shards {
            lents.push(self.lend_ready(shard, access, None).await?);
        }
        Ok(lents)
    }

    /// After its use outside of blocks: back to its pool, or to the session, if that is tied to it. One that is not sound is
    /// closed, and what the session held there is gone.
    pub(super) fn part_with(&mut self, mut lent: Lent, is_sound: bool, now: Instant) {
        if is_sound && lent.tied {
            lent.end_writes(true);
            self.pin = Some(Pin { lent });
        } else if is_sound {
            lent.give_back(now);
        } else {
            if lent.tied {
                self.pin_for(None);
                self.doubtful = false;
            }
            lent.abandon();
        }
    }
}

/// What a statement of this session needs of its server.
pub(super) fn need<'a>(
    wishes: &Wishes,
    user: &User,
    position: &Position,
    (database, shard, access): (&'a Database, ShardId, Access),
) -> Need<'a> {
    let floor = position.floor(shard);
    Need {
        database,
        shard,
        access: need_of(access),
        consistency: wishes.consistency().or(user.consistency).unwrap_or(database.consistency),
        wrote: floor.write,
        read: floor.replica_read.map(|(read, _)| read),
        last: floor.replica_read.map(|(_, server)| server),
    }
}

fn need_of(access: Access) -> crate::balance::Access {
    match access {
        Access::Read => crate::balance::Access::Read,
        Access::ReplicaOnly => crate::balance::Access::ReplicaOnly,
        Access::Write | Access::PrimaryRead => crate::balance::Access::Primary,
    }
}
