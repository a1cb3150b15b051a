//! Several shards' row streams become one. Pure: bytes of rows in, bytes of rows out.
//!
//! Knows result types and formats, nothing of shards, statements or sockets.

/// How rows of several shards become the answer of one PostgreSQL. Steps in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Merge {
    /// Rows of equal group become one; `None`: rows pass.
    pub aggregate: Option<Aggregation>,
    /// Equal rows (over the visible columns) are given once.
    pub distinct: bool,
    /// Each input is sorted so; empty: input after input.
    pub order: Vec<SortKey>,
    pub offset: u64,
    pub limit: Option<u64>,
    /// Trailing columns of the inputs that the client must not see (sort keys and partial aggregates).
    pub hidden: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SortKey {
    /// Column of the inputs, from 0.
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
    /// One per visible output column.
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
