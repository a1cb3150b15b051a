//! Columns that are declared unique over all shards: which writes may change their values.

use super::relations::{Resolved, classify};
use super::surroundings::Surroundings;
use super::{Keeping, Touches};
use crate::error::Error;
use crate::statement::{Kind, ObjectName, Statement};

/// `None`: it changes none. An error: what it changes could not be kept.
pub(super) fn of(
    statement: &Statement,
    resolved: &[Resolved],
    touches: &Touches,
    surroundings: &Surroundings<'_>,
) -> Result<Option<Keeping>, Error> {
    let database = surroundings.database;
    if !database.is_sharded() || database.sharded.iter().all(|tables| tables.unique.is_empty()) {
        return Ok(None);
    }
    // Of what else writes, the triggers refuse it.
    let (written, on_conflict) = match &statement.kind {
        Kind::Insert(insert) => (Vec::new(), insert.on_conflict.is_some()),
        Kind::Update(_) | Kind::Delete { .. } | Kind::Merge | Kind::ModifyingQuery { .. } => (Vec::new(), false),
        Kind::Copy(copy) if copy.from => (copy.table.iter().cloned().collect(), false),
        Kind::Truncate { tables } => (tables.clone(), false),
        _ => return Ok(None),
    };
    let written = written.iter().filter_map(|name| qualified(name, surroundings));
    let named = resolved.iter().filter(|relation| relation.written).filter_map(|relation| relation.catalog.as_ref());
    let named = named.map(|table| (table.schema.clone(), table.name.clone()));
    let all: Vec<(String, String)> = written.chain(named).chain(touches.tables.iter().cloned()).collect();
    for (schema, name) in &all {
        let declared = database.unique(Some(schema), name);
        let kept = surroundings.catalog.relation(Some(schema), name, &[]).map(|table| table.kept_unique.as_slice());
        if let Some(column) = declared.iter().find(|column| !kept.is_some_and(|kept| kept.contains(column))) {
            let what = format!("a write of \"{name}\", whose values of \"{column}\" are not kept yet,");
            let hint = "Run `pgweir check --live --repair` once: it looks at the rows that are there.";
            return Err(Error::unsupported(what, hint));
        }
    }
    let is_concerned = |(schema, name): &(String, String)| !database.unique(Some(schema), name).is_empty();
    let may = touches.what.is_everything() || all.iter().any(is_concerned);
    Ok(may.then_some(Keeping { at: database.home, on_conflict }))
}

fn qualified(name: &ObjectName, surroundings: &Surroundings<'_>) -> Option<(String, String)> {
    classify(name, surroundings).1.map(|table| (table.schema.clone(), table.name.clone()))
}
