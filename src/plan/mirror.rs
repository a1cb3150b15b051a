//! Writes of reference tables that would not come to the same on every shard: done on one, whose rows the others get.

use std::sync::Arc;

use super::gather::Gathering;
use super::keys::Keyed;
use super::relations::{Class, Resolved};
use super::rewrite::Splice;
use super::surroundings::Surroundings;
use super::{Access, Mirror, Plan, Route, Staged, access};
use crate::catalog::Relation;
use crate::statement::{Kind, Statement, Tokens, Values, quoted_name};
use crate::topology::ShardId;

/// Such a write, its values left open.
#[derive(Debug)]
pub(super) struct Mirroring {
    statement: Tokens,
    returning: bool,
    alias: String,
    table: String,
    copy: Arc<str>,
    /// Where it is done, and the others.
    shards: Vec<ShardId>,
    keyed: Keyed,
    /// It reads sharded tables.
    gathering: Option<Gathering>,
}

impl Mirroring {
    /// `None`: this cannot be done so.
    pub(super) fn new(statement: &Statement, resolved: &[Resolved], surroundings: &Surroundings<'_>) -> Option<Self> {
        let Surroundings { database, catalog, .. } = surroundings;
        let mut written = resolved.iter().filter(|relation| relation.written);
        let (Some(known), None) = (written.next(), written.next()) else { return None };
        let table = known.catalog.as_ref().filter(|table| !table.has_triggers)?;
        let is_opaque = access::reads_unseen(statement, resolved, catalog);
        if known.block != 0 || !matches!(known.class, Class::Reference) || is_opaque {
            return None;
        }
        let returning = match &statement.kind {
            Kind::Insert(insert) => insert.returning,
            Kind::Update(update) => update.returning,
            Kind::Delete { returning } => *returning,
            _ => return None,
        };
        let keyed = Keyed::new(statement, resolved);
        let gathering = match keyed.relations.is_empty() {
            true => None,
            false => Some(Gathering::new(statement, resolved, surroundings, &keyed).ok()?),
        };
        let home = database.home;
        let others = (0..database.shards.len()).filter_map(|shard| u16::try_from(shard).ok().map(ShardId));
        Some(Self {
            statement: statement.tokens,
            returning,
            alias: quoted_name(&statement.blocks[known.block].relations[known.relation].alias),
            table: known.name.clone(),
            copy: Arc::from(copy(statement, table)?),
            shards: std::iter::once(home).chain(others.filter(|shard| *shard != home)).collect(),
            keyed,
            gathering,
        })
    }

    pub(super) fn plan(&self, values: &Values<'_>) -> Plan {
        let mut splice = Splice::new(values.text);
        let row = format!("ROW({}.*)::text", self.alias);
        let words = if self.returning { format!(", {row}") } else { format!(" RETURNING {row}") };
        splice.insert_after(self.statement, words);
        let (text, fetches) = match &self.gathering {
            None => (splice.finish(), Vec::new()),
            Some(gathering) => gathering.over(&self.keyed.shards(values), values, splice),
        };
        let mirror = Mirror {
            shards: self.shards.clone(),
            fetches,
            text: Arc::from(text),
            returning: self.returning,
            copy: Arc::clone(&self.copy),
            table: self.table.clone(),
        };
        Plan { route: Route::Staged(Box::new(Staged::Mirror(mirror))), access: Access::Write }
    }
}

/// What is done with rows that were written elsewhere. `None`: it cannot be told which rows they are here.
fn copy(statement: &Statement, table: &Relation) -> Option<String> {
    let qualified = format!("{}.{}", quoted_name(&table.schema), quoted_name(&table.name));
    let rows = format!("unnest($1::text[]::{qualified}[]) AS r");
    let key: Vec<String> = table.primary_key.iter().map(|name| quoted_name(name)).collect();
    let is_key = key.iter().map(|name| format!("t.{name} = r.{name}")).collect::<Vec<_>>().join(" AND ");
    let assigned = statement.assigned.iter().map(|assigned| &assigned.column);
    let keeps_key = !key.is_empty() && assigned.clone().all(|column| !table.primary_key.contains(column));
    match &statement.kind {
        Kind::Insert(insert) => {
            let columns: Vec<String> = table.given_columns().map(|column| quoted_name(&column.name)).collect();
            let values: Vec<String> = columns.iter().map(|name| format!("r.{name}")).collect();
            let mut text = format!(
                "INSERT INTO {qualified} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {rows}",
                columns.join(", "),
                values.join(", ")
            );
            if insert.on_conflict == Some(true) {
                let set = assigned.map(|name| quoted_name(name)).map(|name| format!("{name} = excluded.{name}"));
                let set = set.collect::<Vec<_>>().join(", ");
                text.push_str(&format!(" ON CONFLICT ({}) DO UPDATE SET {set}", key.join(", ")));
                return keeps_key.then_some(text);
            }
            Some(text)
        }
        Kind::Update(_) => {
            let set = assigned.map(|name| quoted_name(name)).map(|name| format!("{name} = r.{name}"));
            let set = set.collect::<Vec<_>>().join(", ");
            keeps_key.then(|| format!("UPDATE {qualified} AS t SET {set} FROM {rows} WHERE {is_key}"))
        }
        Kind::Delete { .. } => keeps_key.then(|| format!("DELETE FROM {qualified} AS t USING {rows} WHERE {is_key}")),
        _ => None,
    }
}
