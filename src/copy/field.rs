//! One column of one row.

use std::borrow::Cow;

/// Its value, as far as it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field<'d> {
    Null,
    /// Without quotes and escapes.
    Text(Cow<'d, [u8]>),
    Binary(&'d [u8]),
    /// The row is too short, or not what its format asks for.
    Missing,
}
