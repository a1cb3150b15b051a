//! Why a statement was not served from the cache, or its answer not kept.

/// One word for each way past the cache; also a label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// Not there: the ordinary miss.
    Absent,
    /// There, but written since.
    Stale,
    /// There, but older than its ttl.
    Expired,
    /// A write of one of its tables is under way, or its outcome is not known yet.
    Pending,
    /// The wait for another client's same query took too long.
    FollowedTooLong,
    /// The same query, run by another client, gave an answer that could not be kept.
    FollowedInVain,

    // What the session says.
    /// A hint or `SET pgweir.cache` says so.
    Unwanted,
    /// The system identifier of a server is not known yet, or the catalog is not loaded.
    Unready,
    /// The session has set something that may change answers and is no part of the key.
    Setting,
    /// The session has made a temporary table or the like, which may hide another one.
    Pinned,
    /// The transaction has written.
    Wrote,
    /// REPEATABLE READ or SERIALIZABLE.
    Isolation,
    /// A text of several statements, or a pipeline that is more than one read.
    SeveralStatements,
    /// A portal that is fetched in parts.
    RowLimit,
    /// Text and parameters together are too long for a key.
    LongKey,

    // What the statement is.
    NoQuery,
    NoTable,
    UnknownTable,
    UnknownFunction,
    /// A function whose result depends on more than its arguments.
    Volatile,
    /// `current_timestamp`, `current_user` and their like.
    SpecialValue,
    /// A date or time that may be written as 'now' or 'today'.
    TimeInput,
    Sample,
    Locks,
    RowSecurity,
    Temporary,
    Unlogged,
    Foreign,
    SystemCatalog,
    Sequence,
    /// A view whose definition could not be traced to tables, or uses what is not kept.
    View,
    /// A rule of the configuration.
    Rule,
    /// The statement was refused, or writes.
    Write,

    // What the answer was.
    TooLarge,
    Error,
    Notice,
    Cancelled,
    /// Its tables were written while it ran.
    Overtaken,
    /// From a replica that may lack the newest write.
    Behind,
    /// The client's session ended, or its task, before the answer was whole.
    Abandoned,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        NAMES[self as usize].1
    }

    /// All of them, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|&(reason, _)| reason)
    }
}

pub(super) const REASONS: usize = NAMES.len();

/// By number.
const NAMES: [(Reason, &str); 40] = [
    (Reason::Absent, "absent"),
    (Reason::Stale, "stale"),
    (Reason::Expired, "expired"),
    (Reason::Pending, "write_pending"),
    (Reason::FollowedTooLong, "followed_too_long"),
    (Reason::FollowedInVain, "followed_in_vain"),
    (Reason::Unwanted, "unwanted"),
    (Reason::Unready, "unready"),
    (Reason::Setting, "setting"),
    (Reason::Pinned, "pinned"),
    (Reason::Wrote, "wrote"),
    (Reason::Isolation, "isolation"),
    (Reason::SeveralStatements, "several_statements"),
    (Reason::RowLimit, "row_limit"),
    (Reason::LongKey, "long_key"),
    (Reason::NoQuery, "no_query"),
    (Reason::NoTable, "no_table"),
    (Reason::UnknownTable, "unknown_table"),
    (Reason::UnknownFunction, "unknown_function"),
    (Reason::Volatile, "volatile"),
    (Reason::SpecialValue, "special_value"),
    (Reason::TimeInput, "time_input"),
    (Reason::Sample, "sample"),
    (Reason::Locks, "locks"),
    (Reason::RowSecurity, "row_security"),
    (Reason::Temporary, "temporary"),
    (Reason::Unlogged, "unlogged"),
    (Reason::Foreign, "foreign"),
    (Reason::SystemCatalog, "system_catalog"),
    (Reason::Sequence, "sequence"),
    (Reason::View, "view"),
    (Reason::Rule, "rule"),
    (Reason::Write, "write"),
    (Reason::TooLarge, "too_large"),
    (Reason::Error, "error"),
    (Reason::Notice, "notice"),
    (Reason::Cancelled, "cancelled"),
    (Reason::Overtaken, "overtaken"),
    (Reason::Behind, "behind"),
    (Reason::Abandoned, "abandoned"),
];
