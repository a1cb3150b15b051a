//! Values of a shard key.

use std::fmt;

/// A shard key's type as configured (`data_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    Bigint,
    Integer,
    Uuid,
    Text,
    Date,
    Timestamptz,
}

impl KeyType {
    /// Its name in SQL.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Bigint => "bigint",
            Self::Integer => "integer",
            Self::Uuid => "uuid",
            Self::Text => "text",
            Self::Date => "date",
            Self::Timestamptz => "timestamptz",
        }
    }
}

/// One value of a shard key, comparable with others of the same type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// `bigint` and `integer`.
    Int(i64),
    Uuid(u128),
    /// Compared by bytes.
    Text(String),
    /// Days since 2000-01-01.
    Date(i32),
    /// Microseconds since 2000-01-01 00:00 UTC.
    Timestamptz(i64),
}

impl Key {
    /// Reads a text as PostgreSQL's input function of the type would. `None`: it would refuse, or what it makes of the
    /// text is not certain.
    pub fn from_text(key_type: KeyType, text: &str) -> Option<Self> {
        let trimmed = text.trim_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
        match key_type {
            KeyType::Bigint => trimmed.parse().ok().map(Self::Int),
            KeyType::Integer => trimmed.parse::<i32>().ok().map(|value| Self::Int(value.into())),
            KeyType::Uuid => uuid(trimmed).map(Self::Uuid),
            KeyType::Text => Some(Self::Text(text.to_owned())),
            KeyType::Date => date(trimmed).map(Self::Date),
            KeyType::Timestamptz => timestamptz(trimmed).map(Self::Timestamptz),
        }
    }

    /// Reads a binary parameter; `type_oid` 0: the server takes it as the key's own type.
    pub fn from_binary(key_type: KeyType, type_oid: u32, bytes: &[u8]) -> Option<Self> {
        match key_type {
            KeyType::Bigint | KeyType::Integer => match (type_oid, bytes.len()) {
                (0 | INT2, 2) => Some(Self::Int(i16::from_be_bytes(bytes.try_into().ok()?).into())),
                (0 | INT4, 4) => Some(Self::Int(i32::from_be_bytes(bytes.try_into().ok()?).into())),
                (0 | INT8, 8) => Some(Self::Int(i64::from_be_bytes(bytes.try_into().ok()?))),
                (TEXT | VARCHAR, _) => Self::from_text(key_type, std::str::from_utf8(bytes).ok()?),
                _ => None,
            },
            KeyType::Uuid if matches!(type_oid, 0 | UUID) => {
                Some(Self::Uuid(u128::from_be_bytes(bytes.try_into().ok()?)))
            }
            KeyType::Text if matches!(type_oid, 0 | TEXT | VARCHAR) => {
                Some(Self::Text(std::str::from_utf8(bytes).ok()?.to_owned()))
            }
            KeyType::Date if matches!(type_oid, 0 | DATE) => {
                Some(Self::Date(i32::from_be_bytes(bytes.try_into().ok()?)))
            }
            KeyType::Timestamptz if matches!(type_oid, 0 | TIMESTAMPTZ) => {
                Some(Self::Timestamptz(i64::from_be_bytes(bytes.try_into().ok()?)))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(value) => write!(f, "{value}"),
            Self::Uuid(value) => write!(f, "{value:032x}"),
            Self::Text(value) => write!(f, "'{value}'"),
            Self::Date(days) => write!(f, "2000-01-01 + {days} days"),
            Self::Timestamptz(micros) => write!(f, "2000-01-01 + {micros} µs"),
        }
    }
}

/// Hyphens after any group of four digits, braces around, either case (PostgreSQL documentation, 8.12).
fn uuid(text: &str) -> Option<u128> {
    let inner = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?,
        None => text,
    };
    let mut digits = String::with_capacity(32);
    for letter in inner.chars() {
        match letter {
            '-' if digits.len().is_multiple_of(4) && !digits.is_empty() => {}
            letter if letter.is_ascii_hexdigit() => digits.push(letter),
            _ => return None,
        }
    }
    if digits.len() == 32 { u128::from_str_radix(&digits, 16).ok() } else { None }
}

/// `YYYY-MM-DD`: the one form that means the same under every DateStyle.
fn date(text: &str) -> Option<i32> {
    let mut parts = text.splitn(3, '-');
    let mut number = |width: usize| {
        let part = parts.next()?;
        (part.len() == width && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse::<i64>().ok())?
    };
    let (year, month, day) = (number(4)?, number(2)?, number(2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if year == 0 || day == 0 || day > days {
        return None;
    }
    // Days of the civil calendar, years beginning in March (H. Hinnant, chrono-compatible low-level date algorithms).
    let (shifted, of_year) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * of_year + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    i32::try_from(era * 146_097 + day_of_era - 730_425).ok()
}

/// `YYYY-MM-DD hh:mm:ss[.ffffff]` with `Z` or an offset: without one it would depend on the session's zone.
fn timestamptz(text: &str) -> Option<i64> {
    let (day, rest) = text.split_at_checked(10)?;
    let rest = rest.strip_prefix([' ', 'T'])?;
    let zone = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at(zone);
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let mut parts = zone[1..].splitn(2, ':').map(|part| part.parse::<i64>().ok().filter(|_| part.len() == 2));
            let (hours, minutes) = (parts.next()??, parts.next().unwrap_or(Some(0))?);
            sign * (hours * 60 + minutes)
        }
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.split(':').map(|part| part.parse::<i64>().ok().filter(|_| part.len() == 2));
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || hours > 23 || minutes > 59 || seconds > 59 || fraction.len() > 6 {
        return None;
    }
    let micros = match fraction {
        "" => 0,
        digits => format!("{digits:0<6}").parse::<i64>().ok()?,
    };
    let minutes = i64::from(date(day)?) * 1440 + hours * 60 + minutes - offset;
    Some((minutes * 60 + seconds) * 1_000_000 + micros)
}

const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const VARCHAR: u32 = 1043;
const DATE: u32 = 1082;
const TIMESTAMPTZ: u32 = 1184;
const UUID: u32 = 2950;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key_type: KeyType, text: &str, expected: Option<Key>) {
        assert_eq!(Key::from_text(key_type, text), expected, "{text}");
    }

    #[test]
    fn keys_are_read_as_postgresql_reads_them() {
        check(KeyType::Bigint, " 42 ", Some(Key::Int(42)));
        check(KeyType::Bigint, "+7", Some(Key::Int(7)));
        check(KeyType::Bigint, "9223372036854775808", None);
        check(KeyType::Bigint, "4 2", None);
        check(KeyType::Integer, "3000000000", None);
        let uuid = Some(Key::Uuid(0xa0ee_bc99_9c0b_4ef8_bb6d_6bb9_bd38_0a11));
        check(KeyType::Uuid, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", uuid.clone());
        check(KeyType::Uuid, "{A0EEBC999C0B4EF8BB6D6BB9BD380A11}", uuid);
        check(KeyType::Uuid, "a0-eebc999c0b4ef8bb6d6bb9bd380a11", None);
        check(KeyType::Date, "2000-01-01", Some(Key::Date(0)));
        check(KeyType::Date, "1999-12-31", Some(Key::Date(-1)));
        check(KeyType::Date, "2024-02-29", Some(Key::Date(8825)));
        check(KeyType::Date, "2023-02-29", None);
        check(KeyType::Date, "01/02/2003", None);
        check(KeyType::Timestamptz, "2000-01-01 01:00:00+01", Some(Key::Timestamptz(0)));
        check(KeyType::Timestamptz, "2000-01-01T00:00:00.5Z", Some(Key::Timestamptz(500_000)));
        check(KeyType::Timestamptz, "2000-01-01 00:00:00", None);
    }

    #[test]
    fn binary_keys_are_read_by_type() {
        assert_eq!(Key::from_binary(KeyType::Bigint, 23, &[0, 0, 0, 7]), Some(Key::Int(7)));
        assert_eq!(Key::from_binary(KeyType::Bigint, 0, &[255; 8]), Some(Key::Int(-1)));
        assert_eq!(Key::from_binary(KeyType::Bigint, 701, &[0; 8]), None);
        assert_eq!(Key::from_binary(KeyType::Uuid, 2950, &[0; 16]), Some(Key::Uuid(0)));
        assert_eq!(Key::from_binary(KeyType::Uuid, 0, &[0; 15]), None);
    }
}
