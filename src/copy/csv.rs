//! Rows of CSV: what is quoted may hold delimiters and line ends.

use std::borrow::Cow;

use memchr::{memchr, memchr2, memchr3};

use super::reader::{Ends, LineEnd, Scan};
use super::{Field, Lined, Quoting};
use crate::error::Error;

/// As [`super::plain::end`].
pub(super) fn end(
    data: &[u8],
    scan: &mut Scan,
    ends: &mut LineEnd,
    quoting: &Quoting,
    last: bool,
) -> Result<Ends, Error> {
    if quoting.ends && scan.seen == 0 && data.starts_with(b"\\") {
        match (data.get(1), data.get(2)) {
            (None, _) | (Some(b'.'), None) if !last => return Ok(Ends::Later),
            (Some(b'.'), Some(b'\n' | b'\r')) => {
                return Ok(if ends.at(data, 2, last)?.is_some() { Ends::Marker } else { Ends::Later });
            }
            _ => {}
        }
    }
    let escape = (quoting.escape != quoting.quote).then_some(quoting.escape);
    loop {
        let rest = &data[scan.seen..];
        let found = match (scan.quoted, escape) {
            (false, _) => memchr3(b'\n', b'\r', quoting.quote, rest),
            (true, Some(escape)) => memchr3(quoting.quote, escape, ends.within_quotes(), rest),
            (true, None) => memchr2(quoting.quote, ends.within_quotes(), rest),
        };
        let Some(found) = found else { break };
        let at = scan.seen + found;
        match data[at] {
            byte if byte == quoting.quote => {
                scan.quoted = !scan.quoted;
                scan.escaped = true;
                scan.seen = at + 1;
            }
            byte if scan.quoted && escape == Some(byte) => match data.get(at + 1) {
                None if !last => {
                    scan.seen = at;
                    return Ok(Ends::Later);
                }
                // Only before these it takes a meaning away.
                Some(&next) if next == quoting.quote || Some(next) == escape => scan.seen = at + 2,
                _ => scan.seen = at + 1,
            },
            _ if scan.quoted => {
                scan.lines += 1;
                scan.seen = at + 1;
            }
            _ => match ends.at(data, at, last)? {
                None => {
                    scan.seen = at;
                    return Ok(Ends::Later);
                }
                Some(end) => return Ok(Ends::At(end)),
            },
        }
    }
    scan.seen = data.len();
    Ok(if last { Ends::Last } else { Ends::Later })
}

/// The column of this index in a row without its terminator.
pub(super) fn field<'d>(row: &'d [u8], index: usize, (lined, quoting): (&Lined, &Quoting), quoted: bool) -> Field<'d> {
    let mut rest = row;
    for _ in 0..index {
        match Value::read(rest, lined, quoting, quoted) {
            Some(Value { end, .. }) if end < rest.len() => rest = &rest[end + 1..],
            _ => return Field::Missing,
        }
    }
    let Some(value) = Value::read(rest, lined, quoting, quoted) else { return Field::Missing };
    let is_null = *value.text == *lined.null && (!value.quoted || quoting.force_null);
    if is_null && (value.quoted || !quoting.force_not_null) {
        return Field::Null;
    }
    Field::Text(value.text)
}

struct Value<'d> {
    text: Cow<'d, [u8]>,
    /// Some of it was.
    quoted: bool,
    /// Where the delimiter is that follows.
    end: usize,
}

impl<'d> Value<'d> {
    /// `None`: a quote is not closed.
    fn read(rest: &'d [u8], lined: &Lined, quoting: &Quoting, quoted: bool) -> Option<Self> {
        let plain = |end: usize| Some(Self { text: Cow::Borrowed(&rest[..end]), quoted: false, end });
        if !quoted {
            return plain(memchr(lined.delimiter, rest).unwrap_or(rest.len()));
        }
        let quote = match memchr2(lined.delimiter, quoting.quote, rest) {
            Some(at) if rest[at] == quoting.quote => at,
            end => return plain(end.unwrap_or(rest.len())),
        };
        let mut text = rest[..quote].to_vec();
        let (mut at, mut inside) = (quote + 1, true);
        while let Some(&byte) = rest.get(at) {
            at += 1;
            let escaped = || rest.get(at).filter(|&&next| next == quoting.quote || next == quoting.escape);
            match (inside, byte) {
                (true, byte) if byte == quoting.escape && escaped().is_some() => {
                    text.push(rest[at]);
                    at += 1;
                }
                (_, byte) if byte == quoting.quote => inside = !inside,
                (false, byte) if byte == lined.delimiter => {
                    return Some(Self { text: text.into(), quoted, end: at - 1 });
                }
                (_, byte) => text.push(byte),
            }
        }
        (!inside).then(|| Self { text: text.into(), quoted, end: rest.len() })
    }
}
