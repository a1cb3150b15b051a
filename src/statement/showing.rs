//! Texts that call functions which show their session: what it has is not all on the connection that answers.
//!
//! Channels, for one: it is another connection than theirs that listens to them.

use std::ops::Range;

use super::commands::{Cursor, folded};
use super::quoting::plain_literal;
use super::scan::{Lexer, Token, TokenKind};
use super::types::LISTENING_CHANNELS;

/// Where the text calls `pg_listening_channels()`, and what gives these channels there.
pub fn channels_shown(text: &str, channels: &[String]) -> Vec<(Range<usize>, String)> {
    let names: Vec<_> = channels.iter().map(|name| plain_literal(name)).collect();
    let rows = format!("pg_catalog.unnest(ARRAY[{}]::pg_catalog.text[])", names.join(","));
    let calls = calls(text, 0..text.len(), LISTENING_CHANNELS).into_iter().filter(|call| call.arguments.is_empty());
    calls.map(|call| (call.place.clone(), format!("{rows}{}", call.alias(LISTENING_CHANNELS)))).collect()
}

/// A call of a function by its name.
pub(super) struct Call {
    /// With its schema and its arguments.
    pub place: Range<usize>,
    pub arguments: Vec<Range<usize>>,
    /// Among tables, not among columns.
    pub is_table: bool,
    /// What stands there has the function's name, unless it is said.
    is_nameless: bool,
}

impl Call {
    /// What gives the name to something else that stands there.
    pub(super) fn alias(&self, name: &str) -> String {
        if self.is_nameless { format!(" AS {name}") } else { String::new() }
    }
}

/// Of this function of PostgreSQL's own, in this part of the text, in their order; those among the arguments of one are not
/// looked for.
pub(super) fn calls(text: &str, within: Range<usize>, name: &str) -> Vec<Call> {
    let tokens: Vec<Token> = Lexer::new(text.as_bytes()).collect();
    let cursor = Cursor { text, tokens: &tokens, first: 0 };
    let word = |at: usize| tokens.get(at).map(|token| folded(cursor.written(token), token.kind)).unwrap_or_default();
    let bytes = |from: usize, to: usize| tokens[from].start as usize..tokens[to].end as usize;
    // Of each level of parentheses: whether what stands there may be given a name, and whether that is a table.
    let (mut calls, mut levels, mut at) = (Vec::new(), vec![(false, false)], 0);
    while at < tokens.len() {
        let top = levels.len() - 1;
        match tokens[at].kind {
            TokenKind::Punctuation(b'(') => levels.push((false, false)),
            TokenKind::Punctuation(b')') if top > 0 => levels.truncate(top),
            TokenKind::Word if TABLES.contains(&&*word(at)) => levels[top] = (true, true),
            TokenKind::Word if SELECTS.contains(&&*word(at)) => levels[top] = (true, false),
            TokenKind::Word if ENDS.contains(&&*word(at)) => levels[top] = (false, false),
            TokenKind::Word | TokenKind::QuotedName
                if word(at) == name && cursor.nth(at + 1) == "(" && within.contains(&(tokens[at].start as usize)) =>
            {
                let is_qualified = at >= 2 && cursor.nth(at - 1) == "." && word(at - 2) == "pg_catalog";
                let start = if is_qualified { at - 2 } else { at };
                let Some((places, end)) = arguments(&tokens, at + 1) else { break };
                let (next, (nameable, is_table)) = (&*word(end + 1), levels[top]);
                let is_last =
                    NEXT.contains(&next) || [&TABLES[..], &SELECTS, &ENDS].iter().any(|words| words.contains(&next));
                calls.push(Call {
                    place: bytes(start, end),
                    arguments: places.into_iter().map(|(first, last)| bytes(first, last)).collect(),
                    is_table,
                    is_nameless: nameable && is_last,
                });
                at = end;
            }
            _ => {}
        }
        at += 1;
    }
    calls
}

/// The arguments of a call, by their first and last tokens, and the one that closes it; `open`: that which opens it.
fn arguments(tokens: &[Token], open: usize) -> Option<(Vec<(usize, usize)>, usize)> {
    let (mut places, mut first, mut depth) = (Vec::new(), open + 1, 0_usize);
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.kind {
            TokenKind::Punctuation(b'(' | b'[') => depth += 1,
            TokenKind::Punctuation(b')' | b']') => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && token.kind == TokenKind::Punctuation(b',')) {
            places.extend((first < at).then_some((first, at - 1)));
            first = at + 1;
        }
        if depth == 0 {
            return Some((places, at));
        }
    }
    None
}

/// Tables behind these have names.
const TABLES: [&str; 2] = ["from", "join"];
/// Columns behind these have names.
const SELECTS: [&str; 2] = ["select", "distinct"];
/// Expressions behind these have none.
const ENDS: [&str; 17] = [
    "where",
    "group",
    "having",
    "window",
    "union",
    "intersect",
    "except",
    "order",
    "limit",
    "offset",
    "fetch",
    "for",
    "on",
    "using",
    "cross",
    "natural",
    "returning",
];
/// What may follow an item without a name, beside keywords.
const NEXT: [&str; 4] = ["", ",", ")", ";"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::spliced;

    #[test]
    fn channels_stand_in_the_place_of_the_call() {
        const MADE: &str = "pg_catalog.unnest(ARRAY['a','it''s']::pg_catalog.text[])";
        let channels = ["a".to_owned(), "it's".to_owned()];
        for (text, expected) in [
            ("select pg_listening_channels()", Some("select @ AS pg_listening_channels")),
            ("select pg_listening_channels() c order by 1", Some("select @ c order by 1")),
            ("SELECT * FROM PG_Catalog.PG_Listening_Channels ( );", Some("SELECT * FROM @ AS pg_listening_channels;")),
            ("select array(select pg_listening_channels())", Some("select array(select @ AS pg_listening_channels)")),
            (
                "select count(*) from pg_listening_channels() as l(c) where c = 'a'",
                Some("select count(*) from @ as l(c) where c = 'a'"),
            ),
            ("select upper(pg_listening_channels())", Some("select upper(@)")),
            (
                "select 'a' in (select pg_listening_channels()), 1",
                Some("select 'a' in (select @ AS pg_listening_channels), 1"),
            ),
            ("select 1 from t order by pg_listening_channels()", Some("select 1 from t order by @")),
            ("select 'pg_listening_channels()' -- pg_listening_channels()", None),
            ("select pg_listening_channels", None),
            ("select 1", None),
        ] {
            let expected = expected.map(|expected| expected.replace('@', MADE));
            assert_eq!(spliced(text, channels_shown(text, &channels)).0, expected.unwrap_or(text.to_owned()), "{text}");
        }
        let text = "select pg_listening_channels() c, ö";
        let (_, shifts) = spliced(text, channels_shown(text, &channels));
        assert_eq!(shifts, [(8 + MADE.len(), MADE.len().cast_signed() - 23)]);
    }
}
