//! Servers and data: SHARDS, RANGES, HEALTH, LAG.

use tokio::time::Instant;

use crate::admin::table::{Table, Value};
use crate::balance::{Health, Lsn};
use crate::control::Cluster;
use crate::session::Shared;
use crate::topology::{Key, Role, ShardedBy};

pub(super) fn shards(shared: &Shared) -> Table {
    let Cluster { topology, fleet } = shared.control.cluster();
    let mut databases: Vec<_> = topology.databases.values().collect();
    databases.sort_by_key(|database| &database.name);
    let mut table = Table::new("database shard# home servers# primaries_up# replicas_up#");
    for database in databases {
        for shard in &database.shards {
            let up = |wanted: Role| {
                let states = shard.servers.iter().map(|&id| fleet.state(id).health().clone());
                Value::number(states.filter(|health| is_up(health) && health.role == Some(wanted)).count())
            };
            table.push(vec![
                database.name.as_str().into(),
                Value::number(shard.id.0),
                if shard.id == database.home { "yes" } else { "no" }.into(),
                Value::number(shard.servers.len()),
                up(Role::Primary),
                up(Role::Replica),
            ]);
        }
    }
    table
}

pub(super) fn ranges(shared: &Shared) -> Table {
    let topology = shared.control.topology();
    let key = |key: &Option<Key>| Value::from(key.as_ref().map(ToString::to_string));
    let mut table = Table::new("database table column start end shard#");
    for database in topology.databases.values() {
        for tables in &database.sharded {
            let (name, column) = match &tables.tables {
                ShardedBy::Column(column) => ("*", column.as_str()),
                ShardedBy::Table { table, column } => (table.name.as_str(), column.as_str()),
            };
            let mut push = |start: Value, end: Value, shard: u16| {
                table.push(vec![
                    database.name.as_str().into(),
                    name.into(),
                    column.into(),
                    start,
                    end,
                    Value::number(shard),
                ]);
            };
            for range in &tables.mapping.ranges {
                push(key(&range.start), key(&range.end), range.shard.0);
            }
            for (value, shard) in &tables.mapping.lists {
                push(Value::text(value), Value::text(value), shard.0);
            }
        }
    }
    table
}

pub(super) fn health(shared: &Shared) -> Table {
    let fleet = shared.control.fleet();
    let mut table = Table::new(
        "database shard# role host port# state in_flight# served# latency_us# weight# failed_probes# reason",
    );
    for state in fleet.states() {
        let (health, server) = (state.health().clone(), &state.server);
        table.push(vec![
            server.database.as_str().into(),
            Value::number(server.shard.0),
            health.role.map(Role::name).into(),
            server.host.as_str().into(),
            Value::number(server.port),
            state_of(&health).into(),
            Value::number(state.in_flight()),
            Value::number(state.served()),
            Value::number(state.latency().as_micros()),
            Value::number(server.lb_weight),
            Value::number(state.failed_probes()),
            health.reason.into(),
        ]);
    }
    table
}

pub(super) fn lag(shared: &Shared) -> Table {
    let (fleet, now) = (shared.control.fleet(), Instant::now());
    let mut table = Table::new("database shard# replica state lag_s~ lag_bytes# replayed");
    for state in fleet.states() {
        let (health, server) = (state.health().clone(), &state.server);
        if health.role != Some(Role::Replica) {
            continue;
        }
        let (time, bytes) = fleet.lag(state, now);
        table.push(vec![
            server.database.as_str().into(),
            Value::number(server.shard.0),
            format!("{}:{}", server.host, server.port).into(),
            state_of(&health).into(),
            time.map(|lag| Value::Float(lag.as_secs_f64())).into(),
            bytes.map(Value::number).into(),
            health.position.map(|Lsn(lsn)| format!("{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff)).into(),
        ]);
    }
    table
}

fn is_up(health: &Health) -> bool {
    health.up == Some(true)
}

fn state_of(health: &Health) -> &'static str {
    match health.up {
        Some(true) => "up",
        Some(false) => "down",
        None => "unknown",
    }
}
