//! What commands say that are neither queries nor data changes, as far as it matters.

use std::sync::Arc;

use super::types::{ObjectName, Statement, Tokens};

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
    pub vacates: Option<Vacated>,
    /// Sessions that begin after it are others by it than those before: DROP ROLE, ALTER ROLE and ALTER DATABASE … SET.
    pub renews: bool,
}

/// A database that nobody else may be using: what DROP DATABASE drops, ALTER DATABASE … RENAME or SET TABLESPACE changes,
/// CREATE DATABASE … TEMPLATE copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vacated {
    pub database: String,
    /// Whoever uses it is sent away (FORCE).
    pub forced: bool,
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
        deferrable: Option<bool>,
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
        deferrable: Option<bool>,
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
    /// Several settings at once, as SET SESSION CHARACTERISTICS can: names and values.
    Several(Vec<(String, SettingValue)>),
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
