//! One output column of one group, from partial values to the final one.

use super::Final;
use super::columns::Columns;
use super::datetime::Interval;
use super::key::{self, Typed};
use super::kind::Kind;
use super::numeric::Numeric;
use super::row::Cells;
use crate::error::{Error, SqlState};

/// How one output is computed, checked against the types of its columns.
#[derive(Debug)]
pub(super) struct Output {
    made: Final,
    /// The input column that gives type and format of the result.
    result: Typed,
    /// Of `sum` for an average, otherwise as `result`.
    operand: Typed,
    /// Of `count` for an average.
    count: Typed,
}

/// What is known of one output of one group. `None`: NULL so far.
#[derive(Debug)]
pub(super) enum State {
    Group(Option<Box<[u8]>>),
    Count(i64),
    Sum(Option<Sum>),
    /// The key and the value.
    Extreme(Option<(Vec<u8>, Box<[u8]>)>),
    Average(Option<Sum>, i64),
    Bool(Option<bool>),
}

#[derive(Clone, Debug)]
pub(super) enum Sum {
    Integer(i64),
    Numeric(Numeric),
    Float4(f32),
    Float8(f64),
    Interval(Interval),
}

impl Output {
    pub(super) fn new(made: &Final, columns: &Columns, bytewise: &[usize]) -> Result<Self, Error> {
        let column = columns.get(made.column())?;
        let result = Typed::new(column);
        let (mut operand, mut count) = (result, result);
        let refuse = |aggregate: &str, hint: &str| {
            let what = format!("{aggregate} giving {} of {}", column.quoted(), column.type_name());
            Err(Error::unsupported(what, hint))
        };
        let cast = "cast the argument to another type, or read one shard";
        match *made {
            Final::Sum(_) if !is_summable(result.kind) => return refuse("sum", cast),
            Final::Min(index) | Final::Max(index) => {
                if result.kind.is_collated() && !bytewise.contains(&index) {
                    return refuse("min or max by a collation,", "compare by bytes: min(… COLLATE \"C\")");
                }
                if !result.kind.has_order() {
                    return refuse("min or max", cast);
                }
            }
            Final::Avg { sum, count: counted, .. } => {
                operand = Typed::new(columns.get(sum)?);
                count = Typed::new(columns.get(counted)?);
                if !is_average(result.kind, operand.kind) {
                    return refuse("avg", "cast the argument to numeric or double precision");
                }
            }
            _ => {}
        }
        Ok(Self { made: made.clone(), result, operand, count })
    }

    /// Before any row of the group.
    pub(super) fn start(&self) -> State {
        match self.made {
            Final::Group(_) => State::Group(None),
            Final::Count(_) => State::Count(0),
            Final::Sum(_) => State::Sum(None),
            Final::Min(_) | Final::Max(_) => State::Extreme(None),
            Final::Avg { .. } => State::Average(None, 0),
            Final::BoolAnd(_) | Final::BoolOr(_) => State::Bool(None),
        }
    }

    /// The value of a group column, from the group's first row.
    pub(super) fn first(&self, state: &mut State, row: &[u8], cells: &Cells) {
        if let (State::Group(value), Final::Group(column)) = (state, &self.made) {
            *value = cells.get(row, *column).map(Into::into);
        }
    }

    /// Takes a row of the group into account.
    pub(super) fn add(&self, state: &mut State, row: &[u8], cells: &Cells) -> Result<(), Error> {
        if let (State::Average(sum, counted), Final::Avg { sum: column, count, .. }) = (&mut *state, &self.made) {
            let Some(count) = cells.get(row, *count) else { return Ok(()) };
            *counted = counted.checked_add(self.count.int(count)?).ok_or_else(bigint_range)?;
            return cells.get(row, *column).map_or(Ok(()), |cell| add_to(sum, self.part(cell)?));
        }
        let Some(cell) = cells.get(row, self.made.column()) else { return Ok(()) };
        match state {
            State::Group(_) | State::Average(..) => {}
            State::Count(count) => *count = count.checked_add(self.result.int(cell)?).ok_or_else(bigint_range)?,
            State::Sum(sum) => add_to(sum, self.part(cell)?)?,
            State::Extreme(best) => self.challenge(best, cell)?,
            State::Bool(value) => {
                let cell = self.result.int(cell)? != 0;
                *value = Some(match self.made {
                    Final::BoolAnd(_) => value.unwrap_or(true) && cell,
                    _ => value.unwrap_or(false) || cell,
                });
            }
        }
        Ok(())
    }

    /// Appends the final value; `false`: it is NULL.
    pub(super) fn finish(&self, state: &State, out: &mut Vec<u8>) -> Result<bool, Error> {
        let binary = self.result.binary;
        match state {
            State::Group(Some(cell)) | State::Extreme(Some((_, cell))) => out.extend_from_slice(cell),
            State::Count(count) => Sum::Integer(*count).write(binary, out),
            State::Sum(Some(sum)) => sum.write(binary, out),
            State::Average(Some(sum), count) if *count > 0 => sum.clone().average(*count).write(binary, out),
            State::Bool(Some(value)) if binary => out.push(u8::from(*value)),
            State::Bool(Some(value)) => out.push(if *value { b't' } else { b'f' }),
            State::Group(None) | State::Sum(None) | State::Extreme(None) | State::Average(..) | State::Bool(None) => {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn part(&self, cell: &[u8]) -> Result<Sum, Error> {
        let Typed { kind, binary } = self.operand;
        let is_average = matches!(self.made, Final::Avg { .. });
        Ok(match kind {
            Kind::Int8 if is_average => Sum::Numeric(Numeric::integer(self.operand.int(cell)?)),
            Kind::Int8 => Sum::Integer(self.operand.int(cell)?),
            Kind::Float4 => Sum::Float4(self.operand.float(cell)? as f32),
            Kind::Float8 => Sum::Float8(self.operand.float(cell)?),
            Kind::Interval => Sum::Interval(self.operand.interval(cell)?),
            _ => Sum::Numeric(Numeric::parse(binary, cell).ok_or_else(key::malformed)?),
        })
    }

    /// Keeps the smaller or the greater; of equal ones the first.
    fn challenge(&self, best: &mut Option<(Vec<u8>, Box<[u8]>)>, cell: &[u8]) -> Result<(), Error> {
        let mut key = Vec::new();
        self.operand.write(cell, &mut key)?;
        let is_better = match (&*best, &self.made) {
            (None, _) => true,
            (Some((best, _)), Final::Min(_)) => key < *best,
            (Some((best, _)), _) => key > *best,
        };
        if is_better {
            *best = Some((key, cell.into()));
        }
        Ok(())
    }
}

impl State {
    /// Roughly what it holds outside of itself.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::Group(Some(cell)) => cell.len(),
            Self::Extreme(Some((key, cell))) => key.len() + cell.len(),
            Self::Sum(Some(Sum::Numeric(_))) | Self::Average(Some(Sum::Numeric(_)), _) => NUMERIC_BYTES,
            _ => 0,
        }
    }
}

impl Sum {
    fn plus(self, other: Self) -> Result<Self, Error> {
        Ok(match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => Self::Integer(a.checked_add(b).ok_or_else(bigint_range)?),
            (Self::Numeric(a), Self::Numeric(b)) => Self::Numeric(a.plus(b)),
            (Self::Float4(a), Self::Float4(b)) => {
                let sum = a + b;
                if sum.is_infinite() && a.is_finite() && b.is_finite() {
                    return Err(float_range());
                }
                Self::Float4(sum)
            }
            (Self::Float8(a), Self::Float8(b)) => {
                let sum = a + b;
                if sum.is_infinite() && a.is_finite() && b.is_finite() {
                    return Err(float_range());
                }
                Self::Float8(sum)
            }
            (Self::Interval(a), Self::Interval(b)) => Self::Interval(add_intervals(a, b)?),
            _ => return Err(Error::new(SqlState::INTERNAL, "partial sums of different types")),
        })
    }

    fn average(self, count: i64) -> Self {
        match self {
            Self::Numeric(sum) => Self::Numeric(sum.divided_by(count)),
            Self::Float8(sum) => Self::Float8(sum / count as f64),
            other => other,
        }
    }

    fn write(&self, binary: bool, out: &mut Vec<u8>) {
        match self {
            Self::Integer(value) if binary => out.extend_from_slice(&value.to_be_bytes()),
            Self::Integer(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Self::Numeric(value) => value.write(binary, out),
            Self::Float4(value) if binary => out.extend_from_slice(&value.to_be_bytes()),
            Self::Float4(value) => write_float(&format!("{value:e}"), 6, out),
            Self::Float8(value) if binary => out.extend_from_slice(&value.to_be_bytes()),
            Self::Float8(value) => write_float(&format!("{value:e}"), 15, out),
            Self::Interval(value) => value.write(binary, out),
        }
    }
}

fn is_summable(kind: Kind) -> bool {
    matches!(kind, Kind::Int8 | Kind::Numeric | Kind::Float4 | Kind::Float8 | Kind::Interval)
}

/// `avg(real)` adds in double precision, so partial sums in `real` would not do.
fn is_average(result: Kind, sum: Kind) -> bool {
    matches!((result, sum), (Kind::Numeric, Kind::Int8 | Kind::Numeric) | (Kind::Float8, Kind::Float8))
}

fn add_to(sum: &mut Option<Sum>, part: Sum) -> Result<(), Error> {
    *sum = Some(match sum.take() {
        Some(sum) => sum.plus(part)?,
        None => part,
    });
    Ok(())
}

fn add_intervals(a: Interval, b: Interval) -> Result<Interval, Error> {
    let out_of_range = || Error::new(SqlState("22008"), "interval out of range");
    match (a.is_infinite(), b.is_infinite()) {
        (true, true) if a != b => Err(out_of_range()),
        (true, _) => Ok(a),
        (_, true) => Ok(b),
        _ => a.plus(b).ok_or_else(out_of_range),
    }
}

/// The shortest digits that read back as the same number, laid out as PostgreSQL does: plain up to `digits` digits,
/// with an exponent of at least two digits beyond.
fn write_float(scientific: &str, digits: i32, out: &mut Vec<u8>) {
    let text = match scientific {
        "inf" => "Infinity".to_owned(),
        "-inf" => "-Infinity".to_owned(),
        "NaN" => "NaN".to_owned(),
        number => plain_or_scientific(number, digits),
    };
    out.extend_from_slice(text.as_bytes());
}

fn plain_or_scientific(number: &str, digits: i32) -> String {
    let (mantissa, exponent) = number.split_once('e').expect("LowerExp writes an exponent");
    let exponent: i32 = exponent.parse().expect("LowerExp writes a decimal exponent");
    if !(-4..digits).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |mantissa| ("-", mantissa));
    let all = mantissa.replace('.', "");
    if exponent < 0 {
        let zeros = "0".repeat(exponent.unsigned_abs() as usize - 1);
        return format!("{sign}0.{zeros}{all}");
    }
    let whole = exponent.unsigned_abs() as usize + 1;
    if all.len() <= whole {
        return format!("{sign}{all:0<whole$}");
    }
    format!("{sign}{}.{}", &all[..whole], &all[whole..])
}

fn bigint_range() -> Error {
    Error::new(SqlState("22003"), "bigint out of range")
}

fn float_range() -> Error {
    Error::new(SqlState("22003"), "value out of range: overflow")
}

/// A usual sum of numerics on the heap.
const NUMERIC_BYTES: usize = 32;
