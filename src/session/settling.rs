//! What is left of a unit when it has been answered: its effects on the session, and where its connection goes.

use std::sync::Arc;

use tokio::time::Instant;

use super::effects::Effect;
use super::lent::Lent;
use super::settings::Tracked;
use super::transaction::{Cursor, Open, Transaction};
use super::wishes::Wishes;
use super::{Pin, Session, ties};
use crate::balance::ShardState;
use crate::topology::{Role, ShardId};
use crate::wire::Status;

impl Session {
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
        // A function or a trigger may have notified.
        self.ears.iter_mut().for_each(|ears| ears.notifies());
        // Probes look out for the replica that has it.
        if let Some(state) = self.shard_state(shard) {
            state.wrote(now);
        }
    }

    pub(super) fn shard_state(&self, shard: ShardId) -> Option<&Arc<ShardState>> {
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
        open.renamed |= effect.renames();
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
            Effect::Temporary(name) => {
                open.temporary.insert(name.clone());
            }
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
            // Those of DDL are waited for when the unit has been settled.
            _ => {}
        }
    }

    /// DISCARD ALL: the session's state is as after its log-in.
    pub(super) fn reset(&mut self) {
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
}

/// A unit that failed half way may have committed some of what it, or its block, had set.
fn may_have_set(effects: &[Effect], open: &Open, was_in_block: bool) -> bool {
    let sets = !open.changes.is_empty() || effects.iter().any(|effect| matches!(effect, Effect::Setting(_)));
    let ends = effects.iter().any(|effect| matches!(effect, Effect::Commit | Effect::Rollback));
    sets && (ends || open.lent.connection.status == Status::Idle) && (was_in_block || effects.len() > 1)
}
