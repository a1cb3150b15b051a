//! Which state the tables of a database are in: one word for each, read without a lock.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::writing::Lost;

/// What a database is, whatever it is called and however it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// `pg_control_system()`'s.
    pub system: u64,
    /// The database's name on the server.
    pub database: String,
}

/// All spaces of the process. Kept over a reload, whether or not there is a cache: a write that began before the cache
/// was switched on counts, too.
pub struct Spaces {
    known: Mutex<HashMap<Identity, Arc<Space>>>,
    shared: Arc<Shared>,
}

/// What all spaces of the process have in common.
pub(super) struct Shared {
    /// Instants are kept as nanoseconds after this one.
    pub anchor: Instant,
    /// Writes of which not even the space is known. Part of every stamp.
    pub anywhere: Slot,
    /// Writes whose outcome nobody heard.
    pub lost: Mutex<Vec<Lost>>,
    pub was_lost: Notify,
}

/// The tags of one database on one server system.
pub struct Space {
    pub(super) whole: Slot,
    pub(super) tables: Box<[Slot]>,
    pub(super) shared: Arc<Shared>,
}

/// A table, as a space knows it. Two tables may share one: then a write of either counts for both.
///
/// Rows of a partitioned or inherited table are those of other tables, too: a read takes the tag of the table, of what
/// is below it, and of each table above it; a write takes the tag of the table and, of each table above it, of what is
/// below. So neighbours do not disturb each other, and a thousand partitions are two tags.
///
/// The place of tags by key: a tag would also say which key of the table, and a slot would have counters by key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableTag(pub(super) u16);

/// Version and number of pending writes in one word, so that one load tells both: a read whose word is the same as
/// before, and had nothing pending, has missed nothing.
pub(super) struct Slot {
    word: AtomicU64,
    /// When the version last grew.
    bumped: AtomicU64,
}

impl Spaces {
    pub fn new(now: Instant) -> Self {
        let shared = Shared { anchor: now, anywhere: Slot::new(0), lost: Mutex::default(), was_lost: Notify::new() };
        Self { known: Mutex::default(), shared: Arc::new(shared) }
    }

    /// The space of a database; of a new one, everything counts as written now.
    pub fn space(&self, identity: &Identity, now: Instant) -> Arc<Space> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(space) = known.get(identity) {
            return Arc::clone(space);
        }
        let space = Arc::new(Space::new(&self.shared, now));
        known.insert(identity.clone(), Arc::clone(&space));
        space
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Space {
    fn new(shared: &Arc<Shared>, now: Instant) -> Self {
        let at = shared.nanos(now);
        let tables = (0..SLOTS).map(|_| Slot::new(at)).collect();
        Self { whole: Slot::new(at), tables, shared: Arc::clone(shared) }
    }

    /// Something happened to the whole database that was no write through this process: a promotion, a load by others.
    pub fn changed(&self, now: Instant) {
        self.whole.begin();
        self.whole.commit(self.shared.nanos(now));
    }

    pub(super) fn table(&self, tag: TableTag) -> &Slot {
        &self.tables[usize::from(tag.0) % SLOTS]
    }
}

impl TableTag {
    /// By schema and name as they stand in `pg_namespace` and `pg_class`.
    pub fn new(schema: &str, name: &str) -> Self {
        Self::hashed(schema, name, 0)
    }

    /// Of the tables that are partitions of this one or inherit from it.
    pub fn below(schema: &str, name: &str) -> Self {
        Self::hashed(schema, name, 1)
    }

    fn hashed(schema: &str, name: &str, what: u8) -> Self {
        // FNV-1a: the same in every space; names hold no NUL.
        let bytes = schema.bytes().chain([0]).chain(name.bytes()).chain([0, what]);
        let hash = bytes
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        let folded = (hash ^ (hash >> 29)) % SLOTS as u64;
        Self(u16::try_from(folded).expect("fewer slots than a u16 counts"))
    }
}

impl Shared {
    pub(super) fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.anchor).as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Slot {
    fn new(bumped: u64) -> Self {
        Self { word: AtomicU64::new(0), bumped: AtomicU64::new(bumped) }
    }

    /// The version, unless a write is pending.
    pub(super) fn quiet(&self) -> Option<u64> {
        let word = self.word.load(Ordering::SeqCst);
        (word & PENDING == 0).then_some(word)
    }

    pub(super) fn is_pending(&self) -> bool {
        self.quiet().is_none()
    }

    /// Nothing was written since [`Slot::quiet`] gave `word`, and nothing is pending.
    pub(super) fn is(&self, word: u64) -> bool {
        self.word.load(Ordering::SeqCst) == word
    }

    pub(super) fn bumped(&self) -> u64 {
        self.bumped.load(Ordering::SeqCst)
    }

    pub(super) fn begin(&self) {
        self.word.fetch_add(ONE_PENDING, Ordering::SeqCst);
    }

    /// The time comes first: who sees the new version sees that, too.
    pub(super) fn commit(&self, at: u64) {
        self.bumped.fetch_max(at, Ordering::SeqCst);
        self.word.fetch_add(ONE_VERSION - ONE_PENDING, Ordering::SeqCst);
    }

    pub(super) fn roll_back(&self) {
        self.word.fetch_sub(ONE_PENDING, Ordering::SeqCst);
    }
}

/// Tables of one database that have a state of their own, by hash.
const SLOTS: usize = 2048;
/// Low bits of a word: more writes cannot be pending than there are connections.
const PENDING: u64 = (1 << 24) - 1;
const ONE_PENDING: u64 = 1;
const ONE_VERSION: u64 = PENDING + 1;
