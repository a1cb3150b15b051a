//! What a query reads, restricts and gives.

use super::quoting::quoted_name;
use super::types::{LiteralIndex, ParameterIndex, Tokens};

/// One query level: a FROM list and a WHERE, or the target of a write.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// `None` for the outermost.
    pub parent: Option<usize>,
    pub role: BlockRole,
    pub relations: Vec<Relation>,
    /// WHERE and inner JOIN conditions (and outer ones as far as they restrict), conjoined.
    pub filter: Predicate,
    /// For every subquery: what makes it more than a filter over its relations.
    pub aggregates: bool,
    /// Columns inside the arguments of its aggregates: if they are an outer block's, so is the aggregate.
    pub aggregated: Vec<ColumnRef>,
    pub windows: bool,
    pub limited: bool,
    pub distinct: bool,
    /// DISTINCT ON.
    pub distinct_on: bool,
    /// An outer join whose nullable side a filter may not be pushed below, is among the relations.
    pub outer_join: bool,
    /// What must hold for every row of it, one condition each, as far as they could be told apart.
    pub conditions: Vec<Condition>,
    /// How many terms its conditions have, those that could not be told apart included.
    pub terms: usize,
    /// Keys of GROUP BY that are plain columns, each with its last token.
    pub grouped: Vec<(ColumnRef, u32)>,
}

/// One term of a WHERE, or of the ON of an inner join, without subqueries, aggregates and window functions.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    pub tokens: Tokens,
    /// All that it names.
    pub columns: Vec<ColumnRef>,
    pub calls: Vec<ObjectName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockRole {
    Outermost,
    /// Subquery in FROM.
    Derived,
    Cte,
    /// Scalar subquery, or one inside an expression of the select list.
    Scalar,
    /// IN (subquery), EXISTS and their like, in a filter.
    Filter,
    /// An arm of UNION, INTERSECT or EXCEPT.
    SetArm,
    /// The source of INSERT … SELECT.
    InsertSource,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Relation {
    /// `None`: a derived table, a CTE's name or a function in FROM.
    pub table: Option<ObjectName>,
    /// For a derived table or CTE reference: its block.
    pub block: Option<usize>,
    /// The name that columns are qualified by.
    pub alias: String,
    pub written: bool,
    /// On the nullable side of an outer join.
    pub nullable: bool,
    /// Where a table's name stands in its FROM, if that could be told.
    pub place: Option<Tokens>,
    /// An alias follows it.
    pub aliased: bool,
    /// Which gives its columns other names.
    pub renames: bool,
}

/// `schema.name` with unquoted names folded to lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectName {
    pub schema: Option<String>,
    pub name: String,
}

impl ObjectName {
    /// As SQL has it, quoted.
    pub fn quoted(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", quoted_name(schema), quoted_name(&self.name)),
            None => quoted_name(&self.name),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub name: ObjectName,
    /// The arguments, where each is a plain value.
    pub arguments: Vec<Value>,
    /// Whenever the statement succeeds, the call was made once: nothing is around it but the statement.
    pub once: bool,
}

/// A column as a block sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ColumnRef {
    /// The block that the relation stands in: an outer one's for a correlated column. `None`: unqualified.
    pub relation: Option<RelationRef>,
    pub column: String,
    /// The block that it is written in.
    pub at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RelationRef {
    pub block: usize,
    pub relation: usize,
}

/// A value as far as routing can know it before execution.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    /// The keyword.
    Boolean(bool),
    /// `negated` for a unary minus in front. `cast` is the type in `'…'::type`, `type '…'` or CAST, lower case.
    Literal {
        index: LiteralIndex,
        negated: bool,
        cast: Option<String>,
    },
    Parameter {
        index: ParameterIndex,
        cast: Option<String>,
    },
    Column(ColumnRef),
    Default,
    /// Anything computed.
    Unknown,
}

/// What must hold for a row to matter, weakened where not understood: `True` restricts nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Predicate {
    True,
    /// A constant FALSE or NULL.
    False,
    And(Vec<Predicate>),
    Or(Vec<Predicate>),
    Compare {
        column: ColumnRef,
        comparison: Comparison,
        value: Value,
    },
    /// `IN (list)`; NOT IN is `True`. `tokens` is the list with its parentheses, `items` each element's tokens.
    In {
        column: ColumnRef,
        values: Vec<Value>,
        tokens: Tokens,
        items: Vec<Tokens>,
    },
    /// `= ANY(array)` where the array is one literal or parameter.
    EqualsAny {
        column: ColumnRef,
        array: Value,
    },
    /// `column IN (subquery)` where the subquery gives one plain column: equal to `Same`.
    /// Also `a.x = b.y` of joins.
    Same(ColumnRef, ColumnRef),
    /// In an outer join's condition: rows of the nullable side `to` matter only where they equal `from`.
    Follows {
        from: ColumnRef,
        to: ColumnRef,
    },
    IsNull(ColumnRef),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What the outermost query gives and in which order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shape {
    pub columns: Vec<OutputColumn>,
    pub distinct: Distinct,
    pub group_by: Vec<GroupKey>,
    /// GROUP BY with ROLLUP, CUBE or GROUPING SETS.
    pub grouping_sets: bool,
    pub having: Option<Tokens>,
    pub order_by: Vec<OrderKey>,
    pub limit: Option<Bound>,
    pub offset: Option<Bound>,
    /// FETCH … WITH TIES.
    pub with_ties: bool,
    pub windows: bool,
    pub set_operation: bool,
    /// A clause that is not carried over shards, in words.
    pub unusual: Option<&'static str>,
    pub has_cte: bool,
    /// The token of the outermost FROM, where hidden output columns can be put in front of.
    pub from: Option<u32>,
    /// ORDER BY …, with the keywords, to the last key.
    pub order_tokens: Option<Tokens>,
    /// LIMIT/OFFSET/FETCH clauses together.
    pub limit_tokens: Option<Tokens>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub enum Distinct {
    #[default]
    No,
    All,
    On,
}

#[derive(Clone, Debug, PartialEq)]
pub struct OutputColumn {
    pub expression: Output,
    pub alias: Option<String>,
    /// As PostgreSQL names it, where that is known: by its alias, else by what it is made of.
    pub name: Option<String>,
    /// The expression without its alias.
    pub tokens: Tokens,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// `*` or `alias.*`.
    Wildcard,
    Column(ColumnRef),
    /// A call of one aggregate and nothing around it.
    Aggregate(Aggregate),
    /// Anything else; `aggregates`: an aggregate is somewhere inside.
    Expression {
        aggregates: bool,
        windows: bool,
        collation: Collation,
    },
}

/// What an expression says about the collation of its value, if that is a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Collation {
    /// No COLLATE is in it.
    #[default]
    Unwritten,
    /// COLLATE "C" or "POSIX" ends it.
    Bytes,
    Other,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// Lower case: "count", "sum" …
    pub name: String,
    /// Between the parentheses; `*` for `count(*)`.
    pub argument: Tokens,
    pub star: bool,
    pub distinct: bool,
    pub filtered: bool,
    pub ordered: bool,
    /// The argument, where it is a plain column.
    pub column: Option<ColumnRef>,
    /// Of the argument.
    pub collation: Collation,
}

#[derive(Clone, Debug, PartialEq)]
pub enum GroupKey {
    /// Named or numbered: the output column it is.
    Output(usize),
    /// By a name that an output column was given, unless an input column has it too: that one is then meant.
    Alias { output: usize, column: String },
    /// An expression that is not among the output columns.
    Hidden { tokens: Tokens, column: Option<ColumnRef> },
}

#[derive(Clone, Debug, PartialEq)]
pub struct OrderKey {
    pub target: OrderTarget,
    pub descending: bool,
    pub nulls_first: bool,
    /// An explicit COLLATE "C" or "POSIX" (`Some(true)`), or any other (`Some(false)`).
    pub collate_bytes: Option<bool>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum OrderTarget {
    Output(usize),
    Hidden { tokens: Tokens, column: Option<ColumnRef>, collation: Collation },
}

/// A LIMIT or OFFSET.
#[derive(Clone, Debug, PartialEq)]
pub enum Bound {
    /// FETCH FIRST ROW ONLY.
    One,
    /// LIMIT ALL and LIMIT NULL are no bound at all and stay `None` in [`Shape`].
    Value(Value),
    /// Computed: known to the server only.
    Expression,
}
