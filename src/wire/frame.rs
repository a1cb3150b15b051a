//! One frame of protocol 3 after the startup packet: a kind byte, a length that counts itself, a body
//! (PostgreSQL documentation, 55.2).

use bytes::{BufMut, BytesMut};

use crate::error::{Error, SqlState};

/// The first five bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: u8,
    /// Bytes of the whole frame, the five of the header included.
    pub length: usize,
}

impl Header {
    pub const BYTES: usize = 5;

    /// `None`: fewer than five bytes are there yet.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, Error> {
        let Some((head, _)) = bytes.split_first_chunk::<{ Self::BYTES }>() else { return Ok(None) };
        let length = i32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        match usize::try_from(length) {
            Ok(length @ 4..) if length <= MAX_BODY => Ok(Some(Self { kind: head[0], length: length + 1 })),
            _ => Err(Error::new(SqlState::PROTOCOL, format!("invalid message length {length}"))),
        }
    }

    /// The whole frame at the front of `bytes`, once it is there.
    pub fn whole(bytes: &[u8]) -> Result<Option<Self>, Error> {
        Ok(Self::read(bytes)?.filter(|header| header.length <= bytes.len()))
    }
}

/// Appends a frame whose body `fill` writes.
pub fn put(out: &mut BytesMut, kind: u8, fill: impl FnOnce(&mut BytesMut)) {
    out.put_u8(kind);
    let start = out.len();
    out.put_i32(0);
    fill(out);
    let length = i32::try_from(out.len() - start).expect("our own frames are below 2 GiB");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Puts bytes in front of what is there.
pub fn put_in_front(input: &mut BytesMut, bytes: &[u8]) {
    let mut all = BytesMut::with_capacity(bytes.len() + input.len());
    all.extend_from_slice(bytes);
    all.extend_from_slice(input);
    *input = all;
}

/// Appends a zero-terminated text. A zero inside would end it early: it is left out.
pub fn put_text(out: &mut BytesMut, text: &str) {
    if memchr::memchr(0, text.as_bytes()).is_none() {
        out.extend_from_slice(text.as_bytes());
    } else {
        out.extend(text.bytes().filter(|&byte| byte != 0));
    }
    out.put_u8(0);
}

/// Takes a zero-terminated text off the front of `rest`, without its zero.
pub fn take_text<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Error> {
    if let [0, tail @ ..] = *rest {
        *rest = tail;
        return Ok(&[]);
    }
    let end = memchr::memchr(0, rest).ok_or_else(|| malformed("a text without its end"))?;
    let text = &rest[..end];
    *rest = &rest[end + 1..];
    Ok(text)
}

/// As [`take_text`], in UTF-8.
pub fn take_str<'a>(rest: &mut &'a [u8]) -> Result<&'a str, Error> {
    std::str::from_utf8(take_text(rest)?).map_err(|_| malformed("a text that is not UTF-8"))
}

pub fn take_u16(rest: &mut &[u8]) -> Result<u16, Error> {
    let (bytes, tail) = rest.split_first_chunk::<2>().ok_or_else(|| malformed("a short message"))?;
    *rest = tail;
    Ok(u16::from_be_bytes(*bytes))
}

pub fn take_u32(rest: &mut &[u8]) -> Result<u32, Error> {
    let (bytes, tail) = rest.split_first_chunk::<4>().ok_or_else(|| malformed("a short message"))?;
    *rest = tail;
    Ok(u32::from_be_bytes(*bytes))
}

/// A violation of the protocol, named by what was found.
#[cold]
pub fn malformed(what: &str) -> Error {
    Error::new(SqlState::PROTOCOL, format!("malformed message: {what}"))
}

/// Kinds of frames that clients send (PostgreSQL documentation, 55.7).
pub mod client {
    pub const BIND: u8 = b'B';
    pub const CLOSE: u8 = b'C';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_FAIL: u8 = b'f';
    pub const DESCRIBE: u8 = b'D';
    pub const EXECUTE: u8 = b'E';
    pub const FLUSH: u8 = b'H';
    pub const FUNCTION_CALL: u8 = b'F';
    pub const PARSE: u8 = b'P';
    pub const PASSWORD: u8 = b'p';
    pub const QUERY: u8 = b'Q';
    pub const SYNC: u8 = b'S';
    pub const TERMINATE: u8 = b'X';
}

/// Kinds of frames that servers send (PostgreSQL documentation, 55.7).
pub mod server {
    pub const AUTHENTICATION: u8 = b'R';
    pub const BACKEND_KEY_DATA: u8 = b'K';
    pub const BIND_COMPLETE: u8 = b'2';
    pub const CLOSE_COMPLETE: u8 = b'3';
    pub const COMMAND_COMPLETE: u8 = b'C';
    pub const COPY_BOTH: u8 = b'W';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_IN: u8 = b'G';
    pub const COPY_OUT: u8 = b'H';
    pub const DATA_ROW: u8 = b'D';
    pub const EMPTY_QUERY: u8 = b'I';
    pub const ERROR: u8 = b'E';
    pub const FUNCTION_RESULT: u8 = b'V';
    pub const NEGOTIATE: u8 = b'v';
    pub const NO_DATA: u8 = b'n';
    pub const NOTICE: u8 = b'N';
    pub const NOTIFICATION: u8 = b'A';
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    pub const PARAMETER_STATUS: u8 = b'S';
    pub const PARSE_COMPLETE: u8 = b'1';
    pub const PORTAL_SUSPENDED: u8 = b's';
    pub const READY: u8 = b'Z';
    pub const ROW_DESCRIPTION: u8 = b'T';
}

/// PostgreSQL's own limit of a message, `PQ_LARGE_MESSAGE_LIMIT`.
const MAX_BODY: usize = 0x3fff_ffff;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_was_put_is_read_again() {
        let mut out = BytesMut::new();
        put(&mut out, client::QUERY, |body| put_text(body, "select\0 1"));
        assert_eq!(&out[..], b"Q\0\0\0\x0dselect 1\0");
        assert_eq!(Header::whole(&out), Ok(Some(Header { kind: b'Q', length: 14 })));
        for end in 0..out.len() {
            assert_eq!(Header::whole(&out[..end]), Ok(None), "{end} bytes");
        }
    }

    #[test]
    fn impossible_lengths_are_refused() {
        for length in [i32::MIN, -1, 0, 3, 0x4000_0000, i32::MAX] {
            let bytes = [&b"Q"[..], &length.to_be_bytes()].concat();
            assert!(Header::read(&bytes).is_err(), "{length}");
        }
    }
}
