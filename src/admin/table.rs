//! A table to be shown, and how the protocol carries it.

use bytes::BytesMut;

use crate::wire::message::{FLOAT8_OID, INT8_OID, TEXT_OID, put_columns, put_row};

pub(super) struct Table {
    columns: Vec<(&'static str, Kind)>,
    pub rows: Vec<Vec<Value>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Integer,
    Float,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Text(String),
    Integer(i64),
    Float(f64),
}

impl Table {
    /// Names of the columns, a blank between them; `#` behind a name: whole numbers, `~`: numbers.
    pub(super) fn new(columns: &'static str) -> Self {
        let column = |name: &'static str| match (name.strip_suffix('#'), name.strip_suffix('~')) {
            (Some(name), _) => (name, Kind::Integer),
            (_, Some(name)) => (name, Kind::Float),
            _ => (name, Kind::Text),
        };
        Self { columns: columns.split_whitespace().map(column).collect(), rows: Vec::new() }
    }

    pub(super) fn push(&mut self, row: Vec<Value>) {
        debug_assert_eq!(row.len(), self.columns.len(), "a value for each column");
        self.rows.push(row);
    }

    /// RowDescription, with the formats that a client asked for.
    pub(super) fn put_columns(&self, formats: &[u16], out: &mut BytesMut) {
        let columns = self.columns.iter().enumerate().map(|(index, &(name, kind))| {
            let (oid, size) = match kind {
                Kind::Text => (TEXT_OID, -1),
                Kind::Integer => (INT8_OID, 8),
                Kind::Float => (FLOAT8_OID, 8),
            };
            (name, oid, size, i16::from(is_binary(formats, index)))
        });
        put_columns(out, &columns.collect::<Vec<_>>());
    }
}

impl Value {
    pub(super) fn text(text: impl ToString) -> Self {
        Self::Text(text.to_string())
    }

    /// A number that is far below the largest one.
    pub(super) fn number<N: TryInto<i64>>(number: N) -> Self {
        Self::Integer(number.try_into().unwrap_or(i64::MAX))
    }

    fn bytes(&self, binary: bool) -> Option<Vec<u8>> {
        match self {
            Self::Null => None,
            Self::Text(text) => Some(text.as_bytes().to_vec()),
            Self::Integer(number) if binary => Some(number.to_be_bytes().to_vec()),
            Self::Integer(number) => Some(number.to_string().into_bytes()),
            Self::Float(number) if binary => Some(number.to_be_bytes().to_vec()),
            Self::Float(number) => Some(format!("{number:.3}").into_bytes()),
        }
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

pub(super) fn put_values(row: &[Value], formats: &[u16], out: &mut BytesMut) {
    let value = |(index, value): (usize, &Value)| value.bytes(is_binary(formats, index));
    put_row(out, &row.iter().enumerate().map(value).collect::<Vec<_>>());
}

/// None: all text; one: for all; else one each.
fn is_binary(formats: &[u16], index: usize) -> bool {
    let format = if formats.len() == 1 { formats.first() } else { formats.get(index) };
    format.is_some_and(|format| *format == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_their_column_says() {
        let mut table = Table::new("name count# lag~");
        table.push(vec!["a".into(), Value::number(258_u64), Value::Float(0.5)]);
        let kinds: Vec<_> = table.columns.iter().map(|(name, kind)| (*name, *kind)).collect();
        assert_eq!(kinds, [("name", Kind::Text), ("count", Kind::Integer), ("lag", Kind::Float)]);
        let write = |formats: &[u16]| {
            let mut out = BytesMut::new();
            put_values(&table.rows[0], formats, &mut out);
            out[7..].to_vec()
        };
        assert_eq!(write(&[]), b"\0\0\0\x01a\0\0\0\x03258\0\0\0\x050.500");
        assert_eq!(write(&[0, 1, 0]), b"\0\0\0\x01a\0\0\0\x08\0\0\0\0\0\0\x01\x02\0\0\0\x050.500");
        assert_eq!(
            write(&[1])[5..],
            [&b"\0\0\0\x08\0\0\0\0\0\0\x01\x02\0\0\0\x08"[..], &0.5_f64.to_be_bytes()].concat()
        );
    }
}
