//! ALTER TABLE by which a table's rows would be looked for elsewhere than they are.

use super::Surroundings;
use super::relations::{Class, classify, in_configuration};
use crate::catalog::Relation;
use crate::error::Error;
use crate::statement::{Alteration, Ddl, ObjectName};

/// Why the definition is not to be changed so.
pub(super) fn refused(ddl: &Ddl, surroundings: &Surroundings<'_>) -> Option<Error> {
    let table = ddl.tables.first().filter(|_| surroundings.database.is_sharded())?;
    let (before, Some(relation)) = classify(table, surroundings) else { return None };
    ddl.alters.iter().find_map(|alteration| of_one(alteration, (&before, &relation), surroundings))
}

fn of_one(
    alteration: &Alteration,
    (before, relation): (&Class, &Relation),
    surroundings: &Surroundings<'_>,
) -> Option<Error> {
    let (mut schema, mut name) = (relation.schema.as_str(), relation.name.as_str());
    let mut ancestors = relation.ancestors.clone();
    let (mut gone, mut new, mut is_empty) = (None, None, false);
    match alteration {
        Alteration::Rename(other) => name = other,
        Alteration::Schema(other) => schema = other,
        Alteration::RenameColumn { from, to } => (gone, new) = (Some(from), Some(to)),
        Alteration::AddColumn { name, filled } => (new, is_empty) = (Some(name), !filled),
        Alteration::DropColumn(name) => gone = Some(name),
        Alteration::Inherit(parent) => ancestors.push(known(parent, surroundings)?),
        Alteration::Attach(child) => {
            let (of_child, relation) = classify(child, surroundings);
            return relation.filter(|_| !is_same(&of_child, before)).map(|relation| moves(&relation.name));
        }
    }
    let has = |column: &str| {
        gone.is_none_or(|gone| gone != column)
            && (relation.column(column).is_some() || new.is_some_and(|new| new == column))
    };
    let after = in_configuration((Some(schema), name), &ancestors, &has, surroundings.database);
    let lacks_key = matches!(&after, Class::Sharded(sharded) if !has(&sharded.column));
    // A row without a key may be anywhere: it is moved when it gets one.
    let is_fine = is_same(&after, before) || (is_empty && matches!(before, Class::Home));
    (!is_fine || lacks_key).then(|| moves(&relation.name))
}

fn known(table: &ObjectName, surroundings: &Surroundings<'_>) -> Option<(String, String)> {
    let relation = classify(table, surroundings).1?;
    Some((relation.schema.clone(), relation.name.clone()))
}

fn is_same(one: &Class, other: &Class) -> bool {
    match (one, other) {
        (Class::Sharded(one), Class::Sharded(other)) => one == other,
        _ => std::mem::discriminant(one) == std::mem::discriminant(other),
    }
}

fn moves(table: &str) -> Error {
    let what = format!("an ALTER TABLE after which the rows of \"{table}\" would belong to other shards");
    let hint = "Names of tables and key columns are those of the configuration: change it first, or make a new table and \
                copy the rows.";
    Error::unsupported(what, hint)
}
