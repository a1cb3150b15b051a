//! EXECUTE with its arguments, also within EXPLAIN.

use std::ops::Range;

use super::naming::{NameOfPrepared, Naming, prepared_names};
use super::scan::{Lexer, LiteralKind, Token, TokenKind};
use super::values::decode;

/// What is executed, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    pub name: String,
    pub arguments: Vec<Argument>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its bytes in the text.
    pub place: Range<usize>,
    pub constant: Constant,
}

/// What an argument is as it stands, without its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Constant {
    Null,
    /// As PostgreSQL prints it.
    Integer(i64),
    /// A literal that takes the type it is needed in.
    Text(String),
    /// A server must say.
    Computed,
}

/// Of a text of one statement. `None`: PostgreSQL may not take it for an EXECUTE either.
pub fn execution(text: &str) -> Option<Execution> {
    let NameOfPrepared { name, place, naming: Naming::Uses } = prepared_names(text).into_iter().next()? else {
        return None;
    };
    let tokens: Vec<Token> = Lexer::new(text.as_bytes())
        .filter(|token| token.kind != TokenKind::Hint && token.start as usize >= place.end)
        .collect();
    let end = tokens.iter().rposition(|token| token.kind != TokenKind::Punctuation(b';')).map_or(0, |last| last + 1);
    let arguments = match &tokens[..end] {
        [] => Vec::new(),
        [open, inner @ .., close]
            if (open.kind, close.kind) == (TokenKind::Punctuation(b'('), TokenKind::Punctuation(b')')) =>
        {
            split(inner)?.into_iter().map(|argument| of(text, argument)).collect()
        }
        _ => return None,
    };
    Some(Execution { name, arguments })
}

/// At the commas that stand in no parentheses.
fn split(inner: &[Token]) -> Option<Vec<&[Token]>> {
    let mut depth = 0usize;
    let mut is_comma = Vec::with_capacity(inner.len());
    for token in inner {
        match token.kind {
            TokenKind::Punctuation(b'(' | b'[') => depth += 1,
            TokenKind::Punctuation(b')' | b']') => depth = depth.checked_sub(1)?,
            _ => {}
        }
        is_comma.push(depth == 0 && token.kind == TokenKind::Punctuation(b','));
    }
    let mut commas = is_comma.into_iter();
    let parts: Vec<&[Token]> = inner.split(|_| commas.next().unwrap_or_default()).collect();
    (depth == 0 && parts.iter().all(|part| !part.is_empty())).then_some(parts)
}

fn of(text: &str, tokens: &[Token]) -> Argument {
    let written = |token: &Token| &text[token.start as usize..token.end as usize];
    let place = tokens[0].start as usize..tokens[tokens.len() - 1].end as usize;
    let constant = match tokens {
        [only] if only.kind == TokenKind::Word && written(only).eq_ignore_ascii_case("null") => Constant::Null,
        [only] => match only.kind {
            TokenKind::Literal(LiteralKind::Integer) => integer(written(only), false),
            TokenKind::Literal(kind @ (LiteralKind::Text | LiteralKind::Escape | LiteralKind::Dollar)) => {
                decode(written(only), kind).map(|value| Constant::Text(value.into_owned()))
            }
            _ => None,
        }
        .unwrap_or(Constant::Computed),
        [sign, only] if written(sign) == "-" && only.kind == TokenKind::Literal(LiteralKind::Integer) => {
            integer(written(only), true).unwrap_or(Constant::Computed)
        }
        _ => Constant::Computed,
    };
    Argument { place, constant }
}

/// Radixes and underscores are left to the server, which may be too old for them.
fn integer(written: &str, negative: bool) -> Option<Constant> {
    let value: i64 = written.parse().ok()?;
    Some(Constant::Integer(if negative { -value } else { value }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Option<Vec<(&str, Constant)>> {
        let found = execution(text)?.arguments;
        Some(found.into_iter().map(|argument| (&text[argument.place], argument.constant)).collect())
    }

    #[test]
    fn arguments_are_told_apart() {
        let text = "execute \"P\" (1, -2, 'it''s', null, e'a\\n', f(1, 2), array[1,2], 1.5, 'x'::text, $$b$$) ;";
        let expected = [
            ("1", Constant::Integer(1)),
            ("-2", Constant::Integer(-2)),
            ("'it''s'", Constant::Text("it's".to_owned())),
            ("null", Constant::Null),
            ("e'a\\n'", Constant::Text("a\n".to_owned())),
            ("f(1, 2)", Constant::Computed),
            ("array[1,2]", Constant::Computed),
            ("1.5", Constant::Computed),
            ("'x'::text", Constant::Computed),
            ("$$b$$", Constant::Text("b".to_owned())),
        ];
        assert_eq!(arguments(text).unwrap(), expected);
        assert_eq!(execution(text).unwrap().name, "P");
        assert_eq!(arguments("explain (costs off) execute p(3)"), Some(vec![("3", Constant::Integer(3))]));
        assert_eq!(arguments("execute p"), Some(Vec::new()));
    }

    #[test]
    fn what_is_no_execute_is_none() {
        for text in ["execute p()", "execute p(1", "execute p 1", "execute p(1,)", "execute p(1) x", "execute p(1))"] {
            assert_eq!(execution(text), None, "{text}");
        }
    }
}
