//! What INSERT, UPDATE and their kin write.

use super::types::{ParameterIndex, RelationRef, Tokens, Value};

#[derive(Clone, Debug, PartialEq)]
pub struct Insert {
    /// As listed; empty: all of the table's, in its order.
    pub columns: Vec<String>,
    pub source: InsertSource,
    /// `Some(true)` for DO UPDATE, `Some(false)` for DO NOTHING.
    pub on_conflict: Option<bool>,
    pub returning: bool,
    /// `None`: they were not found.
    pub places: Option<InsertPlaces>,
    /// Where its rows come from, as a query that can be asked by itself: VALUES, too, if it gives the same so.
    pub query: Option<SourceQuery>,
}

/// Where an INSERT could be given more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InsertPlaces {
    /// The token in front of which a list of columns stands, or could.
    pub head: u32,
    /// The parenthesis at the end of that list.
    pub listed: Option<u32>,
    pub overriding: Option<Overriding>,
    /// The first token of VALUES, DEFAULT VALUES or the query.
    pub source: u32,
}

/// OVERRIDING … VALUE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overriding {
    System,
    User,
}

#[derive(Clone, Debug, PartialEq)]
pub enum InsertSource {
    Values(Vec<Row>),
    DefaultValues,
    /// The query is a block of the statement.
    Query(SourceQuery),
}

/// The query of INSERT … SELECT.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceQuery {
    /// From its first word to its last.
    pub tokens: Tokens,
    /// Which of its columns are a bare string, NULL or parameter: they take the type of the column that they go to.
    pub untyped: Vec<usize>,
}

/// One parenthesised row of VALUES.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub values: Vec<Value>,
    /// With its parentheses.
    pub tokens: Tokens,
    /// Parameters the row uses, ascending.
    pub parameters: Vec<ParameterIndex>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    pub returning: bool,
    /// `None`: it could not be told where they stand.
    pub clauses: Option<UpdateClauses>,
}

/// Where the clauses of an UPDATE stand.
#[derive(Clone, Debug, PartialEq)]
pub struct UpdateClauses {
    /// From UPDATE to SET.
    pub head: Tokens,
    /// Between the two: the table and its alias.
    pub target: Tokens,
    /// In the order of [`Statement::assigned`].
    pub assignments: Vec<Assignment>,
    /// The keyword.
    pub from: Option<u32>,
    /// The condition behind WHERE.
    pub filter: Option<Tokens>,
    /// RETURNING and what it returns.
    pub returning: Option<Tokens>,
}

/// `column = value` in an UPDATE.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Assignment {
    /// With the sign behind it.
    pub column: Tokens,
    pub value: Tokens,
}

/// One column of a written relation that gets a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Assigned {
    pub target: RelationRef,
    pub column: String,
    /// The value where it is a plain one; `excluded.c` is column `c` of no relation.
    pub value: Value,
}

/// Rows that a written relation gets.
#[derive(Clone, Debug, PartialEq)]
pub struct InsertedRows {
    pub target: RelationRef,
    /// As listed; empty: all of the table's, in its order.
    pub columns: Vec<String>,
    /// `None`: those of a query, or defaults.
    pub rows: Option<Vec<Vec<Value>>>,
    /// By MERGE, which may change other rows of the relation, too.
    pub merges: bool,
}
