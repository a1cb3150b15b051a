//! Prepared statements, shared by all sessions: one number for each text and list of parameter types.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwapOption;

use super::by_name::ByName;
use super::planned::Plans;
use crate::backend::statement_name;
use crate::statement::{Analysis, LiteralSpan, quoted_name};

/// A statement as Parse gave it, or PREPARE.
pub(super) struct Prepared {
    /// Names it on servers (see [`crate::backend::statement_name`]).
    pub number: u64,
    /// Without the zero; as the client sent it, in the client's encoding.
    pub text: Box<[u8]>,
    pub types: Arc<[u32]>,
    pub analysis: Arc<Analysis>,
    pub literals: Box<[LiteralSpan]>,
    pub plans: Plans,
    /// The types of its parameters as a server has found them, under which settings and by which catalog.
    pub parameters: ArcSwapOption<Found>,
    pub kin: Option<Box<Kin>>,
    /// The client's own text, of which views were written out.
    pub with_views: Option<Box<str>>,
}

/// Variant of settings and epoch of the catalog; types.
pub(super) type Found = ((u64, u64), Arc<[u32]>);

/// What SQL's own PREPARE and EXECUTE make of statements.
pub(super) enum Kin {
    /// PREPARE made it: its text, with a zero for the name.
    BySql(Box<str>),
    /// The text names others.
    Names(ByName),
}

/// Finds a statement that some session has prepared already.
#[derive(Default)]
pub(super) struct Interner {
    numbers: AtomicU64,
    known: Mutex<Known>,
}

/// Text and parameter types, and the epoch of what was known then: what a client prepares after tables have changed, servers
/// prepare anew.
type Key = (u64, Box<[u8]>, Arc<[u32]>);
type Known = HashMap<Key, Weak<Prepared>, foldhash::fast::RandomState>;

impl Interner {
    /// The statement of this text and these types; `analyse` is asked when it is new.
    pub(super) fn intern(
        &self,
        epoch: u64,
        text: &[u8],
        types: Arc<[u32]>,
        analyse: impl FnOnce() -> (Arc<Analysis>, Box<[LiteralSpan]>),
    ) -> Arc<Prepared> {
        self.known_or((epoch, Box::from(text), Arc::clone(&types)), || self.put_together(text, types, analyse(), None))
    }

    /// The statement that a PREPARE of this text makes, which has a zero for the name; `analyse` gives the statement's own
    /// text with what is known of it.
    pub(super) fn intern_by_sql<'t>(
        &self,
        epoch: u64,
        sql: &str,
        analyse: impl FnOnce() -> (&'t [u8], (Arc<Analysis>, Box<[LiteralSpan]>)),
    ) -> Arc<Prepared> {
        self.known_or((epoch, Box::from(sql.as_bytes()), Arc::default()), || {
            let (text, analysed) = analyse();
            self.put_together(text, Arc::default(), analysed, Some(Box::new(Kin::BySql(Box::from(sql)))))
        })
    }

    /// The statement that a text becomes when its views are written out.
    pub(super) fn intern_written_out(
        &self,
        epoch: u64,
        (text, written): (&str, &str),
        types: Arc<[u32]>,
        analyse: impl FnOnce() -> (Arc<Analysis>, Box<[LiteralSpan]>),
    ) -> Arc<Prepared> {
        self.known_or((epoch, Box::from([text, written].join("\0").as_bytes()), Arc::clone(&types)), || Prepared {
            with_views: Some(Box::from(text)),
            ..self.put_together(written.as_bytes(), types, analyse(), None)
        })
    }

    fn known_or(&self, key: Key, make: impl FnOnce() -> Prepared) -> Arc<Prepared> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prepared) = known.get(&key).and_then(Weak::upgrade) {
            return prepared;
        }
        drop(known);
        let prepared = Arc::new(make());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Statements that no session holds any more cost their key until the table doubles.
        if known.len() == known.capacity() {
            known.retain(|_, prepared| prepared.strong_count() > 0);
        }
        known.insert(key, Arc::downgrade(&prepared));
        prepared
    }

    /// A statement of its own, shared with nobody: the unnamed one.
    pub(super) fn make(
        &self,
        text: &[u8],
        types: Arc<[u32]>,
        analyse: impl FnOnce() -> (Arc<Analysis>, Box<[LiteralSpan]>),
    ) -> Arc<Prepared> {
        Arc::new(self.put_together(text, types, analyse(), None))
    }

    /// The same, of a statement of such a kind.
    pub(super) fn make_kin(
        &self,
        text: &[u8],
        types: Arc<[u32]>,
        analysed: (Arc<Analysis>, Box<[LiteralSpan]>),
        kin: Kin,
    ) -> Arc<Prepared> {
        Arc::new(self.put_together(text, types, analysed, Some(Box::new(kin))))
    }

    fn put_together(
        &self,
        text: &[u8],
        types: Arc<[u32]>,
        (analysis, literals): (Arc<Analysis>, Box<[LiteralSpan]>),
        kin: Option<Box<Kin>>,
    ) -> Prepared {
        let (number, plans) = (self.numbers.fetch_add(1, Ordering::Relaxed), Plans::default());
        Prepared {
            number,
            text: Box::from(text),
            types,
            analysis,
            literals,
            plans,
            parameters: ArcSwapOption::empty(),
            kin,
            with_views: None,
        }
    }
}

impl Prepared {
    /// The PREPARE that makes it under the name of this number, if one did.
    pub(super) fn sql(&self, number: u64) -> Option<String> {
        match self.kin.as_deref() {
            Some(Kin::BySql(sql)) => Some(sql.replace('\0', &statement_name(number))),
            _ => None,
        }
    }

    /// The same as a client would write it by this name.
    pub(super) fn sql_of(&self, name: &str) -> Option<String> {
        let is_plain = |letter: char| letter == '_' || letter.is_ascii_lowercase() || letter.is_ascii_digit();
        let needs_quotes = !name.chars().all(is_plain) || name.starts_with(|first: char| first.is_ascii_digit());
        match self.kin.as_deref() {
            Some(Kin::BySql(sql)) if needs_quotes => Some(sql.replace('\0', &quoted_name(name))),
            Some(Kin::BySql(sql)) => Some(sql.replace('\0', name)),
            _ => None,
        }
    }

    /// What its text names.
    pub(super) fn names(&self) -> Option<&ByName> {
        match self.kin.as_deref() {
            Some(Kin::Names(by_name)) => Some(by_name),
            _ => None,
        }
    }

    /// The text, where it can be routed by its meaning.
    pub(super) fn readable(&self) -> Option<&str> {
        std::str::from_utf8(&self.text).ok()
    }
}
