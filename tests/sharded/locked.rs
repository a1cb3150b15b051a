//! Rows that are locked on several shards.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::Client;

use super::{client, rows, shop, sqlstate};

async fn fill(client: &Client, id: i64) {
    let insert =
        format!("insert into scraps values (501, {id}, 'a'), (502, {id}, 'b'), (1501, {id}, 'c'), (1502, {id}, 'd')");
    client.batch_execute(&insert).await.unwrap();
}

/// Whom of the rows nobody has locked.
async fn free(other: &Client, id: i64) -> Vec<String> {
    rows(other, &format!("select user_id from scraps where id = {id} order by 1 for update skip locked")).await
}

#[tokio::test]
async fn each_shard_locks_its_own_until_the_end_of_the_block() {
    let (client, other) = (client().await, client().await);
    fill(&client, 5001).await;
    client.batch_execute("begin").await.unwrap();
    let locked = "select body from scraps where id = 5001 and user_id % 500 = 1 order by user_id desc for update";
    assert_eq!(rows(&client, locked).await, ["c", "a"]);
    assert_eq!(free(&other, 5001).await, ["502", "1502"]);
    assert_eq!(sqlstate(&other, "select id from scraps where id = 5001 for share nowait").await, "55P03");
    client.batch_execute("update scraps set body = 'e' where id = 5001 and user_id = 1502").await.unwrap();
    client.batch_execute("savepoint s").await.unwrap();
    assert_eq!(rows(&client, "select 1 from scraps where id = 5001 for share").await.len(), 4);
    assert_eq!(free(&other, 5001).await.len(), 0);
    client.batch_execute("rollback to savepoint s").await.unwrap();
    assert_eq!(free(&other, 5001).await, ["502"]);
    client.batch_execute("commit").await.unwrap();
    assert_eq!(free(&other, 5001).await.len(), 4);
    // Alone, they are read where they are written, and are free at once.
    assert_eq!(
        rows(&client, "select body from scraps where id = 5001 order by 1 for update").await,
        ["a", "b", "c", "e"]
    );
    assert_eq!(free(&other, 5001).await.len(), 4);
    client.batch_execute("delete from scraps where id = 5001").await.unwrap();
}

#[tokio::test]
async fn no_more_are_locked_than_are_given() {
    let (client, other) = (client().await, client().await);
    fill(&client, 5002).await;
    let some = client
        .prepare("select user_id from scraps where id = $1 limit $2 offset $3 for update skip locked")
        .await
        .unwrap();
    for (limit, offset, given, left) in [(3i64, 0i64, 3, 1), (1, 0, 1, 3), (1, 2, 1, 1), (5, 1, 3, 0), (0, 0, 0, 4)] {
        client.batch_execute("begin").await.unwrap();
        let found = client.query(&some, &[&5002i64, &limit, &offset]).await.unwrap();
        assert_eq!((found.len(), free(&other, 5002).await.len()), (given, left), "limit {limit} offset {offset}");
        client.batch_execute("rollback").await.unwrap();
    }
    // Workers who take what the others leave.
    client.batch_execute("begin").await.unwrap();
    other.batch_execute("begin").await.unwrap();
    let next = "select user_id from scraps where id = 5002 limit 3 for update skip locked";
    let (mut mine, theirs) = (rows(&client, next).await, rows(&other, next).await);
    mine.extend(theirs);
    mine.sort_unstable();
    assert_eq!(mine, ["1501", "1502", "501", "502"]);
    other.batch_execute("commit").await.unwrap();
    client.batch_execute("commit").await.unwrap();
    client.batch_execute("delete from scraps where id = 5002").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_lock_gets_what_was_written_meanwhile() {
    let (client, other) = (client().await, client().await);
    fill(&client, 5003).await;
    client.batch_execute("begin").await.unwrap();
    client
        .batch_execute("update scraps set body = body || '!' where id = 5003 and user_id in (502, 1502)")
        .await
        .unwrap();
    let waiting = tokio::spawn(async move {
        rows(&other, "select body from scraps where id = 5003 order by user_id for update").await
    });
    let waits =
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%5003 order by user_id%'";
    while shop().1.sql_everywhere(waits) == ["0", "0"] {}
    client.batch_execute("commit").await.unwrap();
    let found = timeout(Duration::from_secs(30), waiting).await.unwrap().unwrap();
    assert_eq!(found, ["a", "b!", "c", "d!"]);
    client.batch_execute("delete from scraps where id = 5003").await.unwrap();
}
