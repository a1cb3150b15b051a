//! Rows of COPY TO STDOUT, as a server writes them.

use bytes::{BufMut, BytesMut};

use super::Lined;

/// How rows are to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Writing {
    Text(Lined),
    Csv { lined: Lined, quote: u8, escape: u8, forced: Forced },
}

/// Columns whose values are in quotes, whatever they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forced {
    All,
    These(Vec<String>),
}

/// Writes rows of these columns.
pub struct Writer<'w> {
    writing: &'w Writing,
    /// For each column whether it is in quotes.
    forced: Vec<bool>,
}

impl Writing {
    /// `None`: one of the columns that are named is not there.
    pub fn of_columns(&self, names: &[&[u8]]) -> Option<Writer<'_>> {
        let forced = match self {
            Self::Csv { forced: Forced::These(forced), .. } => {
                let is_there = |name: &String| names.contains(&name.as_bytes());
                if !forced.iter().all(is_there) {
                    return None;
                }
                names.iter().map(|name| forced.iter().any(|forced| forced.as_bytes() == *name)).collect()
            }
            Self::Csv { forced: Forced::All, .. } => vec![true; names.len()],
            Self::Text(_) => vec![false; names.len()],
        };
        Some(Writer { writing: self, forced })
    }
}

impl Writer<'_> {
    /// The names of the columns stand in the first line.
    pub fn has_header(&self) -> bool {
        let (Writing::Text(lined) | Writing::Csv { lined, .. }) = self.writing;
        lined.header
    }

    pub fn put_header(&self, names: &[&[u8]], out: &mut BytesMut) {
        self.put(names.iter().map(|name| (Some(*name), false)), out);
    }

    /// One line; a value is text, or NULL (`None`).
    pub fn put_row<'v>(&self, values: impl Iterator<Item = Option<&'v [u8]>>, out: &mut BytesMut) {
        self.put(values.zip(self.forced.iter().copied()), out);
    }

    fn put<'v>(&self, values: impl Iterator<Item = (Option<&'v [u8]>, bool)>, out: &mut BytesMut) {
        let (Writing::Text(lined) | Writing::Csv { lined, .. }) = self.writing;
        for (place, (value, forced)) in values.enumerate() {
            if place > 0 {
                out.put_u8(lined.delimiter);
            }
            match (value, self.writing) {
                (None, _) => out.put_slice(&lined.null),
                (Some(value), Writing::Text(_)) => put_plain(value, lined.delimiter, out),
                (Some(value), Writing::Csv { quote, escape, .. }) => {
                    let ends_data = self.forced.len() == 1 && value == b"\\.";
                    let special = |byte: &u8| [lined.delimiter, *quote, b'\n', b'\r'].contains(byte);
                    if forced || ends_data || *value == *lined.null || value.iter().any(special) {
                        put_quoted(value, (*quote, *escape), out);
                    } else {
                        out.put_slice(value);
                    }
                }
            }
        }
        out.put_u8(b'\n');
    }
}

fn put_plain(value: &[u8], delimiter: u8, out: &mut BytesMut) {
    let mut done = 0;
    for (at, &byte) in value.iter().enumerate() {
        let written = match byte {
            b'\x08' => b'b',
            b'\x0c' => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            b'\x0b' => b'v',
            b'\\' => b'\\',
            byte if byte == delimiter => byte,
            _ => continue,
        };
        out.put_slice(&value[done..at]);
        out.put_slice(&[b'\\', written]);
        done = at + 1;
    }
    out.put_slice(&value[done..]);
}

fn put_quoted(value: &[u8], (quote, escape): (u8, u8), out: &mut BytesMut) {
    out.put_u8(quote);
    let mut done = 0;
    for (at, _) in value.iter().enumerate().filter(|(_, byte)| **byte == quote || **byte == escape) {
        out.put_slice(&value[done..at]);
        out.put_u8(escape);
        done = at;
    }
    out.put_slice(&value[done..]);
    out.put_u8(quote);
}
