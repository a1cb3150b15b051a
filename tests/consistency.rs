//! What a read may miss: trials behind replicas that are late, each level by itself, and controls that show the trials
//! can fail.
//!
//! `PGWEIR_TRIALS` is the number of write-then-read trials (`make consistency`).

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::OnceLock;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use support::{APP, Cluster, PASSWORD, Proxy, Role, Stop};
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, Statement};

/// Two shards; their first replicas are 5 ms late, the second ones 50 ms. One test at a time has it.
async fn late() -> MutexGuard<'static, Cluster> {
    static LATE: OnceLock<Mutex<Cluster>> = OnceLock::new();
    let make = || {
        let cluster = Cluster::start(2, 2);
        cluster.sql_everywhere(
            "create table registers(user_id bigint primary key, v bigint not null); \
             create function put(key bigint, value bigint) returns bigint language sql \
               as 'update registers set v = value where user_id = key returning v'; \
             grant all on registers to public",
        );
        for shard in 0..2 {
            let first = u64::from(shard) * support::KEYS;
            let rows = format!("insert into registers select {first} + i, 0 from generate_series(1, {SESSIONS}) i");
            cluster.sql(shard, Role::Primary, &rows);
        }
        cluster.settle();
        for shard in 0..2 {
            cluster.delay_replay(shard, 1, "5ms");
            cluster.delay_replay(shard, 2, "50ms");
        }
        Mutex::new(cluster)
    };
    block_in_place(|| LATE.get_or_init(make)).lock().await
}

fn start(config: &str) -> Proxy {
    block_in_place(|| Proxy::start(config))
}

async fn connect(port: u16) -> Client {
    connect_to(port, "shop").await
}

async fn console(port: u16) -> Client {
    connect_to(port, "pgweir").await
}

async fn connect_to(port: u16, database: &str) -> Client {
    let login = format!("host=127.0.0.1 port={port} user={APP} password='{PASSWORD}' dbname={database}");
    let (client, connection) = tokio_postgres::connect(&login, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Rows of a text, values by `|`.
async fn rows(client: &Client, sql: &str) -> Vec<String> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|cause| panic!("{sql}: {cause:?}"));
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|column| row.get(column).unwrap_or_default()).collect::<Vec<_>>().join("|"))
        }
        _ => None,
    };
    messages.iter().filter_map(row).collect()
}

/// What many trials came to.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    trials: usize,
    stale: usize,
    /// Reads at least [`LONG`] after the write, and how many of them a replica served.
    long: usize,
    long_by_replica: usize,
}

impl Tally {
    fn add(&mut self, waited: Duration, seen: &[Seen]) {
        self.trials += 1;
        self.stale += usize::from(seen.iter().any(|seen| seen.value != seen.expected));
        if waited >= LONG {
            self.long += 1;
            self.long_by_replica += usize::from(seen.iter().all(|seen| seen.by_replica));
        }
    }

    fn join(self, other: Self) -> Self {
        Self {
            trials: self.trials + other.trials,
            stale: self.stale + other.stale,
            long: self.long + other.long,
            long_by_replica: self.long_by_replica + other.long_by_replica,
        }
    }

    fn check(self, what: &str) {
        let share = 100 * self.long_by_replica / self.long.max(1);
        eprintln!("{what}: {self:?}, {share} % of late reads by replicas");
        assert_eq!(self.stale, 0, "{what}: stale reads: {self:?}");
        assert!(share >= 80, "{what}: {share} % of the reads {LONG:?} after the write came from a replica: {self:?}");
    }
}

/// One row as it was read.
struct Seen {
    value: i64,
    expected: i64,
    by_replica: bool,
}

/// A client with a row on each shard that nobody else writes.
struct Writer {
    client: Client,
    keys: [i64; 2],
    values: [i64; 2],
    update: Statement,
    select: Statement,
}

impl Writer {
    async fn new(port: u16, number: usize) -> Self {
        let client = connect(port).await;
        if number % 4 == 3 {
            client.batch_execute("set synchronous_commit = off").await.unwrap();
        }
        let update = client.prepare("update registers set v = $2 where user_id = $1").await.unwrap();
        let sql = "select v, pg_is_in_recovery() from registers where user_id = $1";
        let select = client.prepare(sql).await.unwrap();
        let low = i64::try_from(number).unwrap() + 1;
        let keys = [low, low + i64::try_from(support::KEYS).unwrap()];
        Self { client, keys, values: [0, 0], update, select }
    }

    /// Writes a new value in one of the ways there are; gives the rows that it wrote.
    async fn write(&mut self, way: usize, row: usize, value: i64) -> Vec<usize> {
        let (client, key) = (&self.client, self.keys[row]);
        let update = format!("update registers set v = {value} where user_id = {key}");
        let undone = format!("update registers set v = -1 where user_id = {key}");
        let texts: &[&str] = match way {
            0 => &[&update],
            1 => &["begin", &update, "commit"],
            2 => &[&format!("{update} and v < 0; {update}")],
            3 => &[&format!("with w as ({update} returning v) select v from w")],
            4 => &[&format!("select put({key}, {value}) from registers where user_id = {key}")],
            5 => &[&format!("insert into registers values ({key}, 0) on conflict (user_id) do update set v = {value}")],
            6 => {
                assert_eq!(client.execute(&self.update, &[&key, &value]).await.unwrap(), 1);
                &[]
            }
            7 => &["begin", &update, "savepoint s", &undone, "rollback to s", "commit"],
            _ => {
                let [low, high] = self.keys;
                let both = format!("update registers set v = {value} where user_id in ({low}, {high})");
                client.batch_execute(&both).await.unwrap();
                self.values = [value, value];
                return vec![0, 1];
            }
        };
        for text in texts {
            client.batch_execute(text).await.unwrap_or_else(|cause| panic!("{text}: {cause:?}"));
        }
        self.values[row] = value;
        vec![row]
    }
}

/// Reads rows in one of the ways there are, as `(key, value, by a replica)`.
async fn read(client: &Client, select: &Statement, way: usize, keys: &[i64]) -> Vec<(i64, bool)> {
    let parse = |row: &String| {
        let (value, by_replica) = row.split_once('|').unwrap();
        (value.parse().unwrap(), by_replica == "t")
    };
    if let [low, high] = keys {
        let text =
            format!("select v, pg_is_in_recovery() from registers where user_id in ({low}, {high}) order by user_id");
        return rows(client, &text).await.iter().map(parse).collect();
    }
    let text = format!("select v, pg_is_in_recovery() from registers where user_id = {}", keys[0]);
    match way {
        0 => rows(client, &text).await.iter().map(parse).collect(),
        1 => {
            client.batch_execute("begin read only").await.unwrap();
            let seen = rows(client, &text).await.iter().map(parse).collect();
            client.batch_execute("commit").await.unwrap();
            seen
        }
        _ => {
            let row = client.query_one(select, &[&keys[0]]).await.unwrap();
            vec![(row.get(0), row.get(1))]
        }
    }
}

/// `trials` of all sessions together. With `reader_level`, another session than the writer reads, at that level.
async fn trials(port: u16, trials: usize, level: &'static str, others_read: bool, longest: Duration) -> Tally {
    let mut sessions = JoinSet::new();
    for number in 0..SESSIONS {
        sessions.spawn(async move {
            let mut random = StdRng::seed_from_u64(number as u64);
            let mut writer = Writer::new(port, number).await;
            let other = connect(port).await;
            let other_select =
                other.prepare("select v, pg_is_in_recovery() from registers where user_id = $1").await.unwrap();
            for client in [&writer.client, &other] {
                client.batch_execute(&format!("set pgweir.consistency = {level}")).await.unwrap();
            }
            let mut tally = Tally::default();
            for trial in 0..trials.div_ceil(SESSIONS) {
                let value = i64::try_from(1 + trial).unwrap() + writer.values[0].max(writer.values[1]);
                let written = writer.write(random.random_range(0..9), random.random_range(0..2), value).await;
                let acknowledged = Instant::now();
                sleep(random.random_range(Duration::ZERO..longest)).await;
                let waited = acknowledged.elapsed();
                let (reader, select) =
                    if others_read { (&other, &other_select) } else { (&writer.client, &writer.select) };
                let keys: Vec<i64> = written.iter().map(|&row| writer.keys[row]).collect();
                let seen = read(reader, select, random.random_range(0..3), &keys).await;
                let seen: Vec<Seen> = seen
                    .iter()
                    .map(|&(value_seen, by_replica)| Seen { value: value_seen, expected: value, by_replica })
                    .collect();
                assert_eq!(seen.len(), keys.len());
                tally.add(waited, &seen);
            }
            tally
        });
    }
    let mut total = Tally::default();
    while let Some(tally) = sessions.join_next().await {
        total = total.join(tally.unwrap());
    }
    total
}

fn how_many(short: usize) -> usize {
    std::env::var("PGWEIR_TRIALS").map_or(short, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_sees_its_writes_behind_late_replicas() {
    let cluster = late().await;
    let proxy = start(&cluster.toml());
    trials(proxy.port, how_many(1000), "session", false, LONGEST).await.check("session");
    // The control: the same trials can fail.
    let eventual = trials(proxy.port, 500, "eventual", false, SOON).await;
    assert!(eventual.stale > 0, "without the promise reads are stale: {eventual:?}");
    let strong = trials(proxy.port, 200, "strong", false, LONGEST).await;
    assert_eq!((strong.stale, strong.long_by_replica), (0, 0), "{strong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_level_global_everybody_sees_what_anybody_wrote() {
    let cluster = late().await;
    // Somebody writes all the time: a replica that is 5 ms late has the newest of it a little later than that.
    let proxy = start(&format!("causal_wait = \"60ms\"\n{}", cluster.toml()));
    trials(proxy.port, how_many(1000), "global", true, LONGEST).await.check("global");
    let session = trials(proxy.port, 500, "session", true, SOON).await;
    assert!(session.stale > 0, "a session's own promise does not cover others: {session:?}");
}

/// Returns when the proxy takes the replica to be close to its primary.
async fn until_up(proxy: u16, replica: u16) {
    let console = console(proxy).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let lags = rows(&console, "show lag").await;
        let fields: Vec<&str> =
            lags.iter().find(|line| line.contains(&format!(":{replica}|"))).unwrap().split('|').collect();
        if fields[3] == "up" && fields[4].parse().is_ok_and(|lag: f64| lag < 0.1) {
            return;
        }
        assert!(Instant::now() < deadline, "{lags:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// One row is counted up while replicas are restarted and stopped, so that sessions must move between them. How often
/// a read showed less than a replica read before it, and how often a session moved.
async fn moves(cluster: &Cluster, port: u16, level: &'static str) -> (usize, usize) {
    let (stop, stopped) = watch::channel(false);
    let writer = tokio::spawn(async move {
        let client = connect(port).await;
        let update = client.prepare("update registers set v = v + 1 where user_id = 1").await.unwrap();
        while !*stopped.borrow() {
            client.execute(&update, &[]).await.unwrap();
            sleep(Duration::from_millis(2)).await;
        }
    });
    let mut readers = JoinSet::new();
    for _ in 0..8 {
        let stopped = stop.subscribe();
        readers.spawn(async move {
            let client = connect(port).await;
            client.batch_execute(&format!("set pgweir.consistency = {level}")).await.unwrap();
            let sql = "select v, inet_server_port(), pg_is_in_recovery() from registers where user_id = 1";
            let select = client.prepare(sql).await.unwrap();
            let (mut newest, mut last, mut backwards, mut moved) = (0_i64, None, 0, 0);
            while !*stopped.borrow() {
                let row = client.query_one(&select, &[]).await.unwrap();
                let (value, server, by_replica): (i64, i32, bool) = (row.get(0), row.get(1), row.get(2));
                if by_replica {
                    backwards += usize::from(value < newest);
                    moved += usize::from(last.replace(server).is_some_and(|last| last != server));
                    newest = newest.max(value);
                }
                sleep(Duration::from_millis(1)).await;
            }
            (backwards, moved)
        });
    }
    for _ in 0..3 {
        // Away from the one that is 5 ms late …
        block_in_place(|| cluster.replica(0, 1).stop(Stop::Immediate));
        sleep(Duration::from_millis(200)).await;
        block_in_place(|| cluster.replica(0, 1).start()).unwrap();
        until_up(port, cluster.replica(0, 1).port()).await;
        // … and from the one that is 50 ms late.
        block_in_place(|| cluster.pause_replay(0, 2));
        sleep(Duration::from_millis(400)).await;
        block_in_place(|| cluster.resume_replay(0, 2));
        sleep(Duration::from_millis(200)).await;
    }
    stop.send_replace(true);
    writer.await.unwrap();
    let mut total = (0, 0);
    while let Some(reader) = readers.join_next().await {
        let (backwards, moved) = reader.unwrap();
        total = (total.0 + backwards, total.1 + moved);
    }
    total
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_never_goes_backwards_from_one_replica_to_another() {
    let cluster = late().await;
    let toml = format!("max_replica_lag = \"150ms\"\n{}", cluster.toml());
    let proxy = start(&toml);
    let (backwards, moved) = moves(&cluster, proxy.port, "session").await;
    eprintln!("session: {backwards} backwards in {moved} moves");
    assert!(moved >= 10, "sessions move: {moved}");
    assert_eq!(backwards, 0, "in {moved} moves");
    // Without the promise they do, sooner or later.
    let mut moved = 0;
    for _ in 0..10 {
        let (backwards, more) = moves(&cluster, proxy.port, "eventual").await;
        moved += more;
        if backwards > 0 {
            return;
        }
    }
    panic!("without the promise they do not go backwards either: {moved} moves");
}

#[tokio::test(flavor = "multi_thread")]
async fn levels_are_set_by_session_user_and_configuration() {
    let cluster = late().await;
    let by_replica = "select pg_is_in_recovery() from registers where user_id = 1";
    let proxy = start(&format!("consistency = \"strong\"\n{}", cluster.toml()));
    let client = connect(proxy.port).await;
    assert_eq!(rows(&client, by_replica).await, ["f"]);
    for level in ["eventual", "session", "global", "strong"] {
        client.batch_execute(&format!("set pgweir.consistency to {level}")).await.unwrap();
        assert_eq!(rows(&client, "show pgweir.consistency").await, [level]);
        let expected = if level == "strong" { "f" } else { "t" };
        assert_eq!(rows(&client, by_replica).await, [expected], "{level}");
    }
    let refused = client.batch_execute("set pgweir.consistency to linear").await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "22023");
    client.batch_execute("reset pgweir.consistency").await.unwrap();
    assert_eq!(rows(&client, by_replica).await, ["f"]);
    // A block is whole on the primary, also where it is opened together with a read.
    client.batch_execute("set pgweir.consistency to eventual").await.unwrap();
    assert_eq!(rows(&client, &format!("begin; {by_replica}")).await, ["f"]);
    client.batch_execute("update registers set v = v where user_id = 1").await.unwrap();
    client.batch_execute("rollback").await.unwrap();
    assert_eq!(rows(&client, &format!("begin read only; {by_replica}; commit")).await, ["t"]);
    let of_user = cluster.toml().replacen("[[users]]", "[[users]]\nconsistency = \"strong\"", 1);
    let proxy = start(&of_user);
    assert_eq!(rows(&connect(proxy.port).await, by_replica).await, ["f"]);
}

/// As many as there are rows for.
const SESSIONS: usize = 64;
const LONGEST: Duration = Duration::from_millis(300);
/// Within which a replica that is late is seen to be.
const SOON: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_millis(200);
