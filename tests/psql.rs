//! psql through the proxy, against a real PostgreSQL server.

#![allow(clippy::unwrap_used)]

mod support;

use support::{Cluster, Proxy, free_port};

struct Bench {
    // Dropped first, so that the server is not waited on by open sessions.
    proxy: Proxy,
    cluster: Cluster,
}

impl Bench {
    /// Database `shop` is the server's `postgres`; database `down` has a server that is not there.
    fn start() -> Self {
        let cluster = Cluster::start(1, 0);
        let (up, down) = (cluster.primary(0).port(), free_port().unwrap());
        let config = format!(
            "[[databases]]\nname = \"shop\"\nhost = \"127.0.0.1\"\nport = {up}\ndatabase_name = \"postgres\"\n\
             [[databases]]\nname = \"down\"\nhost = \"127.0.0.1\"\nport = {down}\n\
             [[users]]\nname = \"postgres\"\npassword = \"{}\"\n",
            support::PASSWORD
        );
        Self { proxy: Proxy::start(&config), cluster }
    }

    /// The same answer direct and through the proxy, and not an empty one.
    fn check_same(&self, sql: &str) {
        let direct = support::psql(self.cluster.primary(0).port(), "postgres", support::PASSWORD, sql);
        let proxied = support::psql(self.proxy.port, "shop", support::PASSWORD, sql);
        assert_eq!((&direct.stdout, &direct.stderr), (&proxied.stdout, &proxied.stderr), "{sql}");
        assert!(!direct.stdout.is_empty() || !direct.stderr.is_empty(), "{sql}");
    }

    fn check_refused(&self, database: &str, password: &str, expected: &str) {
        let refused = support::psql(self.proxy.port, database, password, "select 1");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains(expected), "{said}");
    }
}

#[test]
fn statements_give_what_a_direct_connection_gives() {
    let bench = Bench::start();
    let fill = "create table t(id bigint primary key, name text); \
                insert into t select n, repeat('x', 1000) from generate_series(1, 5000) n";
    let filled = support::psql(bench.proxy.port, "shop", support::PASSWORD, fill);
    assert_eq!(String::from_utf8_lossy(&filled.stdout), "CREATE TABLE\nINSERT 0 5000\n");
    for sql in [
        "select 1 as one, null as nothing, 'ä' as letter",
        "begin; create table lost(id int); insert into lost values (1); select * from lost; rollback; table lost",
        "select * from t order by id",
        "begin; update t set name = 'y' where id = 1; rollback; select name from t where id = 1",
        "copy (select id, name from t order by id limit 100) to stdout",
        "select 1/0",
        "selec",
        "set timezone to 'Asia/Tokyo'; show timezone",
    ] {
        bench.check_same(sql);
    }
}

#[test]
fn log_ins_that_fail_say_why() {
    let bench = Bench::start();
    bench.check_refused("nowhere", support::PASSWORD, "database \"nowhere\" does not exist");
    bench.check_refused("shop", "wrong", "password authentication failed");
    bench.check_refused("down", support::PASSWORD, "available for shard 0 of database \"down\"");
}

#[tokio::test]
async fn cancel_reaches_the_statement() {
    let bench = tokio::task::spawn_blocking(Bench::start).await.unwrap();
    let login =
        format!("host=127.0.0.1 port={} user=postgres password='{}' dbname=shop", bench.proxy.port, support::PASSWORD);
    assert_eq!(support::cancelled(&login).await.as_deref(), Some("57014"));
}
