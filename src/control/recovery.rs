//! Two-phase commits that nobody ended: their decision is asked of home, which alone knows.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::connect::{Client, Login, SqlError};
use super::primaries::Primaries;
use crate::statement::quoted_literal;
use crate::topology::ShardId;

/// Writes over several shards that this process is carrying out.
#[derive(Default)]
pub struct InProgress {
    gids: Mutex<HashSet<String>>,
    sequence: AtomicU64,
    /// Tells this process from others, before and beside it.
    process: std::sync::OnceLock<u64>,
}

/// The name of one write; while it lives, recovery leaves the write alone.
pub struct Ticket {
    gid: String,
    progress: Arc<InProgress>,
}

impl InProgress {
    /// `pgweir:<home shard>:<process>:<sequence>`
    pub fn begin(self: &Arc<Self>, home: ShardId) -> Ticket {
        let process = self.process.get_or_init(rand::random);
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let gid = format!("{PREFIX}{}:{process:016x}:{sequence}", home.0);
        self.gids.lock().unwrap_or_else(PoisonError::into_inner).insert(gid.clone());
        Ticket { gid, progress: Arc::clone(self) }
    }

    fn has(&self, gid: &str) -> bool {
        self.gids.lock().unwrap_or_else(PoisonError::into_inner).contains(gid)
    }
}

impl Ticket {
    pub fn gid(&self) -> &str {
        &self.gid
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.progress.gids.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.gid);
    }
}

/// Looks after one database until it is aborted.
pub(super) async fn watch(primaries: Primaries, progress: Arc<InProgress>, retention: Duration) {
    let mut pruned = Instant::now();
    loop {
        sleep(INTERVAL).await;
        let Some(logins) = primaries.all() else { continue };
        // A shard that is away or hangs does not keep the others waiting.
        let each = (0..logins.len()).map(|shard| recover(shard, &logins, &primaries, &progress));
        join_all(each.map(|work| within_deadline("recovery of two-phase commits", work))).await;
        if pruned.elapsed() > PRUNE_INTERVAL {
            within_deadline("pruning of decisions", prune(&logins, &primaries, retention)).await;
            pruned = Instant::now();
        }
    }
}

/// What does not come to its end now, is begun anew with the next round.
async fn within_deadline(what: &str, work: impl Future<Output = Result<(), SqlError>>) {
    match timeout(DEADLINE, work).await {
        Ok(Ok(())) => {}
        Ok(Err(cause)) => tracing::debug!(%cause, what),
        Err(_) => tracing::debug!(cause = "no answer", what),
    }
}

async fn recover(shard: usize, logins: &[Login], primaries: &Primaries, progress: &InProgress) -> Result<(), SqlError> {
    let login = &logins[shard];
    let found = primaries.lend(login).await?.rows(PREPARED).await?;
    for (gid, owner) in found.into_iter().filter_map(pair) {
        let home = gid.strip_prefix(PREFIX).and_then(|rest| rest.split(':').next()).and_then(|home| home.parse().ok());
        let Some(home) = home.and_then(|home: usize| logins.get(home)) else { continue };
        if progress.has(&gid) || gid.contains('\'') {
            continue;
        }
        let outcome = outcome(&primaries.lend(home).await?, &gid).await?;
        let end = if outcome == "committed" { "COMMIT" } else { "ROLLBACK" };
        tracing::warn!(gid, outcome, "ending a prepared transaction that was left behind");
        // Only its owner, or a superuser, may.
        let owner = primaries.as_owner(shard, login, &owner);
        primaries.lend(&owner).await?.batch(&format!("{end} PREPARED '{gid}'")).await?;
    }
    Ok(())
}

fn pair(row: Vec<Option<String>>) -> Option<(String, String)> {
    let [gid, owner] = <[Option<String>; 2]>::try_from(row).ok()?;
    Some((gid?, owner?))
}

/// Absence is never read as abort: an `aborted` row is inserted, which waits for a decision that is being committed.
async fn outcome(home: &Client, gid: &str) -> Result<String, SqlError> {
    home.batch(&format!(
        "INSERT INTO pgweir.decisions (gid, outcome) VALUES ('{gid}', 'aborted') ON CONFLICT DO NOTHING"
    ))
    .await?;
    let rows = home.rows(&format!("SELECT outcome FROM pgweir.decisions WHERE gid = '{gid}'")).await?;
    Ok(rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()).unwrap_or_default())
}

/// Decisions of writes of which no shard holds anything any more.
async fn prune(logins: &[Login], primaries: &Primaries, retention: Duration) -> Result<(), SqlError> {
    let mut held = Vec::new();
    let mut clients = Vec::new();
    for login in logins {
        let client = primaries.lend(login).await?;
        held.extend(client.rows(ALL_PREPARED).await?.into_iter().filter_map(|row| row.into_iter().next().flatten()));
        clients.push(client);
    }
    let kept: Vec<String> = held.iter().map(|gid| quoted_literal(gid)).collect();
    let kept = if kept.is_empty() { "''".to_owned() } else { kept.join(",") };
    for client in &clients {
        let sql = format!(
            "DELETE FROM pgweir.decisions WHERE decided_at < now() - interval '{} seconds' AND gid NOT IN ({kept})",
            retention.as_secs()
        );
        client.batch(&sql).await?;
    }
    Ok(())
}

const PREFIX: &str = "pgweir:";
const PREPARED: &str = "SELECT gid, owner FROM pg_prepared_xacts WHERE database = current_database() \
     AND gid LIKE 'pgweir:%' AND prepared < now() - interval '5 seconds'";
const ALL_PREPARED: &str =
    "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND gid LIKE 'pgweir:%'";
const INTERVAL: Duration = Duration::from_secs(1);
const PRUNE_INTERVAL: Duration = Duration::from_secs(30);
const DEADLINE: Duration = Duration::from_secs(5);
