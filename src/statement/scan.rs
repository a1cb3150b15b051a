//! Splits a text into tokens as PostgreSQL's lexer does (PostgreSQL documentation, 4.1), and makes its shape.
//!
//! Every simple query goes through here: one pass, a table of byte classes, no allocation but the reused buffers.

use std::collections::HashSet;
use std::ops::Range;

use super::types::Tokens;

/// One token. Comments and blanks are none; a comment that carries a hint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub kind: TokenKind,
    pub start: u32,
    pub end: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A keyword or unquoted name.
    Word,
    QuotedName,
    Literal(LiteralKind),
    /// `$1`
    Parameter,
    /// A run of operator characters.
    Operator,
    /// One of `( ) [ ] , ; .`
    Punctuation(u8),
    Hint,
    /// Unterminated, or no token of PostgreSQL's.
    Problem,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LiteralKind {
    Integer,
    Decimal,
    /// `'…'` and N'…'
    Text,
    /// E'…'
    Escape,
    /// U&'…'
    Unicode,
    /// B'…' and X'…'
    Bits,
    /// `$tag$…$tag$`
    Dollar,
}

/// All names and keywords of a text, as PostgreSQL folds them.
pub fn names_in(text: &str) -> HashSet<String> {
    let written = |token: &Token| &text[token.start as usize..token.end as usize];
    let name = |token: Token| match token.kind {
        TokenKind::Word => Some(written(&token).to_ascii_lowercase()),
        TokenKind::QuotedName => {
            let within = written(&token).trim_start_matches(['u', 'U', '&']).trim_matches('"');
            Some(within.replace("\"\"", "\""))
        }
        _ => None,
    };
    Lexer::new(text.as_bytes()).filter_map(name).collect()
}

/// Where a literal stands in its text, with its quotes and prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiteralSpan {
    pub start: u32,
    pub end: u32,
    pub kind: LiteralKind,
}

/// Reads tokens one by one.
pub(super) struct Lexer<'t> {
    text: &'t [u8],
    position: usize,
    /// A backslash is an escape in plain literals, too.
    escapes: bool,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t [u8]) -> Self {
        Self { text, position: 0, escapes: false }
    }

    /// As a session reads it where `standard_conforming_strings` is off.
    pub(super) fn with_escapes(text: &'t [u8]) -> Self {
        Self { escapes: true, ..Self::new(text) }
    }

    fn at(&self, position: usize) -> u8 {
        self.text.get(position).copied().unwrap_or(0)
    }

    fn token(&mut self, kind: TokenKind, end: usize) -> Token {
        let start = self.position;
        self.position = end;
        // Texts are below 1 GiB, as messages are.
        Token { kind, start: start as u32, end: end as u32 }
    }

    fn word(&mut self) -> Token {
        let (first, second) = (self.at(self.position), self.at(self.position + 1));
        let quoted = second == b'\'';
        match first {
            b'e' | b'E' if quoted => return self.quoted(1, LiteralKind::Escape),
            b'b' | b'B' | b'x' | b'X' if quoted => return self.quoted(1, LiteralKind::Bits),
            b'n' | b'N' if quoted => return self.quoted(1, LiteralKind::Text),
            b'u' | b'U' if second == b'&' && self.at(self.position + 2) == b'\'' => {
                return self.quoted(2, LiteralKind::Unicode);
            }
            b'u' | b'U' if second == b'&' && self.at(self.position + 2) == b'"' => return self.quoted_name(2),
            _ => {}
        }
        let mut end = self.position + 1;
        while matches!(CLASS[usize::from(self.at(end))], LETTER | DIGIT | DOLLAR) && end < self.text.len() {
            end += 1;
        }
        self.token(TokenKind::Word, end)
    }

    /// A text in single quotes, `prefix` bytes ahead.
    fn quoted(&mut self, prefix: usize, kind: LiteralKind) -> Token {
        let mut end = self.position + prefix + 1;
        let escapes = kind == LiteralKind::Escape || (self.escapes && kind == LiteralKind::Text);
        loop {
            let rest = &self.text[end.min(self.text.len())..];
            let next = match escapes {
                true => memchr::memchr2(b'\'', b'\\', rest),
                false => memchr::memchr(b'\'', rest),
            };
            let Some(next) = next else { return self.token(TokenKind::Problem, self.text.len()) };
            end += next + 1;
            if self.text[end - 1] == b'\\' || self.at(end) == b'\'' {
                end += 1;
            } else if let Some(next) = self.continuation(end).filter(|_| escapes) {
                end = next;
            } else {
                return self.token(TokenKind::Literal(kind), end);
            }
        }
    }

    /// Where a literal that ends here goes on, in the same way: behind a quote on another line.
    fn continuation(&self, end: usize) -> Option<usize> {
        let (mut at, mut is_below) = (end, false);
        loop {
            match (self.at(at), self.at(at + 1)) {
                (b'\n' | b'\r', _) => is_below = true,
                (b' ' | b'\t' | 0x0b | 0x0c, _) => {}
                (b'-', b'-') => {
                    at += memchr::memchr2(b'\n', b'\r', &self.text[at..])?;
                    continue;
                }
                (b'\'', _) if is_below => return Some(at + 1),
                _ => return None,
            }
            at += 1;
        }
    }

    fn quoted_name(&mut self, prefix: usize) -> Token {
        let mut end = self.position + prefix + 1;
        loop {
            let rest = &self.text[end.min(self.text.len())..];
            let Some(next) = memchr::memchr(b'"', rest) else {
                return self.token(TokenKind::Problem, self.text.len());
            };
            end += next + 1;
            if self.at(end) == b'"' {
                end += 1;
            } else {
                return self.token(TokenKind::QuotedName, end);
            }
        }
    }

    /// Since PostgreSQL 16 also `0x1F`, `0o17`, `0b11` and `1_000`; earlier ones refuse them, or see a name behind the
    /// number where no value that matters here can stand.
    fn number(&mut self) -> Token {
        let digits = |mut end: usize| {
            while self.at(end).is_ascii_digit() || (self.at(end) == b'_' && self.at(end + 1).is_ascii_digit()) {
                end += 1;
            }
            end
        };
        let mut end = digits(self.position);
        let mut kind = LiteralKind::Integer;
        if end == self.position + 1 && self.at(self.position) == b'0' && self.is_radix(self.at(end)) {
            while matches!(CLASS[usize::from(self.at(end))], LETTER | DIGIT) && end < self.text.len() {
                end += 1;
            }
            return self.token(TokenKind::Literal(kind), end);
        }
        // `1..2` is a range of PL/pgSQL, not a number with a point.
        if self.at(end) == b'.' && self.at(end + 1) != b'.' {
            end = digits(end + 1);
            kind = LiteralKind::Decimal;
        }
        if matches!(self.at(end), b'e' | b'E') {
            let sign = usize::from(matches!(self.at(end + 1), b'+' | b'-'));
            if self.at(end + 1 + sign).is_ascii_digit() {
                end = digits(end + 1 + sign);
                kind = LiteralKind::Decimal;
            }
        }
        if CLASS[usize::from(self.at(end))] == LETTER && end < self.text.len() {
            // "Trailing junk" to newer servers, a name of its own to older ones.
            return self.token(TokenKind::Problem, end);
        }
        self.token(TokenKind::Literal(kind), end)
    }

    fn is_radix(&self, letter: u8) -> bool {
        matches!(letter, b'x' | b'X' | b'o' | b'O' | b'b' | b'B')
    }

    fn dollar(&mut self) -> Token {
        let mut end = self.position + 1;
        if self.at(end).is_ascii_digit() {
            while self.at(end).is_ascii_digit() {
                end += 1;
            }
            return self.token(TokenKind::Parameter, end);
        }
        while end < self.text.len() && matches!(CLASS[usize::from(self.at(end))], LETTER | DIGIT) {
            end += 1;
        }
        if self.at(end) != b'$' {
            return self.token(TokenKind::Problem, self.position + 1);
        }
        let tag = &self.text[self.position..=end];
        match memchr::memmem::find(&self.text[end + 1..], tag) {
            Some(close) => self.token(TokenKind::Literal(LiteralKind::Dollar), end + 1 + close + tag.len()),
            None => self.token(TokenKind::Problem, self.text.len()),
        }
    }

    fn operator(&mut self) -> Token {
        let mut end = self.position;
        while end < self.text.len() && CLASS[usize::from(self.at(end))] == OPERATOR {
            // A comment ends an operator.
            if matches!((self.at(end), self.at(end + 1)), (b'-', b'-') | (b'/', b'*')) {
                break;
            }
            end += 1;
        }
        // `=-1` are three tokens (PostgreSQL documentation, 4.1.3).
        let written = &self.text[self.position..end];
        if !written.iter().any(|byte| b"~!@#%^&|`?".contains(byte)) {
            let signs = written[1..].iter().rev().take_while(|byte| matches!(byte, b'+' | b'-')).count();
            end -= signs;
        }
        self.token(TokenKind::Operator, end)
    }

    /// The end of the comment that begins here, if one does; `None` for one that never ends.
    fn comment(&self) -> Option<Option<usize>> {
        match (self.at(self.position), self.at(self.position + 1)) {
            (b'-', b'-') => {
                let rest = &self.text[self.position..];
                Some(Some(memchr::memchr2(b'\n', b'\r', rest).map_or(self.text.len(), |end| self.position + end)))
            }
            (b'/', b'*') => Some(self.nested_comment()),
            _ => None,
        }
    }

    fn nested_comment(&self) -> Option<usize> {
        let (mut depth, mut end) = (1, self.position + 2);
        while depth > 0 {
            end += memchr::memchr2(b'*', b'/', self.text.get(end..)?)?;
            match (self.at(end), self.at(end + 1)) {
                (b'/', b'*') => (depth, end) = (depth + 1, end + 2),
                (b'*', b'/') => (depth, end) = (depth - 1, end + 2),
                _ => end += 1,
            }
        }
        Some(end)
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        loop {
            let first = *self.text.get(self.position)?;
            return Some(match CLASS[usize::from(first)] {
                SPACE => {
                    self.position += 1;
                    continue;
                }
                LETTER => self.word(),
                DIGIT => self.number(),
                b'.' if self.at(self.position + 1).is_ascii_digit() => self.number(),
                b'\'' => self.quoted(0, LiteralKind::Text),
                b'"' => self.quoted_name(0),
                DOLLAR => self.dollar(),
                OPERATOR => match self.comment() {
                    None => self.operator(),
                    Some(None) => self.token(TokenKind::Problem, self.text.len()),
                    Some(Some(end)) if super::hints::is_hint(&self.text[self.position..end]) => {
                        self.token(TokenKind::Hint, end)
                    }
                    Some(Some(end)) => {
                        self.position = end;
                        continue;
                    }
                },
                b'.' | b'(' | b')' | b'[' | b']' | b',' | b';' => {
                    self.token(TokenKind::Punctuation(first), self.position + 1)
                }
                _ => self.token(TokenKind::Problem, self.position + 1),
            });
        }
    }
}

/// Byte ranges of a text's tokens, without hints: `Tokens` count these.
pub fn token_ranges(text: &str) -> Vec<(u32, u32)> {
    let tokens = Lexer::new(text.as_bytes()).filter(|token| token.kind != TokenKind::Hint);
    tokens.map(|token| (token.start, token.end)).collect()
}

/// The bytes from the first to the last of `tokens`.
pub fn bytes_of(ranges: &[(u32, u32)], tokens: Tokens) -> Range<usize> {
    let at = |index: u32| ranges.get(index as usize);
    match (at(tokens.start), tokens.end.checked_sub(1).and_then(at)) {
        (Some(first), Some(last)) if tokens.start < tokens.end => first.0 as usize..last.1 as usize,
        _ => 0..0,
    }
}

/// Makes shapes; its buffers are used again and again.
#[derive(Default)]
pub(super) struct Scanner {
    pub shape: Vec<u8>,
    pub literals: Vec<LiteralSpan>,
}

impl Scanner {
    /// Fills `shape` and `literals`. Two texts of one shape have the same tokens and differ in literals' values only.
    /// `false`: the text has no shape but itself.
    pub(super) fn scan(&mut self, text: &[u8]) -> bool {
        self.shape.clear();
        self.literals.clear();
        let mut previous = TokenKind::Punctuation(b';');
        let mut first = true;
        let mut lifts = true;
        for token in Lexer::new(text) {
            let (start, end) = (token.start as usize, token.end as usize);
            let wordlike = |kind| !matches!(kind, TokenKind::Operator | TokenKind::Punctuation(_) | TokenKind::Hint);
            let clash = token.kind == TokenKind::Operator && previous == TokenKind::Operator;
            if clash || (wordlike(token.kind) && wordlike(previous)) {
                self.shape.push(b' ');
            }
            match token.kind {
                TokenKind::Literal(kind) => {
                    self.literals.push(LiteralSpan { start: token.start, end: token.end, kind });
                    self.shape.extend_from_slice(&[LITERAL, kind as u8]);
                }
                TokenKind::Word => {
                    let from = self.shape.len();
                    self.shape.extend_from_slice(&text[start..end]);
                    self.shape[from..].make_ascii_lowercase();
                    if first {
                        lifts = LIFTED.contains(&&self.shape[from..]);
                        first = false;
                    }
                }
                TokenKind::Problem => lifts = false,
                _ => self.shape.extend_from_slice(&text[start..end]),
            }
            previous = token.kind;
        }
        lifts
    }
}

/// Statements that begin with one of these mean the same whatever their literals; others may not.
const LIFTED: [&[u8]; 9] =
    [b"select", b"insert", b"update", b"delete", b"with", b"values", b"table", b"merge", b"explain"];
/// No text that came in a message has it elsewhere.
const LITERAL: u8 = 0;

const SPACE: u8 = 1;
const LETTER: u8 = 2;
const DIGIT: u8 = 3;
const DOLLAR: u8 = 4;
const OPERATOR: u8 = 5;
/// The class of a byte; bytes of no class are their own.
const CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte: usize = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => SPACE,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => LETTER,
            b'0'..=b'9' => DIGIT,
            b'$' => DOLLAR,
            b'+' | b'-' | b'*' | b'/' | b'<' | b'>' | b'=' | b'~' | b'!' | b'@' | b'#' | b'%' | b'^' | b'&' | b'|'
            | b'`' | b'?' | b':' => OPERATOR,
            other @ (b'(' | b')' | b'[' | b']' | b',' | b';' | b'.' | b'\'' | b'"') => other,
            _ => 0,
        };
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str) -> Vec<&str> {
        Lexer::new(text.as_bytes()).map(|token| &text[token.start as usize..token.end as usize]).collect()
    }

    fn check(text: &str, expected: &[&str]) {
        assert_eq!(pieces(text), expected, "{text}");
    }

    #[test]
    fn texts_are_split_as_postgresql_splits_them() {
        check("select 1", &["select", "1"]);
        check("a.b>=-1::int", &["a", ".", "b", ">=", "-", "1", "::", "int"]);
        check("a=-+1 b@-1 c->d e-f", &["a", "=", "-", "+", "1", "b", "@-", "1", "c", "->", "d", "e", "-", "f"]);
        check("'it''s' E'a\\'b' x'1f' U&'\\0041' n'x'", &["'it''s'", "E'a\\'b'", "x'1f'", "U&'\\0041'", "n'x'"]);
        check("$1+$22 $$a'b$$ $x$ $$ $x$", &["$1", "+", "$22", "$$a'b$$", "$x$ $$ $x$"]);
        check("1.5e-3 .5 1. 1..2", &["1.5e-3", ".5", "1.", "1", ".", ".2"]);
        check("0x1F 0b1_0 1_000+2 1_000.5e1_0", &["0x1F", "0b1_0", "1_000", "+", "2", "1_000.5e1_0"]);
        check("a--b\nc/*d/*e*/f*/g", &["a", "c", "g"]);
        check("\"a\"\"b\" c$d é", &["\"a\"\"b\"", "c$d", "é"]);
        check("x(a,b)[1];", &["x", "(", "a", ",", "b", ")", "[", "1", "]", ";"]);
        check("'open", &["'open"]);
        check("'\\'", &["'\\'"]);
        check("E'a' --b'\n 'c\\'d' 'e'", &["E'a' --b'\n 'c\\'d'", "'e'"]);
        check("'a'\n'b\\'", &["'a'", "'b\\'"]);
    }

    fn shape(text: &str) -> (Vec<u8>, bool) {
        let mut scanner = Scanner::default();
        let lifts = scanner.scan(text.as_bytes());
        (scanner.shape, lifts)
    }

    #[test]
    fn shapes_differ_where_meaning_does() {
        assert_eq!(shape("SELECT  x FROM t WHERE id=42"), shape("select x from t where id =\n7 -- why"));
        assert_eq!(shape("select 'a'"), shape("select 'b'"));
        for (one, other) in [
            ("select 'a'", "select 1"),
            ("select 1", "select 1.0"),
            ("select \"A\"", "select a"),
            ("select a b", "select ab"),
            ("select 1 < = 2", "select 1 <= 2"),
            ("select 1 /* pgweir: shard=1 */", "select 1"),
            ("select $1", "select $2"),
        ] {
            assert_ne!(shape(one), shape(other), "{one} and {other}");
        }
    }

    #[test]
    fn only_statements_whose_literals_do_not_matter_are_lifted() {
        assert!(shape("select 1").1 && shape("/* x */ INSERT into t values (1)").1);
        for text in ["set a = 'b'", "create table t(a int default 1)", "select 'open", "begin"] {
            assert!(!shape(text).1, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_scanned(text: Vec<u8>) {
            let mut end = 0;
            for token in Lexer::new(&text) {
                assert!(token.start as usize >= end && token.end > token.start && token.end as usize <= text.len());
                end = token.end as usize;
            }
            Scanner::default().scan(&text);
        }
    }
}
