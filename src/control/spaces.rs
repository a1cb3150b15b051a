//! Learns which database of which server system each shard is: what cached answers are tagged by.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::time::{Instant, sleep, timeout};

use super::connect::{Login, Pools, SqlError};
use super::login;
use crate::balance::Fleet;
use crate::cache::{Identity, Space, Spaces};
use crate::topology::{Database, Role, Server, ShardId, Topology};

/// The spaces of a database's shards, in order; nothing until all are known.
#[derive(Default)]
pub(super) struct SpacesCell(ArcSwapOption<Vec<Arc<Space>>>);

impl SpacesCell {
    pub(super) fn current(&self) -> Option<Arc<Vec<Arc<Space>>>> {
        self.0.load_full()
    }
}

/// One database whose shards are asked.
pub(super) struct Learning {
    pub database: Arc<Database>,
    pub topology: Arc<Topology>,
    pub fleet: Arc<Fleet>,
    pub pools: Arc<Pools>,
    pub spaces: Arc<Spaces>,
    pub cell: Arc<SpacesCell>,
    /// Grows when the cell changes.
    pub epoch: Arc<AtomicU64>,
}

/// What is known of a shard.
#[derive(Default)]
struct Known {
    system: Option<System>,
    space: Option<Arc<Space>>,
}

/// The server system that a shard's primary is, and the history that it is on.
#[derive(Clone, PartialEq, Eq)]
struct System {
    identifier: u64,
    timeline: u64,
}

/// Asks until it is aborted.
pub(super) async fn watch(learning: Learning) {
    let mut shards: Vec<Known> = learning.database.shards.iter().map(|_| Known::default()).collect();
    loop {
        for (shard, known) in learning.database.shards.iter().zip(&mut shards) {
            let asked = timeout(DEADLINE, learning.ask(shard.id, known)).await;
            // What is known stays: a server that is away is no other one.
            if let Ok(Err(cause)) = asked {
                tracing::debug!(%cause, database = learning.database.name, "system identifier");
            }
        }
        let all: Option<Vec<Arc<Space>>> = shards.iter().map(|known| known.space.clone()).collect();
        let complete = all.is_some();
        learning.publish(all);
        sleep(if complete { INTERVAL } else { EAGER }).await;
    }
}

impl Learning {
    async fn ask(&self, shard: ShardId, known: &mut Known) -> Result<(), SqlError> {
        let Some((server, login)) = self.primary(shard) else { return Ok(()) };
        let rows = self.pools.lend(&login).await?.rows(SYSTEM).await?;
        let number = |column: usize| rows.first()?.get(column)?.as_ref()?.parse::<u64>().ok();
        let (Some(identifier), Some(timeline)) = (number(0), number(1)) else { return Ok(()) };
        let system = System { identifier, timeline };
        let now = Instant::now();
        let identity = Identity { system: identifier, database: server.database_name.clone() };
        let space = self.spaces.space(&identity, now);
        if known.system.as_ref() != Some(&system) {
            // Another history, or it was not watched for a while: writes that were answered may be missing in it.
            space.changed(now);
        }
        known.system = Some(system);
        known.space = Some(space);
        Ok(())
    }

    fn primary(&self, shard: ShardId) -> Option<(&Arc<Server>, Login)> {
        let mut servers = self.database.shard(shard).servers.iter().map(|&id| self.fleet.state(id));
        let state = servers.find(|state| state.health().role == Some(Role::Primary))?;
        Some((&state.server, login(&state.server, &self.topology)?))
    }

    fn publish(&self, all: Option<Vec<Arc<Space>>>) {
        let same = match (&*self.cell.0.load(), &all) {
            (Some(before), Some(all)) => before.len() == all.len() && before.iter().zip(all).all(same),
            (before, all) => before.is_none() && all.is_none(),
        };
        if !same {
            self.cell.0.store(all.map(Arc::new));
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
    }
}

fn same((one, other): (&Arc<Space>, &Arc<Space>)) -> bool {
    Arc::ptr_eq(one, other)
}

/// No rows on a server in recovery: it is about to be something else.
const SYSTEM: &str = "SELECT system_identifier, \
     ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::bigint \
     FROM pg_control_system() WHERE NOT pg_is_in_recovery()";
const DEADLINE: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_secs(1);
const EAGER: Duration = Duration::from_millis(50);
