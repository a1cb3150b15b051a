//! Databases that the configuration does not name: `name = "*"` stands for all that the server has.

#![allow(clippy::unwrap_used)]

mod support;

#[path = "support/raw.rs"]
mod raw;

use std::fs;
use std::sync::OnceLock;
use std::thread;

use raw::Raw;
use support::{APP, Cluster, PASSWORD, Proxy, Role, SUPERUSER, until};

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let cluster = Cluster::start(1, 2);
        cluster.sql(0, Role::Primary, &format!("alter role {APP} createdb"));
        cluster
    })
}

fn config() -> String {
    let others = cluster().databases_toml().replace("\"shop\"", "\"*\"");
    let user = |name: &str| format!("[[users]]\nname = \"{name}\"\nauth = \"trust\"\npassword = \"{PASSWORD}\"\n");
    let control = format!("[control]\nuser = \"{SUPERUSER}\"\npassword = \"{PASSWORD}\"\n");
    format!("[general]\n{control}{others}{}{}", user(APP), user(SUPERUSER))
}

/// Past the proxy.
fn straight(database: &str) -> Raw {
    Raw::log_in(cluster().primary(0).port(), &[("user", SUPERUSER), ("database", database)], PASSWORD)
}

struct Bench(Proxy);

impl Bench {
    fn start() -> Self {
        Self(Proxy::start(&config()))
    }

    fn client(&self, database: &str) -> Raw {
        self.client_as(APP, database)
    }

    fn client_as(&self, user: &str, database: &str) -> Raw {
        Raw::connect(self.0.port, &[("user", user), ("database", database)])
    }

    /// SQLSTATE and message.
    fn refusal(&self, database: &str) -> (String, String) {
        let (_, reply) = Raw::try_connect(self.0.port, &[("user", APP), ("database", database)]);
        reply.error.expect("it is refused")
    }
}

/// Each is there as soon as whoever made it has heard so, on replicas, too; and is gone as soon as it is dropped.
#[test]
fn databases_come_and_go_under_their_own_names() {
    let bench = Bench::start();
    let mut master = bench.client("postgres");
    for round in 0..10 {
        let name = format!("of_test_{round}");
        assert_eq!(master.query(&format!("create database {name}")).error, None);
        let mut one = bench.client(&name);
        assert_eq!(one.value("select current_database()"), name);
        one.rows("create table t (x int); insert into t values (1)");
        assert_eq!(bench.client(&name).rows("select x from t"), ["1"], "{name}");
        drop(one);
        assert_eq!(master.query(&format!("drop database {name}")).error, None, "{name}");
        assert_eq!(bench.refusal(&name).0, "3D000");
    }
    let (code, message) = bench.refusal("of_test_1");
    assert_eq!((&*code, &*message), ("3D000", "database \"of_test_1\" does not exist"));
    assert_eq!(bench.refusal("*").0, "3D000");
    assert_eq!(bench.refusal("of_test_1' or true --").0, "3D000");
}

/// Its catalogs are; but who comes then knows what there is.
#[test]
fn a_database_without_clients_is_looked_at_now_and_then() {
    let bench = Bench::start();
    bench.client("postgres").rows("create database resting");
    let mut client = bench.client("resting");
    client.rows("select 1");
    let long_ago = "select count(*) from pg_stat_activity where datname = 'resting' \
                    and query like 'WITH passing%' and now() - query_start > interval '2 s'";
    assert_eq!(straight("postgres").value(long_ago), "0");
    drop(client);
    until(|| straight("postgres").value(long_ago) == "1");
    straight("resting").rows("create table made_meanwhile (x int)");
    let route = bench.client("resting").rows("explain route select * from made_meanwhile").concat();
    assert!(route.contains("query: a read"), "{route}");
}

/// A table of which nobody knows yet may ask for a number: the one that another client drew is not told.
#[test]
fn what_was_made_a_moment_ago_finds_no_number_of_others() {
    let bench = Bench(Proxy::start(&config().replace("[general]\n", "[general]\ndefault_pool_size = 1\n")));
    bench.client("postgres").rows("create database drawing");
    let (mut client, mut other) = (bench.client("drawing"), bench.client("drawing"));
    other.rows("create sequence drawn");
    let mut straight = straight("drawing");
    for round in 0..5 {
        other.rows("select nextval('drawn')");
        straight.rows(&format!(
            "create table made_{round} (id int default currval('drawn')); grant all on made_{round} to public"
        ));
        assert_eq!(client.refusal(&format!("insert into made_{round} default values")), "55000");
        straight.rows(&format!("drop table made_{round}"));
    }
}

/// Connections of the one that was dropped are nobody's.
#[test]
fn a_role_may_be_dropped_and_made_anew() {
    let user = format!("[[users]]\nname = \"again\"\nauth = \"trust\"\npassword = \"{PASSWORD}\"\n");
    let bench = Bench(Proxy::start(&(config() + &user)));
    let mut master = bench.client_as(SUPERUSER, "postgres");
    for _ in 0..2 {
        master.rows(&format!("create role again login password '{PASSWORD}'"));
        let mut clients = [bench.client_as("again", "postgres"), bench.client_as("again", "postgres")];
        clients.iter_mut().for_each(|client| assert_eq!(client.value("select current_user"), "again"));
        master.rows("drop role again");
    }
}

/// As PostgreSQL does: who is connected keeps it, unless he is sent away.
#[test]
fn a_database_in_use_stays() {
    let bench = Bench::start();
    let mut master = bench.client("postgres");
    master.rows("create database in_use");
    let mut user = bench.client("in_use");
    user.rows("create table t (x int)");
    for sql in ["drop database in_use", "create database copied_in_use template in_use"] {
        let (code, message) = master.query(sql).error.unwrap();
        assert_eq!(code, "55006", "{message}");
        assert!(message.ends_with("database \"in_use\" is being accessed by other users"), "{message}");
        assert_eq!(user.rows("select count(*) from t"), ["0"], "{sql}");
    }
    // Somebody who may not drop it, does no harm.
    let mut owner = bench.client_as(SUPERUSER, "postgres");
    owner.rows("create database not_theirs");
    let mut other = bench.client_as(SUPERUSER, "not_theirs");
    assert_eq!(master.refusal("drop database not_theirs with (force)"), "42501");
    assert_eq!(other.value("select 1"), "1");
    assert_eq!(master.query("drop database in_use with (force)").error, None);
    assert_eq!(user.refusal("select 1"), "57P01");
    drop(other);
    assert_eq!(owner.query("drop database not_theirs").error, None);
}

/// Its client leaves while the statement waits, as with PostgreSQL.
#[test]
fn a_database_that_is_left_goes() {
    let bench = Bench::start();
    let mut master = bench.client("postgres");
    master.rows("create database to_be_left");
    let user = bench.client("to_be_left");
    thread::scope(|scope| {
        let dropping = scope.spawn(|| master.query("drop database to_be_left").error);
        drop(user);
        assert_eq!(dropping.join().unwrap(), None);
    });
    for (sql, name) in [
        ("create database \"Left Alone\"", "Left Alone"),
        ("alter database \"Left Alone\" rename to renamed", "renamed"),
        ("create database copied with template = renamed", "copied"),
    ] {
        assert_eq!(master.query(sql).error, None, "{sql}");
        assert_eq!(bench.client(name).value("select current_database()"), name);
    }
    assert_eq!(bench.refusal("Left Alone").0, "3D000");
    // What a new one is copied from, if nothing else is said.
    bench.client("template1").rows("select 1");
    for sql in ["create database plain", "create database as_ever with template default"] {
        assert_eq!(master.query(sql).error, None, "{sql}");
    }
    master.rows("drop database plain");
    master.rows("drop database as_ever");
    master.rows("drop database copied");
    master.rows("drop database renamed");
}

/// A reload finds what was found, and who uses it goes on; an entry of its own comes first.
#[test]
fn what_was_found_outlives_a_reload() {
    let bench = Bench::start();
    let mut master = bench.client("postgres");
    master.rows("create database reloaded");
    let mut user = bench.client("reloaded");
    user.rows("create table t (x int); insert into t values (7)");
    let mut console = bench.client_as(SUPERUSER, "pgweir");
    let named = "\n[[databases]]\nname = \"by_name\"\ndatabase_name = \"reloaded\"\nhost = \"127.0.0.1\"\nport = ";
    let config = fs::read_to_string(&bench.0.config).unwrap() + named + &cluster().primary(0).port().to_string();
    fs::write(&bench.0.config, config).unwrap();
    bench.0.signal(nix::sys::signal::Signal::SIGHUP);
    until(|| console.rows("show databases").iter().any(|line| line.starts_with("by_name")));
    assert_eq!(user.rows("select x from t"), ["7"]);
    assert_eq!(bench.client("by_name").rows("select x from t"), ["7"]);
    assert_eq!(bench.client("reloaded").rows("select x from t"), ["7"]);
}
