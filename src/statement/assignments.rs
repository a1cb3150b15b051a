//! Where the clauses of an UPDATE stand in its text: found by their keywords, and counted against the tree.

use sqlparser::ast::{self, SetExpr, Statement as Ast};

use super::analyze::Source;
use super::commands::Cursor;
use super::scan::TokenKind;
use super::types::{Assignment, Tokens, UpdateClauses};

/// The UPDATE that a statement is, perhaps behind WITH.
pub(super) fn updated(tree: &Ast) -> Option<&ast::Update> {
    match tree {
        Ast::Update(update) => Some(update),
        Ast::Query(query) => match &*query.body {
            SetExpr::Update(Ast::Update(update)) => Some(update),
            _ => None,
        },
        _ => None,
    }
}

/// `None`: the text does not look like the tree.
pub(super) fn clauses(source: Source<'_>, part: Tokens, update: &ast::Update) -> Option<UpdateClauses> {
    let mut scan = Scan { cursor: source.cursor(part), depth: 0, index: 0 };
    let first = scan.next_of(&["update"])?.1;
    let set = scan.next_of(&["set"])?.1;
    let (mut begun, mut ends) = (set + 1, Vec::new());
    let (mut from, mut filter, mut returning) = (None, None, None);
    loop {
        let (word, at) = scan.next_of(&[",", "from", "where", "returning"]).unwrap_or(("", scan.end()));
        let is_listed = (from, filter, returning) == (None, None, None);
        match word {
            "," if !is_listed => continue,
            _ if is_listed => ends.push((std::mem::replace(&mut begun, at + 1), at)),
            _ => {}
        }
        match word {
            "," => {}
            "from" => from = Some(at),
            "where" => filter = Some(at),
            "returning" => returning = Some(at),
            _ => break,
        }
        if returning.is_some() {
            break;
        }
    }
    let end = scan.end();
    let number = |index: usize| part.start + u32::try_from(index).expect("fewer tokens than bytes");
    let tokens = |start: usize, end: usize| Tokens { start: number(start), end: number(end) };
    let assignment = |&(start, end): &(usize, usize)| {
        let is_plain = scan.cursor.nth(start + 1) == "=" && end > start + 2 && scan.is_name(start);
        is_plain.then(|| Assignment { column: tokens(start, start + 2), value: tokens(start + 2, end) })
    };
    let found = UpdateClauses {
        head: tokens(first, set + 1),
        target: tokens(first + 1, set),
        assignments: ends.iter().map(assignment).collect::<Option<_>>()?,
        from: from.map(number),
        filter: filter.map(|at| tokens(at + 1, returning.unwrap_or(end))),
        returning: returning.map(|at| tokens(at, end)),
    };
    let has_all = found.assignments.len() == update.assignments.len()
        && found.from.is_some() == update.from.is_some()
        && found.filter.is_some() == update.selection.is_some()
        && found.returning.is_some() == update.returning.is_some();
    has_all.then_some(found)
}

/// The tokens outside of all parentheses.
struct Scan<'t> {
    cursor: Cursor<'t>,
    depth: usize,
    index: usize,
}

impl Scan<'_> {
    fn end(&self) -> usize {
        self.cursor.tokens.len()
    }

    fn is_name(&self, index: usize) -> bool {
        self.cursor.tokens.get(index).is_some_and(|token| matches!(token.kind, TokenKind::Word | TokenKind::QuotedName))
    }

    /// The next of these words that is no name, nor the end of IS DISTINCT FROM, and where it stands.
    fn next_of<'w>(&mut self, words: &[&'w str]) -> Option<(&'w str, usize)> {
        while let Some(token) = self.cursor.tokens.get(self.index) {
            let index = self.index;
            self.index += 1;
            match token.kind {
                TokenKind::Punctuation(b'(' | b'[') => self.depth += 1,
                TokenKind::Punctuation(b')' | b']') => self.depth = self.depth.saturating_sub(1),
                TokenKind::Word | TokenKind::Punctuation(_) if self.depth == 0 => {
                    let before = index.checked_sub(1).map_or("", |before| self.cursor.nth(before));
                    let written = self.cursor.nth(index);
                    let is_part = before == "." || before.eq_ignore_ascii_case("distinct");
                    let known = words.iter().find(|word| written.eq_ignore_ascii_case(word));
                    if let (Some(word), false) = (known, is_part) {
                        return Some((word, index));
                    }
                }
                _ => {}
            }
        }
        None
    }
}
