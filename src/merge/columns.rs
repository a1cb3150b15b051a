//! What the columns of the inputs are.

use super::kind::{Kind, type_name};
use super::{Final, Merge};
use crate::error::{Error, SqlState};

/// The columns of the inputs, from a RowDescription body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns(Vec<Column>);

/// One column: its name, and all that follows the name in RowDescription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    name: Vec<u8>,
    /// Table OID, attribute number, type OID, type length, type modifier, format code.
    fields: [u8; 18],
}

impl Columns {
    pub fn parse(row_description_body: &[u8]) -> Result<Self, Error> {
        let malformed = || Error::new(SqlState::PROTOCOL, "a server sent a malformed RowDescription");
        let (count, mut rest) = row_description_body.split_first_chunk().ok_or_else(malformed)?;
        let mut columns = Vec::new();
        for _ in 0..u16::from_be_bytes(*count) {
            let end = memchr::memchr(0, rest).ok_or_else(malformed)?;
            let (name, after) = (&rest[..end], &rest[end + 1..]);
            let (fields, after) = after.split_first_chunk().ok_or_else(malformed)?;
            columns.push(Column { name: name.to_vec(), fields: *fields });
            rest = after;
        }
        Ok(Self(columns))
    }

    /// The OID of each one's type.
    pub fn types(&self) -> Vec<u32> {
        self.0.iter().map(Column::type_oid).collect()
    }

    /// The same, each with its type modifier, -1: none.
    pub fn modified_types(&self) -> Vec<(u32, i32)> {
        let modifier =
            |column: &Column| column.fields[12..16].first_chunk().map_or(-1, |bytes| i32::from_be_bytes(*bytes));
        self.0.iter().map(|column| (column.type_oid(), modifier(column))).collect()
    }

    fn shown(&self, merge: &Merge) -> Vec<&Column> {
        match &merge.aggregate {
            Some(aggregation) => {
                let outputs = aggregation.outputs.len().saturating_sub(merge.hidden_outputs);
                aggregation.outputs[..outputs].iter().filter_map(|output| self.0.get(output.column())).collect()
            }
            None => self.0[..self.0.len().saturating_sub(merge.hidden)].iter().collect(),
        }
    }

    /// The names that the client sees, as the servers write them.
    pub fn names(&self, merge: &Merge) -> Vec<&[u8]> {
        self.shown(merge).into_iter().map(|column| &*column.name).collect()
    }

    /// The RowDescription body for the client: without hidden columns, formats as they are here.
    pub fn visible(&self, merge: &Merge) -> Vec<u8> {
        let shown = self.shown(merge);
        let count = u16::try_from(shown.len()).expect("a row has at most 1664 columns");
        let mut body = count.to_be_bytes().to_vec();
        for column in shown {
            body.extend_from_slice(&column.name);
            body.push(0);
            body.extend_from_slice(&column.fields);
        }
        body
    }

    /// The same columns in the formats of a Bind message: none (all text), one for all, or one each; columns beyond the
    /// given ones are text.
    #[must_use]
    pub fn with_formats(&self, formats: &[u16]) -> Self {
        let mut columns = self.clone();
        for (index, column) in columns.0.iter_mut().enumerate() {
            let format = match formats {
                [all] => *all,
                each => each.get(index).copied().unwrap_or(0),
            };
            column.fields[16..].copy_from_slice(&format.to_be_bytes());
        }
        columns
    }

    /// What is not as in another one, if anything. Names, types and formats count; OIDs and numbers of tables may differ
    /// from shard to shard.
    pub fn difference(&self, other: &Self) -> Option<String> {
        if self.0.len() != other.0.len() {
            let (more, fewer) = if self.0.len() > other.0.len() { (self, other) } else { (other, self) };
            let place = more.0.iter().zip(&fewer.0).position(|(one, other)| one.name != other.name);
            let name = String::from_utf8_lossy(&more.0[place.unwrap_or(fewer.0.len())].name);
            return Some(match self.0.len() > other.0.len() {
                true => format!("column \"{name}\" beside those of the others"),
                false => format!("no column \"{name}\""),
            });
        }
        let pairs = self.0.iter().zip(&other.0).enumerate();
        let mut different =
            pairs.filter(|(_, (own, other))| own.name != other.name || own.fields[6..] != other.fields[6..]);
        let (index, (own, other)) = different.next()?;
        let name = |column: &Column| String::from_utf8_lossy(&column.name).into_owned();
        Some(if own.name != other.name {
            format!("column {} is \"{}\" instead of \"{}\"", index + 1, name(own), name(other))
        } else if own.type_oid() != other.type_oid() {
            let (found, known) = (type_name(own.type_oid()), type_name(other.type_oid()));
            format!("column \"{}\" is of {found} instead of {known}", name(own))
        } else {
            format!("column \"{}\" is of another length or precision", name(own))
        })
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, index: usize) -> Result<&Column, Error> {
        let missing = || Error::new(SqlState::INTERNAL, format!("a merge names column {index}, which is not there"));
        self.0.get(index).ok_or_else(missing)
    }
}

impl Column {
    pub(super) fn kind(&self) -> Kind {
        Kind::of(self.type_oid())
    }

    pub(super) fn is_binary(&self) -> bool {
        self.fields[16..] != [0, 0]
    }

    /// The column as messages name it.
    pub(super) fn quoted(&self) -> String {
        format!("\"{}\"", String::from_utf8_lossy(&self.name))
    }

    pub(super) fn type_name(&self) -> String {
        type_name(self.type_oid())
    }

    fn type_oid(&self) -> u32 {
        u32::from_be_bytes(self.fields[6..10].try_into().expect("four bytes"))
    }
}

impl Final {
    /// The input column that gives the output its name, type and format.
    pub(super) fn column(&self) -> usize {
        match *self {
            Self::Group(column)
            | Self::Count(column)
            | Self::Sum(column)
            | Self::Min(column)
            | Self::Max(column)
            | Self::Avg { shown: column, .. }
            | Self::BoolAnd(column)
            | Self::BoolOr(column) => column,
        }
    }
}
