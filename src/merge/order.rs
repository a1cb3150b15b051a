//! ORDER BY as bytes, and the k-way merge of sorted inputs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;

use super::columns::{Column, Columns};
use super::merger::Step;
use super::row::Cells;
use super::{SortKey, key};
use crate::error::{Error, SqlState};

/// One ORDER BY item, checked: its type has an order that we know.
#[derive(Clone, Debug)]
pub(super) struct Item {
    column: usize,
    typed: key::Typed,
    descending: bool,
    nulls_first: bool,
}

impl Item {
    /// Sorts by `position` of the rows, which holds values of `column`.
    pub(super) fn new(sort: &SortKey, column: &Column, position: usize) -> Result<Self, Error> {
        let kind = column.kind();
        if kind.is_collated() && !sort.collation_is_bytes {
            let what = format!("ORDER BY {} by the collation of its text", column.quoted());
            return Err(Error::unsupported(what, "sort by bytes: ORDER BY … COLLATE \"C\""));
        }
        if !kind.has_order() {
            let what = format!("ORDER BY {} of {}", column.quoted(), column.type_name());
            return Err(Error::unsupported(what, "cast it to a type with a simple order, or read one shard"));
        }
        let typed = key::Typed::new(column);
        Ok(Self { column: position, typed, descending: sort.descending, nulls_first: sort.nulls_first })
    }

    fn write(&self, cell: Option<&[u8]>, key: &mut Vec<u8>) -> Result<(), Error> {
        let Some(cell) = cell else {
            key.push(if self.nulls_first { 0 } else { 2 });
            return Ok(());
        };
        key.push(1);
        let start = key.len();
        self.typed.write(cell, key)?;
        if self.descending {
            key[start..].iter_mut().for_each(|byte| *byte = !*byte);
        }
        Ok(())
    }
}

/// Appends bytes that compare as the row sorts.
pub(super) fn write_key(items: &[Item], row: &[u8], cells: &Cells, key: &mut Vec<u8>) -> Result<(), Error> {
    items.iter().try_for_each(|item| item.write(cells.get(row, item.column), key))
}

/// Sorted inputs, of which one row each is held.
#[derive(Debug)]
pub(super) struct Sorted {
    items: Vec<Item>,
    columns: usize,
    /// Inputs whose next row is not here yet.
    waiting: Vec<usize>,
    rows: Vec<Bytes>,
    /// Ties go to the lower input.
    heap: BinaryHeap<Reverse<(Vec<u8>, usize)>>,
    /// Keys of rows that are gone, for reuse.
    spare: Vec<Vec<u8>>,
    cells: Cells,
}

impl Sorted {
    pub(super) fn new(order: &[SortKey], columns: &Columns, inputs: usize) -> Result<Self, Error> {
        let item = |sort: &SortKey| Item::new(sort, columns.get(sort.column)?, sort.column);
        Ok(Self {
            items: order.iter().map(item).collect::<Result<_, _>>()?,
            columns: columns.len(),
            waiting: (0..inputs).rev().collect(),
            rows: vec![Bytes::new(); inputs],
            heap: BinaryHeap::with_capacity(inputs),
            spare: Vec::with_capacity(inputs),
            cells: Cells::default(),
        })
    }

    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    pub(super) fn feed(&mut self, input: usize, row: Bytes) -> Result<(), Error> {
        self.end(input)?;
        let mut key = self.spare.pop().unwrap_or_default();
        key.clear();
        self.cells.read(&row, self.columns)?;
        write_key(&self.items, &row, &self.cells, &mut key)?;
        self.rows[input] = row;
        self.heap.push(Reverse((key, input)));
        Ok(())
    }

    pub(super) fn end(&mut self, input: usize) -> Result<(), Error> {
        let unasked = || Error::new(SqlState::INTERNAL, format!("input {input} of a merge was not asked for"));
        let index = self.waiting.iter().position(|&waiting| waiting == input).ok_or_else(unasked)?;
        self.waiting.remove(index);
        Ok(())
    }

    pub(super) fn step(&mut self) -> Step {
        if let Some(&input) = self.waiting.last() {
            return Step::Need(input);
        }
        let Some(Reverse((key, input))) = self.heap.pop() else {
            return Step::Done;
        };
        self.spare.push(key);
        self.waiting.push(input);
        Step::Row(std::mem::take(&mut self.rows[input]))
    }
}
