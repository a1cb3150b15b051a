//! Two shards with replicas behind the proxy as one PostgreSQL, by a driver.

#![allow(clippy::unwrap_used)]

#[path = "sharded/composed.rs"]
mod composed;
#[path = "sharded/copying.rs"]
mod copying;
#[path = "sharded/differential.rs"]
mod differential;
#[path = "sharded/explained.rs"]
mod explained;
#[path = "sharded/gathered.rs"]
mod gathered;
#[path = "sharded/generated.rs"]
mod generated;
#[path = "sharded/locked.rs"]
mod locked;
#[path = "sharded/mirrored.rs"]
mod mirrored;
#[path = "sharded/moved.rs"]
mod moved;
#[path = "sharded/named.rs"]
mod named;
#[path = "sharded/numbering.rs"]
mod numbering;
#[path = "sharded/own_types.rs"]
mod own_types;
#[path = "sharded/portals.rs"]
mod portals;
#[path = "support/raw.rs"]
mod raw;
mod support;

use std::future::poll_fn;
use std::sync::OnceLock;

use support::{APP, Cluster, PASSWORD, Proxy, Role, Stop};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};

/// One cluster with a few rows, and one proxy, for all tests of this file.
fn shop() -> &'static (Proxy, &'static Cluster) {
    static SHOP: OnceLock<(Proxy, &'static Cluster)> = OnceLock::new();
    SHOP.get_or_init(|| {
        let cluster = Cluster::shared();
        cluster.sql_everywhere(
            "create table people(user_id bigint primary key, name text collate \"C\", score numeric); \
             create table notes(user_id bigint, id bigint, body text, primary key (user_id, id)); \
             create table twins(user_id bigint primary key, name text, score numeric); \
             create table scraps(user_id bigint, id bigint, body text, primary key (user_id, id)); \
             grant all on people, notes, twins, scraps to public",
        );
        cluster.make_shop();
        (Proxy::start(&cluster.toml()), cluster)
    })
}

async fn client() -> Client {
    client_of(tokio::task::spawn_blocking(|| shop().0.port).await.unwrap()).await
}

async fn client_of(port: u16) -> Client {
    let login = format!("host=127.0.0.1 port={port} user={APP} password='{PASSWORD}' dbname=shop");
    let (client, connection) = tokio_postgres::connect(&login, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Rows of a simple query, values by `|`.
async fn rows(client: &Client, sql: &str) -> Vec<String> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|cause| panic!("{sql}: {cause:?}"));
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|column| row.get(column).unwrap_or("NULL")).collect::<Vec<_>>().join("|"))
        }
        _ => None,
    };
    messages.iter().filter_map(row).collect()
}

/// Prepared transactions hold locks without a process; others' are of other tables.
fn prepared_on(table: &str) -> String {
    format!("select count(*) from pg_locks where pid is null and relation = '{table}'::regclass")
}

async fn sqlstate(client: &Client, sql: &str) -> String {
    let cause = client.simple_query(sql).await.expect_err(sql);
    cause.code().map(|code| code.code().to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn rows_are_written_where_their_key_is_and_read_from_everywhere() {
    let client = client().await;
    let inserted = client
        .simple_query("insert into people values (1, 'b', 1.5), (1001, 'a', 2.5), (2, 'd', null), (1002, 'c', 10) returning user_id")
        .await
        .unwrap();
    assert!(matches!(inserted.last(), Some(SimpleQueryMessage::CommandComplete(4))));
    let cluster = shop().1;
    assert_eq!(
        cluster.sql_everywhere("select string_agg(user_id::text, ',' order by user_id) from people"),
        ["1,2", "1001,1002"]
    );
    for (sql, expected) in [
        ("select name from people where user_id = 1001", &["a"][..]),
        ("select user_id from people order by name", &["1001", "1", "1002", "2"]),
        ("select user_id from people order by name desc limit 2 offset 1", &["1002", "1"]),
        ("select name from people where user_id in (2, 1001) order by user_id", &["d", "a"]),
        (
            "select count(*), sum(score), avg(score), min(name), max(user_id) from people",
            &["4|14.0|4.6666666666666667|a|1002"],
        ),
        ("select user_id > 1000, count(*) from people group by 1 order by 1", &["f|2", "t|2"]),
        ("select * from people where user_id = 5000", &[]),
        ("select * from people where user_id = 1 and user_id = 1001", &[]),
        ("select count(*) from people where user_id = -5", &["0"]),
        ("select p.name from people p join notes n using (user_id) where p.user_id = 1", &[]),
    ] {
        assert_eq!(rows(&client, sql).await, expected, "{sql}");
    }
    assert_eq!(rows(&client, "update people set score = 0 where user_id > 1").await.len(), 0);
    assert_eq!(rows(&client, "select count(*) from people where score = 0").await, ["3"]);
    // By the extended protocol, key in binary.
    let statement = client.prepare("select name from people where user_id = $1").await.unwrap();
    for (key, name) in [(1_i64, "b"), (1001, "a"), (1002, "c"), (2, "d")] {
        assert_eq!(client.query_one(&statement, &[&key]).await.unwrap().get::<_, String>(0), name);
    }
    let all = client.query("select user_id from people where user_id >= $1 order by user_id", &[&2_i64]).await.unwrap();
    assert_eq!(all.iter().map(|row| row.get::<_, i64>(0)).collect::<Vec<_>>(), [2, 1001, 1002]);
}

#[tokio::test]
async fn a_block_that_begins_in_a_text_of_more_may_write() {
    let client = client().await;
    // The replicas are fit for the read, were it alone.
    for begin in ["begin; select 1", "start transaction; select count(*) from people where user_id = 900"] {
        assert_eq!(rows(&client, begin).await.len(), 1);
        client.simple_query("insert into people values (900, 'e', 0)").await.unwrap();
        client.simple_query("rollback").await.unwrap();
    }
}

#[tokio::test]
async fn a_write_on_several_shards_is_all_or_none() {
    let (client, cluster) = (client().await, shop().1);
    client.simple_query("insert into notes values (7, 1, 'x')").await.unwrap();
    // The second shard takes its row, the first refuses its own: neither stays.
    assert_eq!(sqlstate(&client, "insert into notes values (1007, 1, 'y'), (7, 1, 'z')").await, "23505");
    assert_eq!(cluster.sql_everywhere("select count(*) from notes where user_id in (7, 1007)"), ["1", "0"]);
    assert_eq!(cluster.sql_everywhere(&prepared_on("notes")), ["0", "0"]);
    client.simple_query("create table made(user_id bigint primary key)").await.unwrap();
    assert_eq!(cluster.sql_everywhere("select count(*) from pg_class where relname = 'made'"), ["1", "1"]);
    client.simple_query("insert into made values (3), (1003)").await.unwrap();
    assert_eq!(rows(&client, "select count(*) from made").await, ["2"]);
    client.simple_query("drop table made").await.unwrap();
}

#[tokio::test]
async fn without_room_for_prepared_transactions_a_second_shard_is_not_begun() {
    let start = || {
        let cluster = Cluster::start(2, 0);
        cluster.sql_everywhere("create table notes(user_id bigint primary key); grant all on notes to public");
        cluster.sql(1, Role::Primary, "alter system set max_prepared_transactions = 0");
        cluster.primary(1).stop(Stop::Fast);
        cluster.primary(1).start().unwrap();
        let proxy = Proxy::start(&cluster.toml());
        (cluster, proxy)
    };
    let (cluster, proxy) = tokio::task::spawn_blocking(start).await.unwrap();
    let client = client_of(proxy.port).await;
    let cause = client.simple_query("insert into notes values (1), (1001)").await.unwrap_err();
    let cause = cause.as_db_error().unwrap();
    assert_eq!(cause.code().code(), "0A000");
    assert_eq!(cause.hint(), Some("Set max_prepared_transactions on every server."));
    let named = format!("max_prepared_transactions is 0 on 127.0.0.1:{}", cluster.primary(1).port());
    assert_eq!(cause.detail(), Some(named.as_str()));
    client.batch_execute("begin; insert into notes values (2)").await.unwrap();
    assert_eq!(rows(&client, "select user_id from notes where user_id = 1002").await, [""; 0], "a read joins");
    assert_eq!(sqlstate(&client, "insert into notes values (1002)").await, "0A000");
    client.simple_query("rollback").await.unwrap();
    client.simple_query("insert into notes values (1003)").await.unwrap();
    assert_eq!(cluster.sql_everywhere("select string_agg(user_id::text, ',') from notes"), ["", "1003"]);
}

#[tokio::test]
async fn what_cannot_be_carried_out_is_refused_with_its_reason() {
    let client = client().await;
    for (sql, expected) in [
        ("insert into people values (null, 'x', 0)", "23502"),
        ("insert into people values (0, 'x', 0)", "22023"),
        ("insert into people(name) values ('x')", "23502"),
        ("select p.name from people p join people q on q.name = p.name for update", "0A000"),
        ("lock people", "25P01"),
        ("do $$ begin delete from people; end $$", "0A000"),
        ("update people set (user_id, name) = (5, 'x') where user_id = 4", "0A000"),
        ("select 1 /* pgweir: shard=9 */", "22023"),
        ("copy people(name) from stdin", "0A000"),
        ("selec", "42601"),
    ] {
        assert_eq!(sqlstate(&client, sql).await, expected, "{sql}");
    }
    assert_eq!(rows(&client, "select 1").await, ["1"], "the session goes on");
}

#[tokio::test]
async fn what_a_standby_cannot_do_goes_to_the_primary() {
    let client = client().await;
    client.simple_query("create table drafts(user_id bigint primary key, id bigint, body text)").await.unwrap();
    client.simple_query("insert into drafts values (70, 1, 'x')").await.unwrap();
    // A block that was prepared is on the primary alone.
    for end in ["rollback prepared 'of a client'", "commit prepared 'of a client'"] {
        client.batch_execute("begin; update drafts set body = 'y' where user_id = 70").await.unwrap();
        client.simple_query("prepare transaction 'of a client'").await.unwrap();
        client.simple_query(end).await.unwrap();
    }
    assert_eq!(rows(&client, "select body from drafts where user_id = 70").await, ["y"]);
    // Drivers look for the server that takes writes.
    assert_eq!(rows(&client, "select pg_is_in_recovery()").await, ["f"]);
    for set in [
        "set default_transaction_isolation = 'serializable'",
        "set session characteristics as transaction isolation level serializable",
    ] {
        client.simple_query(set).await.unwrap();
        assert_eq!(rows(&client, "select body from drafts where user_id = 70").await, ["y"]);
        client.simple_query("begin read only").await.unwrap();
        assert_eq!(rows(&client, "select body from drafts where user_id = 70").await, ["y"]);
        client.simple_query("commit").await.unwrap();
        client.simple_query("reset default_transaction_isolation").await.unwrap();
    }
}

#[tokio::test]
async fn a_transaction_reaches_the_shards_it_needs_and_ends_on_all_of_them() {
    let (client, cluster) = (client().await, shop().1);
    // Of its own: what others have prepared at the same time is not counted.
    let made = "create table pages(user_id bigint, id bigint, body text, primary key (user_id, id))";
    client.simple_query(made).await.unwrap();
    let bodies = "select body from pages where user_id in (50, 1050) order by user_id";
    client.simple_query("insert into pages values (50, 1, 'a'), (1050, 1, 'a')").await.unwrap();
    client.batch_execute("begin; update pages set body = 'b' where user_id = 50").await.unwrap();
    assert_eq!(rows(&client, bodies).await, ["b", "a"]);
    client.batch_execute("savepoint s").await.unwrap();
    client.batch_execute("update pages set body = 'c' where user_id = 1050").await.unwrap();
    client.batch_execute("update pages set body = 'd' where user_id in (50, 1050)").await.unwrap();
    assert_eq!(rows(&client, bodies).await, ["d", "d"]);
    assert_eq!(sqlstate(&client, "select 1/0 from pages where user_id = 50").await, "22012");
    assert_eq!(sqlstate(&client, "select body from pages where user_id = 1050").await, "25P02");
    client.batch_execute("rollback to s").await.unwrap();
    assert_eq!(rows(&client, bodies).await, ["b", "a"]);
    client.batch_execute("update pages set body = 'e' where user_id = 1050").await.unwrap();
    assert_eq!(rows(&self::client().await, bodies).await, ["a", "a"]);
    client.batch_execute("commit").await.unwrap();
    assert_eq!(rows(&client, bodies).await, ["b", "e"]);
    client.batch_execute("begin; update pages set body = 'f' where user_id = 50").await.unwrap();
    client.batch_execute("update pages set body = 'f' where user_id = 1050").await.unwrap();
    client.batch_execute("rollback").await.unwrap();
    assert_eq!(rows(&client, bodies).await, ["b", "e"]);
    assert_eq!(cluster.sql_everywhere(&prepared_on("pages")), ["0", "0"]);
    client.simple_query("drop table pages").await.unwrap();
}

#[tokio::test]
async fn a_transaction_that_one_shard_cannot_commit_is_committed_nowhere() {
    let (client, cluster) = (client().await, shop().1);
    client
        .simple_query(
            "create table slots(user_id bigint, slot int, unique (user_id, slot) deferrable initially deferred)",
        )
        .await
        .unwrap();
    client.simple_query("insert into slots values (1, 1), (1001, 1)").await.unwrap();
    for (first, second) in [(1, 1001), (1001, 1)] {
        client.batch_execute("begin").await.unwrap();
        client.simple_query(&format!("insert into slots values ({first}, 2)")).await.unwrap();
        client.simple_query(&format!("insert into slots values ({second}, 1)")).await.unwrap();
        assert_eq!(sqlstate(&client, "commit").await, "23505");
        assert_eq!(cluster.sql_everywhere("select count(*) from slots"), ["1", "1"]);
        assert_eq!(rows(&client, "select count(*) from slots").await, ["2"], "the session goes on");
    }
    assert_eq!(cluster.sql_everywhere(&prepared_on("slots")), ["0", "0"]);
    client.simple_query("drop table slots").await.unwrap();
}

#[tokio::test]
async fn a_block_that_the_proxy_has_failed_is_not_committed() {
    let (client, cluster) = (client().await, shop().1);
    client.simple_query("insert into notes values (60, 1, 'a'), (1060, 1, 'a')").await.unwrap();
    let refused = "select n.body from notes n join notes m on m.body = n.body for update";
    for reached in ["60", "60, 1060"] {
        client.batch_execute("begin").await.unwrap();
        let update = format!("update notes set body = 'lost' where user_id in ({reached})");
        client.simple_query(&update).await.unwrap();
        assert_eq!(sqlstate(&client, refused).await, "0A000");
        assert_eq!(sqlstate(&client, "select 1").await, "25P02");
        client.simple_query("commit").await.unwrap();
        assert_eq!(cluster.sql_everywhere("select count(*) from notes where body = 'lost'"), ["0", "0"]);
    }
}

#[tokio::test]
async fn some_transactions_must_stay_on_one_shard() {
    let client = client().await;
    client.batch_execute("start transaction isolation level serializable").await.unwrap();
    client.simple_query("select body from notes where user_id = 70").await.unwrap();
    assert_eq!(sqlstate(&client, "select body from notes where user_id = 1070").await, "0A000");
    client.batch_execute("rollback").await.unwrap();
    // What only one server knows of a setting.
    let unseen = "select set_config(name, '7', false) from (values ('my.unseen')) known(name)";
    client.batch_execute(unseen).await.unwrap();
    assert_eq!(rows(&client, "select current_setting('my.unseen')").await, ["7"]);
    for elsewhere in ["select body from notes where user_id = 1070", "select count(*) from notes"] {
        assert_eq!(sqlstate(&client, elsewhere).await, "0A000");
    }
    client.batch_execute("discard all").await.unwrap();
    assert!(client.batch_execute("select count(*) from notes").await.is_ok());
}

/// What listens, and the channel on which its payloads come.
#[tokio::test]
async fn what_ties_a_session_outlives_its_statements_on_other_shards() {
    let (client, other) = (client().await, client().await);
    let elsewhere = [
        "select name from people where user_id = 1950",
        "select count(*) from people",
        "insert into notes values (951, 1, 'x'), (1951, 1, 'y')",
        "begin; select name from people where user_id = 1950; commit",
        "selec",
        "create table made_by_who_is_tied(a int)",
        "drop table made_by_who_is_tied",
    ];
    client.batch_execute("select pg_advisory_lock(950)").await.unwrap();
    for statement in elsewhere {
        assert_eq!(client.batch_execute(statement).await.is_err(), statement == "selec");
        client.prepare("select count(*), $1::int from people").await.unwrap();
        assert_eq!(rows(&other, "select pg_try_advisory_lock(950)").await, ["f"], "after {statement}");
    }
    assert_eq!(rows(&client, "select pg_advisory_unlock(950)").await, ["t"]);
    assert_eq!(rows(&other, "select pg_try_advisory_lock(950), pg_advisory_unlock(950)").await, ["t|t"]);
    // What a temporary table hides is hidden wherever its rows are.
    client.batch_execute("create temp table people(user_id bigint, name text)").await.unwrap();
    assert_eq!(rows(&client, "select count(*) from people where user_id = 950").await, ["0"]);
    for hidden in ["select name from people where user_id = 1950", "select count(*) from people"] {
        assert_eq!(sqlstate(&client, hidden).await, "0A000", "{hidden}");
    }
    client.batch_execute("drop table pg_temp.people").await.unwrap();
    assert_eq!(
        rows(&client, "select user_id from notes where user_id in (951, 1951) order by 1").await,
        ["951", "1951"]
    );
    client.batch_execute("delete from notes where user_id in (951, 1951)").await.unwrap();
}

/// As a migration does that keeps others out.
#[tokio::test]
async fn a_tied_session_has_transactions_over_shards() {
    let (client, other) = (client().await, client().await);
    let lock = "select pg_advisory_lock(960)";
    let is_free = "select pg_try_advisory_xact_lock(960)";
    let over_both = [
        "insert into scraps values (960, 1, 'x'), (1960, 1, 'y')",
        "create table made_in_block(user_id int)",
        "select name from people where user_id = 1950",
        "update scraps set body = 'z' where user_id = 1960",
        "update scraps set body = 'z' where user_id = 960",
        "savepoint s",
        "select count(*) from people",
    ];
    let own_lock = [&[lock], &over_both[..]].concat();
    let late_lock = [&over_both[2..4], &[lock], &over_both[..2]].concat();
    for (before, block) in [(lock, &over_both[..]), ("begin", &own_lock), ("begin", &late_lock)] {
        for end in ["commit", "rollback"] {
            client.batch_execute(before).await.unwrap();
            if before == lock {
                client.batch_execute("begin").await.unwrap();
            }
            for statement in block {
                client.batch_execute(statement).await.unwrap_or_else(|cause| panic!("{statement}: {cause:?}"));
            }
            client.batch_execute(end).await.unwrap();
            assert_eq!(rows(&other, is_free).await, ["f"], "{block:?}");
            let kept = rows(&client, "select user_id from scraps where user_id in (960, 1960) order by 1").await;
            assert_eq!(kept.len(), if end == "commit" { 2 } else { 0 });
            assert_eq!(rows(&client, "select pg_advisory_unlock(960)").await, ["t"], "{block:?}");
            assert_eq!(rows(&other, is_free).await, ["t"]);
            if end == "commit" {
                client.batch_execute("drop table made_in_block").await.unwrap();
            }
            client.batch_execute("delete from scraps where user_id in (960, 1960)").await.unwrap();
        }
    }
    client.batch_execute("begin").await.unwrap();
    client.batch_execute("create temp table own as select 7 as n").await.unwrap();
    client.batch_execute(over_both[0]).await.unwrap();
    assert_eq!(rows(&client, "table own").await, ["7"]);
    client.batch_execute("commit").await.unwrap();
    assert_eq!(rows(&client, "table own").await, ["7"]);
    client.batch_execute("drop table own").await.unwrap();
    client.batch_execute("delete from scraps where user_id in (960, 1960)").await.unwrap();
}

/// The server process of another shard is ended in a block; the lock is not held there.
#[tokio::test]
async fn a_lock_outlives_the_loss_of_another_shard() {
    let (client, other, cluster) = (client().await, client().await, shop().1);
    client.batch_execute("select pg_advisory_lock(961)").await.unwrap();
    client.batch_execute("begin").await.unwrap();
    client.batch_execute("select 961, name from people where user_id = 1950").await.unwrap();
    let end = "select count(pg_terminate_backend(pid, 10000)) from pg_stat_activity \
               where query like 'select 961%' and state = 'idle in transaction'";
    assert_eq!(cluster.sql_everywhere(end), ["0", "1"]);
    assert!(client.batch_execute("select name from people where user_id = 1950").await.is_err());
    client.batch_execute("rollback").await.unwrap();
    assert_eq!(rows(&other, "select pg_try_advisory_xact_lock(961)").await, ["f"]);
    assert_eq!(rows(&client, "select pg_advisory_unlock(961)").await, ["t"]);
    assert_eq!(rows(&other, "select pg_try_advisory_xact_lock(961)").await, ["t"]);
}

#[tokio::test]
async fn constraints_that_no_shard_can_keep_alone_are_named() {
    let login = format!("host=127.0.0.1 port={} user={APP} password='{PASSWORD}' dbname=shop", shop().0.port);
    let (client, mut connection) = tokio_postgres::connect(&login, NoTls).await.unwrap();
    let (sender, mut notices) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notice(notice) = message {
                let _ = sender.send(format!("{} {}", notice.code().code(), notice.message()));
            }
        }
    });
    let mut said = async |sql: &str| {
        client.batch_execute(sql).await.unwrap();
        std::iter::from_fn(|| notices.try_recv().ok()).collect::<Vec<_>>()
    };
    let alone = |what: &str| format!("01000 {what} holds within each shard only");
    let made = "create table kept(user_id bigint primary key, email text unique, sku int references products, pal bigint, \
                unique (user_id, pal), foreign key (user_id) references users, foreign key (pal) references users)";
    let expected = [alone("the uniqueness of \"kept\" (email)"), alone("the foreign key of \"kept\" (pal)")];
    assert_eq!(said(made).await, expected);
    assert_eq!(
        said("create unique index kept_lower on kept (lower(email))").await,
        [alone("the uniqueness of \"kept\" ((…))")]
    );
    assert_eq!(
        said("begin; alter table kept add unique (pal); commit").await,
        [alone("the uniqueness of \"kept\" (pal)")]
    );
    for quiet in [
        "create index kept_plain on kept (email)",
        "create unique index kept_key on kept (email, user_id)",
        "alter table kept add column other int",
        "create table kept_at_home(id int primary key, name text unique)",
        "drop table kept, kept_at_home",
    ] {
        assert_eq!(said(quiet).await, [""; 0], "{quiet}");
    }
}

async fn listener_of(channel: &str, port: u16) -> (Client, UnboundedReceiver<String>) {
    let login = format!("host=127.0.0.1 port={port} user={APP} password='{PASSWORD}' dbname=shop");
    let (client, mut connection) = tokio_postgres::connect(&login, NoTls).await.unwrap();
    let (sender, heard) = unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(notification) = message {
                // The test may have ended.
                let _ = sender.send(notification.payload().to_owned());
            }
        }
    });
    client.batch_execute(&format!("listen {channel}")).await.unwrap();
    (client, heard)
}

#[tokio::test]
async fn notifications_go_by_the_home_shard_wherever_their_transaction_writes() {
    notify_all(tokio::task::spawn_blocking(|| shop().0.port).await.unwrap()).await;
}

#[tokio::test]
async fn any_shard_may_be_home_to_notifications() {
    let start = || Proxy::start(&format!("home_shard = 1\n{}", shop().1.toml()));
    let proxy = tokio::task::spawn_blocking(start).await.unwrap();
    notify_all(proxy.port).await;
    tokio::task::spawn_blocking(|| drop(proxy)).await.unwrap();
}

async fn notify_all(port: u16) {
    let channel = &format!("noted_{port}");
    let (listener, mut heard) = listener_of(channel, port).await;
    let key = u64::from(port % 100) + 300;
    // Who listens is free to reach every shard.
    listener.batch_execute("begin").await.unwrap();
    let far = key + 1000;
    listener.simple_query(&format!("insert into notes values ({key}, {port}, 'a')")).await.unwrap();
    listener.simple_query(&format!("insert into notes values ({far}, {port}, 'a')")).await.unwrap();
    listener.batch_execute("commit").await.unwrap();
    let speaker = client_of(port).await;
    for (block, payload) in [
        ("select body from notes where user_id = NEAR; notify CHANNEL, 'near'", "near"),
        ("select body from notes where user_id = FAR; select pg_notify('CHANNEL', 'read far')", "read far"),
        ("update notes set body = 'b' where user_id = FAR; select pg_notify('CHANNEL', 'far')", "far"),
        ("update notes set body = 'b' where user_id = NEAR; select pg_notify('CHANNEL', 'near too')", "near too"),
        ("update notes set body = 'c' where user_id in (NEAR, FAR); notify CHANNEL, 'both'", "both"),
    ] {
        let block = block.replace("NEAR", &key.to_string()).replace("FAR", &far.to_string());
        let block = block.replace("CHANNEL", channel);
        for (end, is_heard) in [("rollback", false), ("commit", true)] {
            speaker.batch_execute("begin").await.unwrap();
            for statement in block.split("; ") {
                speaker.simple_query(statement).await.unwrap_or_else(|cause| panic!("{statement}: {cause:?}"));
            }
            speaker.batch_execute(end).await.unwrap_or_else(|cause| panic!("{block}; {end}: {cause:?}"));
            if is_heard {
                assert_eq!(heard.recv().await.unwrap(), payload);
            }
        }
    }
    let written = format!("select body from notes where user_id in ({key}, {far}) and id = {port}");
    assert_eq!(rows(&speaker, &written).await, ["c", "c"]);
    speaker.batch_execute(&format!("notify {channel}, 'last'")).await.unwrap();
    assert_eq!(heard.recv().await.unwrap(), "last", "what was rolled back is told to nobody");
    speaker.batch_execute(&format!("delete from notes where id = {port}")).await.unwrap();
}

#[tokio::test]
async fn writes_on_several_shards_can_be_refused() {
    let port = tokio::task::spawn_blocking(|| {
        let proxy = Proxy::start(&format!("cross_shard_writes = \"refuse\"\n{}", shop().1.toml()));
        let port = proxy.port;
        // It serves until the tests end.
        Box::leak(Box::new(proxy));
        port
    });
    let client = client_of(port.await.unwrap()).await;
    client.simple_query("insert into notes values (80, 1, 'a')").await.unwrap();
    assert_eq!(sqlstate(&client, "insert into notes values (81, 1, 'a'), (1081, 1, 'a')").await, "0A000");
    client.batch_execute("begin; update notes set body = 'b' where user_id = 80").await.unwrap();
    assert_eq!(rows(&client, "select count(*) from notes where user_id in (80, 1080)").await, ["1"]);
    assert_eq!(sqlstate(&client, "update notes set body = 'b' where user_id = 1080").await, "0A000");
    client.batch_execute("rollback").await.unwrap();
}

#[tokio::test]
async fn explain_route_says_all_that_decides() {
    let client = client().await;
    let told =
        rows(&client, "explain route select * from notes where user_id in (1, 1001) order by body limit 3").await;
    let has = |line: &str| assert!(told.iter().any(|row| row.starts_with(line)), "{line}: {told:?}");
    has("kind|query: a read");
    has("table|notes (sharded by user_id)");
    has("key|notes: user_id in (1, 1001): shards 0, 1");
    has("route|scatter over shards (0, 1)");
    has("shard 1|select * , (body) from notes where user_id in (1, 1001) order by body LIMIT 3");
    has("merge|order by hidden 1, limit 3");
    has("server|replica, else primary");
    has("cache|");
    for shard in 0..2 {
        let of_shard = format!("candidate|shard {shard}: ");
        let servers: Vec<_> = told.iter().filter_map(|row| row.strip_prefix(of_shard.as_str())).collect();
        assert_eq!(servers.len(), 3, "{told:?}");
        let primary = shop().1.primary(shard).port();
        assert!(servers.iter().any(|row| row.starts_with(&format!("primary 127.0.0.1:{primary}, "))
            || row.starts_with(&format!("primary 127.0.0.1:{primary},"))));
        assert!(
            servers.iter().any(|row| row.starts_with("replica ") && row.contains(", lag ") && row.contains(", score ")),
            "{servers:?}"
        );
    }
    client.batch_execute("set pgweir.shard = 1").await.unwrap();
    let told = rows(&client, "explain route select * from notes").await;
    assert!(told.iter().any(|row| row.starts_with("session|") && row.contains("one shard (1)")), "{told:?}");
    assert!(told.iter().filter(|row| row.starts_with("candidate|")).all(|row| row.contains("shard 1")), "{told:?}");
}

/// Where a text without tables runs: on which server's port.
async fn shard(client: &Client) -> String {
    let port = rows(client, "select current_setting('port')").await.remove(0);
    let cluster = shop().1;
    let of = |shard: u16| {
        let mut servers = cluster.servers().filter(|server| server.shard == shard);
        servers.any(|server| server.port().to_string() == port)
    };
    (0..2).find(|shard| of(*shard)).unwrap().to_string()
}

#[tokio::test]
async fn wishes_last_as_long_as_settings_do() {
    let client = client().await;
    for set in [
        "set pgweir.shard = 1",
        "set shard to '1'",
        "set pgdog.shard to 1",
        "set sharding key to '1005'",
        "begin; set pgweir.shard = 1; commit",
        "set application_name = 'x'; set pgweir.shard = 1",
    ] {
        client.batch_execute(set).await.unwrap();
        assert_eq!(shard(&client).await, "1", "{set}");
        client.batch_execute("reset pgweir.shard").await.unwrap();
        assert_eq!(shard(&client).await, "0", "after {set}");
    }
    for (block, inside, after) in [("set local pgweir.shard = 1", "1", "0"), ("set pgweir.shard = 1", "1", "0")] {
        client.batch_execute("begin").await.unwrap();
        client.batch_execute(block).await.unwrap();
        assert_eq!(shard(&client).await, inside, "{block}");
        client.batch_execute("rollback").await.unwrap();
        assert_eq!(shard(&client).await, after, "{block}, rolled back");
    }
    client.batch_execute("begin").await.unwrap();
    client.batch_execute("set local pgweir.shard = 1").await.unwrap();
    client.batch_execute("commit").await.unwrap();
    assert_eq!(shard(&client).await, "0");
    // A comment beats SET, and SET LOCAL beats a comment.
    client.batch_execute("set pgweir.shard = 1").await.unwrap();
    let hinted = "select count(*) from notes where user_id < 0 /* pgweir: shard=0 */";
    client.batch_execute("begin").await.unwrap();
    client.batch_execute(hinted).await.unwrap();
    assert_eq!(shard(&client).await, "0", "the block has begun on shard 0");
    client.batch_execute("rollback").await.unwrap();
    client.batch_execute("discard all").await.unwrap();
    assert_eq!(shard(&client).await, "0");
    assert_eq!(sqlstate(&client, "begin; set local search_path to other").await, "0A000");
}

#[tokio::test]
async fn settings_follow_the_client_and_nobody_else() {
    let (one, other) = (client().await, client().await);
    one.batch_execute("set timezone to 'Asia/Tokyo'").await.unwrap();
    one.batch_execute("begin; set timezone to 'UTC'; rollback").await.unwrap();
    for _ in 0..5 {
        assert_eq!(rows(&one, "show timezone").await, ["Asia/Tokyo"]);
        assert_ne!(rows(&other, "show timezone").await, ["Asia/Tokyo"]);
    }
    one.batch_execute("reset timezone").await.unwrap();
    assert_eq!(rows(&one, "show timezone").await, rows(&other, "show timezone").await);
}

#[tokio::test]
async fn reads_go_to_replicas_and_never_miss_the_sessions_own_writes() {
    let (client, cluster) = (client().await, shop().1);
    cluster.delay_all_replays("20ms");
    let mut stale = 0;
    for round in 0..300_i64 {
        let key = 100 + (round % 2) * 1000;
        let body = format!("round {round}");
        client.execute("insert into notes values ($1, $2, $3)", &[&key, &(1000 + round), &body]).await.unwrap();
        let sql = "select count(*) from notes where user_id = $1 and id = $2";
        let seen: i64 = client.query_one(sql, &[&key, &(1000 + round)]).await.unwrap().get(0);
        stale += i64::from(seen != 1);
    }
    assert_eq!(stale, 0);
    // Somebody who wrote nothing reads from a replica: it alone says that it is in recovery.
    let reader = self::client().await;
    assert_eq!(rows(&reader, "select pg_is_in_recovery() from notes where user_id = 100 limit 1").await, ["t"]);
    cluster.delay_all_replays("0");
    assert_eq!(cluster.sql(0, Role::Replica(1), "show recovery_min_apply_delay"), "0");
}
