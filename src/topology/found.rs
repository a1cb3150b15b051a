//! Databases without an entry of their own: those of the servers that are named `"*"`, each under its own name.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Database, Server, ServerId, Shard, ShardId, Topology};

/// The name of an entry in `[[databases]]` whose server has databases that no other entry names.
pub const OTHERS: &str = "*";
/// Where such a server is asked about them, unless its entry says another.
pub(super) const MAINTENANCE: &str = "postgres";

impl Topology {
    /// The entry under whose servers a database of this name, which has none, is to be looked for.
    pub fn others(&self) -> Option<&Arc<Database>> {
        self.databases.get(OTHERS)
    }

    pub fn is_found(&self, name: &str) -> bool {
        self.found.contains_key(name)
    }

    /// Since when it is known that a database without an entry is there.
    pub fn found_at(&self, name: &str) -> Option<Instant> {
        self.found.get(name).copied()
    }

    /// The same, and a database that was found at `now`.
    #[must_use]
    pub fn with(&self, name: &str, now: Instant) -> Self {
        let mut next = Self { epoch: self.epoch + 1, ..self.clone() };
        next.add(name, now);
        next
    }

    /// The same, but for one that was found. Servers are numbered anew.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        let configured = |server: &&Arc<Server>| !self.is_found(&server.database);
        let mut next = Self { epoch: self.epoch + 1, ..self.clone() };
        next.servers = self.servers.iter().filter(configured).cloned().collect();
        next.databases.retain(|name, _| !self.is_found(name));
        next.found.clear();
        next.find_again(self, |known| known != name);
        next
    }

    /// What was found under another configuration is there under this one, too, unless that names it or looks for nothing.
    pub fn find_again(&mut self, before: &Self, stays: impl Fn(&str) -> bool) {
        for (name, &since) in before.found.iter().filter(|(name, _)| stays(name)) {
            if self.others().is_some() && !self.databases.contains_key(name) {
                self.add(name, since);
            }
        }
    }

    fn add(&mut self, name: &str, now: Instant) {
        let Some(others) = self.others().cloned() else { return };
        let mut servers = Vec::new();
        for &like in &others.shard(ShardId(0)).servers {
            let id = ServerId(u16::try_from(self.servers.len()).unwrap_or(u16::MAX));
            let like = Server::clone(self.server(like));
            let (database, database_name) = (name.to_owned(), name.to_owned());
            self.servers.push(Arc::new(Server { id, database, database_name, ..like }));
            servers.push(id);
        }
        let shards = vec![Shard { id: ShardId(0), servers }];
        let database = Database { name: name.to_owned(), shards, ..Database::clone(&others) };
        self.databases.insert(name.to_owned(), Arc::new(database));
        self.found.insert(name.to_owned(), now);
    }
}
