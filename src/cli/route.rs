//! `pgweir route`: EXPLAIN ROUTE offline. What only the servers' catalogs know is assumed, and said.

use std::collections::HashMap;
use std::sync::Arc;

use super::Failure;
use crate::catalog::{Catalog, Column, Function, Relation, RelationKind, Volatility};
use crate::plan::{Surroundings, Template, explain};
use crate::statement::{ShapeCache, Statement, Values};
use crate::topology::{Database, ShardedBy, TablePattern, Topology};

pub(super) fn print(topology: &Topology, database: Option<&str>, sql: &str) -> Result<(), Failure> {
    let mut names: Vec<&String> = topology.databases.keys().collect();
    names.sort();
    let name = database.or(names.first().map(|name| name.as_str())).ok_or("no database is configured")?;
    let database = topology.database(name).ok_or_else(|| format!("database \"{name}\" is not configured"))?;
    let mut shapes = ShapeCache::<()>::new(1 << 20);
    let (entry, literals) = shapes.resolve(sql);
    let values = Values { text: sql, literals, parameters: None };
    let search_path = ["public".to_owned()];
    for statement in &entry.analysis.statements {
        let Assumed { catalog, notes } = Assumed::of(statement, database);
        let surroundings = Surroundings { database, catalog: &catalog, search_path: &search_path };
        let template = Template::resolve(statement, &surroundings);
        for (property, value) in explain::explain(&template, &values) {
            println!("{property:10} {value}");
        }
        notes.iter().for_each(|note| println!("{:10} {note}", "assumed"));
    }
    Ok(())
}

/// What a statement's names are taken for.
struct Assumed {
    catalog: Catalog,
    notes: Vec<String>,
}

impl Assumed {
    fn of(statement: &Statement, database: &Database) -> Self {
        let mut assumed = Self { catalog: Catalog { loaded: true, ..Catalog::default() }, notes: Vec::new() };
        let named = statement.blocks.iter().flat_map(|block| &block.relations);
        for table in named.filter_map(|relation| relation.table.as_ref()) {
            assumed.table(table.schema.as_deref(), &table.name, database);
        }
        for call in &statement.calls {
            assumed.function(&call.name.name);
        }
        assumed
    }

    /// Every table that the configuration does not name has the columns that tables are sharded by.
    fn table(&mut self, schema: Option<&str>, name: &str, database: &Database) {
        let is = |pattern: &TablePattern| {
            pattern.name == name && (pattern.schema.is_none() || pattern.schema.as_deref() == schema.or(Some("public")))
        };
        let is_named = database.reference.iter().any(is)
            || database
                .sharded
                .iter()
                .any(|tables| matches!(&tables.tables, ShardedBy::Table { table, .. } if is(table)));
        let by_column = database.sharded.iter().find_map(|tables| match &tables.tables {
            ShardedBy::Column(column) => Some(column),
            ShardedBy::Table { .. } => None,
        });
        let system = matches!(schema, Some("pg_catalog" | "information_schema")) || name.starts_with("pg_");
        let schema = schema.unwrap_or(if system { "pg_catalog" } else { "public" }).to_owned();
        if let (false, false, Some(column)) = (is_named, system, by_column) {
            let note = format!("{name} is a table with column {column}");
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
            self.add(&schema, name, vec![assumed_column(column)]);
        } else if !is_named {
            self.add(&schema, name, Vec::new());
        }
    }

    fn add(&mut self, schema: &str, name: &str, columns: Vec<Column>) {
        let relation = Relation {
            oid: 0,
            schema: schema.to_owned(),
            name: name.to_owned(),
            kind: RelationKind::Table,
            columns,
            primary_key: Vec::new(),
            primary_only: false,
            reads: Vec::new(),
            definition: None,
            calls: Vec::new(),
            is_momentary: false,
            has_triggers: false,
            kept_unique: Vec::new(),
            row_security: false,
            descendants: Vec::new(),
            ancestors: Vec::new(),
            cascades: Vec::new(),
        };
        let tables: &mut HashMap<String, Arc<Relation>> = self.catalog.relations.entry(schema.to_owned()).or_default();
        tables.insert(name.to_owned(), Arc::new(relation));
    }

    /// Every function is PostgreSQL's own; of those that write, the usual ones are known.
    fn function(&mut self, name: &str) {
        let writes = WRITING.iter().any(|known| name.starts_with(known));
        let volatility = if writes { Volatility::Volatile } else { Volatility::Immutable };
        let schema = "pg_catalog".to_owned();
        let function = Function { schema, volatility, is_user_defined: false, is_aggregate: false };
        if Arc::make_mut(&mut self.catalog.functions).insert(name.to_owned(), vec![function]).is_none() && !writes {
            self.notes.push(format!("function {name} writes nothing"));
        }
    }
}

fn assumed_column(name: &str) -> Column {
    Column {
        name: name.to_owned(),
        type_oid: 0,
        not_null: false,
        needs_value: false,
        collation_is_bytes: true,
        is_nondeterministic: false,
        varying_default: false,
        is_generated: false,
        sequence: None,
    }
}

/// How their names begin.
const WRITING: [&str; 8] =
    ["nextval", "setval", "pg_advisory", "pg_try_advisory", "set_config", "pg_notify", "lo_", "txid_current"];
