//! Numbers (OIDs) of a database's own types and tables: each server gives its own, clients know those of one.

use std::collections::{HashMap, HashSet};

use super::bind::BINARY;
use super::frame::server;

/// The numbers of one server, each with the one that clients know.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Oids {
    types: Numbers,
    tables: Numbers,
    /// The other way around.
    own_types: Numbers,
    /// Of types whose values may hold numbers that are not alike, by the numbers that clients know.
    shapes: HashMap<u32, Shape, foldhash::fast::RandomState>,
    /// The server compares the numbers in values that it is given with its own.
    compares: bool,
}

type Numbers = HashMap<u32, u32, foldhash::fast::RandomState>;

/// What a type of a database's own is made of: types by the numbers that clients know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Definition {
    /// Of elements of a type.
    Array(u32),
    /// The columns of a composite type, or of a table's rows.
    Composite(Vec<u32>),
    /// Over a type.
    Domain(u32),
    /// Between values of a type.
    Range(u32),
    /// Ranges of a type.
    Multirange(u32),
}

/// How a value in binary lies that may hold numbers (`array_send`, `record_send`, `range_send` of PostgreSQL).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// It names the type of its elements.
    Array,
    /// It names the type of each column.
    Record,
    /// Its bounds are of this type, which it does not name.
    Range(u32),
    /// The same of its ranges.
    Multirange(u32),
}

/// Who is to be given a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

impl Oids {
    /// Pairs of the server's number and the one that clients know; what types are made of, by the latter; the server's
    /// version (`server_version_num`). `None`: the numbers are the same.
    pub fn new(
        types: Vec<(u32, u32)>,
        tables: Vec<(u32, u32)>,
        definitions: &[(u32, Definition)],
        server_version: u32,
    ) -> Option<Self> {
        let is_same = types.iter().chain(&tables).all(|(own, known)| own == known);
        (!is_same).then(|| Self {
            compares: server_version < TOLERANT,
            shapes: shapes(&types, definitions),
            own_types: types.iter().map(|&(own, known)| (known, own)).collect(),
            types: types.into_iter().collect(),
            tables: tables.into_iter().collect(),
        })
    }

    /// Some values in binary may hold numbers that are not the client's.
    pub fn are_in_values(&self) -> bool {
        !self.shapes.is_empty()
    }

    /// The same, and the server takes none of a client's.
    pub fn are_compared(&self) -> bool {
        self.compares && self.are_in_values()
    }

    /// Puts the client's numbers into the body of a ParameterDescription or RowDescription, as far as it is there.
    pub fn to_client(&self, kind: u8, body: &mut [u8]) {
        match kind {
            server::PARAMETER_DESCRIPTION => {
                let numbers = body.get_mut(2..).unwrap_or_default().as_chunks_mut::<4>().0;
                numbers.iter_mut().for_each(|number| exchange(&self.types, number));
            }
            server::ROW_DESCRIPTION => {
                let mut end = 2;
                while let Some(place) = next_column(body, end) {
                    end = place + COLUMN_BYTES;
                    let column = &mut body[place..end];
                    column.first_chunk_mut().into_iter().for_each(|table| exchange(&self.tables, table));
                    column[TYPE_AT..].first_chunk_mut().into_iter().for_each(|number| exchange(&self.types, number));
                }
            }
            _ => {}
        }
    }

    /// Types as the client names them, by the server's numbers.
    pub fn to_server(&self, types: &[u32]) -> Vec<u32> {
        types.iter().map(|known| self.own_types.get(known).copied().unwrap_or(*known)).collect()
    }

    /// Whether columns as the client is told them by a RowDescription, in whatever format, may hold numbers.
    pub fn are_in_columns(&self, body: &[u8]) -> bool {
        columns(body).any(|(kind, _)| self.shapes.contains_key(&kind))
    }

    /// Of each column of such rows its type, up to the last one that is in binary and may hold numbers; 0 for one that
    /// holds none.
    pub(super) fn columns_with_numbers(&self, body: &[u8]) -> Box<[u32]> {
        let may_hold = |(kind, format)| if format == BINARY && self.shapes.contains_key(&kind) { kind } else { 0 };
        let mut found: Vec<u32> = columns(body).map(may_hold).collect();
        found.truncate(found.iter().rposition(|kind| *kind != 0).map_or(0, |last| last + 1));
        found.into()
    }

    pub(super) fn shape(&self, known: u32) -> Option<Shape> {
        self.shapes.get(&known).copied()
    }

    /// Puts the number for that side in this place, and gives the one that clients know.
    pub(super) fn exchange(&self, side: Side, place: &mut [u8; 4]) -> u32 {
        let found = u32::from_be_bytes(*place);
        match side {
            Side::Client => {
                exchange(&self.types, place);
                u32::from_be_bytes(*place)
            }
            Side::Server => {
                exchange(&self.own_types, place);
                found
            }
        }
    }
}

fn exchange(numbers: &Numbers, place: &mut [u8; 4]) {
    if let Some(other) = numbers.get(&u32::from_be_bytes(*place)) {
        *place = other.to_be_bytes();
    }
}

/// Types that lead to one whose number differs, however far.
fn shapes(types: &[(u32, u32)], definitions: &[(u32, Definition)]) -> HashMap<u32, Shape, foldhash::fast::RandomState> {
    let differing: HashSet<u32> = types.iter().filter(|(own, known)| own != known).map(|&(_, known)| known).collect();
    let mut shapes = HashMap::default();
    if differing.is_empty() {
        return shapes;
    }
    shapes.extend([(RECORD, Shape::Record), (RECORD_ARRAY, Shape::Array), (ANY_ARRAY, Shape::Array)]);
    loop {
        let before = shapes.len();
        for (known, definition) in definitions {
            let holds = |kind: &u32| shapes.contains_key(kind);
            let names = |kind: &u32| differing.contains(kind) || holds(kind);
            let shape = match definition {
                Definition::Array(element) => names(element).then_some(Shape::Array),
                Definition::Composite(columns) => columns.iter().any(names).then_some(Shape::Record),
                Definition::Domain(base) => shapes.get(base).copied(),
                Definition::Range(bound) => holds(bound).then_some(Shape::Range(*bound)),
                Definition::Multirange(range) => holds(range).then_some(Shape::Multirange(*range)),
            };
            shapes.extend(shape.map(|shape| (*known, shape)));
        }
        if shapes.len() == before {
            return shapes;
        }
    }
}

/// The types of the columns of a RowDescription with this body.
pub fn column_types_in(body: &[u8]) -> Vec<u32> {
    columns(body).map(|(kind, _)| kind).collect()
}

/// Puts the formats that a Bind asks for into a RowDescription with this body: one for all, or each column's own.
pub fn put_formats(body: &mut [u8], formats: &[u16]) {
    let (mut end, mut index) = (2, 0);
    while let Some(place) = next_column(body, end) {
        end = place + COLUMN_BYTES;
        let format = if formats.len() == 1 { formats[0] } else { formats.get(index).copied().unwrap_or(0) };
        body[end - 2..end].copy_from_slice(&format.to_be_bytes());
        index += 1;
    }
}

/// Type and format of each column of a RowDescription.
fn columns(body: &[u8]) -> impl Iterator<Item = (u32, u16)> {
    let mut end = 2;
    std::iter::from_fn(move || {
        let place = next_column(body, end)?;
        end = place + COLUMN_BYTES;
        let column = &body[place..end];
        Some((u32::from_be_bytes(*column[TYPE_AT..].first_chunk()?), u16::from_be_bytes(*column.last_chunk()?)))
    })
}

/// Where that begins which stands behind the name of a column that begins at `start`. `None`: not all of it is there.
fn next_column(body: &[u8], start: usize) -> Option<usize> {
    let place = start + memchr::memchr(0, body.get(start..)?)? + 1;
    (place + COLUMN_BYTES <= body.len()).then_some(place)
}

/// Behind a column's name: table, column number, type, its size, its modifier, format.
const COLUMN_BYTES: usize = 4 + 2 + 4 + 2 + 4 + 2;
const TYPE_AT: usize = 4 + 2;
/// Since then, servers take a value in binary whose numbers are those of another (`array_recv`, `record_recv`).
const TOLERANT: u32 = 140_000;

/// PostgreSQL's own types whose values name others.
const RECORD: u32 = 2249;
const RECORD_ARRAY: u32 = 2287;
/// As `pg_stats` has it.
const ANY_ARRAY: u32 = 2277;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_that_the_client_knows() {
        let oids = Oids::new(vec![(70_001, 60_001), (70_002, 70_001)], vec![(70_001, 50_001)], &[], 150_000).unwrap();
        let column = |name: &str, table: u32, kind: u32| {
            let fixed = [&table.to_be_bytes()[..], &[0, 1], &kind.to_be_bytes(), &[0, 4, 255, 255, 255, 255, 0, 0]];
            [name.as_bytes(), &[0], &fixed.concat()].concat()
        };
        let body = |columns: &[(&str, u32, u32)]| {
            let columns = columns.iter().map(|&(name, table, kind)| column(name, table, kind));
            [vec![0, 3], columns.collect::<Vec<_>>().concat()].concat()
        };
        let mut found = body(&[("mood", 70_001, 70_001), ("", 0, 23), ("other", 70_002, 70_002)]);
        let expected = body(&[("mood", 50_001, 60_001), ("", 0, 23), ("other", 70_002, 70_001)]);
        oids.to_client(server::ROW_DESCRIPTION, &mut found[..30]);
        oids.to_client(server::ROW_DESCRIPTION, &mut found[30..32]);
        assert_ne!(found, expected, "the rest is not there yet");
        let mut found = body(&[("mood", 70_001, 70_001), ("", 0, 23), ("other", 70_002, 70_002)]);
        oids.to_client(server::ROW_DESCRIPTION, &mut found);
        assert_eq!(found, expected);
        let mut parameters = [&[0, 2][..], &70_002u32.to_be_bytes(), &25u32.to_be_bytes()].concat();
        oids.to_client(server::PARAMETER_DESCRIPTION, &mut parameters);
        assert_eq!(parameters, [&[0, 2][..], &70_001u32.to_be_bytes(), &25u32.to_be_bytes()].concat());
        assert_eq!(oids.to_server(&[60_001, 70_001, 0, 23]), [70_001, 70_002, 0, 23]);
        assert_eq!(Oids::new(vec![(1, 1)], vec![(2, 2)], &[], 150_000), None);
    }

    #[test]
    fn types_lead_to_others() {
        let definitions = [
            // In whatever order.
            (9, Definition::Multirange(8)),
            (8, Definition::Range(4)),
            (4, Definition::Composite(vec![23, 3])),
            (3, Definition::Domain(2)),
            (2, Definition::Array(1)),
            (5, Definition::Composite(vec![23, 6])),
            (6, Definition::Domain(25)),
            (7, Definition::Range(1)),
            (10, Definition::Array(7)),
        ];
        let shapes_of = |types: &[(u32, u32)]| {
            let oids = Oids::new(types.to_vec(), vec![(1, 2)], &definitions, 150_000).unwrap();
            let mut found: Vec<_> = oids.shapes.into_iter().collect();
            found.sort_unstable_by_key(|(known, _)| *known);
            found
        };
        let own = [(2249, Shape::Record), (2277, Shape::Array), (2287, Shape::Array)];
        let below = [(2, Shape::Array), (3, Shape::Array), (4, Shape::Record), (8, Shape::Range(4))];
        assert_eq!(shapes_of(&[(1, 1), (2, 2)]), []);
        assert_eq!(shapes_of(&[(101, 1), (2, 2)]), [&below[..], &[(9, Shape::Multirange(8))], &own].concat());
        assert_eq!(
            shapes_of(&[(1, 1), (106, 6), (107, 7)]),
            [&[(5, Shape::Record), (10, Shape::Array)][..], &own].concat()
        );
    }
}
