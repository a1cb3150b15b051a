//! Durations and sizes with a unit.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Visitor};
use serde::{Deserializer, Serializer};

/// `"250ms"`, `"5s"`, `"1m"`, `"1h"`, `"7d"`, or an integer in milliseconds.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let millis = deserializer.deserialize_any(Quantity { units: DURATIONS, expected: DURATION, limit: MAX_MILLIS })?;
    Ok(Duration::from_millis(millis))
}

/// The same outside of the file: in hints and SET.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let quantity = Quantity { units: DURATIONS, expected: DURATION, limit: MAX_MILLIS };
    quantity.parse(text).filter(|millis| *millis <= MAX_MILLIS).map(Duration::from_millis)
}

/// `"64MiB"`, `"1MB"`, or an integer in bytes.
pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let bytes = deserializer.deserialize_any(Quantity { units: SIZES, expected: SIZE, limit: MAX_BYTES })?;
    usize::try_from(bytes).map_err(de::Error::custom)
}

/// As [`duration`] reads it, in the largest unit that needs no fraction.
pub(super) fn written_duration<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    serializer.serialize_str(&match millis {
        0 => "0s".to_owned(),
        _ => largest(millis, &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)]),
    })
}

/// As [`size`] reads it.
pub(super) fn written_size<S: Serializer>(size: &usize, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&largest(*size as u64, &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)]))
}

fn largest(amount: u64, units: &[(&str, u64)]) -> String {
    let fits = units.iter().rev().find(|(_, factor)| amount.is_multiple_of(*factor));
    let (unit, factor) = fits.copied().unwrap_or(("", 1));
    format!("{}{unit}", amount / factor)
}

/// Reads a number of some unit as a number of the smallest one.
struct Quantity {
    units: &'static [(&'static str, u64)],
    expected: &'static str,
    limit: u64,
}

impl Quantity {
    fn parse(&self, text: &str) -> Option<u64> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let (_, factor) = self.units.iter().find(|(name, _)| *name == unit.trim())?;
        number.parse::<u64>().ok()?.checked_mul(*factor)
    }

    fn limited<E: de::Error>(&self, amount: Option<u64>, found: impl fmt::Display) -> Result<u64, E> {
        match amount {
            Some(amount) if amount <= self.limit => Ok(amount),
            Some(_) => Err(E::custom(format!("{found} is more than a limit can be"))),
            None => Err(E::custom(format!("expected {}, found {found}", self.expected))),
        }
    }
}

impl Visitor<'_> for Quantity {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_i64<E: de::Error>(self, amount: i64) -> Result<u64, E> {
        self.limited(u64::try_from(amount).ok(), amount)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        self.limited(self.parse(text), format_args!("\"{text}\""))
    }
}

const DURATION: &str = "a duration such as \"250ms\", \"5s\", \"1m\", \"1h\" or 250 (milliseconds)";
const DURATIONS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1000), ("m", 60_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
/// Ten years: no clock overflows on the way there.
const MAX_MILLIS: u64 = 3650 * 86_400_000;

const SIZE: &str = "a size such as \"64MiB\", \"1MB\" or 1024 (bytes)";
const SIZES: &[(&str, u64)] = &[
    ("B", 1),
    ("kB", 1000),
    ("KB", 1000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
];
const MAX_BYTES: u64 = 1 << 40;
