//! Numbers (OIDs) of a database's own types and tables: each server gives its own, clients know those of one.

use std::collections::HashMap;

use super::frame::{server, take_text};

/// The numbers of one server, each with the one that clients know.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Oids {
    types: HashMap<u32, u32, foldhash::fast::RandomState>,
    tables: HashMap<u32, u32, foldhash::fast::RandomState>,
    /// The other way around.
    own_types: HashMap<u32, u32, foldhash::fast::RandomState>,
}

impl Oids {
    /// Pairs of the server's number and the one that clients know. `None`: they are the same.
    pub fn new(types: Vec<(u32, u32)>, tables: Vec<(u32, u32)>) -> Option<Self> {
        let is_same = types.iter().chain(&tables).all(|(own, known)| own == known);
        (!is_same).then(|| Self {
            own_types: types.iter().map(|&(own, known)| (known, own)).collect(),
            types: types.into_iter().collect(),
            tables: tables.into_iter().collect(),
        })
    }

    /// Puts the client's numbers into the body of a ParameterDescription or RowDescription, as far as it is there.
    pub fn to_client(&self, kind: u8, body: &mut [u8]) {
        // A message that breaks off is none that the server sends: whoever reads it says so.
        let _ = match kind {
            server::PARAMETER_DESCRIPTION => self.parameters(body),
            server::ROW_DESCRIPTION => self.columns(body),
            _ => Some(()),
        };
    }

    fn parameters(&self, body: &mut [u8]) -> Option<()> {
        body.get_mut(2..)?.as_chunks_mut::<4>().0.iter_mut().for_each(|number| exchange(&self.types, number));
        Some(())
    }

    fn columns(&self, body: &mut [u8]) -> Option<()> {
        let mut rest = body.get_mut(2..)?;
        while !rest.is_empty() {
            let name = take_text(&mut &*rest).ok()?.len();
            let (column, others) = rest.split_at_mut_checked(name + 1 + COLUMN_BYTES)?;
            let column = &mut column[name + 1..];
            exchange(&self.tables, column.first_chunk_mut()?);
            exchange(&self.types, column[TYPE_AT..].first_chunk_mut()?);
            rest = others;
        }
        Some(())
    }

    /// Types as the client names them, by the server's numbers.
    pub fn to_server(&self, types: &[u32]) -> Vec<u32> {
        types.iter().map(|known| self.own_types.get(known).copied().unwrap_or(*known)).collect()
    }
}

fn exchange(numbers: &HashMap<u32, u32, foldhash::fast::RandomState>, place: &mut [u8; 4]) {
    if let Some(known) = numbers.get(&u32::from_be_bytes(*place)) {
        *place = known.to_be_bytes();
    }
}

/// Behind a column's name: table, column number, type, its size, its modifier, format.
const COLUMN_BYTES: usize = 4 + 2 + 4 + 2 + 4 + 2;
const TYPE_AT: usize = 4 + 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_that_the_client_knows() {
        let oids = Oids::new(vec![(70_001, 60_001), (70_002, 70_001)], vec![(70_001, 50_001)]).unwrap();
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
        assert_eq!(Oids::new(vec![(1, 1)], vec![(2, 2)]), None);
    }
}
