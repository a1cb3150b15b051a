//! Columns that are declared unique over all shards.

use std::sync::OnceLock;

use futures_util::SinkExt;
use tokio_postgres::{Client, NoTls};

use crate::check;
use crate::support::{APP, Cluster, PASSWORD, Proxy, Role, sql, until};

/// Two shards, a proxy, and the configuration that both it and the check have.
struct World {
    cluster: Cluster,
    proxy: Proxy,
    toml: String,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(World::start)
}

impl World {
    fn start() -> Self {
        let cluster = Cluster::start(2, 0);
        let table = |name: &str, columns: &str| {
            let mapping = "[[sharded_tables.mapping]]\nend = 1001\nshard = 0\n\
                           [[sharded_tables.mapping]]\nstart = 1001\nshard = 1\n";
            format!(
                "[[sharded_tables]]\ndatabase = \"shop\"\nname = \"{name}\"\ncolumn = \"id\"\nunique = [{columns}]\n{mapping}"
            )
        };
        let tables = ["members", "vaults", "old"].map(|name| table(name, "\"email\"")).concat();
        let toml = cluster.toml() + &tables + &table("badges", "\"code\", \"number\"");
        let proxy = Proxy::start(&toml);
        Self { cluster, proxy, toml: format!("[general]\n{toml}") }
    }

    /// What is kept is what the rows have.
    fn check_kept(&self, table: &str, column: &str) {
        let rows = format!("select {column}::text as v from {table} where {column} is not null");
        let all = self.cluster.sql_everywhere(&format!("select v from ({rows}) r order by 1"));
        let mut all: Vec<&str> = all.iter().flat_map(|values| values.lines()).collect();
        all.sort_unstable();
        let kept =
            format!("select value from pgweir.unique_values where (relation, field) = ('public.{table}', '{column}')");
        let kept = self.cluster.sql(0, Role::Primary, &kept);
        let mut kept: Vec<&str> = kept.lines().collect();
        kept.sort_unstable();
        assert_eq!(all, kept);
    }
}

async fn client() -> Client {
    client_of(tokio::task::spawn_blocking(|| world().proxy.port).await.unwrap()).await
}

async fn client_of(port: u16) -> Client {
    let login = format!("host=127.0.0.1 port={port} user={APP} password='{PASSWORD}' dbname=shop");
    let (client, connection) = tokio_postgres::connect(&login, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// SQLSTATE, and what it says of the constraint.
async fn failure(client: &Client, text: &str) -> (String, String) {
    let cause = client.simple_query(text).await.expect_err(text);
    let error = cause.as_db_error().unwrap_or_else(|| panic!("{text}: {cause:?}"));
    (error.code().code().to_owned(), error.detail().unwrap_or_default().to_owned())
}

async fn check_taken(client: &Client, text: &str, detail: &str) {
    assert_eq!(failure(client, text).await, ("23505".to_owned(), detail.to_owned()), "{text}");
}

fn check_kept(table: &str, column: &str) {
    world().check_kept(table, column);
}

#[tokio::test]
async fn a_value_is_on_one_shard_only_whatever_writes_it() {
    let client = client().await;
    // Nothing has to be done for a new table.
    client.batch_execute("create table members (id bigint primary key, email text unique, n int)").await.unwrap();
    client.batch_execute("insert into members values (1, 'a', 0)").await.unwrap();
    client.batch_execute("insert into members values (1001, 'b', 0), (2, null, 0), (1002, null, 0)").await.unwrap();
    let cause = client.simple_query("insert into members values (1003, 'a', 0)").await.unwrap_err();
    let error = cause.as_db_error().unwrap();
    assert_eq!(error.code().code(), "23505");
    assert_eq!(error.message(), "duplicate key value violates unique constraint \"members_email_key\"");
    assert_eq!(error.detail(), Some("Key (email)=(a) already exists."));
    assert_eq!((error.constraint(), error.table()), (Some("members_email_key"), Some("members")));
    assert_eq!((error.schema(), error.where_()), (Some("public"), None));
    let exists = |value: &str| format!("Key (email)=({value}) already exists.");
    check_taken(&client, "insert into members values (3, 'c', 0), (1003, 'c', 0)", &exists("c")).await;
    check_taken(&client, "update members set email = 'a' where id = 1001", &exists("a")).await;
    check_taken(&client, "update members set email = 'b' where email = 'a'", &exists("b")).await;
    check_taken(&client, "insert into members select id + 2000, email, n from members where id = 1", &exists("a"))
        .await;
    let count = |client| async move { crate::value(client, "select count(*) from members").await };
    assert_eq!(count(&client).await, "4", "nothing of what failed is there");
    // Given free, it may be taken elsewhere.
    client.batch_execute("update members set email = 'z' where id = 1").await.unwrap();
    client.batch_execute("insert into members values (1003, 'a', 0)").await.unwrap();
    client.batch_execute("delete from members where id = 1003").await.unwrap();
    client.batch_execute("insert into members values (3, 'a', 0)").await.unwrap();
    // A row that moves takes its value with it.
    client.batch_execute("update members set id = 1010 where id = 3").await.unwrap();
    check_taken(&client, "insert into members values (4, 'a', 0)", &exists("a")).await;
    // By the extended protocol.
    let insert = client.prepare("insert into members values ($1, $2, 0)").await.unwrap();
    assert_eq!(client.execute(&insert, &[&5_i64, &"five"]).await.unwrap(), 1);
    let taken = client.execute(&insert, &[&1005_i64, &"five"]).await.unwrap_err();
    assert_eq!(taken.code().unwrap().code(), "23505");
    let returned = client.query_one("insert into members values (6, 'six', 7) returning email, n", &[]).await.unwrap();
    assert_eq!((returned.get::<_, &str>(0), returned.get::<_, i32>(1)), ("six", 7));
    // What another shard's row would have had to do with it, nobody can say.
    client
        .batch_execute("insert into members values (7, 'six', 0) on conflict (email) do update set n = 8")
        .await
        .unwrap();
    assert_eq!(crate::value(&client, "select n from members where id = 6").await, "8");
    let refused = failure(&client, "insert into members values (1007, 'six', 0) on conflict do nothing").await;
    assert_eq!(refused, ("0A000".to_owned(), exists("six")));
    client.batch_execute("insert into members values (1007, 'seven', 0) on conflict do nothing").await.unwrap();
    tokio::task::spawn_blocking(|| check_kept("members", "email")).await.unwrap();
    // COPY, on both shards or one.
    for (rows, taken) in [("20\tx\t0\n1020\tx\t0\n", true), ("20\tseven\t0\n", true), ("20\tx\t0\n1020\ty\t0\n", false)]
    {
        let sink = client.copy_in("copy members from stdin").await.unwrap();
        let mut sink = std::pin::pin!(sink);
        sink.send(bytes::Bytes::from_static(rows.as_bytes())).await.unwrap();
        let ended = sink.finish().await;
        assert_eq!(
            ended.err().and_then(|cause| cause.code().cloned()).map(|code| code.code() == "23505"),
            taken.then_some(true),
            "{rows}"
        );
    }
    client.batch_execute("delete from members where n = 0").await.unwrap();
    tokio::task::spawn_blocking(|| check_kept("members", "email")).await.unwrap();
    client.batch_execute("truncate members").await.unwrap();
    client.batch_execute("insert into members values (1, 'a', 0), (1001, 'six', 0)").await.unwrap();
    tokio::task::spawn_blocking(|| check_kept("members", "email")).await.unwrap();
}

#[tokio::test]
async fn transactions_give_values_and_give_them_back() {
    let client = client().await;
    client.batch_execute("create table vaults (id bigint primary key, email text not null)").await.unwrap();
    let gives = |id: u32, email: &str| format!("insert into vaults values ({id}, '{email}')");
    for texts in [
        &["begin", &gives(1, "r"), "rollback", &gives(1001, "r")][..],
        &["begin", &gives(2, "s"), "savepoint a", &gives(1002, "t"), "rollback to a", "commit", &gives(1003, "t")],
        &["begin", "update vaults set email = 'q' where id = 1001", &gives(3, "r"), "commit"],
    ] {
        for text in texts {
            client.batch_execute(text).await.unwrap_or_else(|cause| panic!("{text}: {cause:?}"));
        }
    }
    // No index has a name for it.
    let message = client.simple_query(&gives(1004, "s")).await.unwrap_err().as_db_error().unwrap().message().to_owned();
    assert_eq!(message, "duplicate key value violates unique constraint \"vaults_email_key\"");
    // Whoever comes second waits, and hears how the first one ends.
    for (end, id, expected) in [("commit", 5, Some("23505")), ("rollback", 6, None)] {
        client.batch_execute("begin").await.unwrap();
        client.batch_execute(&gives(id, end)).await.unwrap();
        let second = tokio::spawn({
            let (text, other) = (gives(1000 + id, end), crate::unique::client().await);
            async move { other.simple_query(&text).await.map(drop) }
        });
        let waits =
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%keep_unique%'";
        tokio::task::spawn_blocking(move || {
            until(|| world().cluster.sql(0, Role::Primary, waits) == "1");
        })
        .await
        .unwrap();
        client.batch_execute(end).await.unwrap();
        let came = second.await.unwrap().err().and_then(|cause| cause.code().map(|code| code.code().to_owned()));
        assert_eq!(came.as_deref(), expected, "{end}");
    }
    tokio::task::spawn_blocking(|| check_kept("vaults", "email")).await.unwrap();
}

#[tokio::test]
async fn what_cascades_is_kept_and_what_goes_round_is_refused() {
    let client = client().await;
    client.batch_execute("create table owners (user_id bigint primary key)").await.unwrap();
    client
        .batch_execute(
            "create table badges (id bigint primary key references owners on delete cascade, code text, number int)",
        )
        .await
        .unwrap();
    client.batch_execute("insert into owners values (1), (1001)").await.unwrap();
    client.batch_execute("insert into badges values (1, 'a', 7), (1001, 'b', 8)").await.unwrap();
    let detail = "Key (number)=(7) already exists.";
    check_taken(&client, "update badges set number = 7 where id = 1001", detail).await;
    client.batch_execute("delete from owners where user_id = 1").await.unwrap();
    client.batch_execute("update badges set code = 'a', number = 7 where id = 1001").await.unwrap();
    tokio::task::spawn_blocking(|| {
        check_kept("badges", "code");
        check_kept("badges", "number");
        let world = world();
        let direct = sql(&world.cluster.superuser(world.cluster.primary(1)), "delete from badges");
        assert_eq!(direct, Err("0A000".to_owned()));
    })
    .await
    .unwrap();
    client.batch_execute("create function wipe() returns void language sql as 'delete from badges'").await.unwrap();
    assert_eq!(failure(&client, "/* pgweir: shard=1 */ select wipe()").await.0, "0A000");
    client.batch_execute("/* pgweir: shard=1 */ delete from badges").await.unwrap();
    tokio::task::spawn_blocking(|| check_kept("badges", "code")).await.unwrap();
}

#[test]
fn rows_that_were_there_are_looked_at_once() {
    let world = World::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = runtime.block_on(client_of(world.proxy.port));
    let table =
        "create table old (id bigint primary key, email text); alter table old owner to app; insert into old values";
    world.cluster.sql(1, Role::Primary, &format!("{table} (1001, 'b'), (1002, null)"));
    world.cluster.sql(0, Role::Primary, &format!("{table} (1, 'a'), (2, 'b'), (3, null)"));
    let report = check(&world.toml, &[]);
    let fault =
        "public.old: values of email are declared unique, and are not kept; repair: pgweir check --live --repair";
    assert!(report.faults().iter().any(|found| found.contains(fault)), "{:#?}", report.lines);
    let report = check(&world.toml, &["--repair"]);
    let fault = "public.old: values of email cannot be kept: email = b is on shard 0 and on shard 1";
    assert!(report.faults().iter().any(|found| found.contains(fault)), "{:#?}", report.lines);
    // Until then it may not be known to the proxy at all.
    let insert = "insert into old values (4, 'x')";
    let refused = || runtime.block_on(failure(&client, insert));
    until(|| refused().0 == "0A000");
    world.cluster.sql(1, Role::Primary, "update old set email = 'c' where id = 1001");
    let report = check(&world.toml, &["--repair"]);
    let kept = "public.old: 3 values of email are kept now";
    assert!(report.notes().iter().any(|found| found.contains(kept)), "{:#?}", report.lines);
    assert!(!report.faults().iter().any(|found| found.contains("public.old")), "{:#?}", report.lines);
    // The proxy knows it when it has looked again.
    until(|| match runtime.block_on(client.simple_query(insert)) {
        Ok(_) => true,
        Err(cause) => {
            assert_eq!(cause.code().unwrap().code(), "0A000");
            false
        }
    });
    let text = "insert into old values (1004, 'a')";
    runtime.block_on(check_taken(&client, text, "Key (email)=(a) already exists."));
    world.check_kept("old", "email");
    let lose = "delete from pgweir.unique_values where (relation, value) = ('public.old', 'a')";
    world.cluster.sql(0, Role::Primary, lose);
    let report = check(&world.toml, &[]);
    let fault = "public.old: 3 values of email are kept, and 4 rows have one";
    assert!(report.faults().iter().any(|found| found.contains(fault)), "{:#?}", report.lines);
    check(&world.toml, &["--repair"]);
    world.check_kept("old", "email");
}
