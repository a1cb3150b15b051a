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
use crate::control::{Blocker, Phase, Wait};
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
            let Some(circle) = first.circle() else { continue };
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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Party {
    /// By its process number, as other clients know it.
    Client(i32),
    /// Somebody else's process on a server.
    Stranger(Arc<(String, u16)>, i32),
}

/// What one party waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Edge {
    shard: ShardId,
    from: Party,
    to: Party,
    since: String,
}

/// Who waits for whom at about one moment.
struct Picture {
    clients: HashMap<i32, Known>,
    edges: Vec<Edge>,
    patience: Option<Duration>,
}

/// A client, as it was before the servers were asked.
struct Known {
    client: Arc<Client>,
    units: u64,
    /// It is committing: others go first.
    commits: bool,
}

impl Picture {
    async fn take(shared: &Shared, database: &str) -> Option<Self> {
        let writes = shared.control.writes();
        let owners: HashMap<&str, i32> = writes.iter().map(|(gid, write)| (gid.as_str(), write.owner)).collect();
        let commits = |process| writes.iter().any(|(_, write)| write.owner == process && write.phase() != Phase::Open);
        let (mut clients, mut processes) = (HashMap::new(), HashMap::new());
        for client in shared.registry.all() {
            let process = client.key.process;
            for target in client.targets() {
                let server = target.server();
                processes.insert((server.host.clone(), server.port, target.process()), process);
            }
            clients.insert(process, Known { units: client.units(), commits: commits(process), client });
        }
        let waits = shared.control.waits(database).await?;
        let party = |wait: &Wait, process| {
            let (host, port) = &*wait.place;
            let known = processes.get(&(host.clone(), *port, process));
            known.map_or_else(|| Party::Stranger(Arc::clone(&wait.place), process), |client| Party::Client(*client))
        };
        let edge = |wait: &Wait| {
            let to = match &wait.blocker {
                Blocker::Process(process) => party(wait, *process),
                Blocker::Prepared(gid) => Party::Client(*owners.get(gid.as_str())?),
            };
            Some(Edge { shard: wait.shard, from: party(wait, wait.process), to, since: wait.since.clone() })
        };
        let edges = waits.all.iter().filter_map(edge).collect();
        Some(Self { clients, edges, patience: waits.deadlock_timeout })
    }

    /// Of parties on more than one shard who wait for each other. What is on one only, its server sees.
    fn circle(&self) -> Option<Vec<Edge>> {
        circle(&self.edges)
    }

    fn is_still_in(&self, later: &Self, circle: &[Edge]) -> bool {
        let unit = |picture: &Self, process| picture.clients.get(&process).map(|known| known.units);
        circle.iter().all(|edge| {
            later.edges.contains(edge)
                && match edge.from {
                    Party::Client(process) => unit(self, process) == unit(later, process),
                    Party::Stranger(..) => true,
                }
        })
    }

    /// Ends what the client who came last waits for; one that is not committing, if there is.
    async fn break_up(&self, circle: &[Edge]) {
        let clients = circle.iter().filter_map(|edge| match edge.from {
            Party::Client(process) => self.clients.get(&process),
            Party::Stranger(..) => None,
        });
        let Some(victim) = clients.max_by_key(|known| (!known.commits, known.client.begun())) else { return };
        let error = deadlock(circle);
        tracing::info!(detail = error.detail, "deadlock across shards");
        let party = Party::Client(victim.client.key.process);
        for edge in self.edges.iter().filter(|edge| edge.from == party) {
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
        Party::Client(process) => format!("process {process}"),
        Party::Stranger(place, process) => format!("process {process} of {}:{}", place.0, place.1),
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
            from: Party::Client(from),
            to: Party::Client(to),
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
