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

    // What the configuration and the session say.
    /// There is no cache.
    Off,
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

    /// For a person.
    pub fn describe(self) -> &'static str {
        NAMES[self as usize].2
    }

    /// All of them, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|&(reason, ..)| reason)
    }
}

pub(super) const REASONS: usize = NAMES.len();

/// By number: the word of metrics, and what EXPLAIN ROUTE says.
const NAMES: [(Reason, &str, &str); 41] = [
    (Reason::Absent, "absent", "not there"),
    (Reason::Stale, "stale", "written since"),
    (Reason::Expired, "expired", "older than its ttl"),
    (Reason::Pending, "write_pending", "a write of its tables is under way"),
    (Reason::FollowedTooLong, "followed_too_long", "the same query of another client took too long"),
    (Reason::FollowedInVain, "followed_in_vain", "the answer to another client's same query could not be kept"),
    (Reason::Off, "off", "[cache] is not enabled"),
    (Reason::Unwanted, "unwanted", "not wanted by hint or setting"),
    (Reason::Unready, "unready", "catalog or system identifier not known yet"),
    (Reason::Setting, "setting", "the session has a setting that is no part of the key"),
    (Reason::Pinned, "pinned", "the session is bound to its server"),
    (Reason::Wrote, "wrote", "the transaction has written"),
    (Reason::Isolation, "isolation", "the transaction reads one snapshot"),
    (Reason::SeveralStatements, "several_statements", "more than one statement"),
    (Reason::RowLimit, "row_limit", "fetched in parts"),
    (Reason::LongKey, "long_key", "text and parameters are too long"),
    (Reason::NoQuery, "no_query", "not a plain query"),
    (Reason::NoTable, "no_table", "reads no table"),
    (Reason::UnknownTable, "unknown_table", "a table that is not in the catalog"),
    (Reason::UnknownFunction, "unknown_function", "a function that is not in the catalog"),
    (Reason::Volatile, "volatile", "a function that depends on more than its arguments"),
    (Reason::SpecialValue, "special_value", "a value of the moment or the session, such as current_timestamp"),
    (Reason::TimeInput, "time_input", "a date or time that may be written as 'now'"),
    (Reason::Sample, "sample", "TABLESAMPLE"),
    (Reason::Locks, "locks", "locks rows"),
    (Reason::RowSecurity, "row_security", "row security"),
    (Reason::Temporary, "temporary", "a temporary table"),
    (Reason::Unlogged, "unlogged", "an unlogged table"),
    (Reason::Foreign, "foreign", "a foreign table"),
    (Reason::SystemCatalog, "system_catalog", "a system catalog"),
    (Reason::Sequence, "sequence", "a sequence"),
    (Reason::View, "view", "a view that depends on more than tables"),
    (Reason::Rule, "rule", "a rule of [[cache.rules]]"),
    (Reason::Write, "write", "writes"),
    (Reason::TooLarge, "too_large", "larger than max_result"),
    (Reason::Error, "error", "an error"),
    (Reason::Notice, "notice", "a notice came with it"),
    (Reason::Cancelled, "cancelled", "cancelled"),
    (Reason::Overtaken, "overtaken", "its tables were written meanwhile"),
    (Reason::Behind, "behind", "from a replica that may lack the newest write"),
    (Reason::Abandoned, "abandoned", "the client went away"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_the_words_at_its_number() {
        assert!(Reason::all().enumerate().all(|(number, reason)| reason as usize == number));
        let words: std::collections::HashSet<_> = Reason::all().map(Reason::as_str).collect();
        assert_eq!(words.len(), REASONS);
    }
}
