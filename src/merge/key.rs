//! Values as bytes that compare, byte by byte, as PostgreSQL compares the values. Equal values give equal bytes, and no
//! value's bytes are the start of another's, so that several may follow each other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::columns::Column;
use super::datetime::{self, Interval};
use super::kind::Kind;
use super::numeric;
use crate::error::{Error, SqlState};

/// How to read a column's cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Typed {
    pub(super) kind: Kind,
    pub(super) binary: bool,
}

impl Typed {
    pub(super) fn new(column: &Column) -> Self {
        Self { kind: column.kind(), binary: column.is_binary() }
    }

    /// Refuses types whose equal values may have different bytes.
    pub(super) fn for_equality(column: &Column, clause: &str) -> Result<Self, Error> {
        if !column.kind().has_equality() {
            let what = format!("{clause} with {} of {}", column.quoted(), column.type_name());
            return Err(Error::unsupported(what, "cast it to text, or read one shard"));
        }
        Ok(Self::new(column))
    }

    /// Appends the key of a value.
    pub(super) fn write(self, cell: &[u8], key: &mut Vec<u8>) -> Result<(), Error> {
        match self.kind {
            Kind::Text | Kind::Bytea | Kind::Bpchar | Kind::Fixed | Kind::Array | Kind::Other => {
                self.write_bytes(cell, key)?;
            }
            Kind::Numeric => numeric::Decimal::parse(self.binary, cell).ok_or_else(malformed)?.write_key(key),
            Kind::Float4 | Kind::Float8 => write_float(self.float(cell)?, key),
            Kind::Interval => write_i128(self.interval(cell)?.span(), key),
            Kind::Timetz => {
                let (micros, seconds_west) = self.timetz(cell)?;
                write_int(micros + i64::from(seconds_west) * 1_000_000, key);
                write_int(i64::from(seconds_west), key);
            }
            Kind::Inet => write_inet(&self.inet(cell).ok_or_else(malformed)?, key),
            Kind::Bits => write_bits(self.binary, cell, key)?,
            Kind::Bool | Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Oid | Kind::Char => {
                write_int(self.int(cell)?, key);
            }
            Kind::Date | Kind::Time | Kind::Timestamp | Kind::Timestamptz => write_int(self.moment(cell)?, key),
        }
        Ok(())
    }

    /// Booleans, integers, OIDs and `"char"`.
    pub(super) fn int(self, cell: &[u8]) -> Result<i64, Error> {
        let value = match (self.kind, self.binary) {
            (Kind::Bool, true) => cell.first().map(|&byte| i64::from(byte)),
            (Kind::Bool, false) => Some(i64::from(cell == b"t")),
            (Kind::Char, _) => char_value(cell),
            (Kind::Int2, true) => cell.try_into().ok().map(|bytes| i64::from(i16::from_be_bytes(bytes))),
            (Kind::Int4, true) => cell.try_into().ok().map(|bytes| i64::from(i32::from_be_bytes(bytes))),
            (Kind::Oid, true) => cell.try_into().ok().map(|bytes| i64::from(u32::from_be_bytes(bytes))),
            (_, true) => cell.try_into().ok().map(i64::from_be_bytes),
            (_, false) => std::str::from_utf8(cell).ok().and_then(|text| text.parse().ok()),
        };
        value.ok_or_else(malformed)
    }

    pub(super) fn float(self, cell: &[u8]) -> Result<f64, Error> {
        let value = match (self.kind, self.binary) {
            (Kind::Float4, true) => cell.try_into().ok().map(|bytes| f64::from(f32::from_be_bytes(bytes))),
            (_, true) => cell.try_into().ok().map(f64::from_be_bytes),
            (Kind::Float4, false) => text(cell).and_then(|text| text.parse::<f32>().ok()).map(f64::from),
            (_, false) => text(cell).and_then(|text| text.parse().ok()),
        };
        value.ok_or_else(malformed)
    }

    pub(super) fn interval(self, cell: &[u8]) -> Result<Interval, Error> {
        if self.binary {
            return Interval::from_binary(cell).ok_or_else(malformed);
        }
        let style = || Error::unsupported("reading intervals of this style", "SET intervalstyle = 'postgres'");
        text(cell).and_then(Interval::parse).ok_or_else(style)
    }

    /// Dates as days, the others as microseconds; infinite ones at the ends.
    fn moment(self, cell: &[u8]) -> Result<i64, Error> {
        if self.binary {
            return match self.kind {
                Kind::Date => cell.try_into().ok().map(|bytes| i64::from(i32::from_be_bytes(bytes))),
                _ => cell.try_into().ok().map(i64::from_be_bytes),
            }
            .ok_or_else(malformed);
        }
        let parse = match self.kind {
            Kind::Date => datetime::date,
            Kind::Time => datetime::time,
            Kind::Timestamp => datetime::timestamp,
            _ => datetime::timestamptz,
        };
        text(cell).and_then(parse).ok_or_else(not_iso)
    }

    /// Microseconds since midnight, and seconds west of Greenwich.
    fn timetz(self, cell: &[u8]) -> Result<(i64, i32), Error> {
        if !self.binary {
            return text(cell).and_then(datetime::timetz).ok_or_else(not_iso);
        }
        let (micros, zone) = cell.split_first_chunk().ok_or_else(malformed)?;
        let zone = zone.try_into().map_err(|_| malformed())?;
        Ok((i64::from_be_bytes(*micros), i32::from_be_bytes(zone)))
    }

    fn write_bytes(self, cell: &[u8], key: &mut Vec<u8>) -> Result<(), Error> {
        match (self.kind, self.binary) {
            (Kind::Bytea, false) => write_escaped(&bytea(cell).ok_or_else(malformed)?, key),
            (Kind::Bpchar, _) => write_escaped(cell.trim_ascii_end_blanks(), key),
            (Kind::Array, true) => {
                // Bytes 4 to 7 tell whether there is room for NULLs, which equal arrays may differ in.
                write_escaped(cell.get(..4).ok_or_else(malformed)?, key);
                write_escaped(cell.get(8..).ok_or_else(malformed)?, key);
            }
            _ => write_escaped(cell, key),
        }
        Ok(())
    }

    fn inet(self, cell: &[u8]) -> Option<Inet> {
        if self.binary {
            let (&bits, address) = (cell.get(1)?, cell.get(4..)?);
            let address = match address.len() {
                4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?)),
                _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?)),
            };
            return Some(Inet { address, bits });
        }
        let text = text(cell)?;
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().ok()?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        Some(Inet { address, bits: bits.map_or(Some(whole), |bits| bits.parse().ok())? })
    }
}

/// A value that may be NULL, for equality: NULLs are one group.
pub(super) fn write_nullable(typed: &Typed, cell: Option<&[u8]>, key: &mut Vec<u8>) -> Result<(), Error> {
    key.push(u8::from(cell.is_some()));
    cell.map_or(Ok(()), |cell| typed.write(cell, key))
}

/// A value that is not of its type.
pub(super) fn malformed() -> Error {
    Error::new(SqlState::PROTOCOL, "a server sent a value that is not of its column's type")
}

fn not_iso() -> Error {
    Error::unsupported("reading dates of this style", "SET datestyle = 'ISO'")
}

struct Inet {
    address: IpAddr,
    bits: u8,
}

trait TrimBlanks {
    fn trim_ascii_end_blanks(&self) -> &[u8];
}

impl TrimBlanks for [u8] {
    fn trim_ascii_end_blanks(&self) -> &[u8] {
        let end = self.iter().rposition(|&byte| byte != b' ').map_or(0, |last| last + 1);
        &self[..end]
    }
}

fn text(cell: &[u8]) -> Option<&str> {
    std::str::from_utf8(cell).ok()
}

fn write_int(value: i64, key: &mut Vec<u8>) {
    key.extend_from_slice(&(value ^ i64::MIN).to_be_bytes());
}

fn write_i128(value: i128, key: &mut Vec<u8>) {
    key.extend_from_slice(&(value ^ i128::MIN).to_be_bytes());
}

/// NaN is greater than all, and minus zero is zero.
fn write_float(value: f64, key: &mut Vec<u8>) {
    let bits = if value == 0.0 { 0.0_f64.to_bits() } else { value.to_bits() };
    let ordered = match bits >> 63 {
        _ if value.is_nan() => u64::MAX,
        0 => bits | 1 << 63,
        _ => !bits,
    };
    key.extend_from_slice(&ordered.to_be_bytes());
}

/// Bytes that end: a zero byte becomes 0 255, the end is 0 0.
fn write_escaped(bytes: &[u8], key: &mut Vec<u8>) {
    let mut rest = bytes;
    while let Some(zero) = memchr::memchr(0, rest) {
        key.extend_from_slice(&rest[..zero]);
        key.extend_from_slice(&[0, 255]);
        rest = &rest[zero + 1..];
    }
    key.extend_from_slice(rest);
    key.extend_from_slice(&[0, 0]);
}

/// The network, then the narrower network later, then the host.
fn write_inet(inet: &Inet, key: &mut Vec<u8>) {
    match inet.address {
        IpAddr::V4(address) => {
            let host = u32::from(address);
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(inet.bits.into())).unwrap_or(0);
            key.push(4);
            key.extend_from_slice(&(host & mask).to_be_bytes());
            key.push(inet.bits);
            key.extend_from_slice(&host.to_be_bytes());
        }
        IpAddr::V6(address) => {
            let host = u128::from(address);
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(inet.bits.into())).unwrap_or(0);
            key.push(6);
            key.extend_from_slice(&(host & mask).to_be_bytes());
            key.push(inet.bits);
            key.extend_from_slice(&host.to_be_bytes());
        }
    }
}

/// Bit strings compare as their digits do.
fn write_bits(binary: bool, cell: &[u8], key: &mut Vec<u8>) -> Result<(), Error> {
    if !binary {
        write_escaped(cell, key);
        return Ok(());
    }
    let (length, bytes) = cell.split_first_chunk().ok_or_else(malformed)?;
    let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| malformed())?;
    let bit = |index: usize| bytes.get(index / 8).map(|byte| b'0' + (byte >> (7 - index % 8) & 1));
    let digits: Option<Vec<u8>> = (0..length).map(bit).collect();
    write_escaped(&digits.ok_or_else(malformed)?, key);
    Ok(())
}

/// `"char"`: nothing for zero, one byte, or `\ooo`.
fn char_value(cell: &[u8]) -> Option<i64> {
    match cell {
        [] => Some(0),
        [byte] => Some(i64::from(*byte)),
        [b'\\', octal @ ..] => i64::from_str_radix(text(octal)?, 8).ok(),
        _ => None,
    }
}

/// Both output formats of bytea.
fn bytea(cell: &[u8]) -> Option<Vec<u8>> {
    if let Some(hex) = cell.strip_prefix(b"\\x") {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        return hex.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect();
    }
    let mut bytes = Vec::with_capacity(cell.len());
    let mut rest = cell;
    while let [byte, after @ ..] = rest {
        let (value, after) = match (byte, after) {
            (b'\\', [b'\\', after @ ..]) => (b'\\', after),
            (b'\\', octal) => (u8::from_str_radix(text(octal.get(..3)?)?, 8).ok()?, &octal[3..]),
            _ => (*byte, after),
        };
        bytes.push(value);
        rest = after;
    }
    Some(bytes)
}
