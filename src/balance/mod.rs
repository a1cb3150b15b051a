//! Chooses the server of a shard that serves a statement: health, lag, load, weight.
//!
//! No I/O: `control` writes what it measured, the executor asks. Times are given, not read.

mod choose;
mod ladder;

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

pub use choose::{Access, Candidate, Choice, Need, Unfit};
pub use ladder::{Ladder, Lsn, Sample};

use crate::topology::{ConfiguredRole, OTHERS, Role, Server, ServerId, ShardId, Topology};

/// All servers of one topology, as they are at the moment.
pub struct Fleet {
    /// By [`ServerId`].
    servers: Vec<Arc<ServerState>>,
    /// So many of them have an entry of their own; behind come those of databases that were found.
    configured: usize,
    shards: HashMap<String, HashMap<ShardId, Arc<ShardState>>>,
    turn: AtomicU32,
}

/// One server under one database name. Kept over a reload as long as its endpoint stays.
pub struct ServerState {
    pub server: Arc<Server>,
    condition: Arc<Condition>,
}

/// How a server is: the same for all databases that were found on it.
pub struct Condition {
    health: Mutex<Health>,
    in_flight: AtomicU32,
    /// Peak EWMA of the time that units took, in microseconds.
    latency: AtomicU64,
    served: AtomicU64,
    failed_probes: AtomicU64,
    /// Something went wrong: probe now.
    pub suspected: Notify,
}

/// One shard's clock ladders, and who waits for them.
#[derive(Default)]
pub struct ShardState {
    pub ladder: Mutex<Ladder>,
    /// A session's write is not known to be on a replica yet: the instant of the newest one.
    fresh: Mutex<Option<Instant>>,
    /// When the newest write of any session was acknowledged; one for all names under which the data is known.
    newest: Arc<Mutex<Option<Instant>>>,
    leader: Mutex<Option<Leader>>,
    /// A replica has caught up with more.
    pub moved: Notify,
    /// The ladder has a new rung: replicas are looked at now, so that the two are of one moment.
    pub sampled: Notify,
    /// [`ShardState::fresh`] was set.
    pub wanted: Notify,
}

/// The primary that writes go to.
struct Leader {
    server: Arc<Server>,
    timeline: u32,
    seen: Instant,
}

#[derive(Clone, Debug)]
pub struct Health {
    /// `None`: not known yet.
    pub up: Option<bool>,
    /// Since when it has been up without a break: a replica that was restarted may show less than before.
    pub up_since: Option<Instant>,
    pub role: Option<Role>,
    pub reason: Option<String>,
    /// Of a replica: the time of the newest rung that it has replayed, by insert and by flush positions.
    pub caught_up: Option<Instant>,
    pub caught_up_flush: Option<Instant>,
    /// Behind the primary's flush position; `None` for a primary or when not known.
    pub lag: Option<Duration>,
    pub lag_bytes: Option<u64>,
    pub position: Option<Lsn>,
}

/// One statement on its way. Dropped or finished, it is not counted any more.
pub struct InFlight {
    state: Arc<ServerState>,
    begun: Instant,
}

impl Fleet {
    /// States of servers whose endpoint stays are taken over from `previous`.
    pub fn new(topology: &Topology, previous: Option<&Self>) -> Self {
        let mut servers: Vec<Arc<ServerState>> = Vec::with_capacity(topology.servers.len());
        let mut shards: HashMap<String, HashMap<ShardId, Arc<ShardState>>> = HashMap::new();
        let is_configured = |server: &&Arc<Server>| !topology.is_found(&server.database);
        for server in topology.servers.iter().take_while(is_configured) {
            let known = previous.and_then(|fleet| fleet.servers.iter().find(|state| alike(&state.server, server)));
            let known = known.filter(|state| state.server == *server).cloned();
            servers.push(known.unwrap_or_else(|| Arc::new(ServerState::new(server))));
            let known = previous.and_then(|fleet| fleet.shard(&server.database, server.shard)).cloned();
            let alias = topology.servers.iter().filter(|other| holds_the_same(other, server)).find_map(|other| {
                shards.get(&other.database)?.get(&other.shard).map(|state: &Arc<ShardState>| Arc::clone(&state.newest))
            });
            let made = || Arc::new(ShardState { newest: alias.unwrap_or_default(), ..ShardState::default() });
            let of_database = shards.entry(server.database.clone()).or_default();
            of_database.entry(server.shard).or_insert_with(|| known.unwrap_or_else(made));
        }
        let configured = servers.len();
        for server in &topology.servers[configured..] {
            let others = servers.iter().find(|state| is_others(&state.server, server)).expect("it was found there");
            let condition = Arc::clone(&others.condition);
            servers.push(Arc::new(ServerState { server: Arc::clone(server), condition }));
            if !shards.contains_key(&server.database) {
                shards.insert(server.database.clone(), shards[OTHERS].clone());
            }
        }
        Self { servers, configured, shards, turn: AtomicU32::new(0) }
    }

    /// Of servers that have an entry.
    pub fn states(&self) -> &[Arc<ServerState>] {
        &self.servers[..self.configured]
    }

    pub fn state(&self, id: ServerId) -> &Arc<ServerState> {
        &self.servers[usize::from(id.0)]
    }

    pub fn shard(&self, database: &str, shard: ShardId) -> Option<&Arc<ShardState>> {
        self.shards.get(database)?.get(&shard)
    }

    /// A unit begins on the server that was chosen. Who chooses and does not begin takes nobody's turn.
    pub fn begin(&self, choice: &Choice, now: Instant) -> InFlight {
        if choice.in_turn {
            self.turn.fetch_add(1, Ordering::Relaxed);
        }
        let state = Arc::clone(self.state(choice.server));
        state.in_flight.fetch_add(1, Ordering::Relaxed);
        state.served.fetch_add(1, Ordering::Relaxed);
        InFlight { state, begun: now }
    }

    /// How far a replica that is up is behind its primary at `now`, in time and bytes, by what both said last.
    pub fn lag(&self, state: &ServerState, now: Instant) -> (Option<Duration>, Option<u64>) {
        let health = state.health().clone();
        let shard = self.shard(&state.server.database, state.server.shard);
        match (health.up, health.role, health.position, shard) {
            (Some(true), Some(Role::Replica), Some(replayed), Some(shard)) => shard.ladder().lag(replayed, now),
            _ => (None, None),
        }
    }

    /// A connection to the server failed: it is probed at once.
    pub fn suspect(&self, server: &Server) {
        self.servers.iter().filter(|state| alike(&state.server, server)).for_each(|state| state.suspected.notify_one());
    }
}

/// The same data, maybe under another name.
fn holds_the_same(one: &Server, other: &Server) -> bool {
    (&one.host, one.port, &one.database_name) == (&other.host, other.port, &other.database_name)
}

/// The server of a database that was found is that of the entry.
fn is_others(others: &Server, found: &Server) -> bool {
    others.database == OTHERS && (&others.host, others.port) == (&found.host, found.port)
}

fn alike(one: &Server, other: &Server) -> bool {
    (&one.database, &one.host, one.port, &one.database_name)
        == (&other.database, &other.host, other.port, &other.database_name)
}

impl ServerState {
    fn new(server: &Arc<Server>) -> Self {
        let role = match server.role {
            ConfiguredRole::Primary => Some(Role::Primary),
            ConfiguredRole::Replica => Some(Role::Replica),
            ConfiguredRole::Auto => None,
        };
        let health = Health {
            up: None,
            up_since: None,
            role,
            reason: None,
            caught_up: None,
            caught_up_flush: None,
            lag: None,
            lag_bytes: None,
            position: None,
        };
        let condition = Condition {
            health: Mutex::new(health),
            in_flight: AtomicU32::new(0),
            latency: AtomicU64::new(0),
            served: AtomicU64::new(0),
            failed_probes: AtomicU64::new(0),
            suspected: Notify::new(),
        };
        Self { server: Arc::clone(server), condition: Arc::new(condition) }
    }
}

impl Deref for ServerState {
    type Target = Condition;

    fn deref(&self) -> &Condition {
        &self.condition
    }
}

impl Condition {
    pub fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Units served so far.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    pub fn probe_failed(&self) {
        self.failed_probes.fetch_add(1, Ordering::Relaxed);
    }

    pub fn failed_probes(&self) -> u64 {
        self.failed_probes.load(Ordering::Relaxed)
    }

    pub fn latency(&self) -> Duration {
        Duration::from_micros(self.latency.load(Ordering::Relaxed))
    }
}

impl ShardState {
    pub fn ladder(&self) -> MutexGuard<'_, Ladder> {
        self.ladder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session's write was acknowledged at `now`, and will be wanted from a replica.
    pub fn wrote(&self, now: Instant) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        if fresh.replace(now).is_none() {
            self.wanted.notify_waiters();
        }
    }

    /// When the newest write of any session was acknowledged.
    pub fn newest_write(&self) -> Option<Instant> {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A server that takes writes was seen. `Err`: it must get none, for this reason.
    pub fn lead(&self, server: &Arc<Server>, timeline: u32, now: Instant) -> Result<(), String> {
        let mut leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = leader.as_ref().filter(|known| !alike(&known.server, server)) {
            let Server { host, port, .. } = &*known.server;
            if timeline < known.timeline {
                let newest = known.timeline;
                return Err(format!("on timeline {timeline}, while {host}:{port} went on to timeline {newest}"));
            }
            if timeline == known.timeline && now.saturating_duration_since(known.seen) < LEADER_AWAY {
                return Err(format!("takes writes, as {host}:{port} does on the same timeline"));
            }
        }
        *leader = Some(Leader { server: Arc::clone(server), timeline, seen: now });
        Ok(())
    }

    /// Whether probes should hurry.
    pub fn is_wanted(&self) -> bool {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// A replica has caught up to `rung`: nobody waits for writes before it.
    pub fn satisfied(&self, rung: Instant) {
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        if fresh.is_some_and(|wanted| wanted < rung) {
            *fresh = None;
        }
        drop(fresh);
        self.moved.notify_waiters();
    }

    /// A want is given up after a while: a replica that is down must not keep probes hurrying.
    pub fn forget_wants_before(&self, limit: Instant) {
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        if fresh.is_some_and(|wanted| wanted < limit) {
            *fresh = None;
        }
    }
}

impl InFlight {
    /// The unit has ended: how long it took counts.
    pub fn finish(self, now: Instant) {
        let took = u64::try_from(now.saturating_duration_since(self.begun).as_micros()).unwrap_or(u64::MAX);
        let known = self.state.latency.load(Ordering::Relaxed);
        // Peaks at once, forgets slowly (peak EWMA).
        let next = if took > known { took } else { known - (known - took) / DECAY };
        self.state.latency.store(next, Ordering::Relaxed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.state.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

const DECAY: u64 = 16;
/// A primary not seen for so long may be followed by another one on its timeline.
const LEADER_AWAY: Duration = Duration::from_secs(3);
