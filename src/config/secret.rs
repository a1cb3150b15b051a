//! Secrets: by value, from the environment, from a file.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use super::Problem;

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

/// A secret as written, and its value once that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretEntry {
    origin: Origin,
    value: Secret,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Text,
    Environment(String),
    File(PathBuf),
}

impl SecretEntry {
    pub fn value(&self) -> &Secret {
        &self.value
    }

    /// Fetches the value from where it is kept.
    pub(super) fn resolve(&mut self, folder: &Path) -> Result<(), Problem> {
        match &self.origin {
            Origin::Text => {}
            Origin::Environment(name) => {
                let value = std::env::var(name).map_err(|cause| {
                    let what = match cause {
                        std::env::VarError::NotPresent => "is not set",
                        std::env::VarError::NotUnicode(_) => "is not UTF-8",
                    };
                    Problem::new(format!("environment variable \"{name}\" {what}"))
                })?;
                self.value = Secret(value);
            }
            Origin::File(file) => {
                let file = folder.join(file);
                let unreadable =
                    |cause| Problem::new(format!("secret file {} cannot be read: {cause}", file.display()));
                let text = std::fs::read_to_string(&file).map_err(unreadable)?;
                // Editors end a file with a line feed; no password does.
                self.value = Secret(text.trim_end_matches(['\r', '\n']).to_owned());
            }
        }
        match self.value.0.is_empty() {
            true => Err(Problem::new("the secret is empty")),
            false => Ok(()),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<'de> Deserialize<'de> for SecretEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

/// No arm repeats what it found: it may be the secret.
impl<'de> Visitor<'de> for SecretVisitor {
    type Value = SecretEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<SecretEntry, E> {
        Ok(SecretEntry { origin: Origin::Text, value: Secret(text.to_owned()) })
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<SecretEntry, E> {
        Err(E::custom(NOT_A_SECRET))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<SecretEntry, E> {
        Err(E::custom(NOT_A_SECRET))
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<SecretEntry, E> {
        Err(E::custom(NOT_A_SECRET))
    }

    fn visit_i128<E: de::Error>(self, _: i128) -> Result<SecretEntry, E> {
        Err(E::custom(NOT_A_SECRET))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<SecretEntry, E> {
        Err(E::custom(NOT_A_SECRET))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, _: A) -> Result<SecretEntry, A::Error> {
        Err(de::Error::custom(NOT_A_SECRET))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretEntry, A::Error> {
        let wrong = || de::Error::custom(NOT_A_SECRET);
        let (key, value) = map.next_entry::<String, String>().map_err(|_| wrong())?.ok_or_else(wrong)?;
        let origin = match key.as_str() {
            "env" => Origin::Environment(value),
            "file" => Origin::File(PathBuf::from(value)),
            _ => return Err(wrong()),
        };
        match map.next_key::<String>()? {
            None => Ok(SecretEntry { origin, value: Secret(String::new()) }),
            Some(_) => Err(wrong()),
        }
    }
}

const EXPECTED: &str = "a text, { env = \"NAME\" } or { file = \"PATH\" }";
const NOT_A_SECRET: &str = "expected a text, { env = \"NAME\" } or { file = \"PATH\" }";
