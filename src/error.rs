//! Everything that a client can be told went wrong, and its SQLSTATE.
//!
//! Knows nothing of sockets or messages: `wire` writes an [`Error`] as an ErrorResponse.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// One refusal or failure, named by who must act on it (PostgreSQL documentation, appendix A).
///
/// One pointer: what may fail and does not, as a rule, hands its results on in registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Box<Told>);

/// What an [`Error`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub sqlstate: SqlState,
    /// Lower case, starts with what happened.
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// Where in what was sent.
    pub context: Option<String>,
    /// PostgreSQL's own that says the same: some clients go by it.
    pub routine: Option<&'static str>,
}

/// A five-letter code of PostgreSQL's appendix A.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SqlState(pub &'static str);

impl SqlState {
    pub const WARNING: Self = Self("01000");
    pub const NOT_IN_STATE: Self = Self("55000");
    pub const UNSUPPORTED: Self = Self("0A000");
    pub const INVALID_VALUE: Self = Self("22023");
    pub const INVALID_TRANSACTION_STATE: Self = Self("25000");
    pub const ACTIVE_TRANSACTION: Self = Self("25001");
    pub const FOREIGN_KEY: Self = Self("23503");
    pub const READ_ONLY: Self = Self("25006");
    pub const NO_TRANSACTION: Self = Self("25P01");
    pub const FAILED_TRANSACTION: Self = Self("25P02");
    pub const UNKNOWN_STATEMENT: Self = Self("26000");
    pub const UNKNOWN_PORTAL: Self = Self("34000");
    pub const INVALID_AUTHORIZATION: Self = Self("28000");
    pub const INVALID_PASSWORD: Self = Self("28P01");
    pub const UNKNOWN_DATABASE: Self = Self("3D000");
    pub const BAD_COPY: Self = Self("22P04");
    pub const SERIALIZATION_FAILURE: Self = Self("40001");
    pub const DEADLOCK: Self = Self("40P01");
    pub const SYNTAX: Self = Self("42601");
    pub const INSUFFICIENT_PRIVILEGE: Self = Self("42501");
    pub const DUPLICATE_STATEMENT: Self = Self("42P05");
    pub const SATURATED: Self = Self("53300");
    pub const TOO_LARGE: Self = Self("54000");
    pub const CANCELED: Self = Self("57014");
    pub const SHUTTING_DOWN: Self = Self("57P01");
    pub const UNAVAILABLE: Self = Self("57P03");
    pub const IDLE_IN_TRANSACTION: Self = Self("25P03");
    pub const IDLE_SESSION: Self = Self("57P05");
    pub const CONNECTION_LOST: Self = Self("08006");
    pub const OUTCOME_UNKNOWN: Self = Self("08007");
    pub const PROTOCOL: Self = Self("08P01");
    pub const INTERNAL: Self = Self("XX000");
}

impl Error {
    #[cold]
    pub fn new(sqlstate: SqlState, message: impl Into<String>) -> Self {
        Self(Box::new(Told {
            sqlstate,
            message: message.into(),
            detail: None,
            hint: None,
            context: None,
            routine: None,
        }))
    }

    /// What a CancelRequest ends is told this, as by a server.
    pub fn canceled() -> Self {
        Self::new(SqlState::CANCELED, "canceling statement due to user request").of_routine("ProcessInterrupts")
    }

    /// A construct that cannot be carried out across shards: it names the construct, the hint the way out.
    #[cold]
    pub fn unsupported(what: impl fmt::Display, hint: impl Into<String>) -> Self {
        Self::new(SqlState::UNSUPPORTED, format!("{what} is not supported across shards")).with_hint(hint)
    }

    pub fn told(self) -> Told {
        *self.0
    }

    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    #[must_use]
    pub fn with_context(mut self, context: impl Into<String>) -> Self {
        self.context = Some(context.into());
        self
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn of_routine(mut self, routine: &'static str) -> Self {
        self.routine = Some(routine);
        self
    }
}

impl Deref for Error {
    type Target = Told;

    fn deref(&self) -> &Told {
        &self.0
    }
}

impl DerefMut for Error {
    fn deref_mut(&mut self) -> &mut Told {
        &mut self.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.sqlstate.0)
    }
}

impl std::error::Error for Error {}
