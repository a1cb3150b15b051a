//! Reference tables are written with the same values on every shard, wherever these come from.

use super::{client_of, rows, sqlstate};
use crate::support::{Cluster, Proxy, Role};

const ALL: &str = "select string_agg(p::text, ' ' order by id) from products p";

fn start() -> (Cluster, Proxy) {
    let cluster = Cluster::start(2, 0);
    cluster.sql_everywhere(
        "create table products(id serial primary key, name text, code uuid default gen_random_uuid(), \
           made timestamptz default now(), number int generated always as identity, \
           twice int generated always as (2 * length(name)) stored); \
         create table categories(id int primary key, name text); \
         create function stamp() returns trigger language plpgsql as 'begin new.name = now(); return new; end'; \
         create trigger stamp before insert on categories for each row execute function stamp(); \
         create table orders(user_id bigint primary key, name text); \
         grant all on all tables in schema public to public; grant all on all sequences in schema public to public",
    );
    let proxy = Proxy::start(&cluster.toml());
    (cluster, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_made_once() {
    let (cluster, proxy) = tokio::task::spawn_blocking(start).await.unwrap();
    let client = client_of(proxy.port).await;
    let alike = |count: usize| {
        let all = cluster.sql_everywhere(ALL);
        assert_eq!(all[0], all[1]);
        assert_eq!(all[0].split_whitespace().count(), count, "{all:?}");
    };
    // By the extended protocol, values and columns in binary.
    let insert =
        client.prepare("insert into products(name) values ($1), (upper($1)) returning id, made, name").await.unwrap();
    let found = client.query(&insert, &[&"a(b)"]).await.unwrap();
    assert_eq!(found.iter().map(|row| row.get(0)).collect::<Vec<i32>>(), [1, 2]);
    assert!(found[0].get::<_, std::time::SystemTime>(1) <= std::time::SystemTime::now());
    assert_eq!(found[1].get::<_, &str>(2), "A(B)");
    assert_eq!(client.execute("insert into products default values", &[]).await.unwrap(), 1);
    alike(3 + 3);
    let update =
        client.prepare("update products set name = name || $1, code = gen_random_uuid() where id < $2").await.unwrap();
    assert_eq!(client.execute(&update, &[&"!", &3]).await.unwrap(), 2);
    assert_eq!(client.execute(&update, &[&"!", &0]).await.unwrap(), 0);
    let upsert = "insert into products(id, name) values (1, 'x'), (nextval('products_id_seq'), 'y') \
                  on conflict (id) do update set made = clock_timestamp(), name = excluded.name returning id";
    assert_eq!(rows(&client, upsert).await, ["1", "4"]);
    alike(4 + 4);
    // In a block, with its savepoints.
    client.batch_execute("begin").await.unwrap();
    client.batch_execute("delete from products where id = 1 and made < now()").await.unwrap();
    client.batch_execute("savepoint s").await.unwrap();
    client.batch_execute("update products set made = now()").await.unwrap();
    assert_eq!(sqlstate(&client, "insert into products(id) values (2)").await, "23505");
    client.batch_execute("rollback to savepoint s").await.unwrap();
    client.batch_execute("insert into orders values (5, 'o'), (1005, 'p')").await.unwrap();
    let read = "insert into products(name) select name from orders order by name returning name";
    assert_eq!(rows(&client, read).await, ["o", "p"]);
    client.batch_execute("commit").await.unwrap();
    alike(5 + 5);
    // What triggers would make of it on each shard, nobody knows.
    assert_eq!(sqlstate(&client, "insert into categories values (1 + random()::int * 0, 'x')").await, "0A000");
    // Nothing is written to tables that differ.
    cluster.sql(1, Role::Primary, "delete from products where id = 2");
    let cause = client.simple_query("update products set made = now() returning id").await.unwrap_err();
    assert_eq!(cause.code().unwrap().code(), "55000");
    assert_eq!(cluster.sql(0, Role::Primary, "select count(distinct made) > 1 from products"), "t");
    assert_eq!(rows(&client, "select count(*) from products where id = 2").await, ["1"]);
    drop(client);
    tokio::task::spawn_blocking(move || drop((proxy, cluster))).await.unwrap();
}
