//! Dates and times as PostgreSQL writes them with `datestyle = ISO` and `intervalstyle = postgres`. `None`: other text.

/// An interval, its parts not normalised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Interval {
    months: i32,
    days: i32,
    micros: i64,
}

impl Interval {
    pub(super) fn from_binary(cell: &[u8]) -> Option<Self> {
        let (micros, rest) = cell.split_first_chunk()?;
        let (days, rest) = rest.split_first_chunk()?;
        let months = i32::from_be_bytes(rest.try_into().ok()?);
        Some(Self { months, days: i32::from_be_bytes(*days), micros: i64::from_be_bytes(*micros) })
    }

    /// `1 year 2 mons -3 days +04:05:06.789`
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "infinity" => return Some(Self { months: i32::MAX, days: i32::MAX, micros: i64::MAX }),
            "-infinity" => return Some(Self { months: i32::MIN, days: i32::MIN, micros: i64::MIN }),
            _ => {}
        }
        let mut interval = Self::default();
        let mut words = text.split(' ').peekable();
        words.peek().filter(|word| !word.is_empty())?;
        while let Some(word) = words.next() {
            if word.contains(':') {
                let negative = word.starts_with('-');
                let micros = clock(word.trim_start_matches(['-', '+']))?;
                interval.micros = if negative { micros.checked_neg()? } else { micros };
                return words.next().is_none().then_some(interval);
            }
            let number: i32 = word.parse().ok()?;
            match words.next()? {
                "year" | "years" => interval.months = interval.months.checked_add(number.checked_mul(12)?)?,
                "mon" | "mons" => interval.months = interval.months.checked_add(number)?,
                "day" | "days" => interval.days = number,
                _ => return None,
            }
        }
        Some(interval)
    }

    /// What PostgreSQL compares: months of 30 days, days of 24 hours, in microseconds.
    pub(super) fn span(self) -> i128 {
        let days = i128::from(self.months) * 30 + i128::from(self.days);
        days * i128::from(DAY) + i128::from(self.micros)
    }

    /// `None`: out of range.
    pub(super) fn plus(self, other: Self) -> Option<Self> {
        Some(Self {
            months: self.months.checked_add(other.months)?,
            days: self.days.checked_add(other.days)?,
            micros: self.micros.checked_add(other.micros)?,
        })
    }

    pub(super) fn is_infinite(self) -> bool {
        let Self { months, days, micros } = self;
        (months, days, micros) == (i32::MAX, i32::MAX, i64::MAX)
            || (months, days, micros) == (i32::MIN, i32::MIN, i64::MIN)
    }

    pub(super) fn write(self, binary: bool, out: &mut Vec<u8>) {
        if binary {
            out.extend_from_slice(&self.micros.to_be_bytes());
            out.extend_from_slice(&self.days.to_be_bytes());
            out.extend_from_slice(&self.months.to_be_bytes());
        } else {
            out.extend_from_slice(self.text().as_bytes());
        }
    }

    fn text(self) -> String {
        let mut words: Vec<String> = Vec::new();
        let mut after_negative = false;
        for (value, unit) in [(self.months / 12, "year"), (self.months % 12, "mon"), (self.days, "day")] {
            if value != 0 {
                let plus = if after_negative && value > 0 { "+" } else { "" };
                let plural = if value == 1 { "" } else { "s" };
                words.push(format!("{plus}{value} {unit}{plural}"));
                after_negative = value < 0;
            }
        }
        if self.micros != 0 || words.is_empty() {
            let sign = match self.micros {
                ..0 => "-",
                _ if after_negative => "+",
                _ => "",
            };
            let (seconds, micros) = (self.micros.unsigned_abs() / 1_000_000, self.micros.unsigned_abs() % 1_000_000);
            let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            let fraction = if micros == 0 { String::new() } else { format!(".{micros:06}") };
            let fraction = fraction.trim_end_matches('0');
            words.push(format!("{sign}{hours:02}:{minutes:02}:{seconds:02}{fraction}"));
        }
        words.join(" ")
    }
}

/// Days since 1970-01-01.
pub(super) fn date(text: &str) -> Option<i64> {
    if let Some(end) = infinite(text) {
        return Some(end);
    }
    let (text, before_christ) = era(text);
    day(text, before_christ)
}

/// Microseconds since midnight.
pub(super) fn time(text: &str) -> Option<i64> {
    (text.as_bytes().get(2) == Some(&b':')).then_some(())?;
    clock(text)
}

/// The same, and seconds west of Greenwich.
pub(super) fn timetz(text: &str) -> Option<(i64, i32)> {
    let (text, seconds_east) = zone(text)?;
    Some((time(text)?, -i32::try_from(seconds_east).ok()?))
}

/// Microseconds since 1970-01-01 00:00:00.
pub(super) fn timestamp(text: &str) -> Option<i64> {
    if let Some(end) = infinite(text) {
        return Some(end);
    }
    let (text, before_christ) = era(text);
    let (date, time_of_day) = text.split_once(' ')?;
    day(date, before_christ)?.checked_mul(DAY)?.checked_add(time(time_of_day)?)
}

/// The same in UTC.
pub(super) fn timestamptz(text: &str) -> Option<i64> {
    if let Some(end) = infinite(text) {
        return Some(end);
    }
    let (text, before_christ) = era(text);
    let (date, time_of_day) = text.split_once(' ')?;
    let (time_of_day, seconds_east) = zone(time_of_day)?;
    let local = day(date, before_christ)?.checked_mul(DAY)?.checked_add(time(time_of_day)?)?;
    local.checked_sub(seconds_east * 1_000_000)
}

fn infinite(text: &str) -> Option<i64> {
    match text {
        "infinity" => Some(i64::MAX),
        "-infinity" => Some(i64::MIN),
        _ => None,
    }
}

fn era(text: &str) -> (&str, bool) {
    text.strip_suffix(" BC").map_or((text, false), |text| (text, true))
}

/// `2024-02-29`: four or more digits first, so that no other style passes.
fn day(text: &str, before_christ: bool) -> Option<i64> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let is_iso = year.len() >= 4 && month.len() == 2 && day.len() == 2 && parts.next().is_none();
    let (year, month, day) = (digits(year)?, digits(month)?, digits(day)?);
    let year = if before_christ { 1 - year } else { year };
    (is_iso && (1..=12).contains(&month)).then(|| days_from_civil(year, month, day))
}

/// Of the proleptic Gregorian calendar, counted in years that start in March.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (century, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    century * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// `04:05:06.789`, of any number of hours.
fn clock(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let micros = format!("{fraction:0<6}");
    if parts.next().is_some() || micros.len() != 6 {
        return None;
    }
    let seconds = digits(hours)?.checked_mul(3600)? + digits(minutes)? * 60 + digits(seconds)?;
    seconds.checked_mul(1_000_000)?.checked_add(digits(&micros)?)
}

/// Splits off `+05`, `-03:30` or `+00:19:32`, in seconds.
fn zone(text: &str) -> Option<(&str, i64)> {
    let at = text.rfind(['+', '-'])?;
    let mut parts = text[at + 1..].split(':');
    let mut seconds = digits(parts.next()?)? * 3600;
    for unit in [60, 1] {
        seconds += parts.next().map_or(Some(0), digits)? * unit;
    }
    let east = if text.as_bytes()[at] == b'-' { -seconds } else { seconds };
    parts.next().is_none().then_some((&text[..at], east))
}

fn digits(text: &str) -> Option<i64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Microseconds.
const DAY: i64 = 86_400_000_000;
