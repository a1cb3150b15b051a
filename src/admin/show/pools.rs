//! Clients and server connections: DATABASES, POOLS, CLIENTS, SERVERS, USERS, LISTS.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::yes;
use crate::admin::table::{Table, Value};
use crate::backend::{CancelTarget, Pool};
use crate::session::{Client, Shared, State};
use crate::topology::{ADMIN, ConfiguredRole, PoolerMode, Topology};

pub(super) fn databases(shared: &Shared) -> Table {
    let (topology, paused, pools) = (shared.control.topology(), shared.pools.paused(), shared.pools.all());
    let mut table = Table::new(
        "name host port# database force_user pool_size# min_pool_size# reserve_pool# pool_mode max_connections# \
         current_connections# paused# disabled# shard# role",
    );
    let process = &topology.process;
    let none = || Value::Integer(0);
    table.push(vec![
        ADMIN.into(),
        Value::Null,
        Value::number(process.port),
        ADMIN.into(),
        Value::Null,
        none(),
        none(),
        none(),
        "statement".into(),
        none(),
        none(),
        none(),
        none(),
        Value::Null,
        Value::Null,
    ]);
    let mut servers: Vec<_> = topology.servers.iter().collect();
    servers.sort_by_key(|server| (&server.database, server.shard, server.id));
    for server in servers {
        let Some(database) = topology.database(&server.database) else { continue };
        // By the first user who may use it: others may have sizes of their own.
        let user = topology.users.iter().find(|user| user.may_use(&server.database));
        let size = user.map_or(0, |user| user.pool_size_at(server, &topology.process));
        let of_server = pools.iter().filter(|pool| pool.server.id == server.id && pool.server == *server);
        let connections: usize = of_server.map(|pool| pool.seen().len()).sum();
        table.push(vec![
            server.database.as_str().into(),
            server.host.as_str().into(),
            Value::number(server.port),
            server.database_name.as_str().into(),
            user.and_then(|user| user.server_user.as_deref()).into(),
            Value::number(size),
            Value::number(user.map_or(0, |user| user.min_pool_size.min(size))),
            none(),
            mode(database.pooler_mode).into(),
            none(),
            Value::number(connections),
            yes(paused.contains(&server.database)),
            none(),
            Value::number(server.shard.0),
            match server.role {
                ConfiguredRole::Primary => "primary".into(),
                ConfiguredRole::Replica => "replica".into(),
                ConfiguredRole::Auto => "auto".into(),
            },
        ]);
    }
    table
}

/// Of one user in one database, over all its servers.
#[derive(Default)]
struct Both {
    clients_active: usize,
    clients_waiting: usize,
    longest_wait: Duration,
    active: usize,
    cancelled: usize,
    idle: usize,
    opening: usize,
    size: usize,
    waits: u64,
    waited: Duration,
}

pub(super) fn pools(shared: &Shared) -> Table {
    let (topology, now) = (shared.control.topology(), Instant::now());
    let mut all: BTreeMap<(String, String), Both> = BTreeMap::new();
    for client in shared.registry.all() {
        let both = all.entry((client.database.clone(), client.user.clone())).or_default();
        match client.waits_since(now) {
            None => both.clients_active += 1,
            Some(waited) => {
                both.clients_waiting += 1;
                both.longest_wait = both.longest_wait.max(waited);
            }
        }
    }
    for pool in shared.pools.all() {
        let both = all.entry((pool.server.database.clone(), pool.user.clone())).or_default();
        let (usage, seen) = (pool.usage(), pool.seen());
        let cancelled = seen.iter().filter(|seen| seen.idle_since.is_none() && seen.target.is_announced()).count();
        both.active += usage.lent.saturating_sub(usage.opening + cancelled);
        both.cancelled += cancelled;
        both.idle += usage.idle;
        both.opening += usage.opening;
        both.size += pool.limits().size;
        both.waits += usage.waits;
        both.waited += usage.waited;
    }
    let mut table = Table::new(
        "database user cl_active# cl_waiting# cl_active_cancel_req# cl_waiting_cancel_req# sv_active# \
         sv_active_cancel# sv_being_canceled# sv_idle# sv_used# sv_tested# sv_login# maxwait# maxwait_us# pool_mode \
         pool_size# waits# wait_us#",
    );
    for ((database, user), both) in all {
        let mode = pool_mode(&topology, &database, &user);
        let none = || Value::Integer(0);
        table.push(vec![
            database.into(),
            user.into(),
            Value::number(both.clients_active),
            Value::number(both.clients_waiting),
            none(),
            none(),
            Value::number(both.active),
            none(),
            Value::number(both.cancelled),
            Value::number(both.idle),
            none(),
            none(),
            Value::number(both.opening),
            Value::number(both.longest_wait.as_secs()),
            Value::number(both.longest_wait.subsec_micros()),
            mode.into(),
            Value::number(both.size),
            Value::number(both.waits),
            Value::number(both.waited.as_micros()),
        ]);
    }
    table
}

pub(super) fn clients(shared: &Shared) -> Table {
    let now = Instant::now();
    let mut clients = shared.registry.all();
    clients.sort_by_key(|client| client.since);
    let mut table = Table::new(
        "type user database state addr port# local_addr local_port# connect_time request_time wait# wait_us# \
         close_needed# ptr link remote_pid# tls application_name connected_s# requests# pinned_by",
    );
    for client in clients {
        let waited = client.waits_since(now).unwrap_or_default();
        let links: Vec<String> = client.targets().iter().map(|target| server_name(target)).collect();
        table.push(vec![
            "C".into(),
            client.user.as_str().into(),
            client.database.as_str().into(),
            state_name(client.state()).into(),
            client.address.map_or("unix".to_owned(), |address| address.ip().to_string()).into(),
            client.address.map(|address| Value::number(address.port())).into(),
            client.local.map(|address| address.ip().to_string()).into(),
            client.local.map(|address| Value::number(address.port())).into(),
            moment(client.since).into(),
            moment(client.begun()).into(),
            Value::number(waited.as_secs()),
            Value::number(waited.subsec_micros()),
            yes(false),
            client_name(&client).into(),
            links.join(",").into(),
            Value::Integer(0),
            client.encryption.clone().unwrap_or_default().into(),
            client.application().into(),
            Value::number(now.saturating_duration_since(client.since).as_secs()),
            Value::number(client.units()),
            client.pinned().into(),
        ]);
    }
    table
}

pub(super) fn servers(shared: &Shared) -> Table {
    let mut users: BTreeMap<String, Arc<Client>> = BTreeMap::new();
    for client in shared.registry.all() {
        users.extend(client.targets().iter().map(|target| (server_name(target), Arc::clone(&client))));
    }
    let mut pools = shared.pools.all();
    pools.sort_by_key(|pool| (pool.server.database.clone(), pool.server.shard, pool.server.id, pool.user.clone()));
    let mut table = Table::new(
        "type user database state addr port# local_addr local_port# connect_time request_time wait# wait_us# \
         close_needed# ptr link remote_pid# tls application_name shard# host",
    );
    for pool in pools {
        push_connections(&pool, &users, &mut table);
    }
    table
}

fn push_connections(pool: &Pool, users: &BTreeMap<String, Arc<Client>>, table: &mut Table) {
    for seen in pool.seen() {
        let (target, name) = (&seen.target, server_name(&seen.target));
        let user = users.get(&name);
        let state = match (seen.idle_since, target.is_announced()) {
            (Some(_), _) => "idle",
            (None, true) => "being_canceled",
            (None, false) => "active",
        };
        let asked = seen.idle_since.or_else(|| user.map(|client| client.begun()));
        table.push(vec![
            "S".into(),
            pool.login.user.as_str().into(),
            pool.server.database.as_str().into(),
            state.into(),
            target.address().host().into(),
            target.address().port().map(Value::number).into(),
            target.local.map(|address| address.ip().to_string()).into(),
            target.local.map(|address| Value::number(address.port())).into(),
            moment(target.opened).into(),
            moment(asked.unwrap_or(target.opened)).into(),
            Value::Integer(0),
            Value::Integer(0),
            yes(target.is_announced()),
            name.into(),
            user.map(|client| client_name(client)).unwrap_or_default().into(),
            Value::number(target.process()),
            target.encryption.clone().unwrap_or_default().into(),
            "".into(),
            Value::number(pool.server.shard.0),
            pool.server.host.as_str().into(),
        ]);
    }
}

pub(super) fn users(shared: &Shared) -> Table {
    let mut table = Table::new("name pool_mode");
    for user in &shared.control.topology().users {
        table.push(vec![user.name.as_str().into(), user.pooler_mode.map(mode).into()]);
    }
    table
}

pub(super) fn lists(shared: &Shared) -> Table {
    let (topology, clients, pools) = (shared.control.topology(), shared.registry.all(), shared.pools.all());
    let usage: Vec<_> = pools.iter().map(|pool| pool.usage()).collect();
    let free = topology.process.max_client_conn.saturating_sub(clients.len());
    let mut table = Table::new("list items#");
    for (list, items) in [
        ("databases", topology.databases.len() + 1),
        ("users", topology.users.len()),
        ("pools", pools.len()),
        ("free_clients", free),
        ("used_clients", clients.len()),
        ("login_clients", 0),
        ("free_servers", usage.iter().map(|usage| usage.idle).sum()),
        ("used_servers", usage.iter().map(|usage| usage.lent).sum()),
        ("dns_names", 0),
        ("dns_zones", 0),
        ("dns_queries", 0),
        ("dns_pending", 0),
    ] {
        table.push(vec![list.into(), Value::number(items)]);
    }
    table
}

fn pool_mode(topology: &Topology, database: &str, user: &str) -> &'static str {
    let own = topology.user(user, database).and_then(|user| user.pooler_mode);
    let of_database = topology.database(database).map(|database| database.pooler_mode);
    own.or(of_database).map_or("statement", mode)
}

fn mode(mode: PoolerMode) -> &'static str {
    match mode {
        PoolerMode::Session => "session",
        PoolerMode::Transaction => "transaction",
    }
}

/// Finer than PgBouncer's, which calls everybody active who does not wait.
pub(in crate::admin) fn state_name(state: State) -> &'static str {
    match state {
        State::Idle => "idle",
        State::Active => "active",
        State::Waiting => "waiting",
        State::InTransaction => "idle in transaction",
    }
}

/// As unique as PgBouncer's `ptr`, without an address of memory.
pub(super) fn client_name(client: &Client) -> String {
    format!("c{}", client.key.process)
}

fn server_name(target: &CancelTarget) -> String {
    format!("s{}.{}", target.address(), target.process())
}

/// `2026-01-31 23:59:59 UTC`
fn moment(at: Instant) -> String {
    let ago = at.elapsed();
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().saturating_sub(ago);
    written(since_1970.as_secs())
}

fn written(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March, in cycles of 400 years: the day of a leap year is the last one.
    let shifted = days + 719_468;
    let (cycle, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let year = cycle * 400 + year + u64::from(month >= 10);
    let month = if month < 10 { month + 3 } else { month - 9 };
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{of_month:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values by PostgreSQL's `to_timestamp`.
    #[test]
    fn moments_are_written_in_utc() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_735_689_600, "2025-01-01 00:00:00 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(written(seconds), expected);
        }
    }
}
