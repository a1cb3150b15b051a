//! Why `pgweir dev` cannot go on, in words that name the way out.

use std::io;
use std::path::{Path, PathBuf};

use crate::control::connect::SqlError;
use crate::control::migrate::MigrateError;

/// What ends a start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "no PostgreSQL server {wanted} found (looked in {searched}): install one, as with `make postgresql`, \
         or put its folder into PATH"
    )]
    NoBinaries { wanted: String, searched: String },
    #[error("PostgreSQL refuses to run as root, and there is no system user to run it as: add one named \"postgres\"")]
    NoAccount,
    #[error(
        "the system user \"{account}\", who runs the servers, cannot enter {}: run `chmod o+x {}`, \
         or name another folder with --dir",
        folder.display(), folder.display()
    )]
    CannotEnter { account: String, folder: PathBuf },
    #[error("{} holds files that pgweir did not make: name another folder with --dir", folder.display())]
    NotOurs { folder: PathBuf },
    #[error("another `pgweir dev` runs in {}: stop it, or name another folder with --dir", folder.display())]
    InUse { folder: PathBuf },
    #[error("{} was made with --{option} {made}, not {asked}: leave the option out, or begin anew with --fresh",
        folder.display())]
    Differs { folder: PathBuf, option: &'static str, made: u64, asked: u64 },
    #[error("--{option} must be {range}")]
    OutOfRange { option: &'static str, range: &'static str },
    #[error("port {port} is taken: name another with --port, or leave it out")]
    PortTaken { port: u16 },
    #[error("{program} failed: {said}")]
    Program { program: String, said: String },
    #[error("server {server} did not start: {said}")]
    Server { server: String, said: String },
    #[error("{}: {cause}", path.display())]
    Io { path: PathBuf, cause: io::Error },
    #[error(transparent)]
    Sql(#[from] SqlError),
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    #[error("{0}")]
    Proxy(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// For `map_err`: an I/O error and the path it is about.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::Io { path, cause }
    }
}
