//! New texts out of the client's own words: pieces are cut out and put in by tokens, nothing is rendered anew.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::Part;
use crate::statement::{Tokens, bytes_of, token_ranges};
use crate::topology::ShardId;

/// A text under change.
pub(super) struct Splice<'t> {
    text: &'t str,
    ranges: Vec<(u32, u32)>,
    /// Disjoint byte ranges and what stands there instead.
    edits: Vec<(Range<usize>, String)>,
    /// Byte ranges that go without replacement, also in words that are taken from the text.
    dropped: Vec<Range<usize>>,
}

impl<'t> Splice<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, ranges: token_ranges(text), edits: Vec::new(), dropped: Vec::new() }
    }

    pub(super) fn words(&self, tokens: Tokens) -> &'t str {
        &self.text[bytes_of(&self.ranges, tokens)]
    }

    /// The first such keyword among these tokens that is outside of all parentheses.
    pub(super) fn outer_word(&self, tokens: Tokens, wanted: &str) -> Option<u32> {
        let mut depth = 0usize;
        (tokens.start..tokens.end).find(|&token| {
            let word = self.words(Tokens { start: token, end: token + 1 });
            match word {
                "(" | "[" => depth += 1,
                ")" | "]" => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && word.eq_ignore_ascii_case(wanted)
        })
    }

    /// The same, columns without their schema.
    pub(super) fn short_words(&self, tokens: Tokens) -> Cow<'t, str> {
        let place = bytes_of(&self.ranges, tokens);
        let mut dropped =
            self.dropped.iter().filter(|range| place.start <= range.start && range.end <= place.end).peekable();
        if dropped.peek().is_none() {
            return Cow::Borrowed(&self.text[place]);
        }
        let (mut words, mut from) = (String::new(), place.start);
        for range in dropped {
            words.push_str(&self.text[from..range.start]);
            from = range.end;
        }
        words.push_str(&self.text[from..place.end]);
        Cow::Owned(words)
    }

    /// Columns of this table are named without its schema from now on: what stands in the place of the table has none.
    pub(super) fn drop_schema(&mut self, schema: &str, table: &str) {
        let token =
            |index: usize| self.ranges.get(index).map_or("", |&(start, end)| &self.text[start as usize..end as usize]);
        let is_qualified = |first: usize| {
            [token(first + 1), token(first + 3)] == [".", "."]
                && is_name(token(first), schema)
                && is_name(token(first + 2), table)
                && (first == 0 || token(first - 1) != ".")
        };
        let found = (0..self.ranges.len()).filter(|&first| is_qualified(first));
        let dropped: Vec<_> =
            found.map(|first| self.ranges[first].0 as usize..self.ranges[first + 2].0 as usize).collect();
        self.dropped.extend(dropped);
        self.dropped.sort_by_key(|range| range.start);
        self.dropped.dedup();
    }

    pub(super) fn replace(&mut self, tokens: Tokens, words: impl Into<String>) {
        self.edits.push((bytes_of(&self.ranges, tokens), words.into()));
    }

    pub(super) fn insert_before(&mut self, token: u32, words: impl Into<String>) {
        let at = self.ranges.get(token as usize).map_or(self.text.len(), |range| range.0 as usize);
        self.edits.push((at..at, words.into()));
    }

    /// Behind the last of `tokens`.
    pub(super) fn insert_after(&mut self, tokens: Tokens, words: impl Into<String>) {
        let at = bytes_of(&self.ranges, tokens).end;
        self.edits.push((at..at, words.into()));
    }

    pub(super) fn finish(mut self) -> String {
        self.edits.extend(self.dropped.into_iter().map(|range| (range, String::new())));
        self.edits.sort_by_key(|(range, _)| (range.start, range.end));
        let (mut out, mut done) = (String::with_capacity(self.text.len() + 64), 0);
        for (range, words) in self.edits {
            out.push_str(&self.text[done..range.start]);
            out.push_str(&words);
            done = range.end;
        }
        out.push_str(&self.text[done..]);
        out
    }
}

fn is_name(written: &str, name: &str) -> bool {
    match written.strip_prefix('"').and_then(|written| written.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\"") == name,
        None => written.eq_ignore_ascii_case(name) && name == name.to_ascii_lowercase(),
    }
}

/// A part whose text uses some of the client's parameters only: they are numbered anew, without holes.
pub(super) fn part(shard: ShardId, text: String) -> Part {
    let (mut used, mut out, mut done) = (Vec::new(), String::with_capacity(text.len()), 0);
    for (start, end) in token_ranges(&text) {
        let (start, end) = (start as usize, end as usize);
        let number = text[start..end].strip_prefix('$').and_then(|number| number.parse::<usize>().ok());
        let Some(index) = number.and_then(|number| number.checked_sub(1)) else { continue };
        let place = used.iter().position(|known| *known == index).unwrap_or_else(|| {
            used.push(index);
            used.len() - 1
        });
        out.push_str(&text[done..start]);
        out.push_str(&format!("${}", place + 1));
        done = end;
    }
    if used.is_empty() {
        return Part { shard, text: Some(Arc::from(text)), parameters: Some(used) };
    }
    out.push_str(&text[done..]);
    Part { shard, text: Some(Arc::from(out)), parameters: Some(used) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered_anew() {
        let part = part(ShardId(0), "select $3, $1, $3, '$2'".to_owned());
        assert_eq!(part.text.as_deref(), Some("select $1, $2, $1, '$2'"));
        assert_eq!(part.parameters, Some(vec![2, 0]));
    }

    #[test]
    fn pieces_are_replaced_where_they_stand() {
        let mut splice = Splice::new("select a from t limit 5");
        splice.insert_before(2, ", b ");
        splice.replace(Tokens { start: 4, end: 6 }, "limit 15");
        assert_eq!(splice.finish(), "select a , b from t limit 15");
    }

    #[test]
    fn columns_go_without_their_schema() {
        let mut splice = Splice::new("select S.\"t\".a, s.t.*, s.u.b, x.s.t.c from s.t where s.t.a = 1 and s.f(t.b)");
        splice.drop_schema("s", "t");
        splice.drop_schema("s", "t");
        let condition = Tokens { start: 31, end: 38 };
        assert_eq!(splice.short_words(condition), "t.a = 1");
        assert_eq!(splice.finish(), "select \"t\".a, t.*, s.u.b, x.s.t.c from s.t where t.a = 1 and s.f(t.b)");
    }
}
