//! Carries a unit for one shard out: its connection is lent, what it says relayed, and settled what it has changed.

use bytes::{BufMut, Bytes, BytesMut};

use super::Session;
use super::again::Kept;
use super::block::Came;
use super::carried::Carried;
use super::decide::{Decided, Way};
use super::digest::Steps;
use super::effects::Effect;
use super::names::Done;
use super::numbers::must_expect_copies;
use super::run::{End, terminated};
use super::signals::ends_processes;
use super::transaction::{Open, Transaction};
use crate::error::{Error, SqlState};
use crate::executor::{Broken, relay};
use crate::figures::Route;
use crate::plan::Access;
use crate::topology::ShardId;
use crate::wire::frame::server;
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
        let taken = match self.take_for_unit(shard, access, &decided.effects).await? {
            Ok(open) if must_expect_copies(&open, &decided.effects) => {
                let copies = self.copies_of(&steps, &client.input);
                Box::pin(self.expect_copies(copies, open)).await
            }
            taken => taken,
        };
        let mut open = match taken {
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
            self.last_write.nth += 1;
            open.lent.connection.writer = Some(self.last_write);
        }
        self.foretell(client, &mut open, &decided);
        open.lent.connection.owed.start_counting();
        let mut carried = Carried::new(self, steps, &open, &decided.effects);
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
                if effects.iter().any(|effect| matches!(effect, Effect::Signal { .. })) {
                    Box::pin(self.signal_clients(client, &strangers, &effects)).await?;
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
        if effects.iter().any(|effect| matches!(effect, Effect::Vacates(_)))
            && let Err(error) = Box::pin(self.vacate(effects)).await
        {
            return Ok(Err(error.into()));
        }
        self.foresee_recalls(access, effects);
        let begun = match &self.transaction {
            Transaction::Begun(begun) if signals => Some(begun.clone()),
            _ => None,
        };
        let taken = self.take_live_connection(shard, access, effects).await;
        let may_recall = access == Access::Write && effects.contains(&Effect::MayRecall);
        let recalls = std::mem::take(&mut self.recalls) || may_recall;
        let taken = match taken {
            Ok(open) if recalls || self.may_be_misled(access, &open) => {
                Box::pin(self.with_own_numbers(open, effects)).await
            }
            taken => taken,
        };
        match taken {
            Ok(open) if signals => Box::pin(self.signal(open, effects, begun)).await.map(Ok),
            taken => Ok(taken),
        }
    }

    /// What the client asked before may be what it waits for, whatever becomes of this.
    pub(super) async fn send_answers(&self, client: &mut Channel) -> Result<(), End> {
        match client.is_written() {
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
        self.vacated(effects, true);
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
        let is_ended = ends_processes(effects) || self.client.is_doomed();
        let error = if is_ended { terminated() } else { describe_loss(error, open.wrote, effects) };
        self.lose(open, was_in_block, effects);
        match again {
            true => Ok(None),
            false if midway || is_ended => Err(End::Refused(error)),
            false => Ok(Some(Stopped::Refused(error))),
        }
    }

    /// Before the unit is sent: whoever may be touched by it.
    fn foretell(&mut self, client: &mut Channel, open: &mut Open, decided: &Decided) {
        let was_in_block = open.lent.connection.status != Status::Idle;
        let may_commit = !was_in_block || decided.effects.contains(&Effect::Commit);
        self.touch(&mut open.lent, &decided.touched, may_commit);
        self.record(client, [&open.lent]);
        if decided.effects.contains(&Effect::Notify) || (self.ears.is_some() && open.wrote) {
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
        self.vacated(effects, failed);
        self.settle(open, effects, failed, was_in_block);
        let ended_all = self.names.settle(done);
        if failed && ended_all && effects.contains(&Effect::Discard) {
            // It commits by itself, whatever comes behind it.
            self.reset();
            self.settings.commit();
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

/// COMMIT ends a block that has failed as ROLLBACK does.
fn commit_nothing(effects: &mut [Effect]) {
    if let Some(end) = effects.iter_mut().find(|effect| matches!(effect, Effect::Commit | Effect::Rollback)) {
        *end = Effect::Rollback;
    }
}

/// What the client is told when a server was lost: what may have happened to what was written.
fn describe_loss(error: Error, wrote: bool, effects: &[Effect]) -> Error {
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
