//! Routing hints in comments: `/* pgweir: shard=1, role=primary */`, and the spellings of PgDog and PgCat.

use super::types::{CacheHint, Hints, RoleHint};

/// A comment that is not only for people.
pub(super) fn is_hint(comment: &[u8]) -> bool {
    comment.len() > 10 && MARKS.iter().any(|mark| memchr::memmem::find(comment, mark).is_some())
}

/// Adds what a comment asks for.
pub(super) fn read(comment: &str, hints: &mut Hints) {
    let body = comment.trim_start_matches(['/', '*', '-']).trim_end_matches(['*', '/']).trim();
    if let Some(pairs) = body.strip_prefix("pgweir:") {
        for pair in pairs.split([',', ' ']).map(str::trim).filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some((name, value)) => set(name.trim(), value.trim(), hints),
                None => hints.bad = Some(pair.to_owned()),
            }
        }
        return;
    }
    for (spelling, name) in ALIASES {
        if let Some((_, rest)) = body.split_once(spelling) {
            let value = rest.trim_start().trim_start_matches(':').trim_start();
            let end = value.find(|letter: char| letter == ',' || letter.is_whitespace()).unwrap_or(value.len());
            set(name, &value[..end], hints);
        }
    }
}

fn set(name: &str, value: &str, hints: &mut Hints) {
    let value = value.trim_matches(['"', '\'']);
    match name {
        "shard" => match value.parse() {
            Ok(shard) => hints.shard = Some(shard),
            Err(_) => hints.bad = Some(format!("{name}={value}")),
        },
        "key" => hints.key = Some(value.to_owned()),
        "role" => match value {
            "primary" => hints.role = Some(RoleHint::Primary),
            "replica" => hints.role = Some(RoleHint::Replica),
            _ => hints.bad = Some(format!("{name}={value}")),
        },
        "cache" => match CacheHint::parse(value) {
            Some(hint) => hints.cache = Some(hint),
            None => hints.bad = Some(format!("{name}={value}")),
        },
        _ => hints.bad = Some(format!("{name}={value}")),
    }
}

const MARKS: [&[u8]; 4] = [b"pgweir:", b"pgdog_", b"shard_id:", b"sharding_key:"];
/// PgDog's, then PgCat's.
const ALIASES: [(&str, &str); 5] = [
    ("pgdog_shard:", "shard"),
    ("pgdog_sharding_key:", "key"),
    ("pgdog_role:", "role"),
    ("shard_id:", "shard"),
    ("sharding_key:", "key"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn check(comment: &str, shard: Option<u16>, key: Option<&str>, role: Option<RoleHint>) {
        assert!(is_hint(comment.as_bytes()), "{comment}");
        let mut hints = Hints::default();
        read(comment, &mut hints);
        let expected = Hints { shard, key: key.map(str::to_owned), role, ..Hints::default() };
        assert_eq!(hints, expected, "{comment}");
    }

    #[test]
    fn hints_are_read_in_every_spelling() {
        check("/* pgweir: shard=1, role=replica */", Some(1), None, Some(RoleHint::Replica));
        check("-- pgweir: key=42", None, Some("42"), None);
        check("/* pgdog_shard: 1 */", Some(1), None, None);
        check("/* pgdog_sharding_key: \"42\" */", None, Some("42"), None);
        check("/* pgdog_role: primary */", None, None, Some(RoleHint::Primary));
        check("/* shard_id: 1 */", Some(1), None, None);
        check("/* sharding_key: 1234 */", None, Some("1234"), None);
    }

    #[test]
    fn the_cache_is_told() {
        for (comment, expected) in [
            ("/* pgweir: cache=off */", CacheHint::Off),
            ("/* pgweir: cache=on */", CacheHint::On),
            ("/* pgweir: cache=250ms */", CacheHint::For(Duration::from_millis(250))),
        ] {
            let mut hints = Hints::default();
            read(comment, &mut hints);
            assert_eq!(hints, Hints { cache: Some(expected), ..Hints::default() }, "{comment}");
        }
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for comment in
            ["/* pgweir: cache=5 weeks */", "/* pgweir: shard=x */", "/* pgweir: colour=red */", "/* pgweir: fast */"]
        {
            let mut hints = Hints::default();
            read(comment, &mut hints);
            assert!(hints.bad.is_some(), "{comment}");
        }
    }
}
