//! Writes of reference tables: whether they come to the same on every shard.

use super::access;
use super::relations::{Class, Resolved};
use crate::catalog::{Catalog, Column};
use crate::error::Error;
use crate::statement::{Assigned, Insert, InsertSource, Statement, Value};

pub(super) fn writes_reference(resolved: &[Resolved]) -> bool {
    resolved.iter().any(|relation| relation.written && matches!(relation.class, Class::Reference))
}

/// Whether a write comes to the same on every shard.
pub(super) fn check_everywhere(statement: &Statement, resolved: &[Resolved], catalog: &Catalog) -> Result<(), Error> {
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
pub(super) fn check_within(statement: &Statement, resolved: &[Resolved], catalog: &Catalog) -> Result<(), Error> {
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
pub(super) fn check_defaults(insert: &Insert, resolved: &[Resolved]) -> Result<(), Error> {
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
