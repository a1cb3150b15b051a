//! What an SQL text means, as data.

use std::sync::Arc;
use std::time::Duration;

pub use super::query::*;
pub use super::utility::*;
pub use super::written::*;

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
    /// Some statement reads [`PREPARED_STATEMENTS`], calls [`LISTENING_CHANNELS`] or has to do with numbers of processes: it
    /// shows its session, or others.
    pub shows_session: bool,
    /// Some statement knows processes by the server's numbers.
    pub names_processes: bool,
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

/// Settings that are a transaction's own, and gone with it.
pub const OF_TRANSACTION: [&str; 3] = ["transaction_isolation", "transaction_read_only", "transaction_deferrable"];
/// The view that shows a session's prepared statements.
pub const PREPARED_STATEMENTS: &str = "pg_prepared_statements";
/// The function that shows what a session listens to.
pub const LISTENING_CHANNELS: &str = "pg_listening_channels";
/// The function that gives the number of the session's own process.
pub const BACKEND_PID: &str = "pg_backend_pid";
/// The functions that signal processes.
pub const SIGNALS: [&str; 2] = ["pg_cancel_backend", "pg_terminate_backend"];

impl Analysis {
    /// Of a text that cannot be read at all.
    pub fn unreadable() -> Self {
        let statement = Statement::of(Kind::Unknown { keyword: String::new() }, Tokens::default());
        Self {
            statements: vec![Arc::new(statement)],
            parameters: 0,
            literal_sensitive: true,
            names_prepared: false,
            shows_session: false,
            names_processes: false,
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
