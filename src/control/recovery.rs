//! Two-phase commits that nobody ended: their decision is asked of home, which alone knows.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use super::connect::{Client, Login, SqlError};
use super::primaries::Primaries;
use super::progress::{Gid, IDENTITY, InProgress};
use crate::balance::Fleet;
use crate::statement::quoted_literal;
use crate::topology::{Database, Topology};

/// Looks after one database until it is aborted. A shard that is away or hangs does not keep the others waiting.
pub(super) async fn watch(primaries: Primaries, progress: Arc<InProgress>, retention: Duration) {
    let each = (0..primaries.shards()).map(|shard| watch_shard(shard, &primaries, &progress));
    tokio::join!(join_all(each), watch_decisions(&primaries, retention));
}

async fn watch_shard(shard: usize, primaries: &Primaries, progress: &InProgress) {
    loop {
        sleep(INTERVAL).await;
        let logins = primaries.leading();
        match timeout(DEADLINE, recover(shard, &logins, primaries, progress)).await {
            Ok(Ok(all)) => {
                all.iter().for_each(log);
                progress.note_found(primaries.name(), shard, all);
            }
            Ok(Err(cause)) => tracing::debug!(%cause, shard, "recovery of two-phase commits"),
            Err(_) => tracing::debug!(shard, "recovery of two-phase commits: no answer"),
        }
    }
}

fn log(found: &Found) {
    let Found { shard, gid, fate, .. } = found;
    match fate {
        Fate::Ended { .. } => tracing::warn!(shard, gid, %fate, "a prepared transaction had been left behind"),
        Fate::InProgress | Fate::Unknown => {}
        Fate::Foreign | Fate::Homeless | Fate::Failed(_) => {
            tracing::debug!(shard, gid, %fate, "a prepared transaction stays");
        }
    }
}

/// A prepared transaction, and what became of it.
#[derive(Clone, Debug)]
pub struct Found {
    pub shard: usize,
    pub gid: String,
    pub age: String,
    pub fate: Fate,
}

#[derive(Clone, Debug)]
pub enum Fate {
    Ended {
        committed: bool,
    },
    /// Whoever prepared it may be about to end it.
    InProgress,
    /// Its decision is not in a database of this cluster.
    Foreign,
    /// No pgweir has named it.
    Unknown,
    /// Its home has no primary at the moment, or does not answer.
    Homeless,
    Failed(String),
}

/// Ends what is pending on one shard, each as it was decided. `logins` are those of the primaries, as far as there are.
pub(super) async fn recover(
    shard: usize,
    logins: &[Option<Login>],
    primaries: &Primaries,
    progress: &InProgress,
) -> Result<Vec<Found>, SqlError> {
    let Some(login) = &logins[shard] else { return Ok(Vec::new()) };
    let rows = primaries.lend(login).await?.rows(PREPARED).await?;
    let mut by_home: BTreeMap<usize, Vec<Prepared>> = BTreeMap::new();
    let mut all = Vec::new();
    for prepared in rows.into_iter().filter_map(|row| Prepared::read(shard, row)) {
        match prepared {
            Ok(prepared) => by_home.entry(prepared.gid.home).or_default().push(prepared),
            Err(found) => all.push(found),
        }
    }
    // A home that is away or hangs does not keep the others waiting.
    let each = by_home.into_iter().map(async |(home, all)| {
        let mut found = Vec::new();
        for prepared in all {
            let home = logins.get(home).map(Option::as_ref);
            let owner = primaries.as_owner(shard, login, &prepared.owner);
            let ending = end(&prepared, home, &owner, (primaries, progress));
            let fate = match timeout(HOME_DEADLINE, ending).await {
                Ok(fate) => fate.unwrap_or_else(|cause| Fate::Failed(cause.to_string())),
                Err(_) => Fate::Homeless,
            };
            let is_last = matches!(fate, Fate::Homeless);
            found.push(Found { shard, gid: prepared.gid.to_string(), age: prepared.age, fate });
            if is_last {
                break;
            }
        }
        found
    });
    all.extend(join_all(each).await.into_iter().flatten());
    Ok(all)
}

/// Ends what is pending in a database, once: by shard, what was found there, or why nothing could be.
pub async fn recover_all(database: &Arc<Database>, topology: &Arc<Topology>) -> Vec<Result<Vec<Found>, String>> {
    let fleet = Arc::new(Fleet::new(topology, None));
    let primaries = Primaries::new(database, topology, &fleet, &Arc::default());
    let (logins, progress) = (primaries.found().await, InProgress::default());
    let mut all = Vec::new();
    for (shard, login) in logins.iter().enumerate() {
        let work = timeout(DEADLINE, recover(shard, &logins, &primaries, &progress));
        all.push(match (login, work.await) {
            (None, _) => Err("no primary answers".to_owned()),
            (Some(_), Ok(found)) => found.map_err(|cause| cause.to_string()),
            (Some(login), Err(_)) => Err(format!("{}:{} does not answer", login.host, login.port)),
        });
    }
    all
}

struct Prepared {
    gid: Gid,
    owner: String,
    age: String,
    /// So old that another process which has not ended it will not.
    is_left: bool,
}

impl Prepared {
    /// What is none of ours is left as it is found.
    fn read(shard: usize, row: Vec<Option<String>>) -> Option<Result<Self, Found>> {
        let [gid, owner, age, is_left] = <[Option<String>; 4]>::try_from(row).ok()?;
        let (name, owner, age, is_left) = (gid?, owner?, age?, is_left? == "t");
        Some(match Gid::read(&name) {
            Some(gid) => Ok(Self { gid, owner, age, is_left }),
            None => Err(Found { shard, gid: name, age, fate: Fate::Unknown }),
        })
    }
}

async fn end(
    prepared: &Prepared,
    home: Option<Option<&Login>>,
    owner: &Login,
    (primaries, progress): (&Primaries, &InProgress),
) -> Result<Fate, SqlError> {
    let gid = prepared.gid.to_string();
    let is_left = if prepared.gid.process == progress.process() { !progress.has(&gid) } else { prepared.is_left };
    if !is_left {
        return Ok(Fate::InProgress);
    }
    let home = match home {
        Some(Some(login)) => primaries.lend(login).await?,
        Some(None) => return Ok(Fate::Homeless),
        None => return Ok(Fate::Foreign),
    };
    if home.rows(IDENTITY).await? != [[Some(prepared.gid.identity.clone())]] {
        return Ok(Fate::Foreign);
    }
    let committed = is_committed(&home, &gid).await?;
    let end = if committed { "COMMIT" } else { "ROLLBACK" };
    // Only its owner, or a superuser, may.
    let ended = primaries.lend(owner).await?.batch(&format!("{end} PREPARED {}", quoted_literal(&gid))).await;
    match ended {
        // Another process was quicker.
        Err(cause) if cause.sqlstate() == Some(UNDEFINED_OBJECT) => Ok(Fate::InProgress),
        ended => ended.map(|()| Fate::Ended { committed }),
    }
}

/// Absence is never read as abort: an `aborted` row is inserted, which waits for a decision that is being committed.
async fn is_committed(home: &Client, gid: &str) -> Result<bool, SqlError> {
    let gid = quoted_literal(gid);
    let sql = format!("INSERT INTO pgweir.decisions (gid, outcome) VALUES ({gid}, 'aborted') ON CONFLICT DO NOTHING");
    home.batch(&sql).await?;
    let rows = home.rows(&format!("SELECT outcome FROM pgweir.decisions WHERE gid = {gid}")).await?;
    Ok(rows == [[Some("committed".to_owned())]])
}

/// Returns when nothing is prepared under this name on a shard.
pub(super) async fn ended(shard: usize, gid: &str, primaries: &Primaries) {
    let prepared = format!("SELECT FROM pg_prepared_xacts WHERE gid = {}", quoted_literal(gid));
    loop {
        if let Some(login) = &primaries.leading()[shard] {
            let asked = async { primaries.lend(login).await?.rows(&prepared).await };
            if let Ok(Ok(rows)) = timeout(HOME_DEADLINE, asked).await
                && rows.is_empty()
            {
                return;
            }
        }
        sleep(LATE_INTERVAL).await;
    }
}

async fn watch_decisions(primaries: &Primaries, retention: Duration) {
    loop {
        sleep(PRUNE_INTERVAL).await;
        let Some(logins) = primaries.all() else { continue };
        match timeout(DEADLINE, prune(&logins, primaries, retention)).await {
            Ok(Ok(())) => {}
            Ok(Err(cause)) => tracing::debug!(%cause, "pruning of decisions"),
            Err(_) => tracing::debug!("pruning of decisions: no answer"),
        }
    }
}

/// Decisions of writes of which no shard holds anything any more.
async fn prune(logins: &[Login], primaries: &Primaries, retention: Duration) -> Result<(), SqlError> {
    let mut held = Vec::new();
    let mut clients = Vec::new();
    for login in logins {
        let client = primaries.lend(login).await?;
        held.extend(client.rows(ALL_PREPARED).await?.into_iter().filter_map(|row| row.into_iter().next().flatten()));
        clients.push(client);
    }
    let kept: Vec<String> = held.iter().map(|gid| quoted_literal(gid)).collect();
    let kept = if kept.is_empty() { "''".to_owned() } else { kept.join(",") };
    for client in &clients {
        let sql = format!(
            "DELETE FROM pgweir.decisions WHERE decided_at < now() - interval '{} seconds' AND gid NOT IN ({kept})",
            retention.as_secs()
        );
        client.batch(&sql).await?;
    }
    Ok(())
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended { committed: true } => f.write_str("committed, as decided"),
            Self::Ended { committed: false } => f.write_str("rolled back: its commit was not decided"),
            Self::InProgress => f.write_str("left: some process may be about to end it"),
            Self::Foreign => f.write_str("left: its decision is not in a database of this cluster"),
            Self::Unknown => f.write_str("left: no pgweir of this version has named it"),
            Self::Homeless => f.write_str("left: its home shard does not answer"),
            Self::Failed(cause) => write!(f, "left: {cause}"),
        }
    }
}

const PREPARED: &str = "SELECT gid, owner, extract(epoch FROM now() - prepared)::numeric(12,1), \
     prepared < now() - interval '5 seconds' \
     FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared";
const ALL_PREPARED: &str =
    "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND gid LIKE 'pgweir:%'";
const UNDEFINED_OBJECT: &str = "42704";
const INTERVAL: Duration = Duration::from_secs(1);
const LATE_INTERVAL: Duration = Duration::from_millis(50);
const PRUNE_INTERVAL: Duration = Duration::from_secs(30);
const DEADLINE: Duration = Duration::from_secs(5);
/// For one transaction, so that a home that hangs is told from a shard that does.
const HOME_DEADLINE: Duration = Duration::from_secs(2);
