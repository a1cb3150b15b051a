//! TOML text to a [`Config`], and what serde says about it in words of a person.

use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, Error};

use super::source::distance;
use super::{Config, Problem, Source};

/// The configuration, or everything that keeps the text from being one.
pub(super) fn decode(file: &Path, text: &str) -> (Source, Result<Config, Vec<Problem>>) {
    let mut document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => return (Source::broken(file, text), Err(vec![syntax(&error)])),
    };
    let mut source = Source::new(file, text, document.get_ref());
    let mut problems = Vec::new();
    loop {
        let error = match Config::deserialize(Deserializer::from(document.clone())) {
            Ok(config) if problems.is_empty() => return (source, Ok(config)),
            Ok(_) => return (source, Err(problems)),
            Err(error) => error,
        };
        let removed = error.span().and_then(|span| remove(document.get_mut(), &span, &mut String::new()));
        match (Found::read(error.message()), removed) {
            // The file without that key shows what else is wrong.
            (Some(found), Some((path, hidden))) if found.what == What::Key => {
                source.hide(&hidden);
                problems.push(found.unknown_key(&path).at_bytes(error.span().unwrap_or_default()));
            }
            (found, _) => {
                let message = found.map_or_else(|| plain(error.message()), |found| found.problem());
                problems.push(error.span().into_iter().fold(message, Problem::at_bytes));
                return (source, Err(problems));
            }
        }
    }
}

fn syntax(error: &Error) -> Problem {
    let problem = Problem::new(error.message().replace('\n', ", "));
    error.span().into_iter().fold(problem, Problem::at_bytes).help("The file is not TOML (https://toml.io).")
}

/// Takes the key at `span` out; gives its path and where its values stood.
fn remove(table: &mut DeTable<'_>, span: &Range<usize>, path: &mut String) -> Option<(String, Vec<Range<usize>>)> {
    let own = table.iter().find(|(key, _)| key.span() == *span).map(|(key, value)| (key.clone(), leaves(value)));
    if let Some((key, hidden)) = own {
        table.remove(&key);
        return Some((format!("{path}{}", key.get_ref()), hidden));
    }
    let length = path.len();
    for (key, value) in table.iter_mut() {
        path.push_str(key.get_ref());
        path.push('.');
        if let Some(found) = remove_below(value, span, path) {
            return Some(found);
        }
        path.truncate(length);
    }
    None
}

/// Where all values in a value stand: a table's own place is its header.
fn leaves(value: &Spanned<DeValue<'_>>) -> Vec<Range<usize>> {
    match value.get_ref() {
        DeValue::Table(table) => table.iter().flat_map(|(_, value)| leaves(value)).collect(),
        DeValue::Array(array) => array.iter().flat_map(leaves).collect(),
        _ => vec![value.span()],
    }
}

fn remove_below(
    value: &mut Spanned<DeValue<'_>>,
    span: &Range<usize>,
    path: &mut String,
) -> Option<(String, Vec<Range<usize>>)> {
    match value.get_mut() {
        DeValue::Table(table) => remove(table, span, path),
        DeValue::Array(array) => array.iter_mut().find_map(|element| remove_below(element, span, path)),
        _ => None,
    }
}

/// What serde found in the place of one of several words.
struct Found<'a> {
    what: What,
    word: &'a str,
    known: Vec<&'a str>,
}

#[derive(PartialEq)]
enum What {
    Key,
    Value,
}

impl<'a> Found<'a> {
    /// Reads "unknown field `a`, expected one of `b`, `c`".
    fn read(message: &'a str) -> Option<Self> {
        let (what, rest) = match (message.strip_prefix("unknown field "), message.strip_prefix("unknown variant ")) {
            (Some(rest), _) => (What::Key, rest),
            (_, Some(rest)) => (What::Value, rest),
            _ => return None,
        };
        let (word, known) = rest.strip_prefix('`')?.rsplit_once("`, expected").or_else(|| rest.split_once("`, "))?;
        let known = known.split('`').skip(1).step_by(2).collect();
        Some(Self { what, word, known })
    }

    /// `path` leads to the key, without the numbers of its tables.
    fn unknown_key(&self, path: &str) -> Problem {
        let later =
            |known: &&&str| path == **known || path.strip_prefix(**known).is_some_and(|rest| rest.starts_with('.'));
        if LATER.iter().any(|known| later(&known)) {
            let help = "Leave it out: a key that does nothing is refused.";
            return Problem::new(format!("\"{path}\" is not in this version")).help(help);
        }
        Problem::new(format!("unknown key \"{path}\"")).help(self.nearest())
    }

    fn problem(&self) -> Problem {
        match self.what {
            What::Key => Problem::new(format!("unknown key \"{}\"", self.word)).help(self.nearest()),
            What::Value => Problem::new(format!("unknown value \"{}\"", self.word)).help(self.nearest()),
        }
    }

    /// The word that was meant, or all that would be right.
    fn nearest(&self) -> String {
        let near = self.known.iter().map(|known| (distance(known, self.word), known)).min();
        match near.filter(|(distance, known)| *distance <= known.len().min(self.word.len()) / 3 + 1) {
            Some((_, known)) => format!("Did you mean \"{known}\"?"),
            None => format!("Known here: {}.", self.known.join(", ")),
        }
    }
}

/// Serde's other messages, its types in words.
fn plain(message: &str) -> Problem {
    if let Some(key) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        return Problem::new(format!("\"{key}\" is missing here"));
    }
    let wrong = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    let Some((found, expected)) = wrong.and_then(|rest| rest.rsplit_once(", expected ")) else {
        return Problem::new(message.replace('\n', ", "));
    };
    let words = TYPES.iter().find(|(name, _)| *name == expected).map_or(expected, |(_, words)| words);
    Problem::new(format!("expected {words}, found {}", found.replace('`', "")))
}

/// Keys of features that are planned and named, and do nothing yet.
const LATER: &[&str] =
    &["outlier", "circuit_breaker", "limits", "mirroring", "functions", "databases.zone", "cache.max_invalidation_lag"];

const TYPES: &[(&str, &str)] = &[
    ("u16", "a whole number from 0 to 65535"),
    ("u32", "a whole number from 0 to 4294967295"),
    ("usize", "a whole number"),
    ("a boolean", "true or false"),
    ("a string", "a text in quotes"),
    ("path string", "a path in quotes"),
    ("a sequence", "a list in [ ]"),
];
