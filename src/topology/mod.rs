//! The cluster as configured: databases, shards, servers, key ranges. Correct by construction.
//!
//! Pure: made from a [`crate::config::Config`], replaced whole on reload. Knows nothing of connections or health.

mod access;
mod build;
mod caching;
mod found;
mod key;
mod mapping;
mod users;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub use crate::config::{
    Auth, CertificateName, ClientCertificate, ConfiguredRole, Consistency, CrossShardWrites, EvictionPolicy, FileEntry,
    LogFormat, LogLevel, Method, PoolerMode, ReadWriteSplit, Secret, ServerTls, Strategy, TlsNegotiation,
};
use access::ANYBODY;
pub use access::{Demand, IdentMap, Rules, Verdict, Visitor};
pub use build::ADMIN;
pub use caching::{CacheLimits, CacheRule, Caching};
pub use found::OTHERS;
pub use key::{Key, KeyType};
pub use mapping::{KeyBound, KeyRange, Mapping, ShardSet};

/// Index of a shard within its database, as written in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

/// Index into [`Topology::servers`]; stable for one topology only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(pub u16);

/// All that a configuration says about servers and data, in the shape the hot path wants.
#[derive(Clone, Debug)]
pub struct Topology {
    /// One more than the topology it replaced.
    pub epoch: u64,
    pub servers: Vec<Arc<Server>>,
    pub databases: HashMap<String, Arc<Database>>,
    pub users: Vec<Arc<User>>,
    pub rules: Rules,
    pub process: Process,
    /// Databases that have no entry of their own and are there, with the moment when each was found to be.
    found: BTreeMap<String, Instant>,
}

/// What holds for the whole process. A duration of zero means "no limit".
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    pub host: String,
    pub port: u16,
    pub unix_socket: Option<UnixSocket>,
    /// Threads that serve clients; never 0.
    pub workers: usize,
    pub max_client_conn: usize,
    pub default_pool_size: usize,
    /// `host:port` of `/metrics`, `/healthz` and `/readyz`.
    pub admin_http: Option<String>,
    /// TLS towards clients; `None`: an SSLRequest is answered `N`.
    pub tls: Option<ClientTls>,
    /// Asks a server what it keeps of a password: name and secret of `$1`.
    pub auth_query: String,
    /// Who may give commands in the console.
    pub admin_users: Vec<String>,
    /// Log-in of the control plane; `None`: each database's first user.
    pub control: Option<(String, Secret)>,
    /// Longest wait for a free server connection.
    pub query_wait_timeout: Duration,
    /// Longest time for a connection to a server to be opened and logged in.
    pub connect_timeout: Duration,
    /// From the first byte of a client to its ReadyForQuery.
    pub client_login_timeout: Duration,
    /// Longest time that one unit of work may take.
    pub query_timeout: Duration,
    /// Longest silence of a client inside a transaction.
    pub idle_transaction_timeout: Duration,
    /// Age at which a server connection is not used again.
    pub server_lifetime: Duration,
    /// Idle server connections above `min_pool_size` are closed after this.
    pub server_idle_timeout: Duration,
    /// How long a SIGTERM waits for transactions.
    pub shutdown_timeout: Duration,
    /// Reads of several shards see a commit over several wholly or not at all.
    pub consistent_reads: bool,
    /// How long the decision of a write over several shards may take, else it is undone; then how long a COMMIT PREPARED
    /// may take, before the client gets its answer with a WARNING.
    pub commit_timeout: Duration,
    /// TCP keepalive: idle time before the first probe, on both sides.
    pub tcp_keepalive: Duration,
    pub probe_interval: Duration,
    /// How long rows of `pgweir.decisions` stay.
    pub decision_retention: Duration,
    /// Bytes that one merge may hold (groups and distinct rows).
    pub merge_limit: usize,
    /// Bytes of rows that one statement may fetch to have them joined on one shard.
    pub gather_limit: usize,
    /// Prepared statements that one server connection holds.
    pub prepared_statements_limit: usize,
    pub log_format: LogFormat,
    /// `None`: no answer is cached.
    pub cache: Option<CacheLimits>,
    /// `host:port` of other instances: cancel requests for their clients may come here.
    pub peers: Vec<String>,
    pub log_level: LogLevel,
    pub log_connections: bool,
    pub log_disconnections: bool,
    /// What averages are taken over.
    pub stats_period: Duration,
    /// Whatever of `[general]` may be shown.
    pub settings: Vec<Setting>,
}

/// One key of `[general]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub name: String,
    pub value: String,
    pub default: String,
    /// A reload takes a new value; else the process must be started anew.
    pub changeable: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// `false`: clients may also stay in the clear.
    pub required: bool,
    /// PEM files.
    pub certificate: FileEntry,
    pub private_key: FileEntry,
    /// A certificate that a client shows must be signed by one of these.
    pub client_ca: Option<FileEntry>,
    /// Every client must show one.
    pub client_certificate_required: bool,
}

/// Where clients of the same machine connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixSocket {
    pub folder: PathBuf,
    /// Permissions of the socket.
    pub mode: u32,
}

/// One PostgreSQL server under one database name.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    pub id: ServerId,
    /// The name that clients connect to.
    pub database: String,
    pub shard: ShardId,
    pub role: ConfiguredRole,
    /// Name or address; or, from `/` on, the folder of its UNIX socket.
    pub host: String,
    pub port: u16,
    /// The database's name on the server.
    pub database_name: String,
    pub tls: ServerTls,
    /// PEM file of the authorities that the server's certificate is checked against; `None`: the public ones.
    pub tls_ca: Option<FileEntry>,
    pub tls_negotiation: TlsNegotiation,
    pub lb_weight: u32,
    /// Of each user's pool, where the user says nothing.
    pub pool_size: Option<usize>,
    pub zone: Option<String>,
}

/// What a server is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    Primary,
    Replica,
}

/// A name that clients connect to, with everything that statements in it need.
#[derive(Clone, Debug, PartialEq)]
pub struct Database {
    pub name: String,
    /// By shard id, dense from 0.
    pub shards: Vec<Shard>,
    /// Where statements and tables live that no shard key places.
    pub home: ShardId,
    pub sharded: Vec<ShardedTables>,
    pub reference: Vec<TablePattern>,
    pub pooler_mode: PoolerMode,
    pub read_write_split: ReadWriteSplit,
    pub strategy: Strategy,
    pub consistency: Consistency,
    pub max_replica_lag: Duration,
    /// How stale an `eventual` read may be.
    pub max_staleness: Duration,
    /// How long a read waits for a replica to catch up before it goes to the primary.
    pub causal_wait: Duration,
    pub cross_shard_writes: CrossShardWrites,
    pub caching: Caching,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    pub id: ShardId,
    pub servers: Vec<ServerId>,
}

/// Tables that are split by one key, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardedTables {
    pub tables: ShardedBy,
    pub key_type: KeyType,
    pub mapping: Mapping,
    /// Columns of the one table whose values are unique over all shards.
    pub unique: Vec<String>,
    /// Tables of one group hold equal keys on equal shards: a join on the key stays inside a shard.
    pub colocation: usize,
}

/// Which tables an entry of `[[sharded_tables]]` means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardedBy {
    /// Every table that has this column and is not named elsewhere.
    Column(String),
    /// This table, by this column.
    Table { table: TablePattern, column: String },
}

/// `schema.name`, or a bare name found along `search_path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePattern {
    pub schema: Option<String>,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub databases: UserDatabases,
    pub auth: Auth,
    pub password: Credential,
    /// The name and password used towards servers, when they differ from the client's.
    pub server_user: Option<String>,
    pub server_password: Option<Secret>,
    /// `None`: as the server says, or else the process.
    pub pool_size: Option<usize>,
    pub min_pool_size: usize,
    pub pooler_mode: Option<PoolerMode>,
    pub consistency: Option<Consistency>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserDatabases {
    All,
    Named(Vec<String>),
}

/// What a client's proof is checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// Each of them is good; there is at least one, and the first is used towards the servers.
    Passwords(Vec<Secret>),
    /// `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>` as in `pg_authid.rolpassword`.
    ScramVerifier(Secret),
    /// `md5` and 32 digits as in `pg_authid.rolpassword`.
    Md5Hash(Secret),
    /// `auth = "query"`: asked of the servers at each log-in.
    Query,
    /// `auth = "passthrough"`: the servers are asked by logging in.
    Passthrough,
    /// No password is good.
    Nothing,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

impl Topology {
    pub fn database(&self, name: &str) -> Option<&Arc<Database>> {
        self.databases.get(name)
    }

    pub fn server(&self, id: ServerId) -> &Arc<Server> {
        &self.servers[usize::from(id.0)]
    }

    /// The user as configured for this database; an entry that names the database beats one for all, and an entry that
    /// names the user the one for everybody. In the console each entry of the name is good.
    pub fn user(&self, name: &str, database: &str) -> Option<Arc<User>> {
        let everybody = || Some(User { name: name.to_owned(), ..User::clone(self.entry(ANYBODY, database)?) });
        self.entry(name, database).cloned().or_else(|| everybody().map(Arc::new))
    }

    fn entry(&self, name: &str, database: &str) -> Option<&Arc<User>> {
        let named = |user: &&Arc<User>| matches!(&user.databases, UserDatabases::Named(list) if list.iter().any(|known| known == database));
        let mut of_name = self.users.iter().filter(|user| user.name == name);
        let all = |user: &&Arc<User>| user.databases == UserDatabases::All || database == ADMIN;
        of_name.clone().find(named).or_else(|| of_name.find(all))
    }
}

impl TablePattern {
    pub fn is(&self, schema: Option<&str>, name: &str) -> bool {
        self.name == name && (self.schema.is_none() || self.schema.as_deref() == schema)
    }
}

impl Topology {
    /// Who may use a database by name, each as configured for it.
    pub fn users_of<'t>(&'t self, database: &'t str) -> impl Iterator<Item = &'t Arc<User>> {
        let is_own = |user: &&Arc<User>| self.entry(&user.name, database).is_some_and(|own| Arc::ptr_eq(own, user));
        self.users.iter().filter(|user| user.name != ANYBODY).filter(is_own)
    }
}

impl Server {
    /// Its UNIX socket, where it is reached by one.
    pub fn unix_socket(&self) -> Option<PathBuf> {
        self.host.starts_with('/').then(|| Path::new(&self.host).join(format!(".s.PGSQL.{}", self.port)))
    }
}

impl User {
    /// The user's own size, else the server's, else the process's.
    pub fn pool_size_at(&self, server: &Server, process: &Process) -> usize {
        self.pool_size.or(server.pool_size).unwrap_or(process.default_pool_size)
    }

    pub fn may_use(&self, database: &str) -> bool {
        match &self.databases {
            UserDatabases::All => true,
            UserDatabases::Named(names) => names.iter().any(|name| name == database),
        }
    }
}

impl Database {
    /// Some key's shard depends on what its letters are.
    pub fn has_text_keys(&self) -> bool {
        self.sharded.iter().any(|tables| tables.key_type == KeyType::Text)
    }

    pub fn is_sharded(&self) -> bool {
        self.shards.len() > 1
    }

    pub fn shard(&self, id: ShardId) -> &Shard {
        &self.shards[usize::from(id.0)]
    }

    /// Columns of a table that are declared to be unique over all shards.
    pub fn unique(&self, schema: Option<&str>, name: &str) -> &[String] {
        let is = |tables: &&ShardedTables| matches!(&tables.tables, ShardedBy::Table { table, .. } if table.is(schema, name));
        self.sharded.iter().find(is).filter(|_| self.is_sharded()).map_or(&[], |tables| &tables.unique)
    }

    pub fn all_shards(&self) -> ShardSet {
        ShardSet::first(self.shards.len())
    }
}
