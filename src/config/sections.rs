//! The sections of the file, key by key, with their defaults.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de};

use super::choices::{
    Auth, ClientTlsMode, ConfiguredRole, Consistency, CrossShardWrites, DataType, EvictionPolicy, Invalidation,
    LogFormat, LogLevel, PoolerMode, ReadWriteSplit, ServerTls, Strategy, TlsNegotiation,
};
use super::file::FileEntry;
use super::secret::SecretEntry;
use super::units::{duration, size, written_duration, written_size};

/// `[general]`; what each key means stands in `config/pgweir.toml`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct General {
    pub host: String,
    pub port: u16,
    pub unix_socket_dir: Option<PathBuf>,
    /// Octal, as for chmod.
    pub unix_socket_mode: String,
    pub workers: usize,
    pub default_pool_size: usize,
    pub min_pool_size: usize,
    pub pooler_mode: PoolerMode,
    pub max_client_conn: usize,
    pub admin_http: Option<String>,
    pub admin_users: Vec<String>,
    pub auth_query: String,
    pub load_balancing_strategy: Strategy,
    pub read_write_split: ReadWriteSplit,
    pub home_shard: u16,
    pub cross_shard_writes: CrossShardWrites,
    pub consistency: Consistency,
    #[serde(deserialize_with = "duration", serialize_with = "written_duration")]
    pub max_replica_lag: Duration,
    #[serde(deserialize_with = "duration", serialize_with = "written_duration")]
    pub max_staleness: Duration,
    #[serde(deserialize_with = "duration", serialize_with = "written_duration")]
    pub causal_wait: Duration,
    #[serde(deserialize_with = "duration", serialize_with = "written_duration")]
    pub probe_interval: Duration,
    #[serde(deserialize_with = "duration", serialize_with = "written_duration")]
    pub connect_timeout: Duration,
    #[serde(deserialize_with = "duration", serialize_with = "written_duration")]
    pub client_login_timeout: Duration,
    #[serde(deserialize_with = "duration", serialize_with = "written_duration")]
    pub query_wait_timeout: Duration,
    #[serde(deserialize_with = "duration", serialize_with = "written_duration")]
    pub query_timeout: Duration,
    #[serde(deserialize_with = "duration", serialize_with = "written_duration")]
    pub idle_transaction_timeout: Duration,
    #[serde(deserialize_with = "duration", serialize_with = "written_duration")]
    pub server_lifetime: Duration,
    #[serde(deserialize_with = "duration", serialize_with = "written_duration")]
    pub server_idle_timeout: Duration,
    #[serde(deserialize_with = "duration", serialize_with = "written_duration")]
    pub shutdown_timeout: Duration,
    pub consistent_reads: bool,
    #[serde(deserialize_with = "duration", serialize_with = "written_duration")]
    pub commit_timeout: Duration,
    #[serde(deserialize_with = "duration", serialize_with = "written_duration")]
    pub decision_retention: Duration,
    #[serde(deserialize_with = "duration", serialize_with = "written_duration")]
    pub tcp_keepalive: Duration,
    #[serde(deserialize_with = "size", serialize_with = "written_size")]
    pub merge_limit: usize,
    #[serde(deserialize_with = "size", serialize_with = "written_size")]
    pub gather_limit: usize,
    pub prepared_statements_limit: usize,
    pub log_format: LogFormat,
    pub log_level: LogLevel,
    pub log_connections: bool,
    pub log_disconnections: bool,
    #[serde(deserialize_with = "duration", serialize_with = "written_duration")]
    pub stats_period: Duration,
    /// Names files: not for everybody to see.
    #[serde(skip_serializing)]
    pub tls: Option<GeneralTls>,
}

/// `[general.tls]`: from clients to the proxy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneralTls {
    #[serde(default)]
    pub mode: ClientTlsMode,
    pub certificate: Option<FileEntry>,
    pub private_key: Option<FileEntry>,
    pub client_ca: Option<FileEntry>,
}

/// `[[databases]]`: one server under the name that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseEntry {
    pub name: String,
    #[serde(default)]
    pub shard: u16,
    #[serde(default)]
    pub role: ConfiguredRole,
    pub host: String,
    #[serde(default = "postgresql_port")]
    pub port: u16,
    /// The database's name on the server, when it differs.
    pub database_name: Option<String>,
    #[serde(default)]
    pub tls: ServerTls,
    pub tls_ca: Option<FileEntry>,
    #[serde(default)]
    pub tls_negotiation: TlsNegotiation,
    #[serde(default = "usual_weight")]
    pub lb_weight: u32,
    pub pool_size: Option<usize>,
    pub pooler_mode: Option<PoolerMode>,
    pub consistency: Option<Consistency>,
}

/// `[[users]]`: who may connect to what.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserEntry {
    pub name: String,
    #[serde(default = "every_database")]
    pub database: OneOrMany,
    #[serde(default)]
    pub auth: Auth,
    pub password: Option<SecretEntry>,
    /// All of them are good; the first one is used towards the servers.
    pub passwords: Option<Vec<SecretEntry>>,
    pub scram_verifier: Option<SecretEntry>,
    pub server_user: Option<String>,
    pub server_password: Option<SecretEntry>,
    pub pool_size: Option<usize>,
    pub min_pool_size: Option<usize>,
    pub pooler_mode: Option<PoolerMode>,
    pub consistency: Option<Consistency>,
}

/// `[control]`: the proxy's own log-in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    pub user: String,
    pub password: SecretEntry,
}

/// `[[sharded_tables]]`: one table, or every table with a column, and how its keys are spread.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardedTable {
    pub database: String,
    pub name: Option<String>,
    pub column: String,
    #[serde(default)]
    pub data_type: DataType,
    #[serde(default)]
    pub allow_gaps: bool,
    /// Columns of the table whose values are unique over all shards.
    #[serde(default)]
    pub unique: Vec<String>,
    #[serde(default)]
    pub mapping: Vec<MappingEntry>,
}

/// `[[sharded_tables.mapping]]`: a range, a list, a remainder, or (nothing but `shard`) the default.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MappingEntry {
    pub start: Option<KeyLiteral>,
    pub end: Option<KeyLiteral>,
    pub values: Option<Vec<KeyLiteral>>,
    pub modulus: Option<u32>,
    pub remainder: Option<u32>,
    pub shard: u16,
}

/// `[[reference_tables]]`: tables with the same rows on every shard.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceTables {
    pub database: String,
    pub tables: Vec<String>,
}

/// `[cluster]`: other instances behind the same address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterEntry {
    /// `host:port` of each.
    pub peers: Vec<String>,
}

/// `[cache]`; what each key means stands in `config/pgweir.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    pub enabled: bool,
    #[serde(deserialize_with = "size")]
    pub memory: usize,
    #[serde(deserialize_with = "duration")]
    pub ttl: Duration,
    #[serde(deserialize_with = "size")]
    pub max_result: usize,
    pub policy: EvictionPolicy,
    pub invalidation: Invalidation,
    pub rules: Vec<CacheRuleEntry>,
}

/// `[[cache.rules]]`: the first one that names a table holds for it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheRuleEntry {
    pub tables: Vec<String>,
    #[serde(default = "yes")]
    pub cache: bool,
    #[serde(default, deserialize_with = "optional_duration")]
    pub ttl: Option<Duration>,
}

/// A key value as TOML has it; `data_type` says what it must be.
#[derive(Clone, Debug, PartialEq)]
pub enum KeyLiteral {
    Integer(i64),
    /// Also TOML's own dates and times, as written in RFC 3339.
    Text(String),
}

/// One name, or a list of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl General {
    /// All keys but those of sections, in alphabetical order, with their values as one would write them.
    pub fn entries(&self) -> Vec<(String, String)> {
        let Ok(serde_json::Value::Object(keys)) = serde_json::to_value(self) else { return Vec::new() };
        let text = |value: serde_json::Value| match value {
            serde_json::Value::Null => String::new(),
            serde_json::Value::String(text) => text,
            serde_json::Value::Array(items) => {
                items.iter().filter_map(|item| item.as_str()).collect::<Vec<_>>().join(", ")
            }
            other => other.to_string(),
        };
        keys.into_iter().map(|(key, value)| (key, text(value))).collect()
    }
}

impl Default for General {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 6432,
            unix_socket_dir: None,
            unix_socket_mode: "0777".to_owned(),
            workers: 0,
            default_pool_size: 20,
            min_pool_size: 0,
            pooler_mode: PoolerMode::Transaction,
            max_client_conn: 10_000,
            admin_http: None,
            admin_users: Vec::new(),
            auth_query: AUTH_QUERY.to_owned(),
            load_balancing_strategy: Strategy::Ewma,
            read_write_split: ReadWriteSplit::ExcludePrimary,
            home_shard: 0,
            cross_shard_writes: CrossShardWrites::TwoPhase,
            consistency: Consistency::Session,
            max_replica_lag: Duration::from_secs(10),
            max_staleness: Duration::from_secs(10),
            causal_wait: Duration::from_millis(5),
            probe_interval: Duration::from_millis(100),
            connect_timeout: Duration::from_secs(5),
            client_login_timeout: Duration::from_secs(60),
            query_wait_timeout: Duration::from_secs(30),
            query_timeout: Duration::ZERO,
            idle_transaction_timeout: Duration::ZERO,
            server_lifetime: Duration::from_secs(3600),
            server_idle_timeout: Duration::from_secs(600),
            shutdown_timeout: Duration::from_secs(60),
            consistent_reads: false,
            commit_timeout: Duration::from_secs(10),
            decision_retention: Duration::from_secs(3600),
            tcp_keepalive: Duration::from_secs(60),
            merge_limit: 64 << 20,
            gather_limit: 64 << 20,
            prepared_statements_limit: 500,
            log_format: LogFormat::Text,
            log_level: LogLevel::Info,
            log_connections: false,
            log_disconnections: false,
            stats_period: Duration::from_secs(60),
            tls: None,
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            enabled: false,
            memory: 64 << 20,
            ttl: Duration::from_secs(60),
            max_result: 1 << 20,
            policy: EvictionPolicy::Lfu,
            invalidation: Invalidation::Writes,
            rules: Vec::new(),
        }
    }
}

impl<'de> Deserialize<'de> for KeyLiteral {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Integer(i64),
            Text(String),
            Datetime(toml::value::Datetime),
        }
        let expected = |_| de::Error::custom("expected a key value: an integer, a text, a date or a time");
        Ok(match Written::deserialize(deserializer).map_err(expected)? {
            Written::Integer(value) => Self::Integer(value),
            Written::Text(text) => Self::Text(text),
            Written::Datetime(datetime) => Self::Text(datetime.to_string()),
        })
    }
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            One(String),
            Many(Vec<String>),
        }
        let expected = |_| de::Error::custom("expected a name, a list of names or \"*\"");
        Ok(match Written::deserialize(deserializer).map_err(expected)? {
            Written::One(name) => Self::One(name),
            Written::Many(names) => Self::Many(names),
        })
    }
}

fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

fn yes() -> bool {
    true
}

fn postgresql_port() -> u16 {
    5432
}

fn usual_weight() -> u32 {
    100
}

fn every_database() -> OneOrMany {
    OneOrMany::One("*".to_owned())
}

/// Who may log in, and by what, as PostgreSQL decides it; no name depends on a `search_path`.
const AUTH_QUERY: &str = "SELECT rolname, rolpassword FROM pg_catalog.pg_authid WHERE rolname OPERATOR(pg_catalog.=) $1 \
    AND rolcanlogin AND (rolvaliduntil IS NULL OR rolvaliduntil OPERATOR(pg_catalog.>) pg_catalog.now())";
