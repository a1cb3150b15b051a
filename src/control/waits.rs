//! Who waits for whom on the primaries of a database.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::connect::SqlError;
use super::primaries::Primaries;
use crate::topology::ShardId;

/// What the primaries say, each of a moment of its own.
#[derive(Debug, Default)]
pub struct Waits {
    pub all: Vec<Wait>,
    /// After which a server looks for deadlocks of its own: the shortest.
    pub deadlock_timeout: Option<Duration>,
}

/// That one process waits for another one on the same server.
#[derive(Clone, Debug)]
pub struct Wait {
    pub shard: ShardId,
    pub place: Arc<(String, u16)>,
    pub process: i32,
    pub blocker: Blocker,
    /// When its statement began.
    pub since: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Blocker {
    Process(i32),
    /// What was prepared under this name.
    Prepared(String),
}

/// Asks all of them at once. One that does not answer has nothing to say.
pub(super) async fn ask(primaries: &Primaries) -> Waits {
    let logins = primaries.leading();
    let each = logins.iter().enumerate().filter_map(|(shard, login)| Some((shard, login.as_ref()?)));
    let answers = join_all(each.map(async |(shard, login)| {
        let asking = async { primaries.lend(login).await?.rows(WAITS).await };
        let answer: Result<_, SqlError> = timeout(DEADLINE, asking).await.ok()?;
        let rows = answer.inspect_err(|cause| tracing::debug!(%cause, "who waits for whom")).ok()?;
        let shard = ShardId(u16::try_from(shard).ok()?);
        Some((shard, Arc::new((login.host.clone(), login.port)), rows))
    }));
    let mut waits = Waits::default();
    for (shard, place, rows) in answers.await.into_iter().flatten() {
        for row in rows {
            match row.as_slice() {
                [Some(millis)] => {
                    let patience = millis.parse().ok().map(Duration::from_millis);
                    waits.deadlock_timeout = waits.deadlock_timeout.into_iter().chain(patience).min();
                }
                [Some(process), Some(blocker), gid, since] => {
                    let place = Arc::clone(&place);
                    waits.all.extend(wait((shard, place), (process, blocker), (gid, since)));
                }
                _ => {}
            }
        }
    }
    waits
}

fn wait(
    (shard, place): (ShardId, Arc<(String, u16)>),
    (process, blocker): (&str, &str),
    (gid, since): (&Option<String>, &Option<String>),
) -> Option<Wait> {
    let blocker = match (blocker.parse().ok()?, gid) {
        (0, Some(gid)) => Blocker::Prepared(gid.clone()),
        (0, None) => return None,
        (process, _) => Blocker::Process(process),
    };
    let since = since.clone().unwrap_or_default();
    Some(Wait { shard, place, process: process.parse().ok()?, blocker, since })
}

/// Rows of one column, and of four. A blocker without a number has been prepared; what waits for a row of its waits for
/// its transaction.
const WAITS: &str = "SELECT setting FROM pg_settings WHERE name = 'deadlock_timeout'; \
     SELECT waiting.pid, blocker, prepared.gid, waiting.query_start \
     FROM pg_stat_activity waiting CROSS JOIN LATERAL unnest(pg_blocking_pids(waiting.pid)) AS blocker \
     LEFT JOIN pg_locks wanted ON blocker = 0 AND wanted.pid = waiting.pid AND NOT wanted.granted \
       AND wanted.locktype = 'transactionid' \
     LEFT JOIN pg_prepared_xacts prepared ON prepared.transaction = wanted.transactionid \
     WHERE waiting.wait_event_type = 'Lock' AND waiting.datname = current_database()";
const DEADLINE: Duration = Duration::from_secs(1);
