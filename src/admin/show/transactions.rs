//! TRANSACTIONS: those on several shards, and what servers hold prepared.

use std::collections::HashMap;

use tokio::time::Instant;

use super::pools::client_name;
use crate::admin::table::{Table, Value};
use crate::control::Phase;
use crate::session::{Client, Shared};

pub(super) fn transactions(shared: &Shared) -> Table {
    let now = Instant::now();
    let writes = shared.control.writes();
    let by_owner: HashMap<i32, &String> = writes.iter().map(|(gid, write)| (write.owner, gid)).collect();
    let phases: HashMap<&String, Phase> = writes.iter().map(|(gid, write)| (gid, write.phase())).collect();
    let mut table = Table::new("database kind client shards gid age~ state");
    for client in shared.registry.all() {
        let Some(since) = client.several_since() else { continue };
        let gid = by_owner.get(&client.key.process).copied();
        let phase = gid.and_then(|gid| phases.get(gid).copied()).unwrap_or(Phase::Open);
        table.push(vec![
            client.database.as_str().into(),
            "transaction".into(),
            client_name(&client).into(),
            shards_of(&client).into(),
            gid.cloned().into(),
            Value::Float(now.saturating_duration_since(since).as_secs_f64()),
            Value::text(phase),
        ]);
    }
    for (database, found) in shared.control.prepared() {
        table.push(vec![
            database.into(),
            "prepared".into(),
            Value::Null,
            Value::text(found.shard),
            found.gid.into(),
            found.age.parse().map_or(Value::Null, Value::Float),
            Value::text(found.fate),
        ]);
    }
    table
}

fn shards_of(client: &Client) -> String {
    let mut shards: Vec<u16> = client.targets().iter().map(|target| target.server().shard.0).collect();
    shards.sort_unstable();
    shards.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
}
