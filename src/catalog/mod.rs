//! What the servers' catalogs say about names: tables, columns, functions, views.
//!
//! Pure data: loaded by `control`, asked by `plan`. Knows nothing of connections, statements or shards.

use std::collections::HashMap;
use std::sync::Arc;

use crate::wire::Oids;

/// One database's catalog as it was at one moment; replaced whole when it changes.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Grows by one whenever anything below differs from the load before.
    pub epoch: u64,
    /// `false` until the first load: every name is unknown then.
    pub loaded: bool,
    pub relations: HashMap<String, HashMap<String, Arc<Relation>>>,
    /// By unqualified name: all overloads in all schemas.
    pub functions: Arc<HashMap<String, Vec<Function>>>,
    /// The database's default collation sorts by bytes (C, POSIX, C.UTF-8).
    pub default_collation_is_bytes: bool,
    /// For each shard: what clients know its own types and tables by, where its numbers are not home's.
    pub oids: Vec<Option<Arc<Oids>>>,
    /// Users' operators or casts whose functions are not immutable: what a text calls cannot be told by its words.
    pub has_hidden_calls: bool,
    /// Users' functions, defaults of columns or rules ask for numbers that were drawn (`currval`, `lastval`).
    pub has_hidden_recalls: bool,
}

/// A row of `pg_class` that a statement can name (PostgreSQL documentation, 53.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub kind: RelationKind,
    pub columns: Vec<Column>,
    /// Column names of the primary key, in key order.
    pub primary_key: Vec<String>,
    /// `true` for temporary and unlogged relations: replicas do not hold their rows.
    pub primary_only: bool,
    /// For a view: what its rule reads, transitively down to base tables, as (schema, name).
    pub reads: Vec<(String, String)>,
    /// For a view that is not materialized: its query, every name in it qualified.
    pub definition: Option<String>,
    /// For a view: functions that are not immutable, called by its rule or by one of a view below it.
    pub calls: Vec<ViewCall>,
    /// For a view: values of the moment or the session, samples, locks or text read as a time, in its rule or below.
    pub is_momentary: bool,
    /// User triggers, rules, or functions in defaults and checks, that may do anything when the relation is written.
    pub has_triggers: bool,
    /// Columns of which triggers of pgweir's own tell what a write gives and takes.
    pub kept_unique: Vec<String>,
    /// Which rows a user sees is decided by policies.
    pub row_security: bool,
    /// Partitions and inheriting tables, down to the last, and what they inherit from, up to the first.
    pub descendants: Vec<(String, String)>,
    pub ancestors: Vec<(String, String)>,
    /// Foreign keys that refer to it and do more than check.
    pub cascades: Vec<Cascade>,
}

/// A function that a view's rule calls, by operator or name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewCall {
    pub schema: String,
    pub name: String,
    pub volatility: Volatility,
}

/// What happens to the rows of a table that refer to a row of this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cascade {
    /// The referring table, as (schema, name).
    pub table: (String, String),
    /// Its columns that refer, and those referred to, in the same order; none of these where a generated column is among
    /// them.
    pub referring: Vec<String>,
    pub referred: Vec<String>,
    pub on_delete: Option<Consequence>,
    pub on_update: Option<Consequence>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// ON DELETE CASCADE.
    Delete,
    /// ON UPDATE CASCADE, SET NULL, SET DEFAULT.
    Update,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelationKind {
    Table,
    PartitionedTable,
    View,
    MaterializedView,
    Sequence,
    ForeignTable,
}

/// A row of `pg_attribute` (PostgreSQL documentation, 53.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub type_oid: u32,
    pub not_null: bool,
    /// It is that, and has no default either.
    pub needs_value: bool,
    /// The column's collation sorts by bytes, or its type has none.
    pub collation_is_bytes: bool,
    /// Equal texts may have different bytes.
    pub is_nondeterministic: bool,
    /// The default may give another value on another server or at another time.
    pub varying_default: bool,
    /// GENERATED ALWAYS AS … STORED: no statement gives it a value.
    pub is_generated: bool,
    /// What gives it its value where a statement does not, and nothing else.
    pub sequence: Option<Sequence>,
}

/// Of a serial or identity column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    pub schema: String,
    pub name: String,
    /// GENERATED ALWAYS AS IDENTITY.
    pub always: bool,
}

/// A row of `pg_proc` (PostgreSQL documentation, 53.39).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    pub schema: String,
    pub volatility: Volatility,
    /// Written in SQL or PL by a user (not part of PostgreSQL or in C): its body may read tables.
    pub is_user_defined: bool,
    pub is_aggregate: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volatility {
    Immutable,
    Stable,
    Volatile,
}

impl Catalog {
    /// Of the shard of this number.
    pub fn oids(&self, shard: u16) -> Option<&Arc<Oids>> {
        self.oids.get(usize::from(shard))?.as_ref()
    }

    /// The relation a name means: as qualified, else the first match along `search_path`
    /// (`pg_catalog` is looked in first unless it is listed, as in PostgreSQL documentation 5.9.5).
    pub fn relation(&self, schema: Option<&str>, name: &str, search_path: &[String]) -> Option<&Arc<Relation>> {
        let within = |schema: &str| self.relations.get(schema).and_then(|names| names.get(name));
        if let Some(schema) = schema {
            return within(schema);
        }
        let listed = search_path.iter().any(|schema| schema == "pg_catalog");
        let implied = (!listed).then(|| within("pg_catalog")).flatten();
        implied.or_else(|| search_path.iter().find_map(|schema| within(schema)))
    }

    /// Every function that a call by this name may reach.
    pub fn functions<'a>(&'a self, schema: Option<&'a str>, name: &str) -> impl Iterator<Item = &'a Function> {
        let all = self.functions.get(name).map_or(&[][..], Vec::as_slice);
        all.iter().filter(move |function| schema.is_none_or(|schema| function.schema == schema))
    }
}

impl Relation {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Those whose values may be given: not the generated ones.
    pub fn given_columns(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| !column.is_generated)
    }

    /// Where its value stands among those of a statement that lists these columns; none: all.
    pub fn place_of(&self, name: &str, listed: &[String]) -> Option<usize> {
        match listed {
            [] => self.columns.iter().position(|column| column.name == name),
            listed => listed.iter().position(|column| column == name),
        }
    }
}
