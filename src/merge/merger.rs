//! One merge under way: a source of rows (appended, sorted or grouped), then DISTINCT, OFFSET and LIMIT.

use bytes::{Bytes, BytesMut};

use super::columns::{Column, Columns};
use super::distinct::Distinct;
use super::groups::Groups;
use super::order::Sorted;
use super::{Merge, row};
use crate::error::{Error, SqlState};

/// One merge under way. The caller feeds an input when [`Step::Need`] names it, and no other; an aggregation takes rows
/// of any input at any time.
#[derive(Debug)]
pub struct Merger {
    source: Source,
    distinct: Option<Distinct>,
    /// Rows still to skip.
    offset: u64,
    /// Rows still to give.
    limit: Option<u64>,
    /// Columns of a row that the client sees; `None`: all.
    visible: Option<usize>,
    spare: BytesMut,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing before this input is fed a row or ended.
    Need(usize),
    /// A DataRow body for the client.
    Row(Bytes),
    /// All is given; inputs that have not ended may be discarded.
    Done,
}

#[derive(Debug)]
enum Source {
    Appended(Appended),
    Sorted(Box<Sorted>),
    Grouped(Box<Groups>),
}

impl Merger {
    /// Refuses what cannot be compared or computed exactly as the servers do. Groups and distinct rows may take
    /// `limit_bytes`.
    pub fn new(merge: &Merge, columns: &Columns, inputs: usize, limit_bytes: usize) -> Result<Self, Error> {
        let (source, shown, hidden) = match &merge.aggregate {
            Some(aggregation) => {
                let groups = Groups::new(merge, aggregation, columns, inputs, limit_bytes)?;
                let outputs = aggregation.outputs.len().saturating_sub(merge.hidden_outputs);
                let shown = aggregation.outputs[..outputs].iter().map(|output| columns.get(output.column()));
                let hidden = groups.width() - outputs;
                (Source::Grouped(Box::new(groups)), shown.collect::<Result<Vec<&Column>, _>>()?, hidden)
            }
            None => {
                let visible = columns.len().saturating_sub(merge.hidden);
                let shown = (0..visible).map(|index| columns.get(index)).collect::<Result<_, _>>()?;
                (Source::of_rows(merge, columns, inputs)?, shown, columns.len() - visible)
            }
        };
        let sorted = match &source {
            Source::Sorted(sorted) => sorted.items(),
            Source::Appended(_) | Source::Grouped(_) => &[],
        };
        let distinct = merge.distinct.then(|| Distinct::new(&shown, hidden, sorted, limit_bytes)).transpose()?;
        let visible = (hidden > 0).then_some(shown.len());
        let (offset, limit) = (merge.offset, merge.limit);
        Ok(Self { source, distinct, offset, limit, visible, spare: BytesMut::new() })
    }

    pub fn step(&mut self) -> Result<Step, Error> {
        while self.limit != Some(0) {
            let row = match self.source.step()? {
                Step::Row(row) => row,
                step => return Ok(step),
            };
            let is_new = self.distinct.as_mut().map_or(Ok(true), |distinct| distinct.admit(&row))?;
            if is_new && self.offset > 0 {
                self.offset -= 1;
            } else if is_new {
                self.limit = self.limit.map(|limit| limit - 1);
                return self.visible_part(row).map(Step::Row);
            }
        }
        Ok(Step::Done)
    }

    /// The next row of an input: a DataRow body.
    pub fn feed(&mut self, input: usize, row: Bytes) -> Result<(), Error> {
        match &mut self.source {
            Source::Appended(appended) => appended.feed(input, row),
            Source::Sorted(sorted) => sorted.feed(input, row),
            Source::Grouped(groups) => groups.feed(&row),
        }
    }

    /// The input has no more rows.
    pub fn end(&mut self, input: usize) -> Result<(), Error> {
        match &mut self.source {
            Source::Appended(appended) => appended.end(input),
            Source::Sorted(sorted) => sorted.end(input),
            Source::Grouped(groups) => groups.end(input),
        }
    }

    fn visible_part(&mut self, row: Bytes) -> Result<Bytes, Error> {
        match self.visible {
            Some(columns) => row::first_columns(&row, columns, &mut self.spare),
            None => Ok(row),
        }
    }
}

impl Source {
    /// One input is in order by itself: nothing has to be compared, so nothing is refused.
    fn of_rows(merge: &Merge, columns: &Columns, inputs: usize) -> Result<Self, Error> {
        if merge.order.is_empty() || inputs <= 1 {
            return Ok(Self::Appended(Appended { current: 0, inputs, row: None }));
        }
        Sorted::new(&merge.order, columns, inputs).map(|sorted| Self::Sorted(Box::new(sorted)))
    }

    fn step(&mut self) -> Result<Step, Error> {
        match self {
            Self::Appended(appended) => Ok(appended.step()),
            Self::Sorted(sorted) => Ok(sorted.step()),
            Self::Grouped(groups) => groups.step(),
        }
    }
}

/// Input after input.
#[derive(Debug)]
struct Appended {
    current: usize,
    inputs: usize,
    row: Option<Bytes>,
}

impl Appended {
    fn feed(&mut self, input: usize, row: Bytes) -> Result<(), Error> {
        self.expect(input)?;
        self.row = Some(row);
        Ok(())
    }

    fn end(&mut self, input: usize) -> Result<(), Error> {
        self.expect(input)?;
        self.current += 1;
        Ok(())
    }

    fn expect(&self, input: usize) -> Result<(), Error> {
        let unasked = || Error::new(SqlState::INTERNAL, format!("input {input} of a merge was not asked for"));
        (input == self.current && input < self.inputs && self.row.is_none()).then_some(()).ok_or_else(unasked)
    }

    fn step(&mut self) -> Step {
        match self.row.take() {
            Some(row) => Step::Row(row),
            None if self.current < self.inputs => Step::Need(self.current),
            None => Step::Done,
        }
    }
}
