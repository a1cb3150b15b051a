//! What an SQL text means, as data.

use std::sync::Arc;
use std::time::Duration;

use super::quoting::quoted_name;

/// The `n`th lifted literal of a text, from 0.
pub type LiteralIndex = usize;
/// The `n` of `$n` less one.
pub type ParameterIndex = usize;

/// What a text means, whatever its literals: shared by all texts of one shape.
#[derive(Debug, PartialEq)]
pub struct Analysis {
    /// One per statement of the text, in order; none for an empty text.
    pub statements: Vec<Arc<Statement>>,
    /// The highest `$n` used.
    pub parameters: usize,
    /// Another text of the same shape may mean something else (`ORDER BY 1`, `SET x = 'a'`).
    pub literal_sensitive: bool,
    /// Some statement names a prepared one: see [`super::prepared_names`].
    pub names_prepared: bool,
    /// Some statement reads [`PREPARED_STATEMENTS`].
    pub lists_prepared: bool,
    /// All it does it does by a function for its session alone, which it makes, calls and drops.
    pub body: Option<Body>,
}

/// What stands in a body in PL/pgSQL, or in another language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// Statements of SQL, in the order of the text, each as it is but for the variables that take its row.
    pub statements: Vec<Box<str>>,
    /// All the rest: names, keywords and numbers in lower case.
    pub words: Vec<String>,
}

impl Body {
    /// Something of this name (in lower case) may be called in it.
    pub fn has(&self, name: &str) -> bool {
        let mut written = self.statements.iter().map(|statement| statement.to_ascii_lowercase());
        self.words.iter().any(|word| word == name) || written.any(|statement| statement.contains(name))
    }
}

/// The view that shows a session's prepared statements.
pub const PREPARED_STATEMENTS: &str = "pg_prepared_statements";

impl Analysis {
    /// Of a text that cannot be read at all.
    pub fn unreadable() -> Self {
        let statement = Statement::of(Kind::Unknown { keyword: String::new() }, Tokens::default());
        Self {
            statements: vec![Arc::new(statement)],
            parameters: 0,
            literal_sensitive: true,
            names_prepared: false,
            lists_prepared: false,
            body: None,
        }
    }
}

impl Statement {
    /// One of which nothing but the kind matters.
    pub fn of(kind: Kind, tokens: Tokens) -> Self {
        Self {
            kind,
            tokens,
            blocks: Vec::new(),
            calls: Vec::new(),
            locks_rows: false,
            reads_clock: false,
            assigned: Vec::new(),
            inserted: Vec::new(),
            shape: Shape::default(),
            hints: Hints::default(),
            uses: Uses::default(),
            respelling: None,
            composed: None,
        }
    }
}

/// One SQL statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    pub kind: Kind,
    /// The statement's own tokens within the text (see [`Tokens`]), without the semicolon.
    pub tokens: Tokens,
    /// Query blocks, outermost first. INSERT/UPDATE/DELETE's own target and WHERE are block 0.
    pub blocks: Vec<Block>,
    /// Functions called anywhere, casts and operators excepted.
    pub calls: Vec<Call>,
    /// A row lock (`FOR UPDATE/SHARE …`) anywhere.
    pub locks_rows: bool,
    /// `current_timestamp` and its like are used, which are no functions.
    pub reads_clock: bool,
    /// What UPDATE, ON CONFLICT DO UPDATE and MERGE assign, wherever they stand.
    pub assigned: Vec<Assigned>,
    /// What INSERT and MERGE insert, wherever they stand.
    pub inserted: Vec<InsertedRows>,
    /// Output, order and limits of block 0, where it is a query.
    pub shape: Shape,
    /// What routing comments asked for.
    pub hints: Hints,
    /// Of a query: what its result depends on beside rows and functions.
    pub uses: Uses,
    /// Another way to say the same, which is planned better.
    pub respelling: Option<Respelling>,
    /// Its parts, where it could be carried out in several.
    pub composed: Option<Composed>,
}

/// A statement as statements that can be carried out one after another.
#[derive(Clone, Debug, PartialEq)]
pub enum Composed {
    /// Some query of its WITH writes or locks.
    With(With),
    Merge {
        table: Tokens,
        /// The table and its alias.
        target: Tokens,
        /// What stands between USING and ON.
        source: Tokens,
        condition: Tokens,
        whens: Vec<When>,
    },
    /// One subquery of it locks rows.
    Locking { query: Arc<Statement> },
}

#[derive(Clone, Debug, PartialEq)]
pub struct With {
    pub recursive: bool,
    pub ctes: Vec<Cte>,
    /// What stands behind them.
    pub main: Arc<Statement>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Cte {
    pub name: String,
    /// What stands in front of its parentheses.
    pub head: Tokens,
    /// What stands within.
    pub statement: Arc<Statement>,
}

/// `WHEN …` of MERGE.
#[derive(Clone, Debug, PartialEq)]
pub struct When {
    pub tokens: Tokens,
    pub matched: bool,
    pub condition: Option<Tokens>,
    /// Else it does nothing, where nothing is matched.
    pub insert: Option<MergeInsert>,
}

/// `INSERT (…) VALUES (…)` of MERGE.
#[derive(Clone, Debug, PartialEq)]
pub struct MergeInsert {
    /// The columns, and OVERRIDING.
    pub head: Tokens,
    /// Between the parentheses.
    pub values: Tokens,
}

/// How a statement can be written otherwise.
#[derive(Clone, Debug, PartialEq)]
pub enum Respelling {
    /// WITH in front of an INSERT can stand in front of its query, which begins at this token.
    With { with: Tokens, source: u32 },
    /// SELECT … INTO is CREATE TABLE … AS: the tokens of INTO and the name, and what begins the other form.
    Into { into: Tokens, create: String },
    /// TABLE, at these tokens, is SELECT * FROM.
    Tables(Vec<u32>),
}

/// A half-open range of token numbers of the text. Token numbers, unlike byte offsets, are the same for all texts
/// of one shape; `scan` turns them into bytes of a given text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    pub start: u32,
    pub end: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// SELECT, VALUES, TABLE, or EXPLAIN of one; no part of it modifies data. Functions decide the rest.
    Query,
    Insert(Insert),
    Update(Update),
    /// Block 0 holds target, USING and WHERE.
    Delete {
        returning: bool,
    },
    Merge,
    /// UPDATE or DELETE … WHERE CURRENT OF a cursor.
    Positioned {
        cursor: String,
    },
    /// A SELECT with a data-modifying CTE, or SELECT INTO: `into` for the latter.
    ModifyingQuery {
        into: bool,
    },
    /// EXPLAIN: `analyze` runs the statement inside, whose blocks, calls and kind these are.
    Explain {
        analyze: bool,
        inner: Box<Kind>,
    },
    /// EXPLAIN ROUTE: the statement inside, not run.
    ExplainRoute {
        inner: Tokens,
    },
    Copy(Copy),
    Truncate {
        tables: Vec<ObjectName>,
    },
    Ddl(Ddl),
    Transaction(TransactionControl),
    Setting(SettingControl),
    /// PREPARE, EXECUTE, DEALLOCATE (`None`: ALL).
    Prepare {
        name: String,
    },
    Execute {
        name: String,
    },
    Deallocate {
        name: Option<String>,
    },
    DeclareCursor {
        name: String,
        hold: bool,
        binary: bool,
        /// SCROLL, or NO SCROLL.
        scroll: Option<bool>,
    },
    Fetch {
        name: String,
        reach: Reach,
        /// MOVE: no rows are given.
        moves: bool,
    },
    CloseCursor {
        name: Option<String>,
    },
    Listen {
        channel: String,
    },
    Unlisten {
        channel: Option<String>,
    },
    Notify {
        channel: String,
    },
    LockTable,
    Call,
    Do(Body),
    /// REFRESH MATERIALIZED VIEW; `empty` for WITH NO DATA.
    Refresh {
        view: ObjectName,
        empty: bool,
    },
    /// VACUUM, ANALYZE, REINDEX, CLUSTER, CHECKPOINT, LOAD …
    Utility {
        transactional: bool,
    },
    /// Not understood by the parser. `keyword` is its first word in upper case.
    Unknown {
        keyword: String,
    },
}

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

#[derive(Clone, Debug, PartialEq)]
pub struct Copy {
    /// `None`: COPY (query), whose blocks are the statement's.
    pub table: Option<ObjectName>,
    /// What stands between the parentheses of COPY (query).
    pub query: Option<Tokens>,
    pub columns: Vec<String>,
    pub from: bool,
    /// STDIN or STDOUT; else a file or program on the server.
    pub is_client: bool,
    /// Only rows of a condition are taken.
    pub filtered: bool,
    /// `None`: there are some that are not understood.
    pub options: Option<CopyOptions>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyOptions {
    pub format: CopyFormat,
    pub header: bool,
    pub delimiter: Option<String>,
    pub null: Option<String>,
    pub quote: Option<String>,
    pub escape: Option<String>,
    pub encoding: Option<String>,
    pub force_null: OptionColumns,
    pub force_not_null: OptionColumns,
    pub force_quote: OptionColumns,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyFormat {
    #[default]
    Text,
    Csv,
    Binary,
}

/// Columns that an option is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionColumns {
    All,
    These(Vec<String>),
}

impl Default for OptionColumns {
    fn default() -> Self {
        Self::These(Vec::new())
    }
}

impl OptionColumns {
    pub fn has(&self, column: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(columns) => columns.iter().any(|known| known == column),
        }
    }
}

/// Which rows a FETCH or MOVE means (PostgreSQL documentation, FETCH); `i64::MAX` rows: all that are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    Forward(i64),
    Backward(i64),
    Absolute(i64),
    Relative(i64),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Ddl {
    /// "CREATE TABLE", "ALTER TABLE", "DROP INDEX" …
    pub what: String,
    /// `false` for what PostgreSQL refuses inside a transaction block (CREATE DATABASE, CREATE INDEX CONCURRENTLY …).
    pub transactional: bool,
    /// CREATE TEMPORARY …
    pub temporary: bool,
    /// What CREATE TEMPORARY TABLE makes.
    pub makes: Option<String>,
    /// Those that DROP TABLE, ALTER TABLE and CREATE INDEX name.
    pub tables: Vec<ObjectName>,
    /// What ALTER TABLE changes, of what others may find a table or its rows by.
    pub alters: Vec<Alteration>,
    /// What CREATE INDEX IF NOT EXISTS names its index.
    pub index: Option<String>,
    /// CREATE TABLE … AS, CREATE MATERIALIZED VIEW.
    pub filled: Option<Filled>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alteration {
    Rename(String),
    Schema(String),
    RenameColumn {
        from: String,
        to: String,
    },
    AddColumn {
        name: String,
        /// Rows that are there have a value in it.
        filled: bool,
    },
    DropColumn(String),
    /// INHERIT, of this parent.
    Inherit(ObjectName),
    /// ATTACH PARTITION, this one.
    Attach(ObjectName),
}

/// What a new table is filled with.
#[derive(Clone, Debug, PartialEq)]
pub struct Filled {
    pub table: ObjectName,
    /// As listed behind its name.
    pub columns: Vec<String>,
    pub query: Arc<Statement>,
    /// WITH NO DATA.
    pub empty: bool,
    /// The query is nothing but VALUES.
    pub values: bool,
    /// IF NOT EXISTS.
    pub conditional: Option<Tokens>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionControl {
    Begin {
        read_only: Option<bool>,
        isolation: Option<Isolation>,
        deferrable: bool,
    },
    /// COMMIT or END; `chain` for AND CHAIN.
    Commit {
        chain: bool,
    },
    Rollback {
        chain: bool,
    },
    Savepoint {
        name: String,
    },
    Release {
        name: String,
    },
    RollbackTo {
        name: String,
    },
    /// SET TRANSACTION …
    SetTransaction {
        read_only: Option<bool>,
        isolation: Option<Isolation>,
    },
    /// PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED, by the client.
    TwoPhase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    ReadUncommitted,
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

impl Isolation {
    /// By the name that the server writes.
    pub fn named(level: &str) -> Option<Self> {
        match level.to_ascii_lowercase().as_str() {
            "read uncommitted" => Some(Self::ReadUncommitted),
            "read committed" => Some(Self::ReadCommitted),
            "repeatable read" => Some(Self::RepeatableRead),
            "serializable" => Some(Self::Serializable),
            _ => None,
        }
    }

    /// All statements of a transaction see one state of the database.
    pub fn has_one_snapshot(self) -> bool {
        matches!(self, Self::RepeatableRead | Self::Serializable)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingControl {
    /// Names are lower case ("timezone", "search_path", "pgweir.shard").
    /// `value` is the text that `SET name TO …` takes after TO, as the client wrote it; `None`: DEFAULT.
    Set {
        name: String,
        value: Option<SettingValue>,
        local: bool,
    },
    Reset {
        name: String,
    },
    ResetAll,
    Show {
        name: String,
    },
    /// DISCARD ALL | PLANS | SEQUENCES | TEMP, upper case.
    Discard {
        what: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingValue {
    /// As written, to be sent again: `'a', b`, `on`, `'UTC'`.
    pub sql: String,
    /// Unquoted and joined by ", ".
    pub plain: String,
}

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

/// `/* pgweir: shard=1, key=42, role=primary, cache=off */`, and the spellings of PgDog and PgCat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    pub shard: Option<u16>,
    pub key: Option<String>,
    pub role: Option<RoleHint>,
    pub cache: Option<CacheHint>,
    /// A hint that was not understood: the statement is refused with 22023.
    pub bad: Option<String>,
}

/// What a query's result may depend on beside the rows of its tables and the functions it calls.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Uses {
    /// `current_timestamp`, `current_user` …: written without parentheses.
    pub special_values: bool,
    pub samples: bool,
    /// A relation stands somewhere that [`Statement::blocks`] does not tell of.
    pub untraced: bool,
    /// Casts to dates and times, whose input may be 'now'.
    pub time_casts: Vec<TimeCast>,
    /// Names behind a point: columns, or functions of one argument in another spelling.
    pub fields: Vec<String>,
    /// All names there are, folded and in order. `None`: it may use columns that it does not name (`*`, NATURAL, a row
    /// as a whole).
    pub names: Option<Vec<String>>,
}

/// A cast to a date or time (or to a type that is not PostgreSQL's own, which may be one).
#[derive(Clone, Debug, PartialEq)]
pub enum TimeCast {
    /// Of a literal to a type with a time zone.
    ZonedLiteral,
    /// Of a column of this name: it depends on the column's type.
    Column(String),
    /// Of something computed.
    Computed,
}

/// Whether, and for how long, an answer may come from the result cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheHint {
    Off,
    /// As the configuration says.
    #[default]
    On,
    For(Duration),
}

impl CacheHint {
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "off" | "false" => Some(Self::Off),
            "on" | "true" => Some(Self::On),
            text => crate::config::parse_duration(text).map(Self::For),
        }
    }

    /// `None`: not from the cache.
    pub fn ttl(self, configured: Duration) -> Option<Duration> {
        match self {
            Self::Off => None,
            Self::On => Some(configured),
            Self::For(ttl) => Some(ttl).filter(|ttl| !ttl.is_zero()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleHint {
    Primary,
    Replica,
}
