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
    /// `modulus` and the shard of each remainder (of the integer key, by Euclid).
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

impl KeyRange {
    pub fn contains(&self, key: &Key) -> bool {
        self.start.as_ref().is_none_or(|start| start <= key) && self.end.as_ref().is_none_or(|end| key < end)
    }
}

impl Mapping {
    /// Where rows of this key live; `None`: nowhere.
    pub fn shard_of(&self, key: &Key) -> Option<ShardId> {
        let after = self.ranges.partition_point(|range| range.start.as_ref().is_none_or(|start| start <= key));
        let range = after.checked_sub(1).map(|index| &self.ranges[index]).filter(|range| range.contains(key));
        range
            .map(|range| range.shard)
            .or_else(|| self.lists.iter().find(|(listed, _)| listed == key).map(|(_, shard)| *shard))
            .or_else(|| self.by_remainder(key))
            .or(self.default)
    }

    fn by_remainder(&self, key: &Key) -> Option<ShardId> {
        let ((modulus, shards), Key::Int(number)) = (self.hash.as_ref()?, key) else { return None };
        usize::try_from(number.rem_euclid(i64::from(*modulus))).ok().and_then(|rest| shards.get(rest)).copied()
    }

    /// Every shard that may hold a row whose key lies between the bounds.
    pub fn shards_between(&self, low: &KeyBound, high: &KeyBound) -> ShardSet {
        let mut set = ShardSet::default();
        let within = |key: &Key| above(key, low) && below(key, high);
        for range in &self.ranges {
            let ends_before = match (&range.end, low) {
                (Some(end), KeyBound::Included(low) | KeyBound::Excluded(low)) => end <= low,
                _ => false,
            };
            let starts_after = match (&range.start, high) {
                (Some(start), KeyBound::Included(high)) => start > high,
                (Some(start), KeyBound::Excluded(high)) => start >= high,
                _ => false,
            };
            if !ends_before && !starts_after {
                set.insert(range.shard);
            }
        }
        self.lists.iter().filter(|(key, _)| within(key)).for_each(|(_, shard)| set.insert(*shard));
        self.hash.iter().flat_map(|(_, shards)| shards).chain(&self.default).for_each(|shard| set.insert(*shard));
        set
    }

    /// Every shard that may hold rows at all.
    pub fn all(&self) -> ShardSet {
        self.shards_between(&KeyBound::Unbounded, &KeyBound::Unbounded)
    }
}

fn above(key: &Key, low: &KeyBound) -> bool {
    match low {
        KeyBound::Unbounded => true,
        KeyBound::Included(low) => key >= low,
        KeyBound::Excluded(low) => key > low,
    }
}

fn below(key: &Key, high: &KeyBound) -> bool {
    match high {
        KeyBound::Unbounded => true,
        KeyBound::Included(high) => key <= high,
        KeyBound::Excluded(high) => key < high,
    }
}

impl ShardSet {
    /// Shards `0..count`.
    pub fn first(count: usize) -> Self {
        let mut set = Self::default();
        (0..count).for_each(|shard| set.insert(ShardId(u16::try_from(shard).expect("at most 1,024 shards"))));
        set
    }

    pub fn one(shard: ShardId) -> Self {
        let mut set = Self::default();
        set.insert(shard);
        set
    }

    pub fn insert(&mut self, shard: ShardId) {
        let (word, bit) = (usize::from(shard.0 / 64), shard.0 % 64);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << bit;
    }

    pub fn union(&mut self, other: &Self) {
        other.iter().for_each(|shard| self.insert(shard));
    }

    pub fn intersect(&mut self, other: &Self) {
        for (word, bits) in self.0.iter_mut().enumerate() {
            *bits &= other.0.get(word).copied().unwrap_or(0);
        }
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|bits| bits.count_ones() as usize).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|bits| *bits == 0)
    }

    /// Its shard, if it is just one.
    pub fn only(&self) -> Option<ShardId> {
        if self.len() == 1 { self.iter().next() } else { None }
    }

    pub fn iter(&self) -> impl Iterator<Item = ShardId> {
        let words = self.0.iter().zip(0u16..);
        words.flat_map(|(bits, word)| {
            (0..64).filter(move |bit| bits & (1 << bit) != 0).map(move |bit| ShardId(word * 64 + bit))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping() -> Mapping {
        let range = |start, end, shard| KeyRange {
            start: Some(Key::Int(start)),
            end: Some(Key::Int(end)),
            shard: ShardId(shard),
        };
        Mapping {
            ranges: vec![range(1, 100, 0), range(100, 200, 1), KeyRange { end: None, ..range(300, 0, 2) }],
            lists: vec![(Key::Int(250), ShardId(3))],
            hash: None,
            default: None,
        }
    }

    #[test]
    fn ranges_are_half_open() {
        let shard = |key| mapping().shard_of(&Key::Int(key)).map(|shard| shard.0);
        for (key, expected) in
            [(0, None), (1, Some(0)), (99, Some(0)), (100, Some(1)), (200, None), (250, Some(3)), (i64::MAX, Some(2))]
        {
            assert_eq!(shard(key), expected, "{key}");
        }
    }

    #[test]
    fn a_range_of_keys_is_on_the_shards_it_touches() {
        let between = |low, high| {
            let set = mapping().shards_between(&low, &high);
            set.iter().map(|shard| shard.0).collect::<Vec<_>>()
        };
        let (included, excluded) = (|key| KeyBound::Included(Key::Int(key)), |key| KeyBound::Excluded(Key::Int(key)));
        assert_eq!(between(included(50), excluded(100)), [0]);
        assert_eq!(between(included(50), included(100)), [0, 1]);
        assert_eq!(between(included(200), included(299)), [3]);
        assert_eq!(between(KeyBound::Unbounded, excluded(1)), [0u16; 0]);
        assert_eq!(between(KeyBound::Unbounded, KeyBound::Unbounded), [0, 1, 2, 3]);
    }

    #[test]
    fn remainders_are_never_negative() {
        let hash = Some((2, vec![ShardId(0), ShardId(1)]));
        let mapping = Mapping { ranges: Vec::new(), lists: Vec::new(), hash, default: None };
        assert_eq!(mapping.shard_of(&Key::Int(-3)), Some(ShardId(1)));
    }
}
