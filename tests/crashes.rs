//! What becomes of a write on three shards when somebody dies, hangs or leaves at each step of its commit: it is there
//! wholly or not at all, it is there if its client was told so, and nothing prepared stays behind.

#![allow(clippy::unwrap_used)]

mod support;

#[path = "support/relay.rs"]
mod relay;

use std::fs;
use std::ops::Deref;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use pgweir::control::connect::Login;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use relay::{Relay, Seen, Stage, Step};
use support::{APP, Cluster, KEYS, PASSWORD, Proxy, Role, SUPERUSER, Stop, sql, until};
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};

/// When it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    BeforePreparing,
    BetweenPrepares,
    AfterPrepares,
    WhileDeciding,
    AfterDecision,
    BetweenCommits,
    AfterCommits,
    BeforeClientHears,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    ProxyKilled,
    TwoProxiesRecover,
    ClientGone,
    ShardKilled,
    ShardBlackholed,
    ReplicaPromoted,
}

use Fault::{ClientGone, ProxyKilled, ReplicaPromoted, ShardBlackholed, ShardKilled, TwoProxiesRecover};

const POINTS: [Point; 8] = [
    Point::BeforePreparing,
    Point::BetweenPrepares,
    Point::AfterPrepares,
    Point::WhileDeciding,
    Point::AfterDecision,
    Point::BetweenCommits,
    Point::AfterCommits,
    Point::BeforeClientHears,
];

impl Point {
    /// What the relays hold back, by what they have let pass.
    fn held(self) -> fn(Seen, &[Seen]) -> bool {
        match self {
            Self::BeforePreparing => |seen, _| seen == Seen::Asked(Step::Prepare),
            Self::BetweenPrepares => |seen, passed| is_second(seen, passed, Step::Prepare),
            Self::AfterPrepares => |seen, _| seen == Seen::Asked(Step::Decide),
            Self::WhileDeciding => |_, _| false,
            Self::AfterDecision => |seen, _| seen == Seen::Answered(Step::Decide),
            Self::BetweenCommits => |seen, passed| is_second(seen, passed, Step::CommitPrepared),
            Self::AfterCommits => |seen, _| seen == Seen::Answered(Step::CommitPrepared),
            Self::BeforeClientHears => |seen, _| seen == Seen::Reply,
        }
    }

    /// Whether it is now, by what has passed and what is held back.
    fn is_reached(self) -> fn(&[Seen], &[Seen]) -> bool {
        match self {
            Self::BeforePreparing => |_, held| held.len() == 2,
            Self::BetweenPrepares => |passed, held| held.len() == 1 && passed.contains(&Seen::Answered(Step::Prepare)),
            Self::AfterPrepares | Self::AfterDecision => |_, held| held.len() == 1,
            Self::WhileDeciding => |passed, _| passed.contains(&Seen::Asked(Step::Decide)),
            Self::BetweenCommits => {
                |passed, held| held.len() == 1 && passed.contains(&Seen::Answered(Step::CommitPrepared))
            }
            Self::AfterCommits => |_, held| held.len() == 2,
            Self::BeforeClientHears => |_, held| held.len() == 1,
        }
    }
}

fn is_second(seen: Seen, passed: &[Seen], step: Step) -> bool {
    seen == Seen::Asked(step) && passed.contains(&seen)
}

/// What the client heard.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Committed,
    /// The SQLSTATE; empty where the connection ended without a word.
    Failed(String),
    /// It did not wait for it.
    Nothing,
}

/// Three shards behind relays, and a proxy.
struct World {
    cluster: Cluster,
    stage: Arc<Stage>,
    relays: Vec<(u16, Role, Relay)>,
    config: String,
    proxies: Vec<Proxy>,
    /// Who leads each shard.
    leaders: Vec<Role>,
    trial: u64,
    random: StdRng,
}

impl World {
    async fn new(replicas: u16, seed: u64) -> Self {
        let cluster = block_in_place(|| Cluster::start(SHARDS, replicas));
        block_in_place(|| {
            cluster.sql_everywhere(
                "create table ledger(user_id bigint, trial bigint, primary key (user_id, trial)); \
                 grant all on ledger to public",
            );
            // Home's commit lasts as long as somebody else has the lock.
            cluster.sql(
                HOME,
                Role::Primary,
                "create function linger() returns trigger language plpgsql as \
                   $$begin perform pg_advisory_xact_lock_shared(1); return null; end$$; \
                 create constraint trigger linger after insert on ledger deferrable initially deferred \
                   for each row execute function linger()",
            );
            if replicas > 0 {
                (0..SHARDS).for_each(|shard| wait_for_standby(&cluster.superuser(cluster.primary(shard))));
            }
            // What others have prepared.
            for (shard, gid) in FOREIGN {
                let text = format!("begin; insert into ledger values (0, {shard}); prepare transaction '{gid}'");
                cluster.sql(shard, Role::Primary, &text);
            }
            cluster.settle();
        });
        let stage = Stage::new();
        let mut config = cluster.toml();
        let mut relays = Vec::new();
        for server in cluster.servers() {
            let relay = Relay::to_server(server.port(), &stage).await;
            config = config.replace(&format!("port = {}\n", server.port()), &format!("port = {}\n", relay.port));
            relays.push((server.shard, server.role, relay));
        }
        for role in ["primary", "replica"] {
            config = config.replace(&format!("role = \"{role}\""), "role = \"auto\"\ntls = \"disable\"");
        }
        let config = format!("commit_timeout = \"1500ms\"\n{config}");
        let proxies = vec![block_in_place(|| Proxy::start(&config))];
        let (leaders, random) = (vec![Role::Primary; usize::from(SHARDS)], StdRng::seed_from_u64(seed));
        Self { cluster, stage, relays, config, proxies, leaders, trial: 0, random }
    }

    fn leader(&self, shard: u16) -> Login {
        self.cluster.superuser(self.cluster.server(shard, self.leaders[usize::from(shard)]))
    }

    fn ask(&self, shard: u16, text: &str) -> String {
        block_in_place(|| sql(&self.leader(shard), text).unwrap())
    }

    /// On each shard.
    fn ask_all(&self, text: &str) -> Vec<String> {
        (0..SHARDS).map(|shard| self.ask(shard, text)).collect()
    }

    /// One cell of the matrix.
    async fn run(&mut self, point: Point, fault: Fault) {
        self.trial += 1;
        let block = self.random.random_bool(0.5);
        eprintln!("{point:?}, {fault:?}, trial {}, {}", self.trial, if block { "a block" } else { "a statement" });
        let relay = Relay::to_proxy(self.proxies[0].port, &self.stage).await;
        let client = self.connect(relay.port).await;
        let lock = (point == Point::WhileDeciding).then(|| Lock::take(&self.leader(HOME)));
        let writing = self.write(Box::new(client), block, point).await;
        let reached = self.stage.reached(point.is_reached());
        timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{point:?} is not reached"));
        if point == Point::WhileDeciding {
            let waits = "select count(*) from pg_locks where locktype = 'advisory' and not granted";
            block_in_place(|| until(|| sql(&self.leader(HOME), waits).unwrap() == "1"));
        }
        let told = self.strike(fault, writing, lock).await;
        self.check(&told).await;
    }

    async fn connect_to(&self, port: u16) -> Option<Client> {
        let login = format!("host=127.0.0.1 port={port} user={APP} password='{PASSWORD}' dbname=shop");
        let (client, connection) = tokio_postgres::connect(&login, NoTls).await.ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    async fn connect(&self, port: u16) -> Client {
        let begun = Instant::now();
        // Until the proxy knows its servers, and writes work.
        loop {
            if let Some(client) = self.connect_to(port).await {
                let probe = format!("update ledger set trial = trial where user_id in ({}) and trial = 0", keys());
                if client.batch_execute(&probe).await.is_ok() {
                    return client;
                }
            }
            assert!(begun.elapsed() < PATIENCE, "writes do not work again");
            sleep(PAUSE).await;
        }
    }

    /// Begins the write that is to be interrupted.
    async fn write(
        &self,
        client: impl Deref<Target = Client> + Send + 'static,
        block: bool,
        point: Point,
    ) -> JoinHandle<Told> {
        let insert = |key: u64| format!("insert into ledger values ({key}, {})", self.trial);
        let last = if block {
            client.batch_execute("begin").await.unwrap();
            for shard in 0..SHARDS {
                client.batch_execute(&insert(key(shard))).await.unwrap();
            }
            "commit".to_owned()
        } else {
            let rows: Vec<String> = (0..SHARDS).map(|shard| format!("({}, {})", key(shard), self.trial)).collect();
            format!("insert into ledger values {}", rows.join(", "))
        };
        self.stage.hold(point.held());
        tokio::spawn(async move {
            match client.batch_execute(&last).await {
                Ok(()) => Told::Committed,
                Err(cause) => Told::Failed(cause.code().map(|code| code.code().to_owned()).unwrap_or_default()),
            }
        })
    }

    /// Lets it happen; afterwards all are there again.
    async fn strike(&mut self, fault: Fault, writing: JoinHandle<Told>, lock: Option<Lock>) -> Told {
        let victim = self.random.random_range(0..SHARDS);
        match fault {
            ProxyKilled | TwoProxiesRecover => self.kill_proxies(),
            ClientGone => writing.abort(),
            ShardKilled | ReplicaPromoted => block_in_place(|| self.server(victim).stop(Stop::Kill)),
            ShardBlackholed => self.blackhole(victim, true),
        }
        if fault == ReplicaPromoted {
            block_in_place(|| self.promote(victim));
        }
        drop(lock);
        self.stage.release();
        let told = match writing.await {
            Ok(told) => told,
            Err(_) => Told::Nothing,
        };
        match fault {
            ProxyKilled => self.start_proxies(1),
            TwoProxiesRecover => self.start_proxies(2),
            ShardKilled => block_in_place(|| self.server(victim).start()).unwrap(),
            ShardBlackholed => self.blackhole(victim, false),
            ReplicaPromoted => block_in_place(|| self.rebuild(victim)),
            ClientGone => {}
        }
        told
    }

    fn kill_proxies(&mut self) {
        for mut proxy in self.proxies.drain(..) {
            proxy.signal(Signal::SIGKILL);
            block_in_place(|| proxy.wait());
        }
    }

    fn start_proxies(&mut self, count: usize) {
        let config = &self.config;
        self.proxies = block_in_place(|| {
            std::thread::scope(|scope| {
                let starting: Vec<_> = (0..count).map(|_| scope.spawn(|| Proxy::start(config))).collect();
                starting.into_iter().map(|proxy| proxy.join().unwrap()).collect()
            })
        });
    }

    fn server(&self, shard: u16) -> &support::Server {
        self.cluster.server(shard, self.leaders[usize::from(shard)])
    }

    fn blackhole(&self, shard: u16, cut: bool) {
        self.relays.iter().filter(|(of, ..)| *of == shard).for_each(|(.., relay)| relay.blackhole(cut));
    }

    /// The other server of a shard takes over.
    fn promote(&mut self, shard: u16) {
        let next = follower(self.leaders[usize::from(shard)]);
        sql(&self.cluster.superuser(self.cluster.server(shard, next)), "select pg_promote()").unwrap();
        self.leaders[usize::from(shard)] = next;
    }

    /// The one that led comes back as a copy of the one that does.
    fn rebuild(&self, shard: u16) {
        let (leader, login) = (self.server(shard), self.leader(shard));
        let other = self.cluster.server(shard, follower(leader.role));
        fs::remove_dir_all(other.data()).unwrap();
        let parent = other.data().parent().unwrap();
        let copied = Command::new("pg_basebackup")
            .args(["-R", "-X", "stream", "-c", "fast", "-h", "127.0.0.1", "-U", SUPERUSER, "-D"])
            .arg(other.data())
            .args(["-p", &login.port.to_string()])
            .env("PGPASSWORD", PASSWORD)
            .status()
            .unwrap();
        assert!(copied.success());
        let auto = other.data().join("postgresql.auto.conf");
        let settings = fs::read_to_string(&auto).unwrap();
        fs::write(&auto, settings + "primary_slot_name = ''\n").unwrap();
        let owned = Command::new("chown").arg("-R").arg("--reference").arg(parent).arg(other.data()).status().unwrap();
        assert!(owned.success());
        other.start().unwrap();
        wait_for_standby(&login);
    }

    /// All or none, what was acknowledged is there, nothing of ours stays prepared, nothing of others is touched.
    async fn check(&self, told: &Told) {
        let up = Instant::now();
        let prepared =
            "select count(*) from pg_prepared_xacts where gid like 'pgweir:%' and gid not like 'pgweir:%:1.1:%'";
        let none = || self.ask_all(prepared).iter().all(|count| count == "0");
        while !none() {
            assert!(up.elapsed() < Duration::from_secs(10), "something stays prepared");
            sleep(PAUSE).await;
        }
        let rows = self.ask_all(&format!("select count(*) from ledger where trial = {}", self.trial));
        let written = rows[0] == "1";
        assert!(rows.iter().all(|count| *count == rows[0]), "{rows:?}, the client was told {told:?}");
        match told {
            Told::Committed => assert!(written, "it was acknowledged"),
            Told::Failed(code) if code.is_empty() || code == "08007" => {}
            Told::Failed(code) => assert!(!written, "its client was told {code}"),
            Told::Nothing => {}
        }
        eprintln!("  told {told:?}, written {written}, {:?}", up.elapsed());
        for (shard, gid) in FOREIGN {
            let found = self.ask(shard, &format!("select count(*) from pg_prepared_xacts where gid = '{gid}'"));
            assert_eq!(found, "1", "{gid} is none of ours");
        }
    }
}

/// A lock that home's commit waits for, as long as it lives.
struct Lock {
    _client: Client,
}

impl Lock {
    fn take(login: &Login) -> Self {
        let text = format!(
            "host={} port={} user={} password='{}' dbname={}",
            login.host, login.port, login.user, login.password, login.database
        );
        let taking = async {
            let (client, connection) = tokio_postgres::connect(&text, NoTls).await.unwrap();
            tokio::spawn(connection);
            client.batch_execute("select pg_advisory_lock(1)").await.unwrap();
            Self { _client: client }
        };
        block_in_place(|| tokio::runtime::Handle::current().block_on(taking))
    }
}

/// Makes commits wait for a replica.
fn wait_for_standby(login: &Login) {
    sql(login, "alter system set synchronous_standby_names = '*'").unwrap();
    sql(login, "select pg_reload_conf()").unwrap();
    until(|| sql(login, "select count(*) from pg_stat_replication where sync_state = 'sync'").unwrap() == "1");
}

fn follower(leader: Role) -> Role {
    if leader == Role::Primary { Role::Replica(1) } else { Role::Primary }
}

fn key(shard: u16) -> u64 {
    u64::from(shard) * KEYS + 1
}

fn keys() -> String {
    (0..SHARDS).map(|shard| key(shard).to_string()).collect::<Vec<_>>().join(", ")
}

/// The cells of these faults: `PGWEIR_CRASHES` times each, else one for each point.
async fn matrix(faults: &[Fault], replicas: u16) {
    let seed = rand::random();
    eprintln!("seed {seed}");
    let mut world = World::new(replicas, seed).await;
    let times: u64 = std::env::var("PGWEIR_CRASHES").map_or(0, |times| times.parse().unwrap());
    for _ in 0..times {
        for fault in faults {
            for point in POINTS {
                world.run(point, *fault).await;
            }
        }
    }
    if times == 0 {
        let first = world.random.random_range(0..faults.len());
        for (number, point) in POINTS.into_iter().enumerate() {
            world.run(point, faults[(first + number) % faults.len()]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_survives_whoever_asked_for_it() {
    matrix(&[ProxyKilled, TwoProxiesRecover, ClientGone], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_survives_its_servers() {
    matrix(&[ShardKilled, ShardBlackholed, ReplicaPromoted], 1).await;
}

/// The rows of a command of the console, values by `|`.
async fn console(port: u16, command: &str) -> Vec<String> {
    let login = format!("host=127.0.0.1 port={port} user={APP} password='{PASSWORD}' dbname=pgweir");
    let (client, connection) = tokio_postgres::connect(&login, NoTls).await.unwrap();
    tokio::spawn(connection);
    let value = |row: &tokio_postgres::SimpleQueryRow, column| row.get(column).unwrap_or_default().to_owned();
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|column| value(row, column)).collect::<Vec<_>>().join("|"))
        }
        _ => None,
    };
    client.simple_query(command).await.unwrap().iter().filter_map(row).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pending_is_shown_and_ended_by_command() {
    let mut world = World::new(0, 0).await;
    world.trial = 1;
    let port = world.proxies[0].port;
    let client = world.connect(port).await;
    let writing = world.write(Box::new(client), true, Point::AfterPrepares).await;
    timeout(PATIENCE, world.stage.reached(Point::AfterPrepares.is_reached())).await.unwrap();
    let mut shown = Vec::new();
    // Recovery looks once a second.
    while shown.iter().filter(|row: &&String| row.contains("|prepared|")).count() < 4 {
        shown = console(port, "show transactions").await;
        sleep(PAUSE).await;
    }
    let all = shown.join("\n");
    let [transaction] = shown.iter().filter(|row| row.contains("|transaction|")).collect::<Vec<_>>()[..] else {
        panic!("{all}")
    };
    assert!(transaction.contains("|0,1,2|pgweir:0:") && transaction.ends_with("|deciding"), "{all}");
    for (shard, gid) in FOREIGN {
        let of_row = format!("shop|prepared||{shard}|{gid}|");
        assert!(shown.iter().any(|row| row.starts_with(&of_row) && row.contains("|left: ")), "{all}");
    }
    world.kill_proxies();
    world.stage.release();
    writing.await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pgweir.toml");
    fs::write(&file, format!("[general]\n{}", world.config)).unwrap();
    let recover = || {
        let output =
            Command::new(env!("CARGO_BIN_EXE_pgweir")).args(["recover", "--config"]).arg(&file).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let mut said = block_in_place(recover);
    // At first, its process may be about to end it.
    while !said.contains("as decided") && !said.contains("rolled back") {
        assert!(said.matches("may be about to end it").count() >= 2, "{said}");
        said = block_in_place(recover);
    }
    assert_eq!(said.lines().count(), 4, "{said}");
    for (shard, gid) in FOREIGN {
        let of_line = format!("shop shard {shard} {gid} (");
        assert!(said.lines().any(|line| line.starts_with(&of_line) && line.contains("): left: ")), "{said}");
    }
    world.start_proxies(1);
    world.check(&Told::Nothing).await;
}

/// That a shard is late.
fn is_warning(message: &AsyncMessage) -> bool {
    let AsyncMessage::Notice(notice) = message else { return false };
    notice.severity() == "WARNING" && notice.code().code() == "08007"
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_told_of_a_late_shard_waits_for_it() {
    let mut world = World::new(0, 0).await;
    for block in [true, false] {
        world.trial += 1;
        let login =
            format!("host=127.0.0.1 port={} user={APP} password='{PASSWORD}' dbname=shop", world.proxies[0].port);
        drop(world.connect(world.proxies[0].port).await);
        let (client, mut connection) = tokio_postgres::connect(&login, NoTls).await.unwrap();
        let warned = Arc::new(AtomicBool::new(false));
        let warning = Arc::clone(&warned);
        tokio::spawn(std::future::poll_fn(move |cx| {
            while let Some(message) = std::task::ready!(connection.poll_message(cx)) {
                warning.fetch_or(message.is_ok_and(|message| is_warning(&message)), Ordering::Relaxed);
            }
            std::task::Poll::Ready(())
        }));
        let client = Arc::new(client);
        let writing = world.write(Arc::clone(&client), block, Point::AfterDecision).await;
        timeout(PATIENCE, world.stage.reached(Point::AfterDecision.is_reached())).await.unwrap();
        world.blackhole(2, true);
        world.stage.release();
        assert_eq!(writing.await.unwrap(), Told::Committed);
        assert!(warned.load(Ordering::Relaxed), "it was not warned");
        let count =
            |shard| format!("select count(*) from ledger where user_id = {} and trial = {}", key(shard), world.trial);
        let here: i64 = client.query_one(&count(1), &[]).await.unwrap().get(0);
        assert_eq!(here, 1);
        let (waits, late) = (Arc::clone(&client), count(2));
        let waiting = tokio::spawn(async move { waits.query_one(&late, &[]).await.unwrap().get::<_, i64>(0) });
        // Others who want nothing of that shard do not wait.
        let other = world.connect_to(world.proxies[0].port).await.unwrap();
        other.batch_execute(&count(0)).await.unwrap();
        assert!(!waiting.is_finished());
        world.blackhole(2, false);
        assert_eq!(timeout(PATIENCE, waiting).await.unwrap().unwrap(), 1);
        world.check(&Told::Committed).await;
    }
}

const SHARDS: u16 = 3;
/// The first shard of a write decides.
const HOME: u16 = 0;
/// Prepared by somebody else, or by a pgweir of another cluster.
const FOREIGN: [(u16, &str); 2] = [(1, "another application"), (2, "pgweir:0:1.1:00000000000000aa:7")];
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
