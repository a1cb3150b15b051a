//! The Bind message, read without copying and written again for one shard (PostgreSQL documentation, 55.7).

use bytes::{BufMut, BytesMut};
use smallvec::SmallVec;

use super::frame::{client, malformed, put, put_text, take_str, take_text, take_u16, take_u32};
use crate::error::Error;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bind<'a> {
    pub portal: &'a str,
    pub statement: &'a str,
    /// None: all text; one: for all; else one each.
    formats: SmallVec<[u16; 8]>,
    values: Vec<Option<&'a [u8]>>,
    pub result_formats: SmallVec<[u16; 8]>,
    /// Its body behind the two names.
    pub behind_names: &'a [u8],
}

impl<'a> Bind<'a> {
    pub fn read(mut body: &'a [u8]) -> Result<Self, Error> {
        let rest = &mut body;
        let (portal, statement) = (take_str(rest)?, take_str(rest)?);
        let behind_names = *rest;
        let formats = formats(rest)?;
        let mut values = Vec::new();
        for _ in 0..take_u16(rest)? {
            values.push(value(rest)?);
        }
        if formats.len() > 1 && formats.len() != values.len() {
            return Err(malformed("as many parameter formats as parameters, one or none"));
        }
        Ok(Self { portal, statement, formats, values, result_formats: self::formats(rest)?, behind_names })
    }

    /// One without parameters.
    pub fn with_results(formats: &[u16]) -> Self {
        Self { result_formats: formats.iter().copied().collect(), ..Self::default() }
    }

    pub fn parameters(&self) -> usize {
        self.values.len()
    }

    /// What is behind the two names of a Bind body: formats, values, result formats.
    pub fn after_names(mut body: &[u8]) -> Result<&[u8], Error> {
        take_text(&mut body)?;
        take_text(&mut body)?;
        Ok(body)
    }

    /// The portal and statement that a Bind body names.
    pub fn names(mut body: &'a [u8]) -> Result<(&'a str, &'a str), Error> {
        Ok((take_str(&mut body)?, take_str(&mut body)?))
    }

    /// A Bind of the unnamed statement to the unnamed portal, with the parameters of these indexes only (`None`: all) and
    /// `arrays` behind them. `hidden` columns beyond those that the client knows of come as text, where it asked for each
    /// column's format.
    pub fn put_part(&self, out: &mut BytesMut, parameters: Option<&[usize]>, arrays: &[TextArray], hidden: usize) {
        let all: Vec<usize> = (0..self.values.len()).collect();
        let chosen = parameters.unwrap_or(&all);
        put(out, client::BIND, |body| {
            put_text(body, "");
            put_text(body, "");
            put_count(body, chosen.len() + arrays.len());
            chosen.iter().for_each(|&index| body.put_u16(self.format(index)));
            arrays.iter().for_each(|_| body.put_u16(BINARY));
            put_count(body, chosen.len() + arrays.len());
            chosen.iter().for_each(|&index| put_value(body, self.values.get(index).copied().flatten()));
            arrays.iter().for_each(|array| array.put(body));
            let padding = if self.result_formats.len() > 1 { hidden } else { 0 };
            put_count(body, self.result_formats.len() + padding);
            self.result_formats.iter().for_each(|&format| body.put_u16(format));
            (0..padding).for_each(|_| body.put_u16(0));
        });
    }

    /// The whole message with other values in the places of some; `other` is given index, bytes, and whether they are binary.
    /// `None`: none is another.
    pub fn put_others(&self, out: &mut BytesMut, other: impl Fn(usize, &[u8], bool) -> Option<Vec<u8>>) -> Option<()> {
        let others = self.values.iter().enumerate();
        let others = others.map(|(index, value)| other(index, (*value)?, self.format(index) == BINARY));
        let others: Vec<Option<Vec<u8>>> = others.collect();
        others.iter().any(Option::is_some).then_some(())?;
        put(out, client::BIND, |body| {
            put_text(body, self.portal);
            put_text(body, self.statement);
            put_count(body, self.formats.len());
            self.formats.iter().for_each(|&format| body.put_u16(format));
            put_count(body, self.values.len());
            let values = self.values.iter().zip(&others);
            values.for_each(|(value, other)| put_value(body, other.as_deref().or(*value)));
            put_count(body, self.result_formats.len());
            self.result_formats.iter().for_each(|&format| body.put_u16(format));
        });
        Some(())
    }

    /// The same, its answer as text.
    #[must_use]
    pub fn as_text(&self) -> Self {
        Self { result_formats: SmallVec::new(), ..self.clone() }
    }

    fn format(&self, index: usize) -> u16 {
        match self.formats.as_slice() {
            [] => 0,
            [all] => *all,
            each => each.get(index).copied().unwrap_or_default(),
        }
    }
}

/// A value of type `text[]`, one dimension, in binary.
#[derive(Debug, Default)]
pub struct TextArray {
    count: usize,
    /// Of each element its length and bytes.
    elements: BytesMut,
}

impl TextArray {
    pub const TYPE: u32 = 1009;

    /// One more element.
    pub fn push(&mut self, element: &[u8]) {
        self.count += 1;
        self.elements.put_u32(u32::try_from(element.len()).expect("a message is below 1 GiB"));
        self.elements.extend_from_slice(element);
    }

    pub fn elements(&self) -> usize {
        self.count
    }

    pub fn bytes(&self) -> usize {
        self.elements.len()
    }

    /// As a literal of SQL (PostgreSQL documentation, 8.15.6). `None`: some element is not UTF-8.
    pub fn write_literal(&self, out: &mut String) -> Option<()> {
        out.push_str("'{");
        let mut rest = &self.elements[..];
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            let (element, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
            if rest.len() < self.elements.len() {
                out.push(',');
            }
            out.push('"');
            for letter in std::str::from_utf8(element).ok()?.chars() {
                match letter {
                    '"' | '\\' => out.extend(['\\', letter]),
                    '\'' => out.push_str("''"),
                    letter => out.push(letter),
                }
            }
            out.push('"');
            rest = tail;
        }
        out.push_str("}'");
        Some(())
    }

    /// With its length in front of it, as `array_recv` of PostgreSQL reads it.
    fn put(&self, out: &mut BytesMut) {
        let header = if self.count == 0 { 12 } else { 20 };
        out.put_i32(i32::try_from(header + self.elements.len()).expect("gather_limit is below 1 GiB"));
        out.put_i32(i32::from(self.count > 0));
        // No NULLs.
        out.put_i32(0);
        out.put_u32(TEXT);
        if self.count > 0 {
            out.put_i32(i32::try_from(self.count).expect("each has four bytes at least"));
            out.put_i32(1);
            out.extend_from_slice(&self.elements);
        }
    }
}

const TEXT: u32 = 25;
pub(super) const BINARY: u16 = 1;

fn put_value(out: &mut BytesMut, value: Option<&[u8]>) {
    match value {
        None => out.put_i32(-1),
        Some(value) => {
            out.put_i32(i32::try_from(value.len()).expect("it came in a message"));
            out.extend_from_slice(value);
        }
    }
}

/// Format codes behind their number.
pub(super) fn formats(rest: &mut &[u8]) -> Result<SmallVec<[u16; 8]>, Error> {
    let count = take_u16(rest)?;
    (0..count).map(|_| take_u16(rest)).collect()
}

fn value<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Error> {
    let length = take_u32(rest)?;
    if length == u32::MAX {
        return Ok(None);
    }
    let length = usize::try_from(length).ok().filter(|&length| length <= rest.len());
    let (value, tail) = rest.split_at(length.ok_or_else(|| malformed("a parameter longer than its message"))?);
    *rest = tail;
    Ok(Some(value))
}

fn put_count(body: &mut BytesMut, count: usize) {
    body.put_u16(u16::try_from(count).expect("it came in a message"));
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"p\0s\0\0\x02\0\0\0\x01\0\x02\0\0\0\x011\xff\xff\xff\xff\0\x02\0\0\0\x01";

    #[test]
    fn one_shard_gets_its_parameters_only() {
        let bind = Bind::read(BODY).unwrap();
        assert_eq!((bind.portal, bind.statement), ("p", "s"));
        let mut out = BytesMut::new();
        bind.put_part(&mut out, Some(&[1]), &[], 1);
        let part = Bind::read(&out[5..]).unwrap();
        assert_eq!((part.values.as_slice(), part.formats.as_slice()), (&[None][..], &[1][..]));
        assert_eq!(part.result_formats.as_slice(), &[0, 1, 0]);
    }

    #[test]
    fn short_messages_are_refused() {
        for end in 0..BODY.len() {
            assert!(Bind::read(&BODY[..end]).is_err(), "{end} bytes");
        }
    }
}
