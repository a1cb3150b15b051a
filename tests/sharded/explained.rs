//! EXPLAIN of statements on several shards.

use crate::{client, rows, shop, sqlstate};

#[tokio::test]
async fn explain_gives_the_plan_of_each_shard() {
    let client = client().await;
    let plan = rows(&client, "explain (costs off) select name from twins order by name limit 3").await;
    let heads: Vec<&String> = plan.iter().filter(|row| row.starts_with("Shard ")).collect();
    assert_eq!(heads, ["Shard 0", "Shard 1"], "{plan:?}");
    assert_eq!(plan.iter().filter(|row| row.contains("Limit")).count(), 2, "{plan:?}");
    let documents = rows(&client, "explain (format json) select count(*) from twins").await;
    assert!(documents.len() == 2 && documents.iter().all(|row| row.starts_with('[')), "{documents:?}");
    let one = rows(&client, "explain select name from twins where user_id = 1001").await;
    assert!(!one.is_empty() && !one.iter().any(|row| row.starts_with("Shard ")), "{one:?}");
    assert_eq!(sqlstate(&client, "explain select nosuch from twins").await, "42703");
}

#[tokio::test]
async fn explain_runs_nothing_but_to_analyze() {
    let client = client().await;
    client.simple_query("insert into scraps values (1, 77, 'x'), (1001, 77, 'y')").await.unwrap();
    let kept = "select count(*) from scraps where id = 77 and body <> 'z'";
    for sql in ["explain update scraps set body = 'z'", "explain delete from scraps where body = 'x'"] {
        let plan = rows(&client, sql).await;
        assert_eq!(plan.iter().filter(|row| row.starts_with("Shard ")).count(), 2, "{sql}: {plan:?}");
    }
    let joined = rows(&client, "explain select 1 from scraps s join twins t on t.name = s.body").await;
    assert!(joined.iter().any(|row| row.contains("Function Scan on")), "{joined:?}");
    assert_eq!(rows(&client, kept).await, ["2"]);
    let analyzed = rows(&client, "explain (analyze, costs off) update scraps set body = 'z' where id = 77").await;
    assert_eq!(analyzed.iter().filter(|row| row.starts_with("Update on scraps")).count(), 2, "{analyzed:?}");
    assert_eq!(rows(&client, kept).await, ["0"]);
    let counts = shop().1.sql_everywhere("select count(*) from scraps where id = 77 and body = 'z'");
    assert_eq!(counts, ["1", "1"]);
}
