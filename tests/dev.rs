//! The launcher of whole clusters, as the tests use it and as `pgweir dev` does.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgweir::control::connect::Login;
use pgweir::dev;
use pgweir::topology::{ServerTls, TlsNegotiation};
use support::{Cluster, Role, Stop};

#[test]
fn replicas_follow_their_primary() {
    let cluster = Cluster::start(2, 2);
    for shard in 0..2 {
        cluster.sql(shard, Role::Primary, &format!("create table t as select {shard} as n"));
    }
    cluster.settle();
    for server in cluster.servers() {
        assert_eq!(cluster.sql(server.shard, server.role, "table t"), server.shard.to_string(), "{server}");
        let replica = if server.role == Role::Primary { "f" } else { "t" };
        assert_eq!(cluster.sql(server.shard, server.role, "select pg_is_in_recovery()"), replica, "{server}");
    }
    let slots = "select string_agg(slot_name, ' ' order by slot_name) from pg_replication_slots where active";
    assert_eq!(cluster.sql_everywhere(slots), ["replica1 replica2", "replica1 replica2"]);
    let systems = cluster.sql_everywhere("select system_identifier from pg_control_system()");
    assert_ne!(systems[0], systems[1], "shards are systems of their own");
}

#[test]
fn servers_stop_slow_down_and_come_back() {
    let cluster = Cluster::start(1, 2);
    let count = |number| cluster.sql(0, Role::Replica(number), "select count(*) from t");
    cluster.sql(0, Role::Primary, "create table t (n int)");
    cluster.settle();

    cluster.pause_replay(0, 1);
    cluster.replica(0, 2).stop(Stop::Kill);
    cluster.sql(0, Role::Primary, "insert into t values (1)");
    assert_eq!(count(1), "0");
    cluster.resume_replay(0, 1);
    cluster.replica(0, 2).start().unwrap();
    cluster.settle();
    assert_eq!((count(1), count(2)), ("1".to_owned(), "1".to_owned()));

    cluster.delay_replay(0, 1, "1h");
    cluster.sql(0, Role::Primary, "insert into t values (2)");
    assert_eq!(count(1), "1");
    cluster.delay_replay(0, 1, "0");
    cluster.primary(0).stop(Stop::Immediate);
    cluster.primary(0).start().unwrap();
    cluster.settle();
    assert_eq!((count(1), count(2)), ("2".to_owned(), "2".to_owned()));
}

/// The other half of the next test: a process that goes without a word.
#[test]
fn dies_with_a_cluster() {
    if std::env::var_os(DIES).is_none() {
        return;
    }
    let cluster = Cluster::start(1, 1);
    let folder = cluster.primary(0).data().ancestors().nth(3).unwrap();
    let pids: Vec<_> = cluster.servers().map(|server| server.pid().unwrap().to_string()).collect();
    println!("\n{DIES} {} {}", folder.display(), pids.join(" "));
    std::process::abort();
}

#[test]
fn no_server_outlives_its_process() {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "dies_with_a_cluster", "--nocapture"]).env(DIES, "yes").stderr(Stdio::null());
    let output = String::from_utf8(child.output().unwrap().stdout).unwrap();
    let said = output.lines().find_map(|line| line.strip_prefix(DIES)).expect("the other test started a cluster");
    let mut words = said.split_whitespace();
    let folder = Path::new(words.next().unwrap());
    let pids: Vec<i32> = words.map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    support::until(|| !folder.exists() && pids.iter().all(|pid| kill(Pid::from_raw(*pid), None).is_err()));
}

#[tokio::test]
async fn a_folder_is_used_again_until_told_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    support::open_to_all(folder.path());
    let first = start(folder.path(), false, |primaries| {
        let users = |login| support::sql(login, "select min(id), max(id), count(*) from users").unwrap();
        assert_eq!((users(&primaries[0]), users(&primaries[1])), ("1|11|11".to_owned(), "12|21|10".to_owned()));
        let marked =
            "update users set handle = 'marked' where id = 1; select md5(string_agg(o::text, '')) from order_items o";
        support::sql(&primaries[0], marked).unwrap()
    });
    let first = first.await;

    let second = start(folder.path(), false, |primaries| {
        assert_eq!(support::sql(&primaries[1], "show max_connections").unwrap(), "123", "as it was asked for");
        let seen = support::sql(&primaries[0], "select handle from users where id = 1").unwrap();
        kill_all_servers(&folder.path().join("cluster/servers"));
        seen
    });
    assert_eq!(second.await, "marked");

    let third = start(folder.path(), false, |primaries| {
        support::sql(&primaries[0], "select handle from users where id = 1").unwrap()
    });
    assert_eq!(third.await, "marked", "after every server was killed");

    let fresh = start(folder.path(), true, |primaries| {
        let handle = support::sql(&primaries[0], "select handle from users where id = 1").unwrap();
        assert_ne!(handle, "marked");
        support::sql(&primaries[0], "select md5(string_agg(o::text, '')) from order_items o").unwrap()
    });
    assert_eq!(fresh.await, first, "the same rows at every load");
}

#[tokio::test]
async fn folders_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("letter.txt"), "dear").unwrap();
    check_refused(folder.path(), "holds files that pgweir did not make").await;
    if nix::unistd::Uid::effective().is_root() {
        let closed = tempfile::tempdir().unwrap();
        fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let expected = format!("cannot enter {0}: run `chmod o+x {0}`", closed.path().display());
        check_refused(&closed.path().join("cluster"), &expected).await;
    }
}

async fn check_refused(folder: &Path, expected: &str) {
    let refused = dev::run(options(folder, folder), async |_| unreachable!()).await.unwrap_err().to_string();
    assert!(refused.contains(expected), "{refused}");
}

/// Runs `pgweir dev` with a proxy that only looks at the primaries, and ends.
async fn start<T: Send + 'static>(folder: &Path, fresh: bool, look: impl FnOnce(&[Login]) -> T) -> T {
    let ready_file = folder.join("ready.json");
    let options = dev::Options { fresh, ..options(&folder.join("cluster"), &ready_file) };
    let mut seen = None;
    let proxy = async |launch: dev::Launch| {
        let serving = dev::Serving { address: ([127, 0, 0, 1], 1).into(), admin_http: None };
        launch.ready.send(serving).unwrap();
        while !ready_file.exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        seen = Some(look(&primaries(&ready_file)));
        Ok(())
    };
    dev::run(options, proxy).await.unwrap();
    seen.unwrap()
}

fn options(folder: &Path, ready_file: &Path) -> dev::Options {
    dev::Options {
        dir: folder.to_owned(),
        fresh: false,
        shards: Some(2),
        replicas: Some(1),
        rows: Some(21),
        max_connections: Some(123),
        port: Some(0),
        ready_file: Some(ready_file.to_owned()),
    }
}

/// The application's way to the primaries, from what a program is told.
fn primaries(ready_file: &Path) -> Vec<Login> {
    let ready: serde_json::Value = serde_json::from_slice(&fs::read(ready_file).unwrap()).unwrap();
    let text = |key: &str| ready[key].as_str().unwrap().to_owned();
    let servers = ready["servers"].as_array().unwrap().iter().filter(|server| server["role"] == "primary");
    let login = |server: &serde_json::Value| Login {
        host: text("host"),
        port: server["port"].as_u64().unwrap().try_into().unwrap(),
        database: text("database"),
        user: text("user"),
        password: text("password"),
        tls: ServerTls::Disable,
        tls_ca: None,
        tls_negotiation: TlsNegotiation::Postgres,
    };
    servers.map(login).collect()
}

fn kill_all_servers(servers: &Path) {
    for shard in ["shard0", "shard1"] {
        for role in ["primary", "replica1"] {
            let lock = fs::read_to_string(servers.join(shard).join(role).join("postmaster.pid")).unwrap();
            let pid = lock.lines().next().unwrap().parse().unwrap();
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
    }
}

const DIES: &str = "PGWEIR_TEST_DIES";
