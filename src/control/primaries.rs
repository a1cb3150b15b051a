//! Who the primaries of a database are at the moment: by what probes saw last, else as configured.

use std::sync::Arc;

use super::connect::Login;
use super::login;
use crate::balance::Fleet;
use crate::topology::{ConfiguredRole, Database, Role, Server, ShardId, Topology};

#[derive(Clone)]
pub(super) struct Primaries {
    database: Arc<Database>,
    topology: Arc<Topology>,
    fleet: Arc<Fleet>,
}

impl Primaries {
    pub(super) fn new(database: &Arc<Database>, topology: &Arc<Topology>, fleet: &Arc<Fleet>) -> Self {
        Self { database: Arc::clone(database), topology: Arc::clone(topology), fleet: Arc::clone(fleet) }
    }

    /// Of each shard, in order; nothing where there is no way to log in.
    pub(super) fn all(&self) -> Option<Vec<Login>> {
        self.database.shards.iter().map(|shard| self.of(shard.id)).collect()
    }

    pub(super) fn home(&self) -> Option<Login> {
        self.of(self.database.home)
    }

    fn of(&self, shard: ShardId) -> Option<Login> {
        let servers = || self.database.shard(shard).servers.iter().map(|&id| self.topology.server(id));
        let leads = |server: &&Arc<Server>| self.fleet.state(server.id).health().role == Some(Role::Primary);
        let configured = |server: &&Arc<Server>| server.role == ConfiguredRole::Primary;
        let server = servers().find(leads).or_else(|| servers().find(configured)).or_else(|| servers().next())?;
        login(server, &self.topology)
    }
}
