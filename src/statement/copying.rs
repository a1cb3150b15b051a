//! COPY of a table: read from its tokens.

use super::clauses::closing;
use super::commands::{Cursor, folded};
use super::scan::{Lexer, Token, TokenKind};
use super::types::{Call, Copy, CopyFormat, CopyOptions, ObjectName, OptionColumns, Tokens};
use super::values::decode;

/// What follows the keyword; `None` for COPY (query), which the grammar must read.
pub(super) fn copy(mut cursor: Cursor<'_>) -> Option<Copy> {
    if cursor.peek() == "(" {
        return None;
    }
    let mut options = CopyOptions::default();
    if cursor.take(&["BINARY"]) {
        options.format = CopyFormat::Binary;
    }
    let (table, query) = (Some(cursor.object()), None);
    let columns = if cursor.peek() == "(" { names(&mut cursor) } else { Vec::new() };
    let from = cursor.take(&["FROM"]);
    cursor.take(&["TO"]);
    let is_client = at_client(&mut cursor);
    let understood = read_options(&mut cursor, &mut options).is_some();
    let filtered = cursor.take(&["WHERE"]);
    let understood = understood && (filtered || cursor.tokens.is_empty());
    Some(Copy { table, query, columns, from, is_client, filtered, options: understood.then_some(options) })
}

/// Of `COPY (query)`; `cursor` is behind the parenthesis.
pub(super) fn copy_of_query(query: Tokens, mut cursor: Cursor<'_>) -> Copy {
    cursor.take(&["TO"]);
    let is_client = at_client(&mut cursor);
    let mut options = CopyOptions::default();
    let understood = read_options(&mut cursor, &mut options).is_some() && cursor.tokens.is_empty();
    let (query, options) = (Some(query), understood.then_some(options));
    Copy { table: None, query, columns: Vec::new(), from: false, is_client, filtered: false, options }
}

/// The query of a text that is a COPY (query), whatever that does.
pub fn copied_query(text: &str) -> Option<&str> {
    let tokens: Vec<Token> = Lexer::new(text.as_bytes()).filter(|token| token.kind != TokenKind::Hint).collect();
    let (copy, open) = (tokens.first()?, tokens.get(1)?);
    let place = |token: &Token| token.start as usize..token.end as usize;
    if !text[place(copy)].eq_ignore_ascii_case("COPY") || open.kind != TokenKind::Punctuation(b'(') {
        return None;
    }
    let close = tokens.get(closing(&tokens, 1)? as usize)?;
    text.get(open.end as usize..close.start as usize)
}

/// Else it names a file or program of the server's.
fn at_client(cursor: &mut Cursor<'_>) -> bool {
    let is_client = cursor.take_any(&["STDIN", "STDOUT"]);
    if !is_client {
        cursor.take(&["PROGRAM"]);
        cursor.skip(1);
    }
    is_client
}

/// Whatever stands in front of a parenthesis in the condition may be a function.
pub(super) fn calls_of_filter(mut cursor: Cursor<'_>) -> Vec<Call> {
    let mut calls = Vec::new();
    while !cursor.tokens.is_empty() && !cursor.take(&["WHERE"]) {
        cursor.skip(1);
    }
    let is_name = |kind| matches!(kind, TokenKind::Word | TokenKind::QuotedName);
    while let Some(token) = cursor.tokens.first() {
        if !is_name(token.kind) {
            cursor.skip(1);
            continue;
        }
        let name: ObjectName = cursor.object();
        if cursor.peek() == "(" {
            calls.push(Call { name, arguments: Vec::new(), once: false });
        }
    }
    calls
}

/// `(a, b)`
fn names(cursor: &mut Cursor<'_>) -> Vec<String> {
    let mut names = Vec::new();
    cursor.take(&["("]);
    while !cursor.take(&[")"]) && !cursor.tokens.is_empty() {
        names.push(cursor.name());
        cursor.take(&[","]);
    }
    names
}

/// `None`: there is something among them that is not known here.
fn read_options(cursor: &mut Cursor<'_>, options: &mut CopyOptions) -> Option<()> {
    if cursor.take(&["USING", "DELIMITERS"]) || cursor.take(&["DELIMITERS"]) {
        options.delimiter = Some(string(cursor)?);
    }
    cursor.take(&["WITH"]);
    if cursor.take(&["("]) {
        while !cursor.take(&[")"]) {
            read_option(cursor, options)?;
            if !cursor.take(&[","]) && cursor.peek() != ")" {
                return None;
            }
        }
        return Some(());
    }
    while !cursor.tokens.is_empty() && !cursor.peek().eq_ignore_ascii_case("WHERE") {
        read_old_option(cursor, options)?;
    }
    Some(())
}

/// One of a list in parentheses.
fn read_option(cursor: &mut Cursor<'_>, options: &mut CopyOptions) -> Option<()> {
    match cursor.name().as_str() {
        "format" => {
            options.format = match string(cursor)?.as_str() {
                "text" => CopyFormat::Text,
                "csv" => CopyFormat::Csv,
                "binary" => CopyFormat::Binary,
                _ => return None,
            }
        }
        "freeze" => drop(flag(cursor)?),
        "header" => options.header = flag(cursor)?,
        "delimiter" => options.delimiter = Some(string(cursor)?),
        "null" => options.null = Some(string(cursor)?),
        "quote" => options.quote = Some(string(cursor)?),
        "escape" => options.escape = Some(string(cursor)?),
        "encoding" => options.encoding = Some(string(cursor)?),
        "force_quote" => options.force_quote = columns(cursor),
        "force_not_null" => options.force_not_null = columns(cursor),
        "force_null" => options.force_null = columns(cursor),
        _ => return None,
    }
    Some(())
}

/// One as they were written before PostgreSQL 9.0.
fn read_old_option(cursor: &mut Cursor<'_>, options: &mut CopyOptions) -> Option<()> {
    let value = |cursor: &mut Cursor<'_>| {
        cursor.take(&["AS"]);
        string(cursor)
    };
    if cursor.take(&["BINARY"]) {
        options.format = CopyFormat::Binary;
    } else if cursor.take(&["CSV"]) {
        options.format = CopyFormat::Csv;
    } else if cursor.take(&["HEADER"]) {
        options.header = true;
    } else if cursor.take(&["DELIMITER"]) {
        options.delimiter = Some(value(cursor)?);
    } else if cursor.take(&["NULL"]) {
        options.null = Some(value(cursor)?);
    } else if cursor.take(&["QUOTE"]) {
        options.quote = Some(value(cursor)?);
    } else if cursor.take(&["ESCAPE"]) {
        options.escape = Some(value(cursor)?);
    } else if cursor.take(&["ENCODING"]) {
        options.encoding = Some(value(cursor)?);
    } else if cursor.take(&["FORCE", "NOT", "NULL"]) {
        options.force_not_null = columns(cursor);
    } else if cursor.take(&["FORCE", "NULL"]) {
        options.force_null = columns(cursor);
    } else if cursor.take(&["FORCE", "QUOTE"]) {
        options.force_quote = columns(cursor);
    } else {
        return cursor.take(&["FREEZE"]).then_some(());
    }
    Some(())
}

/// `(a, b)`, `a, b` or `*`
fn columns(cursor: &mut Cursor<'_>) -> OptionColumns {
    if cursor.take(&["*"]) {
        return OptionColumns::All;
    }
    if cursor.peek() == "(" {
        return OptionColumns::These(names(cursor));
    }
    let mut listed = vec![cursor.name()];
    while cursor.take(&[","]) {
        listed.push(cursor.name());
    }
    OptionColumns::These(listed)
}

/// A string, or a word that stands for one.
fn string(cursor: &mut Cursor<'_>) -> Option<String> {
    let token = cursor.tokens.first()?;
    let written = cursor.written(token);
    let string = match token.kind {
        TokenKind::Literal(kind) => decode(written, kind)?.into_owned(),
        TokenKind::Word | TokenKind::QuotedName => folded(written, token.kind),
        _ => return None,
    };
    cursor.skip(1);
    Some(string)
}

/// A truth value; nothing is true. MATCH asks for a header, too.
fn flag(cursor: &mut Cursor<'_>) -> Option<bool> {
    if matches!(cursor.peek(), "," | ")") {
        return Some(true);
    }
    match string(cursor)?.to_ascii_lowercase().as_str() {
        "true" | "on" | "1" | "match" => Some(true),
        "false" | "off" | "0" => Some(false),
        _ => None,
    }
}
