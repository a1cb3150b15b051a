//! What each relation of a statement is to sharding.

use std::sync::Arc;

use super::access;
use super::materialized;
use super::surroundings::Surroundings;
use crate::catalog::{self, RelationKind, ViewCall};
use crate::error::{Error, SqlState};
use crate::statement::{ObjectName, Statement};
use crate::topology::{Database, Key, KeyType, Mapping, ShardId, ShardedBy, ShardedTables, TablePattern};

/// A relation of a statement that is a table, view or the like.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    pub block: usize,
    pub relation: usize,
    /// As the client named it.
    pub name: String,
    pub class: Class,
    pub catalog: Option<Arc<catalog::Relation>>,
    pub written: bool,
    pub nullable: bool,
    pub primary_only: bool,
    pub volatile_view: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Class {
    Sharded(Arc<Sharded>),
    Reference,
    /// Rows on the home shard only.
    Home,
    Catalog,
    /// Not in the catalog: home, and anything may be behind it.
    Unknown,
    /// A view over sharded tables, or over functions that may read them: where its rows come from cannot be told by its
    /// columns.
    View,
}

/// What a table of the catalog is to sharding, whoever names it.
#[derive(Clone, Debug)]
pub enum Place {
    Sharded(Arc<Sharded>),
    Reference,
    Home,
}

/// How the rows of a table are spread.
#[derive(Debug, PartialEq)]
pub struct Sharded {
    pub column: String,
    pub key_type: KeyType,
    pub mapping: Mapping,
    pub colocation: usize,
}

impl Sharded {
    /// One of the shards that it has rows on, for what means the same on each.
    pub(super) fn any(&self) -> ShardId {
        self.mapping.all().iter().next().unwrap_or(ShardId(0))
    }

    /// What PostgreSQL says of a text that is no integer where the key is one.
    pub(super) fn malformed(&self, text: &str) -> Option<Error> {
        let name = match self.key_type {
            KeyType::Bigint => "bigint",
            KeyType::Integer => "integer",
            _ => return None,
        };
        if Key::from_text(self.key_type, text).is_some() {
            return None;
        }
        Some(match text.trim().parse::<i128>() {
            Ok(_) => Error::new(SqlState("22003"), format!("value \"{text}\" is out of range for type {name}")),
            Err(_) => Error::new(SqlState("22P02"), format!("invalid input syntax for type {name}: \"{text}\"")),
        })
    }

    /// A row to be written whose key is in no range: `what` it is.
    pub(super) fn nowhere(&self, table: &str, what: impl std::fmt::Display) -> Error {
        let message = format!("{what} of column \"{}\" of table \"{table}\" is in no shard's range", self.column);
        Error::new(SqlState::INVALID_VALUE, message).with_hint("Ranges are set by [[sharded_tables.mapping]].")
    }

    /// Where a row is to be whose key is this text.
    pub(super) fn shard_of_text(&self, table: &str, key: Option<&str>) -> Result<ShardId, Error> {
        let Some(text) = key else { return self.mapping.default.ok_or_else(|| self.nowhere(table, "a NULL")) };
        let key = Key::from_text(self.key_type, text).ok_or_else(|| self.nowhere(table, format!("value {text}")))?;
        self.mapping.shard_of(&key).ok_or_else(|| self.nowhere(table, format!("value {key}")))
    }
}

/// Types with a lower number are PostgreSQL's own, the same everywhere (PostgreSQL documentation, 75.2.2).
pub(super) const FIRST_OWN_TYPE: u32 = 16_384;

impl Resolved {
    pub(super) fn sharded(&self) -> Option<&Arc<Sharded>> {
        match &self.class {
            Class::Sharded(sharded) => Some(sharded),
            _ => None,
        }
    }
}

/// Every relation of a statement that has a name in the database.
pub(super) fn resolve(statement: &Statement, surroundings: &Surroundings<'_>) -> Vec<Resolved> {
    let mut resolved = Vec::new();
    for (block, data) in statement.blocks.iter().enumerate() {
        for (relation, named) in data.relations.iter().enumerate() {
            let Some(name) = &named.table else { continue };
            let (class, catalog) = classify(name, surroundings);
            resolved.push(Resolved {
                block,
                relation,
                name: name.name.clone(),
                class,
                written: named.written,
                nullable: named.nullable,
                primary_only: catalog.as_ref().is_some_and(|relation| is_primary_only(relation, surroundings.catalog)),
                volatile_view: catalog
                    .as_ref()
                    .is_some_and(|relation| !relation.calls.iter().all(access::is_harmless_in_view)),
                catalog,
            });
        }
    }
    resolved
}

/// Replicas do not hold its rows, or those of a table behind it.
fn is_primary_only(relation: &catalog::Relation, catalog: &catalog::Catalog) -> bool {
    let base = |(schema, name): &(String, String)| catalog.relation(Some(schema), name, &[]);
    relation.primary_only || relation.reads.iter().filter_map(base).any(|base| base.primary_only)
}

pub(super) fn classify(name: &ObjectName, surroundings: &Surroundings<'_>) -> (Class, Option<Arc<catalog::Relation>>) {
    let Surroundings { database, catalog, search_path } = surroundings;
    let relation = catalog.relation(name.schema.as_deref(), &name.name, search_path).cloned();
    let schema = relation.as_ref().map(|relation| relation.schema.as_str()).or(name.schema.as_deref());
    if matches!(schema, Some("pg_catalog" | "information_schema")) {
        return (Class::Catalog, relation);
    }
    if !database.is_sharded() {
        let class = if relation.is_some() { Class::Home } else { Class::Unknown };
        return (class, relation);
    }
    if materialized::is_rows(&name.name) {
        return (if relation.is_some() { Class::Home } else { Class::Unknown }, relation);
    }
    let named = (schema, &*name.name);
    let Some(known) = &relation else {
        let class = in_configuration(named, &[], &|_| false, database);
        return (if matches!(class, Class::Home) { Class::Unknown } else { class }, None);
    };
    let is_view = matches!(known.kind, RelationKind::View | RelationKind::MaterializedView);
    let has = |column: &str| !is_view && known.column(column).is_some();
    let class = match in_configuration(named, &known.ancestors, &has, database) {
        Class::Home if is_view => of_view(known, surroundings),
        class => class,
    };
    (class, relation)
}

/// What the configuration makes of a table of this schema and name, or of its ancestors, which `has` these columns.
pub(super) fn in_configuration(
    (schema, name): (Option<&str>, &str),
    ancestors: &[(String, String)],
    has: &dyn Fn(&str) -> bool,
    database: &Database,
) -> Class {
    let is = |pattern: &TablePattern| {
        pattern.is(schema, name) || ancestors.iter().any(|(schema, name)| pattern.is(Some(schema), name))
    };
    let by_name = database.sharded.iter().find(|tables| match &tables.tables {
        ShardedBy::Table { table, .. } => is(table),
        ShardedBy::Column(_) => false,
    });
    if let Some(tables) = by_name {
        return sharded(tables);
    }
    if database.reference.iter().any(is) {
        return Class::Reference;
    }
    let by_column = database.sharded.iter().find(|tables| match &tables.tables {
        ShardedBy::Column(column) => has(column),
        ShardedBy::Table { .. } => false,
    });
    by_column.map_or(Class::Home, sharded)
}

/// Every table of the catalog that is not PostgreSQL's own.
pub fn places(database: &Database, catalog: &catalog::Catalog) -> Vec<(Arc<catalog::Relation>, Place)> {
    let surroundings = Surroundings { database, catalog, search_path: &[] };
    let place = |relation: &Arc<catalog::Relation>| {
        let is_table = matches!(relation.kind, RelationKind::Table | RelationKind::PartitionedTable);
        let name = ObjectName { schema: Some(relation.schema.clone()), name: relation.name.clone() };
        let place = match classify(&name, &surroundings).0 {
            Class::Sharded(sharded) => Place::Sharded(sharded),
            Class::Reference => Place::Reference,
            Class::Home => Place::Home,
            Class::Catalog | Class::Unknown | Class::View => return None,
        };
        is_table.then(|| (Arc::clone(relation), place))
    };
    catalog.relations.values().flat_map(|names| names.values()).filter_map(place).collect()
}

fn of_view(view: &catalog::Relation, surroundings: &Surroundings<'_>) -> Class {
    let is_user_defined = |call: &ViewCall| {
        surroundings.catalog.functions(Some(&call.schema), &call.name).any(|function| function.is_user_defined)
    };
    if view.calls.iter().any(is_user_defined) {
        return Class::View;
    }
    let mut reference = !view.reads.is_empty();
    for (schema, name) in &view.reads {
        let base = ObjectName { schema: Some(schema.clone()), name: name.clone() };
        match classify(&base, surroundings).0 {
            Class::Sharded(_) | Class::View => return Class::View,
            Class::Reference => {}
            _ => reference = false,
        }
    }
    if reference { Class::Reference } else { Class::Home }
}

fn sharded(tables: &ShardedTables) -> Class {
    Class::Sharded(of_tables(tables))
}

/// Of tables that are sharded because they have a column of this name.
pub(super) fn sharded_by(tables: &ShardedTables) -> Option<Arc<Sharded>> {
    matches!(tables.tables, ShardedBy::Column(_)).then(|| of_tables(tables))
}

fn of_tables(tables: &ShardedTables) -> Arc<Sharded> {
    let column = match &tables.tables {
        ShardedBy::Column(column) | ShardedBy::Table { column, .. } => column.clone(),
    };
    Arc::new(Sharded {
        column,
        key_type: tables.key_type,
        mapping: tables.mapping.clone(),
        colocation: tables.colocation,
    })
}
