//! The shop by Diesel: migrations, CRUD by user, associations, transactions, the query builder.

use std::fmt::Debug;

use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use diesel::connection::{Connection, SimpleConnection};
use diesel::dsl::{count_star, exists, sum};
use diesel::prelude::*;
use diesel::result::Error;
use diesel::upsert::excluded;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use uuid::Uuid;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");
const USERS: [i64; 2] = [7, 150];

diesel::table! {
    users (id) {
        id -> BigInt, handle -> Text, email -> Text, full_name -> Nullable<Text>, country -> Bpchar, balance -> Numeric,
        interests -> Array<Text>, settings -> Jsonb, created_at -> Timestamptz,
    }
}
diesel::table! {
    orders (user_id, id) {
        user_id -> BigInt, id -> BigInt, tracking -> Uuid, status -> Text, total -> Numeric, placed_at -> Timestamptz,
    }
}
diesel::table! {
    posts (user_id, id) { user_id -> BigInt, id -> BigInt, public_id -> Uuid, body -> Text, likes -> Integer, }
}
diesel::table! { categories (id) { id -> Integer, name -> Text, slug -> Text, } }
diesel::table! { reviews (user_id, id) { user_id -> BigInt, id -> BigInt, body -> Nullable<Text>, stars -> Integer, } }
diesel::joinable!(orders -> users (user_id));
diesel::joinable!(posts -> users (user_id));
diesel::allow_tables_to_appear_in_same_query!(users, orders, posts);

/// Most of its fields are read by Debug alone.
#[allow(dead_code)]
#[derive(Debug, Queryable, Selectable, Identifiable)]
#[diesel(table_name = users)]
struct User {
    id: i64,
    handle: String,
    full_name: Option<String>,
    balance: BigDecimal,
    interests: Vec<String>,
    settings: serde_json::Value,
}

#[derive(Insertable)]
#[diesel(table_name = users)]
struct NewUser<'a> {
    id: i64,
    handle: String,
    email: &'a str,
    country: &'a str,
    interests: Vec<&'a str>,
}

#[derive(Debug, Queryable, Selectable, Identifiable, Associations)]
#[diesel(table_name = orders, primary_key(user_id, id), belongs_to(User))]
struct Order {
    user_id: i64,
    id: i64,
    status: String,
    total: BigDecimal,
}

#[derive(Insertable)]
#[diesel(table_name = orders)]
struct NewOrder {
    user_id: i64,
    id: i64,
    tracking: Uuid,
    total: BigDecimal,
}

#[derive(AsChangeset)]
#[diesel(table_name = users)]
struct Changes<'a> {
    full_name: Option<&'a str>,
    settings: serde_json::Value,
}

fn say(label: &str, came: impl Debug) {
    println!("{label} => {}", format!("{came:?}").replace('\n', " "));
}

fn attempt<T: Debug>(label: &str, came: QueryResult<T>) {
    match came {
        Ok(came) => say(label, came),
        Err(Error::DatabaseError(kind, told)) => say(label, (kind, told.message(), told.constraint_name())),
        Err(cause) => say(label, cause),
    }
}

fn migrate(connection: &mut PgConnection) -> QueryResult<()> {
    println!("part => migrations");
    say("run", connection.run_pending_migrations(MIGRATIONS).map(|done| done.len()).map_err(|cause| cause.to_string()));
    say("again", connection.run_pending_migrations(MIGRATIONS).map(|done| done.len()).map_err(|cause| cause.to_string()));
    let rows: Vec<_> = USERS.iter().map(|user| (reviews::user_id.eq(user), reviews::id.eq(1), reviews::body.eq("fine"))).collect();
    attempt("made", diesel::insert_into(reviews::table).values(rows).execute(connection));
    let read = reviews::table.select((reviews::user_id, reviews::stars)).order(reviews::user_id);
    say("read", read.load::<(i64, i32)>(connection)?);
    say("undone", connection.revert_all_migrations(MIGRATIONS).map(|done| done.len()).map_err(|cause| cause.to_string()));
    attempt("gone", reviews::table.count().get_result::<i64>(connection));
    attempt("dropped", connection.batch_execute("drop table __diesel_schema_migrations"));
    Ok(())
}

fn fill(connection: &mut PgConnection) -> QueryResult<()> {
    println!("part => filling");
    let rows: Vec<_> = (1..=2)
        .map(|id| (categories::id.eq(id), categories::name.eq(format!("category {id}")), categories::slug.eq(format!("slug-{id}"))))
        .collect();
    say("categories", diesel::insert_into(categories::table).values(rows).execute(connection)?);
    let user = |id: i64| NewUser { id, handle: format!("user{id}"), email: "a@example.com", country: "DE", interests: vec!["a", "b"] };
    let all: Vec<i64> = USERS.into_iter().flat_map(|user| [user, user + 1]).collect();
    let rows: Vec<_> = all.iter().map(|&id| user(id)).collect();
    attempt("users", diesel::insert_into(users::table).values(&rows).execute(connection));
    for &user_id in &all {
        let order = |id: i64| NewOrder { user_id, id, tracking: Uuid::from_u128(id as u128), total: BigDecimal::from(id * 5) };
        let made = diesel::insert_into(orders::table).values((1..=3).map(order).collect::<Vec<_>>());
        say("orders", made.returning((orders::id, orders::status)).get_results::<(i64, String)>(connection)?);
    }
    attempt("twice", diesel::insert_into(users::table).values(&user(7)).execute(connection));
    attempt("or nothing", diesel::insert_into(users::table).values(&user(7)).on_conflict_do_nothing().execute(connection));
    Ok(())
}

fn one_user(connection: &mut PgConnection, id: i64) -> QueryResult<()> {
    println!("part => user {id}");
    let user = users::table.find(id).select(User::as_select()).first(connection)?;
    say("found", &user);
    say("none", users::table.find(99).select(User::as_select()).first(connection).optional()?.is_none());
    let own = Order::belonging_to(&user).select(Order::as_select()).order(orders::id).load(connection)?;
    say("orders", own.iter().map(|order| (order.id, &order.status, &order.total)).collect::<Vec<_>>());
    let settings = serde_json::json!({ "theme": "dark" });
    let changes = Changes { full_name: Some("Updated"), settings };
    let update = diesel::update(&user).set((&changes, users::balance.eq(users::balance + BigDecimal::from(5))));
    say("updated", update.returning(User::as_returning()).get_result(connection)?);
    let joined = users::table.inner_join(orders::table).filter(users::id.eq(id)).order(orders::id.desc());
    say("joined", joined.select((users::handle, orders::id)).load::<(String, i64)>(connection)?);
    let left = users::table.left_join(posts::table).filter(users::id.eq(id));
    say("left", left.select((users::id, posts::id.nullable())).load::<(i64, Option<i64>)>(connection)?);
    for body in ["new", "newer"] {
        let upsert = diesel::insert_into(posts::table)
            .values((posts::user_id.eq(id), posts::id.eq(1), posts::public_id.eq(Uuid::from_u128(id as u128)), posts::body.eq(body)))
            .on_conflict((posts::user_id, posts::id))
            .do_update()
            .set(posts::body.eq(excluded(posts::body)));
        say("upsert", upsert.returning(posts::body).get_result::<String>(connection)?);
    }
    let mine = orders::table.filter(orders::user_id.eq(id));
    say("grouped", mine.group_by(orders::status).select((orders::status, count_star(), sum(orders::total))).load::<(String, i64, Option<BigDecimal>)>(connection)?);
    say("exists", diesel::select(exists(mine.filter(orders::total.gt(BigDecimal::from(12))))).get_result::<bool>(connection)?);
    say("locked", users::table.find(id).select(users::id).for_update().first::<i64>(connection)?);
    say("recent", mine.filter(orders::placed_at.lt(Utc::now() + chrono::Duration::days(1))).count().get_result::<i64>(connection)?);
    attempt("check", diesel::update(mine).set(orders::status.eq("lost")).execute(connection));
    say("deleted", diesel::delete(mine.filter(orders::id.eq(1))).execute(connection)?);
    let raw = diesel::sql_query("select id, handle, full_name, balance, interests, settings from users where id = $1").bind::<diesel::sql_types::BigInt, _>(id);
    say("raw", raw.execute(connection)?);
    Ok(())
}

fn transactions(connection: &mut PgConnection) -> QueryResult<()> {
    println!("part => transactions");
    let handle = |id: i64, to: &'static str| diesel::update(users::table.find(id)).set(users::handle.eq(to));
    let lost = connection.transaction::<(), _, _>(|connection| {
        handle(7, "lost").execute(connection)?;
        let inner = connection.transaction::<(), Error, _>(|connection| {
            handle(150, "lost").execute(connection)?;
            diesel::sql_query("select 1 / 0").execute(connection).map(|_| ())
        });
        attempt("inner", inner);
        say("goes on", users::table.find(150).select(users::handle).first::<String>(connection)?);
        Err(Error::RollbackTransaction)
    });
    say("lost", lost);
    let both = || users::table.filter(users::id.eq_any(USERS)).order(users::id).select((users::id, users::handle, users::balance));
    say("as before", both().load::<(i64, String, BigDecimal)>(connection)?);
    connection.transaction::<_, Error, _>(|connection| {
        for id in USERS {
            diesel::update(users::table.find(id)).set(users::balance.eq(users::balance + BigDecimal::from(1))).execute(connection)?;
        }
        Ok(())
    })?;
    say("on both", both().load::<(i64, String, BigDecimal)>(connection)?);
    let serializable = connection.build_transaction().serializable().read_only().run(|connection| users::table.find(7).select(users::id).first::<i64>(connection));
    attempt("serializable", serializable);
    attempt("texts", connection.batch_execute("begin; update users set handle = 'a' where id = 7; update users set handle = 'b' where id = 150; commit"));
    Ok(())
}

fn all_users(connection: &mut PgConnection) -> QueryResult<()> {
    println!("part => all users");
    say("ordered", users::table.select(users::id).order(users::id).load::<i64>(connection)?);
    say("page", users::table.select(users::id).order(users::id.desc()).limit(2).offset(1).load::<i64>(connection)?);
    say("count", orders::table.count().get_result::<i64>(connection)?);
    say("sum", orders::table.select(sum(orders::total)).get_result::<Option<BigDecimal>>(connection)?);
    let everybody = users::table.select(User::as_select()).order(users::id).load(connection)?;
    let all = Order::belonging_to(&everybody).select(Order::as_select()).order((orders::user_id, orders::id)).load(connection)?;
    let all = all.grouped_by(&everybody);
    say("eager", everybody.iter().zip(all).map(|(user, orders)| (user.id, orders.iter().map(|order| (order.user_id, order.id)).collect::<Vec<_>>())).collect::<Vec<_>>());
    let grouped = users::table.left_join(orders::table).group_by(users::id).select((users::id, diesel::dsl::count(orders::id.nullable())));
    attempt("grouped", grouped.order(users::id).load::<(i64, i64)>(connection));
    let some = users::table.filter(exists(orders::table.filter(orders::user_id.eq(users::id)).filter(orders::total.gt(BigDecimal::from(12)))));
    attempt("some", some.select(users::id).order(users::id).load::<i64>(connection));
    attempt("distinct", orders::table.select(orders::status).distinct().order(orders::status).load::<String>(connection));
    let streamed = users::table.select((users::id, users::created_at)).order(users::id).load_iter::<(i64, DateTime<Utc>), diesel::pg::PgRowByRowLoadingMode>(connection)?;
    say("row by row", streamed.map(|row| row.map(|(id, _)| id)).collect::<QueryResult<Vec<i64>>>()?);
    attempt("updated", diesel::update(users::table).set(users::country.eq("FR")).execute(connection));
    Ok(())
}

fn main() -> QueryResult<()> {
    // All from the environment.
    let connection = &mut PgConnection::establish("").expect("a connection");
    migrate(connection)?;
    fill(connection)?;
    for id in USERS {
        one_user(connection, id)?;
    }
    transactions(connection)?;
    all_users(connection)?;
    attempt("deleted", diesel::delete(users::table.filter(users::id.eq_any(USERS))).execute(connection));
    Ok(())
}
