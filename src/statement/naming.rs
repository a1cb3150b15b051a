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
        Kind::Explain { inner, .. } => matches!(**inner, Kind::Execute { .. }),
        // CREATE TABLE … AS EXECUTE, as a rule none.
        Kind::Ddl(_) => true,
        _ => false,
    }
}

/// The text of one EXECUTE (or of EXPLAIN or CREATE TABLE AS of one), with `body` in its place: each of its parameters
/// is the value that is given, as one of its type. `Err`: so many values are given.
pub fn executed(text: &str, named: &NameOfPrepared, body: &str, types: &[String]) -> Result<String, usize> {
    let tokens: Vec<Token> = Lexer::new(text.as_bytes()).filter(|token| token.kind != TokenKind::Hint).collect();
    let at = tokens.iter().position(|token| token.start as usize == named.place.start).unwrap_or_default();
    let (arguments, end) = arguments(&tokens, at + 1);
    if arguments.len() != types.len() {
        return Err(arguments.len());
    }
    let start = at.checked_sub(1).map_or(0, |keyword| tokens[keyword].start as usize);
    let end = end.map_or(named.place.end, |close| tokens[close].end as usize);
    let value = |index: usize| {
        let (own, of) = (arguments.get(index)?, types.get(index)?);
        let words = &text[tokens[own.start].start as usize..tokens[own.end - 1].end as usize];
        let is_literal = matches!(tokens[own.start..own.end], [Token { kind: TokenKind::Literal(_), .. }]);
        Some(if is_literal { format!("{words}::{of}") } else { format!("({words})::{of}") })
    };
    let (mut filled, mut from) = (text[..start].to_owned(), 0);
    for token in Lexer::new(body.as_bytes()).filter(|token| token.kind == TokenKind::Parameter) {
        let (start, end) = (token.start as usize, token.end as usize);
        let number = body[start + 1..end].parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        let Some(value) = number.and_then(value) else { continue };
        filled.push_str(&body[from..start]);
        let is_indexed = body[end..].trim_start().starts_with('[');
        filled.push_str(&if is_indexed { format!("({value})") } else { value });
        from = end;
    }
    filled.push_str(&body[from..]);
    filled.push_str(&text[end..]);
    Ok(filled)
}

/// Those in parentheses that begin with token `open`, and where they are closed.
fn arguments(tokens: &[Token], open: usize) -> (Vec<Range<usize>>, Option<usize>) {
    let (mut found, mut depth, mut begun) = (Vec::new(), 0usize, open + 1);
    if tokens.get(open).is_none_or(|token| token.kind != TokenKind::Punctuation(b'(')) {
        return (found, None);
    }
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.kind {
            TokenKind::Punctuation(b'(' | b'[') => depth += 1,
            TokenKind::Punctuation(b')' | b']') => depth = depth.saturating_sub(1),
            TokenKind::Punctuation(b',') if depth == 1 => {
                found.push(begun..index);
                begun = index + 1;
            }
            _ => {}
        }
        if depth == 0 {
            found.push(begun..index);
            return (found, Some(index));
        }
    }
    (found, None)
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
        Kind::Ddl(_) => (1..part.len()).find(|&index| word(index - 1, "AS") && word(index, "EXECUTE"))? + 1,
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
    fn an_executed_statement_has_the_values_in_it() {
        let body = "select $2, $1[1] from t where id = $2 limit $3";
        let types = ["int[]", "bigint", "text"].map(str::to_owned);
        let text = "explain execute q(array[1, 2], 5, f(',')) ;";
        let named = prepared_names(text).remove(0);
        let expected = "explain select 5::bigint, ((array[1, 2])::int[])[1] from t where id = 5::bigint \
                        limit (f(','))::text ;";
        assert_eq!(executed(text, &named, body, &types).unwrap(), expected);
        assert_eq!(executed(text, &named, body, &types[..2]), Err(3));
        let named = prepared_names("execute q").remove(0);
        assert_eq!(executed("execute q", &named, "select 1", &[]).unwrap(), "select 1");
    }

    #[test]
    fn names_are_found_where_they_stand() {
        let text = "prepare \"My q\" (numeric(3, 2), int) as select $1; /* e */ EXECUTE A(b(1)); deallocate prepare c; \
                    explain (analyze, costs off) execute d; deallocate prepare; deallocate all; select e; prepare f; \
                    create temp table t (a) as execute g";
        let found = prepared_names(text);
        let seen: Vec<_> = found.iter().map(|found| (&*found.name, &text[found.place.clone()])).collect();
        assert_eq!(
            seen,
            [("My q", "\"My q\""), ("a", "A"), ("c", "c"), ("d", "d"), ("prepare", "prepare"), ("g", "g")]
        );
        let Naming::Makes(body) = found[0].naming.clone() else { panic!("{found:?}") };
        assert_eq!(&text[body], "select $1");
        assert_eq!(found[1].naming, Naming::Uses);
        assert_eq!(found[4].naming, Naming::Ends);
    }
}
