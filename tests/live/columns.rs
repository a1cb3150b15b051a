//! Shards that disagree in columns or types: named when they answer, not merged.

use tokio_postgres::{Client, NoTls};

use crate::support::{APP, Cluster, PASSWORD, Proxy, Role};

async fn differs(client: &Client, text: &str) -> String {
    let cause = client.simple_query(text).await.expect_err(text);
    let error = cause.as_db_error().unwrap_or_else(|| panic!("{text}: {cause:?}"));
    format!("{} {} {}", error.code().code(), error.message(), error.detail().unwrap_or_default())
}

#[tokio::test]
async fn columns_that_differ_are_named_and_not_merged() {
    let (cluster, proxy) = tokio::task::spawn_blocking(|| {
        let cluster = Cluster::start(2, 0);
        let proxy = Proxy::start(&cluster.toml());
        (cluster, proxy)
    })
    .await
    .unwrap();
    let login = format!("host=127.0.0.1 port={} user={APP} password='{PASSWORD}' dbname=shop", proxy.port);
    let (client, connection) = tokio_postgres::connect(&login, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("create table things (user_id bigint primary key, a int, b varchar(10))").await.unwrap();
    client.batch_execute("insert into things values (1, 1, 'x'), (1001, 2, 'y')").await.unwrap();
    let cluster = std::sync::Arc::new(cluster);
    let differ = "0A000 a result whose columns differ on shard 1 is not supported across shards Shard 1 answers with ";
    for (change, back, expected) in [
        (
            "alter table things alter a type bigint",
            "alter table things alter a type int",
            "column \"a\" is of type bigint instead of type integer.",
        ),
        (
            "alter table things alter b type varchar(20)",
            "alter table things alter b type varchar(10)",
            "column \"b\" is of another length or precision.",
        ),
        ("alter table things add c int", "alter table things drop c", "column \"c\" beside those of the others."),
        ("alter table things rename a to c", "alter table things rename c to a", "column 2 is \"c\" instead of \"a\"."),
    ] {
        let on = std::sync::Arc::clone(&cluster);
        tokio::task::spawn_blocking(move || on.sql(1, Role::Primary, change)).await.unwrap();
        for text in [
            "select * from things",
            "select * from things order by user_id",
            "select * from things limit 5",
            "select * from things limit 2 offset 1",
        ] {
            assert_eq!(differs(&client, text).await, format!("{differ}{expected}"), "{change}: {text}");
        }
        let on = std::sync::Arc::clone(&cluster);
        tokio::task::spawn_blocking(move || on.sql(1, Role::Primary, back)).await.unwrap();
        assert_eq!(client.simple_query("select * from things").await.unwrap().len(), 4, "{back}");
    }
}
