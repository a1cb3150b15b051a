//! Numbers of sequences are unique over the shards, and those of a key say where its row goes.

use tokio_postgres::Client;

use super::{client, rows, shop, sqlstate};

async fn make(client: &Client, sql: &str) {
    client.simple_query(sql).await.unwrap_or_else(|cause| panic!("{sql}: {cause:?}"));
}

#[tokio::test]
async fn the_number_of_a_key_is_drawn_before_its_row_is_placed() {
    let (client, cluster) = (client().await, shop().1);
    make(&client, "create table members(user_id bigserial primary key, name text)").await;
    let insert = "insert into members(name) values ('a') returning user_id";
    assert_eq!(rows(&client, insert).await, ["1"]);
    make(&client, "select setval('members_user_id_seq', 998)").await;
    assert_eq!(
        rows(&client, "insert into members(name) values ('b'), ('c') returning user_id, name").await,
        ["999|b", "1000|c"]
    );
    let mixed = "insert into members values (default, 'd'), (7, 'e'), (default, 'f') returning user_id";
    assert_eq!(rows(&client, mixed).await, ["1001", "7", "1002"]);
    assert_eq!(rows(&client, "insert into members default values returning user_id, name").await, ["1003|NULL"]);
    let statement =
        client.prepare("insert into members(name) values ($1), ($2) returning user_id, name").await.unwrap();
    for first in [1004_i64, 1006] {
        let found = client.query(&statement, &[&"x", &"y"]).await.unwrap();
        let found: Vec<(i64, String)> = found.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(found, [(first, "x".to_owned()), (first + 1, "y".to_owned())]);
    }
    let of_shards = cluster.sql_everywhere("select string_agg(user_id::text, ',' order by user_id) from members");
    assert_eq!(of_shards, ["1,7,999,1000", "1001,1002,1003,1004,1005,1006,1007"]);
    // Within a block, and where it is rolled back: numbers do not come back.
    client.batch_execute("begin").await.unwrap();
    assert_eq!(rows(&client, insert).await, ["1008"]);
    assert_eq!(
        client
            .query_one("insert into members(name) values ($1) returning user_id", &[&"z"])
            .await
            .unwrap()
            .get::<_, i64>(0),
        1009
    );
    client.batch_execute("rollback").await.unwrap();
    assert_eq!(rows(&client, insert).await, ["1010"]);
    make(&client, "select setval('members_user_id_seq', 999)").await;
    client.batch_execute("begin").await.unwrap();
    assert_eq!(sqlstate(&client, "insert into members(name) values ('twice')").await, "23505");
    assert_eq!(sqlstate(&client, "select 1").await, "25P02");
    client.batch_execute("rollback").await.unwrap();
    assert_eq!(rows(&client, "select count(*) from members").await, ["12"]);
}

#[tokio::test]
async fn numbers_that_are_no_keys_are_unique_too() {
    let (client, cluster) = (client().await, shop().1);
    make(
        &client,
        "create table letters(user_id bigint, id int generated always as identity, nr bigserial, body text, primary key (user_id, id))",
    )
    .await;
    let returned = |rest: &str| format!("insert into letters{rest} returning id, nr, user_id");
    for (rest, expected) in [
        ("(user_id, body) values (1, 'a')", &["1|1|1"][..]),
        ("(user_id, body) values (1001, 'b'), (2, 'c'), (1002, 'd')", &["2|2|1001", "3|3|2", "4|4|1002"]),
        ("(body, user_id) values (')(', 1003)", &["5|5|1003"]),
        ("(user_id, nr, body) values (3, 50, 'e'), (1003, default, 'f')", &["6|50|3", "7|6|1003"]),
        (" as l (user_id) values (4) on conflict do nothing", &["8|7|4"]),
        (" values (5), (1005)", &["9|8|5", "10|9|1005"]),
        (" values (6, default, default, 'g')", &["11|10|6"]),
        ("(user_id, id) overriding system value values (7, 100), (8, default)", &["100|11|7", "12|12|8"]),
    ] {
        assert_eq!(rows(&client, &returned(rest)).await, expected, "{rest}");
    }
    for (rest, expected) in [
        ("(user_id, id) values (7, 5)", "428C9"),
        ("(user_id, id) overriding user value values (7, 5)", "0A000"),
        ("(id) values (default)", "23502"),
        ("(user_id) values (-7)", "22023"),
    ] {
        assert_eq!(sqlstate(&client, &returned(rest)).await, expected, "{rest}");
    }
    let ids =
        cluster.sql_everywhere("select string_agg(id::text, ',' order by id) from letters where body is not null");
    assert_eq!(ids, ["1,3,6,11", "2,4,5,7"]);
    let typed = "insert into letters(user_id, body) values ($1, $2), ($3, $4) returning id";
    let found = client.query(typed, &[&1010_i64, &"p", &10_i64, &"q"]).await.unwrap();
    let found: Vec<i32> = found.iter().map(|row| row.get(0)).collect();
    assert_eq!(found.len(), 2);
    assert_eq!(rows(&client, "select count(distinct id), count(*) from letters").await, ["15|15"]);
}

#[tokio::test]
async fn rows_of_a_query_are_numbered_as_others() {
    let client = client().await;
    make(&client, "create table guests(user_id bigserial primary key, nr int generated always as identity, name text)")
        .await;
    make(&client, "select setval('guests_user_id_seq', 998)").await;
    make(&client, "insert into guests(name) values ('a'), ('b'), ('c')").await;
    let insert = "insert into guests(name) select name || '!' from guests order by user_id returning user_id, nr, name";
    assert_eq!(rows(&client, insert).await, ["1002|4|a!", "1003|5|b!", "1004|6|c!"]);
    make(&client, "insert into guests(name) select name from guests where user_id < 0").await;
    let insert =
        "insert into guests overriding system value select 1, 77, 'x' from guests where name = 'a' returning *";
    assert_eq!(rows(&client, insert).await, ["1|77|x"]);
    let insert = "insert into guests select user_id + 2 from guests where name = 'x' returning *";
    assert_eq!(rows(&client, insert).await, ["3|7|NULL"]);
    let typed = "insert into guests(name) select name || $1 from guests where name = $2 returning nr";
    assert_eq!(client.query_one(typed, &[&"?", &"x"]).await.unwrap().get::<_, i32>(0), 8);
}

#[tokio::test]
async fn what_a_shard_draws_by_itself_is_drawn_by_no_other() {
    let (client, cluster) = (client().await, shop().1);
    let made = "create table stamps(user_id bigint, id bigserial, nr serial, body text)";
    make(&client, made).await;
    make(&client, "insert into stamps(user_id, body) values (1, 'a'), (1001, 'b')").await;
    // In data that does not give them, of a query, and by a call.
    let sink = client.copy_in::<_, bytes::Bytes>("copy stamps(user_id, body) from stdin").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    let rows_of_both = (0..50).map(|row| format!("{}\tc\n", 1 + row % 2 * 1000)).collect::<String>();
    futures_util::SinkExt::send(&mut sink, rows_of_both.into()).await.unwrap();
    assert_eq!(sink.as_mut().finish().await.unwrap(), 50);
    make(&client, "insert into stamps(user_id, body) select user_id, 'd' from stamps").await;
    make(&client, "insert into stamps(user_id, id) values (1001, nextval('stamps_id_seq'))").await;
    make(&client, "insert into stamps(user_id, id) values (1, nextval('stamps_id_seq'))").await;
    assert_eq!(
        rows(&client, "select count(distinct id), count(distinct nr), count(*) from stamps").await,
        ["106|106|106"]
    );
    let first = cluster.sql_everywhere("select start_value from pg_sequences where sequencename = 'stamps_nr_seq'");
    assert_eq!(first, ["1", "1073741824"]);
    // Begun anew, too.
    make(&client, "truncate stamps restart identity").await;
    assert_eq!(rows(&client, "insert into stamps(user_id) values (1001) returning id, nr").await, ["1|1"]);
    make(&client, "insert into stamps(user_id) select user_id from stamps union all select 2").await;
    make(&client, "insert into stamps(user_id) values (1), (1001)").await;
    assert_eq!(rows(&client, "select count(distinct id), count(*) from stamps").await, ["5|5"]);
}

#[tokio::test]
async fn numbers_that_shards_gave_before_are_not_given_again() {
    let (client, cluster) = (client().await, shop().1);
    // In a schema of nobody's, and of no key: as a database was before it was sharded.
    cluster.sql_everywhere(
        "create schema before; grant all on schema before to public; create table before.items(id bigserial, body text); \
         insert into before.items(body) select 'x' from generate_series(1, 5); grant all on before.items to public; \
         grant all on before.items_id_seq to public",
    );
    cluster.sql(1, crate::Role::Primary, "insert into before.items(body) select 'x' from generate_series(1, 3)");
    cluster.sql_everywhere("alter table before.items add user_id bigint");
    crate::support::until(|| {
        let start = "select start_value from pg_sequences where schemaname = 'before'";
        cluster.sql(1, crate::Role::Primary, start) != "1"
    });
    let insert = "insert into before.items(user_id) values (1001) returning id";
    crate::support::until(|| cluster.sql(0, crate::Role::Primary, "select last_value from before.items_id_seq") == "8");
    assert_eq!(rows(&client, insert).await, ["9"]);
}

#[tokio::test]
async fn a_session_knows_the_numbers_that_were_drawn_for_it() {
    let (client, other) = (client().await, super::client().await);
    make(&client, "create table parents(user_id bigserial primary key, name text)").await;
    make(&client, "create table children(user_id bigint, id serial, body text)").await;
    make(&client, "select setval('parents_user_id_seq', 999)").await;
    make(&client, "insert into parents(name) values ('a'), ('b')").await;
    make(&client, "insert into children(user_id, body) values (lastval(), 'c'), (currval('parents_user_id_seq'), 'd')")
        .await;
    assert_eq!(rows(&client, "select user_id, id, body from children order by id").await, ["1001|1|c", "1001|2|d"]);
    for (call, value) in [
        ("lastval()", "2"),
        ("currval('children_id_seq')", "2"),
        ("currval('public.parents_user_id_seq'::regclass)", "1001"),
        ("pg_catalog.currval('\"public\".\"parents_user_id_seq\"')", "1001"),
        ("1 + currval('parents_user_id_seq')", "1002"),
    ] {
        assert_eq!(rows(&client, &format!("select {call}")).await, [value], "{call}");
    }
    let row = client.query_one("select lastval(), currval('parents_user_id_seq')", &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>("lastval"), row.get::<_, i64>("currval")), (2, 1001));
    assert_eq!(rows(&client, "select name from parents where user_id = currval('parents_user_id_seq')").await, ["b"]);
    make(&other, "insert into parents(name) values ('e')").await;
    assert_eq!(rows(&client, "select currval('parents_user_id_seq')").await, ["1001"]);
    assert_eq!(rows(&other, "select lastval()").await, ["1002"]);
    // In a text of several statements, and in a block that fails.
    let text =
        "insert into parents(name) values ('f'); insert into children(user_id) values (lastval()) returning user_id";
    assert_eq!(rows(&client, text).await, ["1003"]);
    client.batch_execute("begin").await.unwrap();
    make(&client, "insert into parents(name) values ('g')").await;
    client.batch_execute("rollback").await.unwrap();
    assert_eq!(rows(&client, "select lastval()").await, ["1004"]);
}
