//! Reads bodies in PL/pgSQL (PostgreSQL documentation, chapter 43), as far as it takes to find the statements of SQL that
//! stand in them as they are.

use super::commands::Cursor;
use super::scan::{Lexer, Token, TokenKind};
use super::types::{Body, Kind, Statement};
use super::values::decode;

/// The body of a DO: the rest of its tokens behind that word.
pub(super) fn body_of_do(cursor: Cursor<'_>) -> Body {
    body(cursor, cursor.tokens)
}

/// What a text does by a function for its session alone, which it makes, calls and drops: the function's body.
///
/// `CREATE FUNCTION pg_temp.f() … AS '…'; SELECT … FROM pg_temp.f(); DROP FUNCTION pg_temp.f()`
pub(super) fn body_made_and_dropped(mut made: Cursor<'_>, called: &Statement, mut dropped: Cursor<'_>) -> Option<Body> {
    made.take(&["CREATE"]).then_some(())?;
    made.take(&["OR", "REPLACE"]);
    dropped.take(&["DROP", "FUNCTION"]).then_some(())?;
    dropped.take(&["IF", "EXISTS"]);
    let function = made.take(&["FUNCTION"]).then(|| made.object())?;
    let is_own = |schema: &Option<String>| schema.as_deref() == Some("pg_temp");
    let reads_tables = || called.blocks.iter().flat_map(|block| &block.relations).any(|known| known.table.is_some());
    let calls_it_alone = called.kind == Kind::Query && called.calls.iter().all(|call| call.name == function);
    let is_dropped = dropped.object() == function && !dropped.has(",");
    if !is_own(&function.schema) || !calls_it_alone || reads_tables() || !is_dropped {
        return None;
    }
    // Settings of its own may change what names mean, defaults of parameters are computed.
    if ["set", "default", "="].iter().any(|word| made.has(word)) {
        return None;
    }
    Some(body(made, made.tokens))
}

/// `tokens` have the body as a literal, and may name its language.
fn body(cursor: Cursor<'_>, tokens: &[Token]) -> Body {
    let literals = || tokens.iter().filter(|token| matches!(token.kind, TokenKind::Literal(_)));
    let unread = || Body {
        statements: Vec::new(),
        words: literals().flat_map(|token| words_of(cursor.written(token)).collect::<Vec<_>>()).collect(),
    };
    let language = tokens.iter().position(|token| cursor.written(token).eq_ignore_ascii_case("language"));
    let named = language.and_then(|at| tokens.get(at + 1)).map_or("plpgsql", |token| cursor.written(token));
    let is_name = |token: &Token| Some(token) == language.and_then(|at| tokens.get(at + 1));
    let [text] = literals().filter(|token| !is_name(token)).collect::<Vec<_>>()[..] else { return unread() };
    let TokenKind::Literal(kind) = text.kind else { return unread() };
    let is_known = named.trim_matches('\'').eq_ignore_ascii_case("plpgsql");
    match decode(cursor.written(text), kind).filter(|_| is_known) {
        Some(text) => read(&text).unwrap_or_else(unread),
        None => unread(),
    }
}

/// Each name, keyword and number of a text that may not be one of SQL, in lower case.
fn words_of(text: &str) -> impl Iterator<Item = String> {
    let is_letter = |letter: char| letter.is_alphanumeric() || letter == '_';
    text.split(move |letter| !is_letter(letter)).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

/// `None`: not understood.
fn read(text: &str) -> Option<Body> {
    let tokens: Vec<Token> = Lexer::new(text.as_bytes()).filter(|token| token.kind != TokenKind::Hint).collect();
    if tokens.iter().any(|token| token.kind == TokenKind::Problem) || text.trim_start().starts_with('#') {
        return None;
    }
    let mut body = Body { statements: Vec::new(), words: Vec::new() };
    let mut cursor = Cursor { text, tokens: &tokens, first: 0 };
    while !cursor.tokens.is_empty() {
        if !begins_statement(cursor.peek()) {
            let end = end_of_control(cursor);
            body.words.extend(cursor.tokens[..end].iter().flat_map(|token| words_of(cursor.written(token))));
            cursor.skip(end);
            continue;
        }
        let end = end_of_statement(cursor);
        body.statements.push(statement(Cursor { tokens: &cursor.tokens[..end], ..cursor }).into());
        cursor.skip(end);
    }
    Some(body)
}

fn begins_statement(word: &str) -> bool {
    const WORDS: [&str; 7] = ["select", "insert", "update", "delete", "merge", "with", "perform"];
    WORDS.iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// Up to its semicolon.
fn end_of_statement(cursor: Cursor<'_>) -> usize {
    cursor.tokens.iter().position(|token| token.kind == TokenKind::Punctuation(b';')).unwrap_or(cursor.tokens.len())
}

/// What is no statement of SQL ends where one may begin, too.
fn end_of_control(cursor: Cursor<'_>) -> usize {
    const BEFORE_STATEMENTS: [&str; 5] = ["begin", "then", "else", "loop", ";"];
    let may_begin =
        |token: &Token| BEFORE_STATEMENTS.iter().any(|word| cursor.written(token).eq_ignore_ascii_case(word));
    cursor.tokens.iter().position(may_begin).map_or(cursor.tokens.len(), |at| at + 1)
}

/// As SQL has it: without the variables that take its row, PERFORM a SELECT.
fn statement(cursor: Cursor<'_>) -> String {
    let (mut depth, mut gives, mut out, mut from) = (0usize, false, String::new(), cursor.tokens[0].start as usize);
    if cursor.peek().eq_ignore_ascii_case("perform") {
        out.push_str("SELECT");
        from = cursor.tokens[0].end as usize;
    }
    let mut at = 0;
    while let Some(token) = cursor.tokens.get(at) {
        let word = cursor.written(token);
        match token.kind {
            TokenKind::Punctuation(b'(') => depth += 1,
            TokenKind::Punctuation(b')') => depth = depth.saturating_sub(1),
            TokenKind::Word if depth == 0 && word.eq_ignore_ascii_case("into") && gives => {
                out.push_str(&cursor.text[from..token.start as usize]);
                at += targets(Cursor { tokens: &cursor.tokens[at..], ..cursor });
                from = cursor.tokens.get(at).map_or(cursor.tokens[at - 1].end, |next| next.start) as usize;
                continue;
            }
            // INSERT INTO and MERGE INTO name tables.
            TokenKind::Word if depth == 0 => {
                let begins = ["select", "returning"].iter().any(|known| word.eq_ignore_ascii_case(known));
                let changes = ["insert", "merge"].iter().any(|known| word.eq_ignore_ascii_case(known));
                gives = (gives || begins) && !changes;
            }
            _ => {}
        }
        at += 1;
    }
    let end = cursor.tokens[cursor.tokens.len() - 1].end as usize;
    out.push_str(&cursor.text[from.min(end)..end]);
    out
}

/// How many tokens `INTO [STRICT] target [, …]` has.
fn targets(cursor: Cursor<'_>) -> usize {
    let mut rest = cursor;
    rest.take(&["INTO"]);
    rest.take(&["STRICT"]);
    rest.object();
    while rest.take(&[","]) {
        rest.object();
    }
    cursor.tokens.len() - rest.tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as(text: &str) -> (Vec<String>, String) {
        let body = read(text).unwrap();
        (body.statements.iter().map(ToString::to_string).collect(), body.words.join(" "))
    }

    #[test]
    fn statements_are_found_between_control_structures() {
        let (statements, words) = read_as(
            "DECLARE n int := 1; BEGIN IF n > 0 THEN INSERT INTO t VALUES (1, CASE WHEN true THEN 2 END) RETURNING a, b \
             INTO x, y.z; ELSE PERFORM f(2) FROM t; END IF; LOOP UPDATE t SET a = n; EXIT; END LOOP; \
             SELECT a INTO STRICT n FROM t WHERE b = 'into x; y'; EXCEPTION WHEN unique_violation THEN RAISE; END",
        );
        let expected = [
            "INSERT INTO t VALUES (1, CASE WHEN true THEN 2 END) RETURNING a, b ",
            "SELECT f(2) FROM t",
            "UPDATE t SET a = n",
            "SELECT a FROM t WHERE b = 'into x; y'",
        ];
        assert_eq!(statements, expected);
        assert_eq!(
            words,
            "declare n int 1 begin if n 0 then else end if loop exit end loop exception when unique_violation then raise end"
        );
    }

    #[test]
    fn what_is_not_at_the_front_of_a_statement_is_words() {
        let (statements, words) =
            read_as("BEGIN FOR r IN SELECT 1 FROM t LOOP DELETE FROM u; END LOOP; RETURN QUERY SELECT 1; END");
        assert_eq!(statements, ["DELETE FROM u"]);
        assert!(words.contains("for r in select 1 from t loop") && words.contains("return query select 1"), "{words}");
        assert!(read("#variable_conflict use_variable BEGIN END").is_none());
    }
}
