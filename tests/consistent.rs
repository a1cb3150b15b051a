//! `consistent_reads`: what is read of several shards is one state of them, whoever dies while it is changed.

#![allow(clippy::unwrap_used)]

mod support;

#[path = "support/relay.rs"]
mod relay;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use relay::{Relay, Seen, Stage, Step};
use support::{APP, Cluster, KEYS, PASSWORD, Proxy, Role, Stop, until};
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// Accounts on three shards.
fn open_bank() -> Cluster {
    let cluster = Cluster::start(SHARDS, 0);
    cluster.sql_everywhere(
        "create table accounts(user_id bigint primary key, balance bigint not null); grant all on accounts to public",
    );
    for shard in 0..SHARDS {
        let first = u64::from(shard) * KEYS;
        let rows = format!("insert into accounts select {first} + i, {BALANCE} from generate_series(1, {ACCOUNTS}) i");
        cluster.sql(shard, Role::Primary, &rows);
    }
    cluster
}

async fn connect(port: u16) -> Option<Client> {
    let login = format!("host=127.0.0.1 port={port} user={APP} password='{PASSWORD}' dbname=shop");
    let (client, connection) = tokio_postgres::connect(&login, NoTls).await.ok()?;
    tokio::spawn(connection);
    Some(client)
}

/// The first column of all rows; or the SQLSTATE.
async fn numbers(client: &Client, sql: &str) -> Result<Vec<i64>, String> {
    let code = |cause: tokio_postgres::Error| cause.code().map(|code| code.code().to_owned()).unwrap_or_default();
    let answer = timeout(PATIENCE, client.simple_query(sql)).await.unwrap_or_else(|_| panic!("no answer: {sql}"));
    let number = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(|number| number.parse().unwrap()),
        _ => None,
    };
    Ok(answer.map_err(code)?.iter().filter_map(number).collect())
}

/// The sum of all balances, read in every way that a read of several shards takes.
const TOTALS: [&str; 4] = [
    "select sum(balance) from accounts",
    "select balance from accounts order by user_id",
    "select sum(balance) over () from accounts order by user_id limit 1",
    "with all_of_them as (select user_id, balance from accounts) select sum(balance) from all_of_them a join accounts b using (user_id, balance)",
];

#[tokio::test(flavor = "multi_thread")]
async fn half_a_commit_is_waited_for() {
    let cluster = block_in_place(open_bank);
    let stage = Stage::new();
    let mut config = cluster.toml();
    for server in cluster.servers() {
        let relay = Relay::to_server(server.port(), &stage).await;
        config = config.replace(&format!("port = {}\n", server.port()), &format!("port = {}\n", relay.port));
    }
    let config = config.replace("role = \"primary\"", "role = \"primary\"\ntls = \"disable\"");
    let config = format!("consistent_reads = true\nquery_wait_timeout = \"100ms\"\n{config}");
    let proxies = [0, 1].map(|_| block_in_place(|| Proxy::start(&config)));
    let transfer = "update accounts set balance = balance + 1 where user_id in (1, 1001, 2001)";
    let mut expected = i64::from(SHARDS) * ACCOUNTS * BALANCE;
    let held: [(Held, bool); 3] = [
        (|seen, _| seen == Seen::Asked(Step::Decide), true),
        (|seen, _| seen == Seen::Answered(Step::Decide), false),
        (|seen, passed| seen == Seen::Asked(Step::CommitPrepared) && passed.contains(&seen), false),
    ];
    for (held, may_read) in held {
        let writer = connect(proxies[0].port).await.unwrap();
        numbers(&writer, "update accounts set balance = balance where user_id in (1, 1001, 2001)").await.unwrap();
        stage.hold(held);
        let writing = tokio::spawn(async move { numbers(&writer, transfer).await });
        timeout(PATIENCE, stage.reached(|_, held| held.len() == 1)).await.unwrap();
        // Soon enough for recovery, by the other proxy, not to end it.
        for (total, proxy) in TOTALS.iter().zip(proxies.iter().cycle()) {
            let reader = connect(proxy.port).await.unwrap();
            let read = numbers(&reader, total).await.map(|all| all.iter().sum::<i64>());
            let within = format!("begin; update accounts set balance = balance where user_id = 5; {total}; commit");
            let within = within_block(&reader, &within).await;
            let told = if may_read { Ok(expected) } else { Err("40001".to_owned()) };
            assert_eq!((read, within), (told.clone(), told), "{total}");
            // What takes no part in it can be read.
            assert_eq!(numbers(&reader, "select balance from accounts where user_id = 7").await.unwrap(), [BALANCE]);
        }
        stage.release();
        writing.await.unwrap().unwrap();
        expected += i64::from(SHARDS);
        for proxy in &proxies {
            let reader = connect(proxy.port).await.unwrap();
            for total in TOTALS {
                assert_eq!(numbers(&reader, total).await.unwrap().iter().sum::<i64>(), expected, "{total}");
            }
        }
    }
}

/// Runs statements one by one; gives the sum of what they read, or the first error. The block is over then.
async fn within_block(client: &Client, statements: &str) -> Result<i64, String> {
    let mut sum = 0;
    for statement in statements.split("; ") {
        match numbers(client, statement).await {
            Ok(all) => sum += all.iter().sum::<i64>(),
            Err(code) => {
                // The session may be gone with its proxy.
                let _ = numbers(client, "rollback").await;
                return Err(code);
            }
        }
    }
    Ok(sum)
}

/// Clients that move money, or count it, through whichever proxy there is.
struct Bank {
    ports: [AtomicU16; 2],
    stop: AtomicBool,
}

type Held = fn(Seen, &[Seen]) -> bool;
type Tally = BTreeMap<String, usize>;

impl Bank {
    async fn run(self: Arc<Self>, seed: u64, counts: bool) -> Tally {
        let (mut tally, mut random) = (Tally::new(), StdRng::seed_from_u64(seed));
        while !self.stop.load(Ordering::Relaxed) {
            let port = self.ports[random.random_range(0..2)].load(Ordering::Relaxed);
            let Some(client) = connect(port).await else {
                sleep(PAUSE).await;
                continue;
            };
            while !client.is_closed() && !self.stop.load(Ordering::Relaxed) {
                let told = match counts {
                    true => count(&client, &mut random).await,
                    false => transfer(&client, &mut random).await,
                };
                let told = told.err().unwrap_or_else(|| "done".to_owned());
                *tally.entry(told).or_default() += 1;
            }
        }
        tally
    }
}

/// Takes from one account and gives to others, on several shards.
async fn transfer(client: &Client, random: &mut StdRng) -> Result<(), String> {
    let mut account = |shard: u64| shard * KEYS + random.random_range(1..=ACCOUNTS.cast_unsigned());
    let (from, to, third) = (account(0), account(1), account(2));
    let amount = random.random_range(1..5);
    let statement = format!(
        "update accounts set balance = balance + case user_id when {from} then {} else {amount} end \
         where user_id in ({from}, {to}, {third})",
        -2 * amount
    );
    let add = |key: u64, amount: i64| format!("update accounts set balance = balance + {amount} where user_id = {key}");
    if random.random_bool(0.5) {
        return numbers(client, &statement).await.map(|_| ());
    }
    let end = if random.random_bool(0.9) { "commit" } else { "rollback" };
    let parts = [add(third, amount), add(from, -2 * amount), add(to, amount)].join("; ");
    within_block(client, &format!("begin; {parts}; {end}")).await.map(|_| ())
}

/// Reads the total; an error is no wrong answer.
async fn count(client: &Client, random: &mut StdRng) -> Result<(), String> {
    let total = TOTALS[random.random_range(0..TOTALS.len())];
    let read = match random.random_range(0..4) {
        0 => within_block(client, &format!("begin; {total}; commit")).await,
        1 => {
            let (key, zero) = (random.random_range(1..=ACCOUNTS), "update accounts set balance = balance");
            within_block(client, &format!("begin; {zero} where user_id = {key}; {total}; commit")).await
        }
        _ => numbers(client, total).await.map(|all| all.iter().sum()),
    };
    let read = read?;
    assert_eq!(read, i64::from(SHARDS) * ACCOUNTS * BALANCE, "{total}");
    Ok(())
}

/// Kills proxies and servers now and then; all are there again in the end.
async fn kill_now_and_then(cluster: &Cluster, proxies: &mut [Proxy; 2], config: &str, bank: &Bank, seconds: u64) {
    let mut random = StdRng::seed_from_u64(seconds);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        sleep(Duration::from_millis(random.random_range(2000..4000))).await;
        if random.random_bool(0.5) {
            let which = random.random_range(0..2);
            proxies[which].signal(Signal::SIGKILL);
            block_in_place(|| proxies[which].wait());
            proxies[which] = block_in_place(|| Proxy::start(config));
            bank.ports[which].store(proxies[which].port, Ordering::Relaxed);
        } else {
            let server = cluster.primary(random.random_range(0..SHARDS));
            block_in_place(|| server.stop(Stop::Kill));
            block_in_place(|| server.start()).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bank_keeps_its_total() {
    let seconds = std::env::var("PGWEIR_BANK_SECONDS").map_or(15, |seconds| seconds.parse().unwrap());
    let seed: u64 = rand::random::<u32>().into();
    eprintln!("seed {seed}");
    let cluster = block_in_place(open_bank);
    let config = format!("consistent_reads = true\ncommit_timeout = \"2s\"\n{}", cluster.toml());
    let mut proxies = [0, 1].map(|_| block_in_place(|| Proxy::start(&config)));
    let ports = [&proxies[0], &proxies[1]].map(|proxy| AtomicU16::new(proxy.port));
    let bank = Arc::new(Bank { ports, stop: AtomicBool::new(false) });
    let start = |number, counts| -> JoinHandle<Tally> { tokio::spawn(Arc::clone(&bank).run(seed + number, counts)) };
    let writers: Vec<_> = (0..6).map(|number| start(number, false)).collect();
    let readers: Vec<_> = (6..10).map(|number| start(number, true)).collect();
    kill_now_and_then(&cluster, &mut proxies, &config, &bank, seconds).await;
    bank.stop.store(true, Ordering::Relaxed);
    for (what, clients) in [("transfers", writers), ("counts", readers)] {
        let mut all = Tally::new();
        for client in clients {
            for (told, count) in client.await.unwrap() {
                *all.entry(told).or_default() += count;
            }
        }
        eprintln!("{what}: {all:?}");
        assert!(all["done"] > 0, "{all:?}");
        for told in all.keys() {
            assert!(EXPECTED.contains(&told.as_str()), "{told}, seed {seed}");
        }
    }
    let prepared = || cluster.sql_everywhere("select count(*) from pg_prepared_xacts").iter().all(|count| count == "0");
    block_in_place(|| until(prepared));
    let sums = block_in_place(|| cluster.sql_everywhere("select sum(balance) from accounts"));
    let sum: i64 = sums.iter().map(|sum| sum.parse::<i64>().unwrap()).sum();
    assert_eq!(sum, i64::from(SHARDS) * ACCOUNTS * BALANCE, "{sums:?}");
}

const SHARDS: u16 = 3;
const ACCOUNTS: i64 = 10;
const BALANCE: i64 = 1000;
/// What a client may be told; nothing where its proxy was killed.
const EXPECTED: [&str; 8] = ["done", "40001", "40P01", "08006", "08007", "57P03", "57P01", ""];
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);
