//! Which shard holds which key.

use super::{Key, ShardId};

/// A set of shards of one database (at most 1,024).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ShardSet(smallvec::SmallVec<[u64; 2]>);

/// One end of a range predicate on the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyBound {
    Unbounded,
    Included(Key),
    Excluded(Key),
}

/// How one sharded table's keys are spread: ranges, lists, hash, and perhaps a default shard.
#[derive(Clone, Debug, PartialEq)]
pub struct Mapping {
    /// Sorted, disjoint, half-open `[start, end)`; `None` is an open end.
    pub ranges: Vec<KeyRange>,
    pub lists: Vec<(Key, ShardId)>,
    /// `modulus` and the shard of each remainder.
    pub hash: Option<(u32, Vec<ShardId>)>,
    /// Takes every key that nothing else takes, and NULL.
    pub default: Option<ShardId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    pub start: Option<Key>,
    pub end: Option<Key>,
    pub shard: ShardId,
}

impl ShardSet {
    /// Shards `0..count`.
    pub fn first(count: usize) -> Self {
        let mut set = Self::default();
        (0..count).for_each(|shard| set.insert(ShardId(u16::try_from(shard).expect("at most 1,024 shards"))));
        set
    }

    pub fn insert(&mut self, shard: ShardId) {
        let (word, bit) = (usize::from(shard.0 / 64), shard.0 % 64);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << bit;
    }

    pub fn iter(&self) -> impl Iterator<Item = ShardId> {
        let words = self.0.iter().zip(0u16..);
        words.flat_map(|(bits, word)| {
            (0..64).filter(move |bit| bits & (1 << bit) != 0).map(move |bit| ShardId(word * 64 + bit))
        })
    }
}
