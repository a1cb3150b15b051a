//! Rows whose shard key changes go to their new shard, all or none.

use super::{client, rows, shop, sqlstate};

/// On each shard, the rows of this test.
fn where_they_are(ids: &str) -> Vec<String> {
    let find = format!(
        "select coalesce(string_agg(user_id || '/' || id || '/' || body, ',' order by user_id, id), '') from scraps where id in ({ids})"
    );
    shop().1.sql_everywhere(&find)
}

#[tokio::test]
async fn a_driver_moves_rows_and_gets_them_back() {
    let client = client().await;
    client
        .batch_execute("insert into scraps values (401, 4001, 'a'), (402, 4001, 'b'), (1401, 4002, 'c')")
        .await
        .unwrap();
    let moved = client
        .prepare("update scraps set user_id = $1, body = $3 where user_id = $2 and id = 4001 returning *")
        .await
        .unwrap();
    let found = client.query(&moved, &[&1402i64, &401i64, &"it's"]).await.unwrap();
    let values: Vec<(i64, i64, String)> = found.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!(values, [(1402, 4001, "it's".to_owned())]);
    assert_eq!(where_they_are("4001, 4002"), ["402/4001/b", "1401/4002/c,1402/4001/it's"]);
    // On one shard, and where there is nothing.
    assert_eq!(client.query(&moved, &[&1403i64, &1402i64, &"d"]).await.unwrap().len(), 1);
    assert_eq!(client.query(&moved, &[&403i64, &1499i64, &"d"]).await.unwrap().len(), 0);
    let computed = "update scraps set user_id = (user_id + $1) % 2000 where id in (4001, 4002)";
    assert_eq!(client.execute(computed, &[&1000i64]).await.unwrap(), 3);
    assert_eq!(where_they_are("4001, 4002"), ["401/4002/c,403/4001/d", "1402/4001/b"]);
    client.batch_execute("delete from scraps where id in (4001, 4002)").await.unwrap();
}

#[tokio::test]
async fn what_fails_moves_nothing() {
    let client = client().await;
    client
        .batch_execute("insert into scraps values (411, 4011, 'a'), (412, 4011, 'b'), (1411, 4011, 'c')")
        .await
        .unwrap();
    let before = where_they_are("4011");
    for (statement, expected) in [
        ("update scraps set user_id = user_id - 1000 where id = 4011", "22023"),
        ("update scraps set user_id = user_id + 1000 where id = 4011 and user_id < 1000", "23505"),
        ("update scraps set user_id = null where id = 4011", "22023"),
        ("update scraps set user_id = -5 where id = 4011", "22023"),
        ("update scraps set user_id = 1412, body = 1 / (user_id - 412) where id = 4011 and user_id > 1", "22012"),
    ] {
        assert_eq!(sqlstate(&client, statement).await, expected, "{statement}");
        assert_eq!(where_they_are("4011"), before, "{statement}");
    }
    client.batch_execute("begin").await.unwrap();
    assert_eq!(sqlstate(&client, "update scraps set user_id = user_id - 1000 where id = 4011").await, "22023");
    assert_eq!(sqlstate(&client, "select 1").await, "25P02");
    client.batch_execute("rollback").await.unwrap();
    assert_eq!(where_they_are("4011"), before);
    client.batch_execute("delete from scraps where id = 4011").await.unwrap();
}

#[tokio::test]
async fn a_transaction_sees_where_it_moved_them() {
    let (client, other) = (client().await, client().await);
    client.batch_execute("insert into scraps values (421, 4021, 'a'), (1421, 4021, 'b')").await.unwrap();
    client.batch_execute("begin; savepoint s").await.unwrap();
    client.batch_execute("update scraps set user_id = user_id + 1001 where id = 4021 and user_id = 421").await.unwrap();
    assert_eq!(rows(&client, "select count(*) from scraps where id = 4021 and user_id > 1000").await, ["2"]);
    assert_eq!(rows(&other, "select count(*) from scraps where id = 4021 and user_id > 1000").await, ["1"]);
    client.batch_execute("rollback to savepoint s").await.unwrap();
    assert_eq!(rows(&client, "select user_id from scraps where id = 4021 order by 1").await, ["421", "1421"]);
    client.batch_execute("update scraps set user_id = 1422 where user_id = 421 and id = 4021").await.unwrap();
    client.batch_execute("commit").await.unwrap();
    assert_eq!(where_they_are("4021"), ["", "1421/4021/b,1422/4021/a"]);
    client.batch_execute("delete from scraps where id = 4021").await.unwrap();
}

/// Enums have another number on each shard; generated columns and identities cannot be written; places are places in a
/// partition.
#[tokio::test]
async fn tables_of_every_kind_give_rows_away() {
    let client = client().await;
    shop().1.sql(0, crate::Role::Primary, "create type unused as enum ('x')");
    for made in [
        "create type temper as enum ('glad', 'sad')",
        "create table movers(user_id bigint, id bigint, feels temper, name varchar(4), \
           twice bigint generated always as (2 * user_id) stored, primary key (user_id, id)) partition by hash (id)",
        "create table movers_a partition of movers for values with (modulus 2, remainder 0)",
        "create table movers_b partition of movers for values with (modulus 2, remainder 1)",
        "create table numbered(user_id bigint, id bigint generated always as identity)",
    ] {
        client.batch_execute(made).await.unwrap();
    }
    let fill = "insert into movers(user_id, id, feels, name) values \
                (431, 1, 'sad', 'a'), (431, 2, 'glad', 'b'), (431, 3, null, 'c'), (1431, 4, 'sad', 'd')";
    client.batch_execute(fill).await.unwrap();
    let moved = "update movers set user_id = user_id + 1001, name = name || '!' where id in (1, 3) returning *";
    assert_eq!(rows(&client, moved).await, ["1432|1|sad|a!|2864", "1432|3|NULL|c!|2864"]);
    let feels = client
        .prepare("update movers set user_id = $1, feels = $2::text::temper where id = $3 returning twice")
        .await
        .unwrap();
    assert_eq!(client.query_one(&feels, &[&432i64, &"glad", &4i64]).await.unwrap().get::<_, i64>(0), 864);
    client.batch_execute("update movers set user_id = 1433, feels = 'sad' where id = 2").await.unwrap();
    assert_eq!(sqlstate(&client, "update movers set user_id = 433, name = name || 'long' where id = 1").await, "22001");
    let all = "select user_id, id, feels::text, name, twice from movers order by id";
    assert_eq!(
        rows(&client, all).await,
        ["1432|1|sad|a!|2864", "1433|2|sad|b|2866", "1432|3|NULL|c!|2864", "432|4|glad|d|864"]
    );
    assert_eq!(shop().1.sql_everywhere("select string_agg(id::text, ',' order by id) from movers"), ["4", "1,2,3"]);
    client.batch_execute("insert into numbered(user_id) values (431)").await.unwrap();
    assert_eq!(rows(&client, "update numbered set user_id = 1431 returning *").await, ["1431|1"]);
}

#[tokio::test]
async fn rows_that_others_refer_to_stay() {
    let client = client().await;
    for made in [
        "create table elders(user_id bigint, id bigint, primary key (user_id, id))",
        "create table followers(id bigint primary key, user_id bigint, parent bigint, \
           foreign key (user_id, parent) references elders on update cascade on delete cascade)",
        "create table watched(user_id bigint primary key, name text)",
        "create function watch() returns trigger language plpgsql as 'begin return new; end'",
        "create trigger watch before update on watched for each row execute function watch()",
    ] {
        client.batch_execute(made).await.unwrap();
    }
    client.batch_execute("insert into elders values (441, 1), (442, 1)").await.unwrap();
    client.batch_execute("insert into followers values (7, 441, 1)").await.unwrap();
    client.batch_execute("insert into watched values (443, 'a')").await.unwrap();
    // There it cascades as ever, and only there.
    client.batch_execute("update elders set user_id = 444 where user_id = 441").await.unwrap();
    assert_eq!(rows(&client, "select user_id from followers").await, ["444"]);
    assert_eq!(
        sqlstate(&client, "update elders set user_id = 1441 where id = 1 and user_id in (444, 442)").await,
        "23505"
    );
    assert_eq!(sqlstate(&client, "update elders set user_id = 1441 where user_id = 444").await, "0A000");
    client.batch_execute("update elders set user_id = 1442 where user_id = 442").await.unwrap();
    assert_eq!(shop().1.sql_everywhere("select string_agg(user_id::text, ',') from elders"), ["444", "1442"]);
    client.batch_execute("update watched set user_id = 445 where user_id = 443").await.unwrap();
    assert_eq!(sqlstate(&client, "update watched set user_id = user_id + 1000").await, "0A000");
    assert_eq!(rows(&client, "select * from watched").await, ["445|a"]);
}
