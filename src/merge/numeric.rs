//! PostgreSQL's numeric, exact: read, add, divide, write, in text and binary (digits of base 10,000).

use num_bigint::{BigInt, BigUint, Sign};

/// A numeric as it was sent, its digits not yet a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decimal {
    NaN,
    Infinity,
    NegativeInfinity,
    Finite(Digits),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Digits {
    negative: bool,
    /// ASCII, leading zeros allowed.
    digits: Vec<u8>,
    /// How many digits stand after the point.
    scale: usize,
}

/// A numeric to count with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Numeric {
    NaN,
    Infinity,
    NegativeInfinity,
    /// `unscaled / 10^scale`.
    Finite {
        unscaled: BigInt,
        scale: usize,
    },
}

impl Decimal {
    pub(super) fn parse(binary: bool, cell: &[u8]) -> Option<Self> {
        if binary { Self::from_binary(cell) } else { Self::from_text(cell) }
    }

    fn from_text(cell: &[u8]) -> Option<Self> {
        match cell {
            b"NaN" => return Some(Self::NaN),
            b"Infinity" => return Some(Self::Infinity),
            b"-Infinity" => return Some(Self::NegativeInfinity),
            _ => {}
        }
        let (negative, number) = cell.strip_prefix(b"-").map_or((false, cell), |number| (true, number));
        let point = memchr::memchr(b'.', number);
        let (whole, fraction) = point.map_or((number, &[][..]), |point| (&number[..point], &number[point + 1..]));
        let digits = [whole, fraction].concat();
        let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        is_number.then_some(Self::Finite(Digits { negative, scale: fraction.len(), digits }))
    }

    fn from_binary(cell: &[u8]) -> Option<Self> {
        let word = |index: usize| Some(u16::from_be_bytes(cell.get(2 * index..2 * index + 2)?.try_into().ok()?));
        let (count, weight, sign, scale) = (usize::from(word(0)?), word(1)?.cast_signed(), word(2)?, word(3)?);
        let negative = match sign {
            NAN => return Some(Self::NaN),
            INFINITY => return Some(Self::Infinity),
            NEGATIVE_INFINITY => return Some(Self::NegativeInfinity),
            sign => sign == NEGATIVE,
        };
        let (weight, scale) = (i32::from(weight), usize::from(scale));
        // Group 0 is the units; groups before the first digit and after the last are zero.
        let last = -i32::try_from(scale.div_ceil(4)).ok()?;
        let mut digits = Vec::new();
        for position in (last..=weight.max(0)).rev() {
            let index = usize::try_from(weight - position).ok().filter(|&index| index < count);
            let group = index.map_or(Some(0), |index| word(4 + index))?;
            digits.extend_from_slice(&decimal_group(group));
        }
        digits.truncate(digits.len() - (scale.next_multiple_of(4) - scale));
        Some(Self::Finite(Digits { negative, digits, scale }))
    }

    /// Class, then weight of the first digit, then digits; a negative number has the latter inverted.
    pub(super) fn write_key(&self, key: &mut Vec<u8>) {
        let number = match self {
            Self::NegativeInfinity => return key.push(0),
            Self::Infinity => return key.push(4),
            Self::NaN => return key.push(5),
            Self::Finite(number) => number,
        };
        let Some(first) = number.digits.iter().position(|&digit| digit != b'0') else {
            return key.push(2);
        };
        let last = number.digits.iter().rposition(|&digit| digit != b'0').expect("there is a first");
        key.push(if number.negative { 1 } else { 3 });
        let start = key.len();
        let whole = number.digits.len() as i64 - first as i64 - number.scale as i64;
        key.extend_from_slice(&(whole ^ i64::MIN).to_be_bytes());
        key.extend_from_slice(&number.digits[first..=last]);
        key.push(0);
        if number.negative {
            key[start..].iter_mut().for_each(|byte| *byte = !*byte);
        }
    }
}

impl Numeric {
    pub(super) fn parse(binary: bool, cell: &[u8]) -> Option<Self> {
        Some(match Decimal::parse(binary, cell)? {
            Decimal::NaN => Self::NaN,
            Decimal::Infinity => Self::Infinity,
            Decimal::NegativeInfinity => Self::NegativeInfinity,
            Decimal::Finite(Digits { negative, digits, scale }) => {
                let sign = if negative { Sign::Minus } else { Sign::Plus };
                Self::Finite { unscaled: BigInt::from_biguint(sign, BigUint::parse_bytes(&digits, 10)?), scale }
            }
        })
    }

    pub(super) fn integer(value: i64) -> Self {
        Self::Finite { unscaled: value.into(), scale: 0 }
    }

    /// As `sum(numeric)`: the larger scale stays.
    #[must_use]
    pub(super) fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Finite { unscaled, scale }, Self::Finite { unscaled: more, scale: other_scale }) => {
                let wider = scale.max(other_scale);
                let unscaled = unscaled * power(wider - scale) + more * power(wider - other_scale);
                Self::Finite { unscaled, scale: wider }
            }
            (Self::NaN, _)
            | (_, Self::NaN)
            | (Self::Infinity, Self::NegativeInfinity)
            | (Self::NegativeInfinity, Self::Infinity) => Self::NaN,
            (Self::Infinity, _) | (_, Self::Infinity) => Self::Infinity,
            (Self::NegativeInfinity, _) | (_, Self::NegativeInfinity) => Self::NegativeInfinity,
        }
    }

    /// As PostgreSQL divides by a count: at least 16 significant digits, half away from zero.
    #[must_use]
    pub(super) fn divided_by(self, count: i64) -> Self {
        let Self::Finite { unscaled, scale } = self else {
            return self;
        };
        let result = division_scale(&unscaled, scale, count);
        let (sign, magnitude) = unscaled.into_parts();
        let mut dividend = magnitude * power(result.saturating_sub(scale)).into_parts().1;
        let divisor = BigUint::from(count.unsigned_abs()) * power(scale.saturating_sub(result)).into_parts().1;
        dividend = dividend * 2_u32 + &divisor;
        let quotient = dividend / (divisor * 2_u32);
        Self::Finite { unscaled: BigInt::from_biguint(sign, quotient), scale: result }
    }

    pub(super) fn write(&self, binary: bool, out: &mut Vec<u8>) {
        match (self, binary) {
            (Self::NaN, false) => out.extend_from_slice(b"NaN"),
            (Self::Infinity, false) => out.extend_from_slice(b"Infinity"),
            (Self::NegativeInfinity, false) => out.extend_from_slice(b"-Infinity"),
            (Self::NaN, true) => write_words(&[0, 0, NAN, 0], out),
            (Self::Infinity, true) => write_words(&[0, 0, INFINITY, INFINITE_SCALE], out),
            (Self::NegativeInfinity, true) => write_words(&[0, 0, NEGATIVE_INFINITY, INFINITE_SCALE], out),
            (Self::Finite { unscaled, scale }, false) => write_text(unscaled, *scale, out),
            (Self::Finite { unscaled, scale }, true) => write_binary(unscaled, *scale, out),
        }
    }
}

/// PostgreSQL's choice (`select_div_scale`): 16 significant digits or more, and no less than either operand shows.
fn division_scale(unscaled: &BigInt, scale: usize, count: i64) -> usize {
    let (weight, first) = leading_group(unscaled.magnitude().to_string().as_bytes(), scale);
    let (divisor_weight, divisor_first) = leading_group(count.unsigned_abs().to_string().as_bytes(), 0);
    let quotient_weight = weight - divisor_weight - i64::from(first <= divisor_first);
    let wanted = usize::try_from((16 - quotient_weight * 4).max(0)).expect("not negative");
    wanted.max(scale).min(1000)
}

/// The first digit of base 10,000 that is not zero, and its weight; zero has weight 0.
fn leading_group(digits: &[u8], scale: usize) -> (i64, u32) {
    if digits == b"0" {
        return (0, 0);
    }
    let exponent = digits.len() as i64 - scale as i64 - 1;
    let width = usize::try_from(exponent.rem_euclid(4)).expect("not negative") + 1;
    let digit = |index: usize| u32::from(digits.get(index).map_or(0, |digit| digit - b'0'));
    let group = (0..width).fold(0, |group, index| group * 10 + digit(index));
    (exponent.div_euclid(4), group)
}

fn power(exponent: usize) -> BigInt {
    BigInt::from(10).pow(u32::try_from(exponent).expect("a scale has at most five digits"))
}

fn decimal_group(group: u16) -> [u8; 4] {
    [group / 1000, group / 100 % 10, group / 10 % 10, group % 10].map(|digit| b'0' + digit as u8)
}

/// At least one digit before the point.
fn padded(unscaled: &BigInt, scale: usize) -> String {
    format!("{:0>width$}", unscaled.magnitude().to_string(), width = scale + 1)
}

fn write_text(unscaled: &BigInt, scale: usize, out: &mut Vec<u8>) {
    let digits = padded(unscaled, scale);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    if unscaled.sign() == Sign::Minus {
        out.push(b'-');
    }
    out.extend_from_slice(whole.as_bytes());
    if scale > 0 {
        out.push(b'.');
        out.extend_from_slice(fraction.as_bytes());
    }
}

fn write_binary(unscaled: &BigInt, scale: usize, out: &mut Vec<u8>) {
    let digits = padded(unscaled, scale);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let whole = format!("{whole:0>width$}", width = whole.len().next_multiple_of(4));
    let fraction = format!("{fraction:0<width$}", width = fraction.len().next_multiple_of(4));
    let group = |group: &[u8]| group.iter().fold(0, |value, digit| value * 10 + u16::from(digit - b'0'));
    let groups: Vec<u16> = whole.as_bytes().chunks(4).chain(fraction.as_bytes().chunks(4)).map(group).collect();
    let first = groups.iter().position(|&group| group != 0).unwrap_or(groups.len());
    let end = groups.iter().rposition(|&group| group != 0).map_or(first, |last| last + 1);
    let kept = &groups[first..end];
    let weight = if kept.is_empty() { 0 } else { (whole.len() / 4) as i64 - 1 - first as i64 };
    let sign = if unscaled.sign() == Sign::Minus { NEGATIVE } else { 0 };
    write_words(&[kept.len() as u16, (weight as i16).cast_unsigned(), sign, scale as u16], out);
    write_words(kept, out);
}

fn write_words(words: &[u16], out: &mut Vec<u8>) {
    out.extend(words.iter().flat_map(|word| word.to_be_bytes()));
}

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;
/// What servers send as the scale of an infinity.
const INFINITE_SCALE: u16 = 0x20;
