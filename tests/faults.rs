//! What clients notice when servers, other clients or the proxy itself die, hang, fall behind or change roles.

#![allow(clippy::unwrap_used)]

mod support;

#[path = "support/raw.rs"]
mod raw;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use raw::{Raw, bind, execute, parse};
use support::{APP, Cluster, PASSWORD, Proxy, Role, SUPERUSER, Stop, sql, until};
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

async fn connect(port: u16) -> Client {
    try_connect(port, "shop").await.unwrap()
}

async fn try_connect(port: u16, database: &str) -> Result<Client, tokio_postgres::Error> {
    let login = format!("host=127.0.0.1 port={port} user={APP} password='{PASSWORD}' dbname={database}");
    let (client, connection) = tokio_postgres::connect(&login, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Rows of a text, values by `|`; or the SQLSTATE, empty where the connection is gone.
async fn rows(client: &Client, sql: &str) -> Result<Vec<String>, String> {
    let messages = timeout(PATIENCE, client.simple_query(sql)).await.unwrap_or_else(|_| panic!("no answer: {sql}"));
    let code = |cause: tokio_postgres::Error| cause.code().map(|code| code.code().to_owned()).unwrap_or_default();
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|column| row.get(column).unwrap_or_default()).collect::<Vec<_>>().join("|"))
        }
        _ => None,
    };
    Ok(messages.map_err(code)?.iter().filter_map(row).collect())
}

async fn refusal(client: &Client, sql: &str) -> String {
    rows(client, sql).await.expect_err(sql)
}

fn start(config: &str) -> Proxy {
    block_in_place(|| Proxy::start(config))
}

/// Until the condition holds, by asking again and again; how long it took.
async fn soon(what: &str, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        sleep(Duration::from_millis(5)).await;
    }
    begun.elapsed()
}

/// Returns when the proxy takes so many replicas to be close to their primaries.
async fn until_fit(proxy: &Proxy, replicas: usize) {
    let console = try_connect(proxy.port, "pgweir").await.unwrap();
    soon("replicas are fit", async || {
        let lags = rows(&console, "show lag").await.unwrap();
        let is_close = |line: &&String| {
            line.split('|').nth(4).and_then(|lag| lag.parse::<f64>().ok()).is_some_and(|lag| lag < 0.1)
        };
        lags.iter().filter(is_close).count() == replicas
    })
    .await;
}

/// Returns when sessions that begin now have found each of these servers, and no other one for a while.
async fn until_found(proxy: &Proxy, ports: &[u16]) {
    let mut found = HashSet::new();
    soon("each is found", async || {
        let row = rows(&connect(proxy.port).await, WHO).await.unwrap();
        let port: u16 = row[0].parse().unwrap();
        if !ports.contains(&port) {
            found.clear();
            return false;
        }
        found.insert(port);
        found.len() == ports.len()
    })
    .await;
}

/// A table with a few rows on each shard.
fn prepare(cluster: &Cluster) {
    cluster.sql_everywhere(
        "create table registers(user_id bigint primary key, v bigint not null); grant all on registers to public",
    );
    for shard in 0..cluster.state().shards {
        let first = u64::from(shard) * support::KEYS;
        cluster.sql(
            shard,
            Role::Primary,
            &format!("insert into registers select {first} + i, 0 from generate_series(1, 100) i"),
        );
    }
    cluster.settle();
}

/// One shard with two replicas, for tests that leave it as it was; one has it at a time.
async fn trio() -> MutexGuard<'static, Cluster> {
    static TRIO: OnceLock<Mutex<Cluster>> = OnceLock::new();
    let make = || {
        let cluster = Cluster::start(1, 2);
        prepare(&cluster);
        Mutex::new(cluster)
    };
    block_in_place(|| TRIO.get_or_init(make)).lock().await
}

/// Many sessions that ask the same again and again.
struct Load {
    stop: watch::Sender<bool>,
    seen: Arc<std::sync::Mutex<Seen>>,
    sessions: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    /// Answers by the port of the server that gave them.
    by: HashMap<u16, usize>,
    /// Sessions that had an answer.
    answered: HashSet<usize>,
    /// SQLSTATEs, by session.
    errors: Vec<(usize, String)>,
    longest: Duration,
}

impl Seen {
    fn add(&mut self, session: usize, took: Duration, answer: Result<Vec<String>, String>) {
        self.longest = self.longest.max(took);
        match answer {
            Ok(rows) => {
                *self.by.entry(rows[0].parse().unwrap()).or_default() += 1;
                self.answered.insert(session);
            }
            Err(sqlstate) => self.errors.push((session, sqlstate)),
        }
    }
}

impl Load {
    /// `sql` gives the port of its server.
    async fn start(port: u16, sessions: usize, sql: &'static str) -> Self {
        let (stop, _) = watch::channel(false);
        let seen: Arc<std::sync::Mutex<Seen>> = Arc::default();
        let mut all = Vec::new();
        for number in 0..sessions {
            let client = connect(port).await;
            let (stopped, seen) = (stop.subscribe(), Arc::clone(&seen));
            all.push(tokio::spawn(async move {
                // Also ends when the proxy is gone, after a test that failed.
                while !*stopped.borrow() && !client.is_closed() {
                    let begun = Instant::now();
                    let answer = rows(&client, sql).await;
                    seen.lock().unwrap().add(number, begun.elapsed(), answer);
                }
            }));
        }
        Self { stop, seen, sessions: all }
    }

    fn take(&self) -> Seen {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// Waits until the servers with these ports, and no others, serve.
    async fn served_by(&self, ports: &[u16]) -> Duration {
        soon(&format!("served by {ports:?}"), async || {
            self.seen.lock().unwrap().by.clear();
            sleep(Duration::from_millis(100)).await;
            let seen = self.seen.lock().unwrap();
            !seen.by.is_empty() && seen.by.keys().all(|port| ports.contains(port)) && seen.by.len() == ports.len()
        })
        .await
    }

    /// Waits until every session has begun a read anew and had its answer: nothing from before is on its way.
    async fn settled(&self) {
        for _ in 0..2 {
            self.seen.lock().unwrap().answered.clear();
            soon("each session has an answer", async || {
                self.seen.lock().unwrap().answered.len() == self.sessions.len()
            })
            .await;
        }
    }

    async fn end(self) -> Seen {
        self.stop.send_replace(true);
        for session in self.sessions {
            session.await.unwrap();
        }
        Arc::into_inner(self.seen).unwrap().into_inner().unwrap()
    }
}

/// New sessions are spread evenly.
const IN_TURNS: &str = "load_balancing_strategy = \"round_robin\"\n";
const WHO: &str = "select inet_server_port() from registers where user_id = 7";
const WHO_SLOWLY: &str = "select inet_server_port() from registers where user_id = 8 and pg_sleep(0.2) is not null";

#[tokio::test(flavor = "multi_thread")]
async fn a_replicas_death_costs_no_read_that_was_not_half_answered() {
    let cluster = trio().await;
    // Connections may take their time on a machine that is busy.
    let proxy = start(&format!("connect_timeout = \"20s\"\n{IN_TURNS}{}", cluster.toml()));
    let ports = ports_of(&cluster);
    let primary = cluster.primary(0).port();
    until_fit(&proxy, 2).await;
    let quick = Load::start(proxy.port, 16, WHO).await;
    let slow = Load::start(proxy.port, 16, WHO_SLOWLY).await;
    until_found(&proxy, &ports).await;
    for (number, how) in [(1, Stop::Kill), (2, Stop::Immediate), (1, Stop::Fast)] {
        let other = ports[usize::from(2 - number)];
        quick.take();
        slow.take();
        block_in_place(|| cluster.replica(0, number).stop(how));
        quick.served_by(&[other]).await;
        quick.settled().await;
        slow.settled().await;
        for (what, seen) in [("quick", quick.take()), ("slow", slow.take())] {
            assert_eq!(seen.errors, [], "{what} reads, {how:?}");
            assert!(seen.longest < Duration::from_secs(10), "{what} reads waited for {:?}", seen.longest);
        }
        block_in_place(|| cluster.replica(0, number).start()).unwrap();
        // New sessions find it at once, those that are there when they must move.
        soon("back", async || {
            rows(&connect(proxy.port).await, WHO)
                .await
                .is_ok_and(|row| row[0] == ports[usize::from(number - 1)].to_string())
        })
        .await;
    }
    // Nobody left but the primary.
    (1..=2).for_each(|number| block_in_place(|| cluster.replica(0, number).stop(Stop::Kill)));
    quick.served_by(&[primary]).await;
    (1..=2).for_each(|number| block_in_place(|| cluster.replica(0, number).start()).unwrap());
    soon("replicas serve again", async || {
        let by = std::mem::take(&mut quick.seen.lock().unwrap().by);
        !by.is_empty() && !by.contains_key(&primary)
    })
    .await;
    for seen in [quick.end().await, slow.end().await] {
        // A read is tried again once: the second replica may have died under it, too.
        let mut sessions: Vec<usize> = seen.errors.iter().map(|(session, _)| *session).collect();
        sessions.sort_unstable();
        sessions.dedup();
        assert_eq!(sessions.len(), seen.errors.len(), "{:?}", seen.errors);
        assert!(seen.errors.iter().all(|(_, sqlstate)| sqlstate == "08006"), "{:?}", seen.errors);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_answered_read_is_not_tried_again() {
    let cluster = trio().await;
    let proxy = block_in_place(|| trusting(&cluster));
    let mut client = Raw::connect(proxy.port, &[("user", APP), ("database", "shop")]);
    // Rows come, and then the server waits.
    client.send(&raw::query(
        "select i, inet_server_port(), case when i > 2000 then pg_sleep(30) end \
         from registers, generate_series(1, 2100) i where user_id = 7",
    ));
    let mut rows = Vec::new();
    let mut port = 0;
    while rows.len() < 1000 {
        let (kind, body) = client.frame().unwrap();
        if kind == b'D' {
            let text = String::from_utf8_lossy(&body).into_owned();
            port = ports_of(&cluster).into_iter().find(|port| text.contains(&port.to_string())).unwrap();
            rows.push(text);
        }
    }
    let number = u16::try_from(ports_of(&cluster).iter().position(|known| *known == port).unwrap()).unwrap() + 1;
    block_in_place(|| cluster.replica(0, number).stop(Stop::Immediate));
    let reply = client.reply();
    assert_eq!(reply.sqlstate(), "08006", "{reply:?}");
    block_in_place(|| cluster.replica(0, number).start()).unwrap();
}

fn ports_of(cluster: &Cluster) -> [u16; 2] {
    [1, 2].map(|number| cluster.replica(0, number).port())
}

/// A proxy whose clients need no password, as [`Raw`] wants it.
fn trusting(cluster: &Cluster) -> Proxy {
    let config = format!("{}\n{}", TRUST, cluster.toml());
    let config = config.replacen("[[users]]", "[[users]]\nauth = \"trust\"", 1);
    Proxy::start(&config)
}

const TRUST: &str = "default_pool_size = 5";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_does_not_know_yet_is_read_from_the_primary() {
    let cluster = trio().await;
    let proxy = start(&cluster.toml());
    until_fit(&proxy, 2).await;
    let reader = connect(proxy.port).await;
    block_in_place(|| (1..=2).for_each(|replica| cluster.pause_replay(0, replica)));
    let add = "alter table registers add column novel int not null default 7";
    block_in_place(|| cluster.sql(0, Role::Primary, add));
    assert_eq!(rows(&reader, "select distinct novel from registers").await.unwrap(), ["7"]);
    let row = reader.query_one("select novel from registers limit 1", &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 7);
    assert_eq!(refusal(&reader, "select newest from registers").await, "42703", "nobody knows that");
    block_in_place(|| cluster.sql(0, Role::Primary, "alter table registers drop column novel"));
    block_in_place(|| (1..=2).for_each(|replica| cluster.resume_replay(0, replica)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_late_or_cut_off_serves_nothing_until_it_is_back() {
    let cluster = trio().await;
    let proxy = start(&format!("max_replica_lag = \"400ms\"\n{}", cluster.toml()));
    let [first, second] = ports_of(&cluster);
    let primary = cluster.primary(0).port();
    let load = Load::start(proxy.port, 8, WHO).await;
    let writer = connect(proxy.port).await;
    let (stop, stopped) = watch::channel(false);
    let writing = tokio::spawn(async move {
        while !*stopped.borrow() {
            rows(&writer, "update registers set v = v + 1 where user_id = 9").await.unwrap();
            sleep(Duration::from_millis(10)).await;
        }
    });
    block_in_place(|| cluster.pause_replay(0, 1));
    load.served_by(&[second]).await;
    block_in_place(|| cluster.pause_replay(0, 2));
    load.served_by(&[primary]).await;
    block_in_place(|| cluster.resume_replay(0, 1));
    load.served_by(&[first]).await;
    block_in_place(|| cluster.resume_replay(0, 2));
    // A replica that receives nothing has replayed all that it has.
    let replica = Role::Replica(1);
    block_in_place(|| cluster.sql(0, replica, "alter system set primary_conninfo = 'host=127.0.0.1 port=1'"));
    block_in_place(|| cluster.sql(0, replica, "select pg_reload_conf()"));
    load.served_by(&[second]).await;
    let console = try_connect(proxy.port, "pgweir").await.unwrap();
    let lag = async || {
        let lags = rows(&console, "show lag").await.unwrap();
        let line = lags.iter().find(|line| line.contains(&format!(":{first}|"))).unwrap();
        line.split('|').nth(4).unwrap().parse::<f64>().unwrap()
    };
    let before = lag().await;
    sleep(Duration::from_millis(500)).await;
    let grown = lag().await - before;
    assert!(before > 0.4 && (0.35..0.65).contains(&grown), "{before} s, and {grown} s more");
    block_in_place(|| cluster.sql(0, replica, "alter system reset primary_conninfo"));
    block_in_place(|| cluster.sql(0, replica, "select pg_reload_conf()"));
    soon("lag is gone", async || lag().await < 0.2).await;
    stop.send_replace(true);
    writing.await.unwrap();
    assert_eq!(load.end().await.errors, []);
}

/// A server's processes, the postmaster first.
fn processes(cluster: &Cluster, role: Role) -> Vec<Pid> {
    let postmaster = cluster.server(0, role).pid().unwrap();
    let children = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: u32 = entry.unwrap().file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()?;
        (parent == postmaster).then_some(pid)
    });
    std::iter::once(postmaster).chain(children).map(|pid| Pid::from_raw(pid.cast_signed())).collect()
}

/// Stops processes as long as it lives.
struct Frozen(Vec<Pid>);

impl Frozen {
    fn new(processes: Vec<Pid>) -> Self {
        processes.iter().for_each(|pid| kill(*pid, Signal::SIGSTOP).unwrap());
        Self(processes)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.0 {
            // One that has ended meanwhile needs no more.
            let _ = kill(*pid, Signal::SIGCONT);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_go_elsewhere_when_a_replica_hangs() {
    let cluster = trio().await;
    let proxy = start(&format!("default_pool_size = 50\nconnect_timeout = \"2s\"\n{IN_TURNS}{}", cluster.toml()));
    let ports = ports_of(&cluster);
    until_fit(&proxy, 2).await;
    until_found(&proxy, &ports).await;
    let load = Load::start(proxy.port, 8, WHO).await;
    let frozen = Frozen::new(processes(&cluster, Role::Replica(1)));
    // Probes give up after a second; what was sent before hangs with the server.
    let took = load.served_by(&[ports[1]]).await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    let newcomer = connect(proxy.port).await;
    for _ in 0..20 {
        assert_eq!(rows(&newcomer, WHO).await.unwrap(), [ports[1].to_string()]);
    }
    drop(frozen);
    soon("back", async || rows(&connect(proxy.port).await, WHO).await.unwrap()[0] == ports[0].to_string()).await;
    assert_eq!(load.end().await.errors, []);
    // Only the postmaster: connections that are there work, new ones do not come up.
    let frozen = Frozen::new(processes(&cluster, Role::Replica(1))[..1].to_vec());
    let load = Load::start(proxy.port, 16, WHO_SLOWLY).await;
    load.served_by(&[ports[1]]).await;
    load.take();
    sleep(Duration::from_secs(1)).await;
    let seen = load.end().await;
    assert_eq!(seen.errors, []);
    assert!(seen.longest < Duration::from_secs(8), "{:?}", seen.longest);
    drop(frozen);
    soon("back", async || rows(&connect(proxy.port).await, WHO).await.unwrap()[0] == ports[0].to_string()).await;
}

/// A deferred trigger on shard 0 that makes a COMMIT last as long as table `slowly` says.
fn slow_commits(cluster: &Cluster) {
    cluster.sql(
        0,
        Role::Primary,
        "create table slowly(seconds float8); insert into slowly values (0); grant all on slowly to public; \
         create function linger() returns trigger language plpgsql as \
           $$begin perform pg_sleep((select seconds from slowly)); return null; end$$; \
         create constraint trigger linger after update on registers deferrable initially deferred \
           for each row execute function linger()",
    );
}

fn set_slowness(cluster: &Cluster, seconds: u32) {
    cluster.sql(0, Role::Primary, &format!("update slowly set seconds = {seconds}"));
}

/// Statements that run on a server and whose text begins like this.
fn running(cluster: &Cluster, shard: u16, text: &str) -> usize {
    let sql = format!(
        "select count(*) from pg_stat_activity where state = 'active' and query ilike '{text}%' and pid <> pg_backend_pid()"
    );
    cluster.sql(shard, Role::Primary, &sql).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primarys_death_is_told_clearly_and_gets_over() {
    let cluster = block_in_place(|| Cluster::start(2, 1));
    block_in_place(|| (prepare(&cluster), slow_commits(&cluster)));
    let proxy = start(&cluster.toml());
    let port = proxy.port;
    let elsewhere =
        Load::start(port, 4, "update registers set v = v + 1 where user_id = 1009 returning inet_server_port()").await;
    let (busy, idle, late, ending, reader) =
        (connect(port).await, connect(port).await, connect(port).await, connect(port).await, connect(port).await);
    for (client, key) in [(&idle, 2), (&late, 3), (&ending, 4)] {
        rows(client, "begin").await.unwrap();
        rows(client, &format!("update registers set v = 100 where user_id = {key}")).await.unwrap();
    }
    block_in_place(|| set_slowness(&cluster, 60));
    let busy = tokio::spawn(async move {
        let told = refusal(&busy, "update registers set v = 100 where user_id = 1 and pg_sleep(60) is not null").await;
        (busy, told)
    });
    let ending = tokio::spawn(async move {
        let told = refusal(&ending, "commit").await;
        (ending, told)
    });
    block_in_place(|| until(|| running(&cluster, 0, "update registers") == 1 && running(&cluster, 0, "commit") == 1));
    block_in_place(|| cluster.primary(0).stop(Stop::Immediate));
    let (busy, told) = busy.await.unwrap();
    assert_eq!(told, "08006", "a statement that ran");
    let (ending, told) = ending.await.unwrap();
    assert_eq!(told, "08007", "a COMMIT that ran");
    assert_eq!(refusal(&idle, "select v from registers where user_id = 2").await, "08006", "an open transaction");
    assert_eq!(refusal(&idle, "select v from registers where user_id = 2").await, "25P02");
    rows(&idle, "rollback").await.unwrap();
    // Sessions go on: reads by the replica, writes are refused as long as there is nobody to take them.
    assert_eq!(rows(&reader, "select v from registers where user_id = 5").await.unwrap(), ["0"]);
    for client in [&busy, &idle, &ending] {
        assert_eq!(refusal(client, "update registers set v = 1 where user_id = 5").await, "57P03");
    }
    connect(port).await;
    block_in_place(|| cluster.primary(0).start()).unwrap();
    block_in_place(|| set_slowness(&cluster, 0));
    // Nobody knows better than the server what became of what was never sent to be committed.
    assert_eq!(refusal(&late, "commit").await, "08006");
    for client in [&busy, &idle, &ending, &late] {
        soon("writes again", async || rows(client, "update registers set v = v + 1 where user_id = 6").await.is_ok())
            .await;
    }
    assert_eq!(rows(&late, "select sum(v) from registers where user_id in (1, 2, 3, 5)").await.unwrap(), ["0"]);
    assert_eq!(rows(&busy, "select v from registers where user_id = 6").await.unwrap(), ["4"]);
    let seen = elsewhere.end().await;
    assert_eq!(seen.errors, [], "the other shard");
    assert!(seen.longest < Duration::from_secs(10), "the other shard waited for {:?}", seen.longest);
}

/// Asks for a write on both shards, and gives the notices and SQLSTATE of its end.
async fn write_both(client: Client) -> Result<Vec<String>, String> {
    rows(&client, "update registers set v = v + 1 where user_id in (1, 1001)").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_on_two_shards_is_all_or_none_whoever_dies_between_its_phases() {
    let cluster = block_in_place(|| Cluster::start(2, 0));
    block_in_place(|| (prepare(&cluster), slow_commits(&cluster)));
    // Recovery's own user may not end what others have prepared.
    cluster.sql_everywhere(&format!(
        "create role keeper login password '{PASSWORD}' in role pg_monitor; grant create on database shop to keeper"
    ));
    let superuser = format!("[control]\nuser = \"{SUPERUSER}\"");
    let toml = cluster.toml();
    assert!(toml.contains(&superuser));
    let toml = toml.replace(&superuser, "[control]\nuser = \"keeper\"");
    let mut proxy = Some(start(&toml));
    let sum =
        |cluster: &Cluster| cluster.sql_everywhere("select sum(v) from registers where user_id in (1, 1001)").join(",");
    let prepared = |cluster: &Cluster| cluster.sql_everywhere("select count(*) from pg_prepared_xacts").join(",");
    let mut expected = 0;
    for victim in ["participant", "home", "proxy", "client"] {
        block_in_place(|| set_slowness(&cluster, 2));
        let client = connect(proxy.as_ref().unwrap().port).await;
        rows(&client, "select 1").await.unwrap();
        let write = tokio::spawn(write_both(client));
        block_in_place(|| until(|| cluster.sql(1, Role::Primary, "select count(*) from pg_prepared_xacts") == "1"));
        block_in_place(|| until(|| running(&cluster, 0, "select pgweir.decide") == 1));
        match victim {
            "participant" => block_in_place(|| cluster.primary(1).stop(Stop::Kill)),
            "home" => block_in_place(|| cluster.primary(0).stop(Stop::Kill)),
            "proxy" => drop(block_in_place(|| proxy.take())),
            _ => write.abort(),
        }
        let told = write.await;
        match victim {
            // The decision was made: a WARNING tells that a shard is late.
            "participant" => assert_eq!(told.unwrap(), Ok(vec![])),
            "home" => assert_eq!(told.unwrap(), Err("08007".to_owned())),
            "proxy" => assert_eq!(told.unwrap(), Err(String::new())),
            _ => {}
        }
        for shard in 0..2 {
            if cluster.primary(shard).pid().is_none() {
                block_in_place(|| cluster.primary(shard).start()).unwrap();
            }
        }
        let up = Instant::now();
        let proxy = proxy.get_or_insert_with(|| start(&toml));
        block_in_place(|| until(|| prepared(&cluster) == "0,0" && running(&cluster, 0, "select pgweir.decide") == 0));
        let took = up.elapsed();
        assert!(took < Duration::from_secs(10), "{victim}: {took:?} until nothing is prepared");
        let sum = block_in_place(|| sum(&cluster));
        let (home, other) = sum.split_once(',').unwrap();
        assert_eq!(home, other, "{victim}");
        match victim {
            "participant" => expected += 1,
            "home" => {}
            _ => expected = home.parse().unwrap(),
        }
        assert_eq!(home, expected.to_string(), "{victim}");
        block_in_place(|| set_slowness(&cluster, 0));
        let client = connect(proxy.port).await;
        soon("writes again", async || {
            rows(&client, "update registers set v = v where user_id in (1, 1001)").await.is_ok()
        })
        .await;
    }
}

/// Makes a standby follow another server of its shard.
fn follow(cluster: &Cluster, role: Role, leader: Role) {
    let login = cluster.superuser(cluster.server(0, leader));
    let way = format!("host={} port={} user={} password=''{}''", login.host, login.port, login.user, login.password);
    cluster.sql(0, role, &format!("alter system set primary_conninfo = '{way}'"));
    cluster.sql(0, role, "alter system set primary_slot_name = ''");
    cluster.sql(0, role, "select pg_reload_conf()");
}

#[tokio::test(flavor = "multi_thread")]
async fn role_auto_follows_promotion_and_the_newer_timeline() {
    let cluster = block_in_place(|| Cluster::start(1, 2));
    block_in_place(|| prepare(&cluster));
    let config = cluster
        .toml()
        .replace("role = \"primary\"", "role = \"auto\"")
        .replace("role = \"replica\"", "role = \"auto\"");
    assert!(config.contains("auto"));
    let proxy = start(&format!("{IN_TURNS}{config}"));
    let client = connect(proxy.port).await;
    let [first, second] = ports_of(&cluster);
    let old = cluster.primary(0).port();
    let write = "update registers set v = v + 1 where user_id = 1 returning inet_server_port()";
    let written_by = async |port: u16| rows(&client, write).await.is_ok_and(|row| row == [port.to_string()]);
    assert!(written_by(old).await);
    // A switchover: the old primary comes back as a standby of the new one.
    block_in_place(|| {
        follow(&cluster, Role::Primary, Role::Replica(1));
        cluster.primary(0).stop(Stop::Fast);
        cluster.sql(0, Role::Replica(1), "select pg_promote()");
        follow(&cluster, Role::Replica(2), Role::Replica(1));
    });
    soon("the promoted one takes writes", async || written_by(first).await).await;
    block_in_place(|| {
        fs::write(cluster.primary(0).data().join("standby.signal"), "").unwrap();
        cluster.primary(0).start().unwrap();
    });
    until_fit(&proxy, 2).await;
    until_found(&proxy, &[old, second]).await;
    let load = Load::start(proxy.port, 8, WHO).await;
    assert_eq!(rows(&client, "select v from registers where user_id = 1").await.unwrap(), ["2"]);
    // A failover without a fence: both take writes, the newer timeline gets them.
    block_in_place(|| cluster.sql(0, Role::Replica(2), "select pg_promote()"));
    soon("the newer timeline takes writes", async || written_by(second).await).await;
    for _ in 0..100 {
        assert!(written_by(second).await, "never back to the older one");
    }
    let console = try_connect(proxy.port, "pgweir").await.unwrap();
    let servers = rows(&console, "show health").await.unwrap();
    let left = servers.iter().find(|line| line.contains(&format!("|{first}|"))).unwrap();
    assert!(left.contains("timeline"), "{left}");
    assert_eq!(load.end().await.errors, []);
}

/// How a session learns that the proxy goes.
async fn farewell(client: &Client) -> String {
    rows(client, "select 1").await.err().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_transactions_end() {
    let cluster = trio().await;
    let mut proxy = start(&format!("shutdown_timeout = \"20s\"\n{}", cluster.toml()));
    let (idle, inside, running) = (connect(proxy.port).await, connect(proxy.port).await, connect(proxy.port).await);
    let console = try_connect(proxy.port, "pgweir").await.unwrap();
    rows(&inside, "begin").await.unwrap();
    rows(&inside, "update registers set v = 77 where user_id = 77").await.unwrap();
    let running = tokio::spawn(async move {
        let answer = rows(&running, "select 'ran', pg_sleep(1)").await;
        (farewell(&running).await, answer)
    });
    sleep(Duration::from_millis(200)).await;
    proxy.signal(Signal::SIGTERM);
    soon("idle sessions leave", async || idle.is_closed() && console.is_closed()).await;
    assert!(try_connect(proxy.port, "shop").await.is_err(), "nobody new is let in");
    rows(&inside, "update registers set v = 78 where user_id = 77").await.unwrap();
    rows(&inside, "commit").await.unwrap();
    soon("then it is over", async || inside.is_closed()).await;
    let (_, answer) = running.await.unwrap();
    assert_eq!(answer.unwrap(), ["ran|"]);
    let ended = block_in_place(|| proxy.wait());
    assert!(ended.success(), "{ended:?}");
    assert_eq!(block_in_place(|| cluster.sql(0, Role::Primary, "select v from registers where user_id = 77")), "78");
    // Who does not end its transaction is not waited for any longer than was said.
    let mut proxy = start(&format!("shutdown_timeout = \"1s\"\n{}", cluster.toml()));
    let inside = connect(proxy.port).await;
    rows(&inside, "begin").await.unwrap();
    rows(&inside, "update registers set v = 79 where user_id = 77").await.unwrap();
    let begun = Instant::now();
    assert!(block_in_place(|| proxy.terminate()).success());
    assert!((Duration::from_secs(1)..Duration::from_secs(3)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(block_in_place(|| cluster.sql(0, Role::Primary, "select v from registers where user_id = 77")), "78");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_client_ran_is_ended() {
    let cluster = trio().await;
    let proxy = block_in_place(|| trusting(&cluster));
    let open = || Raw::connect(proxy.port, &[("user", APP), ("database", "shop")]);
    let mut clients: Vec<Raw> = (0..5).map(|_| open()).collect();
    // The pool has five connections: each of these has one.
    clients[0].send(&raw::query("update registers set v = 1 where user_id = 20 and pg_sleep(60) is not null"));
    clients[1].rows("begin");
    clients[1].rows("update registers set v = 1 where user_id = 21");
    clients[1].send(&raw::query("select pg_sleep(60)"));
    clients[2].rows("begin");
    clients[2].rows("set local timezone to 'Asia/Tokyo'");
    clients[2].rows("update registers set v = 1 where user_id = 22");
    clients[3].send(
        &[
            parse("", "update registers set v = 1 where user_id = 23 and pg_sleep(60) is not null"),
            bind("", &[]),
            execute(),
            raw::sync(),
        ]
        .concat(),
    );
    clients[4].send(&raw::query("copy registers from stdin /* half of it */"));
    clients[4].frame().unwrap();
    let active = || {
        let sql = "select count(*) from pg_stat_activity where usename = 'app' and (state <> 'idle') and query !~ 'pg_is_in_recovery|pg_class'";
        cluster.sql(0, Role::Primary, sql)
    };
    block_in_place(|| until(|| active() == "5"));
    drop(clients);
    let begun = Instant::now();
    block_in_place(|| until(|| active() == "0"));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let mut next: Vec<Raw> = (0..5).map(|_| open()).collect();
    for client in &mut next {
        client.rows("begin");
        assert_eq!(client.rows("select sum(v) from registers where user_id between 20 and 23"), ["0"]);
        assert_ne!(client.rows("show timezone"), ["Asia/Tokyo"]);
    }
}

/// One client of the soak: what it asks carries a token, and so must every answer.
struct Soaker {
    port: u16,
    key: u64,
    random: StdRng,
    connection: Option<Raw>,
    prepared: bool,
    turn: u64,
    /// The token that the client's row has, by shard, as far as it was told.
    written: [String; 2],
    /// Tokens of writes of whose end it did not hear: they may have been carried out, or be yet.
    unheard: [Vec<String>; 2],
    tally: Tally,
}

#[derive(Clone, Debug, Default)]
struct Tally {
    answered: usize,
    /// By SQLSTATE; `gone`: without one.
    refused: HashMap<String, usize>,
    mismatches: Vec<String>,
}

impl Soaker {
    fn new(port: u16, number: u64, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed.wrapping_mul(1000) + number);
        Self {
            port,
            key: 1 + number,
            random,
            connection: None,
            prepared: false,
            turn: 0,
            written: Default::default(),
            unheard: Default::default(),
            tally: Tally::default(),
        }
    }

    fn run(mut self, stop: &AtomicBool) -> Tally {
        while !stop.load(Ordering::Relaxed) {
            if self.connection.is_none() {
                let (connection, reply) = Raw::try_connect(self.port, &[("user", APP), ("database", "shop")]);
                if reply.status != 'I' {
                    self.refuse(reply.sqlstate());
                    continue;
                }
                self.connection = Some(connection);
                self.prepared = false;
            }
            self.turn += 1;
            let token = format!("t{}x{}", self.key, self.turn);
            match self.random.random_range(0..20) {
                0 | 1 => self.simple(&token),
                2 => self.unnamed(&token),
                3 | 4 | 13..18 => self.named(&token),
                5 => self.pipeline(&token),
                6 => self.block(&token),
                7 => self.failure(&token),
                8 => self.many_rows(&token),
                9 => self.cancelled(&token),
                10 => self.leave(&token),
                11 | 18 => self.write(&token),
                _ => self.read_back(),
            }
        }
        self.tally
    }

    fn refuse(&mut self, sqlstate: &str) {
        let sqlstate = if sqlstate.is_empty() { "gone" } else { sqlstate };
        *self.tally.refused.entry(sqlstate.to_owned()).or_default() += 1;
    }

    /// Sends messages and takes the reply; `None` if there was an error.
    fn ask(&mut self, messages: &[u8]) -> Option<raw::Reply> {
        let connection = self.connection.as_mut().unwrap();
        connection.send(messages);
        let reply = connection.reply();
        if reply.status == ' ' {
            self.connection = None;
        }
        match &reply.error {
            None if reply.status != ' ' => {
                self.tally.answered += 1;
                Some(reply)
            }
            error => {
                let (sqlstate, message) = error.clone().unwrap_or_default();
                if !EXPECTED.contains(&sqlstate.as_str()) {
                    eprintln!("{sqlstate} {message}, to {}", String::from_utf8_lossy(messages).escape_debug());
                }
                self.refuse(&sqlstate);
                None
            }
        }
    }

    fn expect(&mut self, rows: &[String], expected: &[&str]) {
        if rows != expected {
            self.tally.mismatches.push(format!("{expected:?} was answered by {rows:?}"));
        }
    }

    fn simple(&mut self, token: &str) {
        let pause = f64::from(self.random.random_range(0..5)) / 1000.0;
        if let Some(reply) = self.ask(&raw::query(&format!("select '{token}', pg_sleep({pause})"))) {
            self.expect(&reply.rows, &[&format!("{token}|")]);
        }
    }

    fn unnamed(&mut self, token: &str) {
        let messages = [parse("", "select $1::text"), bind("", &[token]), execute(), raw::sync()].concat();
        if let Some(reply) = self.ask(&messages) {
            self.expect(&reply.rows, &[token]);
        }
    }

    fn named(&mut self, token: &str) {
        if !self.prepared {
            self.prepared = self.ask(&[parse("soak", "select $1::text || '!'"), raw::sync()].concat()).is_some();
            if !self.prepared {
                return;
            }
        }
        if let Some(reply) = self.ask(&[bind("soak", &[token]), execute(), raw::sync()].concat()) {
            self.expect(&reply.rows, &[&format!("{token}!")]);
        }
    }

    fn pipeline(&mut self, token: &str) {
        let tokens = [1, 2, 3].map(|part| format!("{token}p{part}"));
        let mut messages = parse("", "select $1::text");
        tokens.iter().for_each(|token| messages.extend([bind("", &[token]), execute()].concat()));
        messages.extend(raw::sync());
        if let Some(reply) = self.ask(&messages) {
            self.expect(&reply.rows, &[&tokens[0], &tokens[1], &tokens[2]]);
        }
    }

    fn block(&mut self, token: &str) {
        if self.ask(&raw::query("begin")).is_none() {
            return;
        }
        for part in 0..self.random.random_range(1..4) {
            let token = format!("{token}b{part}");
            let Some(reply) = self.ask(&raw::query(&format!("select '{token}'"))) else { break };
            self.expect(&reply.rows, &[&token]);
        }
        if self.connection.is_some() {
            let end = if self.random.random_bool(0.5) { "commit" } else { "rollback" };
            self.ask(&raw::query(end));
        }
    }

    fn failure(&mut self, token: &str) {
        let connection = self.connection.as_mut().unwrap();
        connection.send(&raw::query(&format!("select '{token}'::int")));
        let reply = connection.reply();
        match &reply.error {
            Some((sqlstate, message)) if sqlstate == "22P02" => {
                self.tally.answered += 1;
                if !message.contains(&format!("\"{token}\"")) {
                    self.tally.mismatches.push(format!("{token} failed with {message}"));
                }
            }
            _ => self.refuse(reply.sqlstate()),
        }
        if reply.status == ' ' {
            self.connection = None;
        }
    }

    fn many_rows(&mut self, token: &str) {
        if let Some(reply) =
            self.ask(&raw::query(&format!("select '{token}' || '.' || i from generate_series(1, 1000) i")))
        {
            let right = reply.rows.iter().enumerate().all(|(place, row)| *row == format!("{token}.{}", place + 1));
            if !right || reply.rows.len() != 1000 {
                self.tally.mismatches.push(format!("{token}: rows of somebody else, or {} of 1000", reply.rows.len()));
            }
        }
    }

    fn cancelled(&mut self, token: &str) {
        let (port, key) = (self.port, self.connection.as_ref().unwrap().key.clone());
        let pause = Duration::from_millis(self.random.random_range(0..20));
        let canceller = thread::spawn(move || {
            thread::sleep(pause);
            Raw::cancel(port, &key);
        });
        if let Some(reply) = self.ask(&raw::query(&format!("select '{token}', pg_sleep(0.01)"))) {
            self.expect(&reply.rows, &[&format!("{token}|")]);
        }
        canceller.join().unwrap();
    }

    /// Goes away in the middle of something, politely or by a reset.
    fn leave(&mut self, token: &str) {
        let Some(mut connection) = self.connection.take() else { return };
        let text = match self.random.random_range(0..4) {
            0 => format!("select '{token}', pg_sleep(0.02)"),
            1 => format!("select '{token}' || i from generate_series(1, 50000) i"),
            2 => format!("begin; select '{token}', pg_sleep(0.02)"),
            _ => format!(
                "insert into tokens values ({}, '{token}') on conflict (user_id) do update set token = excluded.token",
                self.key
            ),
        };
        if text.starts_with("insert") {
            self.unheard[0].push(token.to_owned());
        }
        connection.send(&raw::query(&text));
        if self.random.random_bool(0.5) {
            // Some of the answer has come.
            connection.frame();
        }
        if self.random.random_bool(0.5) {
            connection.reset();
        }
    }

    fn write(&mut self, token: &str) {
        let shard = self.random.random_range(0..2);
        let key = self.key + shard as u64 * support::KEYS;
        let text = format!(
            "insert into tokens values ({key}, '{token}') on conflict (user_id) do update set token = excluded.token returning token"
        );
        self.unheard[shard].push(token.to_owned());
        if let Some(reply) = self.ask(&raw::query(&text)) {
            self.expect(&reply.rows, &[token]);
            self.unheard[shard].pop();
            token.clone_into(&mut self.written[shard]);
        }
    }

    /// From both shards. What was lost on the way may have been written or not.
    fn read_back(&mut self) {
        let (low, high) = (self.key, self.key + support::KEYS);
        let text = format!("select user_id, token from tokens where user_id in ({low}, {high}) order by user_id");
        let Some(reply) = self.ask(&raw::query(&text)) else { return };
        for (shard, key) in [low, high].into_iter().enumerate() {
            let row = reply.rows.iter().find_map(|row| row.strip_prefix(&format!("{key}|")));
            let token = row.unwrap_or_default().to_owned();
            if token != self.written[shard] && !self.unheard[shard].contains(&token) {
                self.tally.mismatches.push(format!("row {key} is {token}, not one of {:?}", self.written[shard]));
            }
        }
    }
}

/// Ends server processes of clients (and of the proxy's probes) at random.
fn terminate_now_and_then(cluster: &Cluster, seed: u64, stop: &AtomicBool) {
    let mut random = StdRng::seed_from_u64(seed);
    let servers: Vec<_> = cluster.servers().map(|server| cluster.superuser(server)).collect();
    while !stop.load(Ordering::Relaxed) {
        let server = &servers[random.random_range(0..servers.len())];
        let victim =
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app' order by random() limit 1";
        sql(server, victim).unwrap();
        thread::sleep(Duration::from_millis(random.random_range(50..200)));
    }
}

fn memory(proxy: &Proxy) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// `PGWEIR_SOAK_SECONDS` and `PGWEIR_SOAK_SEED`; the order in which things happen is the machine's.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// What a statement of the soak may be refused with; nothing where its connection ended without a word.
const EXPECTED: [&str; 6] = ["57014", "08006", "08007", "25P02", "gone", ""];

#[test]
fn soak_no_answer_is_anybody_elses() {
    let (seconds, seed) =
        (setting("PGWEIR_SOAK_SECONDS", 12), setting("PGWEIR_SOAK_SEED", rand::random::<u32>().into()));
    eprintln!("seed {seed}");
    let cluster = Cluster::start(2, 1);
    cluster
        .sql_everywhere("create table tokens(user_id bigint primary key, token text); grant all on tokens to public");
    cluster.settle();
    let proxy = trusting(&cluster);
    let stop = AtomicBool::new(false);
    let (tallies, memories) = thread::scope(|scope| {
        let soakers: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (soaker, stop) = (Soaker::new(proxy.port, number, seed), &stop);
                scope.spawn(move || soaker.run(stop))
            })
            .collect();
        scope.spawn(|| terminate_now_and_then(&cluster, seed, &stop));
        let memories: Vec<u64> = (0..6)
            .map(|_| {
                thread::sleep(Duration::from_secs(seconds) / 6);
                memory(&proxy)
            })
            .collect();
        stop.store(true, Ordering::Relaxed);
        (soakers.into_iter().map(|soaker| soaker.join().unwrap()).collect::<Vec<_>>(), memories)
    });
    let mismatches: Vec<String> = tallies.iter().flat_map(|tally| tally.mismatches.clone()).collect();
    assert_eq!(mismatches, [] as [String; 0], "seed {seed}");
    let mut refused: HashMap<&str, usize> = HashMap::new();
    for (sqlstate, count) in tallies.iter().flat_map(|tally| &tally.refused) {
        *refused.entry(sqlstate).or_default() += count;
    }
    let answered: usize = tallies.iter().map(|tally| tally.answered).sum();
    eprintln!("{answered} answers, refused {refused:?}, memory {memories:?}");
    assert!(answered > tallies.len(), "{answered} answers");
    // What was cancelled or lost its server is told so; nothing else goes wrong.
    for sqlstate in refused.keys() {
        assert!(EXPECTED.contains(sqlstate), "{refused:?}, seed {seed}");
    }
    assert!(refused.contains_key("57014") && refused.contains_key("08006"), "{refused:?}");
    assert!(memories[5] < memories[2] + (16 << 20), "memory grows: {memories:?}");
    // Nothing is left behind, and all can be used.
    let lent = || {
        let mut console = Raw::connect(proxy.port, &[("user", APP), ("database", "pgweir")]);
        let column = |row: &String, place| row.split('|').nth(place).unwrap().parse::<usize>().unwrap();
        let rows = console.rows("show pools");
        assert!(rows.iter().all(|row| column(row, 5) + column(row, 6) <= 5), "{rows:?}");
        rows.iter().map(|row| column(row, 4) + column(row, 5)).sum::<usize>()
    };
    until(|| lent() == 0);
    let connections = "select count(*) from pg_stat_activity where usename = 'app'";
    for server in cluster.servers() {
        let login = cluster.superuser(server);
        // Five of the pool, the probe's, the catalog's, recovery's.
        until(|| sql(&login, connections).unwrap().parse::<u32>().unwrap() <= 8);
        until(|| {
            sql(&login, &format!("{connections} and state not like 'idle'")).unwrap().parse::<u32>().unwrap() <= 1
        });
        assert_eq!(sql(&login, "select count(*) from pg_prepared_xacts").unwrap(), "0");
    }
    let mut last = Soaker::new(proxy.port, CLIENTS, seed);
    last.connection = Some(Raw::connect(proxy.port, &[("user", APP), ("database", "shop")]));
    (0..50).for_each(|turn| last.named(&format!("last{turn}")));
    assert_eq!((last.tally.answered, last.tally.mismatches.len()), (51, 0), "{:?}", last.tally);
}

const CLIENTS: u64 = 200;
/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(30);
