//! Statements that no transaction can hold, on all shards: how far they have come, and what brings them on.

use tokio_postgres::{Client, NoTls};

use crate::support::{APP, Cluster, PASSWORD, Proxy, Role};

async fn client(port: u16) -> Client {
    let login = format!("host=127.0.0.1 port={port} user={APP} password='{PASSWORD}' dbname=shop");
    let (client, connection) = tokio_postgres::connect(&login, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Message, detail and hint.
async fn failure(client: &Client, text: &str) -> (String, String, String) {
    let cause = client.simple_query(text).await.expect_err(text);
    let error = cause.as_db_error().unwrap_or_else(|| panic!("{text}: {cause:?}"));
    let field = |field: Option<&str>| field.unwrap_or_default().to_owned();
    (error.code().code().to_owned(), field(error.detail()), field(error.hint()))
}

/// Which shards have it, and as valid.
fn states(cluster: &Cluster, index: &str) -> Vec<String> {
    cluster.sql_everywhere(&format!("select indisvalid from pg_index where indexrelid = to_regclass('{index}')"))
}

#[tokio::test]
async fn an_index_that_fails_on_one_shard_is_mended_by_the_statements_that_the_error_names() {
    let (cluster, proxy) = tokio::task::spawn_blocking(|| {
        let cluster = Cluster::start(3, 0);
        let proxy = Proxy::start(&cluster.toml());
        (cluster, proxy)
    })
    .await
    .unwrap();
    let client = client(proxy.port).await;
    client.batch_execute("create table marks (user_id bigint primary key, mark int)").await.unwrap();
    client.batch_execute("insert into marks values (1, 1), (1001, 1), (1002, 1), (2001, 1)").await.unwrap();
    let cluster = std::sync::Arc::new(cluster);
    let on = |index: &'static str| {
        let cluster = std::sync::Arc::clone(&cluster);
        async move { tokio::task::spawn_blocking(move || states(&cluster, index)).await.unwrap() }
    };

    // Everywhere, and nowhere any more.
    client.batch_execute("create index concurrently plain on marks (mark)").await.unwrap();
    assert_eq!(on("plain").await, ["t", "t", "t"]);
    client.batch_execute("reindex index concurrently plain").await.unwrap();
    client.batch_execute("drop index concurrently plain").await.unwrap();
    assert_eq!(on("plain").await, ["", "", ""]);
    // What fails at once, as one PostgreSQL fails.
    let (code, detail, hint) = failure(&client, "create index concurrently wrong on marks (nothing)").await;
    assert_eq!((code.as_str(), detail.as_str(), hint.as_str()), ("42703", "", ""));

    // Shard 1 has two rows of the same mark.
    let text = "create unique index concurrently marked on marks (mark)";
    let (code, detail, hint) = failure(&client, text).await;
    assert_eq!(code, "23505");
    assert_eq!(detail, "Key (mark)=(1) is duplicated.\nDone on shard 0; failed on shard 1; not begun on shard 2.");
    let repair = format!(
        "When the cause is gone, run: /* pgweir: shard=1 */ DROP INDEX CONCURRENTLY public.marked; \
         /* pgweir: shard=1 */ {text}; /* pgweir: shard=2 */ {text};"
    );
    assert_eq!(hint, repair);
    assert_eq!(on("marked").await, ["t", "f", ""]);
    client.batch_execute("update marks set mark = 2 where user_id = 1002").await.unwrap();
    for statement in hint.split_once(": ").unwrap().1.split(';').filter(|statement| !statement.is_empty()) {
        client.batch_execute(statement).await.unwrap_or_else(|cause| panic!("{statement}: {cause:?}"));
    }
    assert_eq!(on("marked").await, ["t", "t", "t"]);
    client.batch_execute("drop index concurrently marked").await.unwrap();

    // With IF NOT EXISTS the same statement mends what it has left.
    client.batch_execute("update marks set mark = 1 where user_id = 1002").await.unwrap();
    let text = "create unique index concurrently if not exists marked on marks (mark)";
    let (_, detail, hint) = failure(&client, text).await;
    assert!(detail.ends_with("Done on shard 0; failed on shard 1; not begun on shard 2."), "{detail}");
    assert_eq!(hint, "The same statement again does what is left to do, and mends what has failed.");
    let (code, detail, _) = failure(&client, text).await;
    assert_eq!(code, "23505", "{detail}");
    client.batch_execute("update marks set mark = 2 where user_id = 1002").await.unwrap();
    client.batch_execute(text).await.unwrap();
    assert_eq!(on("marked").await, ["t", "t", "t"]);
    // No transaction can hold it.
    client.batch_execute("begin").await.unwrap();
    assert_eq!(failure(&client, "create index concurrently plain on marks (mark)").await.0, "25001");
    client.batch_execute("rollback").await.unwrap();

    // REINDEX leaves another index beside the one that it was for.
    client.batch_execute("drop index marked").await.unwrap();
    client.batch_execute("create index marked on marks ((10 / mark))").await.unwrap();
    let broken = std::sync::Arc::clone(&cluster);
    tokio::task::spawn_blocking(move || {
        broken.sql(1, Role::Primary, "drop index marked; alter table marks add extra text; update marks set extra = repeat('x', 10)");
        broken.sql(1, Role::Primary, "create function halved(n int) returns int immutable language sql as 'select 10 / (n - coalesce(nullif(current_setting(''halved.by'', true), ''''), ''0'')::int)'");
        broken.sql(1, Role::Primary, "create index marked on marks (halved(mark)); alter database shop set halved.by = '1'");
        broken.sql(1, Role::Primary, "select pg_terminate_backend(pid, 10000) from pg_stat_activity where usename = 'app'");
    })
    .await
    .unwrap();
    let (code, detail, hint) = failure(&client, "reindex index concurrently marked").await;
    assert_eq!(code, "22012", "{detail}");
    assert!(detail.ends_with("Done on shard 0; failed on shard 1; not begun on shard 2."), "{detail}");
    let repair = "run: /* pgweir: shard=1 */ DROP INDEX CONCURRENTLY public.marked_ccnew; \
                  /* pgweir: shard=1 */ reindex index concurrently marked; \
                  /* pgweir: shard=2 */ reindex index concurrently marked;";
    assert!(hint.ends_with(repair), "{hint}");
}
