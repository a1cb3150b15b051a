//! From a text to what its statements mean.

use std::borrow::Cow;
use std::sync::Arc;

use sqlparser::ast::{self, Statement as Ast};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Location, Token as SqlToken, TokenWithSpan, Tokenizer};

use super::assignments;
use super::blocks::{self, Walker};
use super::clauses;
use super::commands::{Cursor, command, explained};
use super::copying::{self, calls_of_filter};
use super::hints;
use super::names::{is_own, last_part};
use super::naming::names_prepared;
use super::plainer::{BEFORE_QUERIES, plainer};
use super::procedural::body_made_and_dropped;
use super::processes;
use super::scan::{Lexer, Token, TokenKind};
use super::types::{
    Analysis, Filled, Hints, Insert, InsertPlaces, InsertSource, Kind, LISTENING_CHANNELS, ObjectName, Overriding,
    PREPARED_STATEMENTS, Respelling, Row, SourceQuery, Statement, Tokens, Update,
};
use super::uses;

/// Understands a text. Never fails: what cannot be read is [`Kind::Unknown`].
pub fn analyze(text: &str) -> Analysis {
    let mut hints = Hints::default();
    let mut tokens = Vec::new();
    for token in Lexer::new(text.as_bytes()) {
        match token.kind {
            TokenKind::Hint => hints::read(&text[token.start as usize..token.end as usize], &mut hints),
            _ => tokens.push(token),
        }
    }
    let literals: Vec<u32> =
        tokens.iter().filter(|token| matches!(token.kind, TokenKind::Literal(_))).map(|token| token.start).collect();
    let source = Source { text, tokens: &tokens, literals: &literals };
    let mut sensitive = false;
    let mut statements = Vec::new();
    for part in split(text, &tokens) {
        let mut statement = source.statement(part, &mut sensitive);
        statement.hints = hints.clone();
        statements.push(Arc::new(statement));
    }
    let parameters = tokens.iter().filter(|token| token.kind == TokenKind::Parameter);
    let numbers = parameters.filter_map(|token| text[token.start as usize + 1..token.end as usize].parse().ok());
    let names_prepared = statements.iter().any(|statement| names_prepared(&statement.kind));
    let names_processes = statements.iter().any(|statement| processes::names_processes(statement));
    let shows_session = names_processes || statements.iter().any(|statement| shows_session(statement));
    let parameters = numbers.max().unwrap_or(0);
    let body = match statements.as_slice() {
        [made, called, dropped] => {
            body_made_and_dropped(source.cursor(made.tokens), called, source.cursor(dropped.tokens))
        }
        _ => None,
    };
    Analysis {
        statements,
        parameters,
        literal_sensitive: sensitive,
        names_prepared,
        shows_session,
        names_processes,
        body,
    }
}

fn shows_session(statement: &Statement) -> bool {
    let relations = statement.blocks.iter().flat_map(|block| &block.relations);
    let mut tables = relations.filter_map(|relation| relation.table.as_ref());
    tables.any(|table| is_own(table, |name| name == PREPARED_STATEMENTS))
        || statement.calls.iter().any(|call| is_own(&call.name, |name| name == LISTENING_CHANNELS))
        || processes::shows_number(statement)
        || processes::signals(statement)
}

/// A text with its tokens, numbered from 0.
#[derive(Clone, Copy)]
pub(super) struct Source<'t> {
    pub text: &'t str,
    pub tokens: &'t [Token],
    /// Where each literal starts, ascending.
    pub literals: &'t [u32],
}

impl<'t> Source<'t> {
    pub(super) fn cursor(self, part: Tokens) -> Cursor<'t> {
        Cursor { text: self.text, tokens: &self.tokens[part.start as usize..part.end as usize], first: part.start }
    }

    pub(super) fn statement(self, part: Tokens, sensitive: &mut bool) -> Statement {
        let cursor = self.cursor(part);
        let unknown = || Statement::of(unknown(cursor), part);
        if cursor.tokens.iter().any(|token| token.kind == TokenKind::Problem) {
            *sensitive = true;
            return unknown();
        }
        if cursor.peek().eq_ignore_ascii_case("EXPLAIN") {
            return self.explain(part, sensitive);
        }
        if let Some(kind) = command(cursor) {
            *sensitive = true;
            let mut statement = Statement::of(kind, part);
            if cursor.peek().eq_ignore_ascii_case("CREATE") {
                self.add_source_of_create(part, &mut statement, sensitive);
            }
            if let Kind::Copy(copy) = &statement.kind {
                statement.calls = if copy.filtered { calls_of_filter(cursor) } else { Vec::new() };
                statement.blocks.extend(copy.table.clone().filter(|_| !copy.from).map(blocks::of_table));
            }
            return statement;
        }
        if cursor.peek().eq_ignore_ascii_case("DECLARE") {
            return self.declare(part, sensitive);
        }
        if cursor.peek().eq_ignore_ascii_case("COPY") {
            return self.copy_query(part, sensitive);
        }
        if cursor.peek().eq_ignore_ascii_case("TABLE") {
            return self.table(part).or_else(|| self.parsed(part, sensitive)).unwrap_or_else(unknown);
        }
        let mut statement = self.parsed(part, sensitive).unwrap_or_else(unknown);
        if let (Kind::Update(_) | Kind::Delete { .. }, Some(cursor)) = (&statement.kind, self.positioned(part)) {
            statement.kind = Kind::Positioned { cursor };
        }
        statement
    }

    /// The cursor of WHERE CURRENT OF.
    fn positioned(self, part: Tokens) -> Option<String> {
        let start = self.outer_word(part, "where")? + 1;
        let mut cursor = self.cursor(Tokens { start, end: part.end });
        cursor.take(&["CURRENT", "OF"]).then(|| cursor.name())
    }

    /// A query within a command, which is nothing but a query.
    fn query(self, part: Tokens, sensitive: &mut bool) -> Statement {
        let unknown = || Statement::of(unknown(self.cursor(part)), part);
        self.parsed(part, sensitive).unwrap_or_else(unknown)
    }

    fn explain(self, part: Tokens, sensitive: &mut bool) -> Statement {
        let (route, analyze, inner) = explained(self.cursor(part));
        if route {
            return Statement::of(Kind::ExplainRoute { inner }, part);
        }
        // It explains no other EXPLAIN, nor do we go down as far as a text goes on.
        let is_explain = self.cursor(inner).peek().eq_ignore_ascii_case("EXPLAIN");
        let mut statement = if is_explain { self.query(inner, sensitive) } else { self.statement(inner, sensitive) };
        let kind = Box::new(statement.kind);
        statement.kind = Kind::Explain { analyze, inner: kind };
        statement.tokens = part;
        statement
    }

    /// DECLARE name [options] CURSOR [options] FOR query
    fn declare(self, part: Tokens, sensitive: &mut bool) -> Statement {
        *sensitive = true;
        let mut cursor = self.cursor(part);
        cursor.skip(1);
        let name = cursor.name();
        let (mut hold, mut binary, mut scroll) = (false, false, None);
        while !cursor.tokens.is_empty() && !cursor.take(&["FOR"]) {
            hold |= cursor.take(&["WITH", "HOLD"]);
            binary |= cursor.take(&["BINARY"]);
            if cursor.take(&["NO", "SCROLL"]) {
                scroll = Some(false);
            } else if cursor.take(&["SCROLL"]) {
                scroll = Some(true);
            } else if !cursor.peek().eq_ignore_ascii_case("FOR") {
                cursor.skip(1);
            }
        }
        let mut statement = self.query(Tokens { start: cursor.first, end: part.end }, sensitive);
        statement.kind = Kind::DeclareCursor { name, hold, binary, scroll };
        statement.tokens = part;
        statement
    }

    /// TABLE name, which is `SELECT * FROM name`.
    fn table(self, part: Tokens) -> Option<Statement> {
        let mut cursor = self.cursor(part);
        cursor.skip(1);
        cursor.take(&["ONLY"]);
        let name = cursor.object();
        let mut statement = Statement::of(Kind::Query, part);
        statement.blocks.push(blocks::of_table(name));
        statement.shape.columns.push(clauses::wildcard(part));
        cursor.tokens.is_empty().then_some(statement)
    }

    /// COPY (query) TO …
    fn copy_query(self, part: Tokens, sensitive: &mut bool) -> Statement {
        *sensitive = true;
        let cursor = self.cursor(part);
        let Some(end) = clauses::closing(cursor.tokens, 1) else {
            return Statement::of(Kind::Unknown { keyword: "COPY".to_owned() }, part);
        };
        let inner = Tokens { start: part.start + 2, end: part.start + end };
        let mut statement = self.query(inner, sensitive);
        statement.kind = match statement.kind {
            Kind::Query => {
                let behind = Tokens { start: inner.end + 1, end: part.end };
                Kind::Copy(copying::copy_of_query(inner, self.cursor(behind)))
            }
            _ => Kind::ModifyingQuery { into: false },
        };
        statement.tokens = part;
        statement
    }

    /// CREATE TABLE … AS query: where the rows come from matters as for a query.
    fn add_source_of_create(self, part: Tokens, statement: &mut Statement, sensitive: &mut bool) {
        let mut cursor = self.cursor(part);
        let (Kind::Ddl(ddl), Some((table, columns, conditional)), Some(start)) =
            (&mut statement.kind, filled_table(&mut cursor), outer_as(cursor))
        else {
            return;
        };
        let ends = |words: &[&str]| {
            let behind = part.end.saturating_sub(u32::try_from(words.len()).expect("a few"));
            self.cursor(Tokens { start: behind.max(start), end: part.end }).take(words)
        };
        let (empty, words) = match () {
            () if ends(&["WITH", "NO", "DATA"]) => (true, 3),
            () if ends(&["WITH", "DATA"]) => (false, 2),
            () => (false, 0),
        };
        let source = self.statement(Tokens { start, end: part.end - words }, sensitive);
        statement.blocks.clone_from(&source.blocks);
        statement.calls.clone_from(&source.calls);
        let values = self.cursor(source.tokens).peek().eq_ignore_ascii_case("values");
        ddl.filled = Some(Filled { table, columns, query: Arc::new(source), empty, values, conditional });
    }

    /// Reads queries and data changes by the grammar; `None` where it does not understand them.
    fn parsed(self, part: Tokens, sensitive: &mut bool) -> Option<Statement> {
        let range = self.bytes(part);
        if self.longest_chain(part) > CHAIN {
            return None;
        }
        let (ast, places) = parse(&self.readable(part), range.start, self)?;
        let mut walker = Walker::new(self, &places);
        let mut kind = match &ast {
            Ast::Query(query) => walker.outermost(query),
            Ast::Insert(insert) => {
                walker.insert(insert);
                self.insert(insert, part, &walker)?
            }
            Ast::Update(update) => {
                walker.update(update);
                Kind::Update(Update { returning: update.returning.is_some(), clauses: None })
            }
            Ast::Delete(delete) => {
                walker.delete(delete);
                Kind::Delete { returning: delete.returning.is_some() }
            }
            Ast::Merge(merge) => {
                walker.merge(merge);
                Kind::Merge
            }
            _ => return None,
        };
        if !walker.has_walked(&ast) {
            return None;
        }
        if let (Kind::Update(found), Some(update)) = (&mut kind, assignments::updated(&ast)) {
            found.clauses = assignments::clauses(self, part, update);
        }
        let uses = uses::of(&ast, self.cursor(part), &walker);
        let shape = clauses::shape(self, part, &walker);
        *sensitive |= shape.as_ref().is_some_and(|(_, ordinals)| *ordinals);
        let shape = shape.map(|(shape, _)| shape).unwrap_or_default();
        let respelling = match (&ast, &kind) {
            (Ast::Query(query), Kind::ModifyingQuery { into: false }) if walker.writes_once() => {
                self.insert_before_with(query, part)
            }
            (_, Kind::ModifyingQuery { into: true }) => self.creation(part),
            _ => None,
        };
        let respelling = respelling.or_else(|| self.bare_tables(part));
        let composed = self.composed(&kind, &walker, part, sensitive);
        let Walker { blocks, calls, locks_rows, reads_clock, assigned, inserted, .. } = walker;
        let hints = Hints::default();
        Some(Statement {
            kind,
            tokens: part,
            blocks,
            calls,
            locks_rows,
            reads_clock,
            assigned,
            inserted,
            shape,
            hints,
            uses,
            respelling,
            composed,
        })
    }

    /// WITH … INSERT … SELECT, where only its query names what WITH defines.
    fn insert_before_with(self, query: &ast::Query, part: Tokens) -> Option<Respelling> {
        let (ast::SetExpr::Insert(Ast::Insert(insert)), Some(with)) = (&*query.body, &query.with) else { return None };
        let start = self.outer_word(part, "insert")?;
        let source = self.source_of(insert, Tokens { start, end: part.end })?;
        let behind = self.cursor(Tokens { start: source.end, end: part.end });
        let names_one = with.cte_tables.iter().any(|cte| behind.has(&cte.alias.name.value));
        let has_own = self.cursor(source).peek().eq_ignore_ascii_case("with");
        let with = Tokens { start: part.start, end: start };
        (!names_one && !has_own).then_some(Respelling::With { with, source: source.start })
    }

    /// TABLE where a query begins.
    fn bare_tables(self, part: Tokens) -> Option<Respelling> {
        let cursor = self.cursor(part);
        let word = |index: usize| cursor.nth(index).to_ascii_lowercase();
        let begins_query = |index: usize| match index.checked_sub(1).map(word) {
            None => true,
            Some(before) => before == "(" || BEFORE_QUERIES.contains(&before.as_str()),
        };
        let tables = cursor.tokens.iter().zip(part.start..).enumerate();
        let tables = tables.filter(|(index, (token, _))| {
            token.kind == TokenKind::Word && word(*index) == "table" && begins_query(*index)
        });
        let tables: Vec<u32> = tables.map(|(_, (_, number))| number).collect();
        (!tables.is_empty()).then_some(Respelling::Tables(tables))
    }

    /// SELECT … INTO, with what is made of it.
    fn creation(self, part: Tokens) -> Option<Respelling> {
        let start = self.outer_word(part, "into")?;
        let mut cursor = self.cursor(Tokens { start: start + 1, end: part.end });
        let what = match () {
            () if cursor.take_any(&["TEMP", "TEMPORARY"]) => "TEMP ",
            () if cursor.take(&["UNLOGGED"]) => "UNLOGGED ",
            () => "",
        };
        cursor.take(&["TABLE"]);
        let table = cursor.object().quoted();
        let into = Tokens { start, end: cursor.first };
        Some(Respelling::Into { into, create: format!("CREATE {what}TABLE {table} AS ") })
    }

    /// The first such keyword outside of all parentheses.
    pub(super) fn outer_word(self, part: Tokens, wanted: &str) -> Option<u32> {
        let cursor = self.cursor(part);
        let mut depth = 0usize;
        let found = cursor.tokens.iter().position(|token| {
            match token.kind {
                TokenKind::Punctuation(b'(' | b'[') => depth += 1,
                TokenKind::Punctuation(b')' | b']') => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && token.kind == TokenKind::Word && cursor.written(token).eq_ignore_ascii_case(wanted)
        });
        found.and_then(|index| u32::try_from(index).ok()).map(|index| part.start + index)
    }

    /// A part's text as the grammar can read it, every token where it was: it knows no FOR NO KEY UPDATE and no FOR KEY
    /// SHARE.
    fn readable(self, part: Tokens) -> Cow<'t, str> {
        let cursor = self.cursor(part);
        let range = self.bytes(part);
        let mut text = Cow::Borrowed(&self.text[range.clone()]);
        let word = |index: usize| cursor.nth(index).to_ascii_lowercase();
        for index in 0..cursor.tokens.len() {
            if word(index) != "for" {
                continue;
            }
            let unread = match [word(index + 1), word(index + 2), word(index + 3)].each_ref().map(String::as_str) {
                ["no", "key", "update"] => index + 1..index + 3,
                ["key", "share", _] => index + 1..index + 2,
                _ => continue,
            };
            for token in &cursor.tokens[unread] {
                let (start, end) = (token.start as usize - range.start, token.end as usize - range.start);
                text.to_mut().replace_range(start..end, &" ".repeat(end - start));
            }
        }
        text
    }

    fn insert(self, insert: &ast::Insert, part: Tokens, walker: &Walker<'_>) -> Option<Kind> {
        let source = match insert.source.as_ref().map(|query| (&*query.body, blocks::is_bare(query))) {
            None => InsertSource::DefaultValues,
            Some((ast::SetExpr::Values(values), true)) => {
                let places = clauses::rows(self, part);
                if places.len() != values.rows.len() {
                    return None;
                }
                let rows = values.rows.iter().zip(places).map(|(row, tokens)| Row {
                    values: row.iter().map(|value| walker.value(0, value)).collect(),
                    tokens,
                    parameters: self.parameters(tokens),
                });
                InsertSource::Values(rows.collect())
            }
            Some(_) => InsertSource::Query(SourceQuery {
                tokens: self.source_of(insert, part)?,
                untyped: insert.source.as_ref().map(|query| untyped(query)).unwrap_or_default(),
            }),
        };
        let on_conflict = insert.on.as_ref().map(|on| match on {
            ast::OnInsert::OnConflict(conflict) => matches!(conflict.action, ast::OnConflictAction::DoUpdate(_)),
            _ => true,
        });
        let columns = insert.columns.iter().map(last_part).collect();
        let (places, returning) = (self.places(insert, part), insert.returning.is_some());
        let query = match (&source, insert.source.as_ref().map(|query| &*query.body)) {
            (InsertSource::Query(query), _) => Some(query.clone()),
            (InsertSource::Values(rows), Some(ast::SetExpr::Values(values))) => {
                let tokens = places.as_ref().zip(rows.last()).map(|(places, last)| (places.source, last.tokens.end));
                let untyped = untyped_values(values);
                tokens
                    .zip(untyped)
                    .map(|((start, end), untyped)| SourceQuery { tokens: Tokens { start, end }, untyped })
            }
            _ => None,
        };
        Some(Kind::Insert(Insert { columns, source, on_conflict, returning, places, query }))
    }

    /// Where its columns and rows stand.
    fn places(self, insert: &ast::Insert, part: Tokens) -> Option<InsertPlaces> {
        let mut cursor = self.cursor(part);
        cursor.take(&["INSERT", "INTO"]).then_some(())?;
        cursor.object();
        if cursor.take(&["AS"]) {
            cursor.skip(1);
        }
        let (head, mut listed) = (cursor.first, None);
        if !insert.columns.is_empty() {
            let end = cursor.tokens.iter().position(|token| token.kind == TokenKind::Punctuation(b')'))?;
            listed = Some(head + u32::try_from(end).ok()?);
            cursor.skip(end + 1);
        }
        let overriding = match () {
            () if cursor.take(&["OVERRIDING", "SYSTEM", "VALUE"]) => Some(Overriding::System),
            () if cursor.take(&["OVERRIDING", "USER", "VALUE"]) => Some(Overriding::User),
            () => None,
        };
        Some(InsertPlaces { head, listed, overriding, source: cursor.first })
    }

    /// Where the query of an INSERT stands: behind the table and its columns, in front of ON CONFLICT and RETURNING.
    fn source_of(self, insert: &ast::Insert, part: Tokens) -> Option<Tokens> {
        let mut cursor = self.cursor(part);
        let source = self.places(insert, part)?.source;
        cursor.skip((source - cursor.first) as usize);
        let (start, mut depth, mut end) = (cursor.first, 0usize, cursor.tokens.len());
        for (index, token) in cursor.tokens.iter().enumerate() {
            match token.kind {
                TokenKind::Punctuation(b'(' | b'[') => depth += 1,
                TokenKind::Punctuation(b')' | b']') => depth = depth.saturating_sub(1),
                TokenKind::Punctuation(b';') => end = end.min(index),
                TokenKind::Word if depth == 0 => {
                    let word = |index: usize| cursor.nth(index).to_ascii_lowercase();
                    let ends = word(index) == "returning" || (word(index) == "on" && word(index + 1) == "conflict");
                    end = if ends { end.min(index) } else { end };
                }
                _ => {}
            }
        }
        let end = start + u32::try_from(end).ok()?;
        (start < end).then_some(Tokens { start, end })
    }

    /// Parameters used among these tokens, ascending, each once.
    fn parameters(self, tokens: Tokens) -> Vec<usize> {
        let cursor = self.cursor(tokens);
        let used = cursor.tokens.iter().filter(|token| token.kind == TokenKind::Parameter);
        let numbers = used.filter_map(|token| cursor.written(token)[1..].parse::<usize>().ok()?.checked_sub(1));
        let mut numbers: Vec<usize> = numbers.collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// Operators in the longest expression without a comma, with those around its parentheses: the grammar's tree is as
    /// deep as it is long.
    fn longest_chain(self, part: Tokens) -> usize {
        let cursor = self.cursor(part);
        let (mut longest, mut chain, mut around) = (0, 0, Vec::new());
        for token in cursor.tokens {
            let before = around.last().copied().unwrap_or_default();
            match token.kind {
                TokenKind::Punctuation(b'(' | b'[') => around.push(chain),
                TokenKind::Punctuation(b')') => chain = around.pop().unwrap_or(chain),
                // A type may be an array of arrays.
                TokenKind::Punctuation(b']') => chain = around.pop().unwrap_or(chain) + 1,
                TokenKind::Punctuation(b',') => chain = before,
                TokenKind::Operator => chain += 1,
                TokenKind::Word => {
                    let word = cursor.written(token);
                    let is_one_of = |words: &[&str]| words.iter().any(|known| word.eq_ignore_ascii_case(known));
                    chain += usize::from(is_one_of(&CHAINING));
                    chain += if is_one_of(&SET_OPERATIONS) { SET_OPERATION } else { 0 };
                }
                _ => {}
            }
            longest = longest.max(chain);
        }
        longest
    }

    fn bytes(self, part: Tokens) -> std::ops::Range<usize> {
        let tokens = &self.tokens[part.start as usize..part.end as usize];
        match (tokens.first(), tokens.last()) {
            (Some(first), Some(last)) => first.start as usize..last.end as usize,
            _ => 0..0,
        }
    }
}

/// The table or materialized view that is made, and its columns, where they are listed.
fn filled_table(cursor: &mut Cursor<'_>) -> Option<(ObjectName, Vec<String>, Option<Tokens>)> {
    cursor.skip(1);
    cursor.take(&["OR", "REPLACE"]);
    cursor.take_any(&["GLOBAL", "LOCAL"]);
    // A view of the session's own is as a table of its own; any other is the same on every shard.
    let is_own = cursor.take_any(&["TEMP", "TEMPORARY"]);
    cursor.take_any(&["UNLOGGED", "RECURSIVE"]);
    let is_filled = cursor.take(&["TABLE"]) || cursor.take(&["MATERIALIZED", "VIEW"]);
    (is_filled || is_own && cursor.take(&["VIEW"])).then_some(())?;
    let start = cursor.first;
    let conditional = cursor.take(&["IF", "NOT", "EXISTS"]).then_some(Tokens { start, end: start + 3 });
    let (table, mut columns) = (cursor.object(), Vec::new());
    let mut listed = *cursor;
    if listed.take(&["("]) {
        while !listed.tokens.is_empty() && !listed.take(&[")"]) {
            columns.push(listed.name());
            listed.take(&[","]);
        }
    }
    Some((table, columns, conditional))
}

/// The token behind the first AS outside of parentheses.
fn outer_as(cursor: Cursor<'_>) -> Option<u32> {
    let mut depth = 0usize;
    for (token, number) in cursor.tokens.iter().zip(cursor.first..) {
        match token.kind {
            TokenKind::Punctuation(b'(') => depth += 1,
            TokenKind::Punctuation(b')') => depth = depth.saturating_sub(1),
            TokenKind::Word if depth == 0 && cursor.written(token).eq_ignore_ascii_case("as") => {
                return Some(number + 1);
            }
            _ => {}
        }
    }
    None
}

/// Named by its first word, as far as a message has room for it.
fn unknown(cursor: Cursor<'_>) -> Kind {
    Kind::Unknown { keyword: cursor.peek().chars().take(LONGEST_KEYWORD).collect::<String>().to_ascii_uppercase() }
}

/// Token ranges of the statements of a text: between semicolons that stand outside of parentheses and of the body of a
/// SQL function.
fn split(text: &str, tokens: &[Token]) -> Vec<Tokens> {
    let (mut parts, mut start, mut depth, mut bodies) = (Vec::new(), 0, 0usize, 0usize);
    let word = |index: usize| tokens.get(index).map_or("", |token| &text[token.start as usize..token.end as usize]);
    for (index, token) in tokens.iter().enumerate() {
        match token.kind {
            TokenKind::Punctuation(b'(') => depth += 1,
            TokenKind::Punctuation(b')') => depth = depth.saturating_sub(1),
            TokenKind::Word if bodies > 0 && word(index).eq_ignore_ascii_case("case") => bodies += 1,
            TokenKind::Word if bodies > 0 && word(index).eq_ignore_ascii_case("end") => bodies -= 1,
            TokenKind::Word
                if word(index).eq_ignore_ascii_case("atomic")
                    && index > 0
                    && word(index - 1).eq_ignore_ascii_case("begin") =>
            {
                bodies = 1;
            }
            TokenKind::Punctuation(b';') if depth == 0 && bodies == 0 => {
                parts.push(start..index);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(start..tokens.len());
    let number = |index: usize| u32::try_from(index).expect("fewer tokens than bytes");
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    parts.map(|part| Tokens { start: number(part.start), end: number(part.end) }).collect()
}

/// Where the grammar's positions are in the text.
pub(super) struct Places {
    text: String,
    offset: usize,
    /// The number of each line's first character.
    lines: Vec<usize>,
    /// Where every [`STRIDE`]th character begins; empty where each character is one byte.
    marks: Vec<usize>,
}

impl Places {
    fn new(text: &str, offset: usize) -> Self {
        let mut places = Self { text: text.to_owned(), offset, lines: vec![0], marks: Vec::new() };
        if text.is_ascii() {
            places.lines.extend(memchr::memchr_iter(b'\n', text.as_bytes()).map(|end| end + 1));
            return places;
        }
        for (number, (byte, letter)) in text.char_indices().enumerate() {
            if number % STRIDE == 0 {
                places.marks.push(byte);
            }
            if letter == '\n' {
                places.lines.push(number + 1);
            }
        }
        places
    }

    /// The byte of the whole text that a location means.
    pub(super) fn byte(&self, location: Location) -> Option<usize> {
        let line = usize::try_from(location.line).ok()?.checked_sub(1)?;
        let column = usize::try_from(location.column).ok()?.checked_sub(1)?;
        let number = self.lines.get(line)? + column;
        let byte = if self.marks.is_empty() {
            (number <= self.text.len()).then_some(number)?
        } else {
            let mark = *self.marks.get(number / STRIDE)?;
            mark + self.text[mark..].char_indices().nth(number % STRIDE)?.0
        };
        Some(self.offset + byte)
    }
}

const STRIDE: usize = 64;

/// A value that has no type of its own.
fn is_untyped(expr: &ast::Expr) -> bool {
    let ast::Expr::Value(value) = expr else { return false };
    matches!(
        value.value,
        ast::Value::SingleQuotedString(_)
            | ast::Value::EscapedStringLiteral(_)
            | ast::Value::DollarQuotedString(_)
            | ast::Value::Null
            | ast::Value::Placeholder(_)
    )
}

/// The same of VALUES. `None`: some value would become another one between those of the other rows, or there is a
/// DEFAULT.
fn untyped_values(values: &ast::Values) -> Option<Vec<usize>> {
    let rows: Vec<&[ast::Expr]> = values.rows.iter().map(|row| &row[..]).collect();
    let width = rows.first()?.len();
    let mut untyped = Vec::new();
    for index in 0..width {
        let column = rows.iter().map(|row| row.get(index)).collect::<Option<Vec<_>>>()?;
        let is_default = |expr: &&ast::Expr| matches!(expr, ast::Expr::Identifier(name) if name.value.eq_ignore_ascii_case("default"));
        if column.iter().any(is_default) {
            return None;
        }
        match column.iter().filter(|expr| is_untyped(expr)).count() {
            0 => {}
            all if all == column.len() => untyped.push(index),
            _ => return None,
        }
    }
    rows.iter().all(|row| row.len() == width).then_some(untyped)
}

/// See [`SourceQuery::untyped`].
fn untyped(query: &ast::Query) -> Vec<usize> {
    let ast::SetExpr::Select(select) = &*query.body else { return Vec::new() };
    let is_bare = |item: &ast::SelectItem| match item {
        ast::SelectItem::UnnamedExpr(expr) | ast::SelectItem::ExprWithAlias { expr, .. } => is_untyped(expr),
        _ => false,
    };
    let is_known = |item: &ast::SelectItem| {
        matches!(item, ast::SelectItem::UnnamedExpr(_) | ast::SelectItem::ExprWithAlias { .. })
    };
    // Behind a `*` nobody knows which column it is.
    let items = select.projection.iter().take_while(|item| is_known(item)).enumerate();
    items.filter(|(_, item)| is_bare(item)).map(|(index, _)| index).collect()
}

fn parse(text: &str, offset: usize, source: Source<'_>) -> Option<(Ast, Places)> {
    let dialect = PostgreSqlDialect {};
    let tokens = Tokenizer::new(&dialect, text).tokenize_with_location().ok()?;
    let places = Places::new(text, offset);
    agrees(&tokens, &places, source, offset..offset + text.len()).then_some(())?;
    let tokens = plainer(tokens);
    let mut parser = Parser::new(&dialect).with_recursion_limit(RECURSION).with_tokens_with_locations(tokens);
    let statement = parser.parse_statement().ok()?;
    (parser.peek_token().token == SqlToken::EOF).then_some((statement, places))
}

/// The grammar's lexer must find the literals where PostgreSQL's finds them; else it has read another text.
fn agrees(tokens: &[TokenWithSpan], places: &Places, source: Source<'_>, range: std::ops::Range<usize>) -> bool {
    let from = source.literals.partition_point(|&start| (start as usize) < range.start);
    let mut ours = source.literals[from..].iter().take_while(|&&start| range.contains(&(start as usize)));
    let theirs = tokens.iter().filter(|token| {
        matches!(
            token.token,
            SqlToken::Number(..)
                | SqlToken::SingleQuotedString(_)
                | SqlToken::EscapedStringLiteral(_)
                | SqlToken::UnicodeStringLiteral(_)
                | SqlToken::NationalStringLiteral(_)
                | SqlToken::HexStringLiteral(_)
                | SqlToken::SingleQuotedByteStringLiteral(_)
                | SqlToken::DollarQuotedString(_)
        )
    });
    let mut theirs = theirs.map(|token| places.byte(token.span.start));
    loop {
        match (ours.next(), theirs.next()) {
            (None, None) => return true,
            (Some(&our), Some(Some(their))) if our as usize == their => {}
            _ => return false,
        }
    }
}

const LONGEST_KEYWORD: usize = 40;
/// Deeper nesting than any program writes by hand is not worth the stack.
const RECURSION: usize = 64;
/// See [`Source::longest_chain`].
const CHAIN: usize = 1_000;
/// Words that stand between what the grammar nests.
const CHAINING: [&str; 13] =
    ["and", "or", "not", "is", "isnull", "notnull", "between", "like", "ilike", "similar", "collate", "at", "in"];
const SET_OPERATIONS: [&str; 3] = ["union", "intersect", "except"];
/// A level of them takes as much of the stack as so many operators.
const SET_OPERATION: usize = 4;
