//! Real PostgreSQL servers and real proxies for tests; they end with the test, also after a panic.
//!
//! Each test binary uses some of it.

#![allow(clippy::unwrap_used, dead_code, unused_imports)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::Deref;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgweir::control::connect::{Client, Login, connect};
use pgweir::control::migrate::{Migrations, apply};
use pgweir::dev;
pub(crate) use pgweir::dev::{APP, DATABASE, Role, SUPERUSER, Server, Stop, free_port};

pub(crate) const PASSWORD: &str = "correct horse";

/// Keys of each shard, from 1 up in the order of the shards; the last one has no end.
pub(crate) const KEYS: u64 = 1000;

/// Shards of a primary and streaming replicas, with database `shop`, users `app` and `postgres`, [`PASSWORD`] for both.
pub(crate) struct Cluster {
    cluster: dev::Cluster,
    _folder: tempfile::TempDir,
}

impl Cluster {
    /// A cluster of one's own, for tests that stop or slow its servers.
    pub(crate) fn start(shards: u16, replicas: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The servers run as a user of their own, who must be able to enter.
        open_to_all(folder.path());
        let mut state = dev::State::new(shards, replicas, KEYS * u64::from(shards));
        state.superuser_password = PASSWORD.to_owned();
        state.app_password = PASSWORD.to_owned();
        let cluster = dev::Cluster::open(folder.path(), state, dev::Purpose::Test).unwrap();
        Self { cluster, _folder: folder }
    }

    /// The one of this test binary: 2 shards of a primary and 2 replicas. Tests share it, each with tables of its own.
    /// It is stopped when the process ends.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(2, 2))
    }

    /// Makes the demo's tables on every shard, without rows.
    pub(crate) fn make_shop(&self) {
        let servers = self.primaries();
        wait_for(async move { apply(&servers, &[Migrations::shop().run_as(APP)]).await.unwrap() });
        self.settle();
    }

    pub(crate) fn primary(&self, shard: u16) -> &Server {
        self.server(shard, Role::Primary)
    }

    /// Counted from 1.
    pub(crate) fn replica(&self, shard: u16, number: u16) -> &Server {
        self.server(shard, Role::Replica(number))
    }

    /// Runs a text as superuser in database `shop` of one server: its rows, values by `|`, NULL as nothing.
    pub(crate) fn sql(&self, shard: u16, role: Role, text: &str) -> String {
        sql(&self.superuser(self.server(shard, role)), text).unwrap()
    }

    /// The same on every primary: the answers in the order of the shards.
    pub(crate) fn sql_everywhere(&self, text: &str) -> Vec<String> {
        (0..self.state().shards).map(|shard| self.sql(shard, Role::Primary, text)).collect()
    }

    /// Returns when every replica has what its primary has now.
    pub(crate) fn settle(&self) {
        thread::scope(|scope| {
            let waits = scope.spawn(|| runtime().block_on(self.cluster.caught_up()));
            waits.join().unwrap().unwrap();
        });
    }

    /// The replica goes on receiving and shows nothing new until [`Self::resume_replay`].
    pub(crate) fn pause_replay(&self, shard: u16, number: u16) {
        let pause = "SELECT pg_wal_replay_pause()";
        self.sql(shard, Role::Replica(number), pause);
        // The request is granted when the replica has stopped for it.
        let state = "SELECT pg_get_wal_replay_pause_state()";
        until(|| self.sql(shard, Role::Replica(number), state) == "paused");
    }

    pub(crate) fn resume_replay(&self, shard: u16, number: u16) {
        self.sql(shard, Role::Replica(number), "SELECT pg_wal_replay_resume()");
    }

    /// The replica shows each commit this much later, as in `50ms`; `0` ends it.
    pub(crate) fn delay_replay(&self, shard: u16, number: u16, delay: &str) {
        let replica = Role::Replica(number);
        self.sql(shard, replica, &format!("ALTER SYSTEM SET recovery_min_apply_delay = '{delay}'"));
        self.sql(shard, replica, "SELECT pg_reload_conf()");
        let wanted = self.sql(shard, replica, &format!("SELECT '{delay}'::interval = '0'::interval"));
        let differs = "SELECT setting = '0' FROM pg_settings WHERE name = 'recovery_min_apply_delay'";
        until(|| self.sql(shard, replica, differs) == wanted);
    }

    pub(crate) fn delay_all_replays(&self, delay: &str) {
        for shard in 0..2 {
            (1..=2).for_each(|replica| self.delay_replay(shard, replica, delay));
        }
    }

    /// Configuration of a proxy for the demo's shop on this cluster, with user `app`, for [`Proxy::start`].
    pub(crate) fn toml(&self) -> String {
        format!("admin_users = [\"{APP}\"]\n{}", dev::tables(&self.cluster))
    }

    /// `[[databases]]` entries of all servers, as database `shop`.
    pub(crate) fn databases_toml(&self) -> String {
        let entry = |server: &Server| {
            let role = if server.role == Role::Primary { "primary" } else { "replica" };
            let (shard, port) = (server.shard, server.port());
            format!(
                "[[databases]]\nname = \"shop\"\nshard = {shard}\nrole = \"{role}\"\nhost = \"127.0.0.1\"\nport = {port}\n"
            )
        };
        self.servers().map(entry).collect()
    }
}

impl Deref for Cluster {
    type Target = dev::Cluster;

    fn deref(&self) -> &dev::Cluster {
        &self.cluster
    }
}

/// `pgweir serve` on a free port.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    /// Of `/metrics` and the like, if the configuration asks for it.
    pub(crate) http: Option<u16>,
    pub(crate) config: std::path::PathBuf,
    child: Child,
    /// Ends the proxy when this process is gone (statics are never dropped), as the cluster's own guard ends servers.
    watcher: Child,
    _folder: tempfile::TempDir,
}

impl Proxy {
    /// The text begins with `[general]`, or with its keys and no header; host and port are added.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_by(config, |_| {})
    }

    /// With changes to the command: its environment, where its log goes.
    pub(crate) fn start_by(config: &str, change: impl FnOnce(&mut Command)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pgweir.toml");
        let config = config.strip_prefix("[general]\n").unwrap_or(config);
        fs::write(&file, format!("[general]\nhost = \"127.0.0.1\"\nport = 0\n{config}")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgweir"));
        command.args(["serve", "--config"]).arg(&file).stdout(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let watcher = Command::new("sh")
            .args(["-c", "cat >/dev/null; kill -KILL $0", &child.id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port_of = |line: &str| line.trim().rsplit(':').next().unwrap().parse().unwrap();
        let mut http = None;
        let line = lines.by_ref().map(Result::unwrap).find(|line| {
            if line.starts_with("pgweir serves HTTP on") {
                http = Some(port_of(line));
            }
            line.starts_with("pgweir listens on")
        });
        let Some(line) = line else { panic!("pgweir did not start: {:?}", child.wait()) };
        // Read to its end, so that the proxy never waits for a reader.
        thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("pgweir: {line}")));
        Self { port: port_of(&line), http, config: file, child, watcher, _folder: folder }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its end, which something else has caused.
    pub(crate) fn ended(&mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }

    /// SIGTERM, and the proxy's end.
    pub(crate) fn terminate(&mut self) -> std::process::ExitStatus {
        self.signal(Signal::SIGTERM);
        self.child.wait().unwrap()
    }

    /// The end of a proxy that was told to end.
    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.watcher.kill().and_then(|()| self.watcher.wait()).unwrap();
        let ended = self.child.kill().and_then(|()| self.child.wait());
        eprintln!("proxy ended: {ended:?}");
    }
}

/// psql as user `postgres`: unaligned output.
pub(crate) fn psql(port: u16, database: &str, password: &str, sql: &str) -> Output {
    psql_as("postgres", port, database, password, &["-c", sql])
}

/// psql with arguments of one's own.
pub(crate) fn psql_as(user: &str, port: u16, database: &str, password: &str, arguments: &[&str]) -> Output {
    Command::new("psql")
        .args(["-X", "-A", "-h", "127.0.0.1", "-U", user, "-p", &port.to_string(), "-d", database])
        .args(arguments)
        .env("PGPASSWORD", password)
        .output()
        .unwrap()
}

/// The SQLSTATE of a statement that its client cancels, by a driver that logs in like this.
pub(crate) async fn cancelled(login: &str) -> Option<String> {
    let (client, connection) = tokio_postgres::connect(login, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let token = client.cancel_token();
    // Again and again until it lands: the first may come before the statement has begun.
    let cancels = async {
        loop {
            token.cancel_query(tokio_postgres::NoTls).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let cause = tokio::select! {
        answer = client.simple_query("select pg_sleep(60)") => answer.unwrap_err(),
        () = cancels => unreachable!(),
    };
    cause.code().map(|code| code.code().to_owned())
}

/// Returns when the condition holds; asks again and again, and fails after a minute.
pub(crate) fn until(mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "what was waited for did not come");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a future on a thread of its own, so that tests with and without a runtime can call it.
pub(crate) fn wait_for<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    thread::spawn(|| runtime().block_on(work)).join().unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs a text on one server: its rows, values by `|`, NULL as nothing; or the SQLSTATE.
pub(crate) fn sql(login: &Login, text: &str) -> Result<String, String> {
    let (login, sql) = (login.clone(), text.to_owned());
    let answer = wait_for(async move { connect(&login).await?.rows(&sql).await });
    let rows = answer.map_err(|cause| cause.sqlstate().map_or_else(|| cause.to_string(), str::to_owned))?;
    let line = |row: Vec<Option<String>>| row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join("|");
    Ok(rows.into_iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// Lets the servers' user enter a folder that is ours.
pub(crate) fn open_to_all(folder: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}
