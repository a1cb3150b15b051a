//! Stops the servers when this process is gone, however it went: also after SIGKILL.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A shell that waits for the end of a pipe which only this process holds open.
pub(super) struct Guard {
    child: Child,
}

impl Guard {
    /// `remove`: a folder that is to go when its servers have.
    pub(super) fn watch(data_folders: &[PathBuf], remove: Option<&Path>) -> io::Result<Self> {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", SCRIPT, "pgweir-guard"]).arg(remove.unwrap_or(Path::new(""))).args(data_folders);
        // Of a group of its own, so that Ctrl-C in a terminal does not end it before us.
        shell.current_dir("/").process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { child: shell.spawn()? })
    }
}

impl Drop for Guard {
    /// The servers are stopped by now: nothing is left to be guarded.
    fn drop(&mut self) {
        // A guard that ended by itself is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process is a server of ours if it works in the data folder, where that can be asked.
const SCRIPT: &str = r#"
cat >/dev/null
remove=$1; shift
ours() { [ -z "$1" ] || ! kill -0 "$1" 2>/dev/null || { [ -d /proc/self ] && ! [ "/proc/$1/cwd" -ef "$2" ]; } && return 1; return 0; }
signal=INT; [ -n "$remove" ] && signal=QUIT
for data in "$@"; do
    pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null)
    ours "$pid" "$data" && kill -s $signal "$pid"
done
for data in "$@"; do
    pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null)
    for i in $(seq 300); do ours "$pid" "$data" || break; sleep 0.1; done
done
[ -n "$remove" ] && rm -rf "$remove"
"#;
