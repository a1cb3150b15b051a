//! What can be decided about a statement before its values are known, and the decision once they are.

use std::sync::Arc;

use super::altering;
use super::explaining;
use super::filling::Filling;
use super::gather::Gathering;
use super::insert::Inserting;
use super::keys::Keyed;
use super::local::{self, Localized};
use super::mirror::Mirroring;
use super::moving::{self, Moving};
use super::numbering::Numbering;
use super::relations::{self, Class, Resolved};
use super::scatter::Scattering;
use super::script::Scripting;
use super::through::Through;
use super::transfer::Transferring;
use super::{
    Access, Cacheable, Keeping, OneByOne, Part, Plan, Route, Spread, Tag, Touches, access, caching, copying, keeping,
    views,
};
use crate::cache::Reason;
use crate::catalog::{Catalog, Column};
use crate::error::{Error, SqlState};
use crate::statement::{
    Assigned, CacheHint, Copy, Ddl, Filled, Hints, Insert, InsertSource, Kind, ObjectName, SettingControl, Statement,
    Value, Values,
};
use crate::topology::{Database, Key, ShardId, ShardSet};

/// What a statement means where it is executed.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    pub database: &'a Database,
    pub catalog: &'a Catalog,
    pub search_path: &'a [String],
}

/// A statement in its surroundings, its values left open.
#[derive(Debug)]
pub struct Template {
    pub(super) statement: Arc<Statement>,
    pub(super) access: Access,
    /// Why it is that.
    pub(super) why: String,
    pub(super) home: ShardId,
    pub(super) shards: usize,
    /// Name, and what it is to sharding.
    pub(super) tables: Vec<(String, String)>,
    placement: Placement,
    opaque: bool,
    cacheable: Result<Cacheable, Reason>,
    touches: Touches,
    floats: bool,
    pub(super) views: Vec<views::Place>,
    changes_unknown: bool,
    /// EXPLAIN of what is placed; `true`: it runs.
    explains: Option<bool>,
    /// It may change values that are unique over all shards.
    keeping: Option<Keeping>,
    /// What to do instead of refusing it.
    script: Option<Result<Scripting, Error>>,
}

#[derive(Debug)]
enum Placement {
    Fixed(ShardId),
    Refused(Error),
    /// Where its sharded relations' keys are.
    Keyed(Box<ByKey>),
    Insert(Box<Inserting>),
    Number(Box<Numbering>),
    Transfer(Box<Transferring>),
    Copy(Route),
    /// It changes the shard key.
    Move(Box<Moving>),
    /// On one shard, and what came of it on the others.
    Mirror(Box<Mirroring>),
    /// A new table and its rows.
    Fill(Box<Filling>),
    /// Of what the home shard alone has.
    Local(Box<Localized>),
    /// On every shard the same.
    Everywhere {
        one_by_one: Option<OneByOne>,
        tag: Tag,
    },
}

#[derive(Debug)]
struct ByKey {
    keyed: Keyed,
    /// Rows of home-only tables take part.
    needs_home: bool,
    /// What to do when one shard is not enough.
    several: Several,
    /// What else can be done, if anything.
    gathering: Option<Box<Gathering>>,
}

#[derive(Debug)]
pub(super) enum Several {
    Scatter(Box<Scattering>),
    /// UPDATE or DELETE of the relation of this index.
    Spread(usize),
    Refused(Error),
}

impl Template {
    pub fn resolve(statement: &Arc<Statement>, surroundings: &Surroundings<'_>) -> Self {
        let resolved = relations::resolve(statement, surroundings);
        let Surroundings { database, catalog, .. } = surroundings;
        let (access, why) = access::of(statement, &resolved, catalog);
        let placement = match hinted(&statement.hints, database) {
            Err(error) => Placement::Refused(error),
            Ok(Some(shard)) => Placement::Fixed(shard),
            Ok(None) if !database.is_sharded() => Placement::Fixed(database.home),
            Ok(None) => place(statement, &resolved, surroundings),
        };
        let placement = match placement {
            Placement::Refused(error) => Placement::Refused(error),
            _ if access == Access::ReplicaOnly && !reads(statement, &resolved, catalog) => {
                let error = Error::new(SqlState::READ_ONLY, "a statement that may write cannot go to a replica");
                Placement::Refused(error.with_hint("Leave out role=replica."))
            }
            other => other,
        };
        let touches = Touches::of(statement, &resolved, surroundings);
        let (keeping, placement) = match keeping::of(statement, &resolved, &touches, surroundings) {
            Ok(keeping) => (keeping, placement),
            Err(error) => (None, Placement::Refused(error)),
        };
        let is_placed = matches!(placement, Placement::Fixed(_)) || !database.is_sharded();
        Self {
            keeping,
            script: if is_placed { None } else { Scripting::new(statement, &resolved, surroundings) },
            cacheable: caching::cacheable(statement, &resolved, &touches.what, surroundings),
            touches,
            statement: Arc::clone(statement),
            access,
            why,
            home: database.home,
            shards: database.shards.len(),
            tables: resolved.iter().map(|relation| (relation.name.clone(), word(&relation.class))).collect(),
            placement,
            opaque: statement.calls.iter().any(|call| access::is_opaque(call, catalog)),
            floats: floats(statement, catalog),
            views: views::places(statement, &resolved),
            changes_unknown: changes_unknown(&statement.kind, surroundings),
            explains: match statement.kind {
                Kind::Explain { analyze, .. } if database.is_sharded() => Some(analyze),
                _ => None,
            },
        }
    }

    /// Means the same on every shard: it may run wherever the statements around it do.
    pub fn floats(&self) -> bool {
        self.floats
    }

    /// A change of tables of which the catalog knows none: they are temporary, if they are there.
    pub fn changes_unknown(&self) -> bool {
        self.changes_unknown
    }

    /// It cannot be planned before views and the like are [written out](super::written_out).
    pub fn has_views(&self) -> bool {
        !self.views.is_empty()
    }

    /// Calls functions that may change the server's session.
    pub fn is_opaque(&self) -> bool {
        self.opaque
    }

    /// Changes nothing, as far as parse tree and catalog prove.
    pub fn is_proven_read(&self) -> bool {
        matches!(self.access, Access::Read | Access::ReplicaOnly)
    }

    /// What an answer depends on if it may be kept, else why not.
    pub fn cacheable(&self, values: &Values<'_>) -> Result<&Cacheable, Reason> {
        match &self.cacheable {
            Ok(_) if values.may_mean_a_moment() => Err(Reason::TimeInput),
            Ok(cacheable) => Ok(cacheable),
            Err(reason) => Err(*reason),
        }
    }

    /// What a comment wants of the cache.
    pub fn cache_hint(&self) -> Option<CacheHint> {
        self.statement.hints.cache
    }

    /// What the statement changes once its transaction commits.
    pub fn touches(&self) -> &Touches {
        &self.touches
    }

    /// What is to be done for columns that are unique over all shards.
    pub fn keeping(&self) -> Option<Keeping> {
        self.keeping
    }

    /// Where every execution goes, if that does not depend on its values.
    pub fn fixed(&self) -> Option<(ShardId, Access)> {
        match self.placement {
            Placement::Fixed(shard) if self.keeping.is_none() => Some((shard, self.access)),
            _ => None,
        }
    }

    /// Where one execution goes.
    pub fn plan(&self, values: &Values<'_>) -> Result<Plan, Error> {
        if let Some(analyze) = self.explains {
            if analyze && self.keeping.is_some() {
                let what = "EXPLAIN ANALYZE of a write of values that are unique over all shards";
                return Err(Error::unsupported(what, "Leave out ANALYZE."));
            }
            return explaining::explaining(self.plan_rows(values)?, analyze, self.access);
        }
        if let Some(Ok(script)) = &self.script
            && script.is_always()
        {
            return Ok(script.plan(values));
        }
        let plan = match (self.plan_rows(values), &self.script) {
            (Err(error), Some(script)) if error.sqlstate == SqlState::UNSUPPORTED => match script {
                Ok(script) => return Ok(script.plan(values)),
                Err(error) => Err(error.clone()),
            },
            (plan, _) => plan,
        };
        match (plan?, self.keeping) {
            // Home takes part, too.
            (Plan { route: Route::One(shard), access: Access::Write }, Some(_)) if !is_copy(&self.statement.kind) => {
                let (parts, row_order, fetches) = (vec![whole(shard)], Vec::new(), Vec::new());
                let spread = Spread { parts, tag: Tag::Sum, row_order, one_by_one: None, fetches };
                Ok(Plan { route: Route::Spread(Box::new(spread)), access: Access::Write })
            }
            (plan, _) => Ok(plan),
        }
    }

    fn plan_rows(&self, values: &Values<'_>) -> Result<Plan, Error> {
        let access = self.access;
        let one = |shard| Ok(Plan { route: Route::One(shard), access });
        match &self.placement {
            Placement::Fixed(shard) => one(*shard),
            Placement::Refused(error) => Err(error.clone()),
            Placement::Everywhere { one_by_one, tag } => {
                let parts = (0..self.shards).map(|shard| whole(ShardId(u16::try_from(shard).expect("at most 1,024"))));
                let (parts, tag, one_by_one) = (parts.collect(), *tag, one_by_one.clone());
                let spread = Spread { parts, tag, row_order: Vec::new(), one_by_one, fetches: Vec::new() };
                Ok(Plan { route: Route::Spread(Box::new(spread)), access: Access::Write })
            }
            Placement::Insert(inserting) => inserting.plan(values),
            Placement::Transfer(transferring) => transferring.plan(values),
            Placement::Number(numbering) => Ok(numbering.plan(values)),
            Placement::Copy(route) => Ok(Plan { route: route.clone(), access }),
            Placement::Move(moving) => moving.plan(values),
            Placement::Mirror(mirroring) => Ok(mirroring.plan(values)),
            Placement::Fill(filling) => Ok(filling.plan(values)),
            Placement::Local(localized) => Ok(localized.plan(values)),
            Placement::Keyed(by_key) => match by_key.keyed.single(values) {
                Some(shard) if !by_key.needs_home || shard == self.home => one(shard),
                _ => self.plan_sets(by_key, values),
            },
        }
    }

    fn plan_sets(&self, by_key: &ByKey, values: &Values<'_>) -> Result<Plan, Error> {
        by_key.keyed.check_inserted(values)?;
        let sets = by_key.keyed.shards(values);
        // Relations without rows that matter are as empty on one shard as on any.
        let mut all = ShardSet::default();
        sets.iter().for_each(|set| all.union(set));
        let fixed = sets.iter().filter(|set| !set.is_empty()).all(|set| set.len() == 1) && all.len() <= 1;
        let gathered = |error: Error| match &by_key.gathering {
            Some(gathering) => Ok(gathering.plan(&by_key.keyed, &sets, values, self.access)),
            None => Err(error),
        };
        let shard = all.only().unwrap_or(self.home);
        if by_key.needs_home && (!fixed || shard != self.home) {
            return gathered(needs_home(self.home));
        }
        if fixed {
            return Ok(Plan { route: Route::One(shard), access: self.access });
        }
        match &by_key.several {
            Several::Refused(error) => gathered(error.clone()),
            Several::Scatter(scattering) => {
                let plan = scattering.plan(&sets[scattering.root], values, self.access);
                let plan = plan.or_else(gathered)?;
                Ok(match &by_key.gathering {
                    Some(gathering) if scattering.may_not_merge() => {
                        with_otherwise(plan, gathering.plan(&by_key.keyed, &sets, values, self.access))
                    }
                    _ => plan,
                })
            }
            Several::Spread(root) => {
                let parts = sets[*root].iter().map(whole).collect();
                let spread =
                    Spread { parts, tag: Tag::Sum, row_order: Vec::new(), one_by_one: None, fetches: Vec::new() };
                Ok(Plan { route: Route::Spread(Box::new(spread)), access: Access::Write })
            }
        }
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.statement.kind
    }

    /// What is known of the keys for one execution, a line each, and the shards that follow.
    pub(super) fn keys(&self, values: &Values<'_>) -> Vec<String> {
        match &self.placement {
            Placement::Keyed(by_key) => by_key.keyed.describe(values),
            Placement::Insert(inserting) => inserting.describe(values),
            Placement::Move(moving) => moving.describe(values),
            _ => Vec::new(),
        }
    }

    /// Why it goes where it goes, where no key tells.
    pub(super) fn reason(&self) -> Option<&'static str> {
        match &self.placement {
            Placement::Fixed(_) if !self.is_sharded() => Some("the only one"),
            Placement::Fixed(_) if self.statement.hints.shard.is_some() => Some("named by a hint"),
            Placement::Fixed(_) if self.statement.hints.key.is_some() => Some("of the key that a hint names"),
            Placement::Fixed(_) if self.floats => Some("home; any would do"),
            Placement::Fixed(_) => Some("home"),
            Placement::Everywhere { .. } => Some("the same on every shard"),
            Placement::Refused(_)
            | Placement::Keyed(_)
            | Placement::Insert(_)
            | Placement::Transfer(_)
            | Placement::Number(_)
            | Placement::Copy(_)
            | Placement::Move(_)
            | Placement::Mirror(_)
            | Placement::Fill(_)
            | Placement::Local(_) => None,
        }
    }

    fn is_sharded(&self) -> bool {
        self.shards > 1
    }
}

/// Names no table, and does nothing that others look for on one shard.
fn floats(statement: &Statement, catalog: &Catalog) -> bool {
    let mut relations = statement.blocks.iter().flat_map(|block| &block.relations);
    matches!(statement.kind, Kind::Query | Kind::Setting(_) | Kind::Deallocate { .. } | Kind::Execute { .. })
        && statement.hints.shard.is_none()
        && relations.all(|relation| relation.table.is_none())
        && !statement.calls.iter().any(|call| access::is_anchored(call, catalog))
}

fn is_copy(kind: &Kind) -> bool {
    matches!(kind, Kind::Copy(_))
}

fn whole(shard: ShardId) -> Part {
    Part { shard, text: None, parameters: None }
}

/// The shard that a comment names.
fn hinted(hints: &Hints, database: &Database) -> Result<Option<ShardId>, Error> {
    let bad = |what: String| Error::new(SqlState::INVALID_VALUE, what);
    if let Some(hint) = &hints.bad {
        let help = "Known are shard=N, key=V, role=primary, role=replica and cache=off, cache=on or cache=30s.";
        return Err(bad(format!("routing hint \"{hint}\" is not understood")).with_hint(help));
    }
    if let Some(shard) = hints.shard {
        if usize::from(shard) >= database.shards.len() {
            return Err(bad(format!("database \"{}\" has no shard {shard}", database.name)));
        }
        return Ok(Some(ShardId(shard)));
    }
    let Some(text) = &hints.key else { return Ok(None) };
    let nowhere = || bad(format!("key \"{text}\" of the routing hint is in no range"));
    let sharded = database.sharded.first().ok_or_else(nowhere)?;
    let key = Key::from_text(sharded.key_type, text).ok_or_else(nowhere)?;
    sharded.mapping.shard_of(&key).map(Some).ok_or_else(nowhere)
}

fn reads(statement: &Statement, resolved: &[Resolved], catalog: &Catalog) -> bool {
    let plain = Statement { hints: Hints::default(), ..shallow(statement) };
    matches!(access::of(&plain, resolved, catalog).0, Access::Read | Access::PrimaryRead)
}

fn shallow(statement: &Statement) -> Statement {
    Statement {
        kind: statement.kind.clone(),
        tokens: statement.tokens,
        blocks: Vec::new(),
        calls: statement.calls.clone(),
        locks_rows: statement.locks_rows,
        reads_clock: statement.reads_clock,
        assigned: Vec::new(),
        inserted: Vec::new(),
        shape: crate::statement::Shape::default(),
        hints: Hints::default(),
        uses: crate::statement::Uses::default(),
        respelling: None,
        composed: None,
    }
}

/// On a sharded database, without a hint.
fn place(statement: &Arc<Statement>, resolved: &[Resolved], surroundings: &Surroundings<'_>) -> Placement {
    let Surroundings { database, .. } = surroundings;
    if let Some(moving) = Moving::new(statement, resolved, surroundings) {
        return Placement::Move(Box::new(moving));
    }
    if let Err(error) = check(statement, resolved, surroundings) {
        return Placement::Refused(error);
    }
    let home = database.home;
    let refuse = |what: &str, hint: &str| Placement::Refused(Error::unsupported(what, hint));
    match &statement.kind {
        Kind::Transaction(_)
        | Kind::Setting(_)
        | Kind::ExplainRoute { .. }
        | Kind::Execute { .. }
        | Kind::Deallocate { .. }
        | Kind::Fetch { .. }
        | Kind::CloseCursor { .. }
        | Kind::Listen { .. }
        | Kind::Unlisten { .. }
        | Kind::Notify { .. } => Placement::Fixed(home),
        Kind::Prepare { .. } => refuse("PREPARE", "Use the driver's prepared statements (extended protocol)."),
        Kind::LockTable => Placement::Everywhere { one_by_one: None, tag: Tag::First },
        // It can but compute, and say so.
        Kind::Do(body) if body.statements.is_empty() && access::may_only_compute(body, surroundings.catalog) => {
            Placement::Fixed(home)
        }
        Kind::Call | Kind::Do(_) => refuse("CALL or DO", HINT_SHARD),
        Kind::Unknown { keyword } => refuse(&format!("a statement that is not understood ({keyword} …)"), HINT_SHARD),
        Kind::Ddl(ddl) => define(statement, ddl, resolved, surroundings),
        Kind::ModifyingQuery { into: true } => refuse("SELECT INTO", "Create the table first, then insert into it."),
        Kind::ModifyingQuery { .. } | Kind::Merge if writes_reference(resolved) => {
            match check_within(statement, resolved, surroundings.catalog) {
                Ok(()) => Placement::Everywhere { one_by_one: None, tag: Tag::First },
                Err(error) => Placement::Refused(error),
            }
        }
        Kind::Refresh { .. } => Placement::Everywhere { one_by_one: None, tag: Tag::First },
        Kind::Positioned { .. } => positioned(resolved, home),
        Kind::Utility { .. } => Placement::Everywhere { one_by_one: Some(OneByOne::of_utility()), tag: Tag::First },
        Kind::Truncate { tables } if are_home(tables, surroundings) => Placement::Fixed(home),
        Kind::Truncate { .. } => Placement::Everywhere { one_by_one: None, tag: Tag::First },
        Kind::Copy(copy) => match &copy.table {
            Some(table) => match copying::route(statement, copy, table, surroundings) {
                Ok(Some(route)) => Placement::Copy(route),
                Ok(None) => Placement::Fixed(home),
                Err(error) => Placement::Refused(error),
            },
            None => by_key(statement, resolved, surroundings),
        },
        Kind::Explain { inner, .. }
            if matches!(
                **inner,
                Kind::Query | Kind::Insert(_) | Kind::Update(_) | Kind::Delete { .. } | Kind::Merge
            ) =>
        {
            let explained = Statement { kind: (**inner).clone(), ..Statement::clone(statement) };
            place(&Arc::new(explained), resolved, surroundings)
        }
        Kind::Explain { .. } => refuse("EXPLAIN of this statement", "Use EXPLAIN ROUTE, or a routing hint."),
        Kind::Insert(insert) => insert_of(statement, insert, resolved, surroundings),
        Kind::Update(_) | Kind::Delete { .. } if writes_reference(resolved) => {
            reference(statement, resolved, surroundings)
        }
        Kind::Update(_) | Kind::Delete { .. } | Kind::Merge if local::writes_at_home(resolved) => {
            localized(statement, resolved, surroundings).unwrap_or_else(|| by_key(statement, resolved, surroundings))
        }
        _ => by_key(statement, resolved, surroundings),
    }
}

fn localized(statement: &Statement, resolved: &[Resolved], surroundings: &Surroundings<'_>) -> Option<Placement> {
    Localized::new(statement, resolved, surroundings).map(|localized| Placement::Local(Box::new(localized)))
}

fn insert_of(
    statement: &Arc<Statement>,
    insert: &Insert,
    resolved: &[Resolved],
    surroundings: &Surroundings<'_>,
) -> Placement {
    match Numbering::new(insert, resolved) {
        Ok(None) => {}
        Ok(Some(numbering)) => return Placement::Number(Box::new(numbering)),
        Err(error) => return Placement::Refused(error),
    }
    match Inserting::new(statement, insert, resolved, surroundings) {
        Ok(Some(inserting)) => Placement::Insert(Box::new(inserting)),
        Ok(None) if writes_reference(resolved) => match check_defaults(insert, resolved) {
            Ok(()) => reference(statement, resolved, surroundings),
            Err(error) => mirrored(error, statement, resolved, surroundings),
        },
        Ok(None) => Placement::Fixed(surroundings.database.home),
        Err(error) if writes_reference(resolved) => mirrored(error, statement, resolved, surroundings),
        Err(error) => match Transferring::new(statement, insert, resolved, surroundings) {
            Some(transferring) => Placement::Transfer(Box::new(transferring)),
            None => localized(statement, resolved, surroundings).unwrap_or(Placement::Refused(error)),
        },
    }
}

/// A session knows where its cursor is.
fn positioned(resolved: &[Resolved], home: ShardId) -> Placement {
    if resolved.iter().any(|known| matches!(known.class, Class::Reference | Class::View)) {
        let what = "WHERE CURRENT OF for a reference table or view";
        return Placement::Refused(Error::unsupported(what, "Name the row by its key."));
    }
    Placement::Fixed(home)
}

/// What is refused wherever the rows are.
fn check(statement: &Statement, resolved: &[Resolved], surroundings: &Surroundings<'_>) -> Result<(), Error> {
    let Surroundings { database, catalog, .. } = surroundings;
    if !catalog.loaded && resolved.iter().any(|relation| matches!(relation.class, Class::Unknown)) {
        // It may be sharded by a column: where its rows are is not known.
        let message = format!("the catalog of database \"{}\" is not loaded yet", database.name);
        let error = Error::new(SqlState::UNAVAILABLE, message);
        return Err(error.with_hint("The control plane needs the home shard's primary; see the log."));
    }
    // Those that can be are written out before.
    let mut relations = statement.blocks.iter().flat_map(|block| &block.relations);
    if views::names_matter(resolved) && relations.any(|relation| relation.renames && relation.table.is_some()) {
        let what = "a table whose columns are given other names in this way";
        return Err(Error::unsupported(what, "Leave the columns their names."));
    }
    check_assigned_keys(statement, resolved)?;
    if sets_path_of_block(&statement.kind) {
        let hint = "Use SET, and RESET when the transaction has ended.";
        return Err(Error::unsupported("SET LOCAL search_path", hint));
    }
    Ok(())
}

/// What is defined is on every shard, but for temporary tables; its rows may not be.
fn define(statement: &Statement, ddl: &Ddl, resolved: &[Resolved], surroundings: &Surroundings<'_>) -> Placement {
    let reads_shards = resolved.iter().any(|known| matches!(known.class, Class::Sharded(_) | Class::View));
    let is_view = ddl.what == "CREATE VIEW";
    if is_view && ddl.temporary && reads_shards {
        let what = "a temporary view over sharded tables";
        return Placement::Refused(Error::unsupported(what, "Make a view that is none, or a temporary table."));
    }
    let reads_rows = |filled: &Filled| {
        !is_view && (!matches!(filled.query.kind, Kind::Query) || !resolved.is_empty() && !filled.empty)
    };
    if ddl.temporary && !ddl.filled.as_ref().is_some_and(reads_rows) {
        return Placement::Fixed(surroundings.database.home);
    }
    if let Some(error) = altering::refused(ddl, surroundings) {
        return Placement::Refused(error);
    }
    match Filling::new(statement, ddl, resolved, surroundings) {
        Some(Ok(filling)) => Placement::Fill(Box::new(filling)),
        Some(Err(error)) => Placement::Refused(error),
        None => Placement::Everywhere { one_by_one: OneByOne::of(ddl), tag: Tag::First },
    }
}

fn are_home(tables: &[ObjectName], surroundings: &Surroundings<'_>) -> bool {
    tables.iter().all(|name| matches!(relations::classify(name, surroundings).0, Class::Home | Class::Unknown))
}

fn changes_unknown(kind: &Kind, surroundings: &Surroundings<'_>) -> bool {
    let is_unknown = |name: &ObjectName| {
        let (schema, path) = (name.schema.as_deref(), surroundings.search_path);
        surroundings.catalog.relation(schema, &name.name, path).is_none()
    };
    matches!(kind, Kind::Ddl(ddl) if !ddl.tables.is_empty() && ddl.tables.iter().all(is_unknown))
}

/// The tables that the names of the block mean would be others than those that the session's path leads to.
fn sets_path_of_block(kind: &Kind) -> bool {
    matches!(kind, Kind::Setting(SettingControl::Set { name, local: true, .. }) if name == "search_path")
}

fn writes_reference(resolved: &[Resolved]) -> bool {
    resolved.iter().any(|relation| relation.written && matches!(relation.class, Class::Reference))
}

/// A write of a reference table: the same rows everywhere, or not at all.
fn reference(statement: &Statement, resolved: &[Resolved], surroundings: &Surroundings<'_>) -> Placement {
    match check_everywhere(statement, resolved, surroundings.catalog) {
        Ok(()) => Placement::Everywhere { one_by_one: None, tag: Tag::First },
        Err(error) => mirrored(error, statement, resolved, surroundings),
    }
}

/// What cannot be done everywhere is done on one shard, if that is possible.
fn mirrored(error: Error, statement: &Statement, resolved: &[Resolved], surroundings: &Surroundings<'_>) -> Placement {
    match Mirroring::new(statement, resolved, surroundings) {
        Some(mirroring) => Placement::Mirror(Box::new(mirroring)),
        None => Placement::Refused(error),
    }
}

/// Whether a write comes to the same on every shard.
fn check_everywhere(statement: &Statement, resolved: &[Resolved], catalog: &Catalog) -> Result<(), Error> {
    let refuse = |what: &str, hint: &str| Err(Error::unsupported(what, hint));
    if resolved.iter().any(|relation| !matches!(relation.class, Class::Reference)) {
        return refuse("a write of a reference table that reads other tables", "Give the values themselves.");
    }
    if statement.reads_clock || !statement.calls.iter().all(|call| access::is_immutable(call, catalog)) {
        let what = "a write of a reference table with a function that may differ from shard to shard";
        return refuse(what, "Compute the value first and give it as a constant.");
    }
    if statement.blocks.iter().any(|block| block.limited || block.distinct_on) {
        return refuse("LIMIT in a write of a reference table", "Which rows it leaves may differ from shard to shard.");
    }
    let is_default = |assigned: &&Assigned| assigned.value == Value::Default;
    if let Some(assigned) = statement.assigned.iter().find(is_default)
        && written_column(resolved, &assigned.column).is_none_or(|column| column.varying_default)
    {
        return Err(varying_default(&assigned.column));
    }
    Ok(())
}

/// The same of reference tables that are written by MERGE or in WITH.
fn check_within(statement: &Statement, resolved: &[Resolved], catalog: &Catalog) -> Result<(), Error> {
    check_everywhere(statement, resolved, catalog)?;
    for inserted in &statement.inserted {
        let target = (inserted.target.block, inserted.target.relation);
        let known = resolved.iter().find(|known| (known.block, known.relation) == target);
        let Some(table) = known.and_then(|known| known.catalog.as_ref()) else { continue };
        for column in table.columns.iter().filter(|column| column.varying_default) {
            let place = table.place_of(&column.name, &inserted.columns);
            let gives =
                |row: &Vec<Value>| place.and_then(|place| row.get(place)).is_some_and(|value| *value != Value::Default);
            if !inserted.rows.as_ref().is_some_and(|rows| rows.iter().all(gives)) {
                return Err(varying_default(&column.name));
            }
        }
    }
    Ok(())
}

/// Columns that are left to their defaults must get the same on every shard.
fn check_defaults(insert: &Insert, resolved: &[Resolved]) -> Result<(), Error> {
    let written = resolved.iter().find(|relation| relation.written);
    let Some(table) = written.and_then(|relation| relation.catalog.as_ref()) else { return Ok(()) };
    for column in table.columns.iter().filter(|column| column.varying_default) {
        let place = table.place_of(&column.name, &insert.columns);
        let is_given = match (&insert.source, place) {
            (_, None) | (InsertSource::DefaultValues, _) => false,
            (InsertSource::Values(rows), Some(place)) => {
                rows.iter().all(|row| row.values.get(place).is_some_and(|value| *value != Value::Default))
            }
            // How many columns it gives is not known where none are listed.
            (InsertSource::Query(_), Some(_)) => !insert.columns.is_empty(),
        };
        if !is_given {
            return Err(varying_default(&column.name));
        }
    }
    Ok(())
}

pub(super) fn varying_default(column: &str) -> Error {
    Error::unsupported(
        format!("a write of a reference table that leaves \"{column}\" to a default which may differ between shards"),
        format!("Give \"{column}\" a value."),
    )
}

fn written_column<'a>(resolved: &'a [Resolved], name: &str) -> Option<&'a Column> {
    resolved.iter().find(|relation| relation.written)?.catalog.as_ref()?.column(name)
}

fn by_key(statement: &Arc<Statement>, resolved: &[Resolved], surroundings: &Surroundings<'_>) -> Placement {
    let Surroundings { database, catalog, .. } = surroundings;
    if let Some(error) =
        resolved.iter().filter(|known| known.written).find_map(|known| Through::refused(statement, known))
    {
        return Placement::Refused(error);
    }
    if resolved.iter().any(|relation| matches!(relation.class, Class::View)) {
        let what = "a view over sharded tables";
        return Placement::Refused(Error::unsupported(what, "Query its tables, or name the shard in a routing hint."));
    }
    let user_function = access::reading_function(statement, resolved, catalog);
    let keyed = Keyed::new(statement, resolved);
    if keyed.relations.is_empty() {
        return match user_function {
            Some(name) if !resolved.is_empty() || !matches!(statement.kind, Kind::Query) => {
                let what = format!("function {name} where no shard is fixed");
                Placement::Refused(Error::unsupported(what, HINT_SHARD))
            }
            Some(name) => {
                let what = format!("function {name}, which may read any table,");
                Placement::Refused(Error::unsupported(what, HINT_SHARD))
            }
            None => Placement::Fixed(database.home),
        };
    }
    let needs_home =
        resolved.iter().any(|relation| matches!(relation.class, Class::Home | Class::Unknown | Class::Catalog));
    let several = several(statement, resolved, surroundings, &keyed);
    let gathering = match (&statement.kind, user_function) {
        (Kind::Copy(copy), _) if copy.from || !copy.is_client => None,
        // What MERGE inserts may belong elsewhere.
        (Kind::Merge, _) if !statement.inserted.is_empty() || local::writes_at_home(resolved) => None,
        (
            Kind::Query
            | Kind::Copy(_)
            | Kind::DeclareCursor { .. }
            | Kind::Update(_)
            | Kind::Delete { .. }
            | Kind::Merge,
            None,
        ) => Gathering::new(statement, resolved, surroundings, &keyed).ok().map(Box::new),
        _ => None,
    };
    let several = match (several, user_function) {
        (Ok(_), Some(name)) => {
            let what = format!("function {name} in a statement on several shards");
            Several::Refused(Error::unsupported(what, add_condition(&keyed)))
        }
        (Ok(several), None) => several,
        (Err(error), _) => Several::Refused(error),
    };
    Placement::Keyed(Box::new(ByKey { keyed, needs_home, several, gathering }))
}

fn with_otherwise(mut plan: Plan, gathered: Plan) -> Plan {
    if let (Route::Scatter(scatter), Route::Gather(gather)) = (&mut plan.route, gathered.route) {
        scatter.otherwise = Some(gather);
    }
    plan
}

pub(super) fn several(
    statement: &Arc<Statement>,
    resolved: &[Resolved],
    surroundings: &Surroundings<'_>,
    keyed: &Keyed,
) -> Result<Several, Error> {
    let refuse = |what: &str| Err(Error::unsupported(what, add_condition(keyed)));
    match &statement.kind {
        Kind::Query
        | Kind::DeclareCursor { hold: false, binary: false, scroll: None | Some(false), .. }
        | Kind::Copy(Copy { is_client: true, .. }) => {
            Scattering::new(statement, resolved, surroundings, keyed).map(|plan| Several::Scatter(Box::new(plan)))
        }
        Kind::Merge if !keyed.inserts_where_it_reads(statement, resolved) => refuse("MERGE on several shards"),
        Kind::Update(_) | Kind::Delete { .. } | Kind::Merge => {
            let root = keyed.relations.iter().position(|relation| relation.written);
            match root.filter(|&root| keyed.all_tied_to(root)) {
                Some(_) if statement.blocks.iter().any(|block| block.limited || block.windows || block.distinct_on) => {
                    refuse("a write with LIMIT, DISTINCT ON or windows in a subquery")
                }
                Some(_) if statement.calls.iter().any(|call| !access::is_harmless(call, surroundings.catalog)) => {
                    refuse("a write with a function that writes, too, such as nextval,")
                }
                Some(root) => Ok(Several::Spread(root)),
                None => refuse("a write with a join that does not follow the shard key"),
            }
        }
        Kind::DeclareCursor { .. } => refuse("a cursor over several shards"),
        Kind::Copy(_) => refuse("COPY of a query on several shards"),
        _ => refuse("a statement that reads and writes several shards"),
    }
}

/// Changing a row's key may mean moving it.
fn check_assigned_keys(statement: &Statement, resolved: &[Resolved]) -> Result<(), Error> {
    for target in resolved {
        let changes = |assigned: &&Assigned| moving::changes_key(assigned, target);
        if let Some(assigned) = statement.assigned.iter().find(changes) {
            let what = format!("changing the shard key \"{}\" of \"{}\"", assigned.column, target.name);
            return Err(Error::unsupported(what, "Delete the row and insert it with its new key."));
        }
    }
    Ok(())
}

pub(super) fn add_condition(keyed: &Keyed) -> String {
    let column = keyed.relations.first().map_or("the shard key", |relation| relation.sharded.column.as_str());
    format!("Add a condition on \"{column}\" that fixes one shard, or a routing hint /* pgweir: shard=N */.")
}

fn needs_home(home: ShardId) -> Error {
    Error::unsupported(
        "a join of sharded rows with a table that lives on the home shard only",
        format!("Such tables are on shard {}; make it a reference table to join it anywhere.", home.0),
    )
}

fn word(class: &Class) -> String {
    let word = match class {
        Class::Sharded(sharded) => return format!("sharded by {}", sharded.column),
        Class::Reference => "reference",
        Class::Home => "home",
        Class::Catalog => "catalog",
        Class::Unknown => "unknown",
        Class::View => "view over sharded tables",
    };
    word.to_owned()
}

const HINT_SHARD: &str = "Name the shard in a routing hint: /* pgweir: shard=N */.";
