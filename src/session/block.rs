//! A transaction block that reaches several shards: a transaction on each, which end together.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::Session;
use super::carry::Stopped;
use super::consistent::take_back_end;
use super::control::{Answer, already_begun};
use super::effects::{self, Effect};
use super::late::Late;
use super::run::End;
use super::settings::Tracked;
use super::transaction::{Begun, Cursor, Open, Transaction};
use crate::backend::Connection;
use crate::cache::Touched;
use crate::error::{Error, SqlState};
use crate::executor::{
    Broken, Decision, Ended, Limits, Reading, Request, Writing, commit_blocks, declare, drain_all, read, write,
};
use crate::figures::Route;
use crate::plan::{Access, Gather, Scatter};
use crate::statement::{Isolation, Kind, SettingControl, Statement, TransactionControl};
use crate::topology::ShardId;
use crate::wire::frame::Header;
use crate::wire::{Channel, Status};

/// What a statement came to: the client's own errors are in it, those of its connection end the session.
pub(super) type Came<T> = Result<Result<T, Stopped>, End>;

impl Session {
    /// The block is on more than one shard.
    pub(super) fn spans(&self) -> bool {
        match &self.transaction {
            Transaction::Open(open) | Transaction::Failed(Some(open)) => open.spans(),
            _ => false,
        }
    }

    /// Makes `shard` the one where the block goes on; it joins if it is new.
    pub(super) async fn reach(
        &mut self,
        mut open: Box<Open>,
        shard: ShardId,
        access: Access,
    ) -> Result<Box<Open>, Stopped> {
        if let Err(stopped) = open.check_hidden_from(shard).await {
            self.transaction = Transaction::Failed(Some(open));
            return Err(stopped);
        }
        if open.switch(shard) {
            return Ok(open);
        }
        match self.lend_ready(shard, access, open.begun.clone().as_ref()).await {
            Ok(lent) => {
                open.join(lent);
                Ok(open)
            }
            Err(stopped) => {
                self.transaction = Transaction::Failed(Some(open));
                Err(stopped)
            }
        }
    }

    /// What the proxy refused must fail the block on its servers, too: they then do what PostgreSQL does in one.
    pub(super) async fn fail_on_servers(&mut self, mut open: Box<Open>) -> Result<Box<Open>, Stopped> {
        let mut lost = None;
        for (connection, ..) in open.parts() {
            if connection.status == Status::InTransaction
                && let Err(error) = connection.run(FAIL).await
            {
                lost.get_or_insert(error);
            }
        }
        match lost {
            None => Ok(open),
            Some(error) => {
                self.lose(*open, true, &[]);
                Err(error.into())
            }
        }
    }

    pub(super) async fn read_in_block(
        &mut self,
        client: &mut Channel,
        mut reading: Reading<'_>,
        access: Access,
        request: Request<'_>,
    ) -> Came<()> {
        loop {
            let shards = reading.shards();
            let mut open = match self.reach_all(&shards, access).await {
                Ok(open) => open,
                Err(stopped) => return Ok(Err(stopped)),
            };
            self.put_news(&mut client.output);
            let answer = client.put_so_far();
            let limits = self.limits();
            let before = match self.is_consistent(reading, access) {
                true => self.look_before(&mut open.connections(&shards), &shards).await.map(Some),
                false => Ok(None),
            };
            let before = match before {
                Ok(before) => before,
                Err(stopped) => {
                    self.transaction = Transaction::Failed(Some(open));
                    return Ok(Err(stopped));
                }
            };
            let mut inputs = open.connections(&shards);
            let ended = match reading {
                Reading::Scatter(plan @ Scatter { cursor: Some(declared), .. }) => {
                    let opened = declare(client, &mut inputs, (plan, declared), request, limits.merge).await;
                    opened.map(|opened| open.take_cursor(opened))
                }
                _ => read(client, &mut inputs, reading, request, limits).await,
            };
            if let (Some(before), Ok(Ended::Done)) = (before, &ended)
                && let Err(stopped) = self.look_after(&mut open.connections(&shards), &before).await
            {
                drop(take_back_end(&mut client.output));
                self.transaction = Transaction::Failed(Some(open));
                return Ok(Err(stopped));
            }
            if access == Access::Write {
                shards.iter().for_each(|&shard| open.note_write(shard));
            }
            if let (Reading::Gather(Gather { at, cursor: Some(name), .. }), Ok(Ended::Done)) = (reading, &ended) {
                open.cursors.push(Cursor::On(name.clone(), *at));
            }
            if self.ties(reading.ties()) {
                open.tie(&shards);
            }
            let Some(otherwise) = reading.otherwise(&ended).filter(|_| client.put_so_far() == answer) else {
                return self.go_on(client, open, &shards, ended).await;
            };
            if let Err(broken) = drain_all(client, &mut open.connections(&shards)).await {
                return self.break_off(*open, broken);
            }
            self.transaction = Transaction::Open(open);
            self.meter.route = Route::Gather;
            reading = otherwise;
        }
    }

    pub(super) async fn write_in_block(
        &mut self,
        client: &mut Channel,
        writing: Writing<'_>,
        request: Request<'_>,
        touched: &Touched,
    ) -> Came<()> {
        let shards = writing.shards();
        let mut open = match self.reach_all(&shards, Access::Write).await {
            Ok(open) => open,
            Err(stopped) => return Ok(Err(stopped)),
        };
        self.put_news(&mut client.output);
        let reached = open.lents().filter(|lent| shards.contains(&lent.shard));
        reached.for_each(|lent| self.touch(lent, touched, false));
        let Limits { merge, gather } = self.limits();
        let decision = Decision { commit: None, limit_bytes: merge, gather_limit: gather };
        let ended = write(client, &mut open.connections(&shards), writing, request, &decision).await;
        let written = shards.iter().filter(|shard| !writing.reads_only(**shard));
        written.for_each(|&shard| open.note_write(shard));
        if self.ties(writing.ties()) {
            open.tie(&shards);
        }
        self.go_on(client, open, &shards, ended).await
    }

    pub(super) async fn reach_all(&mut self, shards: &[ShardId], access: Access) -> Result<Box<Open>, Stopped> {
        let (&first, others) = shards.split_first().expect("a statement on several shards has parts");
        if let Transaction::Begun(begun) = &mut self.transaction
            && self.isolation == Isolation::RepeatableRead
        {
            // Its first statement is on several.
            begun.isolation.get_or_insert(self.isolation);
        }
        let mut open = self.take_connection(first, access).await?;
        for &shard in others {
            open = self.reach(open, shard, access).await?;
        }
        Ok(open)
    }

    /// After a statement on several shards of the block.
    pub(super) async fn go_on(
        &mut self,
        client: &mut Channel,
        mut open: Box<Open>,
        shards: &[ShardId],
        ended: Result<Ended, Broken>,
    ) -> Came<()> {
        let ended = match ended {
            Ok(Ended::Done) => Ok(Ok(())),
            Ok(Ended::Failed(frame)) => {
                self.meter.failed(&frame[Header::BYTES..]);
                Ok(Err(Stopped::Told))
            }
            Ok(Ended::Refused(error)) => Ok(Err(error.into())),
            Err(broken) => Err(broken),
        };
        let ended = match ended {
            Ok(Err(stopped)) => drain_all(client, &mut open.connections(shards)).await.map(|()| Err(stopped)),
            other => other,
        };
        match ended {
            Ok(came) => {
                self.transaction = match came {
                    Ok(()) => Transaction::Open(open),
                    Err(_) => Transaction::Failed(Some(open)),
                };
                Ok(came)
            }
            Err(broken) => self.break_off(*open, broken),
        }
    }

    /// The block's connections are of no use any more.
    pub(super) fn break_off<T>(&mut self, open: Open, broken: Broken) -> Came<T> {
        match broken {
            Broken::Server { error, midway: false } => {
                self.lose(open, true, &[]);
                Ok(Err(error.into()))
            }
            Broken::Server { error, .. } | Broken::Refused(error) => {
                open.abandon();
                Err(End::Refused(error))
            }
            Broken::Client(cause) => {
                open.abandon();
                Err(End::Gone(cause))
            }
        }
    }

    /// Carries out what concerns all shards of an open block: its end, savepoints, settings.
    pub(super) async fn control_block(
        &mut self,
        client: &mut Channel,
        statement: &Statement,
        text: &str,
    ) -> Came<Answer> {
        use TransactionControl as Control;
        let (open, failed) = match std::mem::replace(&mut self.transaction, Transaction::Idle) {
            Transaction::Open(open) => (open, false),
            Transaction::Failed(Some(open)) => (open, true),
            other => {
                self.transaction = other;
                return Ok(Err(Error::new(SqlState::INTERNAL, "no block is open").into()));
            }
        };
        let ends = match &statement.kind {
            Kind::Transaction(Control::Commit { chain }) => Some((!failed, *chain)),
            Kind::Transaction(Control::Rollback { chain }) => Some((false, *chain)),
            _ => None,
        };
        if let Some((commit, chain)) = ends {
            return self.end_block_of_all(client, open, commit, chain).await;
        }
        let open = match failed {
            false => open,
            true => match self.fail_on_servers(open).await {
                Ok(open) => open,
                Err(stopped) => return Ok(Err(stopped)),
            },
        };
        match &statement.kind {
            Kind::Transaction(Control::Begin { .. }) if !open.has_failed() => {
                self.transaction = Transaction::Open(open);
                Ok(Ok(already_begun(text)))
            }
            Kind::Transaction(Control::TwoPhase) => {
                self.transaction = Transaction::Open(open);
                let hint = "COMMIT is all or none on all shards.";
                Ok(Err(Error::unsupported("PREPARE TRANSACTION of a block on several shards", hint).into()))
            }
            kind => {
                let tag = tag_of(kind);
                Ok(self.tell_all(open, statement, text).await.map(|()| Answer::tag(tag)))
            }
        }
    }

    /// Runs a text on every shard of the block.
    async fn tell_all(&mut self, mut open: Box<Open>, statement: &Statement, text: &str) -> Result<(), Stopped> {
        open.reads_plainly = false;
        let mut news = Vec::new();
        let mut outcome = Ok(Ok(()));
        for (connection, ..) in open.parts() {
            let mut report = |name: &str, value: &str| news.push((name.to_owned(), value.to_owned()));
            outcome = connection.run_all(&[text], &mut report).await;
            if !matches!(outcome, Ok(Ok(()))) {
                break;
            }
        }
        let mut open = self.after_run(open, outcome)?;
        news.iter().for_each(|(name, value)| self.hear_and_tell(name, value));
        let mut effects = Vec::new();
        effects::of(statement, None, &mut effects);
        effects.iter().for_each(|effect| self.take_effect(effect, &mut open, &mut None));
        if matches!(statement.kind, Kind::Transaction(TransactionControl::RollbackTo { .. })) {
            open.doubt_cursors();
        }
        self.transaction = Transaction::Open(open);
        Ok(())
    }

    /// After texts of ours on connections of the block: it goes on, or has failed.
    pub(super) fn after_run(
        &mut self,
        open: Box<Open>,
        outcome: Result<Result<(), Bytes>, Error>,
    ) -> Result<Box<Open>, Stopped> {
        match outcome {
            Ok(Ok(())) => Ok(open),
            Ok(Err(body)) => {
                self.transaction = Transaction::Failed(Some(open));
                Err(Stopped::Server(body))
            }
            Err(error) => {
                self.lose(*open, true, &[]);
                Err(error.into())
            }
        }
    }

    /// COMMIT or ROLLBACK on every shard of the block.
    pub(super) async fn end_block_of_all(
        &mut self,
        client: &mut Channel,
        mut open: Box<Open>,
        commit: bool,
        chain: bool,
    ) -> Came<Answer> {
        let commit = commit && !open.has_failed();
        let first = open.begun.clone().filter(|_| chain);
        let limit = self.snapshot.topology.process.commit_timeout;
        let outcome = match commit {
            true => self.commit_all(client, &mut open).await,
            false => {
                roll_back(&mut open, limit).await;
                Ok(Ok(()))
            }
        };
        let committed = commit && matches!(outcome, Ok(Ok(())));
        match outcome {
            Ok(came) => {
                self.release(open, committed);
                if committed {
                    // Before the client goes on by what it has defined.
                    self.settle_catalog().await;
                }
                if let (Some(mut begun), Ok(())) = (first, &came) {
                    begun.texts.truncate(1);
                    self.transaction = Transaction::Begun(begun);
                }
                Ok(came.map(|()| Answer::tag(if commit { "COMMIT" } else { "ROLLBACK" })))
            }
            Err(broken) => {
                let came = self.break_off(*open, broken);
                // Whatever has become of it, the block is over.
                self.transaction = Transaction::Idle;
                came
            }
        }
    }

    /// Read parts first: only what wrote must commit together.
    async fn commit_all(&mut self, client: &mut Channel, open: &mut Open) -> Result<Result<(), Stopped>, Broken> {
        let limit = self.snapshot.topology.process.commit_timeout;
        let mut failure = None;
        for (connection, ..) in open.parts().filter(|part| !part.2) {
            failure = failure.or(run_within(limit, connection, "COMMIT").await.map_err(lost)?.err());
        }
        if let Some(body) = failure {
            roll_back(open, limit).await;
            return Ok(Err(Stopped::Server(body)));
        }
        let mut shards: Vec<ShardId> = open.parts().filter(|part| part.2).map(|(_, shard, _)| shard).collect();
        // The first one commits by itself. Home may have something to notify, which cannot be prepared.
        let database_home = self.snapshot.database.home;
        shards.sort_by_key(|&shard| (shard != database_home, shard));
        match shards.as_slice() {
            [] => return Ok(Ok(())),
            [_] => {
                open.lents().for_each(|lent| self.announce(lent, None));
                let committed = run_within(limit, open.connections(&shards)[0], "COMMIT").await;
                return Ok(committed.map_err(unknown_outcome)?.map_err(Stopped::Server));
            }
            _ => {}
        }
        let ticket = match self.name_write(&shards).await {
            Ok(ticket) => ticket,
            Err(error) => {
                roll_back(open, limit).await;
                return Ok(Err(error.into()));
            }
        };
        open.lents().for_each(|lent| self.announce(lent, Some(ticket.gid())));
        let mut inputs = open.connections(&shards);
        Ok(match commit_blocks(client, &mut inputs, self.commit_by(&ticket)).await? {
            Ended::Done => {
                self.late.extend(Late::of(open.lents(), ticket.gid()));
                Ok(())
            }
            Ended::Failed(_) => Err(Stopped::Told),
            Ended::Refused(error) => Err(error.into()),
        })
    }

    /// The block is over: its connections go back.
    fn release(&mut self, mut open: Box<Open>, committed: bool) {
        let now = self.meter.answered();
        let changes = open.changes.clone();
        for mut member in std::mem::take(&mut open.others) {
            self.note_served(&member.lent, member.wrote, now);
            for change in changes.iter().filter(|_| committed) {
                member.lent.connection.applied = Tracked::on_server(&member.lent.connection.applied, change);
            }
            member.lent.end_writes(committed);
            let is_sound = member.lent.connection.status == Status::Idle;
            self.part_with(member.lent, is_sound, now);
        }
        let end = if committed { Effect::Commit } else { Effect::Rollback };
        if open.lent.connection.status == Status::Idle {
            self.settle(open, &[end], false, true);
        } else {
            self.lose(*open, false, &[]);
        }
    }
}

impl Begun {
    /// The block that PostgreSQL makes of a pipeline.
    pub(super) fn implicit() -> Self {
        Self { texts: vec!["BEGIN".to_owned()], ..Self::default() }
    }
}

/// What a block on several shards must do on all of them.
pub(super) fn concerns_all(kind: &Kind) -> bool {
    match kind {
        Kind::Transaction(_) => true,
        Kind::Setting(control) => !matches!(control, SettingControl::Show { .. }),
        _ => false,
    }
}

fn tag_of(kind: &Kind) -> &'static str {
    match kind {
        Kind::Transaction(TransactionControl::Savepoint { .. }) => "SAVEPOINT",
        Kind::Transaction(TransactionControl::Release { .. }) => "RELEASE",
        Kind::Transaction(TransactionControl::RollbackTo { .. }) => "ROLLBACK",
        Kind::Setting(SettingControl::Reset { .. } | SettingControl::ResetAll) => "RESET",
        _ => "SET",
    }
}

async fn roll_back(open: &mut Open, limit: Duration) {
    for (connection, ..) in open.parts() {
        if connection.status != Status::Idle && connection.owed.is_empty() {
            // A server that cannot even do this is not used again, and does it when its connection ends.
            let _ = run_within(limit, connection, "ROLLBACK").await;
        }
    }
}

async fn run_within(limit: Duration, connection: &mut Connection, sql: &str) -> Result<Result<(), Bytes>, Error> {
    match timeout(limit, connection.run(sql)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(connection.lost(&std::io::Error::other("no answer within commit_timeout"))),
    }
}

fn lost(error: Error) -> Broken {
    Broken::Server { error, midway: false }
}

fn unknown_outcome(error: Error) -> Broken {
    let message = "the server was lost while committing; whether the write happened is not known";
    lost(Error::new(SqlState::OUTCOME_UNKNOWN, message).with_detail(error.to_string()))
}

/// Fails in every transaction, and leaves nothing else behind.
const FAIL: &str = "ROLLBACK TO SAVEPOINT \"pgweir refused a statement\"";
