//! Finds out how writes ended of which nobody heard, so that what they touched can be cached again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::connect::{Client, SqlError, connect};
use super::login;
use crate::balance::Fleet;
use crate::cache::{Spaces, Unresolved, Witness};
use crate::topology::{Role, Server, Topology};

/// Asks until it is aborted; what is open then is handed out to the next one.
pub(super) async fn watch(spaces: Arc<Spaces>, topology: Arc<Topology>, fleet: Arc<Fleet>) {
    let mut open: Vec<Unresolved> = Vec::new();
    loop {
        if open.is_empty() {
            open = spaces.unresolved().await;
        }
        open.extend(spaces.take_unresolved());
        let mut clients: HashMap<(String, u16, String), Option<Client>> = HashMap::new();
        let mut left = Vec::new();
        for write in open {
            let witness = write.witness();
            let over = match leads_elsewhere(&witness.server, &fleet) {
                // Whatever the old primary did, it is the new one's state that counts from now on.
                true => true,
                false => timeout(DEADLINE, is_over(witness, &topology, &mut clients)).await.is_ok_and(|over| over),
            };
            if over { write.resolved(Instant::now()) } else { left.push(write) }
        }
        open = left;
        sleep(INTERVAL).await;
    }
}

async fn is_over(
    witness: &Witness,
    topology: &Topology,
    clients: &mut HashMap<(String, u16, String), Option<Client>>,
) -> bool {
    let server = &witness.server;
    let key = (server.host.clone(), server.port, server.database_name.clone());
    if !clients.contains_key(&key) {
        let Some(login) = login(server, topology) else { return false };
        // One that cannot be reached is not tried again in this round.
        clients.insert(key.clone(), connect(&login).await.ok());
    }
    let Some(Some(client)) = clients.get(&key) else { return false };
    match ask(witness, client).await {
        Ok(over) => over,
        Err(cause) => {
            tracing::debug!(%cause, "outcome of a write");
            clients.insert(key, None);
            false
        }
    }
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
    let prepared = format!("SELECT FROM pg_prepared_xacts WHERE gid = '{}'", gid.replace('\'', "''"));
    Ok(client.rows(&prepared).await?.is_empty())
}

/// Another server has become the primary of the shard.
fn leads_elsewhere(server: &Server, fleet: &Fleet) -> bool {
    let mut of_shard = fleet
        .states()
        .iter()
        .filter(|state| state.server.database == server.database && state.server.shard == server.shard);
    of_shard.any(|state| {
        let another = (&state.server.host, state.server.port) != (&server.host, server.port);
        another && state.health().role == Some(Role::Primary)
    })
}

const DEADLINE: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(100);
