//! Cuts a stream of COPY data into rows.

use super::{Field, Format, binary, csv, plain};
use crate::error::{Error, SqlState};

/// Reads rows as they come.
#[derive(Debug)]
pub struct Reader {
    format: Format,
    /// Which column is looked for.
    column: usize,
    ends: LineEnd,
    scan: Scan,
    fields: (usize, u16),
    begun: bool,
    ended: bool,
    /// Lines read so far; in binary format rows.
    line: u64,
}

/// What the data begins with.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'d> {
    /// Of all rows: the header.
    Head(&'d [u8]),
    /// So many lines of it.
    Row { bytes: &'d [u8], field: Field<'d>, lines: u32 },
    /// A row that no more can follow.
    Last { bytes: &'d [u8], field: Field<'d>, lines: u32 },
    /// Nothing of it counts.
    End(&'d [u8]),
}

/// What is known of a row of which not all is there.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Bytes that have been looked at.
    pub seen: usize,
    /// It has escapes, or quotes.
    pub escaped: bool,
    pub quoted: bool,
    /// Ends of lines within quotes.
    pub lines: u32,
}

/// How a row ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    At(usize),
    /// With the data.
    Last,
    /// Not in what is there.
    Later,
    /// It is the marker of the end.
    Marker,
    /// So far goes a line with the marker in it.
    Broken(usize),
}

/// How lines end, which the first one decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineEnd {
    Unknown { csv: bool },
    Newline { csv: bool },
    Return { csv: bool },
    Both { csv: bool },
}

impl Reader {
    pub fn new(format: Format, column: usize) -> Self {
        let ends = LineEnd::Unknown { csv: matches!(format, Format::Csv(..)) };
        Self { format, column, ends, scan: Scan::default(), fields: (0, 0), begun: false, ended: false, line: 0 }
    }

    /// How many lines were read, those of the last row included.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The first piece of `data`, which begins where the piece before ended. `None`: it is not all there. `last`: there
    /// is no more.
    pub fn next<'d>(&mut self, data: &'d [u8], last: bool) -> Result<Option<Piece<'d>>, Error> {
        match (self.ended, &self.format) {
            _ if data.is_empty() => return Ok(None),
            (true, Format::Binary) => {
                return Err(Error::new(SqlState::BAD_COPY, "received copy data after EOF marker"));
            }
            (true, _) => return Ok(Some(Piece::End(data))),
            (false, _) => {}
        }
        if !std::mem::replace(&mut self.begun, true)
            && let Some(head) = self.head(data, last)?
        {
            return Ok(head);
        }
        let ends = self.end(data, last)?;
        let (end, is_last) = match ends {
            Ends::Later => return Ok(None),
            Ends::Marker => return Ok(Some(self.give_end(data))),
            Ends::At(end) => (end, false),
            Ends::Last => (data.len(), false),
            Ends::Broken(end) => (end, true),
        };
        self.ended = is_last;
        let bytes = &data[..end];
        let scan = std::mem::take(&mut self.scan);
        self.fields = (0, 0);
        let lines = scan.lines + 1;
        self.line += u64::from(lines);
        let row = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let row = row.strip_suffix(b"\r").unwrap_or(row);
        let field = match &self.format {
            Format::Text(lined) => plain::field(row, self.column, lined, scan.escaped),
            Format::Csv(lined, quoting) => csv::field(row, self.column, (lined, quoting), scan.escaped),
            Format::Binary => binary::field(bytes, self.column),
        };
        Ok(Some(match is_last {
            true => Piece::Last { bytes, field, lines },
            false => Piece::Row { bytes, field, lines },
        }))
    }

    /// What comes before the rows. `None`: nothing does; within, `None`: it is not all there.
    fn head<'d>(&mut self, data: &'d [u8], last: bool) -> Result<Option<Option<Piece<'d>>>, Error> {
        let end = match &self.format {
            Format::Text(lined) | Format::Csv(lined, _) if !lined.header => return Ok(None),
            Format::Text(_) | Format::Csv(..) => match self.end(data, last)? {
                Ends::At(end) | Ends::Broken(end) => Some(end),
                Ends::Last => Some(data.len()),
                Ends::Marker => return Ok(Some(Some(self.give_end(data)))),
                Ends::Later => None,
            },
            Format::Binary => binary::header(data).or(last.then_some(data.len())),
        };
        let Some(end) = end else {
            self.begun = false;
            return Ok(Some(None));
        };
        if self.format != Format::Binary {
            self.line += u64::from(self.scan.lines) + 1;
        }
        self.scan = Scan::default();
        Ok(Some(Some(Piece::Head(&data[..end]))))
    }

    /// In binary format nothing must follow, in the others it is of no interest.
    fn give_end<'d>(&mut self, data: &'d [u8]) -> Piece<'d> {
        self.ended = true;
        Piece::End(if self.format == Format::Binary { &data[..binary::TRAILER_BYTES] } else { data })
    }

    fn end(&mut self, data: &[u8], last: bool) -> Result<Ends, Error> {
        match &self.format {
            Format::Text(_) => plain::end(data, &mut self.scan, &mut self.ends, last),
            Format::Csv(_, quoting) => csv::end(data, &mut self.scan, &mut self.ends, quoting, last),
            Format::Binary => Ok(match binary::end(data, &mut self.fields) {
                Ends::Later if last => Ends::Last,
                ends => ends,
            }),
        }
    }
}

impl LineEnd {
    /// The end of the line whose terminator begins there. `None`: what follows decides it.
    pub(super) fn at(&mut self, data: &[u8], at: usize, last: bool) -> Result<Option<usize>, Error> {
        let csv = match *self {
            Self::Unknown { csv } | Self::Newline { csv } | Self::Return { csv } | Self::Both { csv } => csv,
        };
        let is_return = data[at] == b'\r';
        match (*self, is_return) {
            (Self::Newline { .. } | Self::Unknown { .. }, false) => {
                *self = Self::Newline { csv };
                Ok(Some(at + 1))
            }
            (Self::Return { .. }, true) => Ok(Some(at + 1)),
            (Self::Unknown { .. } | Self::Both { .. }, true) => match data.get(at + 1) {
                Some(b'\n') => {
                    *self = Self::Both { csv };
                    Ok(Some(at + 2))
                }
                None if !last => Ok(None),
                _ if matches!(self, Self::Both { .. }) => Err(stray("carriage return", csv)),
                _ => {
                    *self = Self::Return { csv };
                    Ok(Some(at + 1))
                }
            },
            (Self::Newline { .. }, true) => Err(stray("carriage return", csv)),
            (Self::Return { .. } | Self::Both { .. }, false) => Err(stray("newline", csv)),
        }
    }

    /// What counts as a line where it is quoted.
    pub(super) fn within_quotes(self) -> u8 {
        match self {
            Self::Newline { .. } => b'\n',
            Self::Unknown { .. } | Self::Return { .. } | Self::Both { .. } => b'\r',
        }
    }
}

/// As PostgreSQL says it.
fn stray(what: &str, csv: bool) -> Error {
    let (kind, way) = match (csv, what) {
        (true, _) => ("unquoted", format!("Use quoted CSV field to represent {what}.")),
        (false, "newline") => ("literal", "Use \"\\n\" to represent newline.".to_owned()),
        (false, _) => ("literal", "Use \"\\r\" to represent carriage return.".to_owned()),
    };
    Error::new(SqlState::BAD_COPY, format!("{kind} {what} found in data")).with_hint(way)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::{Lined, Quoting};

    fn text() -> Format {
        Format::Text(Lined { delimiter: b'\t', null: (*b"\\N").into(), header: false })
    }

    fn csv(quoting: Quoting, header: bool) -> Format {
        Format::Csv(Lined { delimiter: b',', null: (*b"").into(), header }, quoting)
    }

    fn quoting() -> Quoting {
        Quoting { quote: b'"', escape: b'"', force_null: false, force_not_null: false, ends: true }
    }

    /// Pieces in words; the data comes `step` bytes at a time.
    fn pieces(format: &Format, column: usize, data: &[u8], step: usize) -> Vec<String> {
        let mut reader = Reader::new(format.clone(), column);
        let (mut found, mut pending) = (Vec::new(), Vec::new());
        let mut chunks: Vec<&[u8]> = data.chunks(step).collect();
        chunks.push(&[]);
        for (index, chunk) in chunks.iter().enumerate() {
            pending.extend_from_slice(chunk);
            let mut rest = &pending[..];
            loop {
                let piece = match reader.next(rest, index + 1 == chunks.len()) {
                    Ok(Some(piece)) => piece,
                    Ok(None) => break,
                    Err(error) => {
                        found.push(format!("{}: {}", reader.line() + 1, error.message));
                        return found;
                    }
                };
                let (bytes, word) = match &piece {
                    Piece::Head(bytes) => (bytes, "head".to_owned()),
                    Piece::End(bytes) => (bytes, "end".to_owned()),
                    Piece::Row { bytes, field, .. } => (bytes, shown(field)),
                    Piece::Last { bytes, field, .. } => (bytes, format!("last {}", shown(field))),
                };
                if word != "end" {
                    found.push(format!("{}: {word} of {}", reader.line(), bytes.len()));
                } else if found.last().is_none_or(|last| last != "end") {
                    found.push(word);
                }
                rest = &rest[bytes.len()..];
            }
            let used = pending.len() - rest.len();
            pending.drain(..used);
        }
        assert!(pending.is_empty(), "{pending:?}");
        found
    }

    fn shown(field: &Field<'_>) -> String {
        match field {
            Field::Null => "NULL".to_owned(),
            Field::Missing => "nothing".to_owned(),
            Field::Text(text) => String::from_utf8_lossy(text).into_owned(),
            Field::Binary(bytes) => format!("{bytes:?}"),
        }
    }

    #[track_caller]
    fn check(format: &Format, column: usize, data: impl AsRef<[u8]>, expected: &[&str]) {
        for step in (1..=data.as_ref().len()).rev() {
            assert_eq!(pieces(format, column, data.as_ref(), step), expected, "{step} bytes at a time");
        }
    }

    #[test]
    fn text_is_cut_at_its_line_ends() {
        check(&text(), 0, "1\ta\n22\tb\n", &["1: 1 of 4", "2: 22 of 5"]);
        check(&text(), 1, "1\ta\n22\tb", &["1: a of 4", "2: b of 4"]);
        check(&text(), 1, "1\ta\r\n22\tb\r\n", &["1: a of 5", "2: b of 6"]);
        check(&text(), 1, "1\ta\r22\tb\r", &["1: a of 4", "2: b of 5"]);
        check(&text(), 0, "\\N\ta\n\n", &["1: NULL of 5", "2:  of 1"]);
        check(&text(), 2, "1\ta\n", &["1: nothing of 4"]);
        check(&text(), 1, "a\\\tb\tc\\\nd\tx\n", &["1: c\nd of 12"]);
        check(&text(), 0, "\\x41\\102\\q\\t\\\\\n", &["1: ABq\t\\ of 15"]);
    }

    #[test]
    fn one_file_ends_its_lines_in_one_way() {
        check(&text(), 0, "1\n2\r\n3\n", &["1: 1 of 2", "2: literal carriage return found in data"]);
        check(&text(), 0, "1\r\n2\n", &["1: 1 of 3", "2: literal newline found in data"]);
        check(&text(), 0, "1\r2\n", &["1: 1 of 2", "2: literal newline found in data"]);
        check(&csv(quoting(), false), 0, "1\n2\r3\n", &["1: 1 of 2", "2: unquoted carriage return found in data"]);
    }

    #[test]
    fn nothing_counts_behind_the_marker() {
        check(&text(), 0, "1\n\\.\nnothing \\. of \r\n it", &["1: 1 of 2", "end"]);
        check(&text(), 0, "1\ta\\.\nx\n", &["1: last 1 of 6", "end"]);
        check(&csv(quoting(), false), 0, "1\n\\.\nx\n", &["1: 1 of 2", "end"]);
        check(&csv(quoting(), false), 0, "\\.,1\n\\\n\\.", &["1: \\. of 5", "2: \\ of 2", "3: \\. of 2"]);
        let newer = csv(Quoting { ends: false, ..quoting() }, false);
        check(&newer, 0, "\\.\n1\n", &["1: \\. of 3", "2: 1 of 2"]);
    }

    #[test]
    fn csv_keeps_what_is_quoted_together() {
        let plain = csv(quoting(), false);
        check(&plain, 0, "1,1\n\"a\nb\"\"c\",1\n2,3\n", &["1: 1 of 4", "3: a\nb\"c of 11", "4: 2 of 4"]);
        check(&plain, 1, "\"a,b\",x\"y,z\"w\n", &["1: xy,zw of 14"]);
        check(&plain, 0, ",1\n\"\",2\n", &["1: NULL of 3", "2:  of 5"]);
        check(&plain, 0, "\"open\n1\n", &["1: nothing of 8"]);
        check(&csv(quoting(), true), 0, "\"a\n,b\",c\r\n1,2\r\n", &["1: head of 10", "2: 1 of 5"]);
        let escaping = csv(Quoting { escape: b'\\', ..quoting() }, false);
        check(&escaping, 0, "\"a\\\"\nb\\\\\",1\n\"\\n\"\n", &["1: a\"\nb\\ of 12", "2: \\n of 5"]);
        let forced = csv(Quoting { force_null: true, ..quoting() }, false);
        check(&forced, 0, "\"\",1\n,1\n", &["1: NULL of 5", "2: NULL of 3"]);
        let forced = csv(Quoting { force_not_null: true, ..quoting() }, false);
        check(&forced, 0, "\"\",1\n,1\n", &["1:  of 5", "2:  of 3"]);
    }

    #[test]
    fn binary_rows_are_counted_fields() {
        let header = [&b"PGCOPY\n\xff\r\n\0"[..], &[0, 0, 0, 0, 0, 0, 0, 1, 9]].concat();
        let row = [0, 2, 0, 0, 0, 2, 7, 8, 255, 255, 255, 255];
        let whole = [&header[..], &row, &row].concat();
        check(&Format::Binary, 0, &whole, &["0: head of 20", "1: [7, 8] of 12", "2: [7, 8] of 12"]);
        check(
            &Format::Binary,
            1,
            [&whole[..], &[255; 2]].concat(),
            &["0: head of 20", "1: NULL of 12", "2: NULL of 12", "end"],
        );
        check(&Format::Binary, 2, &whole[..32], &["0: head of 20", "1: nothing of 12"]);
        check(&Format::Binary, 0, &whole[..28], &["0: head of 20", "1: [7, 8] of 8"]);
        let behind = "1: received copy data after EOF marker";
        check(&Format::Binary, 0, [&header[..], &[255, 255, 0]].concat(), &["0: head of 20", "end", behind]);
    }
}
