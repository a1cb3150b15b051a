//! Which shard a key belongs to, as a server can tell it of its own rows.

use super::relations::Sharded;
use crate::statement::{quoted_literal, quoted_name};
use crate::topology::{Key, KeyRange, KeyType};

impl Sharded {
    /// The number of the shard that a row belongs to, in SQL: as [`crate::topology::Mapping::shard_of`] finds it, and
    /// NULL where it belongs nowhere.
    pub fn owner(&self) -> String {
        let key = self.in_sql();
        let mapping = &self.mapping;
        let default = mapping.default.map_or_else(|| "NULL".to_owned(), |shard| shard.0.to_string());
        let mut arms = format!("WHEN {key} IS NULL THEN {default}");
        for range in &mapping.ranges {
            arms += &format!(" WHEN {} THEN {}", within(range, &key), range.shard.0);
        }
        for (listed, shard) in &mapping.lists {
            arms += &format!(" WHEN {key} = {} THEN {}", literal(listed), shard.0);
        }
        if let Some((modulus, shards)) = &mapping.hash {
            let shards: Vec<String> = shards.iter().map(|shard| shard.0.to_string()).collect();
            let rest = format!("mod(mod({key}::bigint, {modulus}) + {modulus}, {modulus})");
            arms += &format!(" WHEN true THEN (ARRAY[{}])[1 + {rest}]", shards.join(", "));
        }
        format!("CASE {arms} ELSE {default} END")
    }

    /// The key as it is compared.
    fn in_sql(&self) -> String {
        let column = quoted_name(&self.column);
        match self.key_type {
            KeyType::Text => format!("({column}::text COLLATE \"C\")"),
            _ => column,
        }
    }
}

fn within(range: &KeyRange, key: &str) -> String {
    let start = range.start.as_ref().map(|start| format!("{key} >= {}", literal(start)));
    let end = range.end.as_ref().map(|end| format!("{key} < {}", literal(end)));
    let bounds: Vec<String> = start.into_iter().chain(end).collect();
    if bounds.is_empty() { "true".to_owned() } else { bounds.join(" AND ") }
}

fn literal(key: &Key) -> String {
    match key {
        Key::Int(number) => format!("'{number}'::bigint"),
        Key::Uuid(uuid) => format!("'{uuid:032x}'::uuid"),
        Key::Text(text) => format!("{}::text", quoted_literal(text)),
        Key::Date(days) => format!("('2000-01-01'::date + ({days}))"),
        Key::Timestamptz(micros) => {
            // In two numbers, as one of microseconds alone would be rounded.
            let (seconds, rest) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
            format!("('2000-01-01 00:00:00+00'::timestamptz + '{seconds} seconds {rest} microseconds'::interval)")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{Mapping, ShardId};

    fn owner(key_type: KeyType, mapping: Mapping) -> String {
        Sharded { column: "k".to_owned(), key_type, mapping, colocation: 0 }.owner()
    }

    #[test]
    fn owners_are_told_in_the_order_of_the_mapping() {
        let range = |start, end, shard| KeyRange { start, end, shard: ShardId(shard) };
        let mapping = Mapping {
            ranges: vec![range(None, Some(Key::Int(-5)), 0), range(Some(Key::Int(10)), None, 1)],
            lists: vec![(Key::Int(7), ShardId(2))],
            hash: None,
            default: Some(ShardId(3)),
        };
        assert_eq!(
            owner(KeyType::Bigint, mapping),
            "CASE WHEN \"k\" IS NULL THEN 3 WHEN \"k\" < '-5'::bigint THEN 0 WHEN \"k\" >= '10'::bigint THEN 1 \
             WHEN \"k\" = '7'::bigint THEN 2 ELSE 3 END"
        );
    }

    #[test]
    fn remainders_are_never_negative() {
        let hash = Some((2, vec![ShardId(1), ShardId(0)]));
        let mapping = Mapping { ranges: Vec::new(), lists: Vec::new(), hash, default: None };
        assert_eq!(
            owner(KeyType::Integer, mapping),
            "CASE WHEN \"k\" IS NULL THEN NULL \
             WHEN true THEN (ARRAY[1, 0])[1 + mod(mod(\"k\"::bigint, 2) + 2, 2)] ELSE NULL END"
        );
    }
}
