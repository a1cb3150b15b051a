//! CREATE TABLE AS: a table on every shard, with the rows that one that is not sharded has: on the home shard.

use std::sync::Arc;

use super::gather::Gathering;
use super::keys::Keyed;
use super::local;
use super::relations::{self, Class, Resolved};
use super::rewrite::Splice;
use super::surroundings::Surroundings;
use super::{Access, Create, Plan, Route, Staged, access};
use crate::error::Error;
use crate::statement::{Ddl, Filled, Kind, Output, Statement, Tokens, Values};
use crate::topology::{ShardId, ShardSet, ShardedBy};

/// Such a statement, its values left open.
#[derive(Debug)]
pub(super) struct Filling {
    statement: Tokens,
    query: Tokens,
    home: ShardId,
    all: ShardSet,
    keyed: Keyed,
    /// Its query reads sharded tables.
    gathering: Option<Gathering>,
    /// It is on the home shard only, in this session.
    temporary: bool,
}

impl Filling {
    /// `None`: it fills no table with rows.
    pub(super) fn new(
        statement: &Statement,
        ddl: &Ddl,
        resolved: &[Resolved],
        surroundings: &Surroundings<'_>,
    ) -> Option<Result<Self, Error>> {
        let filled = ddl.filled.as_ref()?;
        if filled.empty && matches!(filled.query.kind, Kind::Query) {
            return None;
        }
        let is_everywhere = |known: &Resolved| !matches!(known.class, Class::Sharded(_) | Class::View);
        if ddl.what == "CREATE MATERIALIZED VIEW" && resolved.iter().all(is_everywhere) {
            return None;
        }
        let hint = "Create the table first, then insert into it.";
        let refuse = || Some(Err(Error::unsupported("CREATE TABLE AS", hint)));
        let is_opaque = access::reads_unseen(&filled.query, resolved, surroundings.catalog);
        let is_query = matches!(filled.query.kind, Kind::Query) && ddl.what == "CREATE TABLE";
        if !is_query || is_opaque || !(ddl.temporary || lives_at_home(filled, resolved, surroundings)) {
            return refuse();
        }
        let keyed = Keyed::new(&filled.query, resolved);
        let gathering = match keyed.relations.is_empty() {
            true => None,
            false => match Gathering::new(&filled.query, resolved, surroundings, &keyed) {
                Ok(gathering) => Some(gathering.written_out()),
                Err(_) => return refuse(),
            },
        };
        let (home, all) = (surroundings.database.home, surroundings.database.all_shards());
        let (query, temporary) = (filled.query.tokens, ddl.temporary);
        Some(Ok(Self { statement: statement.tokens, query, home, all, keyed, gathering, temporary }))
    }

    pub(super) fn plan(&self, values: &Values<'_>) -> Plan {
        let splice = Splice::new(values.text);
        let (filled, fetches) = match &self.gathering {
            None => (splice.finish(), Vec::new()),
            Some(gathering) => gathering.over(&self.keyed.shards(values), values, splice),
        };
        if self.temporary {
            return local::of(self.home, (filled, fetches), true);
        }
        let mut splice = Splice::new(values.text);
        let behind = Tokens { start: self.query.end, end: self.statement.end };
        match behind.start < behind.end {
            true => splice.replace(behind, "WITH NO DATA"),
            false => splice.insert_after(self.statement, " WITH NO DATA"),
        }
        let others = self.all.iter().filter(|shard| *shard != self.home);
        let create = Create {
            shards: std::iter::once(self.home).chain(others).collect(),
            fetches,
            filled: Arc::from(filled),
            empty: Arc::from(splice.finish()),
        };
        Plan { route: Route::Staged(Box::new(Staged::Create(create))), access: Access::Write }
    }
}

/// The new table is neither a reference table nor sharded, as far as its columns are known.
fn lives_at_home(filled: &Filled, resolved: &[Resolved], surroundings: &Surroundings<'_>) -> bool {
    let database = surroundings.database;
    if !matches!(relations::classify(&filled.table, surroundings).0, Class::Unknown | Class::Home) {
        return false;
    }
    let is_key = |name: &str| {
        database.sharded.iter().any(|tables| matches!(&tables.tables, ShardedBy::Column(column) if column == name))
    };
    let columns = &filled.query.shape.columns;
    let has_wildcard = columns.iter().any(|column| column.expression == Output::Wildcard);
    let own = filled.query.blocks.first().map_or(&[][..], |block| block.relations.as_slice());
    // What a subquery gives is not followed.
    let is_traced = own.iter().all(|relation| relation.table.is_some());
    let read = resolved.iter().filter(|known| known.block == 0);
    let read_keys = read
        .map(|known| known.catalog.as_ref())
        .any(|table| table.is_none_or(|table| table.columns.iter().any(|column| is_key(&column.name))));
    let named_key = columns.iter().any(|column| match (&column.alias, &column.expression) {
        (Some(alias), _) => is_key(alias),
        (None, Output::Column(column)) => is_key(&column.column),
        (None, _) => false,
    });
    let is_listed = filled.columns.iter().any(|name| is_key(name));
    (!columns.is_empty() || filled.values) && !named_key && !is_listed && !(has_wildcard && (read_keys || !is_traced))
}
