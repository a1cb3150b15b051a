//! The UNIX socket, where libpq looks for it: `.s.PGSQL.<port>` in a folder, with PostgreSQL's lock file beside it.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{Error, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::signal::kill;
use nix::unistd::{Pid, getpid, getppid};
use tokio::net::UnixListener;

use crate::topology::UnixSocket;

/// A bound socket; it is removed with this.
pub struct LocalListener {
    pub(super) inner: UnixListener,
    socket: PathBuf,
    _lock: Lock,
}

impl LocalListener {
    /// What a process that is gone has left there is replaced.
    pub fn bind(socket: &UnixSocket, port: u16) -> std::io::Result<Self> {
        let path = socket.folder.join(format!(".s.PGSQL.{port}"));
        let told = |cause: Error| Error::new(cause.kind(), format!("cannot listen on {}: {cause}", path.display()));
        let lock = Lock::take(&path, port).map_err(told)?;
        let inner = listen(&path, socket.mode).map_err(told)?;
        Ok(Self { inner, socket: path, _lock: lock })
    }
}

impl Drop for LocalListener {
    fn drop(&mut self) {
        remove(&self.socket);
    }
}

fn listen(path: &Path, mode: u32) -> std::io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Holds the number of the process whose socket it is.
struct Lock(PathBuf);

impl Lock {
    fn take(socket: &Path, port: u16) -> std::io::Result<Self> {
        let path = socket.with_file_name(format!(".s.PGSQL.{port}.lock"));
        // Another process that starts at the same moment may take what was stale, once.
        for _ in 0..2 {
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(mut file) => {
                    let lock = Self(path);
                    // The lines that PostgreSQL writes: process, data directory, start, port, folder of the socket.
                    let folder = socket.parent().unwrap_or(Path::new("")).display();
                    write!(file, "{}\n{folder}\n0\n{port}\n{folder}\n", getpid())?;
                    return Ok(lock);
                }
                Err(cause) if cause.kind() == ErrorKind::AlreadyExists => {}
                Err(cause) => return Err(cause),
            }
            if let Some(owner) = owner(&path)?.filter(|&owner| is_alive(owner)) {
                return Err(Error::new(ErrorKind::AddrInUse, format!("it is in use by process {owner}")));
            }
            fs::remove_file(&path)?;
        }
        Err(Error::new(ErrorKind::AddrInUse, "another process takes it"))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// `None`: the file names no process, as after a crash of the machine.
fn owner(lock: &Path) -> std::io::Result<Option<Pid>> {
    let text = fs::read_to_string(lock)?;
    let number = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok());
    // PostgreSQL writes a negative number for a server in single-user mode.
    Ok(number.map(|number| Pid::from_raw(number.abs())))
}

/// In a container every process may have the number that another one had before.
fn is_alive(process: Pid) -> bool {
    process.as_raw() != 0
        && process != getpid()
        && process != getppid()
        && kill(process, None) != Err(nix::errno::Errno::ESRCH)
}

fn remove(file: &Path) {
    if let Err(cause) = fs::remove_file(file) {
        tracing::warn!(%cause, file = %file.display(), "a file of the UNIX socket is left behind");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn what_a_dead_process_left_is_replaced_and_a_living_one_is_respected() {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixSocket { folder: folder.path().to_owned(), mode: 0o700 };
        let (path, lock) = (folder.path().join(".s.PGSQL.1"), folder.path().join(".s.PGSQL.1.lock"));
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        fs::write(&lock, format!("{}\n", child.id())).unwrap();
        let refused = LocalListener::bind(&socket, 1).err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::AddrInUse);
        assert!(refused.to_string().contains(&format!("in use by process {}", child.id())), "{refused}");
        child.kill().and_then(|()| child.wait()).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(UnixStream::connect(&path).is_err(), "the socket is there, and nobody listens");
        for left in [Some(format!("{}\n", child.id())), Some(String::new()), None] {
            left.iter().for_each(|left| fs::write(&lock, left).unwrap());
            let listener = LocalListener::bind(&socket, 1).unwrap();
            assert!(UnixStream::connect(&path).is_ok());
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
            drop(listener);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }
}
