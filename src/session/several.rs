//! Carries out statements on several shards at once, outside of blocks.

use tokio::time::Instant;

use super::Session;
use super::carry::Stopped;
use super::consistent::close_snapshots;
use super::cursors::outside_of_block;
use super::late::Late;
use super::lent::Lent;
use super::run::End;
use super::transaction::Transaction;
use crate::cache::Touched;
use crate::control::Ticket;
use crate::error::Error;
use crate::executor::{Broken, Commit, Decision, Ended, Limits, Reading, Request, Writing, read, write};
use crate::figures::Route;
use crate::plan::{Access, Scatter};
use crate::topology::ShardId;
use crate::wire::Channel;
use crate::wire::frame::Header;

impl Session {
    /// A read on several shards.
    pub(super) async fn carry_read(
        &mut self,
        client: &mut Channel,
        mut reading: Reading<'_>,
        access: Access,
        request: Request<'_>,
    ) -> Result<Result<(), Stopped>, End> {
        self.meter.route = route_of(reading);
        // Of floating-point numbers, parts of sums, too, are read as they are shown.
        let reads_values = match reading {
            Reading::Gather(_) => true,
            Reading::Scatter(scatter) => scatter.merge.aggregate.is_some() && self.shows_fewer_digits(),
            Reading::Copy(_) => false,
        };
        if let (true, Err(error)) = (reads_values, self.check_styles()) {
            return Ok(Err(error.into()));
        }
        if !matches!(self.transaction, Transaction::Idle) {
            return self.read_in_block(client, reading, access, request).await;
        }
        if let Reading::Scatter(Scatter { cursor: Some(_), .. }) = reading {
            return Ok(Err(outside_of_block().into()));
        }
        let consistent = self.is_consistent(reading, access);
        let access = if consistent { Access::PrimaryRead } else { access };
        loop {
            let shards = reading.shards();
            let mut lents = match self.lend_all(shards.clone(), access).await {
                Ok(lents) => lents,
                Err(stopped) => return Ok(Err(stopped)),
            };
            self.put_news(&mut client.output);
            if self.ties(reading.ties()) {
                lents.iter_mut().take(1).for_each(|lent| lent.tied = true);
            }
            let answer = client.put_so_far();
            self.record(client, &lents);
            let limits = self.limits();
            let mut inputs: Vec<_> = lents.iter_mut().map(|lent| &mut *lent.connection).collect();
            if consistent && let Err(stopped) = self.open_snapshots(&mut inputs, &shards).await {
                return self.settle_all(lents, Ok(Ended::Done)).map(|_| Err(stopped));
            }
            let ended = read(client, &mut inputs, reading, request, limits).await;
            if consistent && let Err(error) = close_snapshots(&mut inputs).await {
                tracing::debug!(%error, "the end of a read");
            }
            if access == Access::Write {
                self.note_writes(&reading.shards());
            }
            // What is lost with a connection that the session was tied to, its client must hear of.
            let lost = lents.iter().find(|lent| !lent.connection.owed.is_empty());
            let lost = lost.filter(|lent| !lent.tied).map(|lent| lent.server);
            let is_lost = matches!(ended, Err(Broken::Server { .. }));
            let otherwise = reading.otherwise(&ended).filter(|_| client.put_so_far() == answer);
            let outcome = self.settle_all(lents, ended);
            if let Some(otherwise) = otherwise {
                reading = otherwise;
                self.meter.route = route_of(reading);
            } else if !(is_lost && self.try_scatter_again(client, access, (answer, lost))) {
                return outcome;
            }
        }
    }

    /// A statement ties the session to its first connection, or so it may (`may_tie`): the server is asked when the
    /// transaction is over. `false`: it is tied already.
    pub(super) fn ties(&mut self, may_tie: bool) -> bool {
        let ties = may_tie && self.pin.is_none();
        self.doubtful |= ties;
        ties
    }

    fn shows_fewer_digits(&self) -> bool {
        let digits = self.settings.value("extra_float_digits").map(|value| value.trim_matches('\''));
        digits.and_then(|digits| digits.parse::<i32>().ok()).is_some_and(|digits| digits < 1)
    }

    /// Rows go from server to server as text: in every other style, what is read is not what was written.
    pub(super) fn check_styles(&self) -> Result<(), Error> {
        let is = |name: &str, begins: &str| self.reported.get(name).is_none_or(|value| value.starts_with(begins));
        let wrong = match () {
            () if !is("DateStyle", "ISO") => "DateStyle = 'ISO'",
            () if !is("IntervalStyle", "postgres") => "IntervalStyle = 'postgres'",
            () if self.shows_fewer_digits() => "extra_float_digits = 1",
            () => return Ok(()),
        };
        let what = "a statement that joins rows of several shards, with values in another style than PostgreSQL's own,";
        Err(Error::unsupported(what, format!("SET {wrong}.")))
    }

    pub(super) fn limits(&self) -> Limits {
        let process = &self.snapshot.topology.process;
        Limits { merge: process.merge_limit, gather: process.gather_limit }
    }

    /// A write on several shards, all or none.
    pub(super) async fn carry_write(
        &mut self,
        client: &mut Channel,
        writing: Writing<'_>,
        request: Request<'_>,
        touched: &Touched,
    ) -> Result<Result<(), Stopped>, End> {
        self.meter.route = Route::Spread;
        if let (true, Err(error)) = (writing.carries_rows(), self.check_styles()) {
            return Ok(Err(error.into()));
        }
        if !matches!(self.transaction, Transaction::Idle) {
            return self.write_in_block(client, writing, request, touched).await;
        }
        let ticket = match writing.takes_two_phases() {
            true => self.name_write(&writing.shards()).await.map(Some),
            false => Ok(None),
        };
        let ticket = match ticket {
            Ok(ticket) => ticket,
            Err(error) => return Ok(Err(Stopped::Refused(error))),
        };
        let mut lents = match self.lend_all(writing.shards(), Access::Write).await {
            Ok(lents) => lents,
            Err(stopped) => return Ok(Err(stopped)),
        };
        self.put_news(&mut client.output);
        if self.ties(writing.ties()) {
            lents.iter_mut().take(1).for_each(|lent| lent.tied = true);
        }
        let gid = ticket.as_ref().map(Ticket::gid);
        for lent in &mut lents {
            self.touch(lent, touched, false);
            self.announce(lent, gid);
        }
        let Limits { merge, gather } = self.limits();
        let commit = ticket.as_ref().map(|ticket| self.commit_by(ticket));
        let decision = Decision { commit, limit_bytes: merge, gather_limit: gather };
        let mut inputs: Vec<_> = lents.iter_mut().map(|lent| &mut *lent.connection).collect();
        let ended = write(client, &mut inputs, writing, request, &decision).await;
        if gid.is_some() && matches!(ended, Ok(Ended::Failed(_) | Ended::Refused(_))) {
            // All was rolled back.
            lents.iter_mut().for_each(|lent| lent.end_writes(false));
        }
        if let (Some(gid), Ok(Ended::Done)) = (gid, &ended) {
            self.late.extend(Late::of(lents.iter_mut(), gid));
        }
        drop(ticket);
        let written: Vec<ShardId> = writing.shards().into_iter().filter(|shard| !writing.reads_only(*shard)).collect();
        self.note_writes(&written);
        self.settle_all(lents, ended)
    }

    /// How a write of this name is committed.
    pub(super) fn commit_by<'t>(&self, ticket: &'t Ticket) -> Commit<'t> {
        Commit { ticket, timeout: self.snapshot.topology.process.commit_timeout }
    }

    fn note_writes(&mut self, shards: &[ShardId]) {
        let now = Instant::now();
        shards.iter().for_each(|&shard| self.note_write(shard, now));
    }

    /// A name for a write that takes two phases; waits until what decides it is there.
    pub(super) async fn name_write(&self, shards: &[ShardId]) -> Result<Ticket, Error> {
        let (control, owner) = (&self.station.shared.control, self.client.key.process);
        control.begin_write(&self.snapshot.database.name, shards, owner).await
    }

    pub(super) fn settle_all(
        &mut self,
        lents: Vec<Lent>,
        ended: Result<Ended, Broken>,
    ) -> Result<Result<(), Stopped>, End> {
        let now = self.meter.answered();
        for lent in lents {
            self.note_served(&lent, false, now);
            let is_sound = lent.connection.owed.is_empty();
            if !is_sound && matches!(ended, Err(Broken::Server { .. })) {
                self.snapshot.fleet.suspect(&lent.connection.server);
            }
            // What still runs there is of no use to anybody.
            self.part_with(lent, is_sound, now);
        }
        match ended {
            Ok(Ended::Done) => Ok(Ok(())),
            Ok(Ended::Failed(frame)) => {
                self.meter.failed(&frame[Header::BYTES..]);
                Ok(Err(Stopped::Told))
            }
            Ok(Ended::Refused(error)) | Err(Broken::Server { error, midway: false }) => Ok(Err(error.into())),
            Err(Broken::Client(cause)) => Err(End::Gone(cause)),
            Err(Broken::Refused(error) | Broken::Server { error, .. }) => Err(End::Refused(error)),
        }
    }
}

fn route_of(reading: Reading<'_>) -> Route {
    match reading {
        Reading::Scatter(_) => Route::Scatter,
        Reading::Gather(_) => Route::Gather,
        Reading::Copy(_) => Route::Scatter,
    }
}
