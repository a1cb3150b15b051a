//! Prepared statements, shared by all sessions: one number for each text and list of parameter types.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::planned::Plans;
use crate::statement::{Analysis, LiteralSpan};

/// A statement as Parse gave it.
pub(super) struct Prepared {
    /// Names it on servers (see [`crate::backend::statement_name`]).
    pub number: u64,
    /// Without the zero; as the client sent it, in the client's encoding.
    pub text: Box<[u8]>,
    pub types: Arc<[u32]>,
    pub analysis: Arc<Analysis>,
    pub literals: Box<[LiteralSpan]>,
    pub plans: Plans,
}

/// Finds a statement that some session has prepared already.
#[derive(Default)]
pub(super) struct Interner {
    numbers: AtomicU64,
    known: Mutex<Known>,
}

/// By text and parameter types.
type Known = HashMap<(Box<[u8]>, Arc<[u32]>), Weak<Prepared>, foldhash::fast::RandomState>;

impl Interner {
    /// The statement of this text and these types; `analyse` is asked when it is new.
    pub(super) fn intern(
        &self,
        text: &[u8],
        types: Arc<[u32]>,
        analyse: impl FnOnce() -> (Arc<Analysis>, Box<[LiteralSpan]>),
    ) -> Arc<Prepared> {
        let key = (Box::from(text), Arc::clone(&types));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prepared) = known.get(&key).and_then(Weak::upgrade) {
            return prepared;
        }
        drop(known);
        let prepared = self.make(text, types, analyse);
        known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
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
        let (analysis, literals) = analyse();
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        Arc::new(Prepared { number, text: Box::from(text), types, analysis, literals, plans: Plans::default() })
    }
}

impl Prepared {
    /// The text, where it can be routed by its meaning.
    pub(super) fn readable(&self) -> Option<&str> {
        std::str::from_utf8(&self.text).ok()
    }
}
