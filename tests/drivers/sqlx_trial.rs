//! Actions of an application with sqlx and its pool, and what the driver returned for each.

use std::fmt::Debug;

use futures_util::TryStreamExt;
use futures_util::future::join_all;
use pgweir::control::connect::Login;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions, PgRow};
use sqlx::{Acquire, AssertSqlSafe, Connection, Executor, Row};

/// Keys of this program: the first half lives on one shard, the second on the other.
const NEAR: i64 = 600;
const FAR: i64 = 1600;
const MINE: i32 = 7;

const INSERT: &str = "insert into kinds (user_id, id, small, whole, big, body, raw, flag, words, numbers, ratio) \
                      values ($1, 7, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

struct Said(Vec<(String, String)>);

impl Said {
    fn part(&mut self, name: &str) {
        self.0.push(("part".to_owned(), name.to_owned()));
    }

    fn hear<T: Debug>(&mut self, label: impl Into<String>, came: Result<T, sqlx::Error>) {
        let came = match came {
            Ok(value) => format!("{value:?}"),
            Err(sqlx::Error::Database(error)) => match error.code().as_deref() {
                Some("0A000") => format!("0A000: {}", error.message()),
                code => format!("{code:?} {:?}", error.constraint()),
            },
            Err(cause) => cause.to_string(),
        };
        self.0.push((label.into(), came));
    }
}

async fn insert(on: impl Executor<'_, Database = sqlx::Postgres>, key: i64) -> Result<u64, sqlx::Error> {
    let query = sqlx::query(INSERT).bind(key).bind(-7_i16).bind(70_000_i32).bind(1_i64 << 40).bind("häm 'quoted'");
    let query = query.bind(vec![0_u8, 255]).bind(true).bind(vec![Some("a"), None, Some("b\"c")]);
    query.bind(vec![Some(1), None, Some(-3)]).bind(0.1_f64).execute(on).await.map(|done| done.rows_affected())
}

type Kinds = (i64, Option<i16>, Option<i32>, Option<i64>, Option<String>, Option<Vec<u8>>, Option<bool>);
type More = (Option<Vec<Option<String>>>, Option<Vec<Option<i32>>>, Option<f64>);

fn kinds(row: &PgRow) -> (Kinds, More) {
    (
        (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4), row.get(5), row.get(6)),
        (row.get(7), row.get(8), row.get(9)),
    )
}

const READ: &str = "select user_id, small, whole, big, body, raw, flag, words, numbers, ratio from kinds \
                    where user_id = $1 and id = 7";
const OURS: &str = "select user_id from kinds where id = $1 order by user_id";

async fn keys(on: impl Executor<'_, Database = sqlx::Postgres>, sql: &'static str) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar(sql).bind(MINE).fetch_all(on).await
}

pub(crate) async fn run(login: Login) -> Vec<(String, String)> {
    let options = PgConnectOptions::new().host(&login.host).port(login.port).database(&login.database);
    let options = options.username(&login.user).password(&login.password);
    let pool = PgPoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
    let mut said = Said(Vec::new());
    parameters(&mut said, &pool).await;
    transactions(&mut said, &pool).await;
    several_shards(&mut said, &pool).await;
    errors(&mut said, &pool).await;
    copies_and_notifications(&mut said, &pool).await;
    pool.close().await;
    said.0
}

async fn parameters(said: &mut Said, pool: &PgPool) {
    said.part("parameters");
    let all: Vec<i64> = (0..10).flat_map(|key| [NEAR + key, FAR + key]).collect();
    for (key, came) in all.iter().zip(join_all(all.iter().map(|&key| insert(pool, key))).await) {
        said.hear(format!("insert {key}"), came);
    }
    for round in 0..3 {
        let reads = all.iter().map(|key| sqlx::query(READ).bind(key).fetch_one(pool));
        for (key, came) in all.iter().zip(join_all(reads).await) {
            said.hear(format!("read {key}, round {round}"), came.map(|row| kinds(&row)));
        }
    }
    said.hear("no row", sqlx::query(READ).bind(1_i64).fetch_optional(pool).await.map(|row| row.is_some()));
    said.hear(
        "not persistent",
        sqlx::query(READ).bind(FAR).persistent(false).fetch_one(pool).await.map(|row| kinds(&row)),
    );
    said.hear(
        "cleared",
        sqlx::query("delete from kinds where id = $1").bind(MINE).execute(pool).await.map(|done| done.rows_affected()),
    );
}

async fn transactions(said: &mut Said, pool: &PgPool) {
    said.part("transactions");
    let mut transaction = pool.begin().await.unwrap();
    said.hear("insert", insert(&mut *transaction, NEAR).await);
    said.hear("insert on the other shard", insert(&mut *transaction, FAR).await);
    said.hear("seen", keys(&mut *transaction, OURS).await);
    said.hear("not seen", keys(pool, OURS).await);
    said.hear("committed", transaction.commit().await);
    said.hear("seen by all", keys(pool, OURS).await);
    let mut transaction = pool.begin().await.unwrap();
    sqlx::query("update kinds set body = 'outer' where user_id = $1")
        .bind(NEAR)
        .execute(&mut *transaction)
        .await
        .unwrap();
    let mut inner = transaction.begin().await.unwrap();
    sqlx::query("update kinds set body = 'inner' where id = $1").bind(MINE).execute(&mut *inner).await.unwrap();
    said.hear("a duplicate", insert(&mut *inner, FAR).await);
    said.hear("inner rolled back", inner.rollback().await);
    said.hear("outer committed", transaction.commit().await);
    let bodies = "select user_id from kinds where id = $1 and body in ('outer', 'inner') order by 1";
    said.hear("what stays", keys(pool, bodies).await);
    let mut transaction = pool.begin().await.unwrap();
    sqlx::query("delete from kinds where id = $1").bind(MINE).execute(&mut *transaction).await.unwrap();
    drop(transaction);
    said.hear("rolled back by dropping", keys(pool, OURS).await);
    said.hear(
        "cleared",
        sqlx::query("delete from kinds where id = $1").bind(MINE).execute(pool).await.map(|done| done.rows_affected()),
    );
}

async fn several_shards(said: &mut Said, pool: &PgPool) {
    said.part("several shards");
    let rows = "insert into kinds (user_id, id, body) select * from unnest($1::bigint[], $2::int[], $3::text[])";
    let unnested =
        sqlx::query(rows).bind(vec![NEAR, FAR]).bind(vec![MINE, MINE]).bind(vec!["a", "b"]).execute(pool).await;
    said.hear("unnested", unnested.map(|done| done.rows_affected()));
    let rows = "insert into kinds (user_id, id, body) values ($1, 7, 'a'), ($2, 7, 'b') \
                on conflict (user_id, id) do update set body = excluded.body returning user_id";
    said.hear("rows", sqlx::query_scalar::<_, i64>(rows).bind(FAR).bind(NEAR).fetch_all(pool).await);
    said.hear("first", sqlx::query_scalar::<_, i64>(OURS).bind(MINE).fetch_one(pool).await);
    let streamed = sqlx::query(OURS).bind(MINE).fetch(pool).map_ok(|row| row.get::<i64, _>(0)).try_collect::<Vec<_>>();
    said.hear("streamed", streamed.await);
    said.hear(
        "counted",
        sqlx::query_scalar::<_, i64>("select count(*) from kinds where id = $1").bind(MINE).fetch_one(pool).await,
    );
    let any = "select user_id from kinds where user_id = any($1) and id = 7 order by 1";
    said.hear("any", sqlx::query_scalar::<_, i64>(any).bind(vec![NEAR, FAR]).fetch_all(pool).await);
    let grouped = "select country, count(*) from users group by country order by 2 desc, 1";
    said.hear("grouped", sqlx::query_as::<_, (String, i64)>(grouped).fetch_all(pool).await);
    said.hear(
        "updated",
        sqlx::query("update kinds set whole = 2 where id = $1")
            .bind(MINE)
            .execute(pool)
            .await
            .map(|done| done.rows_affected()),
    );
    said.hear(
        "cleared",
        sqlx::query("delete from kinds where id = $1").bind(MINE).execute(pool).await.map(|done| done.rows_affected()),
    );
}

async fn errors(said: &mut Said, pool: &PgPool) {
    said.part("errors");
    for sql in ["selec", "select * from nowhere", "select 1/0", "insert into kinds (user_id, id) values (600, null)"] {
        said.hear(format!("error of {sql}"), sqlx::query(sql).fetch_all(pool).await.map(|rows| rows.len()));
        said.hear(
            format!("raw error of {sql}"),
            sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(pool).await.map(|rows| rows.len()),
        );
    }
    let mut connection = pool.acquire().await.unwrap();
    said.hear("ping", connection.ping().await);
    said.hear("several", sqlx::raw_sql("select 1; select 2").fetch_all(&mut *connection).await.map(|rows| rows.len()));
    sqlx::raw_sql("set timezone to 'Asia/Tokyo'").execute(&mut *connection).await.unwrap();
    let created = "select created_at::text from users where id = $1";
    said.hear("time zone", sqlx::query_scalar::<_, String>(created).bind(1001_i64).fetch_one(&mut *connection).await);
    // The pool gives it on as it is.
    sqlx::raw_sql("reset timezone").execute(&mut *connection).await.unwrap();
}

async fn copies_and_notifications(said: &mut Said, pool: &PgPool) {
    said.part("copies and notifications");
    let mut connection = pool.acquire().await.unwrap();
    let mut copy =
        connection.copy_in_raw("/* pgweir: shard=0 */ copy kinds (user_id, id, body) from stdin").await.unwrap();
    copy.send(format!("{NEAR}\t7\tcopied\n").into_bytes()).await.unwrap();
    said.hear("copied in", copy.finish().await);
    said.hear(
        "cleared",
        sqlx::query("delete from kinds where id = $1")
            .bind(MINE)
            .execute(&mut *connection)
            .await
            .map(|done| done.rows_affected()),
    );
    let mut listener = PgListener::connect_with(pool).await.unwrap();
    listener.listen("sqlx_trial").await.unwrap();
    sqlx::query("select pg_notify('sqlx_trial', 'one')").execute(pool).await.unwrap();
    said.hear("heard", listener.recv().await.map(|heard| heard.payload().to_owned()));
}
