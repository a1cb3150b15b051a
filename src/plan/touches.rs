//! What a statement changes: its targets, what foreign keys carry on, what lies above and below, or everything.

use std::collections::HashSet;

use super::caching::{changes_no_table, find, may_change};
use super::relations::{self, Class, Resolved};
use super::surroundings::Surroundings;
use crate::cache::{TableTag, Touched};
use crate::catalog::{Cascade, Catalog, Consequence, Relation, RelationKind, ViewCall, Volatility};
use crate::statement::{Kind, Statement, TransactionControl};

/// What is changed by a statement that succeeds, once its transaction commits.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Touches {
    /// By schema and name; nothing more where it is everything.
    pub tables: Vec<(String, String)>,
    /// The same as the cache knows it.
    pub what: Touched,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Verb {
    Insert,
    /// Of these columns; `None`: it may be any.
    Update(Option<Vec<String>>),
    Delete,
}

const ANY_COLUMN: Verb = Verb::Update(None);
const ALL: &[Verb] = &[Verb::Insert, ANY_COLUMN, Verb::Delete];

impl Touches {
    pub(super) fn of(statement: &Statement, resolved: &[Resolved], surroundings: &Surroundings<'_>) -> Self {
        of_kind(&statement.kind, statement, resolved, surroundings)
    }

    fn everything() -> Self {
        Self { tables: Vec::new(), what: Touched::everything() }
    }
}

fn of_kind(kind: &Kind, statement: &Statement, resolved: &[Resolved], surroundings: &Surroundings<'_>) -> Touches {
    let catalog = surroundings.catalog;
    let runs_nothing_unknown = || runs_nothing_unknown(statement, resolved, catalog);
    let written = |verbs| targets(resolved, statement, catalog, verbs);
    match kind {
        Kind::Explain { analyze: true, inner } => of_kind(inner, statement, resolved, surroundings),
        Kind::Query | Kind::DeclareCursor { .. } if runs_nothing_unknown() => Touches::default(),
        Kind::Insert(insert) if insert.on_conflict == Some(true) => written(&[Verb::Insert, ANY_COLUMN]),
        Kind::Insert(_) => written(&[Verb::Insert]),
        Kind::Update(_) => {
            let columns = statement.assigned.iter().map(|assigned| assigned.column.clone());
            written(&[Verb::Update(Some(columns.collect()))])
        }
        Kind::Delete { .. } => written(&[Verb::Delete]),
        Kind::Merge | Kind::ModifyingQuery { into: false } => written(ALL),
        Kind::Copy(copy) => match &copy.table {
            None if runs_nothing_unknown() => Touches::default(),
            None => Touches::everything(),
            Some(_) if !copy.from => Touches::default(),
            Some(table) => match relations::classify(table, surroundings) {
                (Class::Catalog, _) | (_, None) => Touches::everything(),
                (_, Some(relation)) => closure(&[&relation], catalog, &[Verb::Insert]),
            },
        },
        Kind::Ddl(ddl) if ddl.temporary && ddl.what == "CREATE TABLE" && runs_nothing_unknown() => Touches::default(),
        Kind::Transaction(control) if *control != TransactionControl::TwoPhase => Touches::default(),
        Kind::Explain { analyze: false, .. }
        | Kind::ExplainRoute { .. }
        | Kind::Setting(_)
        | Kind::Prepare { .. }
        | Kind::Deallocate { .. }
        // What a cursor's query changes was counted where it was declared, in the same transaction.
        | Kind::Fetch { .. }
        | Kind::CloseCursor { .. }
        | Kind::Listen { .. }
        | Kind::Unlisten { .. }
        | Kind::Notify { .. }
        | Kind::LockTable => Touches::default(),
        // CALL, DO, EXECUTE, DDL, TRUNCATE, maintenance, and what is not understood.
        _ => Touches::everything(),
    }
}

/// Every function it calls is known to leave tables alone, also those behind its views.
fn runs_nothing_unknown(statement: &Statement, resolved: &[Resolved], catalog: &Catalog) -> bool {
    let is_tame = |call: &ViewCall| {
        call.volatility != Volatility::Volatile || (call.schema == "pg_catalog" && changes_no_table(&call.name))
    };
    let is_known = |relation: &Resolved| match (&relation.class, &relation.catalog) {
        (Class::Catalog, _) => true,
        (_, Some(known)) => known.calls.iter().all(is_tame),
        (_, None) => false,
    };
    !statement.calls.iter().any(|call| may_change(call, catalog)) && resolved.iter().all(is_known)
}

/// Of a statement that writes what it names.
fn targets(resolved: &[Resolved], statement: &Statement, catalog: &Catalog, verbs: &[Verb]) -> Touches {
    let is_unnamed = |relation: &crate::statement::Relation| relation.written && relation.table.is_none();
    let unnamed = statement.blocks.iter().flat_map(|block| &block.relations).any(is_unnamed);
    let written: Vec<&Resolved> = resolved.iter().filter(|relation| relation.written).collect();
    let known: Option<Vec<&Relation>> = written.iter().map(|relation| relation.catalog.as_deref()).collect();
    let system = written.iter().any(|relation| matches!(relation.class, Class::Catalog));
    match known {
        Some(known)
            if !known.is_empty() && !unnamed && !system && runs_nothing_unknown(statement, resolved, catalog) =>
        {
            closure(&known, catalog, verbs)
        }
        _ => Touches::everything(),
    }
}

/// What is written, and what that leads to.
fn closure(written: &[&Relation], catalog: &Catalog, verbs: &[Verb]) -> Touches {
    let mut closure = Closure { catalog, seen: HashSet::new(), open: Vec::new(), touches: Touches::default() };
    for relation in written {
        let table = || (relation.schema.clone(), relation.name.clone());
        closure.open.extend(verbs.iter().map(|verb| (table(), verb.clone())));
    }
    while let Some((table, verb)) = closure.open.pop() {
        if closure.seen.insert((table.clone(), verb.clone())) && closure.write(&table, &verb).is_none() {
            return Touches::everything();
        }
    }
    closure.touches.tables.sort_unstable();
    closure.touches
}

struct Closure<'c> {
    catalog: &'c Catalog,
    seen: HashSet<((String, String), Verb)>,
    open: Vec<((String, String), Verb)>,
    touches: Touches,
}

impl Closure<'_> {
    /// `None`: its effects are not known.
    fn write(&mut self, table: &(String, String), verb: &Verb) -> Option<()> {
        let catalog = self.catalog;
        let relation = find(catalog, table)?;
        match relation.kind {
            _ if relation.has_triggers => return None,
            RelationKind::Table | RelationKind::PartitionedTable => {}
            // Through the view to its tables; which of them, PostgreSQL decides.
            RelationKind::View if !relation.reads.is_empty() => {
                // Its columns may have other names there.
                let verb = if matches!(verb, Verb::Update(_)) { &ANY_COLUMN } else { verb };
                self.open.extend(relation.reads.iter().map(|base| (base.clone(), verb.clone())));
                return Some(());
            }
            _ => return None,
        }
        self.follow(relation, verb)?;
        // Keys and triggers of the whole tree may come into play.
        for kin in relation.descendants.iter().chain(&relation.ancestors) {
            let kin = find(catalog, kin)?;
            let plain = matches!(kin.kind, RelationKind::Table | RelationKind::PartitionedTable);
            (plain && !kin.has_triggers).then_some(())?;
            self.follow(kin, verb)?;
        }
        self.touches.what.add(TableTag::new(&relation.schema, &relation.name));
        for (schema, name) in &relation.ancestors {
            self.touches.what.add(TableTag::below(schema, name));
        }
        if !self.touches.tables.contains(table) {
            self.touches.tables.push(table.clone());
        }
        Some(())
    }

    /// What foreign keys do to tables that refer to this one.
    fn follow(&mut self, relation: &Relation, verb: &Verb) -> Option<()> {
        for cascade in &relation.cascades {
            let consequence = match verb {
                Verb::Update(columns) if reaches(columns.as_deref(), cascade) => cascade.on_update,
                Verb::Insert | Verb::Update(_) => None,
                Verb::Delete => cascade.on_delete,
            };
            let next = match consequence {
                None => continue,
                Some(Consequence::Delete) => Verb::Delete,
                Some(Consequence::Update) => Verb::Update(Some(cascade.referring.clone())),
            };
            self.open.push((cascade.table.clone(), next));
        }
        (self.open.len() < MOST).then_some(())
    }
}

/// An update of these columns may change what is referred to.
fn reaches(columns: Option<&[String]>, cascade: &Cascade) -> bool {
    match columns {
        Some(columns) if !cascade.referred.is_empty() => columns.iter().any(|column| cascade.referred.contains(column)),
        _ => true,
    }
}

/// A tree of tables and keys larger than this is not followed.
const MOST: usize = 10_000;
