//! Numbers of types (OIDs) inside values in binary, put right as the values pass: arrays name the type of their elements,
//! records that of each column, and both may hold others (`array_send`, `record_send` of PostgreSQL).
//!
//! Values are taken for what their columns or parameters are, never for what their bytes look like. One that turns out not
//! to be that goes on as it is from there: whoever reads it says what is wrong.

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use super::bind::{BINARY, formats};
use super::frame::{take_text, take_u16, take_u32};
use super::oids::{Oids, Shape, Side};

/// Puts right what passes by, as it comes.
#[derive(Debug)]
pub struct Exchange {
    oids: Arc<Oids>,
    side: Side,
    outside: Outside,
    /// The type of each column, 0 for those that hold no numbers; so do more than these.
    columns: Box<[u32]>,
    /// What is being read, from the row to the innermost value.
    levels: Vec<Level>,
    /// Bytes that have passed.
    at: usize,
    /// So many to come hold nothing.
    skip: usize,
}

/// What comes where no row or value is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outside {
    /// The columns of a row: their count is in front.
    Row,
    /// What stands in front of the rows of COPY.
    CopyHead,
    /// A row of COPY, or its end.
    CopyRow,
    /// Nothing of interest.
    Rest,
}

#[derive(Debug)]
struct Level {
    /// Where it ends.
    end: usize,
    next: Next,
}

/// What comes next in a row or value.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// The columns from this one on, of so many.
    Columns(usize, usize),
    /// Number of dimensions, flags, type of the elements.
    ArrayHead,
    /// Number of columns.
    RecordHead,
    /// Columns: type, length, value.
    Fields,
    /// Flags of a range between values of this type.
    RangeHead(u32),
    /// Number of ranges of this type.
    MultirangeHead(u32),
    /// Values of this type, each behind its length.
    Items(u32),
}

impl Exchange {
    /// Of rows for the client that a RowDescription with this body has announced, its numbers the client's already. `None`:
    /// they hold no numbers.
    pub fn of_rows(oids: &Arc<Oids>, row_description_body: &[u8]) -> Option<Self> {
        let columns = oids.columns_with_numbers(row_description_body);
        (!columns.is_empty()).then(|| Self::new(oids, Side::Client, (Outside::Row, columns)))
    }

    /// Of the data of COPY TO in binary, with columns of these types, for the client.
    pub fn of_copy_out(oids: &Arc<Oids>, types: &[u32]) -> Option<Self> {
        Self::of_copy(oids, Side::Client, types)
    }

    /// The same of COPY FROM, for the server.
    pub fn of_copy_in(oids: &Arc<Oids>, types: &[u32]) -> Option<Self> {
        Self::of_copy(oids, Side::Server, types)
    }

    fn of_copy(oids: &Arc<Oids>, side: Side, types: &[u32]) -> Option<Self> {
        let may_hold = |&kind: &u32| if oids.shape(kind).is_some() { kind } else { 0 };
        let columns: Box<[u32]> = types.iter().map(may_hold).collect();
        let any = columns.iter().any(|kind| *kind != 0);
        any.then(|| Self::new(oids, side, (Outside::CopyHead, columns)))
    }

    fn new(oids: &Arc<Oids>, side: Side, (outside, columns): (Outside, Box<[u32]>)) -> Self {
        Self { oids: Arc::clone(oids), side, outside, columns, levels: Vec::new(), at: 0, skip: 0 }
    }

    /// What comes next is the body of a DataRow.
    pub fn begin_row(&mut self) {
        self.levels.clear();
        (self.outside, self.at, self.skip) = (Outside::Row, 0, 0);
    }

    /// Puts right what is there; says how much of it may go on. The rest, a few bytes, is to come again with more behind
    /// it.
    pub fn pass(&mut self, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        loop {
            let skipped = self.skip.min(bytes.len() - done);
            self.skip -= skipped;
            self.at += skipped;
            done += skipped;
            if self.skip > 0 {
                return done;
            }
            let Some(read) = self.step(&mut bytes[done..]) else { return done };
            self.at += read;
            done += read;
        }
    }

    /// Reads one part of what comes; gives its length. `None`: it is not all there.
    fn step(&mut self, bytes: &mut [u8]) -> Option<usize> {
        let Some(level) = self.levels.last() else { return self.step_outside(bytes) };
        let (left, next) = (level.end.saturating_sub(self.at), level.next);
        if let Next::Columns(index, count) = next {
            return self.step_column(bytes, index, count);
        }
        if left == 0 {
            self.levels.pop();
            return Some(0);
        }
        let length = match next {
            Next::RangeHead(_) => 1,
            Next::RecordHead | Next::MultirangeHead(_) | Next::Items(_) | Next::Columns(..) => 4,
            Next::Fields => 8,
            Next::ArrayHead => 12,
        };
        if length > left {
            self.give_up();
            return Some(0);
        }
        let part = bytes.get_mut(..length)?;
        match next {
            Next::Columns(..) => {}
            Next::RecordHead => self.go_on(Next::Fields),
            Next::RangeHead(bound) => self.go_on(Next::Items(bound)),
            Next::MultirangeHead(range) => self.go_on(Next::Items(range)),
            Next::ArrayHead => self.take_array_head(part, left - length),
            Next::Items(kind) => self.enter(kind, part, (left - length, length)),
            Next::Fields => {
                let (kind, rest) = part.split_first_chunk_mut()?;
                let kind = self.oids.exchange(self.side, kind);
                self.enter(kind, rest, (left - length, length));
            }
        }
        Some(length)
    }

    fn step_outside(&mut self, bytes: &[u8]) -> Option<usize> {
        match self.outside {
            Outside::Rest => {
                self.skip = usize::MAX;
                Some(0)
            }
            Outside::CopyHead => {
                let fixed = bytes.get(..COPY_HEAD_BYTES)?;
                self.outside = if fixed.starts_with(COPY_SIGNATURE) { Outside::CopyRow } else { Outside::Rest };
                self.skip = u32::from_be_bytes(*fixed.last_chunk()?) as usize;
                Some(COPY_HEAD_BYTES)
            }
            Outside::Row | Outside::CopyRow => {
                let count = take_u16(&mut &*bytes).ok()?;
                if self.outside == Outside::Row || count == COPY_END {
                    self.outside = Outside::Rest;
                }
                if count != COPY_END {
                    self.levels.push(Level { end: usize::MAX, next: Next::Columns(0, usize::from(count)) });
                }
                Some(2)
            }
        }
    }

    fn step_column(&mut self, bytes: &[u8], index: usize, count: usize) -> Option<usize> {
        // Nothing more of a row is of interest; of COPY its end is.
        let last = if self.outside == Outside::Rest { self.columns.len().min(count) } else { count };
        if index >= last {
            self.levels.pop();
            return Some(0);
        }
        let length = bytes.get(..4)?;
        let kind = self.columns.get(index).copied().unwrap_or(0);
        self.go_on(Next::Columns(index + 1, count));
        self.enter(kind, length, (usize::MAX - self.at - 4, 4));
        Some(4)
    }

    fn take_array_head(&mut self, part: &mut [u8], left: usize) {
        let Some((dimensions, rest)) =
            part.split_first_chunk::<4>().map(|(first, _)| *first).zip(part.last_chunk_mut())
        else {
            return;
        };
        let kind = self.oids.exchange(self.side, rest);
        let dimensions = usize::try_from(i32::from_be_bytes(dimensions)).ok().filter(|count| *count <= MOST_DIMENSIONS);
        // Of each its size and lower bound.
        match dimensions.map(|count| count * 8).filter(|bytes| *bytes <= left) {
            Some(bytes) if self.oids.shape(kind).is_some() => {
                self.skip = bytes;
                self.go_on(Next::Items(kind));
            }
            _ => self.leave(left),
        }
    }

    /// A value of this type comes, of the length that `length` says, or NULL; `left`: so much is left of what it is in, and
    /// `read`: so much of that before the value has been read.
    fn enter(&mut self, kind: u32, length: &[u8], (left, read): (usize, usize)) {
        let length = length.first_chunk().map_or(-1, |bytes| i32::from_be_bytes(*bytes));
        let length = match usize::try_from(length) {
            Ok(length) if length <= left => length,
            // NULL.
            Err(_) if length == -1 => return,
            _ => return self.leave(left),
        };
        match self.oids.shape(kind) {
            None => self.skip = length,
            Some(shape) => self.levels.push(Level { end: self.at + read + length, next: Next::of(shape) }),
        }
    }

    fn go_on(&mut self, next: Next) {
        self.levels.last_mut().into_iter().for_each(|level| level.next = next);
    }

    /// What is being read is of no more interest; so much is left of it.
    fn leave(&mut self, left: usize) {
        self.levels.pop();
        self.skip = left;
    }

    fn give_up(&mut self) {
        let left = self.levels.last().map_or(0, |level| level.end.saturating_sub(self.at));
        self.leave(left);
    }

    /// Puts one value right that is whole.
    fn value(&mut self, kind: u32, value: &mut [u8]) {
        self.begin_row();
        self.outside = Outside::Rest;
        if let Some(shape) = self.oids.shape(kind) {
            self.levels.push(Level { end: value.len(), next: Next::of(shape) });
            self.pass(value);
        }
    }
}

impl Next {
    fn of(shape: Shape) -> Self {
        match shape {
            Shape::Array => Self::ArrayHead,
            Shape::Record => Self::RecordHead,
            Shape::Range(bound) => Self::RangeHead(bound),
            Shape::Multirange(range) => Self::MultirangeHead(range),
        }
    }
}

/// Puts the server's numbers into the values of the Bind with this body, whose parameters are of these types, by the
/// client's numbers.
pub fn number_bind(oids: &Arc<Oids>, body: &mut [u8], types: &[u32]) {
    let mut exchange = Exchange::new(oids, Side::Server, (Outside::Rest, Box::default()));
    for (index, place) in long_values(body).unwrap_or_default() {
        exchange.value(types.get(index).copied().unwrap_or(0), &mut body[place]);
    }
}

/// Whether the Bind with this body has a value that may hold numbers, for all that these types of its parameters say.
pub fn has_unknown_values(body: &[u8], types: &[u32]) -> bool {
    let is_unknown = |index: usize| matches!(types.get(index), None | Some(&(0 | UNKNOWN)));
    long_values(body).unwrap_or_default().iter().any(|(index, _)| is_unknown(*index))
}

/// Whether some column of its answer is to be in binary.
pub fn wants_binary(body: &[u8]) -> bool {
    let asked = || {
        let rest = &mut &*body;
        values(rest)?;
        formats(rest).ok()
    };
    asked().is_none_or(|formats| formats.contains(&BINARY))
}

/// Index and place of parameters.
type LongValues = SmallVec<[(usize, Range<usize>); 4]>;

/// The parameters in binary that are long enough to hold a number.
fn long_values(body: &[u8]) -> Option<LongValues> {
    values(&mut &*body)
}

/// The same; takes off the front of a Bind's body what is before the formats of its answer.
fn values(rest: &mut &[u8]) -> Option<LongValues> {
    let whole = rest.len();
    take_text(rest).and_then(|_| take_text(rest)).ok()?;
    let formats = formats(rest).ok()?;
    let mut found = SmallVec::new();
    for index in 0..take_u16(rest).ok()? {
        let index = usize::from(index);
        let Ok(length) = usize::try_from(take_u32(rest).ok()?.cast_signed()) else { continue };
        let start = whole - rest.len();
        *rest = rest.get(length..)?;
        let format = if formats.len() == 1 { formats.first() } else { formats.get(index) };
        if format == Some(&BINARY) && length >= LEAST_BYTES {
            found.push((index, start..start + length));
        }
    }
    Some(found)
}

/// Of a parameter's type: it is to be found out.
const UNKNOWN: u32 = 705;
/// An array without elements names their type, a record of one column that column's; no shorter value does.
const LEAST_BYTES: usize = 12;
/// `MAXDIM` of PostgreSQL.
const MOST_DIMENSIONS: usize = 6;
const COPY_SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// With flags, and the length of what extends them.
const COPY_HEAD_BYTES: usize = 11 + 4 + 4;
/// In the place of a row's number of columns.
const COPY_END: u16 = u16::MAX;

#[cfg(test)]
mod tests {
    use super::super::oids::Definition;
    use super::*;

    const MOOD: u32 = 1;
    const MOODS: u32 = 2;
    const PET: u32 = 3;
    const PETS: u32 = 4;
    const NAME: u32 = 5;
    const RANGE: u32 = 6;
    const RANGES: u32 = 7;
    const INT: u32 = 23;
    const RECORD: u32 = 2249;
    const RECORDS: u32 = 2287;
    const BYTEA: u32 = 17;

    /// The server's numbers are the client's and 100 more.
    fn oids() -> Arc<Oids> {
        let types = (MOOD..=RANGES).map(|known| (known + 100, known)).collect();
        let definitions = [
            (MOODS, Definition::Array(MOOD)),
            (PET, Definition::Composite(vec![INT, MOOD, MOODS, NAME])),
            (PETS, Definition::Array(PET)),
            (NAME, Definition::Domain(25)),
            (RANGE, Definition::Range(PET)),
            (RANGES, Definition::Multirange(RANGE)),
        ];
        Arc::new(Oids::new(types, Vec::new(), &definitions, 130_000).unwrap())
    }

    /// By whose numbers a value is made.
    type As<'a> = &'a dyn Fn(u32) -> u32;
    type Make = fn(As<'_>) -> Vec<u8>;

    fn item(value: Option<Vec<u8>>) -> Vec<u8> {
        let length = value.as_ref().map_or(-1, |value| i32::try_from(value.len()).unwrap());
        [&length.to_be_bytes()[..], value.as_deref().unwrap_or_default()].concat()
    }

    fn array(of: As<'_>, kind: u32, sizes: &[i32], items: Vec<Option<Vec<u8>>>) -> Vec<u8> {
        let head = [i32::try_from(sizes.len()).unwrap().to_be_bytes(), [0, 0, 0, 1], of(kind).to_be_bytes()].concat();
        let sizes = sizes.iter().flat_map(|size| [size.to_be_bytes(), 1i32.to_be_bytes()].concat());
        head.into_iter().chain(sizes).chain(items.into_iter().flat_map(item)).collect()
    }

    fn record(of: As<'_>, columns: Vec<(u32, Option<Vec<u8>>)>) -> Vec<u8> {
        let count = u32::try_from(columns.len()).unwrap().to_be_bytes();
        let column = |(kind, value)| [of(kind).to_be_bytes().to_vec(), item(value)].concat();
        count.into_iter().chain(columns.into_iter().flat_map(column)).collect()
    }

    fn moods(of: As<'_>) -> Vec<u8> {
        array(of, MOOD, &[2, 2], vec![Some(b"happy".to_vec()), None, Some(Vec::new()), Some(b"sad".to_vec())])
    }

    fn pet(of: As<'_>) -> Vec<u8> {
        let columns = vec![
            (INT, Some(vec![0, 0, 0, 101])),
            (MOOD, None),
            (MOODS, Some(moods(of))),
            (NAME, Some(b"Rex".to_vec())),
        ];
        record(of, columns)
    }

    fn pets(of: As<'_>) -> Vec<u8> {
        array(of, PET, &[3], vec![Some(pet(of)), None, Some(pet(of))])
    }

    fn range(of: As<'_>) -> Vec<u8> {
        [vec![2], item(Some(pet(of))), item(Some(pet(of)))].concat()
    }

    /// Types, and how their values are made.
    fn kinds() -> Vec<(u32, Make)> {
        vec![
            (MOODS, moods),
            (MOODS, |of| array(of, MOOD, &[], Vec::new())),
            (PET, pet),
            (PETS, pets),
            (RANGE, range),
            (RANGE, |_| vec![1]),
            (RANGES, |of| [vec![0, 0, 0, 2], item(Some(range(of))), item(Some(vec![1]))].concat()),
            (RECORD, |of| {
                record(of, vec![(RECORD, Some(pet(of))), (PETS, Some(pets(of))), (MOOD, Some(b"sad".to_vec()))])
            }),
            (RECORD, |of| record(of, Vec::new())),
            (RECORDS, |of| array(of, RECORD, &[1], vec![Some(pet(of))])),
        ]
    }

    fn own(known: u32) -> u32 {
        if known <= RANGES { known + 100 } else { known }
    }

    fn known(known: u32) -> u32 {
        known
    }

    fn description(kinds: &[u32], format: u8) -> Vec<u8> {
        let column = |kind: &u32| {
            [&[b'c', 0][..], &[0; 6], &kind.to_be_bytes(), &[255, 255, 255, 255, 255, 255, 0, format]].concat()
        };
        [vec![0, u8::try_from(kinds.len()).unwrap()], kinds.iter().flat_map(column).collect()].concat()
    }

    /// What comes out where `step` bytes come at a time; what must wait in the end is behind it as it is.
    fn passed(exchange: &mut Exchange, bytes: &[u8], step: usize) -> Vec<u8> {
        let (mut out, mut waiting) = (Vec::new(), Vec::new());
        for chunk in bytes.chunks(step) {
            waiting.extend_from_slice(chunk);
            let passed = exchange.pass(&mut waiting);
            assert!(waiting.len() - passed < COPY_HEAD_BYTES, "only what is needed is held back");
            out.extend(waiting.drain(..passed));
        }
        out.extend(waiting);
        out
    }

    #[test]
    fn rows_have_the_clients_numbers_in_whatever_parts_they_come() {
        for (kind, make) in kinds() {
            let row = |value: Vec<u8>| {
                // Bytes that look like a value are none.
                let cells = [item(Some(moods(&own))), item(Some(value)), item(None), item(Some(pets(&own)))].concat();
                [vec![0, 4], cells].concat()
            };
            let (given, expected) = (row(make(&own)), row(make(&known)));
            let mut exchange = Exchange::of_rows(&oids(), &description(&[BYTEA, kind, kind, BYTEA], 1)).unwrap();
            for step in 1..=given.len() {
                exchange.begin_row();
                assert_eq!(passed(&mut exchange, &given, step), expected, "type {kind}, {step} bytes at a time");
            }
            for end in 0..given.len() {
                exchange.begin_row();
                let mut part = given[..end].to_vec();
                let passed = exchange.pass(&mut part);
                assert_eq!((&part[..passed], &part[passed..]), (&expected[..passed], &given[passed..end]));
            }
        }
    }

    #[test]
    fn rows_without_numbers_are_not_looked_at() {
        assert!(Exchange::of_rows(&oids(), &description(&[MOODS, PET], 0)).is_none(), "in text");
        assert!(Exchange::of_rows(&oids(), &description(&[MOOD, INT, BYTEA, NAME], 1)).is_none());
        assert!(Exchange::of_copy_out(&oids(), &[MOOD, INT]).is_none());
    }

    #[test]
    fn copy_is_one_stream() {
        let stream = |of: As<'_>| {
            let row = [vec![0, 3], item(Some(pets(of))), item(None), item(Some(moods(&own)))].concat();
            let head = [COPY_SIGNATURE, &[0, 0, 0, 0, 0, 0, 0, 2, 9, 9]].concat();
            [head, row.clone(), row, vec![255, 255]].concat()
        };
        let (given, expected) = (stream(&own), stream(&known));
        for step in 1..=given.len() {
            let mut exchange = Exchange::of_copy_out(&oids(), &[PETS, MOODS]).unwrap();
            assert_eq!(passed(&mut exchange, &given, step), expected, "{step} bytes at a time");
            let mut exchange = Exchange::of_copy_in(&oids(), &[PETS, MOODS]).unwrap();
            assert_eq!(passed(&mut exchange, &expected, step), given, "{step} bytes at a time");
        }
        let mut exchange = Exchange::of_copy_in(&oids(), &[PETS]).unwrap();
        let unsigned = [&[0; COPY_HEAD_BYTES], &stream(&known)[..]].concat();
        assert_eq!(passed(&mut exchange, &unsigned, 7), unsigned, "what is not COPY's is left alone");
    }

    fn bind(formats: &[u8], values: Vec<Option<Vec<u8>>>, results: &[u8]) -> Vec<u8> {
        let list = |formats: &[u8]| {
            let formats = formats.iter().flat_map(|format| [0, *format]);
            [0, u8::try_from(formats.clone().count() / 2).unwrap()].into_iter().chain(formats).collect::<Vec<_>>()
        };
        let count = [0, u8::try_from(values.len()).unwrap()];
        let values = values.into_iter().flat_map(item);
        [&b"portal\0\0"[..], &list(formats), &count, &values.collect::<Vec<_>>(), &list(results)].concat()
    }

    #[test]
    fn parameters_get_the_servers_numbers() {
        let values = |of: As<'_>| vec![Some(pets(of)), None, Some(moods(&known)), Some(pet(of))];
        let types = [PETS, PET, BYTEA, PET];
        for formats in [&[1][..], &[1, 1, 1, 1]] {
            let mut body = bind(formats, values(&known), &[1]);
            number_bind(&oids(), &mut body, &types);
            assert_eq!(body, bind(formats, values(&own), &[1]));
        }
        let as_text = bind(&[0, 1, 1, 0], values(&known), &[]);
        let mut body = as_text.clone();
        number_bind(&oids(), &mut body, &types);
        assert_eq!(body, as_text);
        for end in 0..as_text.len() {
            number_bind(&oids(), &mut body[..end], &types);
        }
        assert_eq!(body, as_text, "a message that breaks off stays as it is");
    }

    #[test]
    fn a_value_that_is_not_what_it_should_be_spoils_no_other() {
        for (kind, make) in kinds() {
            let (whole, expected) = (make(&known), make(&own));
            for end in 0..whole.len() {
                let mut body = bind(&[1], vec![Some(whole[..end].to_vec()), Some(pet(&known))], &[]);
                number_bind(&oids(), &mut body, &[kind, PET]);
                let read = bind(&[1], vec![Some(expected[..end].to_vec()), Some(pet(&own))], &[]);
                let differ = body.iter().zip(&read).filter(|(one, other)| one != other).count();
                assert!(differ <= end / 4, "type {kind}, {end} bytes");
                assert!(body.ends_with(&[item(Some(pet(&own))), vec![0, 0]].concat()), "type {kind}, {end} bytes");
            }
            for at in 0..whole.len() {
                for byte in [0, 0x7f, 0x80, 0xff] {
                    let mut broken = whole.clone();
                    broken[at] = byte;
                    let mut body = bind(&[1], vec![Some(broken), Some(pet(&known))], &[]);
                    number_bind(&oids(), &mut body, &[kind, PET]);
                    assert!(body.ends_with(&[item(Some(pet(&own))), vec![0, 0]].concat()), "type {kind}, byte {at}");
                }
            }
        }
    }

    #[test]
    fn a_bind_says_what_must_be_known() {
        let long = || Some(vec![0; 12]);
        for (formats, values, types, unknown) in [
            (&[1][..], vec![long()], &[][..], true),
            (&[1], vec![long()], &[0], true),
            (&[1], vec![long()], &[705], true),
            (&[1], vec![long()], &[25], false),
            (&[], vec![long()], &[], false),
            (&[1, 0], vec![Some(vec![0; 11]), long()], &[], false),
            (&[0, 1], vec![long(), None], &[], false),
            (&[0, 1], vec![long(), long()], &[0], true),
        ] {
            assert_eq!(has_unknown_values(&bind(formats, values, &[]), types), unknown, "{formats:?} {types:?}");
        }
        let results = |formats: &[u8]| wants_binary(&bind(&[], vec![long()], formats));
        assert_eq!([results(&[]), results(&[0, 0]), results(&[0, 1]), results(&[1])], [false, false, true, true]);
    }
}
