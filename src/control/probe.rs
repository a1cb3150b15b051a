//! One task for each server: is it there, what is it, how far is it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::connect::{Client, Login, SqlError, connect};
use crate::balance::{Lsn, Sample, ServerState, ShardState};
use crate::topology::{ConfiguredRole, Role};

/// Probes until it is aborted.
pub(super) async fn watch(state: Arc<ServerState>, shard: Arc<ShardState>, login: Login, interval: Duration) {
    let mut client: Option<Client> = None;
    loop {
        let probe = timeout(DEADLINE, probe(&mut client, &login, &state, &shard));
        let failure = match probe.await {
            Ok(Ok(())) => None,
            Ok(Err(cause)) => Some(cause.to_string()),
            Err(_) => Some(format!("no answer within {} ms", DEADLINE.as_millis())),
        };
        let wait = match failure {
            None => pause(&shard, interval),
            Some(reason) => {
                client = None;
                fail(&state, reason);
                RETRY
            }
        };
        tokio::select! {
            () = sleep(wait) => {}
            () = state.suspected.notified() => {}
            () = shard.wanted.notified(), if client.is_some() && wait > HURRIED => {}
        }
    }
}

fn pause(shard: &ShardState, interval: Duration) -> Duration {
    shard.forget_wants_before(Instant::now().checked_sub(HURRY_LIMIT).unwrap_or_else(Instant::now));
    if shard.is_wanted() { HURRIED } else { interval }
}

fn fail(state: &ServerState, reason: String) {
    state.probe_failed();
    let mut health = state.health();
    if health.up != Some(false) {
        let server = &state.server;
        tracing::warn!(host = server.host, port = server.port, shard = server.shard.0, reason, "server is down");
    }
    health.up = Some(false);
    health.reason = Some(reason);
    health.lag = None;
    health.lag_bytes = None;
    health.caught_up = None;
    health.caught_up_flush = None;
}

async fn probe(
    client: &mut Option<Client>,
    login: &Login,
    state: &ServerState,
    shard: &ShardState,
) -> Result<(), SqlError> {
    let client = match client {
        Some(client) => client,
        None => client.insert(connect(login).await?),
    };
    let started = Instant::now();
    let rows = client.rows(PROBE).await?;
    let row = rows.into_iter().next().unwrap_or_default();
    let text = |column: usize| row.get(column).cloned().flatten();
    let position = |column: usize| text(column).and_then(|text| Lsn::parse(&text));
    let in_recovery = text(0).as_deref() == Some("t");
    if in_recovery {
        replica(state, shard, position(3).unwrap_or_default());
    } else if let (Some(insert), Some(flush)) = (position(1), position(2)) {
        let timeline = text(4).and_then(|text| text.parse().ok()).unwrap_or(0);
        shard.ladder().add(Sample { started, insert, flush, timeline });
        primary(state, flush);
    }
    Ok(())
}

fn primary(state: &ServerState, flush: Lsn) {
    let mut health = state.health();
    welcome(state, health.up);
    health.up = Some(true);
    health.reason = None;
    // A server that was configured as a replica and is none any more gets no write before the configuration says so.
    health.role = (state.server.role != ConfiguredRole::Replica).then_some(Role::Primary);
    health.position = Some(flush);
}

fn replica(state: &ServerState, shard: &ShardState, replayed: Lsn) {
    let now = Instant::now();
    let ladder = shard.ladder();
    let (rung, flush) = (ladder.caught_up(replayed), ladder.caught_up_flush(replayed));
    let (lag, bytes) = ladder.lag(replayed, now);
    drop(ladder);
    let mut health = state.health();
    welcome(state, health.up);
    health.up = Some(true);
    health.reason = None;
    health.role = (state.server.role != ConfiguredRole::Primary).then_some(Role::Replica);
    (health.caught_up, health.caught_up_flush) = (rung, flush);
    (health.lag, health.lag_bytes, health.position) = (lag, bytes, Some(replayed));
    drop(health);
    if let Some(rung) = rung {
        shard.satisfied(rung);
    }
}

fn welcome(state: &ServerState, up: Option<bool>) {
    if up == Some(false) {
        let server = &state.server;
        tracing::info!(host = server.host, port = server.port, shard = server.shard.0, "server is up again");
    }
}

const PROBE: &str = "SELECT pg_is_in_recovery(), \
     CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_insert_lsn() END, \
     CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_flush_lsn() END, \
     CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() END, \
     CASE WHEN pg_is_in_recovery() THEN 0 ELSE ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::int END";
const DEADLINE: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(250);
const HURRIED: Duration = Duration::from_millis(1);
/// A replica that does not catch up within this is not waited for by hurried probes.
const HURRY_LIMIT: Duration = Duration::from_millis(500);
