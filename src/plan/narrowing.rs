//! Semi-joins: of a table whose rows are fetched, only those are of use that equal another one's in a column.

use super::keys::{ColumnOf, Keyed};
use super::relations::Resolved;
use crate::statement::Statement;

/// Rows of `to` matter only where they equal a row of `from` that does.
#[derive(Debug)]
pub(super) struct Link {
    pub from: ColumnOf,
    pub to: ColumnOf,
    /// Of the values.
    pub array: &'static str,
}

/// All that the statement's conditions give, between columns whose values are the same as text.
pub(super) fn links(keyed: &Keyed, statement: &Statement, resolved: &[Resolved]) -> Vec<Link> {
    let type_of = |of: &ColumnOf| {
        let relation = &keyed.relations[of.relation];
        let place = (relation.block, relation.relation);
        let known = resolved.iter().find(|known| (known.block, known.relation) == place)?;
        Some(known.catalog.as_ref()?.column(&of.column)?.type_oid)
    };
    let equalities = keyed.equalities(statement, resolved).into_iter();
    let link = |(from, to): (ColumnOf, ColumnOf)| {
        let array = array_of(type_of(&from)?, type_of(&to)?)?;
        Some(Link { from, to, array })
    };
    equalities.filter_map(link).collect()
}

/// What the values of one type are compared as with those of another.
fn array_of(from: u32, to: u32) -> Option<&'static str> {
    let is_one = |types: &[u32]| types.contains(&from) && types.contains(&to);
    match () {
        () if is_one(&INTEGERS) => Some("bigint[]"),
        () if is_one(&TEXTS) => Some("text[]"),
        () if is_one(&[NUMERIC]) => Some("numeric[]"),
        () if is_one(&[UUID]) => Some("uuid[]"),
        () if is_one(&[DATE]) => Some("date[]"),
        () => None,
    }
}

/// How many rows of a relation matter, as far as can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Guess {
    None,
    /// Those of a few keys.
    Few,
    /// Narrowed by few.
    OfFew,
    /// Those of some conditions.
    Some,
    /// Narrowed by some.
    OfSome,
    /// All, or too many to be looked at for this alone.
    Many,
}

/// For each relation the link (index) whose values narrow it, if one does: what narrows others is chosen by `guesses`.
pub(super) fn choose(links: &[Link], mut guesses: Vec<Guess>) -> Vec<Option<usize>> {
    let mut chosen = vec![None; guesses.len()];
    let mut left: Vec<usize> = (0..guesses.len()).collect();
    while let Some(place) = (0..left.len()).min_by_key(|&place| (guesses[left[place]], left[place])) {
        let from = left.remove(place);
        let narrowed = match guesses[from] {
            Guess::Many => break,
            Guess::None | Guess::Few | Guess::OfFew => Guess::OfFew,
            Guess::Some | Guess::OfSome => Guess::OfSome,
        };
        for (index, link) in links.iter().enumerate().filter(|(_, link)| link.from.relation == from) {
            let to = link.to.relation;
            if left.contains(&to) && chosen[to].is_none() {
                chosen[to] = Some(index);
                guesses[to] = guesses[to].min(narrowed);
            }
        }
    }
    chosen
}

const INTEGERS: [u32; 3] = [20, 21, 23];
const TEXTS: [u32; 2] = [25, 1043];
const NUMERIC: u32 = 1700;
const UUID: u32 = 2950;
const DATE: u32 = 1082;
