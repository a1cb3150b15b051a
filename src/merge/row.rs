//! DataRow bodies (PostgreSQL documentation, 55.7): a column count, then length and bytes per column.

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::{Error, SqlState};

/// Where the cells of one row are; kept and read again for row after row.
#[derive(Debug, Default)]
pub(super) struct Cells {
    /// `None`: NULL.
    ranges: Vec<Option<(usize, usize)>>,
}

impl Cells {
    /// Fails if the row has another number of columns.
    pub(super) fn read(&mut self, row: &[u8], columns: usize) -> Result<(), Error> {
        self.ranges.clear();
        let (count, mut rest) = row.split_first_chunk().ok_or_else(malformed)?;
        if usize::from(u16::from_be_bytes(*count)) != columns {
            return Err(malformed());
        }
        for _ in 0..columns {
            let (length, after) = rest.split_first_chunk().ok_or_else(malformed)?;
            let length = i32::from_be_bytes(*length);
            let start = row.len() - after.len();
            let width = usize::try_from(length.max(0)).expect("not negative");
            rest = after.get(width..).ok_or_else(malformed)?;
            self.ranges.push((length >= 0).then_some((start, start + width)));
        }
        Ok(())
    }

    /// A cell of the row that was read last; `None`: NULL.
    pub(super) fn get<'a>(&self, row: &'a [u8], column: usize) -> Option<&'a [u8]> {
        self.ranges[column].map(|(start, end)| &row[start..end])
    }
}

/// The cells of a row, as far as it is whole; `None`: NULL.
pub fn cells(row: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = row.get(2..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk()?;
        let length = i32::from_be_bytes(*length);
        let (cell, behind) = after.split_at_checked(usize::try_from(length.max(0)).ok()?)?;
        rest = behind;
        Some((length >= 0).then_some(cell))
    })
}

/// The row without its last columns.
pub(super) fn first_columns(row: &Bytes, columns: usize, spare: &mut BytesMut) -> Result<Bytes, Error> {
    let mut end = 2;
    for _ in 0..columns {
        let length = row.get(end..end + 4).ok_or_else(malformed)?;
        let length = i32::from_be_bytes(length.try_into().expect("four bytes"));
        end += 4 + usize::try_from(length.max(0)).expect("not negative");
    }
    let cells = row.get(2..end).ok_or_else(malformed)?;
    spare.put_u16(u16::try_from(columns).expect("a row has at most 1664 columns"));
    spare.put_slice(cells);
    Ok(spare.split().freeze())
}

/// Appends one cell; `write` says whether it is not NULL.
pub(super) fn put_cell(
    row: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<bool, Error>,
) -> Result<(), Error> {
    let at = row.len();
    row.extend_from_slice(&(-1_i32).to_be_bytes());
    if write(row)? {
        let length = i32::try_from(row.len() - at - 4).map_err(|_| malformed())?;
        row[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

fn malformed() -> Error {
    Error::new(SqlState::PROTOCOL, "a server sent a row that does not fit its description")
}
