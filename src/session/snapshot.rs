//! Topology, database and catalog as they were at one moment, for one unit of work.

use std::sync::Arc;

use crate::catalog::Catalog;
use crate::topology::{Database, Topology};

#[derive(Clone)]
pub struct Snapshot {
    /// Of the control plane when it was taken.
    pub epoch: u64,
    pub topology: Arc<Topology>,
    pub database: Arc<Database>,
    pub catalog: Arc<Catalog>,
    /// Of the database.
    pub name: Arc<str>,
}

/// Schemas of a `search_path` value as SET takes it: names and texts, separated by commas.
pub(super) fn search_path(value: &str, user: &str) -> Arc<[String]> {
    let mut path = Vec::new();
    for part in split(value) {
        // One text may hold a list: set_config and startup parameters give it so.
        match part.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')) {
            Some(text) => path.extend(split(&text.replace("''", "'")).into_iter().map(|name| schema(&name, user))),
            None => path.push(schema(&part, user)),
        }
    }
    path.retain(|name| !name.is_empty());
    path.into()
}

fn schema(name: &str, user: &str) -> String {
    let name = match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => name.to_lowercase(),
    };
    if name == "$user" { user.to_owned() } else { name }
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
        check("'\"A b\", c'", &["A b", "c"]);
        check("Shop,'x'", &["shop", "x"]);
        check("''", &[]);
    }
}
