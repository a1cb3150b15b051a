//! Finds out how writes ended of which nobody heard, so that what they touched can be cached again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::connect::{Client, Pools, SqlError};
use super::login;
use crate::balance::Fleet;
use crate::cache::{Spaces, Unresolved, Witness};
use crate::statement::quoted_literal;
use crate::topology::{Role, Server, Topology};

/// Asks until it is aborted; what is open then is handed out to the next one.
pub(super) async fn watch(spaces: Arc<Spaces>, topology: Arc<Topology>, fleet: Arc<Fleet>, pools: Arc<Pools>) {
    let mut open: Vec<Unresolved> = Vec::new();
    loop {
        if open.is_empty() {
            open = spaces.unresolved().await;
        }
        open.extend(spaces.take_unresolved());
        // One that cannot be reached is not tried again in this round.
        let mut away: HashSet<(String, u16)> = HashSet::new();
        let mut left = Vec::new();
        for write in open {
            let witness = write.witness();
            let place = (witness.server.host.clone(), witness.server.port);
            let over = if leads_elsewhere(&witness.server, &topology, &fleet) {
                // Whatever the old primary did, it is the new one's state that counts from now on.
                true
            } else if away.contains(&place) {
                false
            } else {
                let asked = timeout(DEADLINE, is_over(witness, &topology, &pools)).await.unwrap_or(None);
                if asked.is_none() {
                    away.insert(place);
                }
                asked.unwrap_or(false)
            };
            if over { write.resolved(Instant::now()) } else { left.push(write) }
        }
        open = left;
        sleep(INTERVAL).await;
    }
}

/// Nothing where the server does not answer.
async fn is_over(witness: &Witness, topology: &Topology, pools: &Pools) -> Option<bool> {
    let login = login(&witness.server, topology)?;
    let asked = async { ask(witness, &pools.lend(&login).await?).await };
    asked.await.inspect_err(|cause| tracing::debug!(%cause, "outcome of a write")).ok()
}

/// The server's process is gone, and so is what it may have prepared: then its outcome can be seen by all.
async fn ask(witness: &Witness, client: &Client) -> Result<bool, SqlError> {
    if witness.process == 0 {
        // A server that does not tell its process numbers: nobody can find out.
        return Ok(false);
    }
    let running = format!("SELECT FROM pg_stat_activity WHERE pid = {}", witness.process);
    if !client.rows(&running).await?.is_empty() {
        return Ok(false);
    }
    let Some(gid) = &witness.gid else { return Ok(true) };
    let prepared = format!("SELECT FROM pg_prepared_xacts WHERE gid = {}", quoted_literal(gid));
    Ok(client.rows(&prepared).await?.is_empty())
}

/// Another server has become the primary of the shard.
fn leads_elsewhere(server: &Server, topology: &Topology, fleet: &Fleet) -> bool {
    let database = topology.database(&server.database);
    let shard = database.and_then(|database| database.shards.get(usize::from(server.shard.0)));
    let mut of_shard = shard.iter().flat_map(|shard| &shard.servers).map(|&id| fleet.state(id));
    of_shard.any(|state| {
        let another = (&state.server.host, state.server.port) != (&server.host, server.port);
        another && state.health().role == Some(Role::Primary)
    })
}

const DEADLINE: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(100);
