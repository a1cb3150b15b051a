//! A write under way: what it touches is pending until its outcome is known.

use std::sync::{Arc, PoisonError};

use smallvec::SmallVec;
use tokio::time::Instant;

use super::space::{Shared, Slot, Space, Spaces, TableTag};
use crate::topology::Server;

/// What a statement or a transaction changes in each space that it runs in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    tables: SmallVec<[TableTag; 4]>,
    /// Anything may have changed.
    everything: bool,
}

/// Where a write happens: the space of a shard.
pub type Place = Arc<Space>;

/// Who can tell how a write ended of which nobody heard.
#[derive(Clone, Debug)]
pub struct Witness {
    pub server: Arc<Server>,
    /// The server's process that carried it out.
    pub process: i32,
    /// Of a COMMIT PREPARED.
    pub gid: Option<Arc<str>>,
}

/// From before a statement that may commit is sent, to after its outcome was heard. Dropped in between (its future was
/// cancelled, its connection lost), what it touches stays pending until the control plane has found out.
#[must_use = "dropped, it stays pending"]
pub struct Writing {
    marks: Option<Marks>,
    witness: Witness,
}

/// A write whose outcome nobody heard. Pending until [`Unresolved::resolved`]; dropped before, it waits again.
#[must_use = "dropped, it is handed out again"]
pub struct Unresolved {
    marks: Option<Marks>,
    witness: Witness,
}

/// What is pending, to be ended exactly once.
struct Marks {
    shared: Arc<Shared>,
    touched: Touched,
    places: SmallVec<[Place; 1]>,
}

/// As [`Unresolved`], while nobody has taken it.
pub(super) struct Lost {
    touched: Touched,
    places: SmallVec<[Place; 1]>,
    witness: Witness,
}

impl Touched {
    pub const fn nothing() -> Self {
        Self { tables: SmallVec::new_const(), everything: false }
    }

    pub const fn everything() -> Self {
        Self { tables: SmallVec::new_const(), everything: true }
    }

    pub fn add(&mut self, table: TableTag) {
        if !self.everything && !self.tables.contains(&table) {
            self.tables.push(table);
        }
        if self.tables.len() > MOST_TABLES {
            *self = Self::everything();
        }
    }

    /// A transaction touches what its statements touch.
    pub fn merge(&mut self, other: &Self) {
        if other.everything {
            *self = Self::everything();
        }
        other.tables.iter().for_each(|&table| self.add(table));
    }

    pub fn is_nothing(&self) -> bool {
        !self.everything && self.tables.is_empty()
    }

    pub fn is_everything(&self) -> bool {
        self.everything
    }
}

impl Spaces {
    /// Announces a write, before it can commit. `places`: of each shard where it does; none if they are not known:
    /// then it counts everywhere.
    pub fn write(&self, places: &[Place], touched: &Touched, witness: Witness) -> Writing {
        let (shared, touched, places) = (Arc::clone(self.shared()), touched.clone(), SmallVec::from(places));
        let marks = Marks { shared, touched, places };
        marks.each(Slot::begin);
        Writing { marks: Some(marks), witness }
    }

    /// Waits until the outcome of a write is unknown; gives all that are.
    pub async fn unresolved(&self) -> Vec<Unresolved> {
        loop {
            let lost = self.shared().was_lost.notified();
            let taken = self.take_unresolved();
            if !taken.is_empty() {
                return taken;
            }
            lost.await;
        }
    }

    /// Those whose outcome is unknown now, and that nobody has taken.
    pub fn take_unresolved(&self) -> Vec<Unresolved> {
        let lost = std::mem::take(&mut *self.shared().lost.lock().unwrap_or_else(PoisonError::into_inner));
        lost.into_iter().map(|lost| lost.taken(self.shared())).collect()
    }
}

impl Writing {
    /// Its transaction committed, or may have: when its ReadyForQuery was read, before the client gets it.
    pub fn committed(mut self, now: Instant) {
        self.marks.take().into_iter().for_each(|marks| marks.commit(now));
    }

    /// Certainly nothing changed.
    pub fn rolled_back(mut self) {
        self.marks.take().into_iter().for_each(|marks| marks.each(Slot::roll_back));
    }

    /// Its outcome was not heard: the one who finds out takes over.
    pub fn unresolved(mut self) -> Unresolved {
        Unresolved { marks: self.marks.take(), witness: self.witness.clone() }
    }
}

impl Unresolved {
    pub fn witness(&self) -> &Witness {
        &self.witness
    }

    /// Committed or not, it is over.
    pub fn resolved(mut self, now: Instant) {
        self.marks.take().into_iter().for_each(|marks| marks.commit(now));
    }
}

impl Marks {
    fn commit(&self, now: Instant) {
        let at = self.shared.nanos(now);
        self.each(|slot| slot.commit(at));
    }

    fn each(&self, mut act: impl FnMut(&Slot)) {
        if self.touched.is_nothing() {
            return;
        }
        if self.places.is_empty() {
            act(&self.shared.anywhere);
        }
        for space in &self.places {
            if self.touched.everything {
                act(&space.whole);
            }
            self.touched.tables.iter().for_each(|&tag| act(space.table(tag)));
        }
    }

    fn lose(self, witness: Witness) {
        if self.touched.is_nothing() {
            return;
        }
        let Self { shared, touched, places } = self;
        shared.lost.lock().unwrap_or_else(PoisonError::into_inner).push(Lost { touched, places, witness });
        shared.was_lost.notify_one();
    }
}

impl Lost {
    fn taken(self, shared: &Arc<Shared>) -> Unresolved {
        let marks = Marks { shared: Arc::clone(shared), touched: self.touched, places: self.places };
        Unresolved { marks: Some(marks), witness: self.witness }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if let Some(marks) = self.marks.take() {
            marks.lose(self.witness.clone());
        }
    }
}

impl Drop for Unresolved {
    fn drop(&mut self) {
        if let Some(marks) = self.marks.take() {
            marks.lose(self.witness.clone());
        }
    }
}

/// A transaction that writes more tables touches everything.
const MOST_TABLES: usize = 64;
