//! Servers that an earlier process left behind: running, or only their lock file.

use std::fs;
use std::path::Path;

use nix::sys::signal::kill;
use tokio::time::Instant;

use super::server::{FAST_DEADLINE, LOCK_FILE, POLL, Stop, process_id, signal};

/// Ends the postmaster of a data folder, and forgets one that is long gone.
pub(super) fn end(data: &Path) {
    let lock = data.join(LOCK_FILE);
    let Ok(text) = fs::read_to_string(&lock) else { return };
    let Some(pid) = text.lines().next().and_then(|line| line.trim().parse::<u32>().ok()) else { return };
    if !works_in(pid, data) {
        // The number may by now be another program's, for which PostgreSQL would refuse to start. If the file cannot
        // be removed, PostgreSQL's own message says what to do.
        let _ = fs::remove_file(lock);
        return;
    }
    for (how, patience) in [(Stop::Fast, FAST_DEADLINE), (Stop::Immediate, FAST_DEADLINE), (Stop::Kill, FAST_DEADLINE)]
    {
        if !works_in(pid, data) {
            return;
        }
        signal(pid, how);
        let deadline = Instant::now() + patience;
        while works_in(pid, data) && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
    }
}

/// A postmaster has its data folder as its working folder; where that cannot be asked, the number has to do.
fn works_in(pid: u32, data: &Path) -> bool {
    if Path::new("/proc/self").exists() {
        let folder = fs::read_link(format!("/proc/{pid}/cwd"));
        return folder.is_ok_and(|folder| data.canonicalize().is_ok_and(|data| data == folder));
    }
    kill(process_id(pid), None).is_ok()
}
