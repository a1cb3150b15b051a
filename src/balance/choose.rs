//! One choice: which server of a shard.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::{Fleet, Health, ServerState};
use crate::error::{Error, SqlState};
use crate::topology::{Consistency, Database, ReadWriteSplit, Role, ServerId, ShardId, Strategy};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A replica if one is fit, else the primary.
    Read,
    ReplicaOnly,
    Primary,
}

/// What a statement needs of its server.
#[derive(Clone, Copy)]
pub struct Need<'a> {
    pub database: &'a Database,
    pub shard: ShardId,
    pub access: Access,
    pub consistency: Consistency,
    /// When the last write to the shard that must be seen was acknowledged: the session's own, or any session's.
    pub wrote: Option<Instant>,
    /// When the session's last read on a replica of the shard ended.
    pub read: Option<Instant>,
    /// The server of that read: a session keeps its replica while that is fit, and never goes back in time on it.
    pub last: Option<ServerId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub server: ServerId,
    pub role: Role,
    /// Of a replica: the moment of the primary that it has caught up with, at least.
    pub caught_up: Option<Instant>,
    /// It was one of several: the next choice among them is another's turn.
    pub(super) in_turn: bool,
}

#[derive(Debug)]
pub enum Unfit {
    /// A replica is up, but has not caught up: it may in a moment.
    Wait,
    Nobody(Error),
}

impl Fleet {
    /// The server that serves best. `exclude`: tried already.
    pub fn choose(&self, need: &Need<'_>, now: Instant, exclude: &[ServerId]) -> Result<Choice, Unfit> {
        let servers = &need.database.shard(need.shard).servers;
        let free = || servers.iter().filter(|id| !exclude.contains(id)).map(|id| self.state(*id));
        let strong = need.consistency == Consistency::Strong;
        let split = need.database.read_write_split;
        if need.access == Access::Primary || strong || split == ReadWriteSplit::PrimaryOnly {
            return primary(free()).ok_or_else(|| Unfit::Nobody(self.nobody(need, "primary")));
        }
        let mut fit: SmallVec<[&Arc<ServerState>; 4]> = SmallVec::new();
        let mut late = false;
        for state in free() {
            match fitness(&state.health(), state, need, now) {
                Fitness::Fit => fit.push(state),
                Fitness::Late => late = true,
                Fitness::Unfit => {}
            }
        }
        if split == ReadWriteSplit::IncludePrimary && need.access == Access::Read {
            fit.extend(free().filter(|state| is_primary(state)));
        }
        let kept = fit.iter().copied().find(|state| Some(state.server.id) == need.last);
        match kept.or_else(|| self.best(&fit, need.database.strategy)) {
            Some(state) => Ok(Choice { in_turn: kept.is_none(), ..choice(state) }),
            None if late => Err(Unfit::Wait),
            None if need.access == Access::ReplicaOnly => Err(Unfit::Nobody(self.nobody(need, "replica"))),
            None => primary(free()).ok_or_else(|| Unfit::Nobody(self.nobody(need, "primary"))),
        }
    }

    /// With what is known of the shard's servers.
    fn nobody(&self, need: &Need<'_>, role: &str) -> Error {
        let states = need.database.shard(need.shard).servers.iter().map(|id| self.state(*id));
        let told = states.filter_map(|state| {
            let reason = state.health().reason.clone()?;
            Some(format!("{}:{}: {reason}", state.server.host, state.server.port))
        });
        let told: Vec<String> = told.collect();
        let message = format!("no {role} available for shard {} of database \"{}\"", need.shard.0, need.database.name);
        let error = Error::new(SqlState::UNAVAILABLE, message)
            .with_hint("SHOW HEALTH in database pgweir tells the state of each server.");
        if told.is_empty() { error } else { error.with_detail(told.join("; ")) }
    }

    fn best<'f>(&self, fit: &[&'f Arc<ServerState>], strategy: Strategy) -> Option<&'f Arc<ServerState>> {
        let turn = self.turn.load(Ordering::Relaxed) as usize;
        match (fit, strategy) {
            ([], _) => None,
            ([only], _) => Some(only),
            (_, Strategy::LeastConnections) => fit.iter().copied().min_by_key(|state| state.in_flight()),
            (_, Strategy::RoundRobin) => weighted(fit, turn),
            (_, Strategy::Random) => weighted(fit, rand::random::<u32>() as usize),
            (_, Strategy::Ewma) => {
                // Power of two choices: the better of two, drawn by weight.
                let (one, other) = (weighted(fit, rand::random::<u32>() as usize)?, weighted(fit, turn)?);
                Some(if score(other) < score(one) { other } else { one })
            }
        }
    }
}

/// A server as a choice sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub address: String,
    pub role: Option<Role>,
    pub lag: Option<std::time::Duration>,
    /// Less is better.
    pub score: u128,
    /// Why it may not serve; `None`: it may.
    pub unfit: Option<&'static str>,
}

impl Fleet {
    /// Every server of a shard, for EXPLAIN ROUTE.
    pub fn candidates(&self, need: &Need<'_>, now: Instant) -> Vec<Candidate> {
        let servers = &need.database.shard(need.shard).servers;
        let strong = matches!(need.consistency, Consistency::Strong | Consistency::Global);
        let split = need.database.read_write_split;
        let primary_only = need.access == Access::Primary || strong || split == ReadWriteSplit::PrimaryOnly;
        let candidate = |state: &Arc<ServerState>| {
            let health = state.health();
            let unfit = match (health.role, primary_only) {
                _ if health.up == Some(false) => Some("down"),
                (Some(Role::Primary), true) => None,
                (Some(Role::Primary), false) if need.access == Access::ReplicaOnly => Some("no replica"),
                (Some(Role::Primary), false) if split == ReadWriteSplit::IncludePrimary => None,
                (Some(Role::Primary), false) => Some("only if no replica is fit"),
                (_, true) => Some("no primary"),
                (_, false) => match fitness(&health, state, need, now) {
                    Fitness::Fit => None,
                    Fitness::Late => Some("has not this session's writes and reads yet"),
                    Fitness::Unfit => Some("its lag is too great or not known"),
                },
            };
            Candidate {
                address: format!("{}:{}", state.server.host, state.server.port),
                role: health.role,
                lag: health.lag,
                score: score(state),
                unfit,
            }
        };
        servers.iter().map(|id| candidate(self.state(*id))).collect()
    }
}

enum Fitness {
    Fit,
    /// Has not caught up with the session.
    Late,
    Unfit,
}

fn fitness(health: &Health, state: &ServerState, need: &Need<'_>, now: Instant) -> Fitness {
    let is_replica = health.role == Some(Role::Replica) && health.up == Some(true) && state.server.lb_weight > 0;
    let limit = match need.consistency {
        Consistency::Eventual => need.database.max_replica_lag.min(need.database.max_staleness),
        _ => need.database.max_replica_lag,
    };
    if !is_replica || health.lag.is_none_or(|lag| lag > limit) {
        return Fitness::Unfit;
    }
    // Staleness counts from the rung too: a probe that has stopped answering makes a replica stale.
    let stale = health.caught_up_flush.is_none_or(|rung| now.saturating_duration_since(rung) > limit + PROBE_SLACK);
    if stale {
        return Fitness::Unfit;
    }
    if need.consistency == Consistency::Eventual {
        return Fitness::Fit;
    }
    let has = |floor: Option<Instant>| floor.is_none_or(|floor| health.caught_up.is_some_and(|rung| rung > floor));
    if !has(need.wrote) {
        return Fitness::Late;
    }
    // What another replica showed must be there too, or this one before it was started again.
    let kept =
        need.last == Some(state.server.id) && health.up_since.is_some_and(|up| need.read.is_none_or(|read| read > up));
    if kept || has(need.read) { Fitness::Fit } else { Fitness::Late }
}

fn is_primary(state: &ServerState) -> bool {
    let health = state.health();
    // Before the first probe the configuration is believed.
    health.role == Some(Role::Primary) && health.up != Some(false)
}

fn primary<'f>(mut free: impl Iterator<Item = &'f Arc<ServerState>>) -> Option<Choice> {
    free.find(|state| is_primary(state)).map(choice)
}

fn choice(state: &Arc<ServerState>) -> Choice {
    let health = state.health();
    let role = health.role.unwrap_or(Role::Primary);
    Choice { server: state.server.id, role, caught_up: health.caught_up, in_turn: false }
}

/// The server at `turn`, each as often as its weight says.
fn weighted<'f>(fit: &[&'f Arc<ServerState>], turn: usize) -> Option<&'f Arc<ServerState>> {
    let total: usize = fit.iter().map(|state| state.server.lb_weight.max(1) as usize).sum();
    // Spread by a prime, so that neighbouring turns meet different servers.
    let mut place = turn.wrapping_mul(7919) % total.max(1);
    fit.iter().copied().find(|state| {
        let weight = state.server.lb_weight.max(1) as usize;
        let here = place < weight;
        place = place.saturating_sub(weight);
        here
    })
}

/// Less is better: latency by load.
fn score(state: &ServerState) -> u128 {
    state.latency().as_micros().max(1) * u128::from(state.in_flight() + 1)
}

const PROBE_SLACK: std::time::Duration = std::time::Duration::from_secs(1);
