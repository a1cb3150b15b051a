//! Several shards' row streams become one. Pure: bytes of rows in, bytes of rows out.
//!
//! Knows result types and formats, nothing of shards, statements or sockets. A [`Merge`] says what is wanted,
//! [`Columns`] what the inputs hold, a [`Merger`] does it row by row. All comparing goes through `key`: a value becomes
//! bytes that compare as PostgreSQL compares the values; types without such bytes are refused before the first row.
//! Text is taken to arrive in the servers' own encoding.

mod accumulate;
mod columns;
mod datetime;
mod distinct;
mod groups;
mod key;
mod kind;
mod merger;
mod numeric;
mod order;
mod row;
#[cfg(test)]
mod tests;

pub use columns::Columns;
pub use merger::{Merger, Step};
pub use row::cells;

/// How rows of several shards become the answer of one PostgreSQL. Steps in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Merge {
    /// Rows of equal group become one; `None`: rows pass.
    pub aggregate: Option<Aggregation>,
    /// Equal rows (over the visible columns) are given once.
    pub distinct: bool,
    /// Without `aggregate`, each input is sorted so; empty: input after input. With `aggregate`, the groups are sorted so
    /// at the end, however the inputs come; empty: groups as first seen.
    pub order: Vec<SortKey>,
    pub offset: u64,
    pub limit: Option<u64>,
    /// Trailing columns of the inputs that the client must not see (sort keys and partial aggregates).
    pub hidden: usize,
    /// Trailing outputs of `aggregate` that only sort: the client must not see them.
    pub hidden_outputs: usize,
    /// Text columns of the inputs that the servers compare by bytes; `min` and `max` of other text are refused.
    pub bytewise: Vec<usize>,
}

impl Merge {
    /// With every column numbered from the front, once it is known how many there are.
    #[must_use]
    pub fn located(&self, columns: usize) -> Self {
        let mut located = self.clone();
        for key in &mut located.order {
            if let Some(hidden) = key.column.checked_sub(HIDDEN) {
                key.column = columns.saturating_sub(self.hidden) + hidden;
            }
        }
        located
    }
}

/// Whether values of a type of PostgreSQL's own can be sorted here as the servers sort them.
pub fn sorts(type_oid: u32, collation_is_bytes: bool) -> bool {
    let kind = kind::Kind::of(type_oid);
    kind.has_order() && (collation_is_bytes || !kind.is_collated())
}

/// A sort key's column that is this plus `n`: the `n`th hidden one, however many visible ones a `*` stands for.
pub const HIDDEN: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq)]
pub struct SortKey {
    /// Column of the inputs, from 0. With an aggregation: sorts by the final value of the output made from this column
    /// (`shown` for an average), or by the group's own value if the column is part of the group and not an output.
    pub column: usize,
    pub descending: bool,
    pub nulls_first: bool,
    /// A text column that the servers sort by bytes. `false`: sorting text by it is refused.
    pub collation_is_bytes: bool,
}

/// Partial aggregates of the shards to final ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregation {
    /// Input columns (hidden ones too) whose values make up a group; empty: one group, given even for no rows.
    pub group: Vec<usize>,
    /// One per visible output column, then `Merge::hidden_outputs` more.
    pub outputs: Vec<Final>,
}

/// How one output column is made of input columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Final {
    /// The group's own value of this input column.
    Group(usize),
    /// Sum of partial counts; 0 for none.
    Count(usize),
    /// Sum of partial sums, type as the input column's; NULL for none.
    Sum(usize),
    Min(usize),
    Max(usize),
    /// `sum / count` with PostgreSQL's result type and scale; the client's column is input column `shown`.
    Avg {
        shown: usize,
        sum: usize,
        count: usize,
    },
    BoolAnd(usize),
    BoolOr(usize),
}
