//! The shop by sqlx: migrations, CRUD by user, transactions, streams, rows as structs.

use std::fmt::Debug;

use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions};
use sqlx::{Acquire, Connection, Executor, FromRow, QueryBuilder, Row};
use uuid::Uuid;

type Outcome<T> = Result<T, sqlx::Error>;
const USERS: [i64; 2] = [7, 150];

/// Its fields are read by Debug alone.
#[allow(dead_code)]
#[derive(Debug, FromRow)]
struct User {
    id: i64,
    handle: String,
    full_name: Option<String>,
    balance: BigDecimal,
    interests: Vec<String>,
    settings: sqlx::types::Json<serde_json::Value>,
}

#[allow(dead_code)]
#[derive(Debug, FromRow)]
struct Order {
    id: i64,
    status: String,
    total: BigDecimal,
}

fn say(label: &str, came: impl Debug) {
    println!("{label} => {}", format!("{came:?}").replace('\n', " "));
}

/// With what a program would look at in an error.
fn attempt<T: Debug>(label: &str, came: Outcome<T>) {
    match came {
        Ok(came) => say(label, came),
        Err(sqlx::Error::Database(cause)) => say(label, (cause.code(), cause.constraint(), cause.kind())),
        Err(cause) => say(label, cause.to_string()),
    }
}

async fn migrate(pool: &PgPool) -> Outcome<()> {
    println!("part => migrations");
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sqlx");
    let migrator = Migrator::new(folder).await.map_err(|cause| sqlx::Error::Migrate(Box::new(cause)))?;
    say("run", migrator.run(pool).await.map_err(|cause| cause.to_string()));
    say("again", migrator.run(pool).await.map_err(|cause| cause.to_string()));
    for user in USERS {
        let insert = sqlx::query("insert into reviews (user_id, id, body) values ($1, 1, $2)").bind(user).bind("fine");
        say("made", insert.execute(pool).await?.rows_affected());
    }
    let stars = sqlx::query_as::<_, (i64, i32)>("select user_id, stars from reviews order by user_id");
    say("read", stars.fetch_all(pool).await?);
    let done = sqlx::query_as::<_, (i64, String, bool)>("select version, description, success from _sqlx_migrations order by 1");
    say("versions", done.fetch_all(pool).await?);
    say("undone", migrator.undo(pool, 0).await.map_err(|cause| cause.to_string()));
    attempt("gone", sqlx::query("select * from reviews").fetch_all(pool).await.map(|rows| rows.len()));
    say("dropped", sqlx::query("drop table _sqlx_migrations").execute(pool).await?.rows_affected());
    Ok(())
}

async fn fill(pool: &PgPool) -> Outcome<()> {
    println!("part => filling");
    let mut categories = QueryBuilder::new("insert into categories (id, name, slug) ");
    categories.push_values(1..=2, |mut row, id: i32| {
        row.push_bind(id).push_bind(format!("category {id}")).push_bind(format!("slug-{id}"));
    });
    say("categories", categories.build().execute(pool).await?.rows_affected());
    for user in USERS.into_iter().flat_map(|user| [user, user + 1]) {
        let mut transaction = pool.begin().await?;
        let insert = sqlx::query("insert into users (id, handle, email, country, interests) values ($1, $2, $3, 'DE', $4)");
        let insert = insert.bind(user).bind(format!("user{user}")).bind("a@example.com").bind(vec!["a", "b"]);
        say("user", insert.execute(&mut *transaction).await?.rows_affected());
        for id in 1..=3i64 {
            let insert = sqlx::query("insert into orders (user_id, id, tracking, total) values ($1, $2, $3, $4) returning status, placed_at");
            let insert = insert.bind(user).bind(id).bind(Uuid::from_u128(id as u128)).bind(BigDecimal::from(id * 5));
            let row = insert.fetch_one(&mut *transaction).await?;
            say("order", (row.get::<String, _>(0), row.get::<DateTime<Utc>, _>("placed_at") > DateTime::<Utc>::UNIX_EPOCH));
        }
        transaction.commit().await?;
    }
    attempt("twice", sqlx::query("insert into users (id, handle, email, country) values (7, 'a', 'b', 'DE')").execute(pool).await);
    let both = "insert into users (id, handle, email, country) select * from unnest($1::bigint[], $2::text[], $2::text[], $3::text[])";
    let both = sqlx::query(both).bind(vec![40i64, 140]).bind(vec!["m", "n"]).bind(vec!["DE", "FR"]);
    attempt("by arrays", both.execute(pool).await.map(|done| done.rows_affected()));
    attempt("taken back", sqlx::query("delete from users where id = any($1)").bind(vec![40i64, 140]).execute(pool).await);
    Ok(())
}

async fn one_user(pool: &PgPool, user: i64) -> Outcome<()> {
    println!("part => user {user}");
    let whole = "select id, handle, full_name, balance, interests, settings from users where id = $1";
    say("found", sqlx::query_as::<_, User>(whole).bind(user).fetch_one(pool).await?);
    say("none", sqlx::query_as::<_, User>(whole).bind(99i64).fetch_optional(pool).await?.is_none());
    let orders = "select id, status, total from orders where user_id = $1 order by id";
    say("orders", sqlx::query_as::<_, Order>(orders).bind(user).fetch_all(pool).await?);
    let mut stream = sqlx::query_as::<_, Order>(orders).bind(user).fetch(pool);
    let mut total = BigDecimal::from(0);
    while let Some(order) = stream.try_next().await? {
        total += order.total;
    }
    say("streamed", total);
    let first = sqlx::query_as::<_, Order>(orders).bind(user).fetch(pool).try_next().await?;
    say("left early", first.map(|order| (order.id, order.status)));
    let settings = sqlx::types::Json(serde_json::json!({ "theme": "dark" }));
    let update = sqlx::query_scalar::<_, sqlx::types::Json<serde_json::Value>>(
        "update users set full_name = $2, settings = $3, balance = balance + 5 where id = $1 returning settings",
    );
    say("updated", update.bind(user).bind("Updated").bind(settings).fetch_one(pool).await?);
    let join = "select o.id, count(*), sum(o.total) over () from users u join orders o on o.user_id = u.id where u.id = $1 group by o.id, o.total order by 1";
    say("joined", sqlx::query_as::<_, (i64, i64, BigDecimal)>(join).bind(user).fetch_all(pool).await?);
    let upsert = "insert into posts (user_id, id, public_id, body) values ($1, 1, $2, $3) on conflict (user_id, id) do update set body = excluded.body returning body";
    for body in ["new", "newer"] {
        say("upsert", sqlx::query_scalar::<_, String>(upsert).bind(user).bind(Uuid::from_u128(user as u128)).bind(body).fetch_one(pool).await?);
    }
    attempt("check", sqlx::query("update orders set status = 'lost' where user_id = $1").bind(user).execute(pool).await);
    say("deleted", sqlx::query("delete from orders where user_id = $1 and id = 1").bind(user).execute(pool).await?.rows_affected());
    // What `query!` asks at compile time.
    let mut connection = pool.acquire().await?;
    let described = (&mut *connection).describe(sqlx::SqlStr::from_static(whole)).await;
    attempt("described", described.map(|described| format!("{:?} {:?}", described.columns.len(), described.nullable)));
    Ok(())
}

async fn transactions(pool: &PgPool) -> Outcome<()> {
    println!("part => transactions");
    let handle = "update users set handle = $2 where id = $1";
    let mut transaction = pool.begin().await?;
    sqlx::query(handle).bind(7i64).bind("lost").execute(&mut *transaction).await?;
    let mut nested = transaction.begin().await?;
    attempt("fails", sqlx::query("select 1 / 0").execute(&mut *nested).await);
    nested.rollback().await?;
    let mut nested = transaction.begin().await?;
    sqlx::query(handle).bind(150i64).bind("kept").execute(&mut *nested).await?;
    nested.commit().await?;
    transaction.rollback().await?;
    let handles = sqlx::query_as::<_, (i64, String)>("select id, handle from users where id = any($1) order by id");
    say("as before", handles.bind(&USERS[..]).fetch_all(pool).await?);
    drop(pool.begin().await?);
    let mut connection = pool.acquire().await?;
    let moved = connection.transaction(|transaction| Box::pin(async move {
        for user in USERS {
            sqlx::query("update users set balance = balance + 1 where id = $1").bind(user).execute(&mut **transaction).await?;
        }
        sqlx::query_scalar::<_, BigDecimal>("select sum(balance) from users").fetch_one(&mut **transaction).await
    }));
    say("on both", moved.await?);
    let texts = "begin; update users set handle = 'a' where id = 7; update users set handle = 'b' where id = 150; commit";
    say("texts", sqlx::raw_sql(texts).execute(&mut *connection).await?.rows_affected());
    say("ping", connection.ping().await);
    Ok(())
}

async fn all_users(pool: &PgPool) -> Outcome<()> {
    println!("part => all users");
    let ids = sqlx::query_scalar::<_, i64>("select id from users order by id");
    say("ordered", ids.fetch_all(pool).await?);
    let page = sqlx::query_scalar::<_, i64>("select id from users order by id desc limit $1 offset $2");
    say("page", page.bind(2i64).bind(1i64).fetch_all(pool).await?);
    say("count", sqlx::query_scalar::<_, i64>("select count(*) from orders").fetch_one(pool).await?);
    let grouped = "select status, count(*), sum(total) from orders group by status order by status";
    say("grouped", sqlx::query_as::<_, (String, i64, BigDecimal)>(grouped).fetch_all(pool).await?);
    let joined = "select u.id, count(o.id) from users u left join orders o on o.user_id = u.id group by u.id order by u.id";
    say("joined", sqlx::query_as::<_, (i64, i64)>(joined).fetch_all(pool).await?);
    let window = "select id, rank() over (order by balance desc, id) from users order by 2";
    say("window", sqlx::query_as::<_, (i64, i64)>(window).fetch_all(pool).await?);
    Ok(())
}

async fn listening(pool: &PgPool) -> Outcome<()> {
    println!("part => listening");
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen("shop").await?;
    sqlx::query("select pg_notify('shop', 'open')").execute(pool).await?;
    say("heard", listener.recv().await?.payload());
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let pool = PgPoolOptions::new().max_connections(2).connect_with(PgConnectOptions::new()).await?;
    migrate(&pool).await?;
    fill(&pool).await?;
    for user in USERS {
        one_user(&pool, user).await?;
    }
    transactions(&pool).await?;
    all_users(&pool).await?;
    listening(&pool).await?;
    say("deleted", sqlx::query("delete from users where id = any($1)").bind(&USERS[..]).execute(&pool).await?.rows_affected());
    pool.close().await;
    Ok(())
}
