//! Files whose contents belong to the configuration: certificates and keys.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Deserializer};

use super::Problem;

/// A file, taken when the configuration is read: what is written to it later holds from the next reading on.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FileEntry {
    path: PathBuf,
    contents: Arc<[u8]>,
}

impl FileEntry {
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn contents(&self) -> &[u8] {
        &self.contents
    }

    pub(super) fn read(&mut self, folder: &Path) -> Result<(), Problem> {
        self.path = folder.join(&self.path);
        let contents = std::fs::read(&self.path).map_err(|cause| {
            let problem = Problem::new(format!("{} cannot be read: {cause}", self.path.display()));
            problem.help("A relative path starts in the configuration file's folder.")
        })?;
        self.contents = contents.into();
        Ok(())
    }
}

/// Its contents may be a key.
impl fmt::Debug for FileEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

impl<'de> Deserialize<'de> for FileEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        PathBuf::deserialize(deserializer).map(|path| Self { path, contents: Arc::new([]) })
    }
}
