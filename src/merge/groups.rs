//! GROUP BY: partial aggregates of equal groups become one row.

use std::collections::HashMap;
use std::vec;

use bytes::Bytes;

use super::accumulate::{Output, State};
use super::columns::{Column, Columns};
use super::key::{self, Typed};
use super::merger::Step;
use super::order::{self, Item};
use super::row::{self, Cells};
use super::{Aggregation, Final, Merge, SortKey};
use crate::error::{Error, SqlState};

/// All groups so far; given when all inputs have ended.
#[derive(Debug)]
pub(super) struct Groups {
    /// Input columns that make up the group.
    by: Vec<(usize, Typed)>,
    /// Names of those columns, for messages.
    names: Vec<String>,
    /// Visible outputs, then hidden ones that only sort.
    outputs: Vec<Output>,
    order: Vec<Item>,
    columns: usize,
    index: HashMap<Box<[u8]>, usize, foldhash::fast::RandomState>,
    groups: Vec<Box<[State]>>,
    bytes: usize,
    limit_bytes: usize,
    /// Inputs that have not ended.
    live: Vec<bool>,
    finished: Option<vec::IntoIter<Bytes>>,
    cells: Cells,
    key: Vec<u8>,
}

impl Groups {
    pub(super) fn new(
        merge: &Merge,
        aggregation: &Aggregation,
        columns: &Columns,
        inputs: usize,
        limit_bytes: usize,
    ) -> Result<Self, Error> {
        let mut made = aggregation.outputs.clone();
        let order = merge.order.iter().map(|sort| order_item(sort, aggregation, &mut made, columns));
        let order = order.collect::<Result<_, _>>()?;
        let outputs = made.iter().map(|made| Output::new(made, columns, &merge.bytewise));
        let by = aggregation
            .group
            .iter()
            .map(|&column| Ok((column, Typed::for_equality(columns.get(column)?, "GROUP BY")?)));
        let names = aggregation.group.iter().map(|&column| columns.get(column).map(Column::quoted));
        let mut groups = Self {
            by: by.collect::<Result<_, Error>>()?,
            names: names.collect::<Result<_, _>>()?,
            outputs: outputs.collect::<Result<_, _>>()?,
            order,
            columns: columns.len(),
            index: HashMap::default(),
            groups: Vec::new(),
            bytes: 0,
            limit_bytes,
            live: vec![true; inputs],
            finished: None,
            cells: Cells::default(),
            key: Vec::new(),
        };
        if groups.by.is_empty() {
            groups.open(None)?;
        }
        Ok(groups)
    }

    /// Columns of the rows that are given.
    pub(super) fn width(&self) -> usize {
        self.outputs.len()
    }

    pub(super) fn feed(&mut self, row: &[u8]) -> Result<(), Error> {
        self.cells.read(row, self.columns)?;
        self.key.clear();
        for (column, typed) in &self.by {
            key::write_nullable(typed, self.cells.get(row, *column), &mut self.key)?;
        }
        let group = match self.index.get(self.key.as_slice()) {
            Some(&group) => group,
            None => self.open(Some(row))?,
        };
        for (output, state) in self.outputs.iter().zip(&mut self.groups[group]) {
            let before = state.held_bytes();
            output.add(state, row, &self.cells)?;
            self.bytes = self.bytes.saturating_sub(before) + state.held_bytes();
        }
        self.check_limit()
    }

    pub(super) fn end(&mut self, input: usize) -> Result<(), Error> {
        let unknown = || Error::new(SqlState::INTERNAL, format!("a merge has no input {input}"));
        *self.live.get_mut(input).ok_or_else(unknown)? = false;
        Ok(())
    }

    pub(super) fn step(&mut self) -> Result<Step, Error> {
        if let Some(input) = self.live.iter().position(|&live| live) {
            return Ok(Step::Need(input));
        }
        if self.finished.is_none() {
            self.finished = Some(self.finish()?.into_iter());
        }
        Ok(self.finished.as_mut().and_then(Iterator::next).map_or(Step::Done, Step::Row))
    }

    /// A new group under the current key; a group of no columns is there without a row.
    fn open(&mut self, row: Option<&[u8]>) -> Result<usize, Error> {
        let mut states: Box<[State]> = self.outputs.iter().map(Output::start).collect();
        if let Some(row) = row {
            self.outputs.iter().zip(&mut states).for_each(|(output, state)| output.first(state, row, &self.cells));
        }
        self.bytes += self.key.len() + GROUP_BYTES + states.len() * size_of::<State>();
        self.bytes += states.iter().map(State::held_bytes).sum::<usize>();
        self.check_limit()?;
        self.index.insert(self.key.as_slice().into(), self.groups.len());
        self.groups.push(states);
        Ok(self.groups.len() - 1)
    }

    fn check_limit(&self) -> Result<(), Error> {
        if self.bytes <= self.limit_bytes {
            return Ok(());
        }
        let message = format!("the groups of this statement take more than {} bytes", self.limit_bytes);
        let hint = match self.names.as_slice() {
            [] => "shorten the values it takes minimum and maximum of".to_owned(),
            names => format!("filter by {} so that fewer groups remain, or by the sharding key", names.join(", ")),
        };
        Err(Error::new(SqlState::TOO_LARGE, message).with_hint(hint))
    }

    fn finish(&mut self) -> Result<Vec<Bytes>, Error> {
        self.index = HashMap::default();
        let count = u16::try_from(self.outputs.len()).expect("a row has at most 1664 columns");
        let mut rows = Vec::with_capacity(self.groups.len());
        for states in std::mem::take(&mut self.groups) {
            let mut row = count.to_be_bytes().to_vec();
            for (output, state) in self.outputs.iter().zip(&states) {
                row::put_cell(&mut row, |row| output.finish(state, row))?;
            }
            let mut key = Vec::new();
            if !self.order.is_empty() {
                self.cells.read(&row, self.outputs.len())?;
                order::write_key(&self.order, &row, &self.cells, &mut key)?;
            }
            rows.push((key, Bytes::from(row)));
        }
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    }
}

/// A sort key of the final rows; a group column that is no output becomes a hidden one.
fn order_item(
    sort: &SortKey,
    aggregation: &Aggregation,
    made: &mut Vec<Final>,
    columns: &Columns,
) -> Result<Item, Error> {
    let position = match made.iter().position(|made| made.column() == sort.column) {
        Some(position) => position,
        None if aggregation.group.contains(&sort.column) => {
            made.push(Final::Group(sort.column));
            made.len() - 1
        }
        None => {
            let message = format!("a merge sorts groups by column {}, which is not of the group", sort.column);
            return Err(Error::new(SqlState::INTERNAL, message));
        }
    };
    Item::new(sort, columns.get(sort.column)?, position)
}

/// What a hash map and a vector hold per group besides keys and states.
const GROUP_BYTES: usize = 64;
