//! Writes over several shards that this process is carrying out, and their names.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::time::Instant;

use super::recovery::Found;
use crate::topology::ShardId;

/// All of them.
#[derive(Default)]
pub struct InProgress {
    writes: Mutex<HashMap<String, Arc<Write>>>,
    sequence: AtomicU64,
    /// Shared while one becomes visible on its shards, one after the other.
    showing: RwLock<()>,
    /// What recovery found prepared when it looked last, by database and shard.
    found: Mutex<BTreeMap<(String, usize), Vec<Found>>>,
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
    is_marked: bool,
    write: Arc<Write>,
    progress: Arc<InProgress>,
}

/// `pgweir:<home shard>:<home's identity>:<process>:<sequence>`, the name of its prepared transactions; and `:<shards>`,
/// if each shard that takes part is to show it (four to a digit, from the first one up).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gid {
    pub home: usize,
    /// Of the database that has the decision: another cluster may count its shards in another way.
    pub identity: String,
    pub process: u64,
    sequence: u64,
    shards: Option<Vec<ShardId>>,
}

impl InProgress {
    pub(super) fn begin(
        self: &Arc<Self>,
        (database, owner): (&str, i32),
        (home, identity): (ShardId, &str),
        marks: Option<Vec<ShardId>>,
    ) -> Ticket {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let (identity, process, is_marked) = (identity.to_owned(), self.process(), marks.is_some());
        let gid = Gid { home: usize::from(home.0), identity, process, sequence, shards: marks }.to_string();
        let (database, phase) = (database.to_owned(), AtomicU8::new(Phase::Open as u8));
        let write = Arc::new(Write { database, owner, home, begun: Instant::now(), phase });
        self.lock().insert(gid.clone(), Arc::clone(&write));
        Ticket { gid, is_marked, write, progress: Arc::clone(self) }
    }

    /// By name.
    pub fn all(&self) -> Vec<(String, Arc<Write>)> {
        self.lock().iter().map(|(gid, write)| (gid.clone(), Arc::clone(write))).collect()
    }

    /// While it is held, none becomes visible.
    pub(super) async fn hold(&self) -> RwLockWriteGuard<'_, ()> {
        self.showing.write().await
    }

    pub(super) fn note_found(&self, database: &str, shard: usize, found: Vec<Found>) {
        let mut all = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert((database.to_owned(), shard), found);
    }

    /// It will look anew.
    pub(super) fn forget_found(&self) {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// By database.
    pub fn found(&self) -> Vec<(String, Found)> {
        let all = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |((database, _), found): (&(String, usize), &Vec<Found>)| {
            found.iter().map(|found| (database.clone(), found.clone())).collect::<Vec<_>>()
        };
        all.iter().flat_map(of).collect()
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

    /// Each shard that takes part is to show it.
    pub fn is_marked(&self) -> bool {
        self.is_marked
    }

    /// To be held from before the decision until it can be seen everywhere.
    pub async fn show(&self) -> RwLockReadGuard<'_, ()> {
        self.progress.showing.read().await
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
        let shards = parts.next().map(read_shards);
        let gid = Self { home, identity, process, sequence, shards };
        // Whatever else would be read as the same one is somebody else's.
        (parts.next().is_none() && gid.to_string() == text).then_some(gid)
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { home, identity, process, sequence, shards } = self;
        write!(f, "{PREFIX}{home}:{identity}:{process:016x}:{sequence}")?;
        shards.as_ref().map_or(Ok(()), |shards| write!(f, ":{}", written_shards(shards)))
    }
}

/// The shards on which the commit of this name is to be seen; none where it leaves no marks, or is none of ours.
pub fn participants(gid: &str) -> Vec<ShardId> {
    Gid::read(gid).and_then(|gid| gid.shards).unwrap_or_default()
}

fn written_shards(shards: &[ShardId]) -> String {
    let digits = shards.iter().map(|shard| usize::from(shard.0) / 4 + 1).max().unwrap_or_default();
    let digit = |place: usize| {
        let bits = shards.iter().filter(|shard| usize::from(shard.0) / 4 == place).map(|shard| 1 << (shard.0 % 4));
        char::from_digit(bits.fold(0, |all, bit: u32| all | bit), 16).expect("four bits are a digit")
    };
    (0..digits).map(digit).collect()
}

fn read_shards(text: &str) -> Vec<ShardId> {
    let digits = (0..).step_by(4).zip(text.chars().map(|digit| digit.to_digit(16).unwrap_or_default()));
    let of =
        |(first, bits): (u16, u32)| (0..4).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| ShardId(first + bit));
    digits.flat_map(of).collect()
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
/// A name holds this many; servers take 199 bytes of it.
pub(super) const MOST_SHARDS: u16 = 400;
/// What tells a database from all others, also after a promotion.
pub(super) const IDENTITY: &str = "SELECT system_identifier || '.' || oid \
     FROM pg_control_system(), pg_database WHERE datname = current_database()";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ours_are_told_from_others() {
        let ticket =
            Arc::new(InProgress::default()).begin(("shop", 7), (ShardId(3), "7500000000000000001.16384"), None);
        let gid = Gid::read(ticket.gid()).unwrap();
        assert_eq!((gid.home, gid.identity.as_str()), (3, "7500000000000000001.16384"));
        for other in ["", "pgweir:", "pgweir:0:1", "pgweir:0:1.2:00000000000000ff:1:2:3", "pgweir:0:1.2:ff:1", "app:1"]
        {
            assert_eq!(Gid::read(other), None, "{other}");
        }
        assert_eq!(Gid::read("pgweir:00:1.2:00000000000000ff:1"), None);
        assert!(Gid::read("pgweir:0:1.2:00000000000000ff:1").is_some());
    }

    #[test]
    fn names_tell_who_takes_part() {
        for shards in [vec![0, 1], vec![3, 4], vec![0, 399], (0..400).collect()] {
            let shards: Vec<ShardId> = shards.into_iter().map(ShardId).collect();
            let identity = format!("{}.{}", u64::MAX, u32::MAX);
            let progress = Arc::new(InProgress::default());
            progress.sequence.store(u64::MAX, Ordering::Relaxed);
            let ticket = progress.begin(("shop", 7), (shards[0], &identity), Some(shards.clone()));
            assert!(ticket.gid().len() < 200, "{}", ticket.gid());
            assert_eq!(participants(ticket.gid()), shards);
        }
        assert_eq!(participants("pgweir:0:1.2:00000000000000ff:1"), []);
    }
}
