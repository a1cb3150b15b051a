//! UPDATE of the shard key: rows whose new key is another shard's go there.
//!
//! Each shard locks the rows and tells what they become. Those that stay are updated in place by the client's own
//! statement. The others are inserted where they belong, then deleted where they were: in this order, so that keys which
//! are taken are found to be so, as by an UPDATE.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::gather::Gathering;
use super::keys::Keyed;
use super::relations::{Class, Resolved, Sharded};
use super::rewrite::{self, Splice};
use super::surroundings::Surroundings;
use super::transfer::{Source, Target, casts, written};
use super::types::MARK;
use super::{Access, Fetch, Goal, Move, Part, Plan, Route, Staged, Step, Steps, access};
use crate::catalog::{Cascade, Relation};
use crate::error::{Error, SqlState};
use crate::statement::{
    Assigned, Kind, Statement, Tokens, Update, UpdateClauses, Value, Values, quoted_literal, quoted_name,
};
use crate::topology::{ShardId, ShardSet};

/// An UPDATE of the shard key, its values left open.
#[derive(Debug)]
pub(super) struct Moving {
    keyed: Keyed,
    /// The relation that is written, by index among the keyed ones.
    root: usize,
    home: ShardId,
    /// Rows of tables that live there only take part.
    needs_home: bool,
    /// The new key.
    value: Value,
    /// How it is done where one shard is not enough.
    several: Result<Several, Error>,
}

#[derive(Debug)]
struct Several {
    statement: Tokens,
    clauses: UpdateClauses,
    key: Tokens,
    alias: String,
    /// Columns that are not assigned anything.
    kept: Vec<String>,
    table: Table,
    /// Rows of other shards take part.
    gathering: Option<Box<Gathering>>,
}

/// The table that is written.
#[derive(Clone, Debug, PartialEq)]
struct Table {
    name: String,
    /// With its schema, quoted.
    qualified: String,
    sharded: Arc<Sharded>,
    columns: Vec<Target>,
    /// Rows of it may be in several tables.
    is_tree: bool,
    has_triggers: bool,
    cascades: Vec<Cascade>,
}

/// How rows are moved once it is known what they become.
#[derive(Clone, Debug, PartialEq)]
pub struct Moved {
    table: Table,
    /// The name of the written relation in the client's statement.
    alias: String,
    /// The client's statement, a [`MARK`] where a condition is to be.
    update: Arc<str>,
    /// What the new key is computed from, where it is not the same for all rows.
    key: Option<Arc<str>>,
    /// `INSERT INTO t AS a (…)`
    head: String,
    returning: String,
}

/// The rows that one shard locked.
pub struct Looked<'r> {
    pub shard: ShardId,
    pub types: &'r [u32],
    pub rows: Vec<Vec<Option<&'r str>>>,
}

impl Moving {
    /// `None`: the statement is no UPDATE that changes the shard key.
    pub(super) fn new(
        statement: &Arc<Statement>,
        resolved: &[Resolved],
        surroundings: &Surroundings<'_>,
    ) -> Option<Self> {
        let Kind::Update(update) = &statement.kind else { return None };
        if access::reads_unseen(statement, resolved, surroundings.catalog) {
            return None;
        }
        let known = resolved.iter().find(|known| known.written && known.block == 0)?;
        let sharded = known.sharded()?;
        let place = statement.assigned.iter().position(|assigned| changes_key(assigned, known))?;
        let keyed = Keyed::new(statement, resolved);
        let root = keyed.relations.iter().position(|relation| relation.written)?;
        let mut several = Several::new(statement, update, (known, sharded, place), surroundings);
        let gathering = match super::placing::several(statement, resolved, surroundings, &keyed) {
            Ok(_) => Ok(None),
            Err(error) => match Gathering::new(statement, resolved, surroundings, &keyed) {
                Ok(gathering) => Ok(Some(Box::new(gathering))),
                Err(_) => Err(error),
            },
        };
        several = match (several, gathering) {
            (Ok(several), Ok(gathering)) => Several { gathering, ..several }.checked(&statement.assigned[place].value),
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        let is_elsewhere = |known: &Resolved| !matches!(known.class, Class::Sharded(_) | Class::Reference);
        Some(Self {
            keyed,
            root,
            home: surroundings.database.home,
            needs_home: resolved.iter().any(is_elsewhere),
            value: statement.assigned[place].value.clone(),
            several,
        })
    }

    pub(super) fn plan(&self, values: &Values<'_>) -> Result<Plan, Error> {
        let relation = &self.keyed.relations[self.root];
        let sets = self.keyed.shards(values);
        let to = match relation.sharded.place(&relation.name, &self.value, values) {
            Some(shard) => ShardSet::one(shard?),
            None => relation.sharded.mapping.all(),
        };
        let mut all = to.clone();
        sets.iter().for_each(|set| all.union(set));
        let writes = !sets[self.root].is_empty();
        match all.only().filter(|shard| !self.needs_home || *shard == self.home) {
            Some(shard) => Ok(Plan { route: Route::One(shard), access: Access::Write }),
            None if !writes && !self.needs_home && self.keyed.relations.len() == 1 => {
                Ok(Plan { route: Route::One(self.home), access: Access::Write })
            }
            None => {
                let several = self.several.as_ref().map_err(Clone::clone)?;
                let constant =
                    to.only().is_some() && relation.sharded.place(&relation.name, &self.value, values).is_some();
                let (look, moved, fetches) = several.texts(&sets, constant, values);
                let mut shards = to;
                shards.union(&sets[self.root]);
                fetches.iter().flat_map(|fetch| &fetch.parts).for_each(|part| shards.insert(part.shard));
                let (shards, from) = (shards.iter().collect(), sets[self.root].iter().collect());
                let moving = Staged::Move(Move { shards, from, fetches, look: Arc::from(look), moved });
                Ok(Plan { route: Route::Staged(Box::new(moving)), access: Access::Write })
            }
        }
    }

    /// What is known of the keys, and the shards that follow.
    pub(super) fn describe(&self, values: &Values<'_>) -> Vec<String> {
        self.keyed.describe(values)
    }
}

/// A value that is not the row's own key.
pub(super) fn changes_key(assigned: &Assigned, target: &Resolved) -> bool {
    let Some(sharded) = target.sharded() else { return false };
    let is_target = (assigned.target.block, assigned.target.relation) == (target.block, target.relation);
    // A row that keeps its key: `SET user_id = user_id`, or `= excluded.user_id`, which came to this shard by it.
    let is_kept = matches!(&assigned.value, Value::Column(own)
        if own.column == sharded.column && own.relation.is_none_or(|of| of == assigned.target));
    is_target && assigned.column == sharded.column && !is_kept
}

impl Several {
    fn new(
        statement: &Statement,
        update: &Update,
        (known, sharded, place): (&Resolved, &Arc<Sharded>, usize),
        surroundings: &Surroundings<'_>,
    ) -> Result<Self, Error> {
        let refuse = |what: &str| {
            let what = format!("{what} that changes the shard key \"{}\" of \"{}\"", sharded.column, known.name);
            Err(Error::unsupported(what, "Delete the row and insert it with its new key."))
        };
        let (Some(clauses), Some(table)) = (&update.clauses, &known.catalog) else {
            return refuse("an UPDATE of this form");
        };
        if statement.assigned.iter().any(|assigned| assigned.value == Value::Default) {
            return refuse("an UPDATE to DEFAULT");
        }
        let is_constant =
            |value: &Value| matches!(value, Value::Null | Value::Literal { .. } | Value::Parameter { .. });
        let is_volatile = statement.calls.iter().any(|call| access::is_volatile(call, surroundings.catalog));
        if is_volatile && !is_constant(&statement.assigned[place].value) {
            return refuse("an UPDATE with a volatile function");
        }
        let joins = clauses.from.is_some() || clauses.head.start > statement.tokens.start;
        if joins && clauses.returning.is_some() {
            return refuse("an UPDATE with FROM or WITH and RETURNING");
        }
        let is_assigned = |name: &String| statement.assigned.iter().any(|assigned| assigned.column == *name);
        let kept: Vec<_> = table.given_columns().filter(|column| !is_assigned(&column.name)).collect();
        let own = kept.iter().map(|column| Target::new(column.type_oid, Source::Itself));
        let given = statement.assigned.iter().map(|assigned| {
            let type_oid = table.column(&assigned.column).map_or(0, |column| column.type_oid);
            Target::new(type_oid, if is_untyped(&assigned.value) { Source::Untyped } else { Source::Typed })
        });
        Ok(Self {
            statement: statement.tokens,
            clauses: clauses.clone(),
            key: clauses.assignments[place].value,
            alias: quoted_name(&statement.blocks[known.block].relations[known.relation].alias),
            table: Table::new(known, table, sharded, own.chain(given).collect()),
            kept: kept.into_iter().map(|column| column.name.clone()).collect(),
            gathering: None,
        })
    }

    /// What is computed over rows of other shards stands once in a statement, for it is replaced there.
    fn checked(self, value: &Value) -> Result<Self, Error> {
        let is_within = |tokens: Tokens| self.gathering.as_ref().is_some_and(|gathering| gathering.changes(tokens));
        let returns = self.gathering.is_some() && self.clauses.returning.is_some();
        if returns || (is_within(self.key) && *value == Value::Unknown) {
            let what = "a new shard key or RETURNING over rows of several shards";
            return Err(Error::unsupported(what, "Compute the key first and give it as a constant."));
        }
        Ok(self)
    }

    /// The query that locks the rows, what is done then, and what both need.
    fn texts(&self, sets: &[ShardSet], constant: bool, values: &Values<'_>) -> (String, Moved, Vec<Fetch>) {
        let splice = Splice::new(values.text);
        let words = |tokens: Tokens| splice.words(tokens).to_owned();
        let returning = self.clauses.returning.map(words).unwrap_or_default();
        let key = words(self.key);
        let (look, update) = (self.look(values), self.update(values));
        let (look, update, fetches) = match &self.gathering {
            None => (look.finish(), update.finish(), Vec::new()),
            Some(gathering) => {
                let (look, fetches) = gathering.over(sets, values, look);
                (look, gathering.over(sets, values, update).0, fetches)
            }
        };
        let assigned = self.clauses.assignments.iter().map(|assignment| {
            let name = Tokens { end: assignment.column.end - 1, ..assignment.column };
            words(name)
        });
        let columns: Vec<String> = self.kept.iter().map(|name| quoted_name(name)).chain(assigned).collect();
        let Table { qualified, .. } = &self.table;
        let moved = Moved {
            head: format!("INSERT INTO {qualified} AS {} ({}) OVERRIDING SYSTEM VALUE", self.alias, columns.join(", ")),
            table: self.table.clone(),
            alias: self.alias.clone(),
            update: Arc::from(update),
            key: (!constant).then(|| Arc::from(key)),
            returning,
        };
        (look, moved, fetches)
    }

    fn look<'t>(&self, values: &Values<'t>) -> Splice<'t> {
        let mut splice = Splice::new(values.text);
        let Self { clauses, alias, .. } = self;
        let key = format!("({})::{}", splice.words(self.key), self.table.sharded.key_type.sql());
        let kept: String = self.kept.iter().map(|name| format!("{alias}.{}, ", quoted_name(name))).collect();
        splice.replace(clauses.head, format!("SELECT {alias}.tableoid, {alias}.ctid, {key}, {kept}"));
        clauses.assignments.iter().for_each(|assignment| splice.replace(assignment.column, ""));
        let target = splice.words(clauses.target);
        match (clauses.from, clauses.assignments.last()) {
            (Some(from), _) => splice.replace(Tokens { start: from, end: from + 1 }, format!("FROM {target},")),
            (None, Some(last)) => splice.insert_after(last.value, format!(" FROM {target}")),
            (None, None) => {}
        }
        match clauses.returning {
            Some(returning) => splice.replace(returning, format!("FOR UPDATE OF {alias}")),
            None => splice.insert_after(self.statement, format!(" FOR UPDATE OF {alias}")),
        }
        splice
    }

    fn update<'t>(&self, values: &Values<'t>) -> Splice<'t> {
        let mut splice = Splice::new(values.text);
        match (self.clauses.filter, self.clauses.returning) {
            (Some(filter), _) => {
                splice.insert_before(filter.start, "(");
                splice.insert_after(filter, format!(") AND {MARK}"));
            }
            (None, Some(returning)) => splice.insert_before(returning.start, format!("WHERE {MARK} ")),
            (None, None) => splice.insert_after(self.statement, format!(" WHERE {MARK}")),
        }
        splice
    }
}

/// A bare string, NULL or parameter takes the type of its column.
fn is_untyped(value: &Value) -> bool {
    matches!(
        value,
        Value::Null | Value::Literal { negated: false, cast: None, .. } | Value::Parameter { cast: None, .. }
    )
}

impl Table {
    fn new(known: &Resolved, table: &Relation, sharded: &Arc<Sharded>, columns: Vec<Target>) -> Self {
        Self {
            name: known.name.clone(),
            qualified: format!("{}.{}", quoted_name(&table.schema), quoted_name(&table.name)),
            sharded: Arc::clone(sharded),
            columns,
            is_tree: !table.descendants.is_empty(),
            has_triggers: table.has_triggers,
            cascades: table.cascades.clone(),
        }
    }
}

/// A row that is to be changed.
struct Row<'r> {
    table: &'r str,
    place: &'r str,
    key: Option<&'r str>,
    values: &'r [Option<&'r str>],
}

/// The rows of one shard: those that stay there, and those that go, by where.
#[derive(Default)]
struct Sorted<'r> {
    stay: Vec<Row<'r>>,
    go: BTreeMap<ShardId, Vec<Row<'r>>>,
}

impl Moved {
    /// What is to be done with the rows that were found.
    pub fn steps(&self, looked: &[Looked<'_>]) -> Result<Steps, Error> {
        let mut guards = vec![Vec::new(); self.table.cascades.len()];
        let (mut updates, mut deletes, mut count) = (Vec::new(), Vec::new(), 0);
        let mut come: BTreeMap<ShardId, (Vec<String>, usize)> = BTreeMap::new();
        for found in looked {
            let Sorted { stay, go } = self.sorted(found)?;
            count += stay.len() + go.values().map(Vec::len).sum::<usize>();
            if !stay.is_empty() {
                updates.push(self.updated(found.shard, &stay));
            }
            if go.is_empty() {
                continue;
            }
            self.check_triggers()?;
            let gone: Vec<&Row<'_>> = go.values().flatten().collect();
            for (cascade, guards) in self.table.cascades.iter().zip(&mut guards) {
                guards.push(self.guard(found.shard, &gone, cascade)?);
            }
            let casts = casts(&self.table.columns, found.types.get(LOOKED..).unwrap_or_default())?;
            for (&shard, rows) in &go {
                let (texts, count) = come.entry(shard).or_default();
                texts.push(written(rows.iter().map(|row| row.values), &casts));
                *count += rows.len();
            }
            let text = format!("DELETE FROM {} AS gone WHERE {}", self.table.qualified, self.are("gone", &gone));
            deletes.push(Step { part: own(found.shard, text), goal: Goal::Change(gone.len()) });
        }
        if let (true, Some(first)) = (updates.is_empty(), looked.first()) {
            // What is wrong with the statement, PostgreSQL says.
            updates.push(self.updated(first.shard, &[]));
        }
        let inserts = come.into_iter().map(|(shard, (rows, count))| {
            let text = format!("{} VALUES {} {}", self.head, rows.join(", "), self.returning);
            Step { part: rewrite::part(shard, text), goal: Goal::Answer(count) }
        });
        // Foreign keys are looked at when all rows are changed, as by an UPDATE.
        let stages = [updates, inserts.collect()].into_iter().chain(guards).chain([deletes]).collect();
        Ok(Steps { stages, count })
    }

    fn check_triggers(&self) -> Result<(), Error> {
        if !self.table.has_triggers {
            return Ok(());
        }
        let what = format!("moving rows of \"{}\", which has triggers or rules, to another shard", self.table.name);
        Err(Error::unsupported(what, "Delete the rows and insert them with their new key."))
    }

    fn sorted<'r>(&self, found: &'r Looked<'_>) -> Result<Sorted<'r>, Error> {
        let (mut sorted, mut seen) = (Sorted::default(), HashMap::new());
        for values in &found.rows {
            let [Some(table), Some(place), key, values @ ..] = values.as_slice() else { continue };
            let row = Row { table, place, key: *key, values };
            let shard = self.table.sharded.shard_of_text(&self.table.name, row.key)?;
            match seen.insert((row.table, row.place), shard) {
                None if shard == found.shard => sorted.stay.push(row),
                None => sorted.go.entry(shard).or_default().push(row),
                // Joined with more than one row: which of them counts, PostgreSQL does not tell.
                Some(other) if other == shard => {}
                Some(_) => {
                    let what = "an UPDATE whose FROM gives a row several new shard keys";
                    return Err(Error::unsupported(what, "Let it give one row for each that is updated."));
                }
            }
        }
        Ok(sorted)
    }

    fn updated(&self, shard: ShardId, rows: &[Row<'_>]) -> Step {
        let own: Vec<&Row<'_>> = rows.iter().collect();
        let mut condition = self.are(&self.alias, &own);
        if let (Some(key), false) = (&self.key, rows.is_empty()) {
            let mut keys: Vec<&str> = rows.iter().filter_map(|row| row.key).collect();
            keys.sort_unstable();
            keys.dedup();
            let keys: Vec<String> = keys.into_iter().map(quoted_literal).collect();
            let name = self.table.sharded.key_type.sql();
            let or_null =
                if rows.iter().any(|row| row.key.is_none()) { format!(" OR ({key}) IS NULL") } else { String::new() };
            let listed =
                if keys.is_empty() { "false".to_owned() } else { format!("({key})::{name} IN ({})", keys.join(", ")) };
            condition = format!("{condition} AND ({listed}{or_null})");
        }
        let text = self.update.replace(MARK, &condition);
        Step { part: Part { shard, text: Some(Arc::from(text)), parameters: None }, goal: Goal::Own(rows.len()) }
    }

    /// That no rows of another table are left behind.
    fn guard(&self, shard: ShardId, gone: &[&Row<'_>], cascade: &Cascade) -> Result<Step, Error> {
        let (schema, name) = &cascade.table;
        let Table { name: table, qualified, sharded, .. } = &self.table;
        let referring = format!("{}.{}", quoted_name(schema), quoted_name(name));
        let unsupported = || {
            let what = format!("moving rows of \"{table}\", to which rows of \"{name}\" refer, to another shard");
            Error::unsupported(what, format!("Delete the rows of \"{name}\" first, and insert them again afterwards."))
        };
        let pairs: Vec<String> = cascade
            .referring
            .iter()
            .zip(&cascade.referred)
            .map(|(own, other)| format!("r.{} = gone.{}", quoted_name(own), quoted_name(other)))
            .collect();
        if pairs.is_empty() {
            return Err(unsupported());
        }
        let is_self = referring == *qualified;
        let error = match cascade.on_update {
            None if cascade.referred.contains(&sharded.column) && !is_self => Error::new(
                SqlState::FOREIGN_KEY,
                format!("update or delete on table \"{table}\" violates a foreign key constraint on table \"{name}\""),
            ),
            _ => unsupported(),
        };
        let text = format!(
            "SELECT FROM {referring} AS r JOIN {qualified} AS gone ON {} WHERE {} LIMIT 1",
            pairs.join(" AND "),
            self.are("gone", gone)
        );
        Ok(Step { part: own(shard, text), goal: Goal::Nothing(error) })
    }

    /// That `alias` is one of the rows.
    fn are(&self, alias: &str, rows: &[&Row<'_>]) -> String {
        let places: Vec<String> = rows.iter().map(|row| format!("\"{}\"", row.place)).collect();
        let is_there = format!("{alias}.ctid = ANY ('{{{}}}'::tid[])", places.join(","));
        if !self.table.is_tree || rows.is_empty() {
            return is_there;
        }
        let pairs: Vec<String> = rows.iter().map(|row| format!("({}::oid, '{}'::tid)", row.table, row.place)).collect();
        format!("{is_there} AND ({alias}.tableoid, {alias}.ctid) IN ({})", pairs.join(", "))
    }

    /// In words.
    pub(super) fn render(&self) -> Vec<(&'static str, String)> {
        vec![
            ("stay", self.update.replace(MARK, "…")),
            ("go", format!("{} VALUES … {}", self.head, self.returning).trim_end().to_owned()),
        ]
    }
}

fn own(shard: ShardId, text: String) -> Part {
    Part { shard, text: Some(Arc::from(text)), parameters: Some(Vec::new()) }
}

/// Columns in front of the new values.
const LOOKED: usize = 3;
