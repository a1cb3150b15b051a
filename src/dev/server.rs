//! One PostgreSQL server: its settings, its process, its end.

use std::fmt;
use std::fs;
use std::net::TcpListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use super::Error;
use super::installation::Installation;
use super::leftover;

/// A server of a cluster; the process ends with this value.
pub struct Server {
    pub shard: u16,
    pub role: Role,
    installation: Installation,
    data: PathBuf,
    log: PathBuf,
    process: Mutex<Process>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Primary,
    /// Counted from 1 within its shard.
    Replica(u16),
}

/// How a server is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Rolls back what is open, writes a checkpoint.
    Fast,
    /// Ends at once; the next start recovers from the log.
    Immediate,
    /// SIGKILL to the postmaster; its children find out by themselves.
    Kill,
}

struct Process {
    port: u16,
    settings: String,
    child: Option<Child>,
}

impl Server {
    /// A server in `folder/primary` or the like; nothing is started yet.
    pub(super) fn new(installation: &Installation, folder: &Path, shard: u16, role: Role) -> Self {
        Self {
            shard,
            role,
            installation: installation.clone(),
            data: folder.join(role.to_string()),
            log: folder.join(format!("{role}.log")),
            process: Mutex::new(Process { port: 0, settings: String::new(), child: None }),
        }
    }

    pub fn port(&self) -> u16 {
        self.process().port
    }

    /// Of the postmaster, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process().child.as_ref().map(Child::id)
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Starts on a port that is free, `port` if it is, and returns when connections are accepted.
    pub(super) fn launch(&self, port: Option<u16>, settings: String) -> Result<(), Error> {
        leftover::end(&self.data);
        self.process().settings = settings;
        let mut wanted = port.filter(|port| TcpListener::bind((HOST, *port)).is_ok());
        for _ in 0..PORT_ATTEMPTS {
            let port = wanted.take().map_or_else(free_port, Ok)?;
            self.process().port = port;
            match self.start() {
                // Somebody else was quicker: another port, then.
                Err(Error::Server { said, .. }) if said.contains(PORT_IN_USE) => {}
                result => return result,
            }
        }
        self.start()
    }

    /// Starts again after [`Self::stop`], on the same port.
    pub fn start(&self) -> Result<(), Error> {
        let deadline = Instant::now() + RELEASE_DEADLINE;
        loop {
            match self.attempt() {
                // Children of a postmaster that was killed may live some moments longer.
                Err(Error::Server { said, .. }) if said.contains(STILL_IN_USE) && Instant::now() < deadline => {
                    std::thread::sleep(POLL * 10);
                }
                result => return result,
            }
        }
    }

    /// Ends the process and waits for it; harmless if there is none.
    pub fn stop(&self, how: Stop) {
        self.ask_to_stop(how);
        self.await_end();
    }

    /// Only sends the signal, so that many servers can stop at once.
    pub(super) fn ask_to_stop(&self, how: Stop) {
        if let Some(child) = &self.process().child {
            signal(child.id(), how);
        }
    }

    pub(super) fn await_end(&self) {
        let Some(mut child) = self.process().child.take() else { return };
        for (patience, next) in [(FAST_DEADLINE, Stop::Immediate), (FAST_DEADLINE, Stop::Kill)] {
            if ended_within(&mut child, patience) {
                return;
            }
            signal(child.id(), next);
        }
        // SIGKILL is not refused, and a child that cannot be waited for is gone.
        let _ = child.wait();
    }

    fn attempt(&self) -> Result<(), Error> {
        let mut process = self.process();
        let conf = format!("port = {}\n{}", process.port, process.settings);
        self.installation.write(&self.data.join(CONF), &conf)?;
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log).map_err(Error::io(&self.log))?;
        let begin = log.metadata().map_err(Error::io(&self.log))?.len();
        let mut command = self.installation.program("postgres");
        // Of a group of its own: Ctrl-C in a terminal is for us, who then stop the servers in good order.
        command.arg("-D").arg(&self.data).process_group(0).stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().map_err(Error::io(&self.data))?;
        let ready = self.await_ready(&mut child);
        process.child = ready.then_some(child);
        if ready { Ok(()) } else { Err(Error::Server { server: self.to_string(), said: self.logged_since(begin) }) }
    }

    fn await_ready(&self, child: &mut Child) -> bool {
        let deadline = Instant::now() + START_DEADLINE;
        while Instant::now() < deadline {
            if !matches!(child.try_wait(), Ok(None)) {
                return false;
            }
            if self.status_of(child.id()).is_some_and(|status| status == "ready") {
                return true;
            }
            std::thread::sleep(POLL);
        }
        signal(child.id(), Stop::Immediate);
        // It was told to end at once; whether it did well no longer matters.
        let _ = child.wait();
        false
    }

    /// Line 8 of the lock file, if the postmaster that wrote it is this one.
    fn status_of(&self, pid: u32) -> Option<String> {
        let text = fs::read_to_string(self.data.join(LOCK_FILE)).ok()?;
        let owner: u32 = text.lines().next()?.trim().parse().ok()?;
        text.lines().nth(7).filter(|_| owner == pid).map(|status| status.trim().to_owned())
    }

    fn logged_since(&self, begin: u64) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(text.get(begin as usize..).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().filter(|line| !line.contains("LOG:  starting")).collect();
        format!("{} ({})", lines[lines.len().saturating_sub(8)..].join("\n"), self.log.display())
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        // The fields are valid after every statement, also one that panicked.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop(Stop::Immediate);
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {} {}", self.shard, self.role)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => write!(f, "primary"),
            Self::Replica(number) => write!(f, "replica{number}"),
        }
    }
}

/// A port that the operating system has just had to give.
pub fn free_port() -> Result<u16, Error> {
    let bound = TcpListener::bind((HOST, 0)).and_then(|listener| listener.local_addr());
    bound.map(|address| address.port()).map_err(Error::io(Path::new(HOST)))
}

pub(super) fn signal(pid: u32, how: Stop) {
    let signal = match how {
        Stop::Fast => Signal::SIGINT,
        Stop::Immediate => Signal::SIGQUIT,
        Stop::Kill => Signal::SIGKILL,
    };
    // A process that is gone already is what was wanted.
    let _ = kill(process_id(pid), signal);
}

pub(super) fn process_id(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("process ids are positive i32"))
}

fn ended_within(child: &mut Child, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(POLL),
            Ok(Some(status)) => {
                tracing::debug!(pid = child.id(), signal = status.signal(), "server ended");
                return true;
            }
            Err(_) => return true,
        }
    }
    false
}

/// Where the servers listen.
pub const HOST: &str = "127.0.0.1";

/// Included at the end of `postgresql.conf`.
pub(super) const CONF: &str = "pgweir.conf";

pub(super) const LOCK_FILE: &str = "postmaster.pid";
const PORT_IN_USE: &str = "Address already in use";
const STILL_IN_USE: &str = "still in use";
const PORT_ATTEMPTS: u32 = 10;
pub(super) const POLL: Duration = Duration::from_millis(10);
/// Recovery after a crash may take its time.
const START_DEADLINE: Duration = Duration::from_secs(300);
const RELEASE_DEADLINE: Duration = Duration::from_secs(15);
pub(super) const FAST_DEADLINE: Duration = Duration::from_secs(20);
