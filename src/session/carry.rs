//! Carries a decided unit out: borrows connections, makes them ready, relays, settles what the unit changed.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::time::Instant;

use super::again::{Again, Kept};
use super::block::Came;
use super::carried::Carried;
use super::consistent::close_snapshots;
use super::cursors::outside_of_block;
use super::decide::{Decided, Way};
use super::digest::Steps;
use super::effects::Effect;
use super::late::Late;
use super::lent::Lent;
use super::names::Done;
use super::position::Position;
use super::run::{End, terminated};
use super::settings::Tracked;
use super::signals::ends_processes;
use super::station::{Borrowed, Borrower};
use super::transaction::{Begun, Cursor, Open, Transaction};
use super::wishes::Wishes;
use super::{Pin, Session, ties};
use crate::balance::{Need, ShardState};
use crate::cache::Touched;
use crate::control::Ticket;
use crate::error::{Error, SqlState};
use crate::executor::{Broken, Commit, Decision, Ended, Limits, Reading, Request, Writing, read, relay, write};
use crate::figures::Route;
use crate::plan::{Access, Scatter};
use crate::statement::Isolation;
use crate::topology::{Consistency, Database, Role, ServerId, ShardId, User};
use crate::wire::frame::{Header, server};
use crate::wire::message::put_error;
use crate::wire::{Channel, Severity, Status};

/// Why a unit was not carried out; the client gets an error and stays.
pub(super) enum Stopped {
    Refused(Error),
    /// The body of a server's ErrorResponse to something the proxy asked in the unit's name.
    Server(Bytes),
    /// The client has the error already.
    Told,
}

/// How a unit ended that was carried to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carriage {
    Done,
    /// The client has the server's error.
    Failed,
}

/// A unit that was not carried out, or not to its end.
pub(super) struct Halted {
    pub why: Stopped,
    /// Its last message is off the client's input.
    pub taken: bool,
    /// Bytes still to come of a message of which some is off the client's input.
    pub left: usize,
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl Session {
    /// Relays the unit of `length` bytes (as far as they are there) at the front of the client's input over one
    /// connection.
    pub(super) async fn carry_one(
        &mut self,
        client: &mut Channel,
        decided: Decided,
        steps: Steps,
        length: usize,
    ) -> Result<Result<Carriage, Halted>, End> {
        let Way::One { shard, access } = decided.way else { unreachable!("several shards are not relayed") };
        self.send_answers(client).await?;
        let may_repeat = self.may_repeat(access, length);
        let mut open = match self.take_for_unit(shard, access, &decided.effects).await? {
            Ok(open) => open,
            Err(why) => {
                self.names.settle(Done::Some(0));
                return Ok(Err(Halted { why, taken: false, left: 0 }));
            }
        };
        if open.lent.connection.has_outdated_statements() {
            // A connection that is lost is found to be so below.
            let _ = Box::pin(open.lent.connection.renew_statements()).await;
        }
        self.meter.route = Route::One(open.lent.shard, open.lent.role);
        self.put_news(&mut client.output);
        let before = open.lent.connection.status;
        let was_in_block = before != Status::Idle;
        let may_retry = may_repeat || (!was_in_block && self.may_make_anew(&steps, length));
        let kept = may_retry.then(|| Kept::new(client, length, may_repeat));
        if access == Access::Write {
            open.wrote = true;
            open.lent.connection.writer = Some(self.client.key.process);
        }
        self.foretell(client, &mut open, &decided);
        open.lent.connection.owed.start_counting();
        let mut carried = Carried::new(self, steps, open.lent.shard, &decided.effects);
        let outcome = relay(client, &mut open.lent.connection, &mut carried).await;
        let (failed, (taken, left), leaves) = (carried.failed, carried.taken(), carried.leaves);
        let (trouble, strangers) = (carried.trouble, std::mem::take(&mut carried.strangers));
        let mut effects = decided.effects;
        effects.extend(carried.end(&mut open.lent.connection));
        if before == Status::Failed {
            commit_nothing(&mut effects);
        }
        open.heard.append(&mut carried.heard);
        open.forgot = carried.forgets;
        match outcome {
            Ok(()) => {
                if let Some(trouble) = trouble {
                    open = match Box::pin(self.try_again(client, kept, open, trouble)).await {
                        Ok(()) => return Ok(Ok(Carriage::Done)),
                        Err(open) => open,
                    };
                }
                self.settle_answered(open, &effects, failed, was_in_block).await;
                if !strangers.is_empty() {
                    Box::pin(self.signal_strangers(&strangers, &effects)).await;
                }
                if leaves {
                    return Err(End::Left);
                }
                Ok(Ok(if failed { Carriage::Failed } else { Carriage::Done }))
            }
            Err(Broken::Server { .. }) if leaves => Err(End::Left),
            Err(broken) => match self.halt(client, (kept, taken), *open, (broken, was_in_block, &effects))? {
                Some(why) => Ok(Err(Halted { why, taken, left })),
                None => Ok(Ok(Carriage::Done)),
            },
        }
    }

    /// A connection for a unit of these effects, which may mind whose it was before, or what it is.
    async fn take_for_unit(&mut self, shard: ShardId, access: Access, effects: &[Effect]) -> Came<Box<Open>> {
        let signals = effects.iter().any(|effect| matches!(effect, Effect::Signal { .. } | Effect::Number));
        self.recalls = effects.contains(&Effect::Recalls);
        let begun = match &self.transaction {
            Transaction::Begun(begun) if signals => Some(begun.clone()),
            _ => None,
        };
        let taken = self.take_live_connection(shard, access, effects).await;
        match (std::mem::take(&mut self.recalls), taken) {
            (true, Ok(open)) => Ok(Box::pin(self.with_own_numbers(open, effects)).await),
            (false, Ok(open)) if signals => Box::pin(self.signal(open, effects, begun)).await.map(Ok),
            (_, taken) => Ok(taken),
        }
    }

    /// What the client asked before may be what it waits for, whatever becomes of this.
    pub(super) async fn send_answers(&self, client: &mut Channel) -> Result<(), End> {
        match client.output.is_empty() {
            true => Ok(()),
            false => client.flush_some().await.map_err(End::Gone),
        }
    }

    /// After a relay that broke. `None`: the unit, off the input (`taken`) or not, is served anew.
    #[cold]
    fn halt(
        &mut self,
        client: &mut Channel,
        (kept, taken): (Option<Kept>, bool),
        open: Open,
        (broken, was_in_block, effects): (Broken, bool, &[Effect]),
    ) -> Result<Option<Stopped>, End> {
        if self.client.is_terminated() {
            open.abandon();
            return Err(End::Refused(terminated()));
        }
        let (error, midway) = match broken {
            Broken::Client(cause) => {
                open.abandon();
                return Err(End::Gone(cause));
            }
            Broken::Refused(error) => {
                open.abandon();
                return Err(End::Refused(error));
            }
            Broken::Server { error, midway } => (error, midway),
        };
        self.names.settle(Done::Some(0));
        let again = self.try_without(client, kept, &open, taken);
        tracing::debug!(%error, detail = error.detail, taken, retrying = ?self.retrying, again, "server lost");
        let error = describe_loss(error, open.wrote, effects);
        self.lose(open, was_in_block, effects);
        match again {
            true => Ok(None),
            false if midway || ends_processes(effects) => Err(End::Refused(error)),
            false => Ok(Some(Stopped::Refused(error))),
        }
    }

    /// Before the unit is sent: whoever may be touched by it.
    fn foretell(&mut self, client: &mut Channel, open: &mut Open, decided: &Decided) {
        let was_in_block = open.lent.connection.status != Status::Idle;
        let may_commit = !was_in_block || decided.effects.contains(&Effect::Commit);
        self.touch(&mut open.lent, &decided.touched, may_commit);
        self.record(client, [&open.lent]);
        if decided.effects.contains(&Effect::Notify) {
            self.lend_voice(&mut open.lent);
        }
    }

    async fn settle_answered(&mut self, open: Box<Open>, effects: &[Effect], failed: bool, was_in_block: bool) {
        let done = match (failed, &open.lent.connection.owed) {
            (false, _) => Done::All,
            (true, owed) if owed.lost_unnamed() => Done::SomeAndLost(owed.names()),
            (true, owed) => Done::Some(owed.names()),
        };
        if open.wrote && effects.contains(&Effect::Ddl) {
            self.note_ddl(effects);
        }
        self.settle(open, effects, failed, was_in_block);
        let ended_all = self.names.settle(done);
        if failed && ended_all && effects.contains(&Effect::Discard) {
            // It commits by itself, whatever comes behind it.
            self.reset();
            self.settings.commit();
        }
    }

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

    /// As [`Session::take_connection`], where there is nothing to wait for.
    fn take_at_once(&mut self, shard: ShardId, access: Access) -> Option<Box<Open>> {
        match std::mem::replace(&mut self.transaction, Transaction::Idle) {
            Transaction::Open(open) if open.lent.shard == shard => Some(open),
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
        lent.connection.oids = self.snapshot.catalog.oids(shard.0).cloned();
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
            writer: self.recalls.then_some(self.client.key.process),
        }
    }

    /// After the last reply of a unit.
    pub(super) fn settle(&mut self, mut open: Box<Open>, effects: &[Effect], failed: bool, was_in_block: bool) {
        let now = self.meter.answered();
        self.note_served(&open.lent, open.wrote, now);
        if effects.is_empty() && !failed && !was_in_block && self.leaves_nothing(&open) {
            return open.lent.give_back(now);
        }
        let status = open.lent.connection.status;
        let commits = effects.contains(&Effect::Commit);
        open.reads_plainly &= effects.is_empty() && !failed;
        match status {
            Status::Idle => open.lent.end_writes(commits || !(failed || effects.contains(&Effect::Rollback))),
            _ => open.lent.writes.go_on(commits),
        }
        let mut pin = None;
        if failed && effects.iter().any(|effect| matches!(effect, Effect::Discard | Effect::ForgetStatements)) {
            // Whether the server came so far is not known.
            open.lent.connection.taint();
        }
        if failed && self.by_name.as_ref().is_some_and(|by_name| by_name.leaves_doubt()) {
            open.lent.connection.taint();
        }
        // What failed may have taken a lock before, or called what did: an error does not release it.
        self.doubt_ties(effects);
        open.lent.tied |= self.pin.is_none() && effects.iter().any(ties::makes);
        if failed && (may_have_set(effects, &open, was_in_block) || effects.contains(&Effect::Unseen)) {
            open.lent.connection.distrust();
        }
        if !failed {
            effects.iter().for_each(|effect| self.take_effect(effect, &mut open, &mut pin));
        }
        if status == Status::Idle {
            self.end_block(&mut open, !failed);
        }
        if self.pin.is_some() {
            // Another connection is what the session is tied to.
            match status {
                Status::Idle => {
                    self.note_heard(&mut open);
                    open.lent.give_back(now);
                }
                _ => self.transaction = Transaction::Open(open),
            }
            return;
        }
        let pinned = self.pinned;
        let lasting = pinned.filter(|reason| *reason == ties::SET_CONFIG);
        let pin = lasting.or(pin).or(pinned).or_else(|| self.is_session_pooled().then_some(super::SESSION_MODE));
        if pin != pinned {
            self.pin_for(pin);
            if pin == Some(ties::SET_CONFIG) {
                self.tell_of_tie(pin);
            }
        }
        if status == Status::Idle && pin != Some(ties::SET_CONFIG) {
            self.note_heard(&mut open);
        }
        // Kept until what it notified was heard in this client's name.
        self.doubtful |= open.lent.voice.is_some();
        match (status, pin) {
            (Status::Idle, None) if !self.doubtful => open.lent.give_back(now),
            (Status::Idle, _) => self.pin = Some(Pin { lent: open.lent }),
            _ => self.transaction = Transaction::Open(open),
        }
    }

    /// Of a statement by itself, answered and without effects: nothing that came with it stays, in the session or on its
    /// connection.
    fn leaves_nothing(&self, open: &Open) -> bool {
        let is_bare = open.lent.connection.status == Status::Idle && open.lent.voice.is_none();
        let is_bound = self.pinned.is_some() || self.doubtful || self.is_session_pooled() || self.pin.is_some();
        let is_named = self.by_name.is_some() || self.ears.is_some() || self.local_variant != 0;
        is_bare && open.heard.is_empty() && open.changes.is_empty() && !is_bound && !is_named
    }

    /// What the session has seen or done there bounds what its next reads may show.
    pub(super) fn note_served(&mut self, lent: &Lent, wrote: bool, now: Instant) {
        match lent.role {
            Role::Replica => self.position.read_replica(lent.shard, lent.server, now),
            Role::Primary if wrote => self.note_write(lent.shard, now),
            // It came here for the cache's sake, as a hit of its answer would: what follows is to show no less.
            Role::Primary if self.filling.is_some() => self.position.saw(lent.shard, now),
            Role::Primary => {}
        }
    }

    pub(super) fn note_write(&mut self, shard: ShardId, now: Instant) {
        self.position.wrote(shard, now);
        // Probes look out for the replica that has it.
        if let Some(state) = self.shard_state(shard) {
            state.wrote(now);
        }
    }

    fn shard_state(&self, shard: ShardId) -> Option<&Arc<ShardState>> {
        self.snapshot.fleet.shard(&self.snapshot.name, shard)
    }

    /// What was reported and not set by this session, the server's configuration has changed.
    fn note_heard(&self, open: &mut Open) {
        let heard = std::mem::take(&mut open.heard);
        if !open.lent.connection.is_trusted() {
            // The session may have set it after all.
            return;
        }
        for (name, value) in heard {
            let is_own = self.settings.value(&name.to_ascii_lowercase()).is_some();
            if !is_own && !super::WHO_ONE_IS.contains(&name.as_str()) {
                open.lent.hear(&name, &value);
            }
        }
    }

    fn end_block(&mut self, open: &mut Open, committed: bool) {
        if committed {
            self.commit_settings(open);
        } else {
            self.settings.rollback();
            open.changes.clear();
        }
        self.end_wishes(committed);
        self.local_variant = 0;
    }

    /// What the session asked for, of routing and of notifications, that takes effect with its transaction.
    fn end_wishes(&mut self, committed: bool) {
        self.wishes.end(committed);
        self.ears.take_if(|ears| !ears.end(committed));
    }

    fn commit_settings(&mut self, open: &mut Open) {
        self.settings.commit();
        for change in open.changes.drain(..) {
            open.lent.connection.applied = Tracked::on_server(&open.lent.connection.applied, &change);
        }
    }

    pub(super) fn take_effect(&mut self, effect: &Effect, open: &mut Open, pin: &mut Option<&'static str>) {
        match effect {
            Effect::Setting(change) => {
                if *change == super::settings::Change::ResetAll {
                    self.wishes = Wishes::default();
                }
                self.settings.apply(change);
                open.changes.push(change.clone());
            }
            Effect::Cursor(name) => open.cursors.push(Cursor::On(name.clone(), open.lent.shard)),
            Effect::Savepoint(name) => {
                self.settings.savepoint(name);
                self.ears.iter_mut().for_each(|ears| ears.savepoint(name));
            }
            Effect::Release(name) => self.settings.release(name),
            Effect::RollbackTo(name) => {
                self.settings.rollback_to(name);
                self.ears.iter_mut().for_each(|ears| ears.rollback_to(name));
                if !open.changes.is_empty() {
                    // Which of them are undone, the server knows.
                    open.lent.connection.distrust();
                }
            }
            Effect::Commit => {
                self.commit_settings(open);
                open.begin_anew();
                self.end_wishes(true);
            }
            Effect::Rollback => {
                self.settings.rollback();
                self.end_wishes(false);
                open.changes.clear();
                open.begin_anew();
            }
            Effect::Begin(begun) => open.begin(begun),
            Effect::Replay(text) => {
                if let Some(begun) = &mut open.begun {
                    begun.texts.push(text.clone());
                }
            }
            Effect::Pin(reason) => *pin = Some(reason),
            Effect::Discard => {
                self.names.deallocate_marked();
                if !open.forgot {
                    self.names.forget_unnamed();
                    open.lent.connection.forget_statements();
                }
                open.lent.connection.applied = Arc::default();
                open.changes.clear();
                self.pin_for(None);
                self.reset();
            }
            Effect::Unlisten(channel) => self.ears.iter_mut().for_each(|ears| ears.unlisten(channel.as_deref())),
            Effect::Notify => self.ears.iter_mut().for_each(|ears| ears.notifies()),
            Effect::ForgetStatements => {
                self.names.deallocate_marked();
                if !open.forgot {
                    open.lent.connection.forget_statements();
                }
            }
            Effect::Named => self.take_named(&mut open.lent.connection),
            Effect::Unseen => open.lent.connection.distrust(),
            Effect::Counts => self.recalled = None,
            Effect::Local => self.local_variant = rand::random(),
            // The former is waited for when the unit has been settled.
            Effect::Ddl | Effect::Untie | Effect::Signal { .. } | Effect::Number | Effect::Recalls => {}
        }
    }

    /// DISCARD ALL: the session's state is as after its log-in.
    fn reset(&mut self) {
        self.wishes = Wishes::default();
        self.settings.apply(&super::settings::Change::ResetAll);
        self.settings.apply(&super::settings::Change::Reset("role".to_owned()));
        self.settings.apply(&super::settings::Change::Reset("session_authorization".to_owned()));
        self.ears = None;
        self.recalled = None;
    }

    /// The server is gone: a block cannot go on, and is over where the unit was to end it.
    pub(super) fn lose(&mut self, mut open: Open, was_in_block: bool, effects: &[Effect]) {
        // It may have been committed.
        let wrote: Vec<ShardId> = open.parts().filter(|part| part.2).map(|(_, shard, _)| shard).collect();
        wrote.into_iter().for_each(|shard| self.note_write(shard, Instant::now()));
        self.snapshot.fleet.suspect(&open.lent.connection.server);
        open.abandon();
        if self.pin.is_none() {
            self.pin_for(None);
            self.doubtful = false;
        }
        if was_in_block && !effects.iter().any(|effect| matches!(effect, Effect::Commit | Effect::Rollback)) {
            self.transaction = Transaction::Failed(None);
        }
        self.local_variant = 0;
        self.settings.rollback();
        self.end_wishes(false);
    }

    /// An error of the proxy's own fails the block, as an error of the server would.
    pub(super) fn fail_transaction(&mut self) {
        self.transaction = match std::mem::replace(&mut self.transaction, Transaction::Idle) {
            Transaction::Idle => Transaction::Idle,
            Transaction::Begun(_) => Transaction::Failed(None),
            Transaction::Open(open) => Transaction::Failed(Some(open)),
            failed @ Transaction::Failed(_) => failed,
        };
    }

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

    /// Tells the client why its unit was not carried out.
    pub(super) fn put_stopped(&mut self, out: &mut BytesMut, stopped: &Stopped) {
        self.put_news(out);
        match stopped {
            Stopped::Refused(error) => self.put_failure(out, error),
            Stopped::Told => self.fail_transaction(),
            Stopped::Server(body) => {
                self.fail_transaction();
                self.meter.failed(body);
                if crate::backend::is_fatal(body) {
                    let error = Error::new(SqlState::CONNECTION_LOST, crate::backend::describe_failure(body));
                    put_error(out, Severity::Error, &error);
                } else {
                    match self.in_own_words(body) {
                        Some(told) => out.extend_from_slice(&told),
                        None => crate::wire::frame::put(out, server::ERROR, |out| out.put_slice(body)),
                    }
                }
            }
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

/// A unit that failed half way may have committed some of what it, or its block, had set.
fn may_have_set(effects: &[Effect], open: &Open, was_in_block: bool) -> bool {
    let sets = !open.changes.is_empty() || effects.iter().any(|effect| matches!(effect, Effect::Setting(_)));
    let ends = effects.iter().any(|effect| matches!(effect, Effect::Commit | Effect::Rollback));
    sets && (ends || open.lent.connection.status == Status::Idle) && (was_in_block || effects.len() > 1)
}

/// COMMIT ends a block that has failed as ROLLBACK does.
fn commit_nothing(effects: &mut [Effect]) {
    if let Some(end) = effects.iter_mut().find(|effect| matches!(effect, Effect::Commit | Effect::Rollback)) {
        *end = Effect::Rollback;
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

/// What the client is told when a server was lost: what may have happened to what was written.
fn describe_loss(error: Error, wrote: bool, effects: &[Effect]) -> Error {
    if ends_processes(effects) {
        return terminated();
    }
    if wrote && effects.contains(&Effect::Commit) {
        let message = "the server was lost while committing; whether the transaction is committed is not known";
        let told = error.told();
        return Error::new(SqlState::OUTCOME_UNKNOWN, message)
            .with_detail(told.detail.unwrap_or(told.message))
            .with_hint("Look for its rows before trying again.");
    }
    match wrote {
        true => error.with_hint("Outside of a transaction block, the statement may have taken effect."),
        false => error,
    }
}

fn need_of(access: Access) -> crate::balance::Access {
    match access {
        Access::Read => crate::balance::Access::Read,
        Access::ReplicaOnly => crate::balance::Access::ReplicaOnly,
        Access::Write | Access::PrimaryRead => crate::balance::Access::Primary,
    }
}
