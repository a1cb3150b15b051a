//! A real PostgreSQL server and a real proxy for one test; both end with it, also after a panic.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

pub(crate) const PASSWORD: &str = "correct horse";

/// A server with SCRAM authentication, user `postgres`, on a free port of loopback.
pub(crate) struct Server {
    pub(crate) port: u16,
    folder: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (password, data) = (folder.path().join("password"), folder.path().join("data"));
        fs::write(&password, PASSWORD).unwrap();
        run(Command::new("chown").arg("-R").arg("postgres").arg(folder.path()));
        let port = free_port();
        let options = ["-U", "postgres", "-A", "scram-sha-256", "--no-sync", "-E", "UTF8", "--locale=C", "-D"];
        let password_file = format!("--pwfile={}", password.display());
        run(as_postgres("initdb").arg(password_file).args(options).arg(&data));
        let server = Self { port, folder };
        let options = format!("-p {port} -h 127.0.0.1 -k {} -c fsync=off", server.folder.path().display());
        let start = ["-w", "-o", &options, "start", "-l"];
        run(as_postgres("pg_ctl").arg("-D").arg(&data).args(start).arg(server.folder.path().join("log")));
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.folder.path().join("data");
        let stopped = as_postgres("pg_ctl").arg("-D").arg(data).args(["-m", "immediate", "stop"]).output();
        eprintln!("server stopped: {:?}", stopped.map(|output| output.status));
    }
}

/// `pgweir serve` on a free port.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Proxy {
    /// Database `shop` is the server's `postgres`; database `down` has a server that is not there.
    pub(crate) fn start(server_port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pgweir.toml");
        let text = format!(
            "[general]\nhost = \"127.0.0.1\"\nport = 0\n\
             [[databases]]\nname = \"shop\"\nhost = \"127.0.0.1\"\nport = {server_port}\ndatabase_name = \"postgres\"\n\
             [[databases]]\nname = \"down\"\nhost = \"127.0.0.1\"\nport = {}\n",
            free_port()
        );
        fs::write(&file, text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_pgweir"))
            .args(["serve", "--config"])
            .arg(&file)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().rsplit(':').next().unwrap().parse().unwrap();
        Self { port, child, _folder: folder }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        eprintln!("proxy ended: {ended:?}");
    }
}

pub(crate) fn psql(port: u16, database: &str, password: &str, sql: &str) -> Output {
    Command::new("psql")
        .args(["-X", "-A", "-h", "127.0.0.1", "-U", "postgres", "-p", &port.to_string(), "-d", database, "-c", sql])
        .env("PGPASSWORD", password)
        .output()
        .unwrap()
}

/// A server program, run as the system user `postgres`: PostgreSQL refuses to run as root.
fn as_postgres(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(binaries().join(program));
    command.current_dir("/").stdout(Stdio::null());
    command
}

/// The newest of Debian's server versions.
fn binaries() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").unwrap().map(|entry| entry.unwrap().path());
    let newest = versions.max_by_key(|path| version(path)).unwrap();
    newest.join("bin")
}

fn version(path: &Path) -> u32 {
    path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok()).unwrap_or(0)
}

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
