//! What an answer is found by: everything that it depends on, as bytes compared in full.

use std::borrow::Borrow;
use std::sync::Arc;

/// Builds a key; kept by its owner and used again. Each part says what it is and how long, so that no two different
/// sequences of parts give the same bytes.
#[derive(Clone, Debug, Default)]
pub struct KeyBytes(Vec<u8>);

/// A key that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(pub Arc<[u8]>);

impl KeyBytes {
    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn bytes(&mut self, part: &[u8]) -> &mut Self {
        self.head(Part::Bytes, part.len() as u64);
        self.0.extend_from_slice(part);
        self
    }

    pub fn text(&mut self, part: &str) -> &mut Self {
        self.bytes(part.as_bytes())
    }

    pub fn number(&mut self, number: u64) -> &mut Self {
        self.head(Part::Number, number);
        self
    }

    /// Nothing is not the same as empty.
    pub fn optional(&mut self, part: Option<&[u8]>) -> &mut Self {
        match part {
            Some(part) => self.bytes(part),
            None => {
                self.head(Part::Nothing, 0);
                self
            }
        }
    }

    /// So many parts follow that belong together.
    pub fn list(&mut self, count: usize) -> &mut Self {
        self.head(Part::List, count as u64);
        self
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// Too long to be worth keeping: not to be looked up.
    pub fn is_too_long(&self) -> bool {
        self.0.len() > LONGEST
    }

    fn head(&mut self, part: Part, number: u64) {
        self.0.push(part as u8);
        self.0.extend_from_slice(&number.to_le_bytes());
    }
}

#[derive(Clone, Copy)]
enum Part {
    Bytes,
    Number,
    Nothing,
    List,
}

impl Key {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// Bytes of a key. Longer ones hold values that are not likely to come again.
const LONGEST: usize = 64 << 10;
