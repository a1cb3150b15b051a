//! What can be decided about a statement before its values are known, and the decision once they are.

use std::sync::Arc;

use super::explaining;
use super::placing::{ByKey, Placement, Several, place};
use super::relations::{self, Class, Resolved};
use super::script::Scripting;
use super::surroundings::Surroundings;
use super::{Access, Cacheable, Keeping, Part, Plan, Route, Spread, Tag, Touches, access, caching, keeping, views};
use crate::cache::Reason;
use crate::catalog::Catalog;
use crate::error::{Error, SqlState};
use crate::statement::{CacheHint, Call, Hints, Kind, ObjectName, Statement, Values};
use crate::topology::{Database, Key, ShardId, ShardSet};

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
    names_unknown: bool,
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
            names_unknown: names_unknown(statement, &resolved, catalog),
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

    /// Names what the catalog does not know, made a moment ago perhaps: what it does out of sight, nobody can tell.
    pub fn names_unknown(&self) -> bool {
        self.names_unknown
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

fn names_unknown(statement: &Statement, resolved: &[Resolved], catalog: &Catalog) -> bool {
    let is_unknown = |call: &Call| catalog.functions(call.name.schema.as_deref(), &call.name.name).next().is_none();
    resolved.iter().any(|relation| matches!(relation.class, Class::Unknown) && relation.catalog.is_none())
        || statement.calls.iter().any(is_unknown)
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

fn changes_unknown(kind: &Kind, surroundings: &Surroundings<'_>) -> bool {
    let is_unknown = |name: &ObjectName| {
        let (schema, path) = (name.schema.as_deref(), surroundings.search_path);
        surroundings.catalog.relation(schema, &name.name, path).is_none()
    };
    matches!(kind, Kind::Ddl(ddl) if !ddl.tables.is_empty() && ddl.tables.iter().all(is_unknown))
}

fn with_otherwise(mut plan: Plan, gathered: Plan) -> Plan {
    if let (Route::Scatter(scatter), Route::Gather(gather)) = (&mut plan.route, gathered.route) {
        scatter.otherwise = Some(gather);
    }
    plan
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
