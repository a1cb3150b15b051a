//! Texts of sessions where `standard_conforming_strings` is off: a backslash in a plain literal is an escape there
//! (PostgreSQL documentation, 4.1.2.2). Written with `E'…'`, they mean the same to every session.

use super::scan::{Lexer, LiteralKind, TokenKind};

/// A text that says with `E'…'` what another says without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standardized {
    pub text: String,
    /// Where something was put in: its end, in characters from 1, and its length.
    pub shifts: Vec<(usize, isize)>,
}

/// `None`: the text means the same either way.
pub fn standardized(text: &str) -> Option<Standardized> {
    memchr::memchr(b'\\', text.as_bytes())?;
    let mut made = Standardized { text: String::with_capacity(text.len() + 16), shifts: Vec::new() };
    let mut from = 0;
    for token in Lexer::with_escapes(text.as_bytes()) {
        let written = &text[token.start as usize..token.end as usize];
        if token.kind != TokenKind::Literal(LiteralKind::Text) || !written.contains('\\') {
            continue;
        }
        let before = &text[from..token.start as usize];
        made.text.push_str(before);
        let is_national = !written.starts_with('\'');
        let put = match before.ends_with(|last: char| last.is_alphanumeric() || "_$".contains(last) || !last.is_ascii())
        {
            _ if is_national => "NCHAR E",
            true => " E",
            false => "E",
        };
        made.text.push_str(put);
        let longer = put.len().cast_signed() - isize::from(is_national);
        made.shifts.push((made.text.chars().count() + 1, longer));
        from = token.start as usize + usize::from(is_national);
    }
    made.text.push_str(&text[from..]);
    (!made.shifts.is_empty()).then_some(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backslashes_are_made_plain() {
        for (text, expected) in [
            (r"select 'a\'b', 'c'", Some(r"select E'a\'b', 'c'")),
            (r"select'a\\'", Some(r"select E'a\\'")),
            (r"select N'\n'", Some(r"select NCHAR E'\n'")),
            ("select 'a'\n  '\\'b'", Some("select E'a'\n  '\\'b'")),
            ("select 'a' -- c'\n '\\n'", Some("select E'a' -- c'\n '\\n'")),
            (r"select E'\'', $$\$$, b'\' -- '\'", None),
            (r"select 'a' /* \ */ 'b'", None),
            ("select 1", None),
        ] {
            assert_eq!(standardized(text).map(|made| made.text).as_deref(), expected, "{text}");
        }
        assert_eq!(standardized(r"select ä'\\', '\\'").unwrap().shifts, [(11, 2), (18, 1)]);
    }
}
