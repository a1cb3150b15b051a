//! The state of a read's tables before its query ran.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::Reason;
use super::space::{Space, Spaces, TableTag};

/// Holds until one of the tables is written: the versions of all tables read, on every shard that takes part.
#[derive(Clone)]
pub struct Stamp {
    anywhere: u64,
    spaces: SmallVec<[Stamped; 1]>,
}

#[derive(Clone)]
struct Stamped {
    space: Arc<Space>,
    whole: u64,
    tables: SmallVec<[(TableTag, u64); 2]>,
}

impl Spaces {
    /// To be taken before the query is sent. `places`: the space of each shard that takes part; `tables`: all that is
    /// read. Refused while a write of any of them is pending.
    pub fn stamp(&self, places: &[Arc<Space>], tables: &[TableTag]) -> Result<Stamp, Reason> {
        let anywhere = self.shared().anywhere.quiet().ok_or(Reason::Pending)?;
        let stamped = |space: &Arc<Space>| {
            let whole = space.whole.quiet()?;
            let versions = tables.iter().map(|&tag| Some((tag, space.table(tag).quiet()?)));
            Some(Stamped { space: Arc::clone(space), whole, tables: versions.collect::<Option<_>>()? })
        };
        let spaces = places.iter().map(stamped).collect::<Option<_>>().ok_or(Reason::Pending)?;
        Ok(Stamp { anywhere, spaces })
    }
}

impl Stamp {
    /// Nothing of it was written since, and nothing is pending. No lock, a load for each slot.
    pub fn holds(&self) -> bool {
        let Some(first) = self.spaces.first() else { return false };
        first.space.shared.anywhere.is(self.anywhere) && self.spaces.iter().all(Stamped::holds)
    }

    /// Why it does not hold, for counters.
    pub fn why_not(&self) -> Reason {
        let pending = self.spaces.iter().any(|stamped| {
            let space = &stamped.space;
            space.shared.anywhere.is_pending()
                || space.whole.is_pending()
                || stamped.tables.iter().any(|&(tag, _)| space.table(tag).is_pending())
        });
        if pending { Reason::Pending } else { Reason::Stale }
    }

    /// A replica that had caught up with a moment has every write of these tables that was acknowledged before it.
    pub(super) fn is_reached_by(&self, caught_up: Instant) -> bool {
        self.spaces.iter().all(|stamped| {
            let space = &stamped.space;
            let reached = space.shared.nanos(caught_up);
            let tables = stamped.tables.iter().map(|&(tag, _)| space.table(tag).bumped());
            let mut bumps = tables.chain([space.whole.bumped(), space.shared.anywhere.bumped()]);
            bumps.all(|bumped| reached > bumped)
        })
    }

    /// When one of the tables was last written.
    pub(super) fn written(&self) -> Option<Instant> {
        let bumps = self.spaces.iter().map(|stamped| {
            let space = &stamped.space;
            let tables = stamped.tables.iter().map(|&(tag, _)| space.table(tag).bumped());
            let bumped = tables.chain([space.whole.bumped(), space.shared.anywhere.bumped()]).max().unwrap_or_default();
            space.shared.anchor + Duration::from_nanos(bumped)
        });
        bumps.max()
    }

    /// Bytes that it takes beside its own size.
    pub(super) fn weight(&self) -> usize {
        let slots = self.spaces.iter().filter(|stamped| stamped.tables.spilled());
        let slots: usize = slots.map(|stamped| stamped.tables.len()).sum();
        let spaces = if self.spaces.spilled() { self.spaces.len() } else { 0 };
        spaces * size_of::<Stamped>() + slots * size_of::<(TableTag, u64)>()
    }
}

impl Stamped {
    fn holds(&self) -> bool {
        self.space.whole.is(self.whole) && self.tables.iter().all(|&(tag, word)| self.space.table(tag).is(word))
    }
}

impl std::fmt::Debug for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stamp").field("spaces", &self.spaces.len()).field("holds", &self.holds()).finish()
    }
}
