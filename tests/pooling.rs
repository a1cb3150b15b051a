//! How server connections are shared: lent, kept, given back clean, and ended in time.

#![allow(clippy::unwrap_used)]

mod support;

#[path = "pooling/by_name.rs"]
mod by_name;
#[path = "pooling/identity.rs"]
mod identity;
#[path = "pooling/outdated.rs"]
mod outdated;
#[path = "pooling/peers.rs"]
mod peers;
#[path = "pooling/processes.rs"]
mod processes;
#[path = "support/raw.rs"]
mod raw;
#[path = "pooling/replay.rs"]
mod replay;
#[path = "pooling/told.rs"]
mod told;
#[path = "pooling/trial.rs"]
mod trial;

use std::collections::HashSet;
use std::io::Read;
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use raw::{Raw, bind, close, describe, describe_portal, execute, flush, parse};
use support::{Cluster, PASSWORD, Proxy, Role, SUPERUSER, Stop, until};

/// A proxy, and a role of its own on the server that all tests share.
struct Bench {
    proxy: Proxy,
    role: &'static str,
}

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let cluster = Cluster::start(1, 0);
        cluster.sql(0, Role::Primary, "grant all on schema public to public");
        cluster
    })
}

fn direct(sql: &str) -> String {
    cluster().sql(0, Role::Primary, sql)
}

/// A client without a proxy.
fn straight() -> Raw {
    let who = [("user", SUPERUSER), ("database", "shop")];
    Raw::log_in(cluster().primary(0).port(), &who, PASSWORD)
}

impl Bench {
    /// `general`: keys of that section.
    fn start(role: &'static str, general: &str) -> Self {
        direct(&format!("create role {role} login password '{PASSWORD}'"));
        let port = cluster().primary(0).port();
        let user = |name: &str, keys: &str| format!("[[users]]\nname = \"{name}\"\nauth = \"trust\"\n{keys}\n");
        let own = user(role, &format!("password = \"{PASSWORD}\""));
        let keys = format!("server_user = \"{role}\"\nserver_password = \"{PASSWORD}\"\npooler_mode = \"session\"");
        let session = user(&format!("{role}_in_session_mode"), &keys);
        let proxy = Proxy::start(&format!(
            "{general}\n[control]\nuser = \"postgres\"\npassword = \"{PASSWORD}\"\n\
             [[databases]]\nname = \"shop\"\nhost = \"127.0.0.1\"\nport = {port}\n{own}{session}"
        ));
        Self { proxy, role }
    }

    fn client(&self) -> Raw {
        self.client_with(&[])
    }

    fn client_with(&self, settings: &[(&str, &str)]) -> Raw {
        Raw::connect(self.proxy.port, &[&[("user", self.role), ("database", "shop")], settings].concat())
    }

    fn session_client(&self) -> Raw {
        let user = format!("{}_in_session_mode", self.role);
        Raw::connect(self.proxy.port, &[("user", &user), ("database", "shop")])
    }

    fn cancel(&self, key: &[u8]) {
        Raw::cancel(self.proxy.port, key);
    }

    /// Connections to the server, by what they do: `idle`, `active` and so on; empty: all.
    fn server_connections(&self, state: &str) -> usize {
        let of = self.role;
        direct(&format!("select count(*) from pg_stat_activity where usename = '{of}' and state like '{state}%'"))
            .parse()
            .unwrap()
    }

    /// A column of the console's SHOW POOLS.
    fn pool(&self, column: usize) -> usize {
        let mut console = Raw::connect(self.proxy.port, &[("user", self.role), ("database", "pgweir")]);
        let rows = console.rows("show pools");
        rows.iter().map(|row| row.split('|').nth(column).unwrap().parse::<usize>().unwrap()).sum()
    }

    fn waiting(&self) -> usize {
        self.pool(3)
    }

    /// What keeps connections with clients, as the console has it.
    fn pinned_by(&self) -> Vec<String> {
        let mut console = Raw::connect(self.proxy.port, &[("user", self.role), ("database", "pgweir")]);
        let rows = console.rows("show clients");
        rows.iter().map(|row| row.rsplit('|').next().unwrap().to_owned()).filter(|reason| !reason.is_empty()).collect()
    }

    /// Resident memory of the proxy, in bytes.
    fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.proxy.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }
}

/// As [`until`], for what a moment is enough for.
fn soon(mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "what was waited for did not come soon");
    }
}

/// The number of the server's process tells connections apart.
/// The server's process, not the client's own number.
const PID: &str = "select pid from pg_stat_activity where pid = pg_backend_pid()";

#[test]
fn transactions_of_many_clients_share_one_connection() {
    let bench = Bench::start("sharing", "default_pool_size = 1");
    let (mut one, mut other) = (bench.client(), bench.client());
    let pid = one.value(PID);
    for _ in 0..5 {
        assert_eq!((one.value(PID), other.value(PID)), (pid.clone(), pid.clone()));
    }
    assert_eq!(one.extended(&[parse("", PID), bind("", &[]), execute()]).rows, [&pid[..]]);
    one.rows("begin");
    assert_eq!(one.value(PID), pid);
    one.rows("commit");
    assert_eq!(other.value(PID), pid);
    assert_eq!(bench.server_connections(""), 1);
}

#[test]
fn a_transaction_keeps_its_connection() {
    let bench = Bench::start("holding", "default_pool_size = 2");
    let (mut one, mut other) = (bench.client(), bench.client());
    one.rows("begin");
    let pid = one.value(PID);
    for _ in 0..5 {
        assert_eq!(one.value(PID), pid);
        assert_ne!(other.value(PID), pid);
    }
    one.rows("commit");
}

#[test]
fn a_session_keeps_its_connection_in_session_mode() {
    let bench = Bench::start("keeping", "default_pool_size = 2\nquery_wait_timeout = '100ms'");
    let (mut one, mut other, mut late) = (bench.session_client(), bench.session_client(), bench.session_client());
    let pids = (one.value(PID), other.value(PID));
    assert_ne!(pids.0, pids.1);
    one.rows("create temp table kept as select 7 as n; set work_mem to '5MB'; prepare p as table kept");
    for _ in 0..5 {
        assert_eq!((one.value(PID), other.value(PID)), pids);
    }
    assert_eq!((one.value("execute p"), one.value("show work_mem")), ("7".to_owned(), "5MB".to_owned()));
    assert_eq!(late.refusal("select 1"), "53300");
    drop(one);
    until(|| late_value(&bench) != pids.1);
    assert_eq!(late.query("table kept").sqlstate(), "42P01");
    assert_eq!(late.value("show work_mem"), "4MB");
}

/// The connection that one more client of session mode gets, once it gets one.
fn late_value(bench: &Bench) -> String {
    let mut client = bench.session_client();
    client.query(PID).rows.pop().unwrap_or_default()
}

#[test]
fn pool_size_holds_for_all_workers_together() {
    let bench = Bench::start("crowded", "default_pool_size = 4\nworkers = 4");
    let mut most = 0;
    let pids: HashSet<String> = thread::scope(|scope| {
        let one = || {
            let mut client = bench.client();
            (0..20).map(|_| client.value(&format!("{PID} and pg_sleep(0.005) is not null"))).collect::<Vec<_>>()
        };
        let clients: Vec<_> = (0..50).map(|_| scope.spawn(one)).collect();
        while clients.iter().any(|client| !client.is_finished()) {
            most = most.max(bench.server_connections(""));
        }
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert!(pids.len() == 4 && most <= 4, "{pids:?}, {most} at once");
}

#[test]
fn who_came_first_is_served_first() {
    let bench = Bench::start("queueing", "default_pool_size = 1");
    direct("create table served(place serial, who int); grant all on served, served_place_seq to public");
    let mut holder = bench.client();
    holder.rows("begin; select 1");
    thread::scope(|scope| {
        for who in 0..8 {
            let mut client = bench.client();
            scope.spawn(move || client.rows(&format!("insert into served(who) values ({who})")));
            until(|| bench.waiting() == who + 1);
        }
        holder.rows("commit");
    });
    assert_eq!(direct("select string_agg(who::text, '' order by place) from served"), "01234567");
}

#[test]
fn who_waits_too_long_is_told_so_and_stays() {
    let bench = Bench::start("late", "default_pool_size = 1\nquery_wait_timeout = '100ms'");
    let (mut holder, mut client) = (bench.client(), bench.client());
    holder.rows("begin; select 1");
    let (code, message) = client.query("select 1").error.unwrap();
    assert!(code == "53300" && message.contains("query_wait_timeout (100 ms)"), "{code} {message}");
    let reply = client.extended(&[parse("", "select 1"), bind("", &[]), execute()]);
    assert_eq!((reply.sqlstate(), reply.status), ("53300", 'I'));
    client.rows("begin");
    assert_eq!((client.refusal("select 1"), client.refusal("select 1")), ("53300".to_owned(), "25P02".to_owned()));
    client.rows("rollback");
    holder.rows("commit");
    assert_eq!(client.value("select 1"), "1");
}

#[test]
fn waiters_that_leave_take_no_place_with_them() {
    let bench = Bench::start("leaving", "default_pool_size = 1");
    let (mut holder, mut canceled) = (bench.client(), bench.client());
    holder.rows("begin; select 1");
    thread::scope(|scope| {
        let key = canceled.key.clone();
        let refused = scope.spawn(move || canceled.refusal("select 1"));
        until(|| bench.waiting() == 1);
        bench.cancel(&key);
        assert_eq!(refused.join().unwrap(), "57014");
    });
    for _ in 0..3 {
        bench.client().send(&raw::query("select 1"));
    }
    until(|| bench.waiting() >= 3);
    holder.rows("commit");
    until(|| bench.waiting() == 0);
    assert_eq!(bench.client().value("select 1"), "1");
    assert_eq!(bench.server_connections(""), 1);
}

#[test]
fn who_gave_up_does_not_count_as_waiting() {
    let bench = Bench::start("resigning", "default_pool_size = 1\nquery_wait_timeout = '20ms'");
    let (mut holder, mut client) = (bench.client(), bench.client());
    holder.rows("begin; select 1");
    for _ in 0..3 {
        assert_eq!(client.refusal("select 1"), "53300");
    }
    assert_eq!(bench.waiting(), 0);
}

#[test]
fn connections_that_broke_are_not_handed_on() {
    let bench = Bench::start("breaking", "default_pool_size = 1\nworkers = 1");
    let (mut one, mut other) = (bench.client(), bench.client());
    let kill = |pid: &str| {
        direct(&format!("select pg_terminate_backend({pid})"));
        until(|| direct(&format!("select count(*) from pg_stat_activity where pid = {pid}")) == "0");
    };
    for _ in 0..5 {
        // While it was idle: nobody notices.
        let pid = one.value(PID);
        kill(&pid);
        assert_ne!(other.value(PID), pid);
        // Within a transaction: that is lost, the session is not.
        one.rows("begin");
        let pid = one.value(PID);
        kill(&pid);
        let lost = one.query("select 1");
        assert!(lost.sqlstate().starts_with("08") && lost.status == 'E', "{lost:?}");
        assert_eq!(one.refusal("select 1"), "25P02");
        one.rows("rollback");
        assert_eq!(one.value("select 1"), "1");
    }
}

#[test]
fn what_a_client_left_open_ends_with_it() {
    let bench = Bench::start("abandoning", "default_pool_size = 1");
    direct("create table left_open(n int); grant all on left_open to public");
    let mut client = bench.client();
    let pid = client.value(PID);
    client.rows("begin; insert into left_open values (1); lock left_open");
    drop(client);
    let mut next = bench.client();
    assert_eq!(next.value("select count(*) from left_open"), "0");
    assert_ne!(next.value(PID), pid);
    // A failed transaction, and a statement that still runs.
    next.rows("begin");
    assert_eq!(next.refusal("select 1/0"), "22012");
    drop(next);
    let mut last = bench.client();
    assert_eq!(last.value("select 1"), "1");
    last.send(&raw::query("select pg_sleep(60)"));
    until(|| bench.server_connections("active") == 1);
    drop(last);
    until(|| bench.server_connections("active") == 0);
    assert_eq!(bench.client().value("select 1"), "1");
}

#[test]
fn startup_settings_follow_their_client_alone() {
    let bench = Bench::start("starting", "default_pool_size = 1");
    let ways = [
        ("options", r"-c work_mem=5MB -c my.setting=a\ b", "work_mem", "5MB"),
        ("options", "--statement-timeout=7s", "statement_timeout", "7s"),
        ("application_name", "ledger", "application_name", "ledger"),
        ("timezone", "Asia/Tokyo", "timezone", "Asia/Tokyo"),
        ("search_path", "one", "search_path", "one"),
        ("DateStyle", "German", "DateStyle", "German, DMY"),
    ];
    let mut plain = bench.client();
    let usual = ways.map(|(_, _, shown, _)| plain.value(&format!("show {shown}")));
    let mut clients = ways.map(|(name, value, ..)| bench.client_with(&[(name, value)]));
    for _ in 0..2 {
        for ((client, (.., shown, expected)), usual) in clients.iter_mut().zip(ways).zip(&usual) {
            let show = format!("show {shown}");
            assert_eq!((client.value(&show), plain.value(&show)), (expected.to_owned(), usual.clone()));
        }
    }
    assert_eq!(clients[0].value("show my.setting"), "a b");
    let told = |client: &Raw, name: &str| client.parameters[name].clone();
    assert_eq!((told(&clients[3], "TimeZone"), told(&plain, "TimeZone")), ("Asia/Tokyo".to_owned(), "UTC".to_owned()));
    assert_eq!(told(&clients[2], "application_name"), "ledger");
    assert_eq!(
        Raw::try_connect(bench.proxy.port, &[("user", "starting"), ("database", "shop"), ("work_mem", "x")])
            .1
            .sqlstate(),
        "22023"
    );
    let psql = Command::new("psql")
        .args(["-XAt", "-h", "127.0.0.1", "-p", &bench.proxy.port.to_string(), "-U", "starting", "-d", "shop"])
        .args(["-c", "show timezone", "-c", "show geqo"])
        .envs([("PGTZ", "Asia/Tokyo"), ("PGOPTIONS", "-c geqo=off")])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&psql.stdout), "Asia/Tokyo\noff\n");
}

#[test]
fn a_list_of_schemas_at_startup_is_one_list() {
    let bench = Bench::start("searching", "default_pool_size = 1");
    direct("create schema one; create schema \"Two\"; create table \"Two\".found as select 7 as n");
    direct("grant usage on schema one, \"Two\" to public; grant select on \"Two\".found to public");
    let path = "one, \"Two\"";
    for (name, value) in [("search_path", path), ("options", "-c search_path=one,\\ \"Two\"")] {
        let mut client = bench.client_with(&[(name, value)]);
        assert_eq!(client.value("show search_path"), path);
        assert_eq!(client.value("table found"), "7");
    }
    assert_eq!(bench.client().refusal("table found"), "42P01");
}

/// What is run by a client that began with `work_mem` at 5MB, and which setting it has then; others never see it.
const CHANGES: &[(&str, &str, &str)] = &[
    ("set work_mem to '6MB'", "work_mem", "6MB"),
    ("set session work_mem = 7168", "work_mem", "7MB"),
    ("reset work_mem", "work_mem", "5MB"),
    ("begin; set work_mem to '8MB'; rollback", "work_mem", "5MB"),
    ("begin; set work_mem to '8MB'; commit", "work_mem", "8MB"),
    ("begin; set local work_mem to '9MB'; commit", "work_mem", "8MB"),
    ("set work_mem to default", "work_mem", "5MB"),
    ("set timezone=-08", "timezone", "<-08>+08"),
    ("set extra_float_digits=+2", "extra_float_digits", "2"),
    ("set work_mem to '6MB'; select 1", "work_mem", "6MB"),
    ("reset all", "work_mem", "5MB"),
    ("set time zone 'Asia/Tokyo'", "timezone", "Asia/Tokyo"),
    ("set names 'LATIN1'", "client_encoding", "LATIN1"),
    ("set search_path to one, two", "search_path", "one, two"),
    ("set session characteristics as transaction read only", "default_transaction_read_only", "on"),
    ("set my.setting to 'it''s'", "my.setting", "it's"),
    ("discard all", "work_mem", "5MB"),
    ("discard all", "timezone", "UTC"),
    ("discard all", "search_path", "\"$user\", public"),
    ("set role pg_read_all_stats", "role", "pg_read_all_stats"),
    ("reset role", "role", "none"),
];

#[test]
fn settings_follow_their_client_alone() {
    let bench = Bench::start("setting", "default_pool_size = 1");
    direct("grant pg_read_all_stats to setting");
    let (mut client, mut plain) = (bench.client_with(&[("options", "-c work_mem=5MB")]), bench.client());
    plain.rows("set my.setting to 'unset'");
    let usual: Vec<_> = CHANGES.iter().map(|(_, name, _)| plain.value(&format!("show {name}"))).collect();
    for (index, (change, name, expected)) in CHANGES.iter().enumerate() {
        let show = format!("show {name}");
        // Twice: by the simple protocol, and by the extended one where it is one statement.
        client.rows(change);
        assert_eq!(
            (plain.value(&show), client.value(&show)),
            (usual[index].clone(), (*expected).to_owned()),
            "{change}"
        );
        if change.contains(';') {
            continue;
        }
        client.extended(&[parse("", change), bind("", &[]), execute()]);
        assert_eq!(
            (plain.value(&show), client.value(&show)),
            (usual[index].clone(), (*expected).to_owned()),
            "{change}"
        );
    }
    assert_eq!(bench.server_connections(""), 1);
}

/// Settings of 20 kinds, and what the server shows of each.
const TWENTY: [(&str, &str); 20] = [
    ("work_mem", "6MB"),
    ("maintenance_work_mem", "7MB"),
    ("statement_timeout", "7min"),
    ("lock_timeout", "8s"),
    ("idle_in_transaction_session_timeout", "9min"),
    ("timezone", "Asia/Tokyo"),
    ("datestyle", "German, DMY"),
    ("intervalstyle", "iso_8601"),
    ("search_path", "one, two"),
    ("application_name", "of one"),
    ("client_min_messages", "error"),
    ("extra_float_digits", "0"),
    ("bytea_output", "escape"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_read_only", "on"),
    ("synchronous_commit", "off"),
    ("enable_seqscan", "off"),
    ("random_page_cost", "1.5"),
    ("row_security", "off"),
    ("my.own", "7"),
];

#[test]
fn many_settings_of_one_client_are_seen_by_no_other() {
    let bench = Bench::start("changing", "default_pool_size = 1");
    let (mut one, mut other) = (bench.client(), bench.client());
    other.rows("set my.own to 'other'");
    let seen = |client: &mut Raw| TWENTY.map(|(name, _)| client.value(&format!("show {name}")));
    let usual = seen(&mut other);
    for (name, value) in TWENTY {
        let value = if name == "search_path" { value.to_owned() } else { format!("'{value}'") };
        one.rows(&format!("set {name} to {value}"));
    }
    for _ in 0..3 {
        assert_eq!(seen(&mut other), usual);
        assert_eq!(seen(&mut one), TWENTY.map(|(_, value)| value.to_owned()));
    }
    assert_eq!((bench.server_connections(""), bench.pinned_by()), (1, vec![]));
    drop(one);
    assert_eq!(seen(&mut other), usual);
    other.rows("reset my.own");
    assert_eq!(seen(&mut bench.client_with(&[("options", "-c my.own=other")])), usual);
}

#[test]
fn a_failed_change_of_settings_leaves_no_trace() {
    let bench = Bench::start("failing", "default_pool_size = 1");
    let (mut client, mut plain) = (bench.client(), bench.client());
    for (text, code) in [
        ("set work_mem to '6MB'; select 1/0", "22012"),
        ("begin; set work_mem to '6MB'; commit; select 1/0", "22012"),
        ("set work_mem to 'much'", "22023"),
        ("set no_such_setting to 1", "42704"),
    ] {
        assert_eq!(client.refusal(text), code, "{text}");
        // A text that committed before it failed has set what it has set.
        client.rows("reset all");
        assert_eq!((client.value("show work_mem"), plain.value("show work_mem")), ("4MB".to_owned(), "4MB".to_owned()));
    }
    client.rows("begin; savepoint a; set work_mem to '6MB'; savepoint b; set work_mem to '7MB'");
    client.rows("rollback to b");
    assert_eq!(client.value("show work_mem"), "6MB");
    client.rows("commit");
    assert_eq!((client.value("show work_mem"), plain.value("show work_mem")), ("6MB".to_owned(), "4MB".to_owned()));
}

#[test]
fn settings_that_leave_no_trace_stay_with_their_client() {
    let bench = Bench::start("hiding", "default_pool_size = 2");
    let mut client = bench.client();
    for text in [
        "do $$ begin perform set_config('work_mem', '6MB', false); end $$",
        "select set_config('work_mem', '6MB', false)",
        "do $$ begin set work_mem to '6MB'; end $$",
    ] {
        client.rows(text);
        for _ in 0..3 {
            assert_eq!(bench.client().value("show work_mem"), "4MB", "{text}");
        }
    }
}

#[test]
fn settings_made_out_of_sight_stay_with_their_client() {
    let bench = Bench::start("sneaking", "default_pool_size = 2\nworkers = 1");
    direct(
        "create function enlarge() returns text language plpgsql as \
         $$ begin return set_config('work_mem', '6MB', false); end $$",
    );
    let mut client = bench.client();
    for text in ["update pg_settings set setting = '6144' where name = 'work_mem'", "select enlarge()"] {
        client.rows(text);
        assert_eq!(bench.client().value("show work_mem"), "4MB", "{text}");
    }
}

#[test]
fn server_connections_end_with_their_time() {
    let old = Bench::start("aging", "default_pool_size = 1\nserver_lifetime = '200ms'");
    let mut client = old.client();
    let first = client.value(PID);
    client.rows("begin");
    let held = client.value(PID);
    // In use it may grow as old as it likes.
    client.rows("select pg_sleep(0.3)");
    assert_eq!(client.value(PID), held);
    client.rows("commit");
    assert_ne!(client.value(PID), held);
    until(|| direct(&format!("select count(*) from pg_stat_activity where pid = {first}")) == "0");
}

#[test]
fn unused_server_connections_are_closed() {
    let bench = Bench::start("idling", "server_idle_timeout = '200ms'\nmin_pool_size = 1");
    let mut clients: Vec<_> = (0..4).map(|_| bench.client()).collect();
    clients.iter_mut().for_each(|client| assert!(client.rows("begin; select 1") == ["1"]));
    // And one that the pool of the other user keeps.
    until(|| bench.server_connections("") == 4 + 1);
    clients.iter_mut().for_each(|client| assert!(client.rows("commit").is_empty()));
    until(|| bench.server_connections("") == 1 + 1);
    clients.iter_mut().for_each(|client| assert_eq!(client.value("select 1"), "1"));
}

#[test]
fn who_idles_in_a_transaction_is_disconnected() {
    let bench = Bench::start("dreaming", "default_pool_size = 1\nidle_transaction_timeout = '200ms'");
    direct("create table dreamt(n int); grant all on dreamt to public");
    let (mut idle, mut client, mut begun) = (bench.client(), bench.client(), bench.client());
    begun.rows("begin");
    client.rows("begin; insert into dreamt values (1)");
    for client in [&mut client, &mut begun] {
        let last = client.reply();
        assert_eq!((last.sqlstate(), last.status), ("25P03", ' '));
    }
    assert_eq!(idle.value("select count(*) from dreamt"), "0", "who idles outside of one stays");
    idle.rows("begin; select pg_sleep(0.3)");
    idle.rows("commit");
}

#[test]
fn a_limit_of_idling_that_a_client_sets_itself_disconnects_it() {
    let bench = Bench::start("nodding", "default_pool_size = 1");
    let (mut client, mut other) = (bench.client(), bench.client());
    client.rows("set idle_in_transaction_session_timeout = '100ms'");
    client.rows("begin; select 1");
    // A block that no server knows of yet, and none at all.
    let mut begun = bench.client_with(&[("idle_in_transaction_session_timeout", "0.1s")]);
    begun.rows("begin");
    let mut idle = bench.client();
    idle.rows("set idle_session_timeout = 100");
    let in_transaction = ("25P03", "idle-in-transaction");
    for (client, (sqlstate, what)) in
        [(&mut client, in_transaction), (&mut begun, in_transaction), (&mut idle, ("57P05", "idle-session"))]
    {
        let last = client.reply();
        let expected = (sqlstate.to_owned(), format!("terminating connection due to {what} timeout"));
        assert_eq!((last.error, last.status), (Some(expected), ' '));
    }
    assert_eq!(other.value("select 1"), "1");
}

#[test]
fn a_block_whose_server_is_lost_is_not_there_for_an_empty_statement_either() {
    let bench = Bench::start("hollow", "default_pool_size = 1");
    let mut client = bench.client();
    client.rows("begin; select 1");
    assert_eq!((client.query("").kinds.as_str(), client.query(";").status), ("IZ", 'T'));
    direct("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'hollow'");
    until(|| bench.server_connections("") == 0);
    let reply = client.query(";");
    assert_eq!((reply.sqlstate(), reply.status), ("08006", 'E'));
    client.rows("rollback");
    assert_eq!(client.value("select 1"), "1");
}

#[test]
fn a_client_that_wants_no_warnings_gets_none() {
    let bench = Bench::start("unwarned", "");
    let mut client = bench.client();
    assert_eq!(client.query("rollback").kinds, "NCZ");
    client.rows("set client_min_messages = error");
    assert_eq!(client.query("rollback").kinds, "CZ");
    assert_eq!(client.extended(&[parse("", "commit"), bind("", &[]), execute()]).kinds, "12CZ");
    client.rows("reset client_min_messages");
    assert_eq!(client.query("rollback").kinds, "NCZ");
    assert_eq!(bench.client_with(&[("client_min_messages", "ERROR")]).query("rollback").kinds, "CZ");
}

#[test]
fn a_statement_that_takes_too_long_is_cancelled_on_the_server() {
    let bench = Bench::start("slow", "default_pool_size = 1\nquery_timeout = '300ms'");
    let mut client = bench.client();
    assert_eq!(client.value("select 1"), "1");
    assert_eq!(client.refusal("select pg_sleep(600)"), "57014");
    soon(|| bench.server_connections("active") == 0);
    assert_eq!(bench.client().value("select 1"), "1");
}

#[test]
fn whose_statement_took_too_long_stays() {
    let bench = Bench::start("patient", "default_pool_size = 1\nquery_timeout = '300ms'");
    let mut client = bench.client();
    let reply = client.query("select pg_sleep(1)");
    assert_eq!((reply.sqlstate(), reply.status), ("57014", 'I'));
    assert_eq!(client.value("select 1"), "1");
}

#[test]
fn who_does_not_log_in_in_time_is_disconnected() {
    let bench = Bench::start("mumbling", "client_login_timeout = '2s'");
    let mut client = bench.client();
    let mumblers = [&b""[..], b"\0\0\0", b"\0\0\0\x16\0\x03\0\0user\0mumb"].map(|bytes| {
        let mut silent = TcpStream::connect((Ipv4Addr::LOCALHOST, bench.proxy.port)).unwrap();
        std::io::Write::write_all(&mut silent, bytes).unwrap();
        silent.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        silent
    });
    for mut silent in mumblers {
        assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    }
    assert_eq!(client.value("select 1"), "1", "who is in may take all the time");
}

#[test]
fn a_cancel_request_ends_its_own_statement_alone() {
    let bench = Bench::start("canceling", "default_pool_size = 2");
    let (mut one, mut other) = (bench.client(), bench.client());
    one.send(&raw::query("select pg_sleep(60)"));
    other.send(&raw::query("select 'done' from pg_sleep(1)"));
    until(|| bench.server_connections("active") == 2);
    let wrong = [&one.key[..4], b"\0\0\0\x07"].concat();
    bench.cancel(&wrong);
    bench.cancel(&one.key);
    assert_eq!(one.reply().sqlstate(), "57014");
    assert_eq!(other.reply().rows, ["done"]);
    assert_eq!((one.value("select 1"), other.value("select 1")), ("1".to_owned(), "1".to_owned()));
}

#[test]
fn a_signal_to_one_who_had_the_connection_before_does_not_cancel_its_sender() {
    let bench = Bench::start("mistaken", "default_pool_size = 1");
    let (mut idle, mut other) = (bench.client(), bench.client());
    let process = idle.value(PID);
    let reply = other.query(&format!("select pg_cancel_backend({process})"));
    assert_eq!((reply.error, reply.status), (None, 'I'));
    let own = other.value(PID);
    assert_eq!(other.refusal(&format!("select pg_cancel_backend({own})")), "57014", "its own, which it has asked for");
    assert_eq!(idle.value("select 1"), "1");
}

/// Protocol 3.2 has longer keys, all of which counts.
#[test]
fn a_long_key_ends_its_own_statement() {
    let bench = Bench::start("at_length", "");
    let mut client = Raw::open(bench.proxy.port);
    client.send(&raw::startup(raw::PROTOCOL_3_0 | 2, &[("user", bench.role), ("database", "shop")]));
    assert_eq!(client.reply().error, None);
    client.send(&raw::query("select 'done' from pg_sleep(0.5)"));
    until(|| bench.server_connections("active") == 1);
    let key = client.key.clone();
    let mut wrong = key.clone();
    wrong[35] ^= 1;
    for wrong in [&wrong[..], &key[..8], &key[..35]] {
        bench.cancel(wrong);
    }
    assert_eq!(client.reply().rows, ["done"]);
    client.send(&raw::query("select pg_sleep(60)"));
    until(|| bench.server_connections("active") == 1);
    bench.cancel(&key);
    assert_eq!(client.reply().sqlstate(), "57014");
    assert_eq!(client.value("select 1"), "1");
}

#[test]
fn a_cancel_request_that_comes_late_hits_nobody() {
    let bench = Bench::start("missing", "default_pool_size = 1");
    let (mut one, mut other) = (bench.client(), bench.client());
    let pid = one.value(PID);
    other.send(&raw::query(&format!("{PID} and pg_sleep(0.3) is not null")));
    until(|| bench.server_connections("active") == 1);
    (0..20).for_each(|_| bench.cancel(&one.key));
    assert_eq!(other.reply().rows, [pid]);
    // Right on the heels of a statement: it hits that one or none.
    for _ in 0..100 {
        let key = one.key.clone();
        thread::scope(|scope| {
            scope.spawn(|| bench.cancel(&key));
            let first = one.query("select 1");
            assert!(first.error.is_none() || first.sqlstate() == "57014");
            assert_eq!(other.value("select 2 from pg_sleep(0.002)"), "2");
        });
    }
}

#[test]
fn prepared_statements_go_where_their_client_goes() {
    let bench = Bench::start("preparing", "default_pool_size = 3\nworkers = 1");
    let (mut client, mut other, mut blocker) = (bench.client(), bench.client(), bench.client());
    let run = |client: &mut Raw, name: &str, value: &str| client.extended(&[bind(name, &[value]), execute()]);
    let ask = "select $1::int + 1, pid from pg_stat_activity where pid = pg_backend_pid()";
    assert_eq!(client.extended(&[parse("s", ask)]).kinds, "1Z");
    // The same name is another statement to another client.
    other.extended(&[parse("s", "select 'other ' || $1::text, 1")]);
    let mut pids = HashSet::new();
    for round in 0..6 {
        let reply = run(&mut client, "s", "41");
        let (answer, pid) = reply.rows[0].split_once('|').unwrap();
        assert_eq!(answer, "42");
        assert!(run(&mut other, "s", "x").rows[0].starts_with("other x|"));
        pids.insert(pid.to_owned());
        if round % 2 == 0 {
            blocker.rows("begin; select 1");
        } else {
            blocker.rows("commit");
        }
    }
    assert!(pids.len() > 1, "more than one connection was used: {pids:?}");
    assert_eq!(client.extended(&[describe("s")]).kinds, "tTZ");
    assert_eq!(client.extended(&[parse("s", ask)]).sqlstate(), "42P05");
    // A name is free again once it was closed; the new text counts.
    assert_eq!(client.extended(&[close("s"), parse("s", "select $1::int * 2")]).kinds, "31Z");
    assert_eq!(run(&mut client, "s", "21").rows, ["42"]);
    for text in ["select 1", "select 2"] {
        let expected = &text[7..];
        assert_eq!(client.extended(&[parse("", text), bind("", &[]), execute()]).rows, [expected]);
        assert_eq!(client.extended(&[bind("", &[]), execute()]).rows, [expected]);
    }
}

#[test]
fn prepared_statements_end_when_they_are_dropped() {
    let bench = Bench::start("forgetting", "default_pool_size = 1\nprepared_statements_limit = 5");
    let (mut client, mut other) = (bench.client(), bench.client());
    let run = |client: &mut Raw, name: &str| client.extended(&[bind(name, &[]), execute()]);
    for (drop_them, stays) in [("deallocate all", true), ("discard all", true), ("deallocate s", true)] {
        for client in [&mut client, &mut other] {
            assert_eq!(client.extended(&[parse("s", "select 'here'")]).error, None);
            assert_eq!(run(client, "s").rows, ["here"]);
        }
        client.rows(drop_them);
        assert_eq!(run(&mut client, "s").sqlstate(), "26000", "{drop_them}");
        assert_eq!(run(&mut other, "s").rows == ["here"], stays, "{drop_them}");
        other.extended(&[close("s")]);
    }
    // More than one server connection may hold.
    for number in 0..20 {
        client.extended(&[parse(&format!("s{number}"), &format!("select {number}"))]);
    }
    for number in (0..20).rev() {
        assert_eq!(run(&mut client, &format!("s{number}")).rows, [number.to_string()]);
    }
    assert_eq!(client.value("select count(*) from pg_prepared_statements"), "20");
    let held: usize = client.value("select count(*) from pg_prepared_statement()").parse().unwrap();
    assert!(held <= 5, "{held}");
}

#[test]
fn a_prepared_statement_has_the_settings_of_its_client() {
    let bench = Bench::start("dating", "default_pool_size = 1");
    let mut clients = ["MDY", "DMY"].map(|order| bench.client_with(&[("datestyle", order)]));
    let ask = "select '2024-02-01' = '01/02/2024'::date";
    let seen = clients.each_mut().map(|client| client.extended(&[parse("s", ask), bind("s", &[]), execute()]).rows);
    assert_eq!(seen, [["f"], ["t"]]);
}

/// What ties a session to its connection, the reason that the console gives, and how to see that it lasts.
const TIES: &[(&str, &str, &str)] = &[
    ("create temp table tied as select 7", "temporary table", "table tied"),
    ("select 7 into temp tied", "temporary table", "table tied"),
    ("create temp view tied as select 7", "temporary table", "table tied"),
    (
        "select pg_advisory_lock(77)",
        "advisory lock",
        "select 7 from pg_locks where locktype = 'advisory' and objid = 77",
    ),
    // By itself, it follows its client.
    ("prepare tied as select 7; select 1", "PREPARE", "execute tied"),
    ("begin; declare tied cursor with hold for select 7; commit", "cursor WITH HOLD", "fetch tied"),
    ("select set_config(name, '7', false) from (values ('my.tied')) known(name)", "set_config", "show my.tied"),
];

#[test]
fn what_lives_in_a_server_session_ties_the_client_to_it() {
    let bench = Bench::start("tying", "default_pool_size = 2\nworkers = 1");
    for (text, reason, look) in TIES {
        let (mut client, mut plain) = (bench.client(), bench.client());
        client.rows(text);
        let pid = client.value(PID);
        for _ in 0..3 {
            assert_ne!(plain.value(PID), pid, "{text}");
        }
        assert_eq!((client.value(look), bench.pinned_by()), ("7".to_owned(), vec![(*reason).to_owned()]), "{text}");
        drop(client);
        until(|| bench.pinned_by().is_empty());
        until(|| direct(&format!("select count(*) from pg_stat_activity where pid = {pid}")) == "0");
    }
}

/// What ties a session to its connection, and what frees it: then another client has that connection.
const FREED: &[(&str, &str)] = &[
    ("select pg_advisory_lock(77)", "select pg_advisory_unlock(77)"),
    ("select pg_advisory_lock_shared(7, 7)", "select pg_advisory_unlock_shared(7, 7)"),
    ("select pg_advisory_lock(76), pg_advisory_lock(77)", "select pg_advisory_unlock_all()"),
    ("begin; select pg_advisory_lock(77)", "commit; select pg_advisory_unlock(77)"),
    ("do $$ begin perform pg_advisory_lock(77); end $$", "do $$ begin perform pg_advisory_unlock(77); end $$"),
    ("create temp table tied as select 7", "drop table tied"),
    ("create table pg_temp.tied as select 7", "discard temp"),
    ("create temp table tied as select 7", "discard all"),
    ("select 7 into temp tied", "begin; drop table tied; commit"),
    ("begin; create temp table tied(n int) on commit drop", "commit"),
    ("begin; create temp table tied(n int)", "rollback"),
    ("do $$ begin create temp table tied(n int); end $$", "drop table tied"),
    ("create function pg_temp.tied() returns int language sql as 'select 7'", "drop function pg_temp.tied()"),
    ("create type pg_temp.tied as enum ('7')", "drop type pg_temp.tied"),
    ("begin; declare tied cursor with hold for select 7; commit", "close tied"),
    ("begin; declare tied cursor with hold for select 7; commit", "close all"),
    ("begin; declare tied cursor with hold for select 7", "rollback"),
    ("prepare tied as select 7; select 1", "deallocate tied"),
    ("prepare tied as select 7; select 1", "deallocate all"),
    (
        "create temp table tied as select 7; select pg_advisory_lock(77)",
        "select pg_advisory_unlock(77); drop table tied",
    ),
];

#[test]
fn a_client_is_tied_as_long_as_what_ties_it_is_there() {
    let bench = Bench::start("freeing", "default_pool_size = 2\nworkers = 1");
    for (tie, free) in FREED {
        let (mut client, mut plain) = (bench.client(), bench.client());
        client.rows(tie);
        let pid = client.value(PID);
        assert_eq!(bench.pinned_by().len(), 1, "{tie}");
        assert_ne!(plain.value(PID), pid, "{tie}");
        client.rows(free);
        assert_eq!(bench.pinned_by(), [""; 0], "{tie}, {free}");
        assert_eq!((plain.value(PID), client.value(PID)), (pid.clone(), pid), "{tie}, {free}");
    }
}

#[test]
fn what_is_half_gone_still_ties() {
    let bench = Bench::start("halving", "default_pool_size = 2\nworkers = 1");
    let mut client = bench.client();
    // A lock taken twice is to be released twice.
    client.rows("select pg_advisory_lock(79), pg_advisory_lock(79)");
    client.rows("create temp table kept as select 7; create temp table gone as select 7");
    client.rows("drop table gone");
    client.rows("select pg_advisory_unlock(79)");
    assert_eq!(bench.pinned_by(), ["advisory lock"]);
    client.rows("select pg_advisory_unlock(79)");
    assert_eq!((bench.pinned_by(), client.value("table kept")), (vec!["temporary table".to_owned()], "7".to_owned()));
    client.rows("begin; drop table kept; rollback");
    assert_eq!((bench.pinned_by(), client.value("table kept")), (vec!["temporary table".to_owned()], "7".to_owned()));
    assert_eq!(client.value("select set_config(name, '8', false) from (values ('my.tied')) known(name)"), "8");
    client.rows("drop table kept");
    assert_eq!((bench.pinned_by(), client.value("show my.tied")), (vec!["set_config".to_owned()], "8".to_owned()));
}

#[test]
fn a_try_that_failed_ties_nobody() {
    let bench = Bench::start("trying", "default_pool_size = 2\nworkers = 1");
    let (mut holder, mut client) = (bench.client(), bench.client());
    holder.rows("select pg_advisory_lock(80)");
    for attempt in ["select pg_try_advisory_lock(80)", "select pg_try_advisory_lock_shared(80)"] {
        assert_eq!(client.value(attempt), "f");
        let reply = client.extended(&[parse("", attempt), bind("", &[]), execute()]);
        assert_eq!((reply.rows, bench.pinned_by().len()), (vec!["f".to_owned()], 1), "{attempt}");
    }
    // A transaction's own lock ends with it.
    assert_eq!(client.value("begin; select pg_try_advisory_xact_lock(81); commit"), "t");
    client.rows("begin; select pg_advisory_xact_lock(81)");
    client.rows("rollback");
    assert_eq!(bench.pinned_by().len(), 1);
}

#[test]
fn a_lock_outlives_the_error_behind_it() {
    let bench = Bench::start("erring", "default_pool_size = 2\nworkers = 1");
    let (mut client, mut other) = (bench.client(), bench.client());
    let by_function = "select lock_and_fail()";
    for (text, key) in [("select pg_advisory_lock(82); select 1/0", 82), (by_function, 83)] {
        if text == by_function {
            // Just made: no look at the catalogs has found it.
            direct(
                "create function lock_and_fail() returns int language plpgsql as \
                 $$ begin perform pg_advisory_lock(83); return 1 / 0; end $$",
            );
        }
        assert_eq!(client.refusal(text), "22012");
        assert_eq!(
            (bench.pinned_by(), other.value(&format!("select pg_try_advisory_xact_lock({key})"))),
            (vec!["advisory lock".to_owned()], "f".to_owned())
        );
        assert_eq!(client.value(&format!("select pg_advisory_unlock({key})")), "t");
        assert_eq!(bench.pinned_by(), [""; 0]);
    }
}

#[test]
fn the_lock_of_a_killed_client_is_free_within_a_second() {
    let bench = Bench::start("dying", "default_pool_size = 4");
    let mut other = bench.client();
    let attempt = "select pg_try_advisory_xact_lock(84)";
    // Idle; in a transaction; while a statement of its own runs; while it waits for another lock.
    let last_words = ["select 1", "begin; select 1", "select pg_sleep(60)", "select pg_advisory_lock(85)"];
    let mut holder = bench.client();
    holder.rows("select pg_advisory_lock(85)");
    for last in last_words {
        let mut client = bench.client();
        client.rows("select pg_advisory_lock(84)");
        assert_eq!(other.value(attempt), "f");
        client.send(&raw::query(last));
        if last.contains("(60)") || last.contains("lock") {
            until(|| bench.server_connections("active") == 1);
        } else {
            client.reply();
        }
        let killed = tokio::time::Instant::now();
        client.reset();
        until(|| other.value(attempt) == "t");
        assert!(killed.elapsed() < Duration::from_secs(1), "{last}: {:?}", killed.elapsed());
    }
    holder.rows("select pg_advisory_unlock(85)");
    assert_eq!(direct("select count(*) from pg_locks where locktype = 'advisory' and objid in (84, 85)"), "0");
}

#[test]
fn a_temporary_table_is_its_clients_alone() {
    let bench = Bench::start("owning", "default_pool_size = 3");
    let (mut owner, mut other) = (bench.client(), bench.client());
    owner.rows("create temp table own(n int)");
    for number in 1..=100 {
        owner.rows(&format!("insert into own values ({number})"));
        assert_eq!(owner.value("select count(*) from own"), number.to_string());
        assert_eq!(other.refusal("table own"), "42P01");
    }
}

#[test]
fn set_config_of_known_values_is_a_setting_like_others() {
    let bench = Bench::start("configuring", "default_pool_size = 1");
    let (mut client, mut plain) = (bench.client(), bench.client());
    let look = "select current_setting('my.own', true)";
    client.rows("select current_setting('jit'), set_config('my.own', '7', false) as new");
    let given = [parse("", "select set_config($1, $2, $3)"), bind("", &["My.Other", "8", "f"]), execute()];
    client.extended(&given);
    for _ in 0..3 {
        assert_eq!(
            plain.value("select concat(current_setting('my.own', true), current_setting('my.other', true))"),
            ""
        );
        assert_eq!((client.value(look), client.value("show my.other")), ("7".to_owned(), "8".to_owned()));
    }
    client.rows("begin; select set_config('my.own', '9', true)");
    assert_eq!(client.value(look), "9");
    client.rows("commit");
    client.rows("begin; select set_config('my.own', '10', false); rollback");
    assert_eq!((client.value(look), bench.pinned_by().len()), ("7".to_owned(), 0));
    client.rows("select set_config('my.own', null, false)");
    assert_eq!(client.value("select coalesce(current_setting('my.own', true), '')"), "");
    // Texts are read by it from the next one on.
    client.rows("select set_config('standard_conforming_strings', 'off', false)");
    assert_eq!(
        (client.value("select 'a\\'b; --'"), plain.value("select 'a\\'")),
        ("a'b; --".to_owned(), "a\\".to_owned())
    );
}

/// Bytes of longer characters that look like ASCII are none.
#[test]
fn texts_are_the_servers_to_read_where_letters_embed_ascii() {
    let bench = Bench::start("embedding", "default_pool_size = 1");
    let (mut client, mut other) = (bench.client(), bench.client());
    let mut straight = straight();
    let said = |client: &mut Raw, text: &[u8], in_parts: bool| {
        let (text, name) = ([text, b"\0"].concat(), raw::text(""));
        let messages = match in_parts {
            true => [raw::message(b'P', &[&name, &text, &[0, 0]]), bind("", &[]), execute(), raw::sync()].concat(),
            false => raw::message(b'Q', &[&text]),
        };
        client.send(&messages);
        let reply = client.reply();
        (reply.rows, reply.error, reply.status)
    };
    // In SJIS 95 5C, in JOHAB 95 7B and 89 5C are one character each; in UTF-8 C3 A9 is one, in SJIS two of a byte each.
    for (encoding, texts) in [
        ("SJIS", [&b"select E'\x95\x5c', length('\xc3\xa9')"[..], b"select length(E'\x95\x5c; begin; --')"]),
        ("JOHAB", [b"select length(E'\x89\x5c'), 'a'", b"select 1 as \x89\x5c"]),
        ("sjis", [b"select length(E'\x95\x5c\x95\x5c')", b"select '\x95"]),
    ] {
        for client in [&mut client, &mut straight] {
            client.query(&format!("set client_encoding to '{encoding}'"));
        }
        for (text, in_parts) in texts.iter().flat_map(|text| [(text, false), (text, true)]) {
            assert_eq!(said(&mut client, text, in_parts), said(&mut straight, text, in_parts), "{encoding} {text:?}");
        }
        assert_eq!(other.value("select length('\u{e9}')"), "1");
    }
    // Valid UTF-8, too, in which the literal would end later.
    let made = b"select E'\xc3\x95\x5c'; create temp table embedded(n int) -- '";
    assert_eq!(said(&mut client, made, false), said(&mut straight, made, false));
    assert_eq!((client.value("select count(*) from embedded"), bench.pinned_by().len()), ("0".to_owned(), 1));
    client.rows("discard temp");
    assert_eq!(other.refusal("table embedded"), "42P01");
    let mut begun = bench.client_with(&[("client_encoding", "SJIS")]);
    assert_eq!(said(&mut begun, b"select length(E'\x95\x5c')", false).0, ["1"]);
}

#[test]
fn a_table_of_the_temporary_schema_ties_the_client_to_it() {
    let bench = Bench::start("qualifying", "default_pool_size = 2\nworkers = 1");
    let mut client = bench.client();
    client.rows("create table pg_temp.tied as select 7");
    assert_eq!(bench.pinned_by(), ["temporary table"]);
    assert_eq!(bench.client().refusal("table pg_temp.tied"), "42P01");
    assert_eq!(client.value("table pg_temp.tied"), "7");
}

#[test]
fn a_lock_is_released_when_its_client_leaves_or_discards_all() {
    let bench = Bench::start("locking", "default_pool_size = 2");
    let (mut client, mut other) = (bench.client(), bench.client());
    client.rows("select pg_advisory_lock(78)");
    let attempt = "select pg_try_advisory_xact_lock(78)";
    assert_eq!(other.value(attempt), "f");
    client.rows("discard all");
    assert_eq!((other.value(attempt), bench.pinned_by().len()), ("t".to_owned(), 0));
    client.extended(&[parse("", "select pg_advisory_lock($1::int)"), bind("", &["78"]), execute()]);
    assert_eq!(other.value(attempt), "f");
    drop(client);
    until(|| bench.client().value(attempt) == "t");
}

/// A notification that comes by itself: process, channel and payload.
fn hear(client: &mut Raw) -> (i32, String, String) {
    let (kind, body) = client.frame().unwrap();
    assert_eq!(kind, b'A');
    let (process, texts) = body.split_first_chunk::<4>().unwrap();
    let mut texts = texts.split(|&byte| byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
    (i32::from_be_bytes(*process), texts.next().unwrap(), texts.next().unwrap())
}

fn payload(client: &mut Raw) -> String {
    hear(client).2
}

#[test]
fn notifications_reach_who_listens() {
    let bench = Bench::start("listening", "default_pool_size = 2");
    let (mut listener, mut speaker) = (bench.client(), bench.client());
    listener.rows("listen tidings");
    speaker.rows("begin; notify tidings, 'first'; commit");
    // It comes by itself.
    assert_eq!(hear(&mut listener), (number(&speaker), "tidings".to_owned(), "first".to_owned()));
    listener.rows("unlisten *");
    speaker.rows("notify tidings, 'second'");
    assert_eq!(listener.query("select 1").notified, [""; 0]);
}

/// The process number that the client was told when it logged in.
fn number(client: &Raw) -> i32 {
    i32::from_be_bytes(client.key[..4].try_into().unwrap())
}

#[test]
fn a_notification_names_its_client_whoever_shares_the_connection() {
    let bench = Bench::start("naming", "default_pool_size = 1");
    let mut listener = bench.client();
    let mut speakers: Vec<_> = (0..5).map(|_| bench.client()).collect();
    listener.rows("listen gossip");
    for round in 0..20 {
        for speaker in &mut speakers {
            match round % 4 {
                0 => drop(speaker.rows("notify gossip")),
                1 => drop(speaker.rows("select pg_notify('gossip', '')")),
                2 => ["begin", "notify gossip", "select 1", "commit"].iter().for_each(|sql| drop(speaker.rows(sql))),
                _ => drop(speaker.extended(&[parse("", "notify gossip"), bind("", &[]), execute()])),
            }
        }
    }
    for _ in 0..20 {
        for speaker in &speakers {
            assert_eq!(hear(&mut listener).0, number(speaker));
        }
    }
    let own = number(&listener);
    listener.send(&raw::query("notify gossip"));
    let told = |listener: &mut Raw| std::iter::from_fn(|| listener.frame()).find(|(kind, _)| *kind == b'A').unwrap().1;
    assert_eq!(told(&mut listener)[..4], own.to_be_bytes());
    // Who listens only from now on hears it of the server itself.
    let mut new = bench.client();
    new.rows("begin; listen news; notify news");
    new.send(&raw::query("commit"));
    assert_eq!(told(&mut new)[..4], number(&new).to_be_bytes());
    // Who has asked for its number was told that, too; if the server gave it, it knows itself by the server's.
    let mut asker = bench.client();
    asker.rows("listen gossip");
    assert_eq!(asker.value("select pg_backend_pid()"), number(&asker).to_string());
    asker.send(&raw::query("notify gossip"));
    assert_eq!(told(&mut asker)[..4], number(&asker).to_be_bytes());
    let mut asker = bench.client();
    asker.rows("listen gossip");
    let asked: i32 = asker.value(PID).parse().unwrap();
    asker.send(&raw::query("notify gossip"));
    assert_eq!(told(&mut asker)[..4], asked.to_be_bytes());
}

#[test]
fn an_answer_does_not_wait_for_what_was_asked_behind_it() {
    let bench = Bench::start("behind", "default_pool_size = 1");
    let unit = |sql: &str| [parse("", sql), bind("", &[]), execute(), raw::sync()].concat();
    let sleep = "select pg_sleep(60)";
    for both in [
        [raw::query("select 1"), raw::query(sleep)].concat(),
        [unit("select 1"), unit(sleep)].concat(),
        [raw::query("begin"), unit("select 1"), raw::query(sleep)].concat(),
        [raw::query("show pool_mode_of_nobody; select 1"), unit(sleep)].concat(),
    ] {
        let mut client = bench.client();
        client.send(&both);
        client.reply();
        until(|| bench.server_connections("active") == 1);
        let mut other = bench.client();
        other.send(&raw::query("select 2"));
        drop(client);
        assert_eq!(other.reply().rows, ["2"]);
    }
}

#[test]
fn a_prepared_look_at_statements_shows_those_of_the_moment() {
    let bench = Bench::start("looking", "default_pool_size = 1");
    let mut client = bench.client();
    let look = [bind("look", &[]), execute()];
    client.extended(&[parse("look", "select count(*) from pg_prepared_statements"), parse("other", "select 1")]);
    assert_eq!(client.extended(&look).rows, ["2"]);
    client.extended(&[close("other")]);
    assert_eq!(client.extended(&look).rows, ["1"]);
}

#[test]
fn a_server_counts_the_time_that_a_client_takes_within_a_unit() {
    let bench = Bench::start("dallying", "default_pool_size = 2");
    let mut client = bench.client();
    client.rows("set statement_timeout = '100ms'");
    client.send(&parse("s", "select 1"));
    // By a clock of the server's, too.
    bench.client().rows("select pg_sleep(0.5)");
    assert_eq!(client.extended(&[describe("s")]).error.unwrap().0, "57014");
    assert_eq!(client.value("select 1"), "1");
}

#[test]
fn a_query_may_follow_the_data_of_a_copy_in_the_extended_protocol() {
    let bench = Bench::start("copying", "default_pool_size = 1");
    direct("create table copied(v int); grant all on copied to copying");
    let mut client = bench.client();
    let (data, done) = (|rows: &[u8]| raw::message(b'd', &[rows]), raw::message(b'c', &[]));
    client.extended(&[parse("rows", "copy copied from stdin")]);
    client.rows("begin");
    client.send(&[raw::query("savepoint s"), bind("rows", &[]), execute(), data(b"1\n")].concat());
    assert_eq!(client.reply().error, None);
    client.send(&[data(b"2\n3\n"), done, raw::query("release savepoint s")].concat());
    let reply = client.reply();
    assert_eq!((reply.error, reply.status), (None, 'T'));
    client.rows("commit");
    assert_eq!(client.value("select sum(v) from copied"), "6");
}

#[test]
fn a_number_that_another_drew_is_not_told() {
    let bench = Bench::start("drawing", "default_pool_size = 2");
    direct("create table draws(id serial, v text); grant all on draws, draws_id_seq to drawing");
    let (mut one, mut two, mut other) = (bench.client(), bench.client(), bench.client());
    let (insert, last, current) =
        ("insert into draws(v) values ('')", "select lastval()", "select currval('draws_id_seq')");
    one.rows(insert);
    assert_eq!([one.value(last), one.value(current)], ["1", "1"]);
    assert_eq!([other.refusal(last), other.refusal(current)], ["55000", "55000"]);
    // Each finds its own connection, whichever was used last.
    for (client, number) in [(&mut one, "2"), (&mut two, "3")] {
        client.rows("begin");
        client.rows(insert);
        assert_eq!(client.value(last), number);
    }
    one.rows("commit");
    two.rows("commit");
    for _ in 0..3 {
        assert_eq!([one.value(current), two.value(last)], ["2", "3"]);
    }
    // Where somebody else has written since, it is lost.
    other.rows("begin");
    other.rows(insert);
    two.rows("begin");
    two.rows(insert);
    other.rows("commit");
    assert_eq!([one.refusal(last), one.refusal(current)], ["55000", "55000"]);
    assert_eq!([two.value(last), other.refusal(current)], ["5", "55000"]);
}

#[test]
fn the_number_that_was_drawn_last_is_told() {
    let bench = Bench::start("last_drawing", "default_pool_size = 2");
    direct("create table last_draws(id serial); grant all on last_draws, last_draws_id_seq to last_drawing");
    let (mut client, mut other) = (bench.client(), bench.client());
    let insert = "insert into last_draws default values";
    client.rows(insert);
    other.rows("begin read only; select 1");
    client.rows("begin");
    client.rows(insert);
    other.rows("commit");
    client.rows("commit");
    assert_eq!([client.value("select lastval()"), client.value("select currval('last_draws_id_seq')")], ["2", "2"]);
}

#[test]
fn a_write_that_draws_nothing_makes_no_number_ones_own() {
    let bench = Bench::start("not_drawing", "default_pool_size = 1");
    direct("create table not_drawn(id serial); grant all on not_drawn, not_drawn_id_seq to not_drawing");
    let (mut client, mut other) = (bench.client(), bench.client());
    client.refusal("select lastval()");
    other.rows("insert into not_drawn default values");
    client.rows("delete from not_drawn");
    assert_eq!(client.refusal("select lastval()"), "55000");
}

#[test]
fn a_number_is_found_that_is_asked_for_late_in_a_block() {
    let bench = Bench::start("asking_late", "default_pool_size = 4");
    direct("create table asked_late(id serial, b int); grant all on asked_late, asked_late_id_seq to asking_late");
    let mut others = [(); 4].map(|()| bench.client());
    others.iter_mut().for_each(|other| _ = other.rows("begin; select 1"));
    others.iter_mut().for_each(|other| _ = other.rows("rollback"));
    others[0].rows("insert into asked_late(b) values (0)");
    assert_eq!(others[0].value("select currval('asked_late_id_seq')"), "1");
    for number in 2..6 {
        let mut client = bench.client();
        client.rows("insert into asked_late(b) values (1)");
        client.rows("begin");
        client.rows("select 1 from asked_late limit 1");
        assert_eq!(client.value("select currval('asked_late_id_seq')"), number.to_string());
        client.rows("commit");
    }
}

#[test]
fn numbers_are_found_while_others_write() {
    let bench = Bench::start("recalling", "default_pool_size = 4");
    direct("create table recalled(id serial); grant all on recalled, recalled_id_seq to recalling");
    let mut clients = [(); 4].map(|()| bench.client());
    // That they ask is known from the first time on.
    clients[0].refusal("select lastval()");
    for round in 0..3 {
        clients.iter_mut().for_each(|client| _ = client.rows("insert into recalled default values"));
        let numbers = clients.each_mut().map(|client| client.value("select lastval()"));
        assert_eq!(numbers, [1, 2, 3, 4].map(|number| (round * 4 + number).to_string()));
    }
}

/// A default, a trigger's function or a body asks: it gets the client's own number or, where somebody else has written on
/// that connection since, none.
#[test]
fn numbers_that_are_asked_for_out_of_sight_are_ones_own() {
    let bench = Bench::start("hidden_recall", "default_pool_size = 2");
    let narrow = Bench::start("hidden_recall_narrow", "default_pool_size = 1");
    let tables = "create table parent(id serial); create table child(id int default currval('parent_id_seq')); \
                  create function latest() returns int language plpgsql as 'begin return lastval(); end'; \
                  grant all on parent, child, parent_id_seq to hidden_recall, hidden_recall_narrow";
    direct(tables);
    let asks = [
        "insert into child default values returning id",
        "select latest()",
        "do 'begin insert into child values (lastval()); end'",
    ];
    for ask in asks {
        let (mut client, mut other) = (bench.client(), bench.client());
        let own = client.value("insert into parent default values returning id");
        other.rows("insert into parent default values");
        let answer = client.rows(ask);
        let newest = direct(&format!("select max(id) from child where id = {own}"));
        assert!(answer == [&*own] || (answer.is_empty() && newest == own), "{ask}: {answer:?}, {newest}, own {own}");
        let (mut client, mut other) = (narrow.client(), narrow.client());
        client.rows("insert into parent default values");
        other.rows("insert into parent default values");
        assert_eq!(client.refusal(ask), "55000", "{ask}");
    }
}

#[test]
fn who_draws_numbers_finds_them_when_it_writes() {
    let bench = Bench::start("counting", "default_pool_size = 2");
    direct("create sequence counter; grant all on counter to counting");
    direct("create table counted(v int default currval('counter')); grant all on counted to counting");
    let (mut client, mut other) = (bench.client(), bench.client());
    for number in 1..5 {
        other.rows("begin read only; select 1");
        client.rows("select nextval('counter')");
        other.rows("commit");
        client.rows("insert into counted default values");
        assert_eq!(client.value("select max(v) from counted"), number.to_string());
    }
}

#[test]
fn modes_of_transactions_are_those_that_were_said() {
    let bench = Bench::start("modal", "default_pool_size = 1");
    let (mut client, mut other) = (bench.client(), bench.client());
    let modes = "select current_setting('transaction_isolation') || ' ' || current_setting('transaction_read_only') || ' ' \
         || current_setting('transaction_deferrable')";
    client.rows("set session characteristics as transaction isolation level serializable, read only, deferrable");
    other.rows("select 1");
    assert_eq!(client.value(modes), "serializable on on");
    client.rows("begin not deferrable");
    assert_eq!(client.value(modes), "serializable on off");
    client.rows("commit");
    client.rows("set session characteristics as transaction read write, not deferrable");
    other.rows("select 1");
    assert_eq!(client.value(modes), "serializable off off");
    other.rows("begin");
    other.rows("set transaction isolation level repeatable read, deferrable");
    other.rows("commit and chain");
    assert_eq!(other.value(modes), "repeatable read off on");
    other.rows("commit");
    // What is a transaction's own is gone with it.
    for of_transaction in [
        "set transaction_isolation = 'serializable'",
        "set session transaction_read_only to on",
        "select set_config('transaction_read_only', 'on', false)",
        "begin; set local transaction_isolation = 'repeatable read'; set transaction_read_only to yes; commit",
        "begin; set transaction_deferrable = on; select 1; commit",
        "set names",
    ] {
        other.rows(of_transaction);
        client.rows("do $$ begin perform 1; end $$");
        assert_eq!(other.value(modes), "read committed off off", "{of_transaction}");
    }
    other.rows("begin; set transaction_isolation = 'repeatable read'");
    assert_eq!(other.value(modes), "repeatable read off off");
    assert_eq!(other.refusal("set transaction_isolation = 'nothing'"), "22023");
}

#[test]
fn a_client_is_ended_by_the_number_that_it_was_told() {
    let bench = Bench::start("ending", "default_pool_size = 3");
    let terminate = |client: &Raw| format!("select pg_terminate_backend({})", number(client));
    let ended = |client: &mut Raw| {
        let reply = client.reply();
        (reply.sqlstate().to_owned(), reply.status)
    };
    let gone = || ("57P01".to_owned(), ' ');
    let mut other = bench.client();
    // One that idles, one in a block, and by a parameter.
    let (mut idle, mut in_block) = (bench.client(), bench.client());
    in_block.rows("begin; select 1");
    assert_eq!(other.value(&terminate(&idle)), "t");
    let numbered = number(&in_block).to_string();
    let asks = [parse("", "select pg_terminate_backend($1)"), bind("", &[&numbered]), execute()];
    assert_eq!(other.extended(&asks).rows, ["t"]);
    assert_eq!((ended(&mut idle), ended(&mut in_block)), (gone(), gone()));
    assert_eq!(other.query(&terminate(&idle)).kinds, "TNDCZ", "it is nobody's any more");
    // In a pipeline without its end, or one that has failed.
    let (mut flushed, mut failed) = (bench.client(), bench.client());
    flushed.send(&[parse("", "select 1"), bind("", &[]), execute(), flush()].concat());
    assert_eq!(std::iter::from_fn(|| flushed.frame()).find(|(kind, _)| *kind == b'C').unwrap().0, b'C');
    failed.send(&[parse("", "select nowhere"), flush()].concat());
    assert_eq!(failed.frame().unwrap().0, b'E');
    other.query(&terminate(&flushed));
    other.query(&terminate(&failed));
    assert_eq!((ended(&mut flushed), ended(&mut failed)), (gone(), gone()));
    // In the midst of its rows.
    let mut copying = bench.client();
    copying.rows("create temporary table copied (a int)");
    copying.send(&raw::query("copy copied from stdin"));
    assert_eq!(copying.frame().unwrap().0, b'G');
    other.query(&terminate(&copying));
    assert_eq!(ended(&mut copying), gone());
    // One whose statement runs.
    let mut busy = bench.client();
    busy.send(&raw::query("select pg_sleep(60)"));
    until(|| bench.server_connections("active") == 1);
    other.query(&terminate(&busy));
    assert_eq!(ended(&mut busy), gone());
    // Oneself, by either number.
    let (mut by_ours, mut by_the_servers) = (bench.client(), bench.client());
    let own = terminate(&by_ours);
    by_ours.send(&raw::query(&own));
    by_the_servers.send(&raw::query("select pg_terminate_backend(pg_backend_pid())"));
    assert_eq!((ended(&mut by_ours), ended(&mut by_the_servers)), (gone(), gone()));
    assert_eq!(other.value("select 1"), "1");
    // By the number that the server has told it, oneself or another.
    let (mut asker, mut another) = (bench.client(), bench.client());
    let process = asker.value(PID);
    other.query(&format!("select pg_terminate_backend({process})"));
    let process = another.value(PID);
    another.send(&raw::query(&format!("select pg_terminate_backend({process})")));
    assert_eq!((ended(&mut asker), ended(&mut another)), (gone(), gone()));
    // At the beginning of a block, too, though that would be on the very connection.
    let mut asker = bench.client();
    let process = asker.value(PID);
    other.rows("begin");
    other.rows(&format!("select pg_terminate_backend({process})"));
    other.rows("commit");
    assert_eq!(ended(&mut asker), gone());
    // By what it runs, and from within a block of code.
    let (mut busy, mut by_code) = (bench.client(), bench.client());
    busy.send(&raw::query("select pg_sleep(61)"));
    until(|| bench.server_connections("active") == 1);
    other.query("select pg_terminate_backend(pid) from pg_stat_activity where query = 'select pg_sleep(61)'");
    by_code.send(&raw::query("do $$ begin perform pg_terminate_backend(pg_backend_pid()); end $$"));
    assert_eq!((ended(&mut busy), ended(&mut by_code)), (gone(), gone()));
    // A process that several had is somebody's by now, maybe one's own: nobody else is meant.
    let (mut asker, mut last) = (bench.client(), bench.client());
    let processes = (asker.value(PID), last.value(PID));
    assert_eq!(processes.0, processes.1);
    assert_eq!(last.query(&format!("select pg_terminate_backend({})", processes.0)).status, 'I');
    assert_eq!([&mut asker, &mut last, &mut other].map(|client| client.value("select 1")), ["1", "1", "1"]);
    // Who has it at the moment is meant.
    let process = asker.value(PID);
    let in_use = last.rows(&format!("begin; {PID}")).concat();
    assert!(in_use.contains(&process), "{in_use}");
    other.query(&format!("select pg_terminate_backend({process})"));
    assert_eq!(asker.value("select 1"), "1");
    assert_eq!(ended(&mut last), gone());
}

#[test]
fn a_statement_is_cancelled_by_the_number_of_its_client_and_only_its_own_users() {
    let bench = Bench::start("signalling", "default_pool_size = 3");
    let mut stranger = bench.session_client();
    let (mut busy, mut other) = (bench.client(), bench.client());
    busy.send(&raw::query("select pg_sleep(60)"));
    until(|| bench.server_connections("active") == 1);
    stranger.query(&format!("select pg_terminate_backend({})", number(&busy)));
    assert_eq!(bench.server_connections("active"), 1, "another user's is left alone");
    assert_eq!(other.value(&format!("select pg_cancel_backend({})", number(&busy))), "t");
    assert_eq!(busy.reply().sqlstate(), "57014");
    assert_eq!(busy.value("select 1"), "1");
}

#[test]
fn what_is_no_block_is_refused_as_the_server_does() {
    let bench = Bench::start("beginning", "");
    let mut client = bench.client();
    for sql in ["begin isolation level nothing", "begin at once", "start work", "commit soon", "rollback and so on"] {
        let reply = client.query(sql);
        assert_eq!((reply.sqlstate(), reply.status), ("42601", 'I'), "{sql}");
    }
    let modes = "begin isolation level repeatable read, read only, not deferrable";
    assert_eq!((client.query(modes).status, client.query("commit and no chain").status), ('T', 'I'));
}

#[test]
fn a_held_cursor_is_described_between_transactions() {
    let bench = Bench::start("describing", "");
    let mut client = bench.client();
    client.rows("declare held cursor with hold for select 1 as one");
    assert_eq!(client.extended(&[describe_portal("held")]).kinds, "TZ");
    client.rows("close held");
    assert_eq!(client.extended(&[describe_portal("held")]).sqlstate(), "34000");
}

#[test]
fn an_error_in_a_pipeline_is_told_before_its_end() {
    let bench = Bench::start("stalling", "");
    let mut client = bench.client();
    client.send(&[parse("", "select 1 / 0"), bind("", &[]), execute()].concat());
    // The server divides when it plans the statement, at its Bind.
    let kinds: String = std::iter::from_fn(|| client.frame()).map(|(kind, _)| char::from(kind)).take(2).collect();
    assert_eq!(kinds, "1E");
    client.send(&[parse("", "select 2"), raw::sync()].concat());
    assert_eq!(client.reply().kinds, "Z");
    assert_eq!(client.value("select 1"), "1");
}

#[test]
fn a_time_zone_by_its_offset_follows_its_client() {
    let bench = Bench::start("zoned", "default_pool_size = 2");
    let (mut client, mut holder) = (bench.client(), bench.client());
    client.rows("set time zone interval '+02:30' hour to minute");
    let shown = client.value("show timezone");
    // On another connection.
    holder.rows("begin; select 1");
    assert_eq!(client.value("show timezone"), shown);
    assert_ne!(holder.value("show timezone"), shown);
    client.rows("begin; set local time zone interval '-01:00' hour to minute; commit");
    assert_eq!(client.value("show timezone"), shown);
}

#[test]
fn who_listens_shares_its_connection_with_all() {
    let bench = Bench::start("sharing_ears", "default_pool_size = 1");
    let mut clients: Vec<_> = (0..1000).map(|_| bench.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.rows(&format!("listen \"Channel {}\"; listen everybody", number % 10));
    }
    assert_eq!(bench.pinned_by(), [""; 0]);
    let mut speaker = bench.client();
    for round in 0..3 {
        for channel in 0..10 {
            speaker.extended(&[
                parse("", "select pg_notify($1, $2)"),
                bind("", &[&format!("Channel {channel}"), &format!("{round}")]),
                execute(),
            ]);
        }
        speaker.rows(&format!("notify everybody, 'all {round}'"));
    }
    for client in &mut clients {
        let heard: Vec<_> = (0..6).map(|_| payload(client)).collect();
        assert_eq!(heard, ["0", "all 0", "1", "all 1", "2", "all 2"]);
        assert_eq!(client.query("select 1").notified, [""; 0], "each comes once");
    }
    assert_eq!(bench.server_connections(""), 1);
}

#[test]
fn listening_is_transactional() {
    let bench = Bench::start("committing_ears", "default_pool_size = 2");
    let (mut listener, mut speaker) = (bench.client(), bench.client());
    let none = [""; 0];
    // What is notified before the commit is not for it.
    listener.rows("begin; listen a");
    speaker.rows("notify a, 'early'");
    assert_eq!(listener.query("commit").notified, none);
    speaker.rows("notify a, 'first'");
    assert_eq!(payload(&mut listener), "first");
    for undone in [
        "begin; listen b; rollback",
        "begin; savepoint s; listen b; rollback to s; commit",
        "begin; listen b; unlisten b; commit",
        "begin; unlisten a; rollback",
        "begin; savepoint s; unlisten *; rollback to s; commit",
        "begin; unlisten a; listen a; commit",
    ] {
        for statement in undone.split("; ") {
            assert_eq!(listener.query(statement).notified, none, "{undone}");
        }
        speaker.rows(&format!("notify b, 'for nobody'; notify a, '{undone}'"));
        assert_eq!(payload(&mut listener), undone);
    }
    assert_eq!(listener.refusal("listen b; select 1/0"), "22012");
    assert_eq!(listener.refusal("unlisten a; select 1/0"), "22012");
    speaker.rows("notify b; notify a, 'still'");
    assert_eq!(payload(&mut listener), "still");
    listener.rows("begin; unlisten a");
    speaker.rows("notify a, 'until the commit'");
    assert_eq!(listener.query("commit").kinds, "CZ", "its own transaction has it no more");
    for end in ["unlisten *", "unlisten a", "discard all"] {
        listener.extended(&[parse("", "listen a"), bind("", &[]), execute()]);
        speaker.rows(&format!("notify a, '{end}'"));
        assert_eq!(payload(&mut listener), end);
        listener.rows(end);
        speaker.rows("notify a, 'too late'");
        assert_eq!(listener.query("select 1").notified, none, "{end}");
    }
    assert_eq!(bench.pinned_by(), none);
}

#[test]
fn who_listens_is_told_to_what() {
    let bench = Bench::start("asking_ears", "default_pool_size = 2");
    let (mut listener, mut server) = (bench.client(), straight());
    for statement in [
        "select pg_listening_channels()",
        "listen b; listen \"It's A\"",
        "select * from pg_listening_channels()",
        "begin; listen c; unlisten b",
        "select upper(pg_listening_channels()), 1 where true",
        "commit",
        "select array(select pg_catalog.pg_listening_channels())",
        "select c, c = 'c' from pg_listening_channels() as l(c) order by c",
        "unlisten c; listen b; listen b",
        "select pg_listening_channels() limit 5",
        "select pg_listening_channels(), nowhere",
        "unlisten *",
        "select count(*) from pg_listening_channels()",
        "listen d",
        "discard all",
        "select pg_listening_channels()",
    ] {
        let frames = |session: &mut Raw| {
            session.send(&raw::query(statement));
            let mut frames = Vec::new();
            while frames.last().is_none_or(|(kind, _)| *kind != b'Z') {
                frames.push(session.frame().unwrap());
            }
            frames
        };
        assert_eq!(frames(&mut listener), frames(&mut server), "{statement}");
    }
    listener.rows("listen e");
    let asked = listener.extended(&[parse("", "select pg_listening_channels()"), bind("", &[]), execute()]);
    assert_eq!(asked.rows, ["e"]);
    // What was prepared before the first of them shows them, too.
    let mut late = bench.client();
    assert_eq!(late.extended(&[parse("asks", "select pg_listening_channels()")]).error, None);
    late.rows("listen f");
    assert_eq!(late.extended(&[bind("asks", &[]), execute()]).rows, ["f"]);
}

#[test]
fn a_function_may_listen() {
    let bench = Bench::start("doing_ears", "default_pool_size = 2");
    let (mut listener, mut speaker) = (bench.client(), bench.client());
    listener.rows("do $$ begin execute 'listen done'; end $$");
    speaker.rows("notify done, 'heard'");
    assert_eq!((payload(&mut listener), bench.pinned_by()), ("heard".to_owned(), vec![]));
}

#[test]
fn notifications_come_at_the_end_of_a_unit_or_between_two() {
    let bench = Bench::start("hearing", "default_pool_size = 2");
    let (mut listener, mut speaker) = (bench.client(), bench.client());
    let own = listener.query("listen news; notify news, 'with it'");
    assert_eq!((own.kinds.as_str(), own.notified), ("CCAZ", vec!["with it".to_owned()]));
    let own = listener.query("notify news, 'own'");
    assert_eq!((own.kinds.as_str(), own.notified), ("CAZ", vec!["own".to_owned()]));
    let own = listener.extended(&[parse("", "select pg_notify('news', 'too')"), bind("", &[]), execute()]);
    assert_eq!((own.kinds.as_str(), own.notified), ("12DCAZ", vec!["too".to_owned()]));
    listener.rows("begin; notify news, 'mine'");
    assert_eq!(listener.query("select 1").kinds, "TDCZ", "nothing comes in a transaction");
    speaker.rows("notify news, 'meanwhile'");
    assert_eq!(listener.query("select 1").kinds, "TDCZ");
    let end = listener.query("commit");
    assert_eq!((end.kinds.as_str(), end.notified), ("CAAZ", vec!["meanwhile".to_owned(), "mine".to_owned()]));
    // While it runs something: behind that.
    listener.send(&raw::query("select pg_sleep(0.2)"));
    until(|| bench.server_connections("active") == 1);
    speaker.rows("notify news, 'during'");
    let reply = listener.reply();
    assert_eq!((reply.kinds.as_str(), reply.notified), ("TDCAZ", vec!["during".to_owned()]));
}

#[test]
fn what_a_trigger_notifies_comes_with_its_statement() {
    let bench = Bench::start("triggering", "default_pool_size = 2");
    direct(
        "create table rung(n int); grant all on rung to public;
         create function ring() returns trigger language plpgsql as
             $$begin perform pg_notify('bell', new.n::text); return new; end$$;
         create trigger ring after insert on rung for each row execute function ring()",
    );
    let mut listener = bench.client();
    listener.rows("listen bell");
    for number in 0..20 {
        let own = listener.query(&format!("insert into rung values ({number})"));
        assert_eq!((own.kinds.as_str(), own.notified), ("CAZ", vec![number.to_string()]));
    }
    listener.rows("begin; insert into rung values (20)");
    let own = listener.query("commit");
    assert_eq!((own.kinds.as_str(), own.notified), ("CAZ", vec!["20".to_owned()]));
    listener.send(&raw::query("insert into rung values (21)"));
    let (_, told) = std::iter::from_fn(|| listener.frame()).find(|(kind, _)| *kind == b'A').unwrap();
    assert_eq!(told[..4], number(&listener).to_be_bytes(), "it is the client's own");
}

#[test]
fn who_listens_in_session_mode_hears_by_its_own_connection() {
    let bench = Bench::start("keeping_ears", "default_pool_size = 2");
    let (mut listener, mut speaker) = (bench.session_client(), bench.client());
    listener.rows("listen news");
    assert_eq!(listener.value("select pg_listening_channels()"), "news");
    speaker.rows("notify news, 'kept'");
    assert_eq!(payload(&mut listener), "kept");
}

#[test]
fn payloads_come_in_the_encoding_of_who_listens() {
    let bench = Bench::start("spelling_ears", "default_pool_size = 3");
    let (mut latin, mut speaker) = (bench.client_with(&[("client_encoding", "LATIN1")]), bench.client());
    latin.rows("listen news");
    speaker.rows("notify news, '\u{e4}'");
    assert!(latin.frame().unwrap().1.ends_with(b"news\0\xe4\0"));
    assert_eq!(bench.pinned_by(), ["LISTEN"]);
    latin.rows("unlisten news");
    assert_eq!(bench.pinned_by(), [""; 0]);
}

#[test]
fn who_does_not_read_its_notifications_is_told_that_it_missed_some() {
    let bench = Bench::start("dozing_ears", "default_pool_size = 2\nworkers = 1");
    let (mut listener, mut other, mut speaker) = (bench.client(), bench.client(), bench.client());
    listener.rows("listen news");
    other.rows("listen news");
    listener.rows("begin");
    let size = 7000;
    for round in 0..20 {
        speaker.rows(&format!(
            "select pg_notify('news', {round} * 100 + i || repeat('x', {size})) from generate_series(1, 100) i"
        ));
        // Who reads gets them all.
        (1..=100).for_each(|i| assert!(payload(&mut other).starts_with(&format!("{}x", round * 100 + i))));
    }
    // What was kept for it are the first ones, in their order, and then it is told.
    let mut kept = listener.query("commit").notified;
    let warning = loop {
        match listener.frame().unwrap() {
            (b'A', body) => kept.push(String::from_utf8(body[9..].to_vec()).unwrap()),
            (kind, body) => break (char::from(kind), raw::field(&body, 'S'), raw::field(&body, 'C')),
        }
    };
    assert_eq!(warning, ('N', "WARNING".to_owned(), "01000".to_owned()));
    kept.iter().zip(1..).for_each(|(payload, i)| assert!(payload.starts_with(&format!("{i}x")), "{i}"));
    let bytes = kept.len() * size;
    assert!((3 << 20..4 << 20).contains(&bytes), "{bytes}");
    speaker.rows("notify news, 'afterwards'");
    assert_eq!(payload(&mut listener), "afterwards");
}

/// A server of its own that may stop, a replica that may take over, and a proxy that finds out which one leads.
fn mortal() -> (Cluster, Proxy) {
    let cluster = Cluster::start(1, 1);
    let user = format!("[[users]]\nname = \"{SUPERUSER}\"\nauth = \"trust\"\npassword = \"{PASSWORD}\"\n");
    let servers = cluster.databases_toml().replace("\"primary\"", "\"auto\"").replace("\"replica\"", "\"auto\"");
    let general = format!("probe_interval = '50ms'\nadmin_users = [\"{SUPERUSER}\"]");
    let proxy = Proxy::start(&format!("{general}\n{user}{servers}"));
    (cluster, proxy)
}

#[test]
fn a_table_made_anew_is_at_once_read_where_it_is() {
    let (_cluster, proxy) = mortal();
    let client = || Raw::connect(proxy.port, &[("user", SUPERUSER), ("database", "shop")]);
    let (mut maker, mut reader) = (client(), client());
    let ask = "select v from remade";
    for (round, texts) in [
        &["drop table remade", "create unlogged table remade(v int)", "insert into remade values (0)"][..],
        &["begin", "drop table remade; create unlogged table remade(v int)", "insert into remade values (1)", "commit"],
        &["drop table remade; create unlogged table remade(v int); insert into remade values (2)"],
        &[
            "begin",
            "create table other()",
            "savepoint s",
            "alter table remade set unlogged",
            "rollback to s",
            "drop table other, remade; create unlogged table remade(v int)",
            "insert into remade values (3)",
            "commit",
        ],
    ]
    .iter()
    .enumerate()
    {
        maker.rows("create table if not exists remade(v int); insert into remade values (-1)");
        // Replicas hold it, and that is known.
        soon(|| reader.rows(&format!("explain route {ask}")).concat().contains("replica"));
        texts.iter().for_each(|text| drop(maker.rows(text)));
        assert_eq!([reader.value(ask), maker.value(ask)], [round.to_string(), round.to_string()], "{texts:?}");
        maker.rows("drop table remade");
    }
}

#[test]
fn who_keeps_a_connection_may_write_after_reading() {
    let (cluster, _) = mortal();
    let user = |name: &str, mode: &str| {
        format!(
            "[[users]]\nname = \"{name}\"\nauth = \"trust\"\nserver_user = \"{SUPERUSER}\"\n\
             server_password = \"{PASSWORD}\"\npooler_mode = \"{mode}\"\n"
        )
    };
    let users = ["session", "transaction"].map(|mode| user(mode, mode)).concat();
    let proxy = Proxy::start(&format!("{users}{}", cluster.databases_toml()));
    for name in ["session", "transaction"] {
        let mut client = Raw::connect(proxy.port, &[("user", name), ("database", "shop")]);
        let standby = "select pg_is_in_recovery()";
        client.rows("declare held cursor with hold for values (1), (2)");
        assert_eq!([client.value("fetch held"), client.value(standby)], ["1", "f"]);
        client.rows("create table written_later(v int)");
        assert_eq!([client.value("fetch held"), client.value("select count(*) from written_later")], ["2", "0"]);
        client.rows("drop table written_later");
    }
}

#[test]
fn who_replicates_has_a_connection_of_its_own() {
    let (_cluster, proxy) = mortal();
    let as_usual = [("user", SUPERUSER), ("database", "shop")];
    let mut other = Raw::connect(proxy.port, &as_usual);
    other.rows("create table followed(v text); create publication followed for table followed");
    let mut follower = Raw::connect(proxy.port, &[&as_usual[..], &[("replication", "database")]].concat());
    assert!(follower.value("IDENTIFY_SYSTEM").ends_with("|shop"));
    assert_eq!(follower.rows("select 1"), ["1"]);
    follower.rows("CREATE_REPLICATION_SLOT followed TEMPORARY LOGICAL pgoutput");
    let start = "START_REPLICATION SLOT followed LOGICAL 0/0 (proto_version '1', publication_names 'followed')";
    follower.send(&raw::query(start));
    assert_eq!(follower.frame().unwrap().0, b'W');
    let shown = "select application_name from pg_stat_replication where pid = ";
    assert_eq!(
        other.rows(&format!("{shown}{}", number(&follower))).len(),
        1,
        "it is told the number of its server process"
    );
    let row = "what is written goes to who follows";
    other.rows(&format!("insert into followed values ('{row}')"));
    let mut told = std::iter::from_fn(|| follower.frame());
    assert!(told.any(|(kind, body)| kind == b'd' && body.windows(row.len()).any(|part| part == row.as_bytes())));
    other.rows(&format!("select pg_terminate_backend({})", number(&follower)));
    let mut told = std::iter::from_fn(|| follower.frame());
    assert!(told.any(|(kind, body)| kind == b'E' && raw::field(&body, 'C') == "57P01"));
    // A slot that is temporary is gone with its connection.
    soon(|| other.value("select count(*) from pg_replication_slots where slot_name = 'followed'") == "0");
}

#[test]
fn who_listens_hears_again_after_a_restart_and_a_failover() {
    let (cluster, proxy) = mortal();
    let client = || Raw::connect(proxy.port, &[("user", SUPERUSER), ("database", "shop")]);
    let mut listeners = [client(), client()];
    listeners.iter_mut().for_each(|client| assert_eq!(client.rows("listen news"), [""; 0]));
    let mut late = client();
    let mut check = |what: &str| {
        for client in &mut listeners {
            let (kind, body) = client.frame().unwrap();
            assert_eq!((char::from(kind), raw::field(&body, 'C')), ('N', "01000".to_owned()), "{what}");
        }
        let notify = format!("notify news, '{what}'");
        soon(|| client().query(&notify).error.is_none());
        for client in &mut listeners {
            assert_eq!(payload(client), what);
            assert_eq!(client.query("select 1").notified, [""; 0]);
        }
    };
    // A new configuration is no interruption: see the first warning below.
    Raw::connect(proxy.port, &[("user", SUPERUSER), ("database", "pgweir")]).rows("reload");
    let primary = cluster.primary(0);
    for how in [Stop::Fast, Stop::Immediate] {
        primary.stop(how);
        primary.start().unwrap();
        check("restarted");
    }
    // The connection alone is gone.
    cluster.sql(
        0,
        Role::Primary,
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pgweir listener'",
    );
    check("reconnected");
    cluster.settle();
    primary.stop(Stop::Fast);
    cluster.sql(0, Role::Replica(1), "select pg_promote()");
    check("promoted");
    late.rows("listen news");
    client().rows("notify news, 'late'");
    assert_eq!(payload(&mut late), "late");
    // One connection listens for them all, and no longer than they do.
    let listening = || {
        cluster.sql(
            0,
            Role::Replica(1),
            "select count(*) from pg_stat_activity where application_name = 'pgweir listener'",
        )
    };
    assert_eq!(listening(), "1");
    drop((listeners, late));
    until(|| listening() == "0");
}

#[test]
fn the_client_is_told_what_changes_for_it_and_nothing_else() {
    let bench = Bench::start("telling", "default_pool_size = 1");
    let (mut client, mut other) = (bench.client(), bench.client());
    assert_eq!(client.query("set timezone to 'Asia/Tokyo'").told, ["TimeZone"]);
    assert_eq!(client.parameters["TimeZone"], "Asia/Tokyo");
    for _ in 0..3 {
        assert_eq!(other.query("select 1").told, [""; 0]);
        assert_eq!(client.query("select 1").told, [""; 0]);
    }
    client.rows("begin; set local timezone to 'UTC'");
    assert_eq!(client.parameters["TimeZone"], "UTC");
    client.rows("commit");
    assert_eq!(client.parameters["TimeZone"], "Asia/Tokyo");
    client.rows("reset timezone");
    assert_eq!(client.parameters["TimeZone"], "UTC");
    assert_eq!(other.parameters["TimeZone"], "UTC");
}

#[test]
fn a_change_on_the_server_reaches_its_clients() {
    let bench = Bench::start("reloading", "default_pool_size = 1");
    let (mut one, mut other) = (bench.client(), bench.client());
    let ask = "select interval '1 day'";
    assert_eq!((one.value(ask), other.value(ask)), ("1 day".to_owned(), "1 day".to_owned()));
    direct("alter system set intervalstyle = 'iso_8601'");
    direct("select pg_reload_conf()");
    soon(|| one.value(ask) == "P1D");
    assert_eq!(one.parameters["IntervalStyle"], "iso_8601");
    assert_eq!(other.value(ask), "P1D");
    let told = other.parameters["IntervalStyle"].clone();
    direct("alter system reset intervalstyle");
    direct("select pg_reload_conf()");
    assert_eq!(told, "iso_8601", "who meets the connection after the change");
}

#[test]
fn who_logs_in_is_told_what_holds_now() {
    let bench = Bench::start("comeback", "default_pool_size = 1\nserver_lifetime = '50ms'");
    assert_eq!(bench.client().parameters["DateStyle"], "ISO, MDY");
    direct("alter role comeback set datestyle = 'German'");
    soon(|| bench.client().value("show datestyle") == "German, DMY");
    assert_eq!(bench.client().parameters["DateStyle"], "German, DMY");
}

#[test]
fn a_large_result_read_slowly_is_not_kept_in_memory() {
    let bench = Bench::start("reading", "default_pool_size = 1");
    let mut client = bench.client();
    client.value("select 1");
    let before = bench.memory();
    client.send(&raw::query("select repeat('x', 8192) from generate_series(1, 38400)"));
    // The client reads nothing: the server must wait for it.
    let stuck = "select count(*) from pg_stat_activity where usename = 'reading' and wait_event = 'ClientWrite'";
    until(|| direct(stuck) == "1");
    let (mut most, mut length) = (bench.memory(), 0);
    while length < 300 << 20 {
        for _ in 0..256 {
            let (_, body) = client.header().unwrap();
            length += take(&mut client, body);
        }
        most = most.max(bench.memory());
    }
    assert_eq!(client.reply().error, None);
    assert!(most.saturating_sub(before) < GROWTH, "from {before} to {most} bytes");
}

/// Reads so many bytes and drops them.
fn take(client: &mut Raw, length: usize) -> usize {
    usize::try_from(std::io::copy(&mut client.input().take(length as u64), &mut std::io::sink()).unwrap()).unwrap()
}

#[test]
fn a_huge_value_passes_in_both_directions() {
    let bench = Bench::start("lifting", "default_pool_size = 1");
    let mut client = bench.client();
    client.value("select 1");
    let before = bench.memory();
    let huge = "0123456789abcdef".repeat((100 << 20) / 16);
    let ask = "select $1::text";
    for (name, messages) in [("", vec![parse("", ask)]), ("s", vec![parse("s", ask)]), ("s", vec![])] {
        let bound = [messages, vec![bind(name, &[&huge]), execute()]].concat();
        let reply = client.extended(&bound);
        assert!(reply.error.is_none() && reply.rows == [&huge[..]], "{:?} {}", reply.error, reply.kinds);
    }
    let reply = client.query(&format!("select '{huge}'"));
    assert!(reply.error.is_none() && reply.rows == [&huge[..]], "{:?} {}", reply.error, reply.kinds);
    let after = bench.memory();
    assert!(after.saturating_sub(before) < GROWTH, "from {before} to {after} bytes");
    assert_eq!(client.value("select 1"), "1");
}

#[test]
fn a_pipeline_of_long_values_passes() {
    let bench = Bench::start("pumping", "default_pool_size = 1");
    let mut client = bench.client();
    for size in [10_000, 100_000, 1_000_000] {
        let value = "v".repeat(size);
        let mut messages = vec![parse("", "select length($1)")];
        (0..10).for_each(|_| messages.extend([bind("", &[&value]), execute()]));
        let reply = client.extended(&messages);
        assert_eq!((reply.error, reply.rows), (None, vec![size.to_string(); 10]));
    }
}

#[test]
fn a_long_value_may_come_after_a_flush() {
    let bench = Bench::start("flushing", "default_pool_size = 1");
    let mut client = bench.client();
    client.send(&[parse("", "select length($1)"), describe(""), flush()].concat());
    let described: Vec<_> = (0..3).map(|_| client.frame().unwrap().0).collect();
    assert_eq!(described, b"1tT");
    let reply = client.extended(&[bind("", &[&"v".repeat(1_000_000)]), execute()]);
    assert_eq!((reply.error, reply.rows), (None, vec!["1000000".to_owned()]));
}

/// What the proxy's memory may grow by while it relays.
const GROWTH: usize = 64 << 20;
