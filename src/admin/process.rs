//! What the operating system says about this process.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike;

/// What cannot be found out is `None`.
pub(super) struct Process {
    pub cpu: Option<Duration>,
    pub resident_bytes: Option<u64>,
    pub open_files: Option<u64>,
    pub most_files: Option<u64>,
}

impl Process {
    pub(super) fn read() -> Self {
        let spent = |usage: nix::sys::resource::Usage| {
            let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
            Duration::from_micros(u64::try_from(micros).unwrap_or(0))
        };
        Self {
            cpu: getrusage(UsageWho::RUSAGE_SELF).ok().map(spent),
            resident_bytes: resident(),
            open_files: fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64),
            most_files: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
        }
    }
}

fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}
