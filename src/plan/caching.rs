//! May an answer be kept, and what does a statement change: what the result cache must know.
//!
//! In doubt an answer is not kept, and a statement changes everything.

use std::time::Duration;

use smallvec::SmallVec;

use super::access;
use super::relations::{Class, Resolved};
use super::surroundings::Surroundings;
use crate::cache::{Reason, TableTag, Touched};
use crate::catalog::{Catalog, Relation, RelationKind, Volatility};
use crate::statement::{Call, Kind, Statement, TimeCast};

/// An answer that may be kept, as long as none of the tables is written.
#[derive(Debug, PartialEq, Eq)]
pub struct Cacheable {
    /// What is read, views followed to their tables: schema and name.
    pub tables: Vec<(String, String)>,
    /// For a [`crate::cache::Stamp`] in the space of each shard that takes part.
    pub tags: SmallVec<[TableTag; 4]>,
    /// How long at most.
    pub ttl: Duration,
}

/// Judges a query. What it says of literals and parameters is for [`crate::statement::Values::may_mean_a_moment`].
pub(super) fn cacheable(
    statement: &Statement,
    resolved: &[Resolved],
    touched: &Touched,
    surroundings: &Surroundings<'_>,
) -> Result<Cacheable, Reason> {
    let Surroundings { database, catalog, .. } = surroundings;
    if !database.caching.enabled {
        return Err(Reason::Off);
    }
    check_kind(statement)?;
    if !catalog.loaded {
        return Err(Reason::Unready);
    }
    check_calls(statement, resolved, catalog)?;
    if !touched.is_nothing() {
        return Err(Reason::Write);
    }
    if resolved.is_empty() {
        return Err(Reason::NoTable);
    }
    let mut reading = Reading { surroundings, cacheable: Cacheable::empty(database.caching.ttl) };
    resolved.iter().try_for_each(|relation| reading.add(relation))?;
    check_casts(statement, resolved)?;
    let mut cacheable = reading.cacheable;
    if let Some(hint) = statement.hints.cache {
        cacheable.ttl = hint.ttl(cacheable.ttl).ok_or(Reason::Unwanted)?;
    }
    Ok(cacheable)
}

fn check_kind(statement: &Statement) -> Result<(), Reason> {
    let uses = &statement.uses;
    match &statement.kind {
        Kind::Query if statement.locks_rows => Err(Reason::Locks),
        Kind::Query if uses.special_values => Err(Reason::SpecialValue),
        Kind::Query if uses.samples => Err(Reason::Sample),
        Kind::Query if uses.untraced => Err(Reason::UnknownTable),
        Kind::Query => Ok(()),
        Kind::Insert(_) | Kind::Update(_) | Kind::Delete { .. } | Kind::Merge | Kind::ModifyingQuery { .. } => {
            Err(Reason::Write)
        }
        _ => Err(Reason::NoQuery),
    }
}

fn check_calls(statement: &Statement, resolved: &[Resolved], catalog: &Catalog) -> Result<(), Reason> {
    if catalog.has_hidden_calls {
        return Err(Reason::Volatile);
    }
    statement.calls.iter().try_for_each(|call| check_call(call, catalog))?;
    // See `access::reading_function`.
    let depends = |field: &String| {
        catalog.functions(None, field).any(|function| {
            function.schema != "pg_catalog"
                && function.volatility != Volatility::Immutable
                && !access::is_column(field, resolved)
        })
    };
    if statement.uses.fields.iter().any(depends) { Err(Reason::Volatile) } else { Ok(()) }
}

fn check_call(call: &Call, catalog: &Catalog) -> Result<(), Reason> {
    let name = call.name.name.as_str();
    let mut overloads = catalog.functions(call.name.schema.as_deref(), name).peekable();
    if overloads.peek().is_none() {
        return Err(Reason::UnknownFunction);
    }
    let arguments = Some(call.arguments.len());
    let is_pure = overloads.all(|function| match function.volatility {
        Volatility::Immutable => true,
        Volatility::Stable => function.schema == "pg_catalog" && is_tame(name, arguments),
        Volatility::Volatile => false,
    });
    if is_pure { Ok(()) } else { Err(Reason::Volatile) }
}

/// A function of PostgreSQL's own that is called stable only because settings change what it gives, which are part of
/// every key. `arguments`: how many, if that is known.
fn is_tame(name: &str, arguments: Option<usize>) -> bool {
    TAME.contains(&name) || is_time_operator(name) || (name == "age" && arguments == Some(2))
}

/// `timestamptz_lt_date`, `timestamptz_pl_interval` and their like, by which operators are carried out.
fn is_time_operator(name: &str) -> bool {
    let compares = |left: &str, right: &str| {
        let operator = name.strip_prefix(left).and_then(|rest| rest.strip_suffix(right));
        operator.is_some_and(|operator| ["_eq_", "_ne_", "_lt_", "_le_", "_gt_", "_ge_", "_cmp_"].contains(&operator))
    };
    compares("timestamptz", "date")
        || compares("timestamptz", "timestamp")
        || compares("date", "timestamptz")
        || compares("timestamp", "timestamptz")
        || ["timestamptz_pl_interval", "timestamptz_mi_interval", "interval_pl_timestamptz"].contains(&name)
}

/// What is cast to a time must not be text: it may say 'now'.
fn check_casts(statement: &Statement, resolved: &[Resolved]) -> Result<(), Reason> {
    // A subquery may call anything by the name of a table's column.
    let renames = statement.blocks.iter().flat_map(|block| &block.relations).any(|relation| relation.table.is_none());
    let is_time = |name: &String| {
        let relations = resolved.iter().filter_map(|relation| relation.catalog.as_ref());
        let mut columns = relations.filter_map(|relation| relation.column(name)).peekable();
        columns.peek().is_some() && columns.all(|column| TIMES.contains(&column.type_oid))
    };
    let is_safe = |cast: &TimeCast| match cast {
        TimeCast::Column(name) => !renames && is_time(name),
        TimeCast::ZonedLiteral | TimeCast::Computed => false,
    };
    if statement.uses.time_casts.iter().all(is_safe) { Ok(()) } else { Err(Reason::TimeInput) }
}

/// Collects what a query reads.
struct Reading<'a> {
    surroundings: &'a Surroundings<'a>,
    cacheable: Cacheable,
}

impl Reading<'_> {
    fn add(&mut self, relation: &Resolved) -> Result<(), Reason> {
        if matches!(relation.class, Class::Catalog) {
            return Err(Reason::SystemCatalog);
        }
        let known = relation.catalog.as_deref().ok_or(Reason::UnknownTable)?;
        match known.kind {
            RelationKind::View => self.view(known),
            _ => self.table(known),
        }
    }

    fn view(&mut self, view: &Relation) -> Result<(), Reason> {
        let is_tame = |name: &str| is_tame(name, None);
        let mut calls = view.calls.iter();
        let tame = calls
            .all(|call| call.volatility == Volatility::Stable && call.schema == "pg_catalog" && is_tame(&call.name));
        if view.is_momentary || view.reads.is_empty() || !tame {
            return Err(Reason::View);
        }
        self.apply_rules(view)?;
        let catalog = self.surroundings.catalog;
        view.reads.iter().try_for_each(|base| self.table(find(catalog, base).ok_or(Reason::UnknownTable)?))
    }

    /// The table, and whoever holds rows of it.
    fn table(&mut self, table: &Relation) -> Result<(), Reason> {
        check_table(table)?;
        self.apply_rules(table)?;
        let catalog = self.surroundings.catalog;
        for below in &table.descendants {
            check_table(find(catalog, below).ok_or(Reason::UnknownTable)?)?;
        }
        self.tag(TableTag::new(&table.schema, &table.name));
        if !table.descendants.is_empty() {
            self.tag(TableTag::below(&table.schema, &table.name));
        }
        table.ancestors.iter().for_each(|(schema, name)| self.tag(TableTag::new(schema, name)));
        let name = (table.schema.clone(), table.name.clone());
        if !self.cacheable.tables.contains(&name) {
            self.cacheable.tables.push(name);
        }
        Ok(())
    }

    fn tag(&mut self, tag: TableTag) {
        if !self.cacheable.tags.contains(&tag) {
            self.cacheable.tags.push(tag);
        }
    }

    fn apply_rules(&mut self, relation: &Relation) -> Result<(), Reason> {
        let ttl = self.surroundings.database.caching.ttl_of(&relation.schema, &relation.name).ok_or(Reason::Rule)?;
        // A rule's ttl holds for its table, be it shorter or longer; the shortest of all tables holds for the answer.
        let is_first = self.cacheable.tables.is_empty() && self.cacheable.tags.is_empty();
        self.cacheable.ttl = if is_first { ttl } else { ttl.min(self.cacheable.ttl) };
        Ok(())
    }
}

fn check_table(table: &Relation) -> Result<(), Reason> {
    match table.kind {
        RelationKind::Sequence => Err(Reason::Sequence),
        RelationKind::ForeignTable => Err(Reason::Foreign),
        RelationKind::View => Err(Reason::View),
        _ if table.row_security => Err(Reason::RowSecurity),
        _ if table.primary_only => Err(Reason::Unlogged),
        // As input it may depend on the day, even where it says none of the words.
        _ if table.columns.iter().any(|column| column.type_oid == TIMETZ) => Err(Reason::TimeInput),
        _ => Ok(()),
    }
}

pub(super) fn find<'c>(catalog: &'c Catalog, (schema, name): &(String, String)) -> Option<&'c Relation> {
    catalog.relation(Some(schema), name, &[]).map(|relation| &**relation)
}

impl Cacheable {
    fn empty(ttl: Duration) -> Self {
        Self { tables: Vec::new(), tags: SmallVec::new(), ttl }
    }
}

/// What EXPLAIN ROUTE says of the cache.
pub(super) fn describe(cacheable: Result<&Cacheable, Reason>, touches: &super::Touches) -> String {
    let list = |tables: &[(String, String)]| {
        let name = |(schema, name): &(String, String)| match schema.as_str() {
            "public" => name.clone(),
            _ => format!("{schema}.{name}"),
        };
        tables.iter().map(name).collect::<Vec<_>>().join(", ")
    };
    match cacheable {
        Ok(cacheable) => format!("lookup {} (ttl {:?})", list(&cacheable.tables), cacheable.ttl),
        Err(Reason::Off) => Reason::Off.describe().to_owned(),
        Err(_) if touches.what.is_everything() => "invalidates everything".to_owned(),
        Err(_) if !touches.what.is_nothing() => format!("invalidates {}", list(&touches.tables)),
        Err(reason) => format!("bypass: {}", reason.describe()),
    }
}

/// Whether a call may change rows of any table.
pub(super) fn may_change(call: &Call, catalog: &Catalog) -> bool {
    let name = call.name.name.as_str();
    let mut overloads = catalog.functions(call.name.schema.as_deref(), name).peekable();
    if overloads.peek().is_none() {
        return true;
    }
    overloads.any(|function| {
        let volatile = function.volatility == Volatility::Volatile;
        volatile && !(function.schema == "pg_catalog" && changes_no_table(name))
    })
}

/// Of PostgreSQL's own volatile functions, those that leave tables as they are.
pub(super) fn changes_no_table(name: &str) -> bool {
    access::HARMLESS.contains(&name) || LEAVE_TABLES.contains(&name) || name.starts_with("pg_stat_get_")
}

const TAME: [&str; 57] = [
    "array_to_json",
    "array_to_string",
    "concat",
    "concat_ws",
    "convert_from",
    "convert_to",
    "date",
    "date_part",
    "date_trunc",
    "format",
    "generate_series",
    "json_agg",
    "json_agg_strict",
    "json_build_array",
    "json_build_object",
    "json_object_agg",
    "json_object_agg_strict",
    "json_object_agg_unique",
    "json_object_agg_unique_strict",
    "jsonb_agg",
    "jsonb_agg_strict",
    "jsonb_build_array",
    "jsonb_build_object",
    "jsonb_object_agg",
    "jsonb_object_agg_strict",
    "jsonb_object_agg_unique",
    "jsonb_object_agg_unique_strict",
    "anytextcat",
    "textanycat",
    "date_add",
    "date_subtract",
    "length",
    "make_timestamptz",
    "overlaps",
    "pg_typeof",
    "phraseto_tsquery",
    "plainto_tsquery",
    "quote_literal",
    "quote_nullable",
    "row_to_json",
    "time",
    "timestamp",
    "timestamptz",
    "timezone",
    "to_char",
    "to_date",
    "to_json",
    "to_jsonb",
    "to_number",
    "to_timestamp",
    "to_tsquery",
    "to_tsvector",
    "ts_headline",
    "ts_rank",
    "websearch_to_tsquery",
    "xmlagg",
    "xmlconcat",
];
const LEAVE_TABLES: [&str; 47] = [
    "currval",
    "lastval",
    "nextval",
    "pg_advisory_lock",
    "pg_advisory_lock_shared",
    "pg_advisory_unlock",
    "pg_advisory_unlock_all",
    "pg_advisory_unlock_shared",
    "pg_advisory_xact_lock",
    "pg_advisory_xact_lock_shared",
    "pg_blocking_pids",
    "pg_cancel_backend",
    "pg_column_size",
    "pg_current_snapshot",
    "pg_current_wal_flush_lsn",
    "pg_current_wal_insert_lsn",
    "pg_current_xact_id",
    "pg_current_xact_id_if_assigned",
    "pg_database_size",
    "pg_export_snapshot",
    "pg_get_wal_replay_pause_state",
    "pg_indexes_size",
    "pg_is_wal_replay_paused",
    "pg_isolation_test_session_is_blocked",
    "pg_last_wal_receive_lsn",
    "pg_last_xact_replay_timestamp",
    "pg_lock_status",
    "pg_notify",
    "pg_relation_size",
    "pg_safe_snapshot_blocking_pids",
    "pg_sleep_for",
    "pg_sleep_until",
    "pg_table_size",
    "pg_terminate_backend",
    "pg_total_relation_size",
    "pg_try_advisory_lock",
    "pg_try_advisory_lock_shared",
    "pg_try_advisory_xact_lock",
    "pg_try_advisory_xact_lock_shared",
    "random_normal",
    "set_config",
    "setseed",
    "setval",
    "txid_current",
    "txid_current_if_assigned",
    "uuidv4",
    "uuidv7",
];
/// date, time, timestamp, timestamptz, interval.
const TIMES: [u32; 5] = [1082, 1083, 1114, 1184, 1186];
const TIMETZ: u32 = 1266;
