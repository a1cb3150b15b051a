//! One task for each server: is it there, what is it, how far is it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::connect::{Client, Login, SqlError, connect};
use crate::balance::{Health, Lsn, Sample, ServerState, ShardState};
use crate::topology::{ConfiguredRole, Role};

/// Probes until it is aborted.
pub(super) async fn watch(state: Arc<ServerState>, shard: Arc<ShardState>, login: Login, interval: Duration) {
    let mut client: Option<Client> = None;
    let (mut suspected, mut unanswered) = (false, 0);
    loop {
        let probe = async {
            if suspected {
                reconnect(&mut client, &login, &state).await?;
            }
            probe(&mut client, &login, &state, &shard).await
        };
        let wait = match timeout(DEADLINE, probe).await {
            Ok(Ok(())) => {
                unanswered = 0;
                pause(&state, &shard, interval)
            }
            // Somebody may have ended that one connection: a new one tells.
            Ok(Err(_)) if client.take().is_some() => {
                state.health().up_since = None;
                Duration::ZERO
            }
            Ok(Err(cause)) => {
                fail(&state, cause.to_string());
                RETRY
            }
            Err(_) => {
                unanswered += 1;
                // Reads find another server; where a write would go, one late answer may only mean a busy machine.
                if unanswered >= PATIENCE || state.health().role != Some(Role::Primary) {
                    fail(&state, format!("no answer within {} ms", DEADLINE.as_millis()));
                }
                client = None;
                RETRY
            }
        };
        suspected = false;
        tokio::select! {
            () = sleep(wait) => {}
            () = state.suspected.notified() => suspected = true,
            () = shard.sampled.notified(), if is_replica(&state) && client.is_some() => {}
            () = shard.wanted.notified(), if client.is_some() && wait > HURRIED => {}
        }
    }
}

/// Whoever suspects a server could not open a connection, or lost one: whether it takes new ones is seen by a new one.
async fn reconnect(client: &mut Option<Client>, login: &Login, state: &ServerState) -> Result<(), SqlError> {
    match connect(login).await {
        Ok(new) => {
            *client = Some(new);
            // Maybe it was started again in between.
            state.health().up_since = None;
        }
        // It has no room for one more; those that it has, work.
        Err(cause) if client.is_some() && cause.sqlstate() == Some(TOO_MANY_CONNECTIONS) => return Ok(()),
        Err(cause) => return Err(cause),
    }
    Ok(())
}

fn pause(state: &ServerState, shard: &ShardState, interval: Duration) -> Duration {
    shard.forget_wants_before(Instant::now().checked_sub(HURRY_LIMIT).unwrap_or_else(Instant::now));
    let pause = if shard.is_wanted() { HURRIED } else { interval };
    // A replica is looked at whenever its primary was, by itself only if the primary does not answer.
    if is_replica(state) { pause * 2 } else { pause }
}

fn is_replica(state: &ServerState) -> bool {
    state.health().role == Some(Role::Replica)
}

fn fail(state: &ServerState, reason: String) {
    state.probe_failed();
    let mut health = state.health();
    if health.up != Some(false) {
        let server = &state.server;
        tracing::warn!(host = server.host, port = server.port, shard = server.shard.0, reason, "server is down");
    }
    health.up = Some(false);
    health.up_since = None;
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
        primary(state, shard, Sample { started, insert, flush, timeline });
    }
    Ok(())
}

fn primary(state: &ServerState, shard: &ShardState, sample: Sample) {
    // A server that was configured as a replica and is none any more gets no write before the configuration says so.
    let leads = match state.server.role {
        ConfiguredRole::Replica => Err("configured as a replica, and takes writes".to_owned()),
        ConfiguredRole::Primary | ConfiguredRole::Auto => shard.lead(&state.server, sample.timeline, sample.started),
    };
    if leads.is_ok() {
        shard.ladder().add(sample);
        shard.sampled.notify_waiters();
    }
    let mut health = state.health();
    welcome(state, &mut health);
    health.role = leads.is_ok().then_some(Role::Primary);
    health.reason = leads.err();
    health.position = Some(sample.flush);
    (health.caught_up, health.caught_up_flush, health.lag, health.lag_bytes) = (None, None, None, None);
}

fn replica(state: &ServerState, shard: &ShardState, replayed: Lsn) {
    let now = Instant::now();
    let ladder = shard.ladder();
    let (rung, flush) = (ladder.caught_up(replayed), ladder.caught_up_flush(replayed));
    let (lag, bytes) = ladder.lag(replayed, now);
    drop(ladder);
    let mut health = state.health();
    welcome(state, &mut health);
    let fits = state.server.role != ConfiguredRole::Primary;
    health.role = fits.then_some(Role::Replica);
    health.reason = (!fits).then(|| "configured as the primary, and in recovery".to_owned());
    (health.caught_up, health.caught_up_flush) = (rung, flush);
    (health.lag, health.lag_bytes, health.position) = (lag, bytes, Some(replayed));
    drop(health);
    if let Some(rung) = rung {
        shard.satisfied(rung);
    }
}

fn welcome(state: &ServerState, health: &mut Health) {
    if health.up == Some(false) {
        let server = &state.server;
        tracing::info!(host = server.host, port = server.port, shard = server.shard.0, "server is up again");
    }
    health.up = Some(true);
    health.up_since.get_or_insert_with(Instant::now);
}

const PROBE: &str = "SELECT pg_is_in_recovery(), \
     CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_insert_lsn() END, \
     CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_flush_lsn() END, \
     CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() END, \
     CASE WHEN pg_is_in_recovery() THEN 0 ELSE ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::int END";
const DEADLINE: Duration = Duration::from_secs(1);
/// Probes of a primary that may stay without an answer before it is taken to be down.
const PATIENCE: u32 = 3;
const TOO_MANY_CONNECTIONS: &str = "53300";
const RETRY: Duration = Duration::from_millis(250);
const HURRIED: Duration = Duration::from_millis(1);
/// A replica that does not catch up within this is not waited for by hurried probes.
const HURRY_LIMIT: Duration = Duration::from_millis(500);
