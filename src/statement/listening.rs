//! Texts that ask which channels their session listens to: it is another connection than theirs that does.

use super::commands::folded;
use super::quoting::plain_literal;
use super::scan::{Lexer, Token, TokenKind};
use super::types::LISTENING_CHANNELS;

/// The text with the names of these channels in the place of `pg_listening_channels()`, and where that made it longer: its
/// end, in characters from 1, and by how much.
pub fn with_channels(text: &str, channels: &[String]) -> (String, Vec<(usize, isize)>) {
    let tokens: Vec<Token> = Lexer::new(text.as_bytes()).collect();
    let word = |at: usize| tokens.get(at).map(|token| folded(written(text, token), token.kind)).unwrap_or_default();
    let (mut made, mut shifts, mut from) = (String::with_capacity(text.len() + 64), Vec::new(), 0);
    // Of each level of parentheses: whether what stands there may be given a name.
    let mut nameable = vec![false];
    for at in 0..tokens.len() {
        let level = nameable.len() - 1;
        match tokens[at].kind {
            TokenKind::Punctuation(b'(') => nameable.push(false),
            TokenKind::Punctuation(b')') if level > 0 => nameable.truncate(level),
            TokenKind::Word if SELECTS.contains(&&*word(at)) => nameable[level] = true,
            TokenKind::Word if ENDS.contains(&&*word(at)) => nameable[level] = false,
            TokenKind::Word | TokenKind::QuotedName if word(at) == LISTENING_CHANNELS && word(at + 1) == "(" => {
                let Some(end) = tokens.get(at + 2).filter(|token| written(text, token) == ")") else { continue };
                let is_qualified = at >= 2 && word(at - 1) == "." && word(at - 2) == "pg_catalog";
                let start = tokens[if is_qualified { at - 2 } else { at }].start as usize;
                made.push_str(&text[from..start]);
                let before = made.chars().count();
                let names: Vec<_> = channels.iter().map(|name| plain_literal(name)).collect();
                made.push_str(&format!("pg_catalog.unnest(ARRAY[{}]::pg_catalog.text[])", names.join(",")));
                let next = word(at + 3);
                if nameable[level] && (NEXT.contains(&&*next) || ENDS.contains(&&*next) || SELECTS.contains(&&*next)) {
                    made.push_str(ALIAS);
                }
                from = end.end as usize;
                let length = made.chars().count() - before;
                let longer = length.cast_signed() - text[start..from].chars().count().cast_signed();
                shifts.push((before + length + 1, longer));
            }
            _ => {}
        }
    }
    made.push_str(&text[from..]);
    (made, shifts)
}

fn written<'t>(text: &'t str, token: &Token) -> &'t str {
    &text[token.start as usize..token.end as usize]
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
            assert_eq!(with_channels(text, &channels).0, expected.unwrap_or(text.to_owned()), "{text}");
        }
        let (_, shifts) = with_channels("select pg_listening_channels() c, ö", &channels);
        assert_eq!(shifts, [(8 + MADE.len(), MADE.len().cast_signed() - 23)]);
    }
}
