//! PostgreSQL's programs on this machine, and the system user who may run them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::unistd::{Uid, User};

use super::Error;

/// Server programs of one major version, and who runs them.
#[derive(Clone, Debug)]
pub struct Installation {
    binaries: PathBuf,
    version: u32,
    account: Account,
}

/// The system user of the servers.
#[derive(Clone, Debug)]
struct Account {
    name: String,
    /// User and group to change to; `None`: we are this user already.
    ids: Option<(u32, u32)>,
}

impl Installation {
    /// The first place with a server from version 13 up, or of exactly the version that made a data folder.
    pub fn find(data_version: Option<u32>) -> Result<Self, Error> {
        let places = places();
        let fits = |version: u32| data_version.map_or(version >= OLDEST, |wanted| version == wanted);
        let found = places.iter().find_map(|place| Some((place, version(place).filter(|version| fits(*version))?)));
        let Some((binaries, version)) = found else {
            let wanted =
                data_version.map_or(format!("from version {OLDEST} up"), |wanted| format!("of version {wanted}"));
            let searched: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
            return Err(Error::NoBinaries { wanted, searched: searched.join(", ") });
        };
        Ok(Self { binaries: binaries.clone(), version, account: Account::find()? })
    }

    /// The major version.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// One of PostgreSQL's programs, to be run as the servers' user.
    pub(super) fn program(&self, name: &str) -> Command {
        self.account.command(&self.binaries.join(name))
    }

    /// A program of the system, to be run as the servers' user.
    pub(super) fn tool(&self, name: &str) -> Command {
        self.account.command(Path::new(name))
    }

    /// Makes a folder that the servers' user owns and nobody else reads.
    pub(super) fn make_folder(&self, folder: &Path) -> Result<(), Error> {
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
        self.give(folder)?;
        self.check_entry(folder)
    }

    /// Writes a file that the servers' user owns and nobody else reads.
    pub(super) fn write(&self, file: &Path, text: &str) -> Result<(), Error> {
        super::state::write_private(file, text)?;
        self.give(file)
    }

    fn give(&self, path: &Path) -> Result<(), Error> {
        match self.account.ids {
            Some((uid, gid)) => std::os::unix::fs::chown(path, Some(uid), Some(gid)).map_err(Error::io(path)),
            None => Ok(()),
        }
    }

    /// Names the first folder on the way down that the servers' user cannot enter.
    fn check_entry(&self, folder: &Path) -> Result<(), Error> {
        let full = folder.canonicalize().map_err(Error::io(folder))?;
        let enters = |path: &Path| self.tool("test").arg("-x").arg(path).status().is_ok_and(|status| status.success());
        if enters(&full) {
            return Ok(());
        }
        let mut ancestors: Vec<_> = full.ancestors().collect();
        ancestors.reverse();
        let closed = ancestors.into_iter().find(|path| !enters(path)).unwrap_or(&full);
        Err(Error::CannotEnter { account: self.account.name.clone(), folder: closed.to_owned() })
    }
}

impl Account {
    /// Ourselves, but for root: PostgreSQL refuses to run as root.
    fn find() -> Result<Self, Error> {
        let own = Uid::effective();
        if !own.is_root() {
            return Ok(Self {
                name: User::from_uid(own).ok().flatten().map_or(own.to_string(), |user| user.name),
                ids: None,
            });
        }
        let sudo = std::env::var("SUDO_USER").ok();
        let names = ["postgres", "_postgres"].into_iter().chain(sudo.as_deref()).chain(["nobody", "daemon"]);
        let mut users = names.filter_map(|name| User::from_name(name).ok().flatten());
        let user = users.find(|user| !user.uid.is_root()).ok_or(Error::NoAccount)?;
        Ok(Self { name: user.name, ids: Some((user.uid.as_raw(), user.gid.as_raw())) })
    }

    /// Our own working folder may be closed to the servers' user, and our PG* variables are none of theirs.
    fn command(&self, program: &Path) -> Command {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(program);
        command.current_dir("/").stdin(Stdio::null()).env("LC_ALL", "C");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        if let Some((uid, gid)) = self.ids {
            command.uid(uid).gid(gid);
        }
        command
    }
}

/// Runs a program to its end; its words are the error if it fails.
pub(super) fn run(command: &mut Command) -> Result<Output, Error> {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let output = match command.output() {
        Ok(output) if output.status.success() => return Ok(output),
        Ok(output) => output,
        Err(cause) => return Err(Error::Program { program, said: cause.to_string() }),
    };
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Program { program, said: format!("{} {said}", output.status) })
}

/// Folders that may hold server programs, best first.
fn places() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A link in PATH stands for the folder that it points into, where the other programs are.
    let linked = |folder: PathBuf| Some(folder.join("postgres").canonicalize().ok()?.parent()?.to_owned());
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).filter_map(linked).collect();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").stderr(Stdio::null()).output() {
        places.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    places.extend(newest_first(Path::new("/usr/lib/postgresql"), ""));
    for prefix in ["/opt/homebrew/opt", "/usr/local/opt", "/home/linuxbrew/.linuxbrew/opt"] {
        places.extend(newest_first(Path::new(prefix), "postgresql@"));
        places.push(Path::new(prefix).join("postgresql/bin"));
    }
    places
}

/// `bin` of all folders named prefix and number.
fn newest_first(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let numbered = entries.filter_map(|entry| {
        let number: u32 = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
        Some((number, entry.path().join("bin")))
    });
    let mut numbered: Vec<_> = numbered.collect();
    numbered.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    numbered.into_iter().map(|(_, path)| path).collect()
}

/// Major version of the server in a folder that has all the programs we need.
fn version(folder: &Path) -> Option<u32> {
    if !folder.join("initdb").is_file() {
        return None;
    }
    let output = Command::new(folder.join("postgres")).arg("--version").output().ok()?;
    // "postgres (PostgreSQL) 15.4 (Debian 15.4-1)", "postgres (PostgreSQL) 17beta1"
    let text = String::from_utf8(output.stdout).ok()?;
    let number = text.split("(PostgreSQL) ").nth(1)?;
    number[..number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len())].parse().ok()
}

const OLDEST: u32 = 13;
