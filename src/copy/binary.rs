//! Rows of the binary format: a count of fields, each with its length.

use super::Field;
use super::reader::Ends;

/// How long the signature, the flags and what extends them are. `None`: they are not all there.
pub fn header(data: &[u8]) -> Option<usize> {
    if !SIGNATURE.starts_with(&data[..data.len().min(SIGNATURE.len())]) {
        // Its server says what it has against that.
        return Some(data.len());
    }
    let extension = data.get(FIXED..FIXED + 4)?;
    let length = u32::from_be_bytes(extension.try_into().ok()?) as usize;
    let end = FIXED + 4 + length;
    (data.len() >= end).then_some(end)
}

/// Where the row ends that `data` begins with. `seen`: where a field of it begins, and how many come before.
pub(super) fn end(data: &[u8], seen: &mut (usize, u16)) -> Ends {
    let Some(count) = count(data) else { return Ends::Later };
    if count == TRAILER {
        return Ends::Marker;
    }
    let (mut at, mut fields) = (seen.0.max(2), seen.1);
    while fields < count {
        *seen = (at, fields);
        let Some(length) = length(data, at) else { return Ends::Later };
        at += 4 + length.unwrap_or(0);
        if at > data.len() {
            return Ends::Later;
        }
        fields += 1;
    }
    Ends::At(at)
}

/// The column of this index in a whole row.
pub(super) fn field(row: &[u8], index: usize) -> Field<'_> {
    if count(row).is_none_or(|count| usize::from(count) <= index) {
        return Field::Missing;
    }
    let mut at = 2;
    for _ in 0..index {
        let Some(length) = length(row, at) else { return Field::Missing };
        at += 4 + length.unwrap_or(0);
    }
    match length(row, at) {
        None => Field::Missing,
        Some(None) => Field::Null,
        Some(Some(length)) => row.get(at + 4..at + 4 + length).map_or(Field::Missing, Field::Binary),
    }
}

fn count(row: &[u8]) -> Option<u16> {
    row.first_chunk::<2>().map(|count| u16::from_be_bytes(*count))
}

/// Of the field that begins there; within, `None` is NULL. A length that cannot be is for a server to refuse.
fn length(row: &[u8], at: usize) -> Option<Option<usize>> {
    let bytes = row.get(at..at + 4)?;
    Some(usize::try_from(i32::from_be_bytes(bytes.try_into().ok()?)).ok())
}

/// A count of -1.
const TRAILER: u16 = u16::MAX;
pub(super) const TRAILER_BYTES: usize = 2;
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// Signature and flags.
const FIXED: usize = 15;
