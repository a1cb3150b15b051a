//! DISTINCT: each row once.

use std::collections::HashSet;

use super::columns::Column;
use super::key::{self, Typed};
use super::order::{self, Item};
use super::row::Cells;
use crate::error::{Error, SqlState};

/// The rows given so far.
#[derive(Debug)]
pub(super) struct Distinct {
    /// The visible columns.
    columns: Vec<Typed>,
    /// All columns of a row, hidden ones too.
    width: usize,
    /// Rows come sorted so; where the sort key changes, earlier rows cannot come again.
    sorted: Vec<Item>,
    run: Vec<u8>,
    seen: HashSet<Box<[u8]>, foldhash::fast::RandomState>,
    bytes: usize,
    limit_bytes: usize,
    cells: Cells,
    key: Vec<u8>,
}

impl Distinct {
    pub(super) fn new(columns: &[&Column], hidden: usize, sorted: &[Item], limit_bytes: usize) -> Result<Self, Error> {
        let typed = columns.iter().map(|column| Typed::for_equality(column, "SELECT DISTINCT"));
        Ok(Self {
            columns: typed.collect::<Result<_, _>>()?,
            width: columns.len() + hidden,
            sorted: sorted.to_vec(),
            run: Vec::new(),
            seen: HashSet::default(),
            bytes: 0,
            limit_bytes,
            cells: Cells::default(),
            key: Vec::new(),
        })
    }

    /// Whether this row was not given yet.
    pub(super) fn admit(&mut self, row: &[u8]) -> Result<bool, Error> {
        self.cells.read(row, self.width)?;
        if !self.sorted.is_empty() {
            self.follow_order(row)?;
        }
        self.key.clear();
        for (index, typed) in self.columns.iter().enumerate() {
            key::write_nullable(typed, self.cells.get(row, index), &mut self.key)?;
        }
        if self.seen.contains(self.key.as_slice()) {
            return Ok(false);
        }
        self.bytes += self.key.len() + ENTRY_BYTES;
        if self.bytes > self.limit_bytes {
            let message = format!("the distinct rows of this statement take more than {} bytes", self.limit_bytes);
            return Err(Error::new(SqlState::TOO_LARGE, message)
                .with_hint("filter by the sharding key, or sort by a selected column: ORDER BY needs less memory"));
        }
        self.seen.insert(self.key.as_slice().into());
        Ok(true)
    }

    fn follow_order(&mut self, row: &[u8]) -> Result<(), Error> {
        self.key.clear();
        order::write_key(&self.sorted, row, &self.cells, &mut self.key)?;
        if self.key != self.run {
            std::mem::swap(&mut self.key, &mut self.run);
            self.seen.clear();
            self.bytes = 0;
        }
        Ok(())
    }
}

/// What a hash set holds per entry besides the bytes.
const ENTRY_BYTES: usize = 48;
