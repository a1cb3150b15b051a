//! From a configuration to a topology, or everything that keeps it from being one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::caching::{CacheLimits, Caching};
use super::found::{MAINTENANCE, OTHERS};
use super::mapping::KeyRange;
use super::{
    ClientTls, Credential, Database, Key, KeyType, Mapping, Process, Server, ServerId, Setting, Shard, ShardId,
    ShardedBy, ShardedTables, TablePattern, Topology, UnixSocket, User,
};
use crate::config::{
    ClientTlsMode, Config, ConfigError, ConfiguredRole, DataType, DatabaseEntry, General, Invalidation, KeyLiteral,
    MappingEntry, Problem, ServerTls, ShardedTable, TlsNegotiation,
};

impl Topology {
    /// The only way in, so that a topology which exists is a correct one.
    pub fn new(config: &Config, epoch: u64) -> Result<Self, ConfigError> {
        let mut builder = Builder { config, problems: Vec::new() };
        let servers = builder.servers();
        let databases = builder.databases(&servers);
        let users = builder.users();
        let rules = builder.rules();
        let process = builder.process(&users);
        builder.check_cache();
        if builder.problems.is_empty() {
            Ok(Self { epoch, servers, databases, users, rules, process, found: BTreeMap::new() })
        } else {
            Err(ConfigError::new(Arc::clone(&config.source), builder.problems))
        }
    }
}

pub(super) struct Builder<'c> {
    pub(super) config: &'c Config,
    problems: Vec<Problem>,
}

impl Builder<'_> {
    pub(super) fn problem(&mut self, message: impl Into<String>, path: impl Into<String>, help: &str) {
        self.problems.push(Problem::new(message).at(path, "").help(help));
    }

    fn servers(&mut self) -> Vec<Arc<Server>> {
        let config = self.config;
        if config.databases.is_empty() {
            self.problem("no [[databases]]", "", "Name at least one server.");
        }
        let mut endpoints = HashSet::new();
        let mut servers = Vec::new();
        for (index, entry) in config.databases.iter().enumerate() {
            self.check_entry(index, entry);
            if !endpoints.insert((&entry.name, &entry.host, entry.port)) {
                let message =
                    format!("server {}:{} stands twice in database \"{}\"", entry.host, entry.port, entry.name);
                self.problem(message, format!("databases.{index}.host"), "Each server is named once.");
            }
            servers.push(Arc::new(Server {
                id: ServerId(u16::try_from(index).unwrap_or(u16::MAX)),
                database: entry.name.clone(),
                shard: ShardId(entry.shard),
                role: entry.role,
                host: entry.host.clone(),
                port: entry.port,
                database_name: name_on_server(entry).to_owned(),
                // Nobody listens in on a UNIX socket.
                tls: if entry.host.starts_with('/') { ServerTls::Disable } else { entry.tls },
                tls_ca: entry.tls_ca.clone(),
                tls_negotiation: entry.tls_negotiation,
                lb_weight: entry.lb_weight,
                pool_size: entry.pool_size,
                zone: None,
            }));
        }
        servers
    }

    fn check_entry(&mut self, index: usize, entry: &DatabaseEntry) {
        let at = |key: &str| format!("databases.{index}.{key}");
        if entry.name == ADMIN {
            self.problem("\"pgweir\" is the admin console's name", at("name"), "Choose another name.");
        }
        if entry.name.is_empty() || entry.host.is_empty() {
            self.problem("an empty name or host", at("name"), "Give both.");
        }
        if entry.name == OTHERS && entry.shard > 0 {
            let help = "Give a sharded database a name of its own.";
            self.problem("databases without an entry have no shards", at("shard"), help);
        }
        if entry.host.starts_with('/') && !matches!(entry.tls, ServerTls::Disable | ServerTls::Prefer) {
            self.problem("there is no TLS on a UNIX socket", at("tls"), "Leave it out: nobody listens in there.");
        }
        if entry.tls_negotiation == TlsNegotiation::Direct
            && matches!(entry.tls, ServerTls::Disable | ServerTls::Prefer)
        {
            let help = "Give tls = \"require\", \"verify-ca\" or \"verify-full\".";
            self.problem("there is no way back from direct TLS", at("tls_negotiation"), help);
        }
        if entry.port == 0 {
            self.problem("a server's port cannot be 0", at("port"), "PostgreSQL's is 5432.");
        }
        if entry.pool_size == Some(0) {
            self.problem(EMPTY_POOL, at("pool_size"), "Give 1 or more.");
        }
        if entry.shard >= MAX_SHARDS {
            self.problem("a database has at most 1024 shards", at("shard"), "Shards are numbered from 0.");
        }
    }

    fn databases(&mut self, servers: &[Arc<Server>]) -> HashMap<String, Arc<Database>> {
        let mut names: Vec<&str> = servers.iter().map(|server| server.database.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let databases = names.into_iter().map(|name| (name.to_owned(), Arc::new(self.database(name, servers))));
        let databases = databases.collect();
        self.check_names(&databases);
        databases
    }

    fn database(&mut self, name: &str, servers: &[Arc<Server>]) -> Database {
        let general = &self.config.general;
        let mut by_shard: BTreeMap<u16, Vec<&Arc<Server>>> = BTreeMap::new();
        for server in servers.iter().filter(|server| server.database == name) {
            by_shard.entry(server.shard.0).or_default().push(server);
        }
        for (wanted, (&shard, members)) in (0u16..).zip(&by_shard) {
            let at = format!("databases.{}.shard", members[0].id.0);
            if wanted != shard {
                let message = format!("database \"{name}\" has shard {shard}, but no shard {wanted}");
                self.problem(message, at, "Shards are numbered from 0 without gaps.");
                break;
            }
            self.check_roles(name, shard, members);
        }
        if by_shard.len() > 1 && usize::from(general.home_shard) >= by_shard.len() {
            let message = format!("home_shard {} is no shard of database \"{name}\"", general.home_shard);
            self.problem(message, "general.home_shard", "Name a shard that every sharded database has.");
        }
        self.check_agreement(name);
        let entries = self.config.databases.iter().filter(|entry| entry.name == name);
        let pooler_mode = entries.clone().find_map(|entry| entry.pooler_mode).unwrap_or(general.pooler_mode);
        let consistency = entries.clone().find_map(|entry| entry.consistency).unwrap_or(general.consistency);
        let shards: Vec<Shard> = by_shard
            .iter()
            .map(|(&shard, members)| Shard {
                id: ShardId(shard),
                servers: members.iter().map(|server| server.id).collect(),
            })
            .collect();
        Database {
            name: name.to_owned(),
            home: ShardId(if shards.len() > 1 { general.home_shard } else { 0 }),
            sharded: self.sharded(name, shards.len()),
            reference: self.reference(name),
            shards,
            pooler_mode,
            read_write_split: general.read_write_split,
            strategy: general.load_balancing_strategy,
            consistency,
            max_replica_lag: general.max_replica_lag,
            max_staleness: general.max_staleness,
            causal_wait: general.causal_wait,
            cross_shard_writes: general.cross_shard_writes,
            caching: Caching::new(&self.config.cache),
        }
    }

    /// What holds for the whole database may stand in any of its entries, but not twice in different words.
    fn check_agreement(&mut self, name: &str) {
        let config = self.config;
        let entries = || config.databases.iter().enumerate().filter(|(_, entry)| entry.name == name);
        let modes: Vec<_> = entries().filter_map(|(index, entry)| Some((index, entry.pooler_mode?))).collect();
        let levels: Vec<_> = entries().filter_map(|(index, entry)| Some((index, entry.consistency?))).collect();
        let differs = [
            ("pooler_mode", modes.iter().find(|(_, mode)| *mode != modes[0].1).map(|(index, _)| *index)),
            ("consistency", levels.iter().find(|(_, level)| *level != levels[0].1).map(|(index, _)| *index)),
        ];
        for (key, index) in differs.into_iter().filter_map(|(key, index)| Some((key, index?))) {
            let message = format!("database \"{name}\" has another {key} in an entry above");
            self.problem(message, format!("databases.{index}.{key}"), "One entry is enough: it holds for all of them.");
        }
    }

    fn check_roles(&mut self, name: &str, shard: u16, members: &[&Arc<Server>]) {
        let of = |role: ConfiguredRole| members.iter().filter(|server| server.role == role).collect::<Vec<_>>();
        let (primaries, auto) = (of(ConfiguredRole::Primary), of(ConfiguredRole::Auto));
        let place = |server: &Server| format!("databases.{}.role", server.id.0);
        if let [_, second, ..] = primaries.as_slice() {
            let message = format!("shard {shard} of database \"{name}\" has several primaries");
            self.problem(
                message,
                place(second),
                "One server has role \"primary\", the others \"replica\" or \"auto\".",
            );
        }
        if primaries.is_empty() && auto.is_empty() {
            let message = format!("shard {shard} of database \"{name}\" has no primary");
            self.problem(message, place(members[0]), "One server has role \"primary\" or \"auto\".");
        }
    }

    fn sharded(&mut self, database: &str, shards: usize) -> Vec<ShardedTables> {
        let config = self.config;
        let mut tables: Vec<ShardedTables> = Vec::new();
        for (index, entry) in config.sharded_tables.iter().enumerate().filter(|(_, entry)| entry.database == database) {
            let key_type = key_type(entry.data_type);
            let Some(mapping) = self.mapping(index, entry, key_type, shards) else { continue };
            let alike = tables.iter().find(|known| known.key_type == key_type && known.mapping == mapping);
            let colocation = alike.map_or(tables.len(), |known| known.colocation);
            let column = entry.column.clone();
            let by = match &entry.name {
                None => ShardedBy::Column(column),
                Some(name) => ShardedBy::Table { table: pattern(name), column },
            };
            let is_same_table = |known: &ShardedTables| match (&known.tables, &by) {
                (ShardedBy::Table { table, .. }, ShardedBy::Table { table: other, .. }) => table == other,
                _ => false,
            };
            if let Some(name) = entry.name.as_ref().filter(|_| tables.iter().any(is_same_table)) {
                let message = format!("table \"{name}\" is sharded twice");
                self.problem(message, format!("sharded_tables.{index}.name"), "Put all ranges into one entry.");
            } else if tables.iter().any(|known| known.tables == by) {
                let message = "the same tables are sharded twice";
                self.problem(message, format!("sharded_tables.{index}.column"), "Put all ranges into one entry.");
            }
            if entry.name.is_none() && !entry.unique.is_empty() {
                let help = "Give the table an entry of its own, with name and column.";
                self.problem("unique columns are those of one table", format!("sharded_tables.{index}.unique"), help);
            }
            let unique = entry.unique.clone();
            tables.push(ShardedTables { tables: by, key_type, mapping, unique, colocation });
        }
        tables
    }

    fn mapping(&mut self, index: usize, entry: &ShardedTable, key_type: KeyType, shards: usize) -> Option<Mapping> {
        let before = self.problems.len();
        if entry.mapping.is_empty() {
            let help = "Give [[sharded_tables.mapping]] with start, end and shard.";
            self.problem("no range is mapped to a shard", format!("sharded_tables.{index}.column"), help);
        }
        let mut mapping = Mapping { ranges: Vec::new(), lists: Vec::new(), hash: None, default: None };
        let mut remainders: BTreeMap<u32, ShardId> = BTreeMap::new();
        let mut modulus = None;
        // Where in the file each range stands, for what is found when they are sorted.
        let (mut places, mut lists) = (Vec::new(), Vec::new());
        for (number, part) in entry.mapping.iter().enumerate() {
            let at = format!("sharded_tables.{index}.mapping.{number}");
            if usize::from(part.shard) >= shards {
                let message = format!("database \"{}\" has no shard {}", entry.database, part.shard);
                self.problem(message, format!("{at}.shard"), "Its shards are those of its [[databases]] entries.");
            }
            let shard = ShardId(part.shard);
            match Kind::of(part) {
                Some(Kind::Range) => {
                    let start = part.start.as_ref().and_then(|key| self.key(key, key_type, &format!("{at}.start")));
                    let end = part.end.as_ref().and_then(|key| self.key(key, key_type, &format!("{at}.end")));
                    if let (Some(first), Some(last)) = (&start, &end)
                        && first >= last
                    {
                        self.problem(
                            "an empty range",
                            format!("{at}.end"),
                            "Ranges are [start, end): end is above start.",
                        );
                    }
                    places.push((mapping.ranges.len(), at));
                    mapping.ranges.push(KeyRange { start, end, shard });
                }
                Some(Kind::List) => {
                    let at = format!("{at}.values");
                    let values = part.values.iter().flatten();
                    let keys: Vec<Key> = values.filter_map(|value| self.key(value, key_type, &at)).collect();
                    lists.extend(keys.iter().map(|_| at.clone()));
                    mapping.lists.extend(keys.into_iter().map(|key| (key, shard)));
                }
                Some(Kind::Hash) => {
                    let (base, remainder) = (part.modulus.unwrap_or(0), part.remainder.unwrap_or(0));
                    if remainder >= base || modulus.is_some_and(|known| known != base) {
                        self.problem("remainders are below one modulus", at.clone(), "All entries share the modulus.");
                    }
                    modulus = Some(base);
                    if remainders.insert(remainder, shard).is_some() {
                        self.problem("a remainder stands twice", format!("{at}.remainder"), "Each is mapped once.");
                    }
                }
                Some(Kind::Default) if mapping.default.is_some() => {
                    self.problem("a second default shard", at, "One mapping without start, end and values.");
                }
                Some(Kind::Default) => mapping.default = Some(shard),
                None => self.problem(
                    "a mapping is a range, a list or a remainder",
                    at,
                    "Give start and end, or values, or modulus and remainder.",
                ),
            }
        }
        if let Some(base) = modulus {
            self.check_remainders(index, base, remainders.len(), key_type);
            mapping.hash = Some((base, remainders.into_values().collect()));
        }
        self.check_lists(&mapping, &lists);
        self.check_ranges(entry, &mut mapping, &places);
        (self.problems.len() == before).then_some(mapping)
    }

    fn check_remainders(&mut self, index: usize, modulus: u32, mapped: usize, key_type: KeyType) {
        if mapped != modulus as usize {
            let at = format!("sharded_tables.{index}.mapping");
            self.problem("not every remainder is mapped", at, "Map each remainder from 0 to modulus - 1.");
        }
        if !matches!(key_type, KeyType::Bigint | KeyType::Integer) {
            let at = format!("sharded_tables.{index}.data_type");
            self.problem("remainders are of whole numbers", at, "Use data_type \"bigint\" or \"integer\".");
        }
    }

    fn check_lists(&mut self, mapping: &Mapping, places: &[String]) {
        for (place, (key, _)) in mapping.lists.iter().enumerate() {
            if mapping.ranges.iter().any(|range| range.contains(key)) {
                let message = format!("key {key} is in a list and in a range");
                self.problem(message, places[place].clone(), "A key is mapped once.");
            }
            if mapping.lists[..place].iter().any(|(known, _)| known == key) {
                self.problem(format!("key {key} is in two lists"), places[place].clone(), "A key is mapped once.");
            }
        }
    }

    /// Sorts the ranges; they must neither overlap nor leave holes that nobody allowed.
    fn check_ranges(&mut self, entry: &ShardedTable, mapping: &mut Mapping, places: &[(usize, String)]) {
        let mut order: Vec<usize> = (0..mapping.ranges.len()).collect();
        order.sort_by(|&one, &other| mapping.ranges[one].start.cmp(&mapping.ranges[other].start));
        for pair in order.windows(2) {
            let (first, second) = (&mapping.ranges[pair[0]], &mapping.ranges[pair[1]]);
            let at = &places[pair[1]].1;
            let overlaps = match (&first.end, &second.start) {
                (Some(end), Some(start)) => start < end,
                _ => true,
            };
            if overlaps {
                let help = "Ranges are half-open [start, end): one may begin where another ends.";
                self.problem("this range overlaps another one", format!("{at}.start"), help);
            } else if first.end != second.start && !entry.allow_gaps {
                let help = "Close the hole, or say allow_gaps = true: keys in it are refused.";
                self.problem("there is a hole before this range", format!("{at}.start"), help);
            }
        }
        let ranges = order.into_iter().map(|place| mapping.ranges[place].clone()).collect();
        mapping.ranges = ranges;
    }

    fn key(&mut self, literal: &KeyLiteral, key_type: KeyType, at: &str) -> Option<Key> {
        let text = match literal {
            KeyLiteral::Integer(number) => number.to_string(),
            KeyLiteral::Text(text) => text.clone(),
        };
        let key = Key::from_text(key_type, &text);
        if key.is_none() {
            self.problem(format!("\"{text}\" is no {key_type:?}").to_lowercase(), at, "Keys are of data_type.");
        }
        key
    }

    fn reference(&mut self, database: &str) -> Vec<TablePattern> {
        let config = self.config;
        let mut tables = Vec::new();
        for (index, entry) in config.reference_tables.iter().enumerate().filter(|(_, entry)| entry.database == database)
        {
            for name in &entry.tables {
                let table = pattern(name);
                let sharded = config.sharded_tables.iter().filter(|sharded| sharded.database == database);
                if sharded.filter_map(|sharded| sharded.name.as_ref()).any(|other| pattern(other) == table) {
                    let message = format!("table \"{name}\" is both sharded and a reference table");
                    self.problem(message, format!("reference_tables.{index}.tables"), "It is one or the other.");
                }
                tables.push(table);
            }
        }
        tables
    }

    /// Sections that name a database must name one that is there.
    fn check_names(&mut self, databases: &HashMap<String, Arc<Database>>) {
        let config = self.config;
        let sharded = config.sharded_tables.iter().map(|entry| &entry.database).enumerate();
        let sharded = sharded.map(|(index, name)| (format!("sharded_tables.{index}.database"), name));
        let reference = config.reference_tables.iter().map(|entry| &entry.database).enumerate();
        let reference = reference.map(|(index, name)| (format!("reference_tables.{index}.database"), name));
        let is_named = |name: &str| name != OTHERS && databases.contains_key(name);
        let unknown: Vec<_> = sharded.chain(reference).filter(|(_, name)| !is_named(name)).collect();
        for (at, name) in unknown {
            self.problem(format!("no database \"{name}\""), at, "Name one of the [[databases]].");
        }
    }

    fn process(&mut self, users: &[Arc<User>]) -> Process {
        let general = &self.config.general;
        let control = self.config.control.as_ref();
        if control.is_none()
            && users.first().is_some_and(|user| {
                matches!(user.password, Credential::ScramVerifier(_)) && user.server_password.is_none()
            })
        {
            let help = "Give [control] user and password, or server_password.";
            self.problem("probes have no password to log in with", "users.0.name", help);
        }
        self.check_general();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Process {
            host: general.host.clone(),
            port: general.port,
            unix_socket: self.unix_socket(),
            workers: if general.workers == 0 { cores } else { general.workers },
            max_client_conn: general.max_client_conn,
            default_pool_size: general.default_pool_size,
            admin_http: general.admin_http.clone(),
            tls: self.tls(),
            auth_query: general.auth_query.clone(),
            admin_users: general.admin_users.clone(),
            control: control.map(|control| (control.user.clone(), control.password.value().clone())),
            query_wait_timeout: general.query_wait_timeout,
            connect_timeout: general.connect_timeout,
            client_login_timeout: general.client_login_timeout,
            query_timeout: general.query_timeout,
            idle_transaction_timeout: general.idle_transaction_timeout,
            server_lifetime: general.server_lifetime,
            server_idle_timeout: general.server_idle_timeout,
            shutdown_timeout: general.shutdown_timeout,
            consistent_reads: general.consistent_reads,
            commit_timeout: general.commit_timeout,
            tcp_keepalive: general.tcp_keepalive,
            probe_interval: general.probe_interval,
            decision_retention: general.decision_retention,
            merge_limit: general.merge_limit,
            gather_limit: general.gather_limit.min(LONGEST_GATHER),
            prepared_statements_limit: general.prepared_statements_limit.max(1),
            log_format: general.log_format,
            cache: CacheLimits::new(&self.config.cache),
            peers: self.peers(),
            log_level: general.log_level,
            log_connections: general.log_connections,
            log_disconnections: general.log_disconnections,
            stats_period: general.stats_period,
            settings: settings(general),
        }
    }

    fn unix_socket(&mut self) -> Option<UnixSocket> {
        let general = &self.config.general;
        let mode = u32::from_str_radix(&general.unix_socket_mode, 8).ok().filter(|mode| *mode <= 0o777);
        if mode.is_none() {
            let message = format!("\"{}\" are no permissions", general.unix_socket_mode);
            self.problem(message, "general.unix_socket_mode", "Give them as chmod takes them: \"0770\".");
        }
        Some(UnixSocket { folder: general.unix_socket_dir.clone()?, mode: mode? })
    }

    fn peers(&mut self) -> Vec<String> {
        let peers = &self.config.cluster.peers;
        for (index, peer) in peers.iter().enumerate() {
            let port = peer.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(1..))) {
                let place = format!("cluster.peers.{index}");
                self.problem(format!("\"{peer}\" is no host and port"), place, "Write \"10.0.0.2:6432\".");
            }
        }
        if peers.len() > MOST_PEERS {
            let message = format!("{} peers, of at most {MOST_PEERS}", peers.len());
            self.problem(message, "cluster.peers", "A cancel request may go to each of them.");
        }
        if !peers.is_empty() && self.config.cache.enabled && self.config.cache.invalidation == Invalidation::Writes {
            let help = "Say enabled = false in [cache]: what is written by way of a peer would not be seen.";
            self.problem("invalidation = \"writes\" sees this instance's writes only", "cluster.peers", help);
        }
        peers.clone()
    }

    fn check_general(&mut self) {
        let general = &self.config.general;
        let (size, least) = (general.default_pool_size, general.min_pool_size);
        let (clients, interval) = (general.max_client_conn, general.probe_interval);
        if size == 0 {
            self.problem(EMPTY_POOL, "general.default_pool_size", "Give 1 or more.");
        }
        if least > size {
            let message = format!("min_pool_size {least} is more than the pool's {size}");
            self.problem(message, "general.min_pool_size", "Raise default_pool_size, too.");
        }
        if clients == 0 {
            self.problem("nobody could connect", "general.max_client_conn", "Give 1 or more.");
        }
        if interval.is_zero() {
            self.problem("probes need a pause", "general.probe_interval", "The default is \"100ms\".");
        }
    }

    fn tls(&mut self) -> Option<ClientTls> {
        let tls = self.config.general.tls.as_ref().filter(|tls| tls.mode != ClientTlsMode::Disable)?;
        let (Some(certificate), Some(private_key)) = (tls.certificate.clone(), tls.private_key.clone()) else {
            self.problem("TLS needs certificate and private_key", "general.tls", "Give both PEM files.");
            return None;
        };
        if tls.mode == ClientTlsMode::VerifyFull && tls.client_ca.is_none() {
            self.problem("verify-full needs client_ca", "general.tls.mode", "Give the PEM file of who signs clients.");
        }
        Some(ClientTls {
            required: matches!(tls.mode, ClientTlsMode::Require | ClientTlsMode::VerifyFull),
            certificate,
            private_key,
            client_ca: tls.client_ca.clone(),
            client_certificate_required: tls.mode == ClientTlsMode::VerifyFull,
        })
    }
}

/// A parameter has less than 1 GiB, and so has the message that carries it.
const LONGEST_GATHER: usize = 512 << 20;

fn settings(general: &General) -> Vec<Setting> {
    let setting = |((name, value), (_, default)): ((String, String), (String, String))| {
        let changeable = !FIXED.contains(&name.as_str());
        Setting { name, value, default, changeable }
    };
    general.entries().into_iter().zip(General::default().entries()).map(setting).collect()
}

enum Kind {
    Range,
    List,
    Hash,
    Default,
}

impl Kind {
    fn of(part: &MappingEntry) -> Option<Self> {
        let range = part.start.is_some() || part.end.is_some();
        let hash = part.modulus.is_some() || part.remainder.is_some();
        match (range, part.values.is_some(), hash) {
            (true, false, false) => Some(Self::Range),
            (false, true, false) => Some(Self::List),
            (false, false, true) if part.modulus.is_some() && part.remainder.is_some() => Some(Self::Hash),
            (false, false, false) => Some(Self::Default),
            _ => None,
        }
    }
}

fn key_type(data_type: DataType) -> KeyType {
    match data_type {
        DataType::Bigint => KeyType::Bigint,
        DataType::Integer => KeyType::Integer,
        DataType::Uuid => KeyType::Uuid,
        DataType::Text => KeyType::Text,
        DataType::Date => KeyType::Date,
        DataType::Timestamptz => KeyType::Timestamptz,
    }
}

pub(super) fn pattern(name: &str) -> TablePattern {
    match name.split_once('.') {
        Some((schema, name)) => TablePattern { schema: Some(schema.to_owned()), name: name.to_owned() },
        None => TablePattern { schema: None, name: name.to_owned() },
    }
}

/// What the server calls the database of an entry.
fn name_on_server(entry: &DatabaseEntry) -> &str {
    let usual = if entry.name == OTHERS { MAINTENANCE } else { &entry.name };
    entry.database_name.as_deref().unwrap_or(usual)
}

/// The database that clients connect to for the admin console.
pub const ADMIN: &str = "pgweir";
pub(super) const EMPTY_POOL: &str = "a pool needs at least one connection";
const MOST_PEERS: usize = 16;
const MAX_SHARDS: u16 = 1024;
/// Keys of `[general]` that are read once, at the start.
const FIXED: [&str; 8] =
    ["host", "port", "unix_socket_dir", "unix_socket_mode", "workers", "admin_http", "log_format", "log_level"];
