//! `SHOW …`: one table each, PgBouncer's columns where they exist.

use super::Table;
use crate::control::Cluster;
use crate::error::{Error, SqlState};
use crate::session::{Shared, State};
use crate::topology::{Key, Role, ShardedBy};

pub(super) fn table(what: &str, shared: &Shared) -> Result<Table, Error> {
    Ok(match what {
        "HELP" => help(),
        "VERSION" => {
            Table { columns: vec!["version"], rows: vec![vec![text(concat!("pgweir ", env!("CARGO_PKG_VERSION")))]] }
        }
        "POOLS" => pools(shared),
        "CLIENTS" => clients(shared),
        "SERVERS" => servers(shared),
        "SHARDS" => shards(shared),
        "RANGES" => ranges(shared),
        "LAG" => lag(shared),
        other => {
            let error = Error::new(SqlState::SYNTAX, format!("nothing to show under \"{}\"", other.to_lowercase()));
            return Err(error.with_hint("SHOW HELP lists what can be shown."));
        }
    })
}

fn help() -> Table {
    let rows = COMMANDS.iter().map(|(command, meaning)| vec![text(command), text(meaning)]);
    Table { columns: vec!["command", "meaning"], rows: rows.collect() }
}

fn pools(shared: &Shared) -> Table {
    let mut pools = shared.pools.all();
    pools.sort_by_key(|pool| {
        (pool.server.database.clone(), pool.server.shard, pool.server.port, pool.login.user.clone())
    });
    let rows = pools.iter().map(|pool| {
        let (usage, server) = (pool.usage(), &pool.server);
        vec![
            text(&server.database),
            text(&pool.login.user),
            number(server.shard.0),
            text(&format!("{}:{}", server.host, server.port)),
            number(usage.waiting),
            number(usage.lent),
            number(usage.idle),
            number(pool.limits().size),
            number(usage.waits),
            number(usage.waited.as_micros()),
        ]
    });
    let columns = vec![
        "database",
        "user",
        "shard",
        "server",
        "cl_waiting",
        "sv_active",
        "sv_idle",
        "pool_size",
        "waits",
        "wait_us",
    ];
    Table { columns, rows: rows.collect() }
}

fn clients(shared: &Shared) -> Table {
    let mut clients = shared.registry.all();
    clients.sort_by_key(|client| client.since);
    let rows = clients.iter().map(|client| {
        let state = match client.state() {
            State::Idle => "idle",
            State::Active => "active",
            State::Waiting => "waiting",
            State::InTransaction => "idle in transaction",
        };
        vec![
            text("C"),
            text(&client.user),
            text(&client.database),
            text(state),
            client.address.map(|address| address.ip().to_string()),
            client.address.map(|address| address.port().to_string()),
            number(client.since.elapsed().as_secs()),
            number(client.units.load(std::sync::atomic::Ordering::Relaxed)),
            text(if client.encrypted { "yes" } else { "no" }),
            client.pinned().map(str::to_owned),
        ]
    });
    let columns =
        vec!["type", "user", "database", "state", "addr", "port", "connected_s", "requests", "tls", "pinned_by"];
    Table { columns, rows: rows.collect() }
}

fn servers(shared: &Shared) -> Table {
    let fleet = shared.control.fleet();
    let rows = fleet.states().iter().map(|state| {
        let (health, server) = (state.health().clone(), &state.server);
        vec![
            text(&server.database),
            number(server.shard.0),
            health.role.map(role),
            text(&server.host),
            number(server.port),
            text(match health.up {
                Some(true) => "up",
                Some(false) => "down",
                None => "unknown",
            }),
            number(state.in_flight()),
            number(state.served()),
            number(state.latency().as_micros()),
            number(server.lb_weight),
            health.reason,
        ]
    });
    let columns = vec![
        "database",
        "shard",
        "role",
        "host",
        "port",
        "state",
        "in_flight",
        "served",
        "latency_us",
        "weight",
        "reason",
    ];
    Table { columns, rows: rows.collect() }
}

fn shards(shared: &Shared) -> Table {
    let Cluster { topology, fleet } = shared.control.cluster();
    let mut databases: Vec<_> = topology.databases.values().collect();
    databases.sort_by_key(|database| &database.name);
    let rows = databases.into_iter().flat_map(|database| {
        let fleet = &fleet;
        database.shards.iter().map(move |shard| {
            let up = |wanted: Role| {
                let states = shard.servers.iter().map(|&id| fleet.state(id).health().clone());
                states.filter(|health| health.up == Some(true) && health.role == Some(wanted)).count()
            };
            let home = if shard.id == database.home { "yes" } else { "no" };
            vec![
                text(&database.name),
                number(shard.id.0),
                text(home),
                number(shard.servers.len()),
                number(up(Role::Primary)),
                number(up(Role::Replica)),
            ]
        })
    });
    Table { columns: vec!["database", "shard", "home", "servers", "primaries_up", "replicas_up"], rows: rows.collect() }
}

fn ranges(shared: &Shared) -> Table {
    let topology = shared.control.topology();
    let mut rows = Vec::new();
    let key = |key: &Option<Key>| key.as_ref().map(ToString::to_string);
    for database in topology.databases.values() {
        for tables in &database.sharded {
            let (name, column) = match &tables.tables {
                ShardedBy::Column(column) => ("*".to_owned(), column),
                ShardedBy::Table { table, column } => (table.name.clone(), column),
            };
            for range in &tables.mapping.ranges {
                let bounds = (key(&range.start), key(&range.end));
                rows.push(vec![
                    text(&database.name),
                    text(&name),
                    text(column),
                    bounds.0,
                    bounds.1,
                    number(range.shard.0),
                ]);
            }
            for (value, shard) in &tables.mapping.lists {
                let value = Some(value.to_string());
                rows.push(vec![text(&database.name), text(&name), text(column), value.clone(), value, number(shard.0)]);
            }
        }
    }
    Table { columns: vec!["database", "table", "column", "start", "end", "shard"], rows }
}

fn lag(shared: &Shared) -> Table {
    let fleet = shared.control.fleet();
    let replicas = fleet.states().iter().filter(|state| state.health().role == Some(Role::Replica));
    let rows = replicas.map(|state| {
        let (health, server) = (state.health().clone(), &state.server);
        vec![
            text(&server.database),
            number(server.shard.0),
            text(&format!("{}:{}", server.host, server.port)),
            text(if health.up == Some(true) { "up" } else { "down" }),
            health.lag.map(|lag| format!("{:.3}", lag.as_secs_f64())),
            health.lag_bytes.map(|bytes| bytes.to_string()),
            health.position.map(|lsn| format!("{:X}/{:X}", lsn.0 >> 32, lsn.0 & 0xffff_ffff)),
        ]
    });
    let columns = vec!["database", "shard", "replica", "state", "lag_s", "lag_bytes", "replayed"];
    Table { columns, rows: rows.collect() }
}

fn role(role: Role) -> String {
    match role {
        Role::Primary => "primary".to_owned(),
        Role::Replica => "replica".to_owned(),
    }
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn number(number: impl ToString) -> Option<String> {
    Some(number.to_string())
}

const COMMANDS: [(&str, &str); 9] = [
    ("SHOW HELP", "this list"),
    ("SHOW VERSION", "of the proxy"),
    ("SHOW POOLS", "server connections by user and server"),
    ("SHOW CLIENTS", "who is connected, and what keeps a connection with it"),
    ("SHOW SERVERS", "each server: role, state, load, latency"),
    ("SHOW SHARDS", "each shard: servers, and how many are up"),
    ("SHOW RANGES", "which keys are on which shard"),
    ("SHOW LAG", "each replica: how far behind, in seconds and bytes"),
    ("RELOAD", "read the configuration again (admin_users)"),
];
