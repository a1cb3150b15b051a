//! `pgweir route`: EXPLAIN ROUTE offline. Without a catalog, tables are known by the configuration's names only.

use super::Failure;
use crate::catalog::Catalog;
use crate::plan::{Surroundings, Template, explain};
use crate::statement::{ShapeCache, Values};
use crate::topology::Topology;

pub(super) fn print(topology: &Topology, database: Option<&str>, sql: &str) -> Result<(), Failure> {
    let mut names: Vec<&String> = topology.databases.keys().collect();
    names.sort();
    let name = database.or(names.first().map(|name| name.as_str())).ok_or("no database is configured")?;
    let database = topology.database(name).ok_or_else(|| format!("database \"{name}\" is not configured"))?;
    let mut shapes = ShapeCache::<()>::new(1 << 20);
    let (entry, literals) = shapes.resolve(sql);
    let (catalog, search_path) = (Catalog::default(), ["public".to_owned()]);
    let surroundings = Surroundings { database, catalog: &catalog, search_path: &search_path };
    let values = Values { text: sql, literals, parameters: None };
    for statement in &entry.analysis.statements {
        let template = Template::resolve(statement, &surroundings);
        for (property, value) in explain::explain(&template, &values) {
            println!("{property:10} {value}");
        }
    }
    Ok(())
}
