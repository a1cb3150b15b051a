//! Values of a shard key.

use std::fmt;

/// A shard key's type as configured (`data_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    Bigint,
    Integer,
    Uuid,
    Text,
    Date,
    Timestamptz,
}

/// One value of a shard key, comparable with others of the same type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// `bigint` and `integer`.
    Int(i64),
    Uuid(u128),
    /// Compared by bytes.
    Text(String),
    /// Days since 2000-01-01.
    Date(i32),
    /// Microseconds since 2000-01-01 00:00 UTC.
    Timestamptz(i64),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(value) => write!(f, "{value}"),
            Self::Uuid(value) => write!(f, "{value:032x}"),
            Self::Text(value) => write!(f, "'{value}'"),
            Self::Date(days) => write!(f, "2000-01-01 + {days} days"),
            Self::Timestamptz(micros) => write!(f, "2000-01-01 + {micros} µs"),
        }
    }
}
