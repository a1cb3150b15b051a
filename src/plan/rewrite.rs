//! New texts out of the client's own words: pieces are cut out and put in by tokens, nothing is rendered anew.

use std::sync::Arc;

use super::Part;
use crate::statement::{Tokens, bytes_of, token_ranges};
use crate::topology::ShardId;

/// A text under change.
pub(super) struct Splice<'t> {
    text: &'t str,
    ranges: Vec<(u32, u32)>,
    /// Disjoint byte ranges and what stands there instead.
    edits: Vec<(std::ops::Range<usize>, String)>,
}

impl<'t> Splice<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, ranges: token_ranges(text), edits: Vec::new() }
    }

    pub(super) fn words(&self, tokens: Tokens) -> &'t str {
        &self.text[bytes_of(&self.ranges, tokens)]
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
}
