//! Analyses by shape, so that a text which differs from an earlier one in literals only is not parsed again.

use std::collections::HashMap;
use std::sync::Arc;

use super::analyze::analyze;
use super::scan::{LiteralSpan, Scanner};
use super::types::Analysis;

/// Owned by one worker. Two generations: what was not asked for while the young one filled is forgotten.
pub struct ShapeCache<T> {
    scanner: Scanner,
    young: HashMap<Box<[u8]>, Slot<T>, foldhash::fast::RandomState>,
    old: HashMap<Box<[u8]>, Slot<T>, foldhash::fast::RandomState>,
    bytes: usize,
    limit: usize,
}

/// What a shape means, and what its users keep beside it.
pub struct Entry<T> {
    pub analysis: Arc<Analysis>,
    pub extra: T,
}

enum Slot<T> {
    Known(Arc<Entry<T>>),
    /// Texts of this shape are kept one by one: their literals matter.
    ByText,
}

impl<T: Default> ShapeCache<T> {
    /// `limit`: bytes that shapes and analyses may take, roughly.
    pub fn new(limit: usize) -> Self {
        Self { scanner: Scanner::default(), young: HashMap::default(), old: HashMap::default(), bytes: 0, limit }
    }

    /// What a text means. Its literals are lent until the next call.
    pub fn resolve(&mut self, text: &str) -> (Arc<Entry<T>>, &[LiteralSpan]) {
        let lifts = self.scanner.scan(text.as_bytes());
        let by_shape = if lifts { self.find(true, text) } else { Some(None) };
        let entry = match by_shape {
            Some(Some(entry)) => entry,
            // Not of a shape with others.
            Some(None) => match self.find(false, text) {
                Some(Some(entry)) => entry,
                _ => self.make(text, false),
            },
            None => self.make(text, true),
        };
        (entry, &self.scanner.literals)
    }

    /// `None`: not known. `Some(None)`: known to be kept by text.
    fn find(&mut self, by_shape: bool, text: &str) -> Option<Option<Arc<Entry<T>>>> {
        let key = if by_shape { self.scanner.shape.as_slice() } else { text.as_bytes() };
        if let Some(slot) = self.young.get(key) {
            return Some(slot.entry());
        }
        let (key, slot) = self.old.remove_entry(key)?;
        let entry = slot.entry();
        self.keep(key, slot);
        Some(entry)
    }

    fn make(&mut self, text: &str, by_shape: bool) -> Arc<Entry<T>> {
        let analysis = analyze(text);
        let sensitive = analysis.literal_sensitive;
        let entry = Arc::new(Entry { analysis: Arc::new(analysis), extra: T::default() });
        if by_shape && sensitive {
            self.keep(self.scanner.shape.as_slice().into(), Slot::ByText);
        }
        let key = if by_shape && !sensitive { self.scanner.shape.as_slice() } else { text.as_bytes() };
        if key.len() <= LONGEST {
            self.keep(key.into(), Slot::Known(Arc::clone(&entry)));
        }
        entry
    }

    fn keep(&mut self, key: Box<[u8]>, slot: Slot<T>) {
        self.bytes += key.len() * WEIGHT + ENTRY_BYTES;
        self.young.insert(key, slot);
        if self.bytes > self.limit / 2 {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
    }
}

impl<T> Slot<T> {
    fn entry(&self) -> Option<Arc<Entry<T>>> {
        match self {
            Self::Known(entry) => Some(Arc::clone(entry)),
            Self::ByText => None,
        }
    }
}

/// Longer texts are not likely to come again.
const LONGEST: usize = 64 * 1024;
/// Bytes of an analysis for each byte of its text, about, and beside them.
const WEIGHT: usize = 12;
const ENTRY_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_differ_in_literals_share_an_analysis() {
        let mut cache = ShapeCache::<()>::new(1 << 20);
        let one = cache.resolve("select * from t where id = 1").0;
        let other = cache.resolve("SELECT * FROM t WHERE id = 22").0;
        assert!(Arc::ptr_eq(&one, &other));
        assert_eq!(cache.resolve("select a from t where id = 22").1.len(), 1);
    }

    #[test]
    fn texts_whose_literals_matter_do_not() {
        let mut cache = ShapeCache::<()>::new(1 << 20);
        for (one, other) in [
            ("select a, b from t order by 1", "select a, b from t order by 2"),
            ("set x = '1'", "set x = '2'"),
            ("select 1; set x = '1'", "select 1; set x = '2'"),
        ] {
            let first = cache.resolve(one).0;
            assert!(!Arc::ptr_eq(&first, &cache.resolve(other).0), "{one}");
            assert!(Arc::ptr_eq(&first, &cache.resolve(one).0), "{one}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut cache = ShapeCache::<()>::new(1 << 20);
        for number in 0..10_000 {
            cache.resolve(&format!("select column_{number} from t"));
        }
        let kept = cache.young.len() + cache.old.len();
        assert!(kept > 100 && kept < 1_000, "{kept}");
    }
}
