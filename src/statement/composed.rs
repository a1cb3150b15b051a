//! What a statement is composed of, where its parts can be carried out one after another: by tokens, as the grammar's tree
//! does not tell where they stand.

use std::sync::Arc;

use super::analyze::Source;
use super::blocks::Walker;
use super::clauses;
use super::commands::Cursor;
use super::scan::TokenKind;
use super::types::{Composed, Cte, Kind, MergeInsert, Tokens, When, With};

impl Source<'_> {
    /// `None`: it is one statement, or not understood so far.
    pub(super) fn composed(
        self,
        kind: &Kind,
        walker: &Walker<'_>,
        part: Tokens,
        sensitive: &mut bool,
    ) -> Option<Composed> {
        match kind {
            _ if walker.writes_or_locks() && self.cursor(part).peek().eq_ignore_ascii_case("with") => {
                self.with(part, sensitive)
            }
            Kind::Merge => self.merged(part),
            Kind::Update(_) | Kind::Delete { .. } | Kind::Insert(_) if walker.locks_rows => {
                self.locking(part, sensitive)
            }
            _ => None,
        }
    }

    /// WITH … and what follows it.
    fn with(self, part: Tokens, sensitive: &mut bool) -> Option<Composed> {
        let mut cursor = self.cursor(part);
        cursor.take(&["WITH"]).then_some(())?;
        let recursive = cursor.take(&["RECURSIVE"]);
        let mut ctes = Vec::new();
        loop {
            let start = cursor.first;
            let name = cursor.name();
            if cursor.peek() == "(" {
                skip_group(&mut cursor)?;
            }
            cursor.take(&["AS"]).then_some(())?;
            cursor.take(&["NOT"]);
            cursor.take(&["MATERIALIZED"]);
            let head = Tokens { start, end: cursor.first };
            let body = skip_group(&mut cursor)?;
            ctes.push(Cte { name, head, statement: Arc::new(self.statement(body, sensitive)) });
            if !cursor.take(&[","]) {
                break;
            }
        }
        let main = Tokens { start: cursor.first, end: part.end };
        let main = Arc::new(self.statement(main, sensitive));
        Some(Composed::With(With { recursive, ctes, main }))
    }

    /// MERGE INTO target USING source ON condition WHEN …
    fn merged(self, part: Tokens) -> Option<Composed> {
        let mut cursor = self.cursor(part);
        cursor.take(&["MERGE", "INTO"]).then_some(())?;
        let table = cursor.first;
        cursor.object();
        let table = Tokens { start: table, end: cursor.first };
        let using = self.outer_word(part, "using")?;
        let on = self.outer_word(Tokens { start: using, end: part.end }, "on")?;
        let starts = self.whens(Tokens { start: on, end: part.end });
        let ends = starts.iter().skip(1).copied().chain([part.end]);
        let whens = starts
            .iter()
            .zip(ends)
            .map(|(&start, end)| self.when(Tokens { start, end }))
            .collect::<Option<Vec<_>>>()?;
        let condition = Tokens { start: on + 1, end: *starts.first()? };
        let target = Tokens { start: table.start, end: using };
        Some(Composed::Merge { table, target, source: Tokens { start: using + 1, end: on }, condition, whens })
    }

    /// Where WHEN [NOT] MATCHED stands.
    fn whens(self, part: Tokens) -> Vec<u32> {
        let cursor = self.cursor(part);
        let mut starts = Vec::new();
        let mut depth = 0usize;
        let is = |index: usize, word: &str| cursor.nth(index).eq_ignore_ascii_case(word);
        for (index, (token, number)) in cursor.tokens.iter().zip(part.start..).enumerate() {
            match token.kind {
                TokenKind::Punctuation(b'(' | b'[') => depth += 1,
                TokenKind::Punctuation(b')' | b']') => depth = depth.saturating_sub(1),
                _ => {}
            }
            let is_clause = is(index + 1, "matched") || (is(index + 1, "not") && is(index + 2, "matched"));
            if depth == 0 && is(index, "when") && is_clause {
                starts.push(number);
            }
        }
        starts
    }

    fn when(self, tokens: Tokens) -> Option<When> {
        let mut cursor = self.cursor(tokens);
        cursor.skip(1);
        let matched = !cursor.take(&["NOT"]);
        cursor.skip(1);
        let mut condition = None;
        let then = self.outer_word_behind_cases(Tokens { start: cursor.first, end: tokens.end })?;
        if cursor.take(&["AND"]) {
            condition = Some(Tokens { start: cursor.first, end: then });
        }
        cursor.skip((then + 1 - cursor.first) as usize);
        let insert = match cursor.take(&["INSERT"]) {
            false => None,
            true => {
                let start = cursor.first;
                if cursor.peek() == "(" {
                    skip_group(&mut cursor)?;
                }
                if cursor.take(&["OVERRIDING"]) {
                    cursor.skip(2);
                }
                let head = Tokens { start, end: cursor.first };
                cursor.take(&["VALUES"]).then_some(())?;
                let values = skip_group(&mut cursor)?;
                let within = self.cursor(values);
                (cursor.tokens.is_empty() && !within.has("default") && !within.has("select")).then_some(())?;
                Some(MergeInsert { head, values })
            }
        };
        Some(When { tokens, matched, condition, insert })
    }

    /// The THEN that belongs to no CASE.
    fn outer_word_behind_cases(self, part: Tokens) -> Option<u32> {
        let (mut depth, mut cases) = (0usize, 0usize);
        let cursor = self.cursor(part);
        for (token, number) in cursor.tokens.iter().zip(part.start..) {
            match token.kind {
                TokenKind::Punctuation(b'(' | b'[') => depth += 1,
                TokenKind::Punctuation(b')' | b']') => depth = depth.saturating_sub(1),
                TokenKind::Word if depth == 0 => match cursor.written(token).to_ascii_lowercase().as_str() {
                    "case" => cases += 1,
                    "end" => cases = cases.saturating_sub(1),
                    "then" if cases == 0 => return Some(number),
                    _ => {}
                },
                _ => {}
            }
        }
        None
    }

    /// The one subquery that locks what it reads.
    fn locking(self, part: Tokens, sensitive: &mut bool) -> Option<Composed> {
        let cursor = self.cursor(part);
        let is = |index: usize, word: &str| cursor.nth(index).eq_ignore_ascii_case(word);
        let locks =
            |index: usize| is(index, "for") && ["update", "share", "no", "key"].iter().any(|word| is(index + 1, word));
        let mut found = (0..cursor.tokens.len()).filter(|&index| locks(index));
        let (Some(place), None) = (found.next(), found.next()) else { return None };
        let (mut open, mut depth) = (place, 0usize);
        loop {
            open = open.checked_sub(1)?;
            match cursor.tokens[open].kind {
                TokenKind::Punctuation(b')') => depth += 1,
                TokenKind::Punctuation(b'(') if depth == 0 => break,
                TokenKind::Punctuation(b'(') => depth -= 1,
                _ => {}
            }
        }
        is(open + 1, "select").then_some(())?;
        let start = part.start + u32::try_from(open).ok()? + 1;
        let end = part.start + u32::try_from(open).ok()? + clauses::closing(&cursor.tokens[open..], 0)?;
        let query = Arc::new(self.statement(Tokens { start, end }, sensitive));
        Some(Composed::Locking { query })
    }
}

/// Takes what is in parentheses, with them; gives what is between them.
fn skip_group(cursor: &mut Cursor<'_>) -> Option<Tokens> {
    (cursor.peek() == "(").then_some(())?;
    let close = clauses::closing(cursor.tokens, 0)?;
    let within = Tokens { start: cursor.first + 1, end: cursor.first + close };
    cursor.skip(close as usize + 1);
    Some(within)
}
