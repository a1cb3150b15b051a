//! The TOML file as the user wrote it. The only module that knows `toml`.
//!
//! Unknown keys are refused: a key that does nothing is a lie.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// One configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default)]
    pub general: General,
    pub databases: Vec<DatabaseEntry>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct General {
    pub host: String,
    /// 0 lets the operating system choose.
    pub port: u16,
    /// Clients at once; one more is refused with 53300.
    pub max_client_conn: usize,
}

/// One server under the name that clients connect to.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseEntry {
    pub name: String,
    pub host: String,
    #[serde(default = "postgresql_port")]
    pub port: u16,
    /// The database's name on the server, when it differs.
    pub database_name: Option<String>,
}

/// Why a file is no configuration; its text names file, line and column and underlines the place.
#[derive(Debug)]
pub struct ConfigError {
    pub file: PathBuf,
    pub reason: String,
}

impl Config {
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let error = |reason: String| ConfigError { file: file.to_owned(), reason };
        let text = std::fs::read_to_string(file).map_err(|cause| error(cause.to_string()))?;
        let config: Self = toml::from_str(&text).map_err(|cause| error(cause.to_string()))?;
        config.with_distinct_names().map_err(error)
    }

    /// Several servers under one name need roles and shards, which this version does not have.
    fn with_distinct_names(self) -> Result<Self, String> {
        let mut names = HashSet::new();
        match self.databases.iter().find(|entry| !names.insert(entry.name.as_str())) {
            Some(entry) => Err(format!("database \"{}\" has two servers: not in this version", entry.name)),
            None if self.databases.is_empty() => Err("no [[databases]] entry".to_owned()),
            None => Ok(self),
        }
    }

    pub fn database(&self, name: &str) -> Option<&DatabaseEntry> {
        self.databases.iter().find(|entry| entry.name == name)
    }
}

impl DatabaseEntry {
    pub fn server_database(&self) -> &str {
        self.database_name.as_deref().unwrap_or(&self.name)
    }
}

impl Default for General {
    fn default() -> Self {
        Self { host: "0.0.0.0".to_owned(), port: 6432, max_client_conn: 10_000 }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.reason)
    }
}

impl std::error::Error for ConfigError {}

fn postgresql_port() -> u16 {
    5432
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let found = Config::load(file.path()).unwrap_err().to_string();
        assert!(found.contains(expected), "{text}\ngave: {found}");
    }

    #[test]
    fn refusals_name_the_place() {
        check("[[databases]]\nname = \"a\"\nhost = \"h\"\nrole = \"x\"", "line 4, column 1");
        check("[[databases]]\nname = \"a\"\nhost = \"h\"\nport = 99999", "line 4, column 8");
        check(&"[[databases]]\nname = \"a\"\nhost = \"h\"\n".repeat(2), "database \"a\" has two servers");
        check("databases = []", "no [[databases]] entry");
    }
}
