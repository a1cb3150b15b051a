//! What ties a session to one server connection, and whether it still does: the server is asked, nothing is counted.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::carry::Stopped;
use super::effects::Effect;
use super::lent::Lent;
use super::transaction::Open;
use super::{Pin, Session};
use crate::error::Error;
use crate::statement::quoted_name;
use crate::topology::ShardId;
use crate::wire::Status;

impl Session {
    /// Notes that a unit with these effects may have tied the session to its connection, or freed it.
    pub(super) fn doubt_ties(&mut self, effects: &[Effect]) {
        let bound = self.pinned.is_some();
        self.doubtful |= effects.iter().any(|effect| makes(effect) || (bound && ends(effect)));
    }

    /// Between transactions: the connection goes back to its pool unless it holds something of this session's.
    pub(super) async fn settle_ties(&mut self) {
        let lasts = self.is_session_pooled() || self.pinned == Some(SET_CONFIG);
        let Some(pin) = &mut self.pin else { return };
        self.doubtful = false;
        if let Some(voice) = pin.lent.voice.take() {
            voice.was_heard().await;
        }
        if lasts {
            return;
        }
        match pin.lent.connection.ask_all(QUESTION).await {
            Ok(Ok(answers)) => self.hold_by(answers).await,
            // It has not said (a `statement_timeout` of the session's may be very short): asked again after the next unit.
            Ok(Err(_)) => self.doubtful = true,
            // A session that was bound to it hears of that when it waits; what was not bound goes on elsewhere.
            Err(_) if self.pinned.is_some() => {}
            Err(_) => {
                if let Some(Pin { lent }) = self.pin.take() {
                    lent.abandon();
                }
            }
        }
    }

    async fn hold_by(&mut self, answers: Vec<String>) {
        let (ties, channels): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| !answer.starts_with('='));
        let channels: Vec<_> = channels.iter().map(|answer| answer[1..].to_owned()).collect();
        let mut tie = KNOWN.into_iter().find(|known| ties.iter().any(|tie| tie == known));
        if !channels.is_empty() && !self.hand_over(channels).await {
            tie = tie.or(Some(LISTEN));
        }
        if tie != self.pinned {
            self.pin_for(tie);
        }
        self.tell_of_tie(tie);
        if tie.is_none()
            && let Some(Pin { lent }) = self.pin.take()
        {
            lent.give_back(Instant::now());
        }
    }

    /// A temporary table goes before one of the same name, but only where it is: nothing may be looked for elsewhere.
    pub(super) async fn check_hidden(&mut self) -> Result<(), Stopped> {
        match self.pin.as_mut().filter(|_| self.pinned == Some(TEMPORARY)) {
            Some(pin) => check_hidden_by(&mut pin.lent).await,
            None => Ok(()),
        }
    }

    /// The log names what ties sessions, each cause once in a while.
    pub(super) fn tell_of_tie(&self, cause: Option<&'static str>) {
        let Some(cause) = cause else { return };
        let (user, database) = (&*self.user.name, &*self.snapshot.name);
        match self.station.shared.told.due(cause, Instant::now()) {
            Some(untold) => {
                tracing::info!(
                    user,
                    database,
                    cause,
                    untold,
                    "a session keeps its server connection between transactions"
                );
            }
            None => {
                tracing::debug!(user, database, cause, "a session keeps its server connection between transactions")
            }
        }
    }

    /// Has the shared connection listen in the place of the session's own; `false`: that must go on.
    async fn hand_over(&mut self, channels: Vec<String>) -> bool {
        if !self.listen(channels).await {
            return false;
        }
        let Some(pin) = &mut self.pin else { return true };
        if !matches!(pin.lent.connection.run("UNLISTEN *").await, Ok(Ok(()))) {
            // It ends when it is given back.
            pin.lent.connection.taint();
        }
        true
    }
}

impl Open {
    /// As [`Session::check_hidden`], of what the block may have made, before it goes to this shard.
    pub(super) async fn check_hidden_from(&mut self, shard: ShardId) -> Result<(), Stopped> {
        match self.lents().find(|lent| lent.tied && lent.shard != shard) {
            // What has failed says so.
            Some(lent) if lent.connection.status == Status::InTransaction => check_hidden_by(lent).await,
            _ => Ok(()),
        }
    }
}

async fn check_hidden_by(lent: &mut Lent) -> Result<(), Stopped> {
    let hidden = lent.connection.ask_all(HIDDEN).await?.map_err(Stopped::Server)?;
    let Some(name) = hidden.first() else { return Ok(()) };
    let what = format!("a statement on other shards while \"{name}\" is a temporary table on shard {}", lent.shard.0);
    let hint = format!("It hides a table of that name; DROP TABLE pg_temp.{} ends that.", quoted_name(name));
    Err(Error::unsupported(what, hint).into())
}

/// What the log was told of ties: for each cause, when, and how often since it was not.
#[derive(Default)]
pub(super) struct Told(Mutex<HashMap<&'static str, (Instant, u64)>>);

impl Told {
    /// It is time to tell of such a tie; gives how many were not told of since the last time.
    fn due(&self, cause: &'static str, now: Instant) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match told.get_mut(cause) {
            Some((last, untold)) if now.saturating_duration_since(*last) < QUIET => {
                *untold += 1;
                None
            }
            Some((last, untold)) => {
                *last = now;
                Some(std::mem::take(untold))
            }
            None => {
                told.insert(cause, (now, 0));
                Some(0)
            }
        }
    }
}

/// Not to be seen beforehand whether it does: a try for a lock may fail, a function do anything.
pub(super) fn makes(effect: &Effect) -> bool {
    matches!(effect, Effect::Pin(_) | Effect::Unseen)
}

fn ends(effect: &Effect) -> bool {
    matches!(effect, Effect::Untie | Effect::Ddl | Effect::ForgetStatements | Effect::Discard)
}

/// Between two lines of the log of one cause.
const QUIET: Duration = Duration::from_secs(60);
pub(super) const ADVISORY_LOCK: &str = "advisory lock";
pub(super) const TEMPORARY: &str = "temporary table";
pub(super) const HELD_CURSOR: &str = "cursor WITH HOLD";
pub(super) const PREPARE: &str = "PREPARE";
/// Until the transaction is over; then only where the shared connection cannot listen instead.
pub(super) const LISTEN: &str = "LISTEN";
/// Not among what is asked for: no server tells which settings of unknown names a session has made.
pub(super) const SET_CONFIG: &str = "set_config";
const KNOWN: [&str; 4] = [ADVISORY_LOCK, TEMPORARY, HELD_CURSOR, PREPARE];

/// Those of [`KNOWN`] that hold, and the names of channels. Whatever is in a schema depends on it, and is found by an
/// index.
const QUESTION: &str = "SELECT 'advisory lock' WHERE EXISTS (SELECT FROM pg_catalog.pg_locks \
     WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid() AND granted) \
     UNION ALL SELECT 'temporary table' WHERE pg_catalog.pg_my_temp_schema() <> 0 AND EXISTS (\
     SELECT FROM pg_catalog.pg_depend WHERE refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass \
     AND refobjid = pg_catalog.pg_my_temp_schema()) \
     UNION ALL SELECT 'cursor WITH HOLD' WHERE EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable) \
     UNION ALL SELECT 'PREPARE' WHERE EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql \
     AND name !~ '^pgweir_[0-9]+$') \
     UNION ALL SELECT '=' || channel FROM pg_catalog.pg_listening_channels() AS listening(channel)";

/// Temporary tables that hide others.
const HIDDEN: &str = "SELECT c.relname FROM pg_catalog.pg_class c WHERE c.relnamespace = pg_catalog.pg_my_temp_schema() \
     AND EXISTS (SELECT FROM pg_catalog.pg_class o JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace \
     WHERE o.relname = c.relname AND o.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_(toast_)?temp_')";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_told_of_each_cause_once_in_a_while() {
        let (told, start) = (Told::default(), Instant::now());
        assert_eq!(told.due(PREPARE, start), Some(0));
        assert_eq!(told.due(PREPARE, start + QUIET / 2), None);
        assert_eq!(told.due(TEMPORARY, start + QUIET / 2), Some(0));
        assert_eq!(told.due(PREPARE, start + QUIET), Some(1));
        assert_eq!(told.due(PREPARE, start + QUIET * 3), Some(0));
    }
}
