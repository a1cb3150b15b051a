//! Writes over several shards that this process is carrying out, and their names.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::time::Instant;

use crate::topology::ShardId;

/// All of them.
#[derive(Default)]
pub struct InProgress {
    writes: Mutex<HashMap<String, Arc<Write>>>,
    sequence: AtomicU64,
    /// Tells this process from others, before and beside it.
    process: OnceLock<u64>,
}

/// One of them, as others see it.
#[derive(Debug)]
pub struct Write {
    pub database: String,
    /// The process number of its client.
    pub owner: i32,
    pub home: ShardId,
    pub begun: Instant,
    phase: AtomicU8,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its statements run.
    Open,
    Prepare,
    Decide,
    Commit,
    Abort,
}

/// The name of one write; while it lives, recovery leaves the write alone.
pub struct Ticket {
    gid: String,
    write: Arc<Write>,
    progress: Arc<InProgress>,
}

/// `pgweir:<home shard>:<home's identity>:<process>:<sequence>`, the name of its prepared transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gid {
    pub home: usize,
    /// Of the database that has the decision: another cluster may count its shards in another way.
    pub identity: String,
    pub process: u64,
    sequence: u64,
}

impl InProgress {
    pub(super) fn begin(self: &Arc<Self>, (database, owner): (&str, i32), home: ShardId, identity: &str) -> Ticket {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let identity = identity.to_owned();
        let gid = Gid { home: usize::from(home.0), identity, process: self.process(), sequence }.to_string();
        let (database, phase) = (database.to_owned(), AtomicU8::new(Phase::Open as u8));
        let write = Arc::new(Write { database, owner, home, begun: Instant::now(), phase });
        self.lock().insert(gid.clone(), Arc::clone(&write));
        Ticket { gid, write, progress: Arc::clone(self) }
    }

    /// By name.
    pub fn all(&self) -> Vec<(String, Arc<Write>)> {
        self.lock().iter().map(|(gid, write)| (gid.clone(), Arc::clone(write))).collect()
    }

    pub(super) fn has(&self, gid: &str) -> bool {
        self.lock().contains_key(gid)
    }

    pub(super) fn process(&self) -> u64 {
        *self.process.get_or_init(rand::random)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Write>>> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write {
    pub fn phase(&self) -> Phase {
        let phases = [Phase::Open, Phase::Prepare, Phase::Decide, Phase::Commit, Phase::Abort];
        phases[usize::from(self.phase.load(Ordering::Relaxed))]
    }
}

impl Ticket {
    pub fn gid(&self) -> &str {
        &self.gid
    }

    pub fn enter(&self, phase: Phase) {
        self.write.phase.store(phase as u8, Ordering::Relaxed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.progress.lock().remove(&self.gid);
    }
}

impl Gid {
    /// Nothing, if it is not a name of ours.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(PREFIX)?.split(':');
        let (home, identity) = (parts.next()?.parse().ok()?, parts.next()?.to_owned());
        let process = u64::from_str_radix(parts.next()?, 16).ok()?;
        let sequence = parts.next()?.parse().ok()?;
        let gid = Self { home, identity, process, sequence };
        // Whatever else would be read as the same one is somebody else's.
        (parts.next().is_none() && gid.to_string() == text).then_some(gid)
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { home, identity, process, sequence } = self;
        write!(f, "{PREFIX}{home}:{identity}:{process:016x}:{sequence}")
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Prepare => "preparing",
            Self::Decide => "deciding",
            Self::Commit => "committing",
            Self::Abort => "rolling back",
        })
    }
}

pub(super) const PREFIX: &str = "pgweir:";
/// What tells a database from all others, also after a promotion.
pub(super) const IDENTITY: &str = "SELECT system_identifier || '.' || oid \
     FROM pg_control_system(), pg_database WHERE datname = current_database()";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ours_are_told_from_others() {
        let ticket = Arc::new(InProgress::default()).begin(("shop", 7), ShardId(3), "7500000000000000001.16384");
        let gid = Gid::read(ticket.gid()).unwrap();
        assert_eq!((gid.home, gid.identity.as_str()), (3, "7500000000000000001.16384"));
        for other in ["", "pgweir:", "pgweir:0:1", "pgweir:0:1.2:00000000000000ff:1:2", "pgweir:0:1.2:ff:1", "app:1"] {
            assert_eq!(Gid::read(other), None, "{other}");
        }
        assert_eq!(Gid::read("pgweir:00:1.2:00000000000000ff:1"), None);
        assert!(Gid::read("pgweir:0:1.2:00000000000000ff:1").is_some());
    }
}
