//! Numbers (OIDs) inside values in binary, on shards that give a database's own types others than clients know: what has to
//! be known before such values pass. The connection does the rest (see [`Connection::number_by`]).

use std::sync::Arc;

use smallvec::SmallVec;

use super::Session;
use super::block::Came;
use super::carry::Stopped;
use super::digest::{Step, Steps};
use super::effects::Effect;
use super::local::slice;
use super::portals::portal_of;
use super::prepared::Prepared;
use super::ties;
use super::transaction::Open;
use crate::backend::Connection;
use crate::error::Error;
use crate::plan::types_of_copy;
use crate::statement::{Analysis, Copy, CopyFormat, Kind, ObjectName, Statement, copied_query, quoted_name};
use crate::wire::frame::{Header, client};
use crate::wire::{Status, has_unknown_values, wants_binary};

/// Whose rows a connection is ready for. What its server described last, it takes for the rows that come next.
#[derive(Default)]
pub(super) struct Portals {
    /// Bound in this unit, their rows without numbers.
    plain: SmallVec<[Box<str>; 1]>,
    described: Described,
}

/// What the server was asked to describe since it gave rows.
#[derive(Default, PartialEq, Eq)]
enum Described {
    #[default]
    Nothing,
    Portal(Box<str>),
    /// A portal that is not there any more.
    Gone,
}

impl Portals {
    /// A Bind with this body is sent; `plain`: of a statement whose rows hold no numbers.
    pub(super) fn bind(&mut self, body: &[u8], plain: bool) {
        let name = portal_of(body).unwrap_or_default();
        self.plain.retain(|known| **known != *name);
        if plain || !wants_binary(body) {
            self.plain.push(Box::from(name));
        }
        if self.described == Described::Portal(Box::from(name)) {
            self.described = Described::Gone;
        }
    }

    /// The body of a Describe of a portal, which is sent.
    pub(super) fn describe(&mut self, body: &[u8]) {
        let name = body.get(1..).and_then(|name| portal_of(name).ok());
        self.described = Described::Portal(Box::from(name.unwrap_or_default()));
    }

    /// An Execute with this body may be sent, as far as numbers go. `false`: its portal is to be described first.
    pub(super) fn may_execute(&mut self, body: &[u8]) -> bool {
        let name = portal_of(body).unwrap_or_default();
        match &self.described {
            Described::Nothing if self.plain.iter().any(|plain| **plain == *name) => true,
            Described::Portal(described) if **described == *name => {
                self.described = Described::Nothing;
                true
            }
            _ => false,
        }
    }

    /// What was described has come and gone.
    pub(super) fn forget(&mut self) {
        self.described = Described::Nothing;
    }
}

impl Session {
    /// The types by which the values of a Bind with this body are read, which may be for any shard: as declared, or, where
    /// that does not do, as a server has found them.
    pub(super) async fn types_of_values(&mut self, prepared: &Arc<Prepared>, bind_body: &[u8]) -> Came<Arc<[u32]>> {
        let shards = &self.snapshot.catalog.oids;
        let count = shards.iter().flatten().any(|oids| oids.are_compared());
        if !count || !has_unknown_values(bind_body, &prepared.types) {
            return Ok(Ok(Arc::clone(&prepared.types)));
        }
        let of = (self.variant(), self.snapshot.catalog.epoch);
        if let Some(known) = prepared.parameters.load().as_ref().filter(|known| known.0 == of) {
            return Ok(Ok(Arc::clone(&known.1)));
        }
        let types = self.types_of(prepared).await?;
        if let Ok(types) = &types {
            prepared.parameters.store(Some(Arc::new((of, Arc::clone(types)))));
        }
        Ok(types)
    }

    /// The connection is told what the columns of each COPY are that is sent on it next. An error: the unit ends with it.
    pub(super) async fn expect_copies(
        &mut self,
        copies: Vec<Columns>,
        mut open: Box<Open>,
    ) -> Result<Box<Open>, Stopped> {
        let expected = expect(copies, &mut open.lent.connection).await;
        if let Err(stopped) = expected {
            let was_in_block = open.lent.connection.status != Status::Idle;
            self.settle(open, &[], true, was_in_block);
            return Err(stopped);
        }
        Ok(open)
    }

    /// What the columns of each COPY are that the unit at the front of the input has.
    pub(super) fn copies_of(&self, steps: &Steps, input: &[u8]) -> Vec<Columns> {
        let bound = |step: &Step| match step {
            Step::Bind { prepared, .. } => Some(Arc::clone(prepared)),
            _ => None,
        };
        let bound = steps.iter().filter_map(bound);
        let mut copies: Vec<Columns> =
            bound.flat_map(|bound| self.copies(&bound.analysis, bound.readable().unwrap_or_default())).collect();
        if let (true, Ok(Some(Header { kind: client::QUERY, length }))) = (steps.is_empty(), Header::whole(input)) {
            copies.extend(self.copies_in(&input[Header::BYTES..length - 1]));
        }
        copies
    }

    /// The same of a text.
    pub(super) fn copies_in(&self, text: &[u8]) -> Vec<Columns> {
        let text = std::str::from_utf8(text).unwrap_or_default();
        self.copies(&self.station.resolve(text).0.analysis, text)
    }

    fn copies(&self, analysis: &Analysis, text: &str) -> Vec<Columns> {
        analysis.statements.iter().filter_map(|statement| self.columns_of_copy(statement, text)).collect()
    }

    fn columns_of_copy(&self, statement: &Statement, text: &str) -> Option<Columns> {
        match &statement.kind {
            // No data passes.
            Kind::Copy(Copy { is_client: false, .. }) => None,
            Kind::Copy(Copy { options: Some(options), .. }) if options.format != CopyFormat::Binary => {
                Some(Columns::Known(Vec::new()))
            }
            Kind::Copy(copy @ Copy { table: Some(table), .. }) => {
                let known = self.types_of_table(copy, table).map(Columns::Known);
                Some(known.unwrap_or_else(|| Columns::AsOf(table_query(copy, table))))
            }
            Kind::Copy(_) | Kind::ModifyingQuery { .. } => {
                let query = copied_query(slice(text, statement.tokens))?;
                // An error names a place in the text.
                let before = &text[..query.as_ptr() as usize - text.as_ptr() as usize];
                Some(Columns::AsOf(" ".repeat(before.chars().count()) + query))
            }
            _ => None,
        }
    }

    /// As the catalog knows it. `None`: it may be another one.
    fn types_of_table(&self, copy: &Copy, table: &ObjectName) -> Option<Vec<u32>> {
        if self.pinned == Some(ties::TEMPORARY) {
            return None;
        }
        let relation = self.snapshot.catalog.relation(table.schema.as_deref(), &table.name, &self.search_path)?;
        Some(types_of_copy(copy, relation))
    }
}

/// How the types of the columns of a COPY are found.
pub(super) enum Columns {
    Known(Vec<u32>),
    /// They are those of this query.
    AsOf(String),
}

/// A query that gives the columns that a COPY of a table does.
fn table_query(copy: &Copy, table: &ObjectName) -> String {
    let columns: Vec<String> = copy.columns.iter().map(|column| quoted_name(column)).collect();
    let columns = if columns.is_empty() { "*".to_owned() } else { columns.join(", ") };
    format!("SELECT {columns} FROM {}", table.quoted())
}

/// Of a unit of these effects: what its COPYs move may hold numbers.
pub(super) fn must_expect_copies(open: &Open, effects: &[Effect]) -> bool {
    effects.contains(&Effect::Copies) && open.lent.connection.has_numbers_in_values()
}

/// Tells the connection what the columns of each COPY are that is sent on it next.
async fn expect(copies: Vec<Columns>, connection: &mut Connection) -> Result<(), Stopped> {
    let mut types = Vec::with_capacity(copies.len());
    for columns in copies {
        types.push(match columns {
            Columns::Known(types) => types,
            Columns::AsOf(query) => connection.column_types(&query).await?.map_err(Stopped::Server)?,
        });
    }
    types.iter().for_each(|types| connection.expect_copy(types));
    Ok(())
}

/// COPY in binary that nobody has foreseen.
pub(super) fn copy_comes_late() -> Error {
    Error::unsupported("COPY within a pipeline", "Send it by itself, or by the simple protocol.")
}
