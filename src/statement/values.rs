//! The values of one execution: literals of the text, parameters of a Bind message.

use std::borrow::Cow;
use std::sync::OnceLock;

use super::scan::{LiteralKind, LiteralSpan};
use super::types::{LiteralIndex, ParameterIndex};
use crate::error::{Error, SqlState};

/// All that a plan may ask for.
#[derive(Clone, Copy)]
pub struct Values<'a> {
    pub text: &'a str,
    pub literals: &'a [LiteralSpan],
    pub parameters: Option<&'a Parameters<'a>>,
}

/// One value, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given<'a> {
    Null,
    /// A literal without its quotes, or a parameter in text format.
    Text(Cow<'a, str>),
    /// `type_oid` is 0 where the server infers the type.
    Binary {
        type_oid: u32,
        bytes: &'a [u8],
    },
    /// Not there, or not to be read.
    Missing,
}

/// The parameters of a Bind message, found when asked for.
#[derive(Clone, Debug)]
pub struct Parameters<'a> {
    types: &'a [u32],
    formats: &'a [u8],
    values: &'a [u8],
    count: usize,
    /// Where each value begins, once it is known; where there are few, nobody looks it up.
    places: OnceLock<Box<[usize]>>,
}

impl<'a> Values<'a> {
    pub fn literal(&self, index: LiteralIndex) -> Given<'a> {
        let Some(span) = self.literals.get(index) else { return Given::Missing };
        match self.text.get(span.start as usize..span.end as usize) {
            Some(written) => decode(written, span.kind).map_or(Given::Missing, Given::Text),
            None => Given::Missing,
        }
    }

    pub fn parameter(&self, index: ParameterIndex) -> Given<'a> {
        self.parameters.map_or(Given::Missing, |parameters| parameters.value(index))
    }
}

impl<'a> Parameters<'a> {
    /// From a Bind body behind its two names: formats, values; `types` as Parse declared them.
    pub fn parse(body: &'a [u8], types: &'a [u32]) -> Result<Self, Error> {
        let malformed = || Error::new(SqlState::PROTOCOL, "malformed Bind message");
        let (count, rest) = body.split_first_chunk::<2>().ok_or_else(malformed)?;
        let bytes = usize::from(u16::from_be_bytes(*count)) * 2;
        let (formats, rest) = rest.split_at_checked(bytes).ok_or_else(malformed)?;
        let (count, values) = rest.split_first_chunk::<2>().ok_or_else(malformed)?;
        Ok(Self { types, formats, values, count: usize::from(u16::from_be_bytes(*count)), places: OnceLock::new() })
    }

    pub fn len(&self) -> usize {
        self.count
    }

    /// The bytes of each value that is not NULL.
    pub fn each(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.values;
        let values = (0..self.count).map_while(move |_| {
            let (length, tail) = rest.split_first_chunk::<4>()?;
            let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
            let (value, tail) = tail.split_at_checked(length)?;
            rest = tail;
            Some(value)
        });
        values.filter(|value| !value.is_empty())
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn value(&self, index: usize) -> Given<'a> {
        if index >= self.count {
            return Given::Missing;
        }
        let place = if self.count > FEW {
            self.places.get_or_init(|| self.walk().collect()).get(index).copied()
        } else {
            self.walk().nth(index)
        };
        match place.and_then(|place| take_value(&self.values[place..])) {
            None => Given::Missing,
            Some((None, _)) => Given::Null,
            Some((Some(bytes), _)) => self.given(index, bytes),
        }
    }

    /// Where each value begins, as far as the message goes.
    fn walk(&self) -> impl Iterator<Item = usize> {
        let values = self.values;
        let next = move |&place: &usize| take_value(&values[place..]).map(|(_, rest)| values.len() - rest.len());
        std::iter::successors(Some(0), next).take(self.count)
    }

    fn given(&self, index: usize, bytes: &'a [u8]) -> Given<'a> {
        let format = match self.formats {
            [] => 0,
            [_, only] => *only,
            all => all.get(index * 2 + 1).copied().unwrap_or(0),
        };
        match (format, std::str::from_utf8(bytes)) {
            (0, Ok(text)) => Given::Text(Cow::Borrowed(text)),
            (0, Err(_)) => Given::Missing,
            _ => Given::Binary { type_oid: self.types.get(index).copied().unwrap_or(0), bytes },
        }
    }
}

/// The value at the front, `None` for NULL, and what is behind it.
fn take_value(values: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (length, rest) = values.split_first_chunk::<4>()?;
    match usize::try_from(i32::from_be_bytes(*length)) {
        Ok(length) => rest.split_at_checked(length).map(|(value, rest)| (Some(value), rest)),
        Err(_) => Some((None, rest)),
    }
}

/// Up to so many parameters, the way to any of them is short.
const FEW: usize = 32;

/// The value that PostgreSQL's lexer would make of a literal; `None` for what is left to it.
pub(super) fn decode(written: &str, kind: LiteralKind) -> Option<Cow<'_, str>> {
    match kind {
        LiteralKind::Integer | LiteralKind::Decimal => number(written),
        LiteralKind::Text => {
            let inner = written.strip_prefix(['n', 'N']).unwrap_or(written);
            let inner = inner.strip_prefix('\'')?.strip_suffix('\'')?;
            Some(if inner.contains('\'') { Cow::Owned(inner.replace("''", "'")) } else { Cow::Borrowed(inner) })
        }
        LiteralKind::Dollar => {
            let tag = written[1..].find('$')? + 2;
            written.get(tag..written.len() - tag).map(Cow::Borrowed)
        }
        LiteralKind::Escape => {
            let inner = written.get(2..written.len() - 1)?;
            if inner.contains(['\\', '\'']) { unescaped(inner).map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
        }
        // Rare as keys: their rows are found on every shard, or the statement is refused.
        LiteralKind::Unicode | LiteralKind::Bits => None,
    }
}

/// `None`: characters by their number, which may be of another encoding, or several lines.
fn unescaped(inner: &str) -> Option<String> {
    let (mut out, mut letters) = (String::with_capacity(inner.len()), inner.chars());
    while let Some(letter) = letters.next() {
        match (letter, letter == '\\' || letter == '\'') {
            (letter, false) => out.push(letter),
            ('\'', _) => out.push(letters.next().filter(|&next| next == '\'')?),
            _ => out.push(match letters.next()? {
                'b' => '\x08',
                'f' => '\x0c',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'x' | 'u' | 'U' | '0'..='7' => return None,
                other => other,
            }),
        }
    }
    Some(out)
}

/// A number as PostgreSQL would print it.
fn number(written: &str) -> Option<Cow<'_, str>> {
    let plain = if written.contains('_') { Cow::Owned(written.replace('_', "")) } else { Cow::Borrowed(written) };
    let radix = match plain.as_bytes() {
        [b'0', b'x' | b'X', ..] => 16,
        [b'0', b'o' | b'O', ..] => 8,
        [b'0', b'b' | b'B', ..] => 2,
        _ => return Some(plain),
    };
    u128::from_str_radix(&plain[2..], radix).ok().map(|number| Cow::Owned(number.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_decoded() {
        for (written, kind, expected) in [
            ("42", LiteralKind::Integer, Some("42")),
            ("1_000", LiteralKind::Integer, Some("1000")),
            ("0x3E9", LiteralKind::Integer, Some("1001")),
            ("0xZ", LiteralKind::Integer, None),
            ("'it''s'", LiteralKind::Text, Some("it's")),
            ("N'a'", LiteralKind::Text, Some("a")),
            ("$$a'b$$", LiteralKind::Dollar, Some("a'b")),
            ("$x$a$x$", LiteralKind::Dollar, Some("a")),
            ("E'ab'", LiteralKind::Escape, Some("ab")),
            ("E'a\\n''b\\'\\q'", LiteralKind::Escape, Some("a\n'b'q")),
            ("E'\\x41'", LiteralKind::Escape, None),
            ("E'a'\n'b'", LiteralKind::Escape, None),
            ("x'1f'", LiteralKind::Bits, None),
        ] {
            assert_eq!(decode(written, kind).as_deref(), expected, "{written}");
        }
    }

    #[test]
    fn parameters_are_found_in_a_bind_message() {
        let body = b"\0\x02\0\0\0\x01\0\x03\0\0\0\x0242\0\0\0\x04\0\0\0\x07\xff\xff\xff\xff\0\0";
        let parameters = Parameters::parse(body, &[0, 23]).unwrap();
        assert_eq!(parameters.value(0), Given::Text("42".into()));
        assert_eq!(parameters.value(1), Given::Binary { type_oid: 23, bytes: &[0, 0, 0, 7] });
        assert_eq!(parameters.value(2), Given::Null);
        assert_eq!(parameters.value(3), Given::Missing);
        let short = Parameters::parse(&body[..12], &[]).unwrap();
        assert_eq!(short.value(1), Given::Missing);
    }
}
