//! Transactions that wait for each other on different shards, where no server sees the circle.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::OnceLock;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use support::{APP, Cluster, KEYS, PASSWORD, Proxy, Role, until};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::{Instant, timeout};
use tokio_postgres::{Client, NoTls};

/// Two shards behind a proxy; row `n` of shard `s` is `s * KEYS + n`, all of them 0 for each test.
struct World {
    cluster: Cluster,
    proxy: Proxy,
    another: Proxy,
}

impl World {
    fn start() -> Self {
        let cluster = Cluster::start(2, 0);
        cluster.sql_everywhere(
            "create table registers(user_id bigint primary key, v bigint not null); grant all on registers to public",
        );
        for shard in 0..2 {
            let first = shard * KEYS;
            let rows = format!("insert into registers select {first} + i, 0 from generate_series(1, 100) i");
            cluster.sql(u16::try_from(shard).unwrap(), Role::Primary, &rows);
        }
        // A commit of row 50 takes row 51, too.
        cluster.sql(
            0,
            Role::Primary,
            "create function follow() returns trigger language plpgsql as \
               $$begin update registers set v = v + 1 where user_id = 51; return null; end$$; \
             create constraint trigger follow after update on registers deferrable initially deferred \
               for each row when (new.user_id = 50 and new.v > 0) execute function follow()",
        );
        let [proxy, another] = [0, 1].map(|_| Proxy::start(&cluster.toml()));
        Self { cluster, proxy, another }
    }

    /// One test has it at a time.
    async fn take() -> MutexGuard<'static, Self> {
        static WORLD: OnceLock<Mutex<World>> = OnceLock::new();
        let world = block_in_place(|| WORLD.get_or_init(|| Mutex::new(Self::start()))).lock().await;
        block_in_place(|| world.cluster.sql_everywhere("update registers set v = 0 where v <> 0"));
        world
    }

    async fn connect(&self) -> Client {
        self.connect_by(&self.proxy).await
    }

    async fn connect_by(&self, proxy: &Proxy) -> Client {
        let login = format!("host=127.0.0.1 port={} user={APP} password='{PASSWORD}' dbname=shop", proxy.port);
        let (client, connection) = tokio_postgres::connect(&login, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Returns when so many processes of both servers wait for locks.
    fn until_waiting(&self, count: usize) {
        let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'";
        let all =
            || self.cluster.sql_everywhere(waiting).iter().map(|count| count.parse::<usize>().unwrap()).sum::<usize>();
        block_in_place(|| until(|| all() == count));
    }

    fn sum(&self) -> i64 {
        let sums = block_in_place(|| self.cluster.sql_everywhere("select sum(v) from registers"));
        sums.iter().map(|sum| sum.parse::<i64>().unwrap()).sum()
    }
}

/// Adds one to rows, by a statement of either protocol; gives the SQLSTATE of its failure.
async fn add(client: &Client, keys: &[i64], prepared: bool) -> Result<(), String> {
    let code = |cause: tokio_postgres::Error| cause.code().map(|code| code.code().to_owned()).unwrap_or_default();
    if prepared {
        let text = "update registers set v = v + 1 where user_id = any($1)";
        return client.execute(text, &[&keys]).await.map(|_| ()).map_err(code);
    }
    let keys: Vec<String> = keys.iter().map(i64::to_string).collect();
    let text = format!("update registers set v = v + 1 where user_id in ({})", keys.join(","));
    client.batch_execute(&text).await.map_err(code)
}

/// The same in the background.
fn adding(client: Client, keys: &'static [i64], prepared: bool) -> JoinHandle<(Client, Result<(), String>)> {
    tokio::spawn(async move {
        let answer = add(&client, keys, prepared).await;
        (client, answer)
    })
}

async fn begin(world: &World, keys: &[i64]) -> Client {
    begin_by(world, &world.proxy, keys).await
}

async fn begin_by(world: &World, proxy: &Proxy, keys: &[i64]) -> Client {
    let client = world.connect_by(proxy).await;
    client.batch_execute("begin").await.unwrap();
    add(&client, keys, false).await.unwrap();
    client
}

/// One of them has lost, and can try again when the other ones are through.
async fn settle(waiting: Vec<JoinHandle<(Client, Result<(), String>)>>) {
    let begun = Instant::now();
    // Those who go on wait for one another: each commits as soon as it has its answer.
    let (mut left, mut lost, mut through) = (waiting, Vec::new(), 0);
    while !left.is_empty() {
        let (ended, _, rest) = timeout(PATIENCE, futures_util::future::select_all(left)).await.expect("they hang");
        left = rest;
        let (client, answer) = ended.unwrap();
        match answer {
            Ok(()) => {
                client.batch_execute("commit").await.unwrap();
                through += 1;
            }
            Err(code) => {
                eprintln!("{code} after {:?}", begun.elapsed());
                assert_eq!(code, "40P01");
                assert_eq!(add(&client, &[1], false).await.unwrap_err(), "25P02");
                client.batch_execute("rollback").await.unwrap();
                lost.push(client);
            }
        }
    }
    assert_eq!(lost.len(), 1, "{through} went on");
    lost[0].batch_execute("begin").await.unwrap();
    add(&lost[0], &[1, 1001], true).await.unwrap();
    lost[0].batch_execute("commit").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_gets_40p01_and_the_other_goes_on() {
    let world = World::take().await;
    for prepared in [false, true] {
        let (first, second) = (begin(&world, &[1]).await, begin(&world, &[1001]).await);
        settle(vec![adding(first, &[1001], prepared), adding(second, &[1], prepared)]).await;
    }
    // Each time one adds to both rows, then the one that lost.
    assert_eq!(world.sum(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_on_both_shards_takes_part() {
    let world = World::take().await;
    for prepared in [false, true] {
        let first = begin(&world, &[1001]).await;
        let both = world.connect().await;
        let both = tokio::spawn(async move {
            let answer = add(&both, &[1, 1001], prepared).await;
            // Outside of a block there is nothing to commit, and nothing that has failed.
            both.batch_execute("begin").await.unwrap();
            let answer = match answer {
                Err(code) => both.batch_execute("select nothing").await.map_err(|_| code),
                done => done,
            };
            (both, answer)
        });
        world.until_waiting(1);
        settle(vec![both, adding(first, &[1], prepared)]).await;
    }
    assert_eq!(world.sum(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_in_a_circle_lose_one() {
    let world = World::take().await;
    let (a, b, c) = (begin(&world, &[1]).await, begin(&world, &[1001]).await, begin(&world, &[2]).await);
    settle(vec![adding(a, &[1001], true), adding(b, &[2], false), adding(c, &[1], false)]).await;
    assert_eq!(world.sum(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn circles_through_two_instances_are_seen() {
    let world = World::take().await;
    let (first, second) = (begin(&world, &[1]).await, begin_by(&world, &world.another, &[1001]).await);
    settle(vec![adding(first, &[1001], false), adding(second, &[1], true)]).await;
    let (a, b) = (begin(&world, &[1]).await, begin(&world, &[1001]).await);
    let c = begin_by(&world, &world.another, &[2]).await;
    settle(vec![adding(a, &[1001], true), adding(b, &[2], false), adding(c, &[1], false)]).await;
    assert_eq!(world.sum(), 4 + 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_commits_goes_first() {
    let world = World::take().await;
    let (commits, waits) = (begin(&world, &[50, 1001]).await, begin(&world, &[51]).await);
    let commits = tokio::spawn(async move { commits.batch_execute("commit").await });
    // It has prepared what it wrote on shard 1; on shard 0 its commit waits.
    block_in_place(|| until(|| world.cluster.sql(1, Role::Primary, "select count(*) from pg_prepared_xacts") == "1"));
    world.until_waiting(1);
    assert_eq!(add(&waits, &[1001], false).await.unwrap_err(), "40P01");
    waits.batch_execute("rollback").await.unwrap();
    timeout(PATIENCE, commits).await.unwrap().unwrap().unwrap();
    assert_eq!(world.sum(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_long_for_somebody_who_does_not_wait_is_left_alone() {
    let world = World::take().await;
    let (holds, next, last) =
        (begin(&world, &[1, 1001]).await, begin(&world, &[2]).await, begin(&world, &[1003]).await);
    let next = adding(next, &[1001], false);
    let last = adding(last, &[2], true);
    world.until_waiting(2);
    // Longer than anybody is patient.
    holds.batch_execute("select pg_sleep(3)").await.unwrap();
    world.until_waiting(2);
    holds.batch_execute("commit").await.unwrap();
    for waits in [next, last] {
        let (client, answer) = timeout(PATIENCE, waits).await.unwrap().unwrap();
        answer.unwrap();
        client.batch_execute("commit").await.unwrap();
    }
    assert_eq!(world.sum(), 6);
}

/// Adds to rows in the order of their keys: nobody waits for somebody behind.
async fn one_of_the_crowd(client: Client, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..20 {
        client.batch_execute("begin").await.unwrap();
        for key in [1, 2, 3, 1001, 1002] {
            add(&client, &[key], random.random_bool(0.5)).await.unwrap();
        }
        client.batch_execute("select pg_sleep(0.01)").await.unwrap();
        client.batch_execute("commit").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_in_good_order_loses_nobody() {
    let world = World::take().await;
    let mut crowd = Vec::new();
    for number in 0..16 {
        crowd.push(one_of_the_crowd(world.connect().await, number));
    }
    futures_util::future::join_all(crowd).await;
    assert_eq!(world.sum(), 16 * 20 * 5);
}

/// Nobody is to wait so long.
const PATIENCE: Duration = Duration::from_secs(30);
