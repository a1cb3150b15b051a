//! The launcher of whole clusters, and migrations on them.

#![allow(clippy::unwrap_used)]

mod support;

use support::{Cluster, Role};

#[test]
fn replicas_follow_their_primary() {
    let cluster = Cluster::start(2, 2);
    for shard in 0..2 {
        cluster.sql(shard, Role::Primary, &format!("create table t as select {shard} as n"));
    }
    cluster.settle();
    for server in cluster.servers() {
        assert_eq!(cluster.sql(server.shard, server.role, "table t"), server.shard.to_string(), "{server}");
        let replica = if server.role == Role::Primary { "f" } else { "t" };
        assert_eq!(cluster.sql(server.shard, server.role, "select pg_is_in_recovery()"), replica, "{server}");
    }
}
