//! Who the primaries of a database are at the moment: by what probes saw last, else as configured.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::connect::{Client, Login, Pools, SqlError};
use super::{login, login_as};
use crate::balance::Fleet;
use crate::topology::{ConfiguredRole, Database, Role, Server, Shard, ShardId, Topology};

#[derive(Clone)]
pub(super) struct Primaries {
    database: Arc<Database>,
    topology: Arc<Topology>,
    fleet: Arc<Fleet>,
    pools: Arc<Pools>,
}

impl Primaries {
    pub(super) fn new(
        database: &Arc<Database>,
        topology: &Arc<Topology>,
        fleet: &Arc<Fleet>,
        pools: &Arc<Pools>,
    ) -> Self {
        Self {
            database: Arc::clone(database),
            topology: Arc::clone(topology),
            fleet: Arc::clone(fleet),
            pools: Arc::clone(pools),
        }
    }

    pub(super) async fn lend(&self, login: &Login) -> Result<Client, SqlError> {
        self.pools.lend(login).await
    }

    /// Of each shard, in order; nothing where there is no way to log in.
    pub(super) fn all(&self) -> Option<Vec<Login>> {
        self.database.shards.iter().map(|shard| self.of(shard.id)).collect()
    }

    pub(super) fn shards(&self) -> usize {
        self.database.shards.len()
    }

    /// As [`Primaries::all`], only those that were seen to lead when they were looked at last.
    pub(super) fn leading(&self) -> Vec<Option<Login>> {
        let leads = |server: &&Arc<Server>| {
            let health = self.fleet.state(server.id).health();
            health.role == Some(Role::Primary) && health.up != Some(false)
        };
        let of = |shard: &Shard| {
            let mut servers = shard.servers.iter().map(|&id| self.topology.server(id));
            login(servers.find(leads)?, &self.topology)
        };
        self.database.shards.iter().map(of).collect()
    }

    /// As [`Primaries::all`], by asking every server now; nothing where none or more than one takes writes.
    pub(super) async fn found(&self) -> Vec<Option<Login>> {
        let mut all = Vec::new();
        for shard in &self.database.shards {
            let servers = shard.servers.iter().filter_map(|&id| login(self.topology.server(id), &self.topology));
            let leads = servers.map(async |login| {
                let asked = async { self.lend(&login).await?.rows("SELECT pg_is_in_recovery()").await };
                let rows = timeout(self.topology.process.connect_timeout, asked).await.ok()?.ok()?;
                (rows == [[Some("f".to_owned())]]).then_some(login)
            });
            let leading: Vec<Login> = join_all(leads).await.into_iter().flatten().collect();
            all.push(<[Login; 1]>::try_from(leading).ok().map(|[login]| login));
        }
        all
    }

    pub(super) fn name(&self) -> &str {
        &self.database.name
    }

    pub(super) fn home(&self) -> Option<Login> {
        self.of(self.database.home)
    }

    /// As `owner`, where it is known how, to the server that a shard's `login` is for; else as that.
    pub(super) fn as_owner(&self, shard: usize, login: &Login, owner: &str) -> Login {
        let servers = self.database.shards[shard].servers.iter().map(|&id| self.topology.server(id));
        let mut same = servers.filter(|server| (&server.host, server.port) == (&login.host, login.port));
        let found = same.find_map(|server| login_as(server, &self.topology, owner));
        found.filter(|_| owner != login.user).unwrap_or_else(|| login.clone())
    }

    pub(super) fn home_shard(&self) -> ShardId {
        self.database.home
    }

    /// The home shard's.
    pub(super) fn home_server(&self) -> Option<Arc<Server>> {
        self.server(self.database.home).cloned()
    }

    fn of(&self, shard: ShardId) -> Option<Login> {
        login(self.server(shard)?, &self.topology)
    }

    fn server(&self, shard: ShardId) -> Option<&Arc<Server>> {
        let servers = || self.database.shard(shard).servers.iter().map(|&id| self.topology.server(id));
        let leads = |server: &&Arc<Server>| self.fleet.state(server.id).health().role == Some(Role::Primary);
        // One that is down led when it was last seen; another may have taken over since.
        let is_up = |server: &&Arc<Server>| self.fleet.state(server.id).health().up != Some(false);
        let current = servers().find(|server| leads(server) && is_up(server));
        let configured = |server: &&Arc<Server>| server.role == ConfiguredRole::Primary;
        current.or_else(|| servers().find(leads)).or_else(|| servers().find(configured)).or_else(|| servers().next())
    }
}
