//! One answer, as the server gave it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::Stamp;

/// The bytes of a whole result: frames as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// RowDescription, where the client was given one.
    pub columns: Option<Bytes>,
    /// All DataRow frames.
    pub rows: Bytes,
    /// CommandComplete.
    pub tag: Bytes,
    pub row_count: u64,
}

/// Which server gave (a part of) an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// A number that means something to whoever gave it.
    pub server: u32,
    /// For a replica: the moment of the primary that it had caught up with before the query was sent, if that is known.
    pub replica: Option<Option<Instant>>,
}

/// An answer that is kept.
#[derive(Debug)]
pub struct Entry {
    answer: Answer,
    stamp: Stamp,
    sent: Instant,
    ended: Instant,
    origins: SmallVec<[Origin; 1]>,
    expires: Instant,
    refresh: Instant,
    /// Somebody runs its query again before it ends.
    refreshing: AtomicBool,
}

impl Origin {
    pub fn primary(server: u32) -> Self {
        Self { server, replica: None }
    }

    pub fn replica(server: u32, caught_up: Option<Instant>) -> Self {
        Self { server, replica: Some(caught_up) }
    }
}

impl Entry {
    pub(super) fn new(fill: super::Fill, stamp: Stamp, longest: Duration) -> Self {
        let super::Fill { answer, sent, ended, origins, ttl } = fill;
        let ttl = ttl.min(longest);
        let (expires, refresh) = (sent + ttl, sent + ttl - ttl / REFRESH_PART);
        let (answer, refreshing) = (answer.compact(), AtomicBool::new(false));
        Self { answer, stamp, sent, ended, origins, expires, refresh, refreshing }
    }

    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// When its query was sent: it shows nothing that was written later.
    pub fn sent(&self) -> Instant {
        self.sent
    }

    /// When its last byte had come.
    pub fn ended(&self) -> Instant {
        self.ended
    }

    pub fn origins(&self) -> &[Origin] {
        &self.origins
    }

    pub(super) fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    pub(super) fn is_expired(&self, now: Instant) -> bool {
        now >= self.expires
    }

    /// May be served now.
    pub(super) fn is_valid(&self, now: Instant) -> bool {
        !self.is_expired(now) && self.stamp.holds()
    }

    /// Near its end, and the caller is the first to see it.
    pub(super) fn claims_refresh(&self, now: Instant) -> bool {
        now >= self.refresh && !self.refreshing.swap(true, Ordering::AcqRel)
    }

    pub(super) fn unclaim_refresh(&self) {
        self.refreshing.store(false, Ordering::Release);
    }

    /// Bytes that it takes, all told.
    pub(super) fn weight(&self) -> usize {
        let origins = if self.origins.spilled() { self.origins.len() * size_of::<Origin>() } else { 0 };
        size_of::<Self>() + self.answer.bytes() + self.stamp.weight() + origins
    }
}

impl Answer {
    pub fn bytes(&self) -> usize {
        self.columns.as_ref().map_or(0, Bytes::len) + self.rows.len() + self.tag.len()
    }

    /// In memory of its own: what came may be a part of a larger buffer.
    fn compact(self) -> Self {
        let mut all = BytesMut::with_capacity(self.bytes());
        self.columns.iter().for_each(|columns| all.extend_from_slice(columns));
        all.extend_from_slice(&self.rows);
        all.extend_from_slice(&self.tag);
        let mut all = all.freeze();
        let columns = self.columns.map(|columns| all.split_to(columns.len()));
        let rows = all.split_to(self.rows.len());
        Self { columns, rows, tag: all, row_count: self.row_count }
    }
}

/// The last part of its life, as a divisor, in which an entry that is asked for is made anew.
const REFRESH_PART: u32 = 10;
