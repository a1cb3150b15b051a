//! psql through the proxy, against a real PostgreSQL server.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use support::{Cluster, PASSWORD, Proxy, free_port};

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
            PASSWORD
        );
        Self { proxy: Proxy::start(&config), cluster }
    }

    /// The same answer direct and through the proxy, and not an empty one.
    fn check_same(&self, sql: &str) {
        let direct = support::psql(self.cluster.primary(0).port(), "postgres", PASSWORD, sql);
        let proxied = support::psql(self.proxy.port, "shop", PASSWORD, sql);
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
    let filled = support::psql(bench.proxy.port, "shop", PASSWORD, fill);
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
    bench.check_refused("nowhere", PASSWORD, "database \"nowhere\" does not exist");
    bench.check_refused("shop", "wrong", "password authentication failed");
    bench.check_refused("down", PASSWORD, "available for shard 0 of database \"down\"");
}

#[tokio::test]
async fn cancel_reaches_the_statement() {
    let bench = tokio::task::spawn_blocking(Bench::start).await.unwrap();
    let login = format!("host=127.0.0.1 port={} user=postgres password='{}' dbname=shop", bench.proxy.port, PASSWORD);
    assert_eq!(support::cancelled(&login).await.as_deref(), Some("57014"));
}

/// A tool of PostgreSQL's; what it prints.
fn tool(name: &str, port: u16, arguments: &[&str]) -> String {
    let done = Command::new(name)
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres"])
        .args(arguments)
        .env("PGPASSWORD", PASSWORD)
        .output()
        .unwrap();
    assert!(done.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// Without the lines that carry a key of the dump's own.
fn dumped(port: u16, database: &str) -> String {
    let dump = tool("pg_dump", port, &[database]);
    let lines = dump.lines().filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_database_is_dumped_and_restored_as_directly() {
    let cluster = Cluster::start(1, 0);
    let direct = cluster.primary(0).port();
    tool("createdb", direct, &["again"]);
    let entry = |name: &str, database: &str| {
        format!(
            "[[databases]]\nname = \"{name}\"\nhost = \"127.0.0.1\"\nport = {direct}\ndatabase_name = \"{database}\"\n"
        )
    };
    let proxy = Proxy::start(&format!(
        "[general]\ndefault_pool_size = 4\n{}{}[[users]]\nname = \"postgres\"\npassword = \"{PASSWORD}\"\n",
        entry("shop", "postgres"),
        entry("again", "again"),
    ));
    let filled = support::psql(
        direct,
        "postgres",
        PASSWORD,
        "create schema \"Own\"; create type mood as enum ('glad', 'sad'); \
         create table people (id bigint generated always as identity primary key, name text unique, mood mood, at timestamptz[]); \
         insert into people (name, mood, at) select 'n' || n, 'sad', array[now()] from generate_series(1, 3000) n; \
         create table \"Own\".orders (person bigint references people, what jsonb check (what is not null), body bytea); \
         insert into \"Own\".orders select id, '{\"a\": [1]}', '\\x00ff' from people; create index on \"Own\".orders (person); \
         create view glad as select * from people where mood = 'glad'; \
         create materialized view counted as select mood, count(*) from people group by mood; \
         create function \"Own\".twice(x int) returns int language sql as 'select 2 * x'; \
         create sequence numbers start 7; select nextval('numbers'); select lo_from_bytea(4711, 'large'); \
         comment on table people is 'with ''quotes'' and \\ backslashes'",
    );
    assert!(filled.status.success(), "{}", String::from_utf8_lossy(&filled.stderr));
    let original = dumped(direct, "postgres");
    assert_eq!(dumped(proxy.port, "shop"), original);
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump").display().to_string();
    tool("pg_dump", proxy.port, &["-Fd", "-j", "2", "-f", &dump, "shop"]);
    tool("pg_restore", proxy.port, &["-j", "2", "-d", "again", &dump]);
    assert_eq!(dumped(direct, "again"), original);
    // Both tools empty the path of their sessions.
    for database in ["shop", "again"] {
        let shown = support::psql(proxy.port, database, PASSWORD, "show search_path");
        assert!(String::from_utf8_lossy(&shown.stdout).contains("\"$user\", public"), "{database}");
    }
}
