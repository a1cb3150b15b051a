//! What one shard computes over rows of all, as drivers and transactions see it.

use std::sync::LazyLock;

use futures_util::TryStreamExt;
use tokio_postgres::Client;
use tokio_postgres::types::{FromSql, Type};

use super::{client, client_of, rows, shop, sqlstate};
use crate::support::{Proxy, Role};

/// Rows of this test alone, on both shards, twins by name.
async fn pair(client: &Client, first: i64) {
    let insert = "insert into twins values ($1, $3, 1), ($2, $3, 2.50)";
    let name = format!("twin {first}");
    assert_eq!(client.execute(insert, &[&first, &(first + 1000), &name]).await.unwrap(), 2);
}

const PAIRS: &str = "select a.user_id, b.user_id, b.score::text from twins a join twins b on b.name = a.name \
                     where a.user_id <> b.user_id and a.name = $1 and b.score > $2::int order by 1";

#[tokio::test]
async fn a_driver_gets_its_types_and_parameters() {
    let client = client().await;
    pair(&client, 300).await;
    let pairs = client.prepare(PAIRS).await.unwrap();
    for _ in 0..3 {
        let found = client.query(&pairs, &[&"twin 300", &1]).await.unwrap();
        let values: Vec<(i64, i64, String)> = found.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        assert_eq!(values, [(300, 1300, "2.50".to_owned())]);
    }
    let whole = "select max(n) from (select count(*) as n from twins where user_id % 1000 = $1 group by name) t";
    assert_eq!(client.query_one(whole, &[&300i64]).await.unwrap().get::<_, i64>(0), 2);
    let moved = "insert into scraps select user_id, $2, name from twins where name = $1";
    assert_eq!(client.execute(moved, &[&"twin 300", &7i64]).await.unwrap(), 2);
    let kept = "delete from scraps n using twins p where p.name = n.body and n.id = $1";
    assert_eq!(client.execute(kept, &[&7i64]).await.unwrap(), 2);
}

#[tokio::test]
async fn a_transaction_sees_what_it_wrote() {
    let (client, other) = (client().await, client().await);
    client.batch_execute("begin").await.unwrap();
    pair(&client, 310).await;
    assert_eq!(client.query(PAIRS, &[&"twin 310", &0]).await.unwrap().len(), 2);
    assert_eq!(other.query(PAIRS, &[&"twin 310", &0]).await.unwrap().len(), 0, "nobody else sees it");
    client.batch_execute("savepoint s").await.unwrap();
    let lost = "update twins p set score = q.score + 10 from twins q where q.name = p.name and p.name = 'twin 310'";
    client.batch_execute(&format!("{lost}; ")).await.unwrap();
    let over = rows(&client, "select count(*) from twins where name = 'twin 310' and score > 10").await;
    assert_eq!(over, ["2"]);
    client.batch_execute("rollback to savepoint s").await.unwrap();
    client.batch_execute("commit").await.unwrap();
    assert_eq!(rows(&client, "select sum(score) from twins where name = 'twin 310'").await, ["3.50"]);
    // An error of the server fails the block, and the block alone.
    client.batch_execute("begin").await.unwrap();
    let divided = "select 1 / (a.user_id - 310) from twins a, twins b where a.name = b.name and a.name = 'twin 310'";
    assert_eq!(sqlstate(&client, divided).await, "22012");
    assert_eq!(sqlstate(&client, "select 1").await, "25P02");
    client.batch_execute("rollback").await.unwrap();
    assert_eq!(sqlstate(&client, divided).await, "22012");
    assert_eq!(rows(&client, "select 1").await, ["1"]);
}

#[tokio::test]
async fn cursors_and_copies_go_over_all_shards() {
    let client = client().await;
    pair(&client, 320).await;
    let name = "'twin 320'";
    for first in ["", "select 1 from twins where user_id = 1320"] {
        client.batch_execute("begin").await.unwrap();
        client.batch_execute(first).await.unwrap();
        client
            .batch_execute(&format!("declare c cursor for select user_id from twins where name = {name} order by 1"))
            .await
            .unwrap();
        assert_eq!(rows(&client, "fetch 1 from c").await, ["320"]);
        assert_eq!(rows(&client, "fetch 5 from c").await, ["1320"]);
        client.batch_execute("close c").await.unwrap();
        client.batch_execute("commit").await.unwrap();
    }
    let copy = format!("copy (select user_id, name from twins where name = {name} order by 1) to stdout");
    let chunks: Vec<bytes::Bytes> = client.copy_out(&copy).await.unwrap().try_collect().await.unwrap();
    assert_eq!(String::from_utf8(chunks.concat()).unwrap(), "320\ttwin 320\n1320\ttwin 320\n");
    assert_eq!(rows(&client, "select 1").await, ["1"]);
}

#[tokio::test]
async fn a_prepared_statement_sees_its_views_as_they_are() {
    let client = client().await;
    pair(&client, 340).await;
    let view = |least: &str| format!("create or replace view high as select * from twins where score > {least}");
    client.batch_execute(&view("0")).await.unwrap();
    let sql = "select user_id, score::text from high where name = $1 order by 1";
    let high = client.prepare(sql).await.unwrap();
    for _ in 0..2 {
        let found = client.query(&high, &[&"twin 340"]).await.unwrap();
        assert_eq!(found.iter().map(|row| row.get(0)).collect::<Vec<i64>>(), [340, 1340]);
    }
    client.batch_execute(&view("2")).await.unwrap();
    let cause = client.query(&high, &[&"twin 340"]).await.unwrap_err();
    let hint = cause.as_db_error().unwrap().hint().map(str::to_owned);
    assert_eq!(hint.as_deref(), Some("Prepare the statement anew."));
    let found = client.query(sql, &[&"twin 340"]).await.unwrap();
    assert_eq!(found.iter().map(|row| row.get(0)).collect::<Vec<i64>>(), [1340]);
    assert_eq!(rows(&client, "select user_id from high where user_id = 1340").await, ["1340"], "one shard");
    let route = rows(&client, "explain route select user_id from high where user_id = 1340").await.join("\n");
    assert!(route.contains("shard 1"), "{route}");
    client.batch_execute("drop view high").await.unwrap();
}

#[tokio::test]
async fn portals_are_read_in_parts() {
    let mut client = client().await;
    let insert =
        "insert into scraps select n, 1, 'part ' || n from generate_series(1, 2) g, unnest(array[460 + g, 1460 + g]) n";
    client.batch_execute(insert).await.unwrap();
    for sql in [
        "select user_id, body from scraps where user_id in (461, 462, 1461, 1462) and id = $1 order by 1",
        "select a.user_id, b.body from scraps a join scraps b on b.body = a.body where a.body like 'part %' and a.id = $1 order by 1",
        "select user_id, body from scraps where user_id in (461, 1461) and id = $1 union all \
         select user_id, body from scraps where user_id in (462, 1462) order by 1",
    ] {
        let transaction = client.transaction().await.unwrap();
        let statement = transaction.prepare(sql).await.unwrap();
        let keys = |found: Vec<tokio_postgres::Row>| found.iter().map(|row| row.get(0)).collect::<Vec<i64>>();
        let (portal, other) = (
            transaction.bind(&statement, &[&1i64]).await.unwrap(),
            transaction.bind(&statement, &[&1i64]).await.unwrap(),
        );
        assert_eq!(keys(transaction.query_portal(&portal, 1).await.expect(sql)), [461], "{sql}");
        assert_eq!(keys(transaction.query_portal(&other, 3).await.unwrap()), [461, 462, 1461]);
        // Statements in between do not disturb it, nor does what they write change it.
        transaction.execute("delete from scraps where user_id = 1462 and id = $1", &[&1i64]).await.unwrap();
        assert_eq!(
            transaction
                .query("select 1 from scraps where id = $1 and user_id in (461, 1461)", &[&1i64])
                .await
                .unwrap()
                .len(),
            2
        );
        assert_eq!(keys(transaction.query_portal(&portal, 2).await.unwrap()), [462, 1461]);
        assert_eq!(keys(transaction.query_portal(&portal, 2).await.unwrap()), [1462]);
        assert_eq!(keys(transaction.query_portal(&portal, 2).await.unwrap()), [0i64; 0]);
        assert_eq!(keys(transaction.query_portal(&other, 0).await.unwrap()), [1462]);
        drop(portal);
        assert!(transaction.query("select no_such_column from scraps", &[]).await.is_err());
        let cause = transaction.query_portal(&other, 1).await.unwrap_err();
        assert_eq!(cause.as_db_error().unwrap().code().code(), "25P02");
        transaction.rollback().await.unwrap();
    }
    client.batch_execute("delete from scraps where body like 'part %'").await.unwrap();
}

/// A value of a type that only the database knows, as text.
#[derive(Debug, PartialEq)]
struct Label(String);

impl<'a> FromSql<'a> for Label {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(std::str::from_utf8(raw)?.to_owned()))
    }

    fn accepts(kind: &Type) -> bool {
        kind.name() == "weather"
    }
}

#[tokio::test]
async fn types_of_the_databases_own_are_the_same_on_every_shard() {
    let (client, cluster) = (client().await, shop().1);
    cluster.sql(1, Role::Primary, "create type elsewhere as (a int)");
    client.batch_execute("create type weather as enum ('rain', 'sun')").await.unwrap();
    client.batch_execute("create table days(user_id bigint primary key, sky weather, skies weather[])").await.unwrap();
    let number = "select oid from pg_type where typname = 'weather'";
    let numbers = cluster.sql_everywhere(number);
    assert_ne!(numbers[0], numbers[1]);
    for key in [350i64, 1350] {
        let sql = "insert into days select $1, l, array[l] from (select 'sun'::weather l) l";
        assert_eq!(client.execute(sql, &[&key]).await.unwrap(), 1);
    }
    for sql in [
        "select sky, user_id from days where user_id = $1",
        "select sky, user_id from days where user_id between $1 and $1 and user_id <> 0 order by 2",
        "select sky, user_id from days where user_id in ($1, 350) order by user_id desc",
    ] {
        let statement = client.prepare(sql).await.unwrap();
        for key in [1350i64, 350, 1350] {
            let found = client.query(&statement, &[&key]).await.unwrap();
            assert_eq!(found[0].columns()[0].type_().oid().to_string(), numbers[0], "{sql}");
            assert_eq!(found[0].get::<_, Label>(0), Label("sun".to_owned()));
            assert_eq!(found[0].get::<_, i64>(1), key);
            assert_eq!(found[0].columns()[1].table_oid(), statement.columns()[1].table_oid());
        }
    }
    // Types that the client gives are by the numbers that it knows.
    let kind = client.prepare("select $1::weather").await.unwrap().params()[0].clone();
    for key in ["350", "1350"] {
        let sql = format!("select $1 = sky from days where user_id = {key}");
        let statement = client.prepare_typed(&sql, std::slice::from_ref(&kind)).await.unwrap();
        assert_eq!(statement.params(), std::slice::from_ref(&kind));
    }
    client.batch_execute("drop table days; drop type weather").await.unwrap();
    cluster.sql(1, Role::Primary, "drop type elsewhere");
}

/// Of a proxy that holds next to nothing.
async fn confined() -> Client {
    static PROXY: LazyLock<u16> = LazyLock::new(|| {
        let limits = "gather_limit = \"1KiB\"\nmerge_limit = \"1KiB\"\n";
        let proxy = Proxy::start(&format!("{limits}{}", shop().1.toml()));
        let port = proxy.port;
        // It serves until the tests end.
        Box::leak(Box::new(proxy));
        port
    });
    client_of(tokio::task::spawn_blocking(|| *PROXY).await.unwrap()).await
}

/// Its rows are nowhere but on their way, however many there are.
#[tokio::test]
async fn a_cursor_is_read_as_it_comes() {
    let mut client = confined().await;
    let values: Vec<String> =
        (0..6000).map(|n| format!("({}, {n}, 'row {n}')", if n % 3 == 0 { 1410 } else { 410 })).collect();
    client.batch_execute(&format!("insert into scraps values {}", values.join(", "))).await.unwrap();
    client.batch_execute("begin").await.unwrap();
    let declare =
        "declare c cursor for select id, body from scraps where user_id in (410, 1410) and id >= $1 order by id";
    client.execute(declare, &[&1000i64]).await.unwrap();
    // Prepared, its values in binary.
    let fetch = client.prepare("fetch forward 700 from c").await.unwrap();
    assert_eq!(fetch.columns().iter().map(tokio_postgres::Column::name).collect::<Vec<_>>(), ["id", "body"]);
    let mut next = 1000;
    loop {
        let found = client.query(&fetch, &[]).await.unwrap();
        for row in &found {
            assert_eq!((row.get::<_, i64>(0), row.get::<_, &str>(1)), (next, &*format!("row {next}")));
            next += 1;
        }
        if found.len() < 700 {
            break;
        }
        // Others use the connections in between.
        assert_eq!(rows(&client, "select count(*) from scraps where user_id in (410, 1410)").await, ["6000"]);
    }
    assert_eq!(next, 6000);
    assert_eq!(sqlstate(&client, "fetch backward 2 from c").await, "0A000", "in another format");
    client.batch_execute("rollback; begin").await.unwrap();
    client.batch_execute("declare c cursor for select id from scraps where user_id in (410, 1410)").await.unwrap();
    client.batch_execute("move 3000 from c").await.unwrap();
    assert_eq!(rows(&client, "fetch all from c").await.len(), 3000);
    client.batch_execute("commit").await.unwrap();
    // A portal of the protocol, two of them by turns.
    let transaction = client.transaction().await.unwrap();
    let query = "select id, body from scraps where user_id in (410, 1410) and id < $1 order by id desc";
    let portal = transaction.bind(query, &[&5500i64]).await.unwrap();
    let other = transaction.bind("select id from scraps where user_id in (410, 1410) order by 1", &[]).await.unwrap();
    for first in [5499, 5299, 5099] {
        let found = transaction.query_portal(&portal, 200).await.unwrap();
        let ids: Vec<i64> = found.iter().map(|row| row.get(0)).collect();
        assert_eq!(ids, (0..200).map(|n| first - n).collect::<Vec<_>>());
        assert_eq!(found[0].get::<_, &str>(1), format!("row {first}"));
        assert_eq!(transaction.query_portal(&other, 3).await.unwrap().len(), 3);
    }
    assert_eq!(transaction.query_portal(&portal, 0).await.unwrap().len(), 4900);
    assert_eq!(transaction.query_portal(&other, 1).await.unwrap()[0].get::<_, i64>(0), 9);
    transaction.commit().await.unwrap();
    client.batch_execute("delete from scraps where user_id in (410, 1410)").await.unwrap();
}

#[tokio::test]
async fn too_many_rows_are_refused_by_the_name_of_their_table() {
    let client = confined().await;
    let values: Vec<String> = (1330..1400).map(|key| format!("({key}, 1, '{}')", "x".repeat(40))).collect();
    client.batch_execute(&format!("insert into scraps values {}", values.join(", "))).await.unwrap();
    let joined = "select count(*) from scraps a join scraps b on a.body = b.body where a.user_id >= 1330";
    let cause = client.simple_query(joined).await.expect_err("70 rows are more than 1 KiB");
    let error = cause.as_db_error().unwrap();
    assert_eq!(error.code().code(), "54000");
    assert!(error.message().contains("\"scraps\"") && error.message().contains("gather_limit"), "{error}");
    assert_eq!(rows(&client, "select count(*) from scraps where user_id = 1330").await, ["1"], "the session goes on");
    client.batch_execute("delete from scraps where user_id between 1330 and 1399").await.unwrap();
}

/// A feed: of many rows, those of a few keys that another table has.
#[tokio::test]
async fn rows_that_equal_nothing_are_not_fetched() {
    let client = confined().await;
    let keys = (430..560).chain(1430..1560);
    let values: Vec<String> = keys.map(|key| format!("({key}, 2, '{}')", "x".repeat(40))).collect();
    client.batch_execute(&format!("insert into scraps values {}", values.join(", "))).await.unwrap();
    client
        .batch_execute("insert into notes values (429, 430, 'f'), (429, 1431, 'f'), (429, 1999, 'f'), (428, 1432, 'f')")
        .await
        .unwrap();
    let all = "select count(*) from notes f join scraps s on s.user_id <> f.id where f.user_id = 429";
    assert_eq!(sqlstate(&client, all).await, "54000", "all of them are too many");
    for (feed, expected) in [
        (
            "select s.user_id from notes f join scraps s on s.user_id = f.id where f.user_id = 429 order by 1",
            &["430", "1431"][..],
        ),
        (
            "select s.user_id from scraps s, notes f where f.id = s.user_id and f.user_id in (428, 429) order by 1",
            &["430", "1431", "1432"],
        ),
        (
            "select user_id from scraps where user_id in (select id from notes where user_id = 429) order by 1",
            &["430", "1431"],
        ),
        (
            "select user_id from scraps s where exists (select from notes f where f.id = s.user_id and f.user_id = 429) order by 1",
            &["430", "1431"],
        ),
        (
            "select f.id, s.id from notes f left join scraps s on s.user_id = f.id where f.user_id = 429 order by 1",
            &["430|2", "1431|2", "1999|NULL"],
        ),
        (
            "select f.id, (select count(*) from scraps s where s.user_id = f.id) from notes f where f.user_id = 429 order by 1",
            &["430|1", "1431|1", "1999|0"],
        ),
        ("select count(*) from notes f join scraps s on s.user_id = f.id where f.user_id = 427", &["0"]),
        (
            "select count(*) from notes f join scraps s on s.user_id = f.id join notes g on g.id = s.user_id where f.user_id = 429 and g.user_id = 429",
            &["2"],
        ),
    ] {
        assert_eq!(rows(&client, feed).await, expected, "{feed}");
    }
    let prepared =
        "select s.user_id from notes f join scraps s on s.user_id = f.id where f.user_id = $1 and s.id = $2 order by 1";
    let prepared = client.prepare(prepared).await.unwrap();
    for (reader, expected) in [(429i64, vec![430i64, 1431]), (428, vec![1432]), (427, vec![])] {
        let found = client.query(&prepared, &[&reader, &2i64]).await.unwrap();
        assert_eq!(found.iter().map(|row| row.get::<_, i64>(0)).collect::<Vec<_>>(), expected);
    }
    client.batch_execute("delete from scraps where id = 2 and user_id % 1000 between 430 and 559").await.unwrap();
    client.batch_execute("delete from notes where user_id in (428, 429)").await.unwrap();
}
