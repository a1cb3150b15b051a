//! Topology, database and catalog as they were at one moment, for one unit of work.

use std::sync::Arc;

use crate::balance::Fleet;
use crate::cache::{Cache, Space};
use crate::catalog::Catalog;
use crate::topology::{Database, Topology};

#[derive(Clone)]
pub struct Snapshot {
    /// Of the control plane when it was taken.
    pub epoch: u64,
    pub topology: Arc<Topology>,
    /// The states of its servers.
    pub fleet: Arc<Fleet>,
    pub database: Arc<Database>,
    pub catalog: Arc<Catalog>,
    pub cache: Option<Arc<Cache>>,
    /// Of each shard, in order: what its answers and writes are tagged by. Nothing while one is not known.
    pub spaces: Option<Arc<Vec<Arc<Space>>>>,
    /// Of the database.
    pub name: Arc<str>,
}

impl Snapshot {
    /// A read may find more than one server that can answer it.
    pub(super) fn has_replicas(&self) -> bool {
        self.database.shards.iter().any(|shard| shard.servers.len() > 1)
    }
}

/// Schemas of a `search_path` value as SET takes it: names and texts, separated by commas.
pub(super) fn search_path(value: &str, user: &str) -> Arc<[String]> {
    let mut path = names(value);
    path.iter_mut().filter(|name| *name == "$user").for_each(|name| user.clone_into(name));
    path.into()
}

/// The names of a list: a text is one as it is written, the rest is folded as PostgreSQL does.
pub(super) fn names(list: &str) -> Vec<String> {
    let name = |part: &String| {
        let within = |quote| part.strip_prefix(quote).and_then(|inner| inner.strip_suffix(quote));
        match (within('\''), within('"')) {
            (Some(text), _) => text.replace("''", "'"),
            (_, Some(name)) => name.replace("\"\"", "\""),
            _ => part.to_lowercase(),
        }
    };
    split(list).iter().map(name).filter(|name| !name.is_empty()).collect()
}

/// At commas outside of quotes.
fn split(list: &str) -> Vec<String> {
    let (mut parts, mut quote) = (vec![String::new()], None);
    for letter in list.chars() {
        match (quote, letter) {
            (None, ',') => {
                parts.push(String::new());
                continue;
            }
            (None, '"' | '\'') => quote = Some(letter),
            (Some(open), letter) if open == letter => quote = None,
            _ => {}
        }
        parts.last_mut().expect("never empty").push(letter);
    }
    parts.into_iter().map(|part| part.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_paths_are_read_as_set_takes_them() {
        let check = |value: &str, expected: &[&str]| assert_eq!(&*search_path(value, "me"), expected, "{value}");
        check("\"$user\", public", &["me", "public"]);
        check("'a'", &["a"]);
        check("'A b, c', \"D\"", &["A b, c", "D"]);
        check("Shop,'x'", &["shop", "x"]);
        check("''", &[]);
    }
}
