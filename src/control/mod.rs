//! The control plane, beside the path of statements: probes, catalog loader, recovery, migrations.
//!
//! Knows servers by connections of its own; nothing of clients. Hands its results on as snapshots.

mod catalog;
pub mod connect;
mod effects;
mod listen;
pub mod live;
pub mod migrate;
mod numbers;
mod outcomes;
mod primaries;
mod probe;
mod progress;
mod recovery;
mod schema;
mod sequences;
mod spaces;
mod uniques;
mod waits;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use catalog::{Attendance, CatalogCell, Defaults};
pub use listen::{Inbox, Listener, Voice};
pub use progress::{InProgress, Phase, Ticket, Write, participants};
pub use recovery::{Fate, Found, recover_all};
pub use waits::{Blocker, Leg, Wait, Waits};

use crate::backend::login_of;
use crate::balance::Fleet;
use crate::cache::{Space, Spaces};
use crate::error::{Error, SqlState};
use crate::topology::{Credential, Database, OTHERS, Server, ShardId, Topology};
use connect::{Login, Pools};
use primaries::Primaries;
use schema::Schema;
use spaces::{Learning, SpacesCell};

/// What the control plane knows, and its tasks.
pub struct Control {
    cluster: ArcSwap<Cluster>,
    databases: ArcSwap<HashMap<String, Known>>,
    progress: Arc<InProgress>,
    spaces: Arc<Spaces>,
    /// Changes whenever a snapshot does.
    epoch: Arc<AtomicU64>,
    tasks: Mutex<Tasks>,
}

/// They end when they are dropped.
#[derive(Default)]
struct Tasks {
    /// Of all databases.
    common: JoinSet<()>,
    of_database: HashMap<String, JoinSet<()>>,
    /// Those that stay when the topology changes.
    listening: HashMap<String, JoinSet<()>>,
    pools: Arc<Pools>,
    /// See [`Known::askers`].
    askers: Arc<Pools>,
}

impl Tasks {
    fn let_go(&mut self, database: &str) {
        self.of_database.remove(database);
        [&self.pools, &self.askers].into_iter().for_each(|pools| pools.forget(database));
    }
}

/// A topology and the states of its servers, which are numbered by it.
#[derive(Clone)]
pub struct Cluster {
    pub topology: Arc<Topology>,
    pub fleet: Arc<Fleet>,
}

/// What is known of a database.
#[derive(Clone, Default)]
struct Known {
    catalog: Arc<CatalogCell>,
    /// Asked for where writes may reach several shards.
    schema: Schema,
    /// Made anew with each topology.
    spaces: Arc<SpacesCell>,
    listener: Arc<Listener>,
    /// Asked who may log in: on connections of its own, so that a flood of log-ins holds up nothing else.
    askers: Option<Primaries>,
}

impl Control {
    /// Starts its tasks on the runtime that this is called on.
    pub fn start(topology: Topology) -> Arc<Self> {
        let fleet = Arc::new(Fleet::new(&topology, None));
        let control = Arc::new(Self {
            cluster: ArcSwap::from_pointee(Cluster { topology: Arc::new(topology), fleet }),
            databases: ArcSwap::default(),
            progress: Arc::default(),
            spaces: Arc::new(Spaces::new(Instant::now())),
            epoch: Arc::new(AtomicU64::new(1)),
            tasks: Mutex::default(),
        });
        control.start_tasks(&mut control.tasks());
        control
    }

    /// Takes another topology, under the next epoch: what is known of servers that stay, stays.
    pub fn apply(&self, mut topology: Topology) {
        let mut tasks = self.tasks();
        let before = self.topology();
        topology.epoch = before.epoch + 1;
        topology.find_again(&before, |_| true);
        self.take(topology);
        self.progress.forget_found();
        self.start_tasks(&mut tasks);
    }

    fn take(&self, topology: Topology) {
        let fleet = Arc::new(Fleet::new(&topology, Some(&self.cluster.load().fleet)));
        self.cluster.store(Arc::new(Cluster { topology: Arc::new(topology), fleet }));
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether there is a database of this name, which may have no entry of its own: then it is looked for where one says
    /// that there may be others.
    pub async fn find(&self, name: &str) -> Result<bool, Error> {
        let topology = self.topology();
        if name == OTHERS {
            return Ok(false);
        }
        if topology.database(name).is_some() || topology.others().is_none() {
            return Ok(topology.database(name).is_some());
        }
        let failed = |why: String| {
            tracing::warn!(database = name, why, "looking for a database");
            Error::new(SqlState::UNAVAILABLE, format!("whether there is a database \"{name}\" cannot be asked"))
        };
        let (askers, login) = self.askers(OTHERS).ok_or_else(|| failed("no server to ask".to_owned()))?;
        let rows =
            asked(&askers, &login, (IS_THERE, &[name]), topology.process.connect_timeout).await.map_err(failed)?;
        if rows.is_empty() {
            return Ok(false);
        }
        let mut tasks = self.tasks();
        let topology = self.topology();
        if topology.database(name).is_some() {
            return Ok(true);
        }
        if topology.databases.len() >= MOST_DATABASES {
            return Err(Error::new(SqlState::SATURATED, format!("more than {MOST_DATABASES} databases are in use")));
        }
        let now = Instant::now();
        self.take(topology.with(name, now));
        if let Some(shard) = self.fleet().shard(name, ShardId(0)) {
            // Who reads there is to find a replica that has it.
            shard.wrote(now);
        }
        self.watch_over(name, &mut tasks);
        Ok(true)
    }

    /// Forgets a database that was found. Whoever logs in has it found again.
    pub fn release(&self, name: &str) {
        let mut tasks = self.tasks();
        let topology = self.topology();
        if topology.is_found(name) {
            tasks.let_go(name);
            tasks.listening.remove(name);
            self.take(topology.without(name));
            let mut databases = HashMap::clone(&self.databases.load());
            databases.remove(name);
            self.databases.store(Arc::new(databases));
        }
    }

    /// Returns when no connection of the control plane leads to a database that was found any more, or after a while. None
    /// will, until it is [taken up](Control::take_up) again.
    pub async fn let_go(&self, name: &str) {
        self.tasks().let_go(name);
        let Some((askers, login)) = self.askers(OTHERS) else { return };
        let limit = self.topology().process.connect_timeout;
        let question = (IS_WATCHED, &[name][..]);
        let left = async { while asked(&askers, &login, question, limit).await.is_ok_and(|rows| !rows.is_empty()) {} };
        let _ = tokio::time::timeout(limit, left).await;
    }

    pub fn take_up(&self, name: &str) {
        let mut tasks = self.tasks();
        if !tasks.of_database.contains_key(name) {
            self.watch_over(name, &mut tasks);
        }
    }

    /// Starts the tasks of one database, if it is there.
    fn watch_over(&self, name: &str, tasks: &mut Tasks) {
        if let Some(database) = self.topology().database(name) {
            let mut databases = HashMap::clone(&self.databases.load());
            self.start_database(database, &mut databases, tasks);
            self.databases.store(Arc::new(databases));
        }
    }

    pub fn cluster(&self) -> Cluster {
        Cluster::clone(&self.cluster.load())
    }

    pub fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.cluster.load().topology)
    }

    pub fn fleet(&self) -> Arc<Fleet> {
        Arc::clone(&self.cluster.load().fleet)
    }

    /// Changes whenever topology or a catalog does.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub fn catalog(&self, database: &str) -> Option<Arc<CatalogCell>> {
        self.databases.load().get(database).map(|known| Arc::clone(&known.catalog))
    }

    /// DDL has run, or something that may be. Who shards needs to know what there is now; elsewhere nothing is known until
    /// the next look, and what is not known goes to the primary. Others need not suffer from what may be nothing.
    pub async fn catalog_changed(&self, database: &Database, is_sure: bool) {
        let Some(cell) = self.catalog(&database.name) else { return };
        if database.is_sharded() || !is_sure {
            cell.refreshed().await;
        } else {
            cell.doubt();
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub fn listener(&self, database: &str) -> Option<Arc<Listener>> {
        self.databases.load().get(database).map(|known| Arc::clone(&known.listener))
    }

    /// The state of all tables that answers may be cached of. Writes are announced to it.
    pub fn spaces(&self) -> &Arc<Spaces> {
        &self.spaces
    }

    /// The space of each shard of a database, in order. Nothing while one is not known, or nothing is cached.
    pub fn spaces_of(&self, database: &str) -> Option<Arc<Vec<Arc<Space>>>> {
        self.databases.load().get(database)?.spaces.current()
    }

    /// Names one write over several shards, home first; waits until what decides it is there.
    pub async fn begin_write(&self, database: &str, shards: &[ShardId], owner: i32) -> Result<Ticket, Error> {
        let home = *shards.first().expect("a write over several shards has parts");
        let unknown = || Error::new(SqlState::UNKNOWN_DATABASE, format!("database \"{database}\" is not configured"));
        let schema = self.databases.load().get(database).ok_or_else(unknown)?.schema.clone();
        let identities = schema.made().await?;
        let identity = identities.get(usize::from(home.0)).ok_or_else(unknown)?;
        let marks = self.topology().process.consistent_reads.then(|| shards.to_vec());
        if marks.iter().flatten().any(|shard| shard.0 >= progress::MOST_SHARDS) {
            let hint = "Leave out consistent_reads.";
            return Err(Error::unsupported("consistent_reads with so many shards, for a write on several,", hint));
        }
        Ok(self.progress.begin((database, owner), (home, identity), marks))
    }

    /// While it is held, no write over several shards of this process becomes visible.
    pub async fn hold_writes(&self) -> impl Drop {
        self.progress.hold().await
    }

    /// Those that are being carried out, by name.
    pub fn writes(&self) -> Vec<(String, Arc<Write>)> {
        self.progress.all()
    }

    /// What was prepared on servers lately, by database.
    pub fn prepared(&self) -> Vec<(String, Found)> {
        self.progress.found()
    }

    /// What this process is told from others by.
    pub fn instance(&self) -> String {
        format!("{:016x}", self.progress.process())
    }

    /// Who waits for whom on the primaries of a database; other instances hear which connections are one client's.
    pub async fn waits(&self, database: &str, legs: &[Leg]) -> Option<Waits> {
        let askers = self.databases.load().get(database).and_then(|known| known.askers.clone())?;
        Some(waits::ask(&askers, &self.instance(), legs).await)
    }

    /// Returns when a shard has ended what is prepared there under this name.
    pub async fn ended(&self, database: &str, shard: ShardId, gid: &str) {
        let askers = self.databases.load().get(database).and_then(|known| known.askers.clone());
        if let Some(primaries) = askers {
            recovery::ended(usize::from(shard.0), gid, &primaries).await;
        }
    }

    /// Whether the servers could take part in a write over several shards, as far as it is known.
    pub fn check_write(&self, database: &str) -> Result<(), Error> {
        self.databases.load().get(database).map_or(Ok(()), |known| known.schema.check())
    }

    /// What the home shard's primary keeps of a user's password; nothing, if it lets no such user in. The client has no
    /// part in the session that is asked.
    pub async fn password_kept(&self, database: &str, name: &str) -> Result<Option<String>, Error> {
        let topology = self.topology();
        let process = &topology.process;
        let failed = |why: String| {
            let message = format!("who may log in to database \"{database}\" cannot be asked of its server");
            tracing::warn!(database, why, "auth_query failed");
            Error::new(SqlState::UNAVAILABLE, message)
        };
        let (askers, login) = self.askers(database).ok_or_else(|| failed("no server to ask".to_owned()))?;
        let question = (process.auth_query.as_str(), &[name][..]);
        let rows = asked(&askers, &login, question, process.connect_timeout).await.map_err(failed)?;
        // Of anything but one row for just this name nobody is let in.
        Ok(match rows.as_slice() {
            [row] => match row.as_slice() {
                [Some(found), Some(kept)] if found == name => Some(kept.clone()),
                _ => None,
            },
            _ => None,
        })
    }

    /// The home shard's primary, as far as it is known.
    pub fn home(&self, database: &str) -> Option<Arc<Server>> {
        self.databases.load().get(database)?.askers.as_ref()?.home_server()
    }

    /// To ask the home shard's primary of a database something on behalf of clients.
    fn askers(&self, database: &str) -> Option<(Primaries, Login)> {
        let askers = self.databases.load().get(database)?.askers.clone()?;
        let login = askers.home()?;
        Some((askers, login))
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of the topology before end.
    fn start_tasks(&self, tasks: &mut Tasks) {
        let Cluster { topology, fleet } = self.cluster();
        let mut listening = std::mem::take(&mut tasks.listening);
        listening.retain(|name, _| topology.database(name).is_some());
        *tasks = Tasks { listening, ..Tasks::default() };
        for state in fleet.states() {
            let server = &state.server;
            let (Some(shard), Some(login)) = (fleet.shard(&server.database, server.shard), login(server, &topology))
            else {
                tracing::error!(database = server.database, "no password to probe with; give [control]");
                continue;
            };
            let interval = topology.process.probe_interval;
            tasks.common.spawn(probe::watch(Arc::clone(state), Arc::clone(shard), login, interval));
        }
        let mut databases = HashMap::clone(&self.databases.load());
        databases.retain(|name, _| topology.database(name).is_some());
        for database in topology.databases.values() {
            self.start_database(database, &mut databases, tasks);
        }
        if topology.process.cache.is_some() {
            let pools = Arc::clone(&tasks.pools);
            tasks.common.spawn(outcomes::watch(Arc::clone(&self.spaces), topology, fleet, pools));
        }
        self.databases.store(Arc::new(databases));
    }

    fn start_database(&self, database: &Arc<Database>, databases: &mut HashMap<String, Known>, tasks: &mut Tasks) {
        let Cluster { topology, fleet } = self.cluster();
        let mut started = JoinSet::new();
        let known = databases.get(&database.name).cloned().unwrap_or_default();
        let primaries = Primaries::new(database, &topology, &fleet, &tasks.pools);
        let askers = Some(Primaries::new(database, &topology, &fleet, &tasks.askers));
        let known = Known { spaces: Arc::default(), askers, ..known };
        if topology.process.cache.is_some() {
            started.spawn(spaces::watch(self.learning(database, &known, &tasks.pools)));
        }
        databases.insert(database.name.clone(), known.clone());
        known.listener.follow(primaries.clone());
        tasks.listening.entry(database.name.clone()).or_insert_with(|| {
            let mut listening = JoinSet::new();
            listening.spawn(listen::watch(Arc::clone(&known.listener)));
            listening
        });
        let epochs = Arc::clone(&self.epoch);
        started.spawn(catalog::watch(known.catalog, Arc::clone(database), primaries.clone(), epochs));
        if database.is_sharded() {
            let (progress, retention) = (Arc::clone(&self.progress), topology.process.decision_retention);
            started.spawn(recovery::watch(primaries.clone(), progress, retention));
            started.spawn(async move { known.schema.ensure(&primaries).await });
        }
        tasks.of_database.insert(database.name.clone(), started);
    }

    fn learning(&self, database: &Arc<Database>, known: &Known, pools: &Arc<Pools>) -> Learning {
        Learning {
            database: Arc::clone(database),
            topology: self.topology(),
            fleet: self.fleet(),
            pools: Arc::clone(pools),
            spaces: Arc::clone(&self.spaces),
            cell: Arc::clone(&known.spaces),
            epoch: Arc::clone(&self.epoch),
        }
    }
}

/// The rows of a statement with text parameters, asked on a connection that others share.
async fn asked(
    askers: &Primaries,
    login: &Login,
    (query, parameters): (&str, &[&str]),
    limit: Duration,
) -> Result<Vec<Vec<Option<String>>>, String> {
    let asking = async {
        match askers.lend(login).await?.texts(query, parameters).await {
            // The connection had died since it was used last, and so may others have that wait beside it.
            Err(cause) if cause.sqlstate().is_none_or(|code| code.starts_with("57P")) => {
                connect::connect(login).await?.texts(query, parameters).await
            }
            answer => answer,
        }
    };
    let answer = tokio::time::timeout(limit, asking).await.map_err(|_| "no answer in time".to_owned())?;
    answer.map_err(|cause| cause.to_string())
}

/// `[control]`, else the database's first user.
pub fn login(server: &Server, topology: &Topology) -> Option<Login> {
    if let Some((user, password)) = &topology.process.control {
        return Some(login_on(server, user.clone(), password.0.clone()));
    }
    let user = topology.users.iter().find(|user| user.may_use(&server.database))?;
    let known = login_of(user);
    let password = match (known.passwords.into_iter().next(), &user.password) {
        (Some(password), _) => password.0,
        (None, Credential::Nothing) => String::new(),
        (None, _) => return None,
    };
    Some(login_on(server, known.user, password))
}

/// The configured user whose name on the server this is.
fn login_as(server: &Server, topology: &Topology, name: &str) -> Option<Login> {
    let mut users = topology.users.iter().filter(|user| user.may_use(&server.database)).map(|user| login_of(user));
    let known = users.find(|known| known.user == name)?;
    let password = known.passwords.into_iter().next();
    Some(login_on(server, known.user, password.map(|password| password.0).unwrap_or_default()))
}

fn login_on(server: &Server, user: String, password: String) -> Login {
    Login {
        host: server.host.clone(),
        port: server.port,
        database: server.database_name.clone(),
        user,
        password,
        tls: server.tls,
        tls_ca: server.tls_ca.clone(),
        tls_negotiation: server.tls_negotiation,
    }
}

const IS_THERE: &str = "SELECT datname::text FROM pg_database WHERE datname = $1";
const IS_WATCHED: &str = "SELECT pid::text FROM pg_stat_activity \
     WHERE datname = $1 AND application_name = 'pgweir' AND usename = current_user";
/// Each has tasks of its own.
const MOST_DATABASES: usize = 1000;
