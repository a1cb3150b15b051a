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
    /// Of other instances.
    pub legs: Vec<(String, Leg)>,
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

/// A connection of a client that has several.
#[derive(Clone, Debug)]
pub struct Leg {
    pub client: i32,
    pub shard: ShardId,
    pub process: i32,
    /// The client is committing.
    pub commits: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Blocker {
    Process(i32),
    /// What was prepared under this name.
    Prepared(String),
}

/// Tells the other instances of this one's connections, and hears of theirs.
async fn exchange(primaries: &Primaries, instance: &str, legs: &[Leg]) -> Result<Vec<(String, Leg)>, SqlError> {
    let Some(home) = primaries.home() else { return Ok(Vec::new()) };
    let row = |leg: &Leg| {
        let Leg { client, shard, process, commits } = leg;
        format!("('{instance}',{client},{},{process},{commits})", shard.0)
    };
    let rows: Vec<String> = legs.iter().map(row).collect();
    let insert = match rows.is_empty() {
        true => String::new(),
        false => format!(
            "INSERT INTO pgweir.parties (instance, client, shard, process, commits) VALUES {} ON CONFLICT DO NOTHING;",
            rows.join(",")
        ),
    };
    let text = format!(
        "BEGIN; SET LOCAL synchronous_commit = off; \
         DELETE FROM pgweir.parties WHERE instance = '{instance}' OR seen < clock_timestamp() - interval '10 s'; \
         {insert} COMMIT; \
         SELECT instance, client, shard, process, commits FROM pgweir.parties WHERE instance <> '{instance}'"
    );
    let client = primaries.lend(&home).await?;
    let answer = client.rows(&text).await;
    if answer.is_err() {
        client.batch("ROLLBACK").await?;
    }
    Ok(answer?.into_iter().filter_map(leg).collect())
}

fn leg(row: Vec<Option<String>>) -> Option<(String, Leg)> {
    let [instance, client, shard, process, commits] = <[Option<String>; 5]>::try_from(row).ok()?;
    let (client, process, commits) = (client?.parse().ok()?, process?.parse().ok()?, commits? == "t");
    Some((instance?, Leg { client, shard: ShardId(shard?.parse().ok()?), process, commits }))
}

/// Asks all of them at once; one that does not answer has nothing to say. `legs` are this instance's.
pub(super) async fn ask(primaries: &Primaries, instance: &str, legs: &[Leg]) -> Waits {
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
    let is_own = |wait: &Wait| legs.iter().any(|leg| leg.shard == wait.shard && leg.process == wait.process);
    // Whoever takes long and waits for nobody is of no interest to others.
    if waits.all.iter().any(is_own) {
        match timeout(DEADLINE, exchange(primaries, instance, legs)).await {
            Ok(Ok(others)) => waits.legs = others,
            Ok(Err(cause)) => tracing::debug!(%cause, "whose connections are whose"),
            Err(_) => tracing::debug!("whose connections are whose: no answer"),
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
     SELECT waiting.pid, blocker, prepared.gid, extract(epoch FROM waiting.query_start)::numeric(20,6) \
     FROM pg_stat_activity waiting CROSS JOIN LATERAL unnest(pg_blocking_pids(waiting.pid)) AS blocker \
     LEFT JOIN pg_locks wanted ON blocker = 0 AND wanted.pid = waiting.pid AND NOT wanted.granted \
       AND wanted.locktype = 'transactionid' \
     LEFT JOIN pg_prepared_xacts prepared ON prepared.transaction = wanted.transactionid \
     WHERE waiting.wait_event_type = 'Lock' AND waiting.datname = current_database()";
const DEADLINE: Duration = Duration::from_secs(1);
