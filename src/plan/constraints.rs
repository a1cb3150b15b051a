//! Constraints that each shard keeps for its own rows only.

use super::relations::{Class, Sharded, classify};
use super::surroundings::Surroundings;
use crate::error::{Error, SqlState};
use crate::statement::{Constraint, ObjectName};
use crate::topology::ShardedBy;

/// A WARNING for each of them.
pub fn of_each_shard(constraints: &[Constraint], surroundings: &Surroundings<'_>) -> Vec<Error> {
    constraints.iter().filter_map(|constraint| warning(constraint, surroundings)).collect()
}

fn warning(constraint: &Constraint, surroundings: &Surroundings<'_>) -> Option<Error> {
    let (key, colocation) = key(&constraint.table, &constraint.made_of, surroundings)?;
    let place = constraint.columns.iter().position(|column| column.as_deref() == Some(&key));
    let (table, columns) = (&constraint.table.name, constraint.columns.iter().map(|column| column.as_deref()));
    let columns = columns.map(|column| column.unwrap_or("(…)")).collect::<Vec<_>>().join(", ");
    let warn = |what: &str, detail: String, hint: &str| {
        let message = format!("{what} of \"{table}\" ({columns}) holds within each shard only");
        Some(Error::new(SqlState::WARNING, message).with_detail(detail).with_hint(hint))
    };
    let without = format!("It is without the shard key \"{key}\".");
    let unique = surroundings.database.unique(constraint.table.schema.as_deref(), table);
    let is_kept = |column: &Option<String>| column.as_ref().is_some_and(|column| unique.contains(column));
    if constraint.refers.is_none() && constraint.columns.iter().any(is_kept) {
        return None;
    }
    let Some((referred, referred_columns)) = &constraint.refers else {
        let hint = "Other shards may have rows of the same values.";
        return if place.is_some() { None } else { warn("the uniqueness", without, hint) };
    };
    let Some((other, other_colocation)) = self::key(referred, &[], surroundings) else {
        // The same everywhere, or on the home shard only.
        let detail = format!("The rows of \"{}\" are on the home shard.", referred.name);
        let is_everywhere = matches!(classify(referred, surroundings).0, Class::Reference);
        return if is_everywhere { None } else { warn("the foreign key", detail, "Make it a reference table.") };
    };
    let is_key = |place: usize| referred_columns.get(place).is_none_or(|column| *column == other);
    if colocation == other_colocation && place.is_some_and(is_key) {
        return None;
    }
    let detail = format!("Rows of \"{}\" that it refers to may be on other shards.", referred.name);
    warn("the foreign key", detail, "Let it contain the shard key of both tables.")
}

/// The shard key of a table and what it is colocated by, if it is sharded. `made_of`: its columns, where the catalog does
/// not know it yet.
fn key(table: &ObjectName, made_of: &[String], surroundings: &Surroundings<'_>) -> Option<(String, usize)> {
    if let Class::Sharded(sharded) = classify(table, surroundings).0 {
        let Sharded { column, colocation, .. } = &*sharded;
        return Some((column.clone(), *colocation));
    }
    let by_column = surroundings.database.sharded.iter().find_map(|tables| match &tables.tables {
        ShardedBy::Column(column) if made_of.contains(column) => Some((column.clone(), tables.colocation)),
        _ => None,
    });
    by_column.filter(|_| matches!(classify(table, surroundings).0, Class::Unknown))
}
