//! Where a text names prepared statements: PREPARE, DEALLOCATE, and EXECUTE, also within EXPLAIN and CREATE TABLE AS.

use std::ops::Range;

use super::analyze::analyze;
use super::commands::folded;
use super::scan::{Lexer, Token, TokenKind};
use super::types::{Analysis, Kind, Tokens};

/// One such place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameOfPrepared {
    /// As PostgreSQL reads it.
    pub name: String,
    /// Its bytes in the text.
    pub place: Range<usize>,
    pub naming: Naming,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// PREPARE; the bytes of the statement that is prepared.
    Makes(Range<usize>),
    Uses,
    Ends,
}

pub(super) fn names_prepared(kind: &Kind) -> bool {
    match kind {
        Kind::Prepare { .. } | Kind::Execute { .. } | Kind::Deallocate { name: Some(_) } => true,
        Kind::Explain { inner, .. } => matches!(**inner, Kind::Execute { .. } | Kind::Ddl(_)),
        // CREATE TABLE … AS EXECUTE, as a rule none.
        Kind::Ddl(_) => true,
        _ => false,
    }
}

/// All names of prepared statements in a text, in order.
pub fn prepared_names(text: &str) -> Vec<NameOfPrepared> {
    let tokens: Vec<Token> = Lexer::new(text.as_bytes()).filter(|token| token.kind != TokenKind::Hint).collect();
    let Analysis { statements, .. } = analyze(text);
    statements.iter().filter_map(|statement| named(text, &tokens, (&statement.kind, statement.tokens))).collect()
}

fn named(text: &str, tokens: &[Token], (kind, part): (&Kind, Tokens)) -> Option<NameOfPrepared> {
    let part = &tokens[part.start as usize..part.end as usize];
    let written = |token: &Token| &text[token.start as usize..token.end as usize];
    let word =
        |index: usize, word: &str| part.get(index).is_some_and(|token| written(token).eq_ignore_ascii_case(word));
    let at = match kind {
        Kind::Prepare { .. } | Kind::Execute { .. } => 1,
        // A statement may have the keyword's name.
        Kind::Deallocate { name: Some(_) } if word(1, "PREPARE") && part.len() > 2 => 2,
        Kind::Deallocate { name: Some(_) } => 1,
        Kind::Explain { inner, .. } if matches!(**inner, Kind::Execute { .. }) => {
            part.iter().position(|token| written(token).eq_ignore_ascii_case("EXECUTE"))? + 1
        }
        Kind::Ddl(_) => behind_as_execute(part.len(), &word)?,
        Kind::Explain { inner, .. } if matches!(**inner, Kind::Ddl(_)) => behind_as_execute(part.len(), &word)?,
        _ => return None,
    };
    let token = part.get(at).filter(|token| matches!(token.kind, TokenKind::Word | TokenKind::QuotedName))?;
    let naming = match kind {
        Kind::Prepare { .. } => {
            let start = body_of(part, at + 1, &word)?;
            Naming::Makes(part[start].start as usize..part.last()?.end as usize)
        }
        Kind::Deallocate { .. } => Naming::Ends,
        _ => Naming::Uses,
    };
    let place = token.start as usize..token.end as usize;
    Some(NameOfPrepared { name: folded(written(token), token.kind), place, naming })
}

/// CREATE TABLE … AS EXECUTE name
fn behind_as_execute(length: usize, word: &impl Fn(usize, &str) -> bool) -> Option<usize> {
    Some((1..length).find(|&index| word(index - 1, "AS") && word(index, "EXECUTE"))? + 1)
}

/// PREPARE name [(type, …)] AS statement: where the last begins.
fn body_of(part: &[Token], behind_name: usize, word: &impl Fn(usize, &str) -> bool) -> Option<usize> {
    let mut depth = 0;
    for (index, token) in part.iter().enumerate().skip(behind_name) {
        match token.kind {
            TokenKind::Punctuation(b'(') => depth += 1,
            TokenKind::Punctuation(b')') => depth -= 1,
            _ if depth == 0 && word(index, "AS") => return Some(index + 1).filter(|&body| body < part.len()),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_where_they_stand() {
        let text = "prepare \"My q\" (numeric(3, 2), int) as select $1; /* e */ EXECUTE A(b(1)); deallocate prepare c; \
                    explain (analyze, costs off) execute d; deallocate prepare; deallocate all; select e; prepare f; \
                    create temp table t (a) as execute g; explain analyze create table u as execute h";
        let found = prepared_names(text);
        let seen: Vec<_> = found.iter().map(|found| (&*found.name, &text[found.place.clone()])).collect();
        assert_eq!(
            seen,
            [("My q", "\"My q\""), ("a", "A"), ("c", "c"), ("d", "d"), ("prepare", "prepare"), ("g", "g"), ("h", "h")]
        );
        let Naming::Makes(body) = found[0].naming.clone() else { panic!("{found:?}") };
        assert_eq!(&text[body], "select $1");
        assert_eq!(found[1].naming, Naming::Uses);
        assert_eq!(found[4].naming, Naming::Ends);
    }
}
