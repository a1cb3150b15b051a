//! The folder of a dev cluster: whose it is, who uses it now, and what is in it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use tokio::time::Instant;

use super::cluster::SERVERS;
use super::server::POLL;
use super::state::{self, State};
use super::{Error, leftover};

/// A folder that is ours alone until this is dropped.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    _lock: Flock<fs::File>,
}

impl Folder {
    /// Makes the folder if need be. A folder with files that we did not make is not touched.
    pub(super) async fn open(path: &Path) -> Result<Self, Error> {
        fs::create_dir_all(path).map_err(Error::io(path))?;
        let path = path.canonicalize().map_err(Error::io(path))?;
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).map_err(Error::io(&path))? {
            names.push(entry.map_err(Error::io(&path))?.file_name());
        }
        if !names.is_empty() && !names.iter().any(|name| name == LOCK) {
            return Err(Error::NotOurs { folder: path });
        }
        let file = path.join(LOCK);
        let opened = fs::OpenOptions::new().create(true).append(true).open(&file).map_err(Error::io(&file))?;
        let lock = lock(opened).await.ok_or_else(|| Error::InUse { folder: path.clone() })?;
        Ok(Self { path, _lock: lock })
    }

    /// What was made here, if it was made to its end.
    pub(super) fn state(&self) -> Result<Option<State>, Error> {
        Ok(State::load(&self.path)?.filter(|state| state.made))
    }

    /// Ends what still runs in the folder and removes the servers' data.
    pub(super) fn erase(&self) -> Result<(), Error> {
        let servers = self.path.join(SERVERS);
        for data in folders(&servers).iter().flat_map(|shard| folders(shard)) {
            leftover::end(&data);
        }
        for result in [fs::remove_dir_all(&servers), fs::remove_file(self.path.join(state::FILE))] {
            match result {
                Err(cause) if cause.kind() != ErrorKind::NotFound => return Err(Error::Io { path: servers, cause }),
                _ => {}
            }
        }
        Ok(())
    }
}

/// A process that was killed a moment ago may still hold the lock: it gets some moments to be gone.
async fn lock(mut file: fs::File) -> Option<Flock<fs::File>> {
    let deadline = Instant::now() + LOCK_DEADLINE;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Some(lock),
            Err((given_back, _)) if Instant::now() < deadline => file = given_back,
            Err(_) => return None,
        }
        tokio::time::sleep(POLL).await;
    }
}

fn folders(parent: &Path) -> Vec<PathBuf> {
    fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

/// Also marks the folder as ours, from before anything else is in it.
const LOCK: &str = "lock";
const LOCK_DEADLINE: Duration = Duration::from_secs(1);
