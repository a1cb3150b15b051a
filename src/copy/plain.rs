//! Rows of the text format: a backslash takes the meaning of the byte behind it.

use std::borrow::Cow;

use memchr::{memchr, memchr2, memchr3};

use super::reader::{Ends, LineEnd, Scan};
use super::{Field, Lined};
use crate::error::Error;

/// Where the row ends that `data` begins with, its terminator included; looked for behind what `scan` has seen.
pub(super) fn end(data: &[u8], scan: &mut Scan, ends: &mut LineEnd, last: bool) -> Result<Ends, Error> {
    while let Some(found) = memchr3(b'\n', b'\r', b'\\', &data[scan.seen..]) {
        let at = scan.seen + found;
        if data[at] != b'\\' {
            match ends.at(data, at, last)? {
                None => {
                    scan.seen = at;
                    return Ok(Ends::Later);
                }
                Some(end) => return Ok(Ends::At(end)),
            }
        }
        scan.escaped = true;
        match data.get(at + 1) {
            None => {
                scan.seen = at;
                return Ok(if last { Ends::Last } else { Ends::Later });
            }
            Some(b'.') => return end_marker(data, at, ends, last),
            Some(_) => scan.seen = at + 2,
        }
    }
    scan.seen = data.len().max(scan.seen);
    Ok(if last { Ends::Last } else { Ends::Later })
}

/// Behind `\.` nothing counts. What stands before it in the line, or wrongly behind it, is for a server to judge.
fn end_marker(data: &[u8], at: usize, ends: &mut LineEnd, last: bool) -> Result<Ends, Error> {
    match data.get(at + 2) {
        None if !last => Ok(Ends::Later),
        Some(b'\n' | b'\r') if at == 0 => match ends.at(data, 2, last)? {
            None => Ok(Ends::Later),
            Some(_) => Ok(Ends::Marker),
        },
        _ => match memchr2(b'\n', b'\r', &data[at + 2..]) {
            Some(end) => Ok(Ends::Broken(at + 2 + end + 1)),
            None if last => Ok(Ends::Broken(data.len())),
            None => Ok(Ends::Later),
        },
    }
}

/// The column of this index in a row without its terminator.
pub(super) fn field<'d>(row: &'d [u8], index: usize, lined: &Lined, escaped: bool) -> Field<'d> {
    let mut rest = row;
    for _ in 0..index {
        match end_of_field(rest, lined.delimiter, escaped) {
            end if end < rest.len() => rest = &rest[end + 1..],
            _ => return Field::Missing,
        }
    }
    let written = &rest[..end_of_field(rest, lined.delimiter, escaped)];
    if *written == *lined.null {
        return Field::Null;
    }
    Field::Text(if escaped { unescaped(written) } else { Cow::Borrowed(written) })
}

fn end_of_field(rest: &[u8], delimiter: u8, escaped: bool) -> usize {
    if !escaped {
        return memchr(delimiter, rest).unwrap_or(rest.len());
    }
    let mut from = 0;
    while let Some(found) = memchr2(delimiter, b'\\', rest.get(from..).unwrap_or_default()) {
        if rest[from + found] == delimiter {
            return from + found;
        }
        from += found + 2;
    }
    rest.len()
}

fn unescaped(written: &[u8]) -> Cow<'_, [u8]> {
    if memchr(b'\\', written).is_none() {
        return Cow::Borrowed(written);
    }
    let (mut out, mut rest) = (Vec::with_capacity(written.len()), written);
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, rest.split_first()) {
            (b'\\', Some((&letter, tail))) => {
                rest = tail;
                out.push(match letter {
                    b'b' => 8,
                    b'f' => 12,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'v' => 11,
                    b'0'..=b'7' => number(&mut rest, 8, 2, u32::from(letter - b'0')),
                    b'x' if rest.first().is_some_and(u8::is_ascii_hexdigit) => number(&mut rest, 16, 2, 0),
                    other => other,
                });
            }
            _ => out.push(byte),
        }
    }
    Cow::Owned(out)
}

/// A byte by its number, of which at most so many digits are still to come.
fn number(rest: &mut &[u8], radix: u32, most: usize, first: u32) -> u8 {
    let mut value = first;
    for _ in 0..most {
        let Some(digit) = rest.first().and_then(|&digit| char::from(digit).to_digit(radix)) else { break };
        value = value * radix + digit;
        *rest = &rest[1..];
    }
    // As PostgreSQL: of `\777` the lowest eight bits.
    value.to_le_bytes()[0]
}
