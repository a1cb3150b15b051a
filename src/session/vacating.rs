//! Databases that nobody else may be using: those that a statement drops, renames or copies. PostgreSQL waits a while for
//! their clients to leave; connections of the proxy's own would keep it waiting in vain.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::Session;
use super::effects::Effect;
use super::registry::Client;
use super::transaction::Transaction;
use crate::error::Error;
use crate::statement::Vacated;
use crate::topology::OTHERS;

impl Session {
    /// Before such a statement is sent. A database whose clients stay is left to the server, which then refuses.
    pub(super) async fn vacate(&self, effects: &[Effect]) -> Result<(), Error> {
        for effect in effects {
            let Effect::Vacates(Vacated { database, forced }) = effect else { continue };
            if !self.knows_of(database) || !matches!(self.transaction, Transaction::Idle) {
                continue;
            }
            if *forced {
                // Who may drop it need not be allowed to end sessions of the control plane's role.
                self.station.shared.control.let_go(database).await;
                continue;
            }
            let left = async {
                while !self.clients_of(database).is_empty() {
                    sleep(STEP).await;
                }
            };
            if self.client.wait_for(async { Ok(timeout(PATIENCE, left).await) }).await?.is_ok() {
                self.station.shared.release(database);
            }
        }
        Ok(())
    }

    /// After it. Where it was carried out whoever was there, they have no database any more.
    pub(super) fn vacated(&self, effects: &[Effect], failed: bool) {
        for effect in effects {
            let Effect::Vacates(Vacated { database, forced: true }) = effect else { continue };
            if failed || !self.knows_of(database) {
                self.station.shared.control.take_up(database);
                continue;
            }
            for client in self.clients_of(database) {
                tokio::spawn(async move { client.terminate().await });
            }
            self.station.shared.release(database);
        }
    }

    fn clients_of(&self, database: &str) -> Vec<Arc<Client>> {
        let mut clients = self.station.shared.registry.all();
        clients.retain(|client| client.database == database && !Arc::ptr_eq(client, &self.client));
        clients
    }

    /// The database of this name on the session's own server is one that was found there.
    fn knows_of(&self, database: &str) -> bool {
        let topology = self.station.shared.control.topology();
        let endpoints = |name: &str| -> Vec<_> {
            let of = topology.servers.iter().filter(|server| server.database == name);
            of.map(|server| (server.host.as_str(), server.port)).collect()
        };
        let (own, others) = (endpoints(&self.snapshot.name), endpoints(OTHERS));
        *database != *self.snapshot.name
            && topology.is_found(database)
            && own.iter().any(|endpoint| others.contains(endpoint))
    }
}

/// As long as PostgreSQL itself waits.
const PATIENCE: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(5);
