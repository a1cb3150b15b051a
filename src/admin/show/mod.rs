//! `SHOW …`: one table each. Where PgBouncer (1.18) has the table, its columns come first, in its order and meaning.

mod cluster;
mod pools;
mod stats;
mod transactions;

use super::table::{Table, Value};
use crate::session::Shared;

pub(super) use pools::state_name;
pub(super) use stats::cache_figures;

/// Something to be shown.
pub(super) struct Topic {
    pub name: &'static str,
    meaning: &'static str,
    pub table: fn(&Shared) -> Table,
}

impl std::fmt::Debug for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Topic {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

const fn topic(name: &'static str, meaning: &'static str, table: fn(&Shared) -> Table) -> Topic {
    Topic { name, meaning, table }
}

pub(super) const TOPICS: &[Topic] = &[
    topic("HELP", "this list", help),
    topic("VERSION", "of the proxy", version),
    topic("DATABASES", "each configured server of each database", pools::databases),
    topic("POOLS", "clients and server connections by database and user", pools::pools),
    topic("CLIENTS", "who is connected, and what keeps a connection with it", pools::clients),
    topic("SERVERS", "each server connection", pools::servers),
    topic("USERS", "each configured user", pools::users),
    topic("LISTS", "how many there are of what", pools::lists),
    topic("STATS", "queries, transactions, bytes and times by database", stats::stats),
    topic("SHARDS", "each shard: servers, and how many are up", cluster::shards),
    topic("RANGES", "which keys are on which shard", cluster::ranges),
    topic("HEALTH", "each server: role, state, load, latency", cluster::health),
    topic("LAG", "each replica: how far behind, in seconds and bytes", cluster::lag),
    topic("TRANSACTIONS", "on several shards, and what is prepared on servers", transactions::transactions),
    topic("CACHE", "what the result cache holds and did", stats::cache),
    topic("CONFIG", "keys of [general], and which of them RELOAD changes", config),
];

const COMMANDS: [(&str, &str); 4] = [
    ("RELOAD", "read the configuration again; a bad one changes nothing (admin_users)"),
    ("PAUSE [database]", "wait until server connections are released, and lend no more (admin_users)"),
    ("RESUME [database]", "end a pause (admin_users)"),
    ("SHUTDOWN [WAIT_FOR_CLIENTS]", "let transactions (or clients) end, then stop (admin_users)"),
];

fn help(_: &Shared) -> Table {
    let mut table = Table::new("command meaning");
    TOPICS.iter().for_each(|topic| table.push(vec![format!("SHOW {}", topic.name).into(), topic.meaning.into()]));
    COMMANDS.iter().for_each(|&(command, meaning)| table.push(vec![command.into(), meaning.into()]));
    table
}

fn version(_: &Shared) -> Table {
    let mut table = Table::new("version");
    table.push(vec![concat!("pgweir ", env!("CARGO_PKG_VERSION")).into()]);
    table
}

fn config(shared: &Shared) -> Table {
    let mut table = Table::new("key value default changeable");
    for setting in &shared.control.topology().process.settings {
        let changeable = if setting.changeable { "yes" } else { "no" };
        let (value, default) = (setting.value.as_str(), setting.default.as_str());
        table.push(vec![setting.name.as_str().into(), value.into(), default.into(), changeable.into()]);
    }
    table
}

fn yes(holds: bool) -> Value {
    Value::Integer(i64::from(holds))
}
