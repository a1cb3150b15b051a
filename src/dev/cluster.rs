//! Shards of a primary and its streaming replicas, on this machine.
//!
//! Blocking: call it from a thread that may wait.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use super::Error;
use super::guard::Guard;
use super::installation::{Installation, run};
use super::server::{CONF, HOST, POLL, Role, Server, Stop};
use super::state::State;
use crate::control::connect::{Login, connect};
use crate::topology::{ServerTls, TlsNegotiation};

/// All servers of all shards, running; they end with this value, and with this process.
pub struct Cluster {
    // Stopped before the guard is let go.
    shards: Vec<Shard>,
    state: State,
    stop: Stop,
    _guard: Guard,
}

/// What a cluster is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Data that a person comes back to.
    Dev,
    /// Gone with the process, folder and all: no time is spent on what survives a crash of the machine.
    Test,
}

struct Shard {
    primary: Server,
    replicas: Vec<Server>,
}

impl Cluster {
    /// Starts the servers in a folder, after making them if the state says that there are none.
    pub fn open(folder: &Path, mut state: State, purpose: Purpose) -> Result<Self, Error> {
        let servers = folder.join(SERVERS);
        let installation = Installation::find(data_version(&servers).filter(|_| state.made))?;
        installation.make_folder(&servers)?;
        let shards: Vec<Shard> =
            (0..state.shards).map(|shard| Shard::new(&installation, &servers, shard, state.replicas)).collect();
        let data: Vec<PathBuf> =
            shards.iter().flat_map(Shard::servers).map(|server| server.data().to_owned()).collect();
        let remove = (purpose == Purpose::Test).then_some(folder);
        let guard = Guard::watch(&data, remove).map_err(Error::io(Path::new("/bin/sh")))?;
        let stop = if purpose == Purpose::Test { Stop::Immediate } else { Stop::Fast };
        let mut cluster = Self { shards, state: state.clone(), stop, _guard: guard };
        cluster.start(&installation, purpose)?;
        state.made = true;
        state.ports = cluster.servers().map(Server::port).collect();
        cluster.state = state;
        Ok(cluster)
    }

    /// In the order of their shards, each primary before its replicas.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.shards.iter().flat_map(Shard::servers)
    }

    pub fn server(&self, shard: u16, role: Role) -> &Server {
        let found = self.servers().find(|server| server.shard == shard && server.role == role);
        found.expect("the caller knows the cluster's size")
    }

    /// How it was made, and on which ports it runs.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The application's way in.
    pub fn app(&self, server: &Server) -> Login {
        self.login(server, DATABASE, APP, &self.state.app_password)
    }

    /// The superuser's way in.
    pub fn superuser(&self, server: &Server) -> Login {
        self.login(server, DATABASE, SUPERUSER, &self.state.superuser_password)
    }

    /// The superuser's way to every primary, in the order of the shards.
    pub fn primaries(&self) -> Vec<Login> {
        self.shards.iter().map(|shard| self.superuser(&shard.primary)).collect()
    }

    /// Returns when every replica has replayed all that its primary had written at the time of the call.
    pub async fn caught_up(&self) -> Result<(), Error> {
        for shard in &self.shards {
            self.replayed(shard).await?;
        }
        Ok(())
    }

    /// Stops all servers at once; `drop` does the same.
    pub fn stop(self) {}

    fn start(&self, installation: &Installation, purpose: Purpose) -> Result<(), Error> {
        let ports = |shard: usize| {
            let size = 1 + usize::from(self.state.replicas);
            self.state.ports.iter().copied().skip(shard * size).take(size).collect::<Vec<_>>()
        };
        each(self.shards.iter().enumerate(), |(number, shard)| {
            if !self.state.made {
                self.make(installation, shard, purpose)?;
            }
            let ports = ports(number);
            shard.primary.launch(ports.first().copied(), self.settings(&shard.primary, None, purpose))?;
            if !self.state.made {
                block_on(self.fill(shard))?;
            }
            each(shard.replicas.iter().enumerate(), |(number, replica)| {
                let settings = self.settings(replica, Some(&shard.primary), purpose);
                replica.launch(ports.get(1 + number).copied(), settings)
            })?;
            block_on(self.replayed(shard))
        })
    }

    /// The data folders of one shard: copies of one another, made before the first of them is started.
    fn make(&self, installation: &Installation, shard: &Shard, purpose: Purpose) -> Result<(), Error> {
        let data = shard.primary.data();
        let parent = data.parent().expect("data folders have a parent");
        installation.make_folder(parent)?;
        let password = parent.join("password");
        installation.write(&password, &self.state.superuser_password)?;
        let mut initdb = installation.program("initdb");
        initdb.args(["--username", SUPERUSER, "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"]);
        if purpose == Purpose::Test {
            // Small segments: less to copy for each replica.
            initdb.args(["--no-sync", "--wal-segsize", "1"]);
        }
        run(initdb.arg("--pwfile").arg(&password).arg("--pgdata").arg(data))?;
        fs::remove_file(&password).map_err(Error::io(&password))?;
        let conf = data.join("postgresql.conf");
        let text = fs::read_to_string(&conf).map_err(Error::io(&conf))?;
        installation.write(&conf, &format!("{text}\ninclude_if_exists '{CONF}'\n"))?;
        each(shard.replicas.iter(), |replica| {
            run(installation.tool("cp").arg("-Rp").arg(data).arg(replica.data()))?;
            installation.write(&replica.data().join("standby.signal"), "")
        })
    }

    /// Roles, the database and the replicas' slots, on a primary that has just been made.
    async fn fill(&self, shard: &Shard) -> Result<(), Error> {
        let login = self.login(&shard.primary, "postgres", SUPERUSER, &self.state.superuser_password);
        let client = connect(&login).await?;
        let password = self.state.app_password.replace('\'', "''");
        client.batch(&format!("CREATE ROLE {APP} LOGIN PASSWORD '{password}'")).await?;
        client.batch(&format!("CREATE DATABASE {DATABASE} OWNER {APP}")).await?;
        for replica in &shard.replicas {
            let sql = format!("SELECT pg_create_physical_replication_slot('{}', true)", replica.role);
            client.batch(&sql).await?;
        }
        Ok(())
    }

    fn settings(&self, server: &Server, primary: Option<&Server>, purpose: Purpose) -> String {
        let mut text = format!("cluster_name = 'shard{}_{}'\n{SETTINGS}", server.shard, server.role);
        text += &format!("max_connections = {}\n", self.state.max_connections);
        text += if purpose == Purpose::Test { TEST_SETTINGS } else { "" };
        if let Some(primary) = primary {
            let password = self.state.superuser_password.replace('\\', "\\\\").replace('\'', "\\'");
            let way = format!("host={HOST} port={} user={SUPERUSER} password='{password}'", primary.port());
            text += &format!("primary_conninfo = '{}'\n", way.replace('\\', "\\\\").replace('\'', "''"));
            text += &format!("primary_slot_name = '{}'\n", server.role);
        }
        text
    }

    /// Returns when every replica of a shard has replayed all that the primary had written at the time of the call.
    async fn replayed(&self, shard: &Shard) -> Result<(), Error> {
        // Not by the clients' database: a replica that has just been made does not have it yet.
        let login = |server| self.login(server, "postgres", SUPERUSER, &self.state.superuser_password);
        let primary = connect(&login(&shard.primary)).await?;
        let position = primary.rows("SELECT pg_current_wal_insert_lsn()").await?.concat().pop().flatten();
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{}'::pg_lsn", position.unwrap_or_default());
        // What is not flushed is not sent: this commit flushes it.
        primary.batch("SET synchronous_commit = local; SELECT txid_current()").await?;
        for replica in &shard.replicas {
            let replica = connect(&login(replica)).await?;
            while replica.rows(&replayed).await? != [[Some("t".to_owned())]] {
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    fn login(&self, server: &Server, database: &str, user: &str, password: &str) -> Login {
        Login {
            host: HOST.to_owned(),
            port: server.port(),
            database: database.to_owned(),
            user: user.to_owned(),
            password: password.to_owned(),
            tls: ServerTls::Disable,
            tls_ca: None,
            tls_negotiation: TlsNegotiation::Postgres,
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A fast stop sends a primary's last words to its replicas: all get the signal before any is waited for.
        self.servers().for_each(|server| server.ask_to_stop(self.stop));
        self.servers().for_each(Server::await_end);
    }
}

impl Shard {
    fn new(installation: &Installation, servers: &Path, shard: u16, replicas: u16) -> Self {
        let folder = servers.join(format!("shard{shard}"));
        let server = |role| Server::new(installation, &folder, shard, role);
        Self { primary: server(Role::Primary), replicas: (1..=replicas).map(|n| server(Role::Replica(n))).collect() }
    }

    fn servers(&self) -> impl Iterator<Item = &Server> {
        std::iter::once(&self.primary).chain(&self.replicas)
    }
}

/// Runs on a thread for each item; the first error, if any.
fn each<T: Send>(items: impl Iterator<Item = T>, work: impl Fn(T) -> Result<(), Error> + Sync) -> Result<(), Error> {
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = items.map(|item| scope.spawn(move || work(item))).collect();
        let results =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        results.collect::<Vec<_>>().into_iter().collect()
    })
}

/// For the threads of [`each`], which belong to no runtime.
fn block_on<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Error::io(Path::new("runtime")))?.block_on(work)
}

/// Major version of the servers that made the data.
fn data_version(servers: &Path) -> Option<u32> {
    fs::read_to_string(servers.join("shard0/primary/PG_VERSION")).ok()?.trim().parse().ok()
}

/// The database that clients use, its owner, and the superuser.
pub const DATABASE: &str = "shop";
pub const APP: &str = "app";
pub const SUPERUSER: &str = "postgres";

/// Where the servers live in a cluster's folder.
pub(super) const SERVERS: &str = "servers";

/// The same on primaries and replicas: a replica needs at least its primary's limits.
const SETTINGS: &str = "\
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
wal_level = logical
max_prepared_transactions = 100
max_wal_senders = 20
max_replication_slots = 20
hot_standby = on
hot_standby_feedback = on
wal_retrieve_retry_interval = '100ms'
password_encryption = 'scram-sha-256'
shared_buffers = '64MB'
max_wal_size = '512MB'
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %u@%d '
";

const TEST_SETTINGS: &str = "\
fsync = off
full_page_writes = off
shared_buffers = '16MB'
wal_sender_timeout = '60s'
";
