//! Texts that ask which channels their session listens to: it is another connection than theirs that does.

use std::ops::Range;

use super::commands::{Cursor, folded};
use super::quoting::plain_literal;
use super::scan::{Lexer, Token, TokenKind};
use super::types::LISTENING_CHANNELS;

/// Where the text calls `pg_listening_channels()`, and what gives these channels there.
pub fn channels_shown(text: &str, channels: &[String]) -> Vec<(Range<usize>, String)> {
    let tokens: Vec<Token> = Lexer::new(text.as_bytes()).collect();
    let cursor = Cursor { text, tokens: &tokens, first: 0 };
    let word = |at: usize| tokens.get(at).map(|token| folded(cursor.written(token), token.kind)).unwrap_or_default();
    let names: Vec<_> = channels.iter().map(|name| plain_literal(name)).collect();
    let rows = format!("pg_catalog.unnest(ARRAY[{}]::pg_catalog.text[])", names.join(","));
    let mut places = Vec::new();
    // Of each level of parentheses: whether what stands there may be given a name.
    let mut nameable = vec![false];
    for at in 0..tokens.len() {
        let level = nameable.len() - 1;
        match tokens[at].kind {
            TokenKind::Punctuation(b'(') => nameable.push(false),
            TokenKind::Punctuation(b')') if level > 0 => nameable.truncate(level),
            TokenKind::Word if SELECTS.contains(&&*word(at)) => nameable[level] = true,
            TokenKind::Word if ENDS.contains(&&*word(at)) => nameable[level] = false,
            TokenKind::Word | TokenKind::QuotedName
                if word(at) == LISTENING_CHANNELS && cursor.nth(at + 1) == "(" && cursor.nth(at + 2) == ")" =>
            {
                let is_qualified = at >= 2 && cursor.nth(at - 1) == "." && word(at - 2) == "pg_catalog";
                let start = if is_qualified { at - 2 } else { at };
                let next = &*word(at + 3);
                let is_last = NEXT.contains(&next) || ENDS.contains(&next) || SELECTS.contains(&next);
                let alias = if nameable[level] && is_last { ALIAS } else { "" };
                places.push((tokens[start].start as usize..tokens[at + 2].end as usize, format!("{rows}{alias}")));
            }
            _ => {}
        }
    }
    places
}

const ALIAS: &str = " AS pg_listening_channels";
/// Items behind these have names.
const SELECTS: [&str; 4] = ["select", "from", "join", "distinct"];
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
