//! What a folder of `pgweir dev` remembers from one start to the next.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Error;

/// How a cluster was made. The file marks the folder as ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub shards: u16,
    pub replicas: u16,
    /// Users in all, and the last key of the ranges' even split.
    pub rows: u64,
    /// Of each server.
    #[serde(default = "usual_connections")]
    pub max_connections: u16,
    /// Of role `postgres`.
    pub superuser_password: String,
    /// Of role `app`.
    pub app_password: String,
    /// All servers exist; a start that ended before is begun anew.
    pub made: bool,
    /// The shop's rows are in.
    pub loaded: bool,
    /// Ports of the last start, in the order of the servers; taken again if they are free.
    pub ports: Vec<u16>,
}

impl State {
    /// Of a cluster that is yet to be made.
    pub fn new(shards: u16, replicas: u16, rows: u64) -> Self {
        let password = || format!("{:024x}", rand::random::<u128>() >> 32);
        Self {
            shards,
            replicas,
            rows,
            max_connections: usual_connections(),
            superuser_password: password(),
            app_password: password(),
            made: false,
            loaded: false,
            ports: Vec::new(),
        }
    }

    /// `None`: nothing was made in this folder.
    pub fn load(folder: &Path) -> Result<Option<Self>, Error> {
        let file = folder.join(FILE);
        match fs::read_to_string(&file) {
            Ok(text) => {
                serde_json::from_str(&text).map(Some).map_err(|cause| Error::Io { path: file, cause: cause.into() })
            }
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(Error::Io { path: file, cause }),
        }
    }

    /// Replaces the file whole, so that a crash leaves the old one or the new one.
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        let (file, draft) = (folder.join(FILE), folder.join(format!("{FILE}.new")));
        let text = serde_json::to_string_pretty(self).expect("a struct of plain fields is JSON");
        write_private(&draft, &text)?;
        fs::rename(&draft, &file).map_err(Error::io(&file))
    }
}

fn usual_connections() -> u16 {
    200
}

/// A file with secrets in it: readable by its owner alone from its first moment on.
pub(super) fn write_private(file: &Path, text: &str) -> Result<(), Error> {
    let error = |cause| Error::Io { path: file.to_owned(), cause };
    match fs::remove_file(file) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(error(cause)),
        _ => {}
    }
    let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    opened.and_then(|mut opened| opened.write_all(text.as_bytes())).map_err(error)
}

pub(super) const FILE: &str = "cluster.json";
