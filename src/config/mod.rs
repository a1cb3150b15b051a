//! The TOML file as the user wrote it. The only module that knows `toml`.
//!
//! Unknown keys are refused: a key that does nothing is a lie. What the sections say together (which shard is where,
//! which user may do what) is not known here: `topology` is made of it.

mod access;
mod choices;
mod decode;
mod error;
mod file;
mod secret;
mod sections;
mod source;
mod units;

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

pub use access::{HbaEntry, IdentEntry};
pub use choices::{
    Auth, CertificateName, ClientCertificate, ClientTlsMode, ConfiguredRole, Consistency, CrossShardWrites, DataType,
    EvictionPolicy, Invalidation, LogFormat, LogLevel, Method, PoolerMode, ReadWriteSplit, ServerTls, Strategy,
    TlsNegotiation,
};
pub use error::{ConfigError, Problem};
pub use file::FileEntry;
pub use secret::{Secret, SecretEntry};
pub use sections::{
    Cache, CacheRuleEntry, ClusterEntry, Control, DatabaseEntry, General, GeneralTls, KeyLiteral, MappingEntry,
    OneOrMany, ReferenceTables, ShardedTable, UserEntry,
};
pub use source::Source;
pub use units::parse_duration;

/// One configuration file, its secrets read, its files seen to exist.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default)]
    pub general: General,
    #[serde(default)]
    pub databases: Vec<DatabaseEntry>,
    #[serde(default)]
    pub users: Vec<UserEntry>,
    /// None: everybody may come from everywhere and proves it as the user's entry says.
    #[serde(default)]
    pub hba: Vec<HbaEntry>,
    #[serde(default)]
    pub ident: Vec<IdentEntry>,
    #[serde(default)]
    pub control: Option<Control>,
    #[serde(default)]
    pub sharded_tables: Vec<ShardedTable>,
    #[serde(default)]
    pub reference_tables: Vec<ReferenceTables>,
    #[serde(default)]
    pub cache: Cache,
    #[serde(default)]
    pub cluster: ClusterEntry,
    /// The text, for errors that are found later.
    #[serde(skip)]
    pub source: Arc<Source>,
}

impl Config {
    /// Reads a file, and the secrets that it names.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(file) {
            Ok(text) => Self::parse(file, &text),
            Err(cause) => Err(ConfigError::unreadable(file, &cause)),
        }
    }

    /// Reads `text` as if it were the contents of `file`; relative paths in it start in the file's folder.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let (source, decoded) = decode::decode(file, text);
        let source = Arc::new(source);
        let refused = |problems| ConfigError::new(Arc::clone(&source), problems);
        let mut config: Self = decoded.map_err(refused)?;
        config.source = Arc::clone(&source);
        let problems = config.reach_outside(file.parent().unwrap_or(Path::new("")));
        if problems.is_empty() { Ok(config) } else { Err(refused(problems)) }
    }

    /// Reads the secrets and the files that are named.
    fn reach_outside(&mut self, folder: &Path) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (path, secret) in self.secrets() {
            problems.extend(secret.resolve(folder).map_err(|problem| problem.at(path, "")).err());
        }
        if let Some(socket) = &mut self.general.unix_socket_dir {
            *socket = folder.join(&*socket);
        }
        for (path, file) in self.files() {
            problems.extend(file.read(folder).map_err(|problem| problem.at(path, "")).err());
        }
        problems
    }

    fn secrets(&mut self) -> Vec<(String, &mut SecretEntry)> {
        let mut secrets = Vec::new();
        for (index, user) in self.users.iter_mut().enumerate() {
            let at = |key: &str| format!("users.{index}.{key}");
            secrets.extend(user.password.as_mut().map(|secret| (at("password"), secret)));
            let several = user.passwords.iter_mut().flatten().enumerate();
            secrets.extend(several.map(|(number, secret)| (at(&format!("passwords.{number}")), secret)));
            secrets.extend(user.scram_verifier.as_mut().map(|secret| (at("scram_verifier"), secret)));
            secrets.extend(user.server_password.as_mut().map(|secret| (at("server_password"), secret)));
        }
        secrets.extend(self.control.as_mut().map(|control| ("control.password".to_owned(), &mut control.password)));
        secrets
    }

    fn files(&mut self) -> Vec<(String, &mut FileEntry)> {
        let mut files = Vec::new();
        if let Some(tls) = self.general.tls.as_mut().filter(|tls| tls.mode != ClientTlsMode::Disable) {
            files.extend(tls.certificate.as_mut().map(|file| ("general.tls.certificate".to_owned(), file)));
            files.extend(tls.private_key.as_mut().map(|file| ("general.tls.private_key".to_owned(), file)));
            files.extend(tls.client_ca.as_mut().map(|file| ("general.tls.client_ca".to_owned(), file)));
        }
        for (index, server) in self.databases.iter_mut().enumerate() {
            files.extend(server.tls_ca.as_mut().map(|file| (format!("databases.{index}.tls_ca"), file)));
        }
        files
    }
}
