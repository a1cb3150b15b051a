//! From conditions to shards: what the key of each sharded relation can be.

use std::sync::Arc;

use super::relations::{Resolved, Sharded};
use crate::error::Error;
use crate::statement::{ColumnRef, Comparison, Given, InsertedRows, Predicate, Statement, Value, Values};
use crate::topology::{Key, KeyBound, KeyType, ShardId, ShardSet};

/// The sharded relations of a statement and what its conditions say about their keys.
#[derive(Debug)]
pub(super) struct Keyed {
    pub relations: Vec<KeyedRelation>,
    /// Of each block that has one: the block and its condition.
    rules: Vec<(usize, Rule)>,
    /// Of relations into which rows are inserted: their keys.
    inserted: Vec<(usize, Vec<Value>)>,
    /// `to` has the key of `from`: rows of `to` that matter are where those of `from` are.
    ties: Vec<Tie>,
}

#[derive(Debug)]
pub(super) struct KeyedRelation {
    pub block: usize,
    pub relation: usize,
    pub name: String,
    pub sharded: Arc<Sharded>,
    pub nullable: bool,
    pub written: bool,
}

/// A column of a keyed relation, which is the one of this index.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ColumnOf {
    pub relation: usize,
    pub column: String,
}

#[derive(Debug, PartialEq)]
struct Tie {
    from: usize,
    to: usize,
}

/// A condition on keys: an index is that of a relation in [`Keyed::relations`].
#[derive(Debug)]
enum Rule {
    Any,
    Never,
    And(Vec<Rule>),
    Or(Vec<Rule>),
    Compare(usize, Comparison, Value),
    In(usize, Vec<Value>),
    InArray(usize, Value),
    Null(usize),
}

impl Keyed {
    pub(super) fn new(statement: &Statement, resolved: &[Resolved]) -> Self {
        let relations = resolved.iter().filter_map(|relation| {
            let sharded = Arc::clone(relation.sharded()?);
            let Resolved { block, relation: index, name, nullable, written, .. } = relation;
            Some(KeyedRelation {
                block: *block,
                relation: *index,
                name: name.clone(),
                sharded,
                nullable: *nullable,
                written: *written,
            })
        });
        let mut keyed =
            Self { relations: relations.collect(), rules: Vec::new(), inserted: Vec::new(), ties: Vec::new() };
        for (block, data) in statement.blocks.iter().enumerate() {
            let resolver = Resolver { statement, resolved, keyed: &keyed.relations, block };
            let rule = resolver.rule(&data.filter);
            let mut ties = Vec::new();
            resolver.ties(&data.filter, &mut ties);
            keyed.ties.extend(ties);
            if !matches!(rule, Rule::Any) {
                keyed.rules.push((block, rule));
            }
        }
        keyed.add_inserted(statement, resolved);
        keyed
    }

    /// Pairs of columns: rows with the second one matter only where it equals the first one's of a row that matters.
    pub(super) fn equalities(&self, statement: &Statement, resolved: &[Resolved]) -> Vec<(ColumnOf, ColumnOf)> {
        let mut found = Vec::new();
        for (block, data) in statement.blocks.iter().enumerate() {
            let resolver = Resolver { statement, resolved, keyed: &self.relations, block };
            resolver.equalities(&data.filter, &mut found);
        }
        found
    }

    /// Rows that are inserted as VALUES are the ones that matter.
    fn add_inserted(&mut self, statement: &Statement, resolved: &[Resolved]) {
        for inserted in statement.inserted.iter().filter(|inserted| !inserted.merges) {
            let (Some(rows), Some((index, place))) = (&inserted.rows, self.key_inserted(inserted, resolved)) else {
                continue;
            };
            let keys: Option<Vec<Value>> = rows.iter().map(|row| row.get(place).cloned()).collect();
            if let Some(keys) = keys {
                self.rules.push((self.relations[index].block, Rule::In(index, keys.clone())));
                self.inserted.push((index, keys));
            }
        }
    }

    /// The relation that rows are inserted into, and which of their values is the key.
    fn key_inserted(&self, inserted: &InsertedRows, resolved: &[Resolved]) -> Option<(usize, usize)> {
        let of = (inserted.target.block, inserted.target.relation);
        let index = self.relations.iter().position(|keyed| (keyed.block, keyed.relation) == of)?;
        let column = &self.relations[index].sharded.column;
        let place = match inserted.columns.as_slice() {
            [] => {
                let known = resolved.iter().find(|known| (known.block, known.relation) == of)?;
                known.catalog.as_ref()?.columns.iter().position(|known| known.name == *column)
            }
            listed => listed.iter().position(|name| name == column),
        };
        Some((index, place?))
    }

    /// Every key that is inserted has a shard, as far as they are known.
    pub(super) fn check_inserted(&self, values: &Values<'_>) -> Result<(), Error> {
        for (index, keys) in &self.inserted {
            let KeyedRelation { name, sharded, .. } = &self.relations[*index];
            for key in keys {
                sharded.place(name, key, values).transpose()?;
            }
        }
        Ok(())
    }

    /// A MERGE inserts rows with the key of a row that is on the same shard, if any.
    pub(super) fn inserts_where_it_reads(&self, statement: &Statement, resolved: &[Resolved]) -> bool {
        statement.inserted.iter().all(|inserted| {
            let (Some(rows), Some((index, place))) = (&inserted.rows, self.key_inserted(inserted, resolved)) else {
                return false;
            };
            let resolver = Resolver { statement, resolved, keyed: &self.relations, block: inserted.target.block };
            rows.iter().all(|row| match row.get(place) {
                Some(Value::Column(column)) => resolver.key(column).is_some_and(|of| {
                    of != index && self.alike(of, index) && self.relations[of].block == self.relations[index].block
                }),
                _ => false,
            })
        })
    }

    /// Where the rows of each relation that matter may be.
    pub(super) fn shards(&self, values: &Values<'_>) -> Vec<ShardSet> {
        let mut sets: Vec<ShardSet> = self.relations.iter().map(|relation| relation.sharded.mapping.all()).collect();
        for (index, relation) in self.relations.iter().enumerate() {
            for (_, rule) in self.rules.iter().filter(|(block, _)| *block == relation.block) {
                if let Some(set) = rule.shards(index, &relation.sharded, values) {
                    sets[index].intersect(&set);
                }
            }
        }
        // Along chains of ties, whatever their order.
        for _ in 0..self.relations.len() {
            for tie in &self.ties {
                let from = sets[tie.from].clone();
                sets[tie.to].intersect(&from);
            }
        }
        sets
    }

    /// The shard of a statement over one relation whose key is compared with one value: the way of nearly all.
    pub(super) fn single(&self, values: &Values<'_>) -> Option<ShardId> {
        let ([relation], [(block, rule)]) = (self.relations.as_slice(), self.rules.as_slice()) else { return None };
        if relation.block != *block {
            return None;
        }
        let equality = |rule: &Rule| match rule {
            Rule::Compare(0, Comparison::Equal, value) => relation.sharded.shard_of(value, values),
            _ => None,
        };
        match rule {
            Rule::And(terms) => terms.iter().find_map(equality),
            rule => equality(rule),
        }
    }

    /// What the conditions say about each relation's key, and the shards that follow.
    pub(super) fn describe(&self, values: &Values<'_>) -> Vec<String> {
        let sets = self.shards(values);
        let line = |(index, relation): (usize, &KeyedRelation)| {
            let rules = self.rules.iter().filter(|(block, _)| *block == relation.block);
            let told: Vec<String> =
                rules.filter_map(|(_, rule)| rule.describe(index, &relation.sharded, values)).collect();
            let tied = self.ties.iter().find(|tie| tie.to == index && tie.from != index);
            let told = match (told.is_empty(), tied) {
                (false, _) => told.join(" and "),
                (true, Some(tie)) => {
                    let from = &self.relations[tie.from];
                    format!("{} = {}.{}", relation.sharded.column, from.name, from.sharded.column)
                }
                (true, None) => format!("any {}", relation.sharded.column),
            };
            let shards: Vec<String> = sets[index].iter().map(|shard| shard.0.to_string()).collect();
            let shards = if shards.is_empty() { "none".to_owned() } else { shards.join(", ") };
            format!("{}: {told}: shards {shards}", relation.name)
        };
        self.relations.iter().enumerate().map(line).collect()
    }

    /// Every relation has its key from `root`, directly or not.
    pub(super) fn all_tied_to(&self, root: usize) -> bool {
        let mut tied = vec![false; self.relations.len()];
        tied[root] = true;
        for _ in 0..self.relations.len() {
            for tie in self.ties.iter().filter(|tie| self.alike(tie.from, tie.to)) {
                tied[tie.to] |= tied[tie.from];
            }
        }
        tied.into_iter().all(|tied| tied)
    }

    fn alike(&self, one: usize, other: usize) -> bool {
        self.relations[one].sharded.colocation == self.relations[other].sharded.colocation
    }

    /// Its rows have one of a few keys.
    pub(super) fn is_pinned(&self, relation: usize) -> bool {
        let block = self.relations[relation].block;
        self.rules.iter().any(|(of, rule)| *of == block && rule.pins(relation))
    }

    /// Whether a column of the outermost block is the key of a relation whose every row has one: where all relations are
    /// tied, rows with equal keys are on one shard.
    pub(super) fn is_key(&self, column: &ColumnRef) -> bool {
        self.relations.iter().any(|relation| {
            relation.block == 0
                && !relation.nullable
                && column.column == relation.sharded.column
                && column.relation.is_some_and(|of| (of.block, of.relation) == (relation.block, relation.relation))
        })
    }

    /// What to do where one shard is needed.
    pub(super) fn add_condition(&self) -> String {
        let column = self.relations.first().map_or("the shard key", |relation| relation.sharded.column.as_str());
        format!("Add a condition on \"{column}\" that fixes one shard, or a routing hint /* pgweir: shard=N */.")
    }
}

struct Resolver<'a> {
    statement: &'a Statement,
    resolved: &'a [Resolved],
    keyed: &'a [KeyedRelation],
    block: usize,
}

impl Resolver<'_> {
    fn rule(&self, predicate: &Predicate) -> Rule {
        match predicate {
            Predicate::False => Rule::Never,
            Predicate::And(terms) => {
                let rules: Vec<Rule> =
                    terms.iter().map(|term| self.rule(term)).filter(|rule| !matches!(rule, Rule::Any)).collect();
                if rules.is_empty() { Rule::Any } else { Rule::And(rules) }
            }
            Predicate::Or(terms) => Rule::Or(terms.iter().map(|term| self.rule(term)).collect()),
            Predicate::Compare { column, comparison, value } => {
                self.of(column, |index| Rule::Compare(index, *comparison, value.clone()))
            }
            Predicate::In { column, values, .. } => self.of(column, |index| Rule::In(index, values.clone())),
            Predicate::EqualsAny { column, array } => self.of(column, |index| Rule::InArray(index, array.clone())),
            // On the nullable side of an outer join it asks for rows that are not there.
            Predicate::IsNull(column) => match self.key(column) {
                Some(index) if !self.keyed[index].nullable => Rule::Null(index),
                _ => Rule::Any,
            },
            Predicate::True | Predicate::Same(..) | Predicate::Follows { .. } => Rule::Any,
        }
    }

    fn of(&self, column: &ColumnRef, make: impl FnOnce(usize) -> Rule) -> Rule {
        self.key(column).map_or(Rule::Any, make)
    }

    /// Equalities that hold for every row of the block: at its top, joined by AND.
    fn ties(&self, predicate: &Predicate, ties: &mut Vec<Tie>) {
        each_restriction(predicate, &mut |from, to| self.tie(from, to, ties));
    }

    fn tie(&self, from: &ColumnRef, to: &ColumnRef, ties: &mut Vec<Tie>) {
        let (Some(from), Some(to)) = (self.key(from), self.key(to)) else { return };
        if self.keyed[from].sharded.colocation == self.keyed[to].sharded.colocation && self.follows(from, to) {
            ties.push(Tie { from, to });
        }
    }

    fn equalities(&self, predicate: &Predicate, found: &mut Vec<(ColumnOf, ColumnOf)>) {
        each_restriction(predicate, &mut |from, to| {
            let (Some(from), Some(to)) = (self.column_of(from), self.column_of(to)) else { return };
            let is_given = self.is_within(from.relation, to.relation);
            if from.relation != to.relation && (is_given || self.follows(from.relation, to.relation)) {
                found.push((from, to));
            }
        });
    }

    /// A subquery of this block gives values of `from`; `to` is the block's own.
    fn is_within(&self, from: usize, to: usize) -> bool {
        let parent = self.statement.blocks[self.keyed[from].block].parent;
        self.keyed[to].block == self.block && parent == Some(self.block)
    }

    /// Whether a condition of this block can restrict `to` by `from`: within the block, or from around it into the block
    /// or a subquery directly in it; never a relation around it.
    fn follows(&self, from: usize, to: usize) -> bool {
        let (from, to) = (self.keyed[from].block, self.keyed[to].block);
        let parent = |block: usize| self.statement.blocks[block].parent;
        let mut next = Some(self.block);
        while let Some(block) = next {
            if block == from {
                return to == self.block || (to != from && parent(to) == Some(self.block));
            }
            next = parent(block);
        }
        false
    }

    /// The keyed relation whose key a column is.
    fn key(&self, column: &ColumnRef) -> Option<usize> {
        let found = self.column_of(column)?.relation;
        (self.keyed[found].sharded.column == column.column).then_some(found)
    }

    /// The keyed relation that a column belongs to.
    fn column_of(&self, column: &ColumnRef) -> Option<ColumnOf> {
        let of = match column.relation {
            Some(of) => (of.block, of.relation),
            None => owner(self.statement, self.resolved, column)?,
        };
        let relation = self.keyed.iter().position(|keyed| (keyed.block, keyed.relation) == of)?;
        Some(ColumnOf { relation, column: column.column.clone() })
    }
}

/// Equalities that hold for every row of a block: the second column may be restricted by the first one.
fn each_restriction(predicate: &Predicate, add: &mut dyn FnMut(&ColumnRef, &ColumnRef)) {
    match predicate {
        Predicate::And(terms) => terms.iter().for_each(|term| each_restriction(term, add)),
        Predicate::Same(one, other) => {
            add(one, other);
            add(other, one);
        }
        Predicate::Follows { from, to } => add(from, to),
        _ => {}
    }
}

/// The relation that an unqualified column belongs to: of the block it is written in, else of one around it, as far as every relation's
/// columns are known.
pub(super) fn owner(statement: &Statement, resolved: &[Resolved], column: &ColumnRef) -> Option<(usize, usize)> {
    let mut next = Some(column.at);
    while let Some(block) = next {
        let data = &statement.blocks[block];
        let mut owner = None;
        for index in 0..data.relations.len() {
            let known = resolved.iter().find(|known| (known.block, known.relation) == (block, index))?;
            if known.catalog.as_ref()?.column(&column.column).is_some() && owner.replace((block, index)).is_some() {
                return None;
            }
        }
        if owner.is_some() {
            return owner;
        }
        next = data.parent;
    }
    None
}

impl Rule {
    /// It leaves a few keys of the relation.
    fn pins(&self, relation: usize) -> bool {
        match self {
            Self::And(terms) => terms.iter().any(|term| term.pins(relation)),
            Self::Compare(of, Comparison::Equal, _) | Self::In(of, _) | Self::InArray(of, _) => *of == relation,
            _ => false,
        }
    }

    /// `None`: says nothing about the relation.
    fn shards(&self, relation: usize, sharded: &Sharded, values: &Values<'_>) -> Option<ShardSet> {
        match self {
            Self::Any => None,
            Self::Never => Some(ShardSet::default()),
            Self::And(terms) => {
                let mut sets = terms.iter().filter_map(|term| term.shards(relation, sharded, values));
                let first = sets.next()?;
                Some(sets.fold(first, |mut all, set| {
                    all.intersect(&set);
                    all
                }))
            }
            Self::Or(terms) => {
                let mut all = ShardSet::default();
                for term in terms {
                    all.union(&term.shards(relation, sharded, values)?);
                }
                Some(all)
            }
            Self::Compare(of, comparison, value) if *of == relation => sharded.compared(*comparison, value, values),
            Self::In(of, list) if *of == relation => {
                let mut all = ShardSet::default();
                for value in list {
                    all.union(&sharded.compared(Comparison::Equal, value, values)?);
                }
                Some(all)
            }
            Self::InArray(of, array) if *of == relation => sharded.in_array(array, values),
            Self::Null(of) if *of == relation => Some(sharded.mapping.default.map(ShardSet::one).unwrap_or_default()),
            _ => None,
        }
    }
}

/// The bound of all that is greater: between two whole numbers there is none.
fn above(key: Key) -> KeyBound {
    match key {
        Key::Int(number) if number < i64::MAX => KeyBound::Included(Key::Int(number + 1)),
        key => KeyBound::Excluded(key),
    }
}

impl Rule {
    /// In words, as far as it is about the relation; `None`: says nothing about it.
    fn describe(&self, relation: usize, sharded: &Sharded, values: &Values<'_>) -> Option<String> {
        let column = &sharded.column;
        match self {
            Self::Never => Some("never".to_owned()),
            Self::And(terms) => {
                let told: Vec<String> =
                    terms.iter().filter_map(|term| term.describe(relation, sharded, values)).collect();
                (!told.is_empty()).then(|| told.join(" and "))
            }
            Self::Or(terms) => {
                let told: Option<Vec<String>> =
                    terms.iter().map(|term| term.describe(relation, sharded, values)).collect();
                Some(format!("({})", told?.join(" or ")))
            }
            Self::Compare(of, comparison, value) if *of == relation => {
                let sign = match comparison {
                    Comparison::Equal => "=",
                    Comparison::Less => "<",
                    Comparison::LessOrEqual => "<=",
                    Comparison::Greater => ">",
                    Comparison::GreaterOrEqual => ">=",
                };
                Some(format!("{column} {sign} {}", sharded.show(value, values)))
            }
            Self::In(of, list) if *of == relation => {
                let shown = list.iter().take(SHOWN_VALUES).map(|value| sharded.show(value, values));
                let more = (list.len() > SHOWN_VALUES).then(|| "…".to_owned());
                Some(format!("{column} in ({})", shown.chain(more).collect::<Vec<_>>().join(", ")))
            }
            Self::InArray(of, _) if *of == relation => Some(format!("{column} in an array")),
            Self::Null(of) if *of == relation => Some(format!("{column} is null")),
            _ => None,
        }
    }
}

const SHOWN_VALUES: usize = 8;

/// What a value is to a key.
#[derive(Debug, PartialEq)]
pub(super) enum KeyValue {
    Key(Key),
    Null,
    /// Equal to no key of the type; the bound below which it lies, if it is a number.
    Outside(Option<std::cmp::Ordering>),
    Unknown,
}

impl Sharded {
    /// The key that a value is.
    pub(super) fn key(&self, value: &Value, values: &Values<'_>) -> KeyValue {
        let (given, negated, cast) = match value {
            Value::Null => return KeyValue::Null,
            Value::Literal { index, negated, cast } => (values.literal(*index), *negated, cast),
            Value::Parameter { index, cast } => (values.parameter(*index), false, cast),
            _ => return KeyValue::Unknown,
        };
        if cast.as_deref().is_some_and(|cast| !self.accepts(cast)) {
            return KeyValue::Unknown;
        }
        match given {
            Given::Null => KeyValue::Null,
            Given::Missing => KeyValue::Unknown,
            Given::Binary { type_oid, bytes } => {
                Key::from_binary(self.key_type, type_oid, bytes).map_or(KeyValue::Unknown, KeyValue::Key)
            }
            Given::Text(text) => self.read_text(&text, negated),
        }
    }

    /// Where a row goes that is given this key. `None`: that is not known.
    pub(super) fn place(&self, table: &str, value: &Value, values: &Values<'_>) -> Option<Result<ShardId, Error>> {
        Some(match self.key(value, values) {
            KeyValue::Key(key) => {
                self.mapping.shard_of(&key).ok_or_else(|| self.nowhere(table, format!("value {key}")))
            }
            KeyValue::Null => self.mapping.default.ok_or_else(|| self.nowhere(table, "a NULL")),
            KeyValue::Outside(_) => Err(self.nowhere(table, "a value beyond the key's type")),
            KeyValue::Unknown => return None,
        })
    }

    /// A value in words.
    pub(super) fn show(&self, value: &Value, values: &Values<'_>) -> String {
        match (self.key(value, values), value) {
            (KeyValue::Key(key), _) => key.to_string(),
            (KeyValue::Null, _) => "NULL".to_owned(),
            (KeyValue::Outside(_), _) => "a number beyond bigint".to_owned(),
            (KeyValue::Unknown, Value::Parameter { index, .. }) => format!("${} (not known)", index + 1),
            (KeyValue::Unknown, _) => "a value that is not known".to_owned(),
        }
    }

    fn read_text(&self, text: &str, negated: bool) -> KeyValue {
        if !matches!(self.key_type, KeyType::Bigint | KeyType::Integer) {
            let key = Key::from_text(self.key_type, text).filter(|_| !negated);
            return key.map_or(KeyValue::Unknown, KeyValue::Key);
        }
        let signed = if negated { format!("-{}", text.trim()) } else { text.trim().to_owned() };
        // A wider integer type compares as a number: what is beyond bigint is beyond every key.
        match signed.parse::<i128>() {
            Ok(number) => match i64::try_from(number) {
                Ok(number) => KeyValue::Key(Key::Int(number)),
                Err(_) => KeyValue::Outside(Some(number.cmp(&0))),
            },
            Err(_) => match signed.split_once('.') {
                Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|digit| digit == b'0') => {
                    whole.parse().map_or(KeyValue::Unknown, |number| KeyValue::Key(Key::Int(number)))
                }
                _ => KeyValue::Unknown,
            },
        }
    }

    /// Types between which and the key's own a comparison goes by the value.
    fn accepts(&self, cast: &str) -> bool {
        match self.key_type {
            KeyType::Bigint | KeyType::Integer => {
                matches!(cast, "bigint" | "int8" | "integer" | "int" | "int4" | "smallint" | "int2")
            }
            KeyType::Uuid => cast == "uuid",
            KeyType::Text => matches!(cast, "text" | "varchar" | "character varying"),
            KeyType::Date => cast == "date",
            KeyType::Timestamptz => matches!(cast, "timestamptz" | "timestamp with time zone"),
        }
    }

    fn shard_of(&self, value: &Value, values: &Values<'_>) -> Option<ShardId> {
        match self.key(value, values) {
            KeyValue::Key(key) => self.mapping.shard_of(&key),
            _ => None,
        }
    }

    fn compared(&self, comparison: Comparison, value: &Value, values: &Values<'_>) -> Option<ShardSet> {
        use std::cmp::Ordering;
        let key = match self.key(value, values) {
            KeyValue::Key(key) => key,
            KeyValue::Null => return Some(ShardSet::default()),
            KeyValue::Unknown => return None,
            KeyValue::Outside(side) => {
                let all = match (comparison, side) {
                    (Comparison::Less | Comparison::LessOrEqual, Some(Ordering::Greater))
                    | (Comparison::Greater | Comparison::GreaterOrEqual, Some(Ordering::Less)) => return None,
                    _ => ShardSet::default(),
                };
                return Some(all);
            }
        };
        // Text is compared by the column's collation; ranges of keys are by bytes.
        if self.key_type == KeyType::Text && comparison != Comparison::Equal {
            return None;
        }
        Some(match comparison {
            Comparison::Equal => self.mapping.shard_of(&key).map(ShardSet::one).unwrap_or_default(),
            Comparison::Less => self.mapping.shards_between(&KeyBound::Unbounded, &KeyBound::Excluded(key)),
            Comparison::LessOrEqual => self.mapping.shards_between(&KeyBound::Unbounded, &KeyBound::Included(key)),
            Comparison::Greater => self.mapping.shards_between(&above(key), &KeyBound::Unbounded),
            Comparison::GreaterOrEqual => self.mapping.shards_between(&KeyBound::Included(key), &KeyBound::Unbounded),
        })
    }

    /// `= ANY` of one array: `'{1,2}'` or PostgreSQL's binary form (array_send).
    fn in_array(&self, array: &Value, values: &Values<'_>) -> Option<ShardSet> {
        let given = match array {
            Value::Literal { index, negated: false, .. } => values.literal(*index),
            Value::Parameter { index, .. } => values.parameter(*index),
            _ => return None,
        };
        let keys = match given {
            Given::Null => return Some(ShardSet::default()),
            Given::Text(text) => self.text_array(&text)?,
            Given::Binary { bytes, .. } => self.binary_array(bytes)?,
            Given::Missing => return None,
        };
        let mut all = ShardSet::default();
        keys.iter().filter_map(|key| self.mapping.shard_of(key)).for_each(|shard| all.insert(shard));
        Some(all)
    }

    fn text_array(&self, text: &str) -> Option<Vec<Key>> {
        let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
        let mut keys = Vec::new();
        for item in inner.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            if item.eq_ignore_ascii_case("null") {
                continue;
            }
            let plain = item.strip_prefix('"').and_then(|item| item.strip_suffix('"')).unwrap_or(item);
            if plain.contains(['"', '\\', '{']) {
                return None;
            }
            keys.push(Key::from_text(self.key_type, plain)?);
        }
        Some(keys)
    }

    fn binary_array(&self, bytes: &[u8]) -> Option<Vec<Key>> {
        let word =
            |at: usize| bytes.get(at..at + 4).map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
        let (dimensions, element) = (word(0)?, word(8)?);
        if dimensions == 0 {
            return Some(Vec::new());
        }
        let (count, mut at) = (if dimensions == 1 { word(12)? } else { return None }, 20);
        let mut keys = Vec::new();
        for _ in 0..count {
            let length = word(at)?;
            at += 4;
            if length != u32::MAX {
                let length = usize::try_from(length).ok()?;
                keys.push(Key::from_binary(self.key_type, element, bytes.get(at..at.checked_add(length)?)?)?);
                at += length;
            }
        }
        Some(keys)
    }
}
