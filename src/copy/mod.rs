//! The data of COPY: which bytes of what a client sends are a row, and which of them are one column's; rows as a client
//! is to have them (PostgreSQL documentation, "COPY", File Formats).
//!
//! Pure: bytes in, slices out, in one pass. Knows nothing of SQL, shards or messages: their data is one stream.

mod binary;
mod csv;
mod field;
mod lines;
mod plain;
mod reader;
mod writer;

pub use binary::header as binary_header;
pub use field::Field;
pub use lines::Lines;
pub use reader::{Piece, Reader};
pub use writer::{Forced, Writer, Writing};

/// How rows are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    Text(Lined),
    Csv(Lined, Quoting),
    Binary,
}

/// What rows of a line have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lined {
    pub delimiter: u8,
    /// What stands for NULL.
    pub null: Box<[u8]>,
    /// The first line is none of the rows.
    pub header: bool,
}

/// What CSV has beside that; of the column that is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quoting {
    pub quote: u8,
    pub escape: u8,
    /// The NULL string is one in quotes, too.
    pub force_null: bool,
    /// The NULL string is a string.
    pub force_not_null: bool,
    /// `\.` alone on a line ends the data, as it does for servers before PostgreSQL 18.
    pub ends: bool,
}
