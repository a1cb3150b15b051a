//! Deadlocks that no server sees: clients that wait for each other on different shards.
//!
//! While some client's statement on several shards lasts longer than the servers' `deadlock_timeout`, they are asked who
//! waits for whom. A circle that is there twice, while each client in it is still busy with the same statement, has been
//! there all the time: none of them let go of anything. The one that came last gets 40P01.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::registry::{Client, State};
use super::station::Shared;
use crate::backend::CancelTarget;
use crate::control::{Blocker, Leg, Phase, Wait};
use crate::error::{Error, SqlState};
use crate::topology::ShardId;

/// Looks for them until it is aborted.
pub async fn watch(shared: Arc<Shared>) {
    let mut patience = Duration::from_secs(1);
    loop {
        sleep(INTERVAL).await;
        for database in slow(&shared, patience) {
            let Some(first) = Picture::take(&shared, &database).await else { continue };
            patience = first.patience.unwrap_or(patience);
            let Some(circle) = first.circle() else {
                sleep(INTERVAL).await;
                continue;
            };
            sleep(INTERVAL).await;
            let second = Picture::take(&shared, &database).await;
            if second.is_some_and(|second| first.is_still_in(&second, &circle)) {
                Box::pin(first.break_up(&circle)).await;
            }
        }
    }
}

/// Databases in which a statement on several shards, or one of a transaction on several, takes its time.
fn slow(shared: &Shared, patience: Duration) -> HashSet<String> {
    let now = Instant::now();
    let is_slow = |client: &Client| {
        client.state() == State::Active
            && now.saturating_duration_since(client.begun()) >= patience
            && client.several_since().is_some()
    };
    shared.registry.databases_of(is_slow)
}

/// Who may wait.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Party {
    /// One with several connections: its instance, and its process number as other clients know it.
    Client(String, i32),
    /// Somebody else's process on a server.
    Stranger(ShardId, i32),
}

/// What one party waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    shard: ShardId,
    from: Party,
    to: Party,
    /// When the statement began that waits.
    since: String,
}

/// Who waits for whom at about one moment. Instances that look at the same time see the same.
struct Picture {
    /// Those of this process.
    clients: HashMap<Party, Known>,
    /// Clients that are committing: others go first.
    committing: HashSet<Party>,
    edges: Vec<Edge>,
    patience: Option<Duration>,
}

/// A client of several connections, as it was before the servers were asked.
struct Known {
    client: Arc<Client>,
    units: u64,
}

impl Picture {
    async fn take(shared: &Shared, database: &str) -> Option<Self> {
        let (writes, instance) = (shared.control.writes(), shared.control.instance());
        let own = |process: i32| Party::Client(instance.clone(), process);
        let begun = writes.iter().filter(|(_, write)| write.phase() != Phase::Open);
        let mut committing: HashSet<Party> = begun.map(|(_, write)| own(write.owner)).collect();
        let (mut clients, mut own_processes, mut legs) = (HashMap::new(), HashMap::new(), Vec::new());
        for client in shared.registry.all().into_iter().filter(|client| client.database == database) {
            let (party, targets) = (own(client.key.process), client.targets());
            if targets.len() < 2 {
                // To other instances it is a stranger, too.
                continue;
            }
            for target in &targets {
                let (server, process) = (target.server(), target.process());
                own_processes.insert((server.host.clone(), server.port, process), party.clone());
                let commits = committing.contains(&party);
                legs.push(Leg { client: client.key.process, shard: server.shard, process, commits });
            }
            clients.insert(party, Known { units: client.units(), client });
        }
        let waits = shared.control.waits(database, &legs).await?;
        let mut others = HashMap::new();
        for (instance, leg) in waits.legs {
            let party = Party::Client(instance, leg.client);
            committing.extend(leg.commits.then(|| party.clone()));
            others.insert((leg.shard, leg.process), party);
        }
        let party = |wait: &Wait, process: i32| {
            let (host, port) = &*wait.place;
            let known = own_processes.get(&(host.clone(), *port, process));
            let known = known.or_else(|| others.get(&(wait.shard, process)));
            known.cloned().unwrap_or(Party::Stranger(wait.shard, process))
        };
        let edge = |wait: &Wait| {
            let to = match &wait.blocker {
                Blocker::Process(process) => party(wait, *process),
                Blocker::Prepared(gid) => own(writes.iter().find(|(known, _)| known == gid)?.1.owner),
            };
            Some(Edge { shard: wait.shard, from: party(wait, wait.process), to, since: wait.since.clone() })
        };
        let mut edges: Vec<Edge> = waits.all.iter().filter_map(edge).collect();
        edges.sort();
        Some(Self { clients, committing, edges, patience: waits.deadlock_timeout })
    }

    /// Of parties on more than one shard who wait for each other. What is on one only, its server sees.
    fn circle(&self) -> Option<Vec<Edge>> {
        circle(&self.edges)
    }

    fn is_still_in(&self, later: &Self, circle: &[Edge]) -> bool {
        let units = |picture: &Self, party| picture.clients.get(party).map(|known| known.units);
        circle.iter().all(|edge| later.edges.contains(edge) && units(self, &edge.from) == units(later, &edge.from))
    }

    /// Ends what the client who came last waits for; one that is not committing, if there is. Of which instance it is,
    /// is the same for all that look.
    async fn break_up(&self, circle: &[Edge]) {
        let clients = circle.iter().filter(|edge| matches!(edge.from, Party::Client(..)));
        let last = clients.max_by_key(|edge| (!self.committing.contains(&edge.from), &edge.since, &edge.from));
        let Some((party, victim)) = last.and_then(|edge| Some((&edge.from, self.clients.get(&edge.from)?))) else {
            return;
        };
        let error = deadlock(circle);
        tracing::info!(detail = error.detail, "deadlock across shards");
        for edge in self.edges.iter().filter(|edge| edge.from == *party) {
            for target in victim.client.targets().iter().filter(|target| target.server().shard == edge.shard) {
                end(target, &error).await;
            }
        }
    }
}

async fn end(target: &CancelTarget, error: &Error) {
    if let Err(cause) = target.cancel_for(error.clone()).await {
        tracing::debug!(%cause, "breaking a deadlock");
    }
}

/// As PostgreSQL tells of one.
fn deadlock(circle: &[Edge]) -> Error {
    let name = |party: &Party| match party {
        Party::Client(_, process) => format!("process {process}"),
        Party::Stranger(_, process) => format!("process {process} of that server"),
    };
    let line = |edge: &Edge| format!("{} waits for {} on shard {}.", name(&edge.from), name(&edge.to), edge.shard.0);
    let lines: Vec<String> = circle.iter().map(line).collect();
    Error::new(SqlState::DEADLOCK, "deadlock detected across shards").with_detail(lines.join("\n"))
}

/// Some circle that is on more than one shard.
fn circle(edges: &[Edge]) -> Option<Vec<Edge>> {
    let mut from: HashMap<&Party, Vec<&Edge>> = HashMap::new();
    edges.iter().for_each(|edge| from.entry(&edge.from).or_default().push(edge));
    edges.iter().find_map(|first| {
        let mut path = vec![first];
        let mut seen = HashSet::from([(&first.to, first.shard)]);
        close(&from, &mut path, &mut seen).then(|| path.into_iter().cloned().collect())
    })
}

/// Goes on along the edges until the path comes back to where it began.
fn close<'e>(
    from: &HashMap<&'e Party, Vec<&'e Edge>>,
    path: &mut Vec<&'e Edge>,
    seen: &mut HashSet<(&'e Party, ShardId)>,
) -> bool {
    let (start, end) = (&path[0].from, &path[path.len() - 1].to);
    if start == end {
        return path.iter().any(|edge| edge.shard != path[0].shard);
    }
    for edge in from.get(end).into_iter().flatten() {
        // A way that led nowhere leads nowhere again.
        if edge.to == *start || seen.insert((&edge.to, edge.shard)) {
            path.push(edge);
            if close(from, path, seen) {
                return true;
            }
            path.pop();
        }
    }
    false
}

const INTERVAL: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    fn check(edges: &[(i32, i32, u16)], expected: bool) {
        let edge = |&(from, to, shard): &(i32, i32, u16)| Edge {
            shard: ShardId(shard),
            from: Party::Client(String::new(), from),
            to: Party::Client(String::new(), to),
            since: String::new(),
        };
        let edges: Vec<Edge> = edges.iter().map(edge).collect();
        let found = circle(&edges);
        assert_eq!(found.is_some(), expected, "{edges:?}");
        if let Some(circle) = found {
            let ends = circle.iter().map(|edge| &edge.to);
            let starts = circle.iter().skip(1).chain(circle.first()).map(|edge| &edge.from);
            assert!(ends.eq(starts), "{circle:?}");
        }
    }

    #[test]
    fn circles_over_shards_are_found() {
        check(&[], false);
        check(&[(1, 2, 0)], false);
        check(&[(1, 2, 0), (2, 1, 1)], true);
        check(&[(1, 2, 0), (2, 3, 1), (3, 4, 0)], false);
        check(&[(9, 1, 0), (1, 2, 0), (2, 3, 1), (3, 1, 2), (3, 8, 0)], true);
    }

    #[test]
    fn circles_on_one_shard_are_its_servers() {
        check(&[(1, 2, 0), (2, 1, 0)], false);
        check(&[(1, 2, 0), (2, 1, 0), (2, 1, 1)], true);
        check(&[(1, 2, 0), (2, 1, 0), (2, 3, 1), (3, 1, 0)], true);
    }
}
