//! The text of a file: where each key stands, and its secrets blackened before anything can print them.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A file's text without its secrets.
#[derive(Clone, Debug, Default)]
pub struct Source {
    pub(super) name: String,
    pub(super) text: String,
    /// By path, as in `databases.0.port`.
    pub(super) places: HashMap<String, Range<usize>>,
}

impl Source {
    /// Of a file that is TOML.
    pub(super) fn new(file: &Path, text: &str, root: &DeTable<'_>) -> Self {
        let mut survey = Survey::default();
        survey.table("", root, Hidden::No);
        survey.secrets.extend(comments(text, &survey.secrets));
        let text = blacken(text, &survey.secrets);
        Self { name: file.display().to_string(), text, places: survey.places }
    }

    /// Of a file that is no TOML: whatever follows the name of a secret in a line may be one.
    pub(super) fn broken(file: &Path, text: &str) -> Self {
        let mut secrets = Vec::new();
        let mut start = 0;
        while start < text.len() {
            let line = text[start..].find('\n').map_or(text.len(), |length| start + length);
            let Some(name) = SECRETS.iter().filter_map(|name| text[start..line].find(name)).min() else {
                start = line + 1;
                continue;
            };
            let value = text[start + name..].find('=').map_or(text.len(), |length| start + name + length + 1);
            let end = end_of_value(text, value);
            secrets.push(value..end);
            start = end.max(line) + 1;
        }
        Self { name: file.display().to_string(), text: blacken(text, &secrets), places: HashMap::new() }
    }

    /// Where the value at `path` stands; if nothing is there, the nearest thing around it.
    pub(super) fn place(&self, path: &str) -> Option<Range<usize>> {
        let mut next = Some(path);
        while let Some(path) = next {
            if let Some(span) = self.places.get(path) {
                return Some(self.narrow(span));
            }
            next = path.rsplit_once('.').map(|(parent, _)| parent);
        }
        None
    }

    /// The first line of a span, without what surrounds it.
    pub(super) fn narrow(&self, span: &Range<usize>) -> Range<usize> {
        let start = span.start.min(self.text.len());
        let whole = self.text.get(start..span.end.min(self.text.len())).unwrap_or("");
        let line = whole.lines().next().unwrap_or("");
        start..start + line.len()
    }

    /// Line and column of a byte, from 1.
    pub(super) fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// Blackens more: the value of a key that turned out to be unknown may be a secret with its name misspelt.
    pub(super) fn hide(&mut self, spans: &[Range<usize>]) {
        self.text = blacken(&self.text, spans);
    }
}

/// Whether a value is hidden.
#[derive(Clone, Copy, PartialEq)]
enum Hidden {
    No,
    /// A secret, unless it is the name of a variable or file.
    Yes,
}

/// One walk through all values.
#[derive(Default)]
struct Survey {
    pub(super) places: HashMap<String, Range<usize>>,
    secrets: Vec<Range<usize>>,
}

impl Survey {
    fn table(&mut self, path: &str, table: &DeTable<'_>, hidden: Hidden) {
        for (key, value) in table {
            let name = key.get_ref();
            let path = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
            let told = hidden == Hidden::Yes && matches!(name.as_ref(), "env" | "file");
            let secret = !told && (hidden == Hidden::Yes || is_secret(name));
            self.value(path, value, if secret { Hidden::Yes } else { Hidden::No });
        }
    }

    fn value(&mut self, path: String, value: &Spanned<DeValue<'_>>, hidden: Hidden) {
        match value.get_ref() {
            DeValue::Table(table) => self.table(&path, table, hidden),
            DeValue::Array(array) => {
                for (index, element) in array.iter().enumerate() {
                    self.value(format!("{path}.{index}"), element, hidden);
                }
            }
            _ if hidden == Hidden::Yes => self.secrets.push(value.span()),
            _ => {}
        }
        self.places.insert(path, value.span());
    }
}

/// Also names that are nearly right: they will be refused, and must not be shown for that.
fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    name.contains("pass") || name.contains("pw") || SECRETS.iter().any(|secret| distance(secret, &name) <= 3)
}

/// Comments behind a secret, and lines that are comments and speak of one: an old secret may stand there.
fn comments(text: &str, secrets: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let end = start + line.trim_end().len();
        let behind =
            secrets.iter().filter(|secret| (start..end).contains(&secret.start)).map(|secret| secret.end).max();
        let from = match (behind, line.find('#')) {
            (Some(secret), _) => {
                line.get(secret.saturating_sub(start)..).and_then(|rest| rest.find('#')).map(|at| secret + at)
            }
            (None, Some(mark)) if line[..mark].trim().is_empty() && speaks_of_secret(&line[mark..]) => {
                Some(start + mark)
            }
            (None, _) => None,
        };
        found.extend(from.map(|from| from + 1..end));
        start += line.len();
    }
    found
}

fn speaks_of_secret(comment: &str) -> bool {
    comment
        .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .any(|word| !word.is_empty() && is_secret(word))
}

/// The end of the line, or of the text with three quotes that begins in it.
fn end_of_value(text: &str, value: usize) -> usize {
    let rest = &text[value..];
    let line = rest.find('\n').unwrap_or(rest.len());
    let longest = ["\"\"\"", "'''"].into_iter().filter_map(|quote| {
        let open = rest[..line].find(quote)? + quote.len();
        Some(rest[open..].find(quote).map_or(rest.len(), |length| open + length + quote.len()))
    });
    value + longest.max().unwrap_or(line).max(line)
}

/// One star for each byte, so that every place stays where it was.
fn blacken(text: &str, secrets: &[Range<usize>]) -> String {
    let hidden = |at: usize| secrets.iter().any(|secret| secret.contains(&at));
    let mut shown = String::with_capacity(text.len());
    for (at, letter) in text.char_indices() {
        match hidden(at) && letter != '\n' {
            true => shown.extend(std::iter::repeat_n('*', letter.len_utf8())),
            false => shown.push(letter),
        }
    }
    shown
}

/// How many letters must be put in, taken out or exchanged to make one word of the other.
pub(super) fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, &known) in other.iter().enumerate() {
            let exchanged = diagonal + usize::from(letter != known);
            diagonal = row[column + 1];
            row[column + 1] = exchanged.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

const SECRETS: &[&str] = &["password", "server_password", "scram_verifier"];
