//! What the result cache is told of statements: by catalogs of a real server, asked by EXPLAIN ROUTE.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pgweir::cache::{Reason, TableTag, Touched, Witness};
use pgweir::config::Config;
use pgweir::control::Control;
use pgweir::control::connect::connect;
use pgweir::topology::Topology;
use support::{APP, Cluster, PASSWORD, Proxy, Role};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// One server with something of everything, and one proxy with a cache.
fn shop() -> &'static (Proxy, Cluster) {
    static SHOP: OnceLock<(Proxy, Cluster)> = OnceLock::new();
    SHOP.get_or_init(|| {
        let cluster = Cluster::start(1, 0);
        cluster.sql(0, Role::Primary, SCHEMA);
        let rules = "[cache]\nenabled = true\n\
             [[cache.rules]]\ntables = [\"sessions\"]\ncache = false\n\
             [[cache.rules]]\ntables = [\"currencies\"]\nttl = \"10m\"\n";
        (Proxy::start(&format!("{}\n{rules}", cluster.toml())), cluster)
    })
}

const SCHEMA: &str = "\
    create table users(id bigint primary key, name text, seen timestamptz, born date); \
    create table orders(id bigint primary key, user_id bigint references users on delete cascade, note text); \
    create table items(order_id bigint references orders on delete set null, code text unique); \
    create table tags(item text references items(code) on update cascade on delete restrict); \
    create table currencies(code text primary key); \
    create table sessions(id bigint); \
    create schema other; create table other.users(id bigint); \
    create table log(at timestamptz, line text) partition by range (at); \
    create table log_1 partition of log for values from ('2024-01-01') to ('2025-01-01'); \
    create table log_2 partition of log for values from ('2025-01-01') to ('2026-01-01'); \
    create table animals(name text); create table dogs(breed text) inherits (animals); \
    create table secrets(owner text); alter table secrets enable row level security; \
    create unlogged table scratch(id bigint); \
    create sequence counter; \
    create table clocks(at timetz); \
    create table audited(id bigint); \
    create function audit() returns trigger language plpgsql as 'begin insert into log values (now(), 1); return new; end'; \
    create trigger audit after insert on audited for each row execute function audit(); \
    create table ruled(id bigint); create rule copy as on insert to ruled do also insert into sessions values (1); \
    create function writes() returns bigint language sql as 'insert into sessions values (1) returning 1'; \
    create table defaulted(id bigint default writes()); \
    create function pure(bigint) returns bigint language sql immutable as 'select $1'; \
    create function looks() returns bigint language sql stable as 'select count(*) from users'; \
    create function label(users) returns text language sql volatile as 'select $1.name'; \
    create function step(bigint, bigint) returns bigint language sql as 'select $1 + $2'; \
    create aggregate total(bigint) (sfunc = step, stype = bigint, initcond = '0'); \
    create view named as select id, name from users where seen > '2020-01-01'; \
    create view named_orders as select o.id, n.name from orders o join named n on n.id = o.user_id; \
    create view recent as select * from users where seen > now() - interval '1 day'; \
    create view over_recent as select id from recent; \
    create view mine as select * from users where name = current_user; \
    create view drawn as select random() as r, id from users; \
    create view relations as select u.id, c.relname from users u cross join pg_class c; \
    create view parsed as select name::timestamptz as t from users; \
    create view days as select date_trunc('day', seen) as day, seen::date, seen < born as old from users; \
    create view hidden as select * from secrets; \
    create materialized view counted as select count(*) from users; \
    grant all on all tables in schema public to public; grant usage on schema other to public; \
    grant all on all tables in schema other to public; grant all on all sequences in schema public to public";

async fn client() -> Client {
    let port = tokio::task::spawn_blocking(|| shop().0.port).await.unwrap();
    let login = format!("host=127.0.0.1 port={port} user={APP} password='{PASSWORD}' dbname=shop");
    let (client, connection) = tokio_postgres::connect(&login, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// What EXPLAIN ROUTE says of the cache.
async fn verdict(client: &Client, sql: &str) -> String {
    let messages =
        client.simple_query(&format!("explain route {sql}")).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    let line = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) if row.get(0) == Some("cache") => row.get(1).map(str::to_owned),
        _ => None,
    });
    line.unwrap_or_else(|| panic!("{sql}: no line of the cache"))
}

async fn check(cases: &[(&str, &str)]) {
    let client = client().await;
    let mut faults = Vec::new();
    for (sql, expected) in cases {
        let said = verdict(&client, sql).await;
        if said != *expected {
            faults.push(format!("{sql}\n  said:     {said}\n  expected: {expected}"));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[tokio::test]
async fn answers_that_depend_on_tables_alone_are_kept() {
    check(&[
        ("select * from users where id = 1", "lookup users (ttl 60s)"),
        ("select count(*) from users u join orders o on o.user_id = u.id", "lookup users, orders (ttl 60s)"),
        ("select * from other.users", "lookup other.users (ttl 60s)"),
        ("select (select max(id) from orders) from users", "lookup users, orders (ttl 60s)"),
        ("with o as (select * from orders) select * from o, users", "lookup users, orders (ttl 60s)"),
        (
            "select 1 from users where exists (select from orders where user_id = users.id)",
            "lookup users, orders (ttl 60s)",
        ),
        ("select id from users union select id from orders", "lookup users, orders (ttl 60s)"),
        ("select * from only animals", "lookup animals (ttl 60s)"),
        ("select * from users order by (select count(*) from orders)", "lookup users, orders (ttl 60s)"),
        ("select coalesce((select note from orders limit 1), name) from users", "lookup users, orders (ttl 60s)"),
        ("select count(*) filter (where id in (select id from orders)) from users", "lookup users, orders (ttl 60s)"),
        // Functions whose results depend on settings that are part of the key.
        (
            "select to_char(seen, 'DD'), date_trunc('day', seen), format('%s', name) from users",
            "lookup users (ttl 60s)",
        ),
        ("select seen::date, extract(hour from seen), seen at time zone 'UTC' from users", "lookup users (ttl 60s)"),
        ("select pure(id), jsonb_agg(name) from users group by 1", "lookup users (ttl 60s)"),
        ("select age(seen, seen) from users", "lookup users (ttl 60s)"),
        ("select * from users where born = '2024-01-01'", "lookup users (ttl 60s)"),
        // Views lead to their tables, partitioned tables stand for their partitions.
        ("select * from named", "lookup users (ttl 60s)"),
        ("select * from named_orders", "lookup users, orders (ttl 60s)"),
        ("select * from days", "lookup users (ttl 60s)"),
        ("select * from counted", "lookup counted (ttl 60s)"),
        ("select * from log", "lookup log (ttl 60s)"),
        ("select * from log_1", "lookup log_1 (ttl 60s)"),
        // Rules: the first that names a table; the shortest ttl of several.
        ("select * from currencies", "lookup currencies (ttl 600s)"),
        ("select * from currencies, users", "lookup currencies, users (ttl 60s)"),
        ("select /* pgweir: cache=5s */ * from users", "lookup users (ttl 5s)"),
        ("select /* pgweir: cache=off */ * from users", "bypass: not wanted by hint or setting"),
        ("select * from users, sessions", "bypass: a rule of [[cache.rules]]"),
    ])
    .await;
}

#[tokio::test]
async fn answers_that_depend_on_more_are_not() {
    let volatile = "bypass: a function that depends on more than its arguments";
    let special = "bypass: a value of the moment or the session, such as current_timestamp";
    let time = "bypass: a date or time that may be written as 'now'";
    let view = "bypass: a view that depends on more than tables";
    check(&[
        ("select now() from users", volatile),
        ("select random() from users", volatile),
        ("select * from users where seen > clock_timestamp()", volatile),
        ("select age(seen) from users", volatile),
        ("select current_setting('timezone') from users", volatile),
        ("select looks() from users", volatile),
        ("select u.label from users u", volatile),
        ("select current_date from users", special),
        ("select CURRENT_TIMESTAMP(3) from users", special),
        ("select * from users where name = current_user", special),
        ("select * from users where name = user", special),
        ("select * from users where seen > 'now'", time),
        ("select * from users where seen > 'Yesterday 10:00'", time),
        ("select * from users where born = date 'today'", time),
        ("select * from users where seen > '2024-01-01'::timestamptz", time),
        ("select * from users where seen > timestamp with time zone '2024-01-01'", time),
        ("select name::timestamptz from users", time),
        ("select date(name) from users", time),
        ("select ('n' || 'ow')::date from users", time),
        ("select born::date from (select name as born from users) u", time),
        ("select * from users where seen > E'n\\x6fw'", time),
        ("select * from clocks", time),
        ("select * from users tablesample system (10)", "bypass: TABLESAMPLE"),
        ("select * from users for update", "bypass: locks rows"),
        ("select * from (select * from users for share) u", "bypass: locks rows"),
        ("select * from secrets", "bypass: row security"),
        ("select * from hidden", "bypass: row security"),
        ("select * from scratch", "bypass: an unlogged table"),
        ("select last_value from counter", "bypass: a sequence"),
        ("select relname from pg_class", "bypass: a system catalog"),
        ("select * from users, information_schema.tables", "bypass: a system catalog"),
        ("select 1", "bypass: reads no table"),
        ("select * from generate_series(1, 3)", "bypass: reads no table"),
        ("select * from recent", view),
        ("select * from over_recent", view),
        ("select * from mine", view),
        ("select * from drawn", view),
        ("select * from relations", view),
        ("select * from parsed", view),
        ("declare c cursor for select * from users", "bypass: not a plain query"),
        ("explain select * from users", "bypass: not a plain query"),
        ("set timezone to 'UTC'", "bypass: not a plain query"),
        ("listen events", "bypass: not a plain query"),
        ("select nextval('counter') from users", volatile),
        ("select pg_advisory_lock(1) from users", volatile),
    ])
    .await;
}

#[tokio::test]
async fn a_write_touches_what_it_changes() {
    check(&[
        ("insert into users values (1)", "invalidates users"),
        ("update users set name = 'a' where id = 1", "invalidates users"),
        // Keys: rows that go with it, rows that are set to NULL, and no further than they reach.
        ("delete from users", "invalidates items, orders, users"),
        ("delete from items", "invalidates items"),
        ("update items set code = 'a'", "invalidates items, tags"),
        ("insert into items values (1, 'a') on conflict (code) do update set code = 'b'", "invalidates items, tags"),
        ("with d as (delete from orders returning *) select * from d", "invalidates items, orders"),
        (
            "with i as (insert into currencies values ('x') returning *) update users set name = i.code from i",
            "invalidates currencies, items, orders, users",
        ),
        (
            "merge into currencies c using users u on u.name = c.code when not matched then insert values (u.name)",
            "invalidates currencies",
        ),
        ("insert into other.users values (1)", "invalidates other.users"),
        ("insert into log values (now(), 'a')", "invalidates log"),
        ("insert into log_1 values ('2024-02-02', 'a')", "invalidates log_1"),
        ("update only animals set name = 'a'", "invalidates animals"),
        ("update named set name = 'a'", "invalidates users"),
        ("copy users from stdin", "invalidates users"),
        // Which verb a part of a query has is not told apart.
        ("copy (delete from items returning code) to stdout", "invalidates items, tags"),
        // Only a key that is assigned carries on.
        ("update items set order_id = 1", "invalidates items"),
        ("update items set (order_id, code) = (1, 'a')", "invalidates items, tags"),
        ("insert into users values (nextval('counter'), random()::text)", "invalidates users"),
        ("explain analyze delete from currencies", "invalidates currencies"),
        ("explain delete from currencies", "bypass: not a plain query"),
    ])
    .await;
}

#[tokio::test]
async fn what_is_not_known_touches_everything() {
    let statements = [
        "insert into audited values (1)",
        "insert into ruled values (1)",
        "insert into defaulted default values",
        "select writes()",
        "select writes() from users",
        "insert into users values (writes())",
        "select total(id) from users",
        "select no_such_function(1)",
        "select * from no_such_table",
        "insert into no_such_table values (1)",
        "do $$begin end$$",
        "call anything()",
        "execute anything",
        "truncate users",
        "create index on users(name)",
        "alter table users add column x int",
        "grant select on users to public",
        "revoke select on users from public",
        "refresh materialized view counted",
        "select * into copied from users",
        "create table copied as select * from users",
        "commit prepared 'anything'",
        "vacuum users",
        "update pg_class set relname = relname",
    ];
    let cases: Vec<(&str, &str)> = statements.iter().map(|sql| (*sql, "invalidates everything")).collect();
    check(&cases).await;
    let nothing = [
        "select nextval('counter')",
        "select pg_advisory_lock(1)",
        "select set_config('a.b', 'c', false)",
        "begin",
        "commit",
        "fetch all from c",
        "lock table users",
    ];
    let client = client().await;
    for sql in nothing {
        let said = verdict(&client, sql).await;
        assert!(said.starts_with("bypass: "), "{sql}: {said}");
    }
}

/// Each of these changes what may be kept, or who may see it: plans made before are not used after.
#[tokio::test]
async fn changes_made_elsewhere_are_learnt() {
    let client = client().await;
    let cluster = &shop().1;
    let elsewhere = |sql: &'static str| {
        let done = std::thread::scope(|scope| scope.spawn(|| cluster.sql(0, Role::Primary, sql)).join());
        done.unwrap();
    };
    elsewhere("create table changing(id bigint primary key); grant all on changing to public");
    let steps = [
        ("select 1", "select * from changing", "lookup changing (ttl 60s)"),
        ("alter table changing enable row level security", "select * from changing", "bypass: row security"),
        ("alter table changing disable row level security", "select * from changing", "lookup changing (ttl 60s)"),
        (
            "create table refers(id bigint references changing on delete cascade)",
            "delete from changing",
            "invalidates changing, refers",
        ),
        ("alter table refers drop constraint refers_id_fkey", "delete from changing", "invalidates changing"),
        ("create rule r as on delete to changing do also notify n", "delete from changing", "invalidates everything"),
        ("drop rule r on changing", "delete from changing", "invalidates changing"),
        (
            "create function odd(text, text) returns bool language sql as 'select true'; \
             create operator === (function = odd, leftarg = text, rightarg = text)",
            "select * from changing",
            "bypass: a function that depends on more than its arguments",
        ),
        ("drop operator ===(text, text)", "select * from changing", "lookup changing (ttl 60s)"),
    ];
    for (change, sql, expected) in steps {
        elsewhere(change);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let said = verdict(&client, sql).await;
            if said == expected {
                break;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{change}: {sql}\n  said:     {said}\n  expected: {expected}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Two names of one database are one space; a write whose outcome nobody heard counts as pending until its server
/// process is gone.
#[tokio::test]
async fn a_space_is_learnt_and_a_lost_write_is_looked_after() {
    let (toml, server) = tokio::task::spawn_blocking(|| {
        let cluster = &shop().1;
        let primary = cluster.primary(0);
        let again = format!(
            "[[databases]]\nname = \"store\"\ndatabase_name = \"shop\"\nhost = \"127.0.0.1\"\nport = {}\n",
            primary.port()
        );
        (format!("[general]\n{}\n[cache]\nenabled = true\n{again}", cluster.toml()), cluster.superuser(primary))
    })
    .await
    .unwrap();
    let config = Config::parse(std::path::Path::new("pgweir.toml"), &toml).unwrap();
    let control = Control::start(Topology::new(&config, 1).unwrap());
    let space = loop {
        match (control.spaces_of("shop"), control.spaces_of("store")) {
            (Some(shop), Some(store)) => {
                assert!(shop.len() == 1 && Arc::ptr_eq(&shop[0], &store[0]));
                break Arc::clone(&shop[0]);
            }
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let writer = connect(&server).await.unwrap();
    let process = writer.rows("select pg_backend_pid()").await.unwrap()[0][0].clone().unwrap();
    let mut touched = Touched::nothing();
    touched.add(TableTag::new("public", "users"));
    let topology = control.topology();
    let witness = Witness { server: Arc::clone(&topology.servers[0]), process: process.parse().unwrap(), gid: None };
    let places = [space];
    let stamp = || control.spaces().stamp(&places, &[TableTag::new("public", "users")]);
    let before = stamp().unwrap();
    drop(control.spaces().write(&places, &touched, witness));
    // As long as the process is there, whatever else is asked of the server.
    for _ in 0..10 {
        writer.rows("select pg_sleep(0.05)").await.unwrap();
        assert_eq!(stamp().unwrap_err(), Reason::Pending);
    }
    drop(writer);
    while stamp().is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!before.holds());
}

/// Without a cache nothing is said but that.
#[test]
fn where_there_is_no_cache_the_line_says_so() {
    let proxy = Proxy::start(&shop().1.toml());
    let said = support::psql_as(APP, proxy.port, "shop", PASSWORD, &["-t", "-c", "explain route select * from users"]);
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("cache|[cache] is not enabled"), "{said}");
}
