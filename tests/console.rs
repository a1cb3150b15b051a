//! What an operator sees: the console, `/metrics`, the log; against what really happened.

#![allow(clippy::unwrap_used)]

mod support;

#[path = "support/openmetrics.rs"]
mod openmetrics;
#[path = "support/raw.rs"]
mod raw;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use openmetrics::Metrics;
use raw::{Raw, bind, close, execute, parse};
use support::{APP, Cluster, PASSWORD, Proxy, Role, psql_as, until, wait_for};
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// Users that are trusted: `app`, who may command, and `viewer`, who may not; both are `app` on the servers.
fn config(general: &str) -> String {
    let user = |name: &str, more: &str| {
        format!(
            "[[users]]\nname = \"{name}\"\nauth = \"trust\"\nserver_user = \"{APP}\"\n\
             server_password = \"{PASSWORD}\"\n{more}\n"
        )
    };
    format!(
        "admin_users = [\"{APP}\"]\nadmin_http = \"127.0.0.1:0\"\n{general}\n\
         [control]\nuser = \"postgres\"\npassword = \"{PASSWORD}\"\n{}{}{}{}\
         [[sharded_tables]]\ndatabase = \"shop\"\ncolumn = \"seen_id\"\n\
         [[sharded_tables.mapping]]\nstart = 1\nend = 1001\nshard = 0\n\
         [[sharded_tables.mapping]]\nstart = 1001\nshard = 1\n",
        Cluster::shared().databases_toml(),
        user(APP, ""),
        user("viewer", ""),
        user("in_session_mode", "pooler_mode = \"session\""),
    )
}

fn proxy(general: &str) -> Proxy {
    Proxy::start(&config(general))
}

fn client(proxy: &Proxy) -> Raw {
    Raw::connect(proxy.port, &[("user", APP), ("database", "shop"), ("application_name", "trial")])
}

fn console(proxy: &Proxy) -> Raw {
    Raw::connect(proxy.port, &[("user", APP), ("database", "pgweir")])
}

/// What the console shows.
struct Shown {
    columns: Vec<String>,
    rows: Vec<BTreeMap<String, String>>,
}

impl Shown {
    fn only(&self, column: &str, value: &str) -> Vec<&BTreeMap<String, String>> {
        self.rows.iter().filter(|row| row[column] == value).collect()
    }

    fn row(&self, column: &str, value: &str) -> &BTreeMap<String, String> {
        let [row] = self.only(column, value).try_into().unwrap_or_else(|rows| panic!("{column} = {value}: {rows:?}"));
        row
    }
}

fn show(proxy: &Proxy, what: &str) -> Shown {
    show_as(APP, proxy, what)
}

fn show_as(user: &str, proxy: &Proxy, what: &str) -> Shown {
    let login = format!("host=127.0.0.1 port={} user={user} dbname=pgweir", proxy.port);
    let command = format!("SHOW {what};");
    wait_for(async move {
        let (client, connection) = tokio_postgres::connect(&login, NoTls).await.unwrap();
        let serving = tokio::spawn(connection);
        let mut shown = Shown { columns: Vec::new(), rows: Vec::new() };
        for message in client.simple_query(&command).await.unwrap() {
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    shown.columns = columns.iter().map(|column| column.name().to_owned()).collect();
                }
                SimpleQueryMessage::Row(row) => {
                    let value =
                        |(index, name): (usize, &String)| (name.clone(), row.get(index).unwrap_or("").to_owned());
                    shown.rows.push(shown.columns.iter().enumerate().map(value).collect());
                }
                _ => {}
            }
        }
        drop(client);
        serving.await.unwrap().unwrap();
        shown
    })
}

fn number(row: &BTreeMap<String, String>, column: &str) -> u64 {
    row[column].parse().unwrap_or_else(|_| panic!("{column}: {row:?}"))
}

/// Head and body of a page.
fn page(proxy: &Proxy, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.http.unwrap())).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn metrics(proxy: &Proxy) -> Metrics {
    let (head, body) = page(proxy, "/metrics");
    assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    Metrics::parse(&body)
}

/// Columns of PgBouncer 1.18, as its own console gives them.
const PGBOUNCER: [(&str, &str); 7] = [
    (
        "DATABASES",
        "name host port database force_user pool_size min_pool_size reserve_pool pool_mode max_connections \
         current_connections paused disabled",
    ),
    (
        "POOLS",
        "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel \
         sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us pool_mode",
    ),
    (
        "CLIENTS",
        "type user database state addr port local_addr local_port connect_time request_time wait wait_us \
         close_needed ptr link remote_pid tls application_name",
    ),
    (
        "SERVERS",
        "type user database state addr port local_addr local_port connect_time request_time wait wait_us \
         close_needed ptr link remote_pid tls application_name",
    ),
    (
        "STATS",
        "database total_xact_count total_query_count total_received total_sent total_xact_time total_query_time \
         total_wait_time avg_xact_count avg_query_count avg_recv avg_sent avg_xact_time avg_query_time avg_wait_time",
    ),
    ("CONFIG", "key value default changeable"),
    ("LISTS", "list items"),
];

#[test]
fn columns_are_pgbouncers_and_then_our_own() {
    let proxy = proxy("");
    for (what, expected) in PGBOUNCER {
        let expected: Vec<&str> = expected.split_whitespace().collect();
        assert_eq!(show(&proxy, what).columns[..expected.len()], expected, "{what}");
    }
    for (what, expected) in [
        ("HELP", "command meaning"),
        ("VERSION", "version"),
        ("SHARDS", "database shard home servers primaries_up replicas_up"),
        ("RANGES", "database table column start end shard"),
        ("HEALTH", "database shard role host port state in_flight served latency_us weight failed_probes reason"),
        ("LAG", "database shard replica state lag_s lag_bytes replayed"),
        (
            "CACHE",
            "enabled entries bytes limit_bytes hits misses fills evictions invalidations in_flight follows miss_reasons",
        ),
        ("USERS", "name pool_mode"),
    ] {
        assert_eq!(show(&proxy, what).columns.join(" "), expected, "{what}");
    }
    // The list names all of them, and each can be shown by whoever may connect.
    for row in &show_as("viewer", &proxy, "HELP").rows {
        if let Some(what) = row["command"].strip_prefix("SHOW ") {
            assert!(!show_as("viewer", &proxy, what).columns.is_empty(), "{what}");
        }
    }
    let version = show(&proxy, "VERSION").rows[0]["version"].clone();
    assert_eq!(version, format!("pgweir {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_is_configured_is_shown_but_no_secret() {
    let proxy = proxy("query_wait_timeout = \"1500ms\"\nmerge_limit = \"3MiB\"");
    let config = show(&proxy, "CONFIG");
    let of = |key: &str| {
        let row = config.row("key", key);
        (row["value"].clone(), row["default"].clone(), row["changeable"].clone())
    };
    let expect =
        |value: &str, default: &str, changeable: &str| (value.to_owned(), default.to_owned(), changeable.to_owned());
    assert_eq!(of("query_wait_timeout"), expect("1500ms", "30s", "yes"));
    assert_eq!(of("merge_limit"), expect("3MiB", "64MiB", "yes"));
    assert_eq!(of("port"), expect("0", "6432", "no"));
    assert_eq!(of("admin_users"), expect(APP, "", "yes"));
    assert!(config.rows.iter().all(|row| row.values().all(|value| !value.contains(PASSWORD))));
    let cluster = Cluster::shared();
    let databases = show(&proxy, "DATABASES");
    let rows = databases.only("name", "shop");
    let mut ports: Vec<String> = rows.iter().map(|row| row["port"].clone()).collect();
    let mut expected: Vec<String> = cluster.servers().map(|server| server.port().to_string()).collect();
    ports.sort();
    expected.sort();
    assert_eq!(ports, expected);
    let ranges = show(&proxy, "RANGES");
    let bounds: Vec<_> =
        ranges.rows.iter().map(|row| (&row["start"][..], &row["end"][..], &row["shard"][..])).collect();
    assert_eq!(bounds, [("1", "1001", "0"), ("1001", "", "1")]);
    until(|| {
        let shards = show(&proxy, "SHARDS");
        shards.rows.iter().all(|row| row["primaries_up"] == "1" && row["replicas_up"] == "2") && shards.rows.len() == 2
    });
}

/// The database's row of SHOW STATS.
fn stats(proxy: &Proxy) -> BTreeMap<String, String> {
    show(proxy, "STATS").row("database", "shop").clone()
}

#[test]
fn statistics_count_what_was_done() {
    let proxy = proxy("");
    let mut one = client(&proxy);
    one.rows("select 1");
    let before = stats(&proxy);
    let grown = |column: &str| number(&stats(&proxy), column) - number(&before, column);
    for _ in 0..10 {
        one.rows("select 1");
    }
    assert_eq!((grown("total_query_count"), grown("total_xact_count")), (10, 10));
    // A block is one transaction, whatever is in it; so is what it takes.
    for text in ["begin", "select pg_sleep(0.05)", "select 2", "commit"] {
        one.rows(text);
    }
    assert_eq!((grown("total_query_count"), grown("total_xact_count")), (14, 11));
    assert!(grown("total_query_time") >= 50_000 && grown("total_xact_time") >= grown("total_query_time"));
    // A pipeline up to its Sync is one query.
    one.extended(&[parse("", "select 1"), bind("", &[]), execute(), bind("", &[]), execute()]);
    assert_eq!((grown("total_query_count"), grown("total_xact_count")), (15, 12));
    assert_eq!(one.refusal("select 1/0"), "22012");
    assert_eq!(one.refusal("set pgweir.consistency = 'weak'"), "22023");
    assert_eq!((grown("total_errors"), grown("total_refused")), (2, 1));
}

#[test]
fn bytes_are_counted_as_the_client_counts_them() {
    let proxy = proxy("");
    let mut one = client(&proxy);
    one.rows("select 1");
    let before = stats(&proxy);
    let text = "select repeat('x', 100000)";
    one.send(&raw::query(text));
    let mut received = 0;
    loop {
        let (kind, body) = one.frame().unwrap();
        received += 5 + body.len() as u64;
        if kind == b'Z' {
            break;
        }
    }
    let sent = raw::query(text).len() as u64;
    // The last bytes reach the client a moment before they are counted.
    let grown = |column: &str| number(&stats(&proxy), column) - number(&before, column);
    until(|| grown("total_sent") == received);
    assert_eq!(grown("total_received"), sent);
}

#[test]
fn averages_are_of_a_whole_period() {
    let proxy = proxy("stats_period = \"1s\"");
    let mut one = client(&proxy);
    // In some period something ran, for a while; in a later one nothing did.
    until(|| {
        one.rows("select pg_sleep(0.01)");
        let stats = stats(&proxy);
        number(&stats, "avg_query_count") >= 5 && number(&stats, "avg_query_time") >= 10_000
    });
    until(|| number(&stats(&proxy), "avg_query_count") == 0);
}

/// A client that is busy with a text until it is dropped.
fn busy(mut client: Raw, text: &str) -> thread::JoinHandle<Raw> {
    client.send(&raw::query(text));
    thread::spawn(move || {
        client.reply();
        client
    })
}

#[test]
fn clients_and_server_connections_are_shown_in_what_they_do() {
    let proxy = proxy("default_pool_size = 1");
    // On the primary of shard 0, which the second waits for.
    let mut lock = client(&proxy);
    lock.rows("begin; select 1 as begun");
    lock.rows("select pg_advisory_xact_lock(1)");
    let state =
        |expected: &str| show(&proxy, "CLIENTS").only("database", "shop").iter().any(|row| row["state"] == expected);
    assert!(state("idle in transaction"));
    let key = |raw: &Raw| i32::from_be_bytes(raw.key[..4].try_into().unwrap());
    let (sleeper, waiter) = (client(&proxy), client(&proxy));
    let (holder, second) = (key(&lock), key(&waiter));
    lock.send(&raw::query("select pg_sleep(60)"));
    until(|| state("active"));
    waiter_waits(&proxy, waiter, second, holder);
    drop(sleeper);
    Raw::cancel(proxy.port, &lock.key);
    assert_eq!(lock.reply().sqlstate(), "57014");
}

/// While `holder` has the only connection.
fn waiter_waits(proxy: &Proxy, waiter: Raw, second: i32, holder: i32) {
    let cancel = waiter.key.clone();
    let waiting = busy(waiter, "/* pgweir: role=primary */ select 2");
    until(|| number(show(proxy, "POOLS").row("database", "shop"), "cl_waiting") == 1);
    let pools = show(proxy, "POOLS");
    let pool = pools.row("database", "shop");
    assert_eq!((number(pool, "cl_active"), number(pool, "sv_active")), (2, 1), "{pool:?}");
    let waited = || {
        let pools = show(proxy, "POOLS");
        let pool = pools.row("database", "shop");
        number(pool, "maxwait") * 1_000_000 + number(pool, "maxwait_us")
    };
    let first = waited();
    until(|| waited() > first + 50_000);
    let clients = show(proxy, "CLIENTS");
    let row = clients.row("ptr", &format!("c{second}"));
    assert_eq!((&row["state"][..], &row["application_name"][..], &row["link"][..]), ("waiting", "trial", ""));
    assert!(number(row, "wait") * 1_000_000 + number(row, "wait_us") > 0);
    // Who uses which connection can be followed to the server's own process number.
    let holder = clients.row("ptr", &format!("c{holder}"));
    assert_eq!(&holder["state"][..], "active");
    let servers = show(proxy, "SERVERS");
    let server = servers.row("ptr", &holder["link"]);
    assert_eq!((&server["state"][..], &server["link"][..]), ("active", &holder["ptr"][..]));
    let sql = format!("select query from pg_stat_activity where pid = {}", server["remote_pid"]);
    assert_eq!(Cluster::shared().sql(0, Role::Primary, &sql), "select pg_sleep(60)");
    let told = metrics(proxy);
    assert_eq!(told.values("pgweir_clients", &[("database", "shop"), ("state", "waiting")]), [1.0]);
    assert_eq!(told.values("pgweir_clients", &[("database", "shop"), ("state", "active")]), [1.0]);
    assert!(told.sum("pgweir_oldest_wait_seconds", &[("database", "shop")]) >= 0.05);
    Raw::cancel(proxy.port, &cancel);
    waiting.join().unwrap();
    until(|| number(show(proxy, "POOLS").row("database", "shop"), "cl_waiting") == 0);
}

#[test]
fn names_that_clients_give_themselves_are_followed() {
    let proxy = proxy("");
    let mut one = client(&proxy);
    one.rows("set application_name = 'later'");
    assert_eq!(show(&proxy, "CLIENTS").row("database", "shop")["application_name"], "later");
    one.rows("create temp table mine(a int)");
    assert_ne!(show(&proxy, "CLIENTS").row("database", "shop")["pinned_by"], "");
    assert_eq!(metrics(&proxy).sum("pgweir_pinned_clients", &[("database", "shop")]), 1.0);
}

#[test]
fn drivers_speak_the_extended_protocol_with_the_console() {
    let proxy = proxy("");
    let mut one = client(&proxy);
    one.rows("select 1");
    let login = format!("host=127.0.0.1 port={} user=viewer dbname=pgweir", proxy.port);
    wait_for(async move {
        let (console, connection) = tokio_postgres::connect(&login, NoTls).await.unwrap();
        tokio::spawn(connection);
        // The driver asks for binary values of the types that were described.
        let stats = console.query_one("show Stats;", &[]).await.unwrap();
        let (database, count): (String, i64) = (stats.get("database"), stats.get("total_query_count"));
        assert_eq!((&database[..], count), ("shop", 1));
        let lag = console.query("/* exporter */ SHOW LAG", &[]).await.unwrap();
        assert_eq!(lag.len(), 4);
        assert!(lag.iter().all(|row| row.get::<_, Option<f64>>("lag_s").is_some_and(|lag| lag < 3600.0)));
        for (text, expected) in [("show nothing", "42601"), ("reload", "42501"), ("pause shop", "42501")] {
            let cause = console.query(text, &[]).await.unwrap_err();
            let error = cause.as_db_error().unwrap();
            assert_eq!(error.code().code(), expected, "{text}");
            assert!(error.hint().is_some(), "{text}");
        }
        assert_eq!(console.execute("set application_name = 'x'", &[]).await.unwrap(), 0);
    });
    // Named statements, reuse, closing, several commands, an error that skips to the Sync.
    let mut console = console(&proxy);
    assert_eq!(console.extended(&[parse("s", "show version"), bind("s", &[]), execute()]).kinds, "12DCZ");
    assert_eq!(console.extended(&[bind("s", &[]), execute(), close("s")]).kinds, "2DC3Z");
    assert_eq!(console.extended(&[bind("s", &[]), execute()]).sqlstate(), "26000");
    assert_eq!(console.extended(&[parse("", "show version; show help")]).sqlstate(), "42601");
    assert_eq!(console.extended(&[parse("", "show x"), bind("", &[]), execute()]).kinds, "EZ");
    assert_eq!(console.extended(&[parse("", ""), bind("", &[]), execute()]).kinds, "12IZ");
    assert_eq!(console.query("begin").status, 'T');
    assert_eq!(console.query("rollback").status, 'I');
    assert_eq!(console.query(" ; ").kinds, "IZ");
    let both = console.query("show version; show users");
    assert_eq!((both.kinds.as_str(), both.rows.len()), ("TDCTDCZ", 4));
    let output = psql_as("viewer", proxy.port, "pgweir", "", &["-t", "-c", "SHOW version;"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), format!("pgweir {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn only_admin_users_may_command() {
    let proxy = proxy("");
    let mut viewer = Raw::connect(proxy.port, &[("user", "viewer"), ("database", "pgweir")]);
    for command in ["RELOAD", "PAUSE", "PAUSE shop", "RESUME", "resume shop", "SHUTDOWN", "shutdown wait_for_clients"] {
        assert_eq!(viewer.refusal(command), "42501", "{command}");
    }
    assert_eq!(viewer.refusal("DROP EVERYTHING"), "42601");
    assert_eq!(client(&proxy).value("select 1"), "1");
    // Who may is read anew with the configuration.
    let mut admin = console(&proxy);
    let text = fs::read_to_string(&proxy.config).unwrap();
    fs::write(&proxy.config, text.replace(&format!("admin_users = [\"{APP}\"]"), "admin_users = [\"viewer\"]"))
        .unwrap();
    admin.rows("RELOAD");
    assert_eq!(admin.refusal("RELOAD"), "42501");
    viewer.rows("RELOAD");
}

#[test]
fn pause_waits_for_transactions_and_holds_the_rest_until_resume() {
    let proxy = proxy("query_wait_timeout = \"60s\"");
    let mut open = client(&proxy);
    open.rows("begin");
    open.rows("select txid_current()");
    let mut admin = console(&proxy);
    admin.send(&raw::query("PAUSE shop"));
    until(|| show(&proxy, "DATABASES").only("name", "shop").iter().all(|row| row["paused"] == "1"));
    // The transaction goes on; a new one waits, and so does the command.
    assert_eq!(open.value("select 1"), "1");
    let held = client_that_waits(&proxy, "select 2");
    assert_eq!(show(&proxy, "CLIENTS").only("database", "pgweir")[0]["state"], "waiting");
    open.rows("commit");
    assert_eq!(admin.reply().kinds, "CZ");
    // Nothing is left on the servers, and nothing comes.
    assert_eq!(show(&proxy, "SERVERS").rows.len(), 0);
    assert!(!held.is_finished());
    let (_, body) = page(&proxy, "/readyz");
    assert!(body.contains("\"paused\":[\"shop\"]"), "{body}");
    // A second one is cancelled while it waits.
    let given_up = client(&proxy);
    let key = given_up.key.clone();
    let waiting = busy_reply(given_up, "select 3");
    until(|| number(show(&proxy, "POOLS").row("database", "shop"), "cl_waiting") == 2);
    Raw::cancel(proxy.port, &key);
    assert_eq!(waiting.join().unwrap().sqlstate(), "57014");
    assert_eq!(metrics(&proxy).values("pgweir_paused", &[("database", "shop")]), [1.0]);
    assert_eq!((show(&proxy, "SERVERS").rows.len(), held.is_finished()), (0, false));
    admin.rows("RESUME shop");
    assert_eq!(held.join().unwrap().rows, ["2"]);
    assert_eq!(open.value("select 4"), "4");
    assert_eq!(admin.refusal("RESUME shop"), "55000");
    assert_eq!(admin.refusal("RESUME"), "55000");
    assert_eq!(admin.refusal("PAUSE elsewhere"), "3D000");
    admin.rows("PAUSE");
    admin.rows("RESUME");
    assert_eq!(open.value("select 5"), "5");
}

fn busy_reply(mut client: Raw, text: &str) -> thread::JoinHandle<raw::Reply> {
    client.send(&raw::query(text));
    thread::spawn(move || client.reply())
}

fn client_that_waits(proxy: &Proxy, text: &str) -> thread::JoinHandle<raw::Reply> {
    let waiting = busy_reply(client(proxy), text);
    until(|| number(show(proxy, "POOLS").row("database", "shop"), "cl_waiting") == 1);
    waiting
}

#[test]
fn a_pause_ends_with_who_gave_it_up_and_no_client_waits_for_ever() {
    let proxy = proxy("query_wait_timeout = \"300ms\"");
    let mut open = client(&proxy);
    open.rows("begin; select txid_current()");
    let is_paused = || show(&proxy, "DATABASES").only("name", "shop").iter().any(|row| row["paused"] == "1");
    // Cancelled by its own client, as psql does at Ctrl-C.
    let mut admin = console(&proxy);
    admin.send(&raw::query("PAUSE shop"));
    until(is_paused);
    until(|| show(&proxy, "CLIENTS").only("database", "pgweir").iter().any(|row| row["state"] == "waiting"));
    Raw::cancel(proxy.port, &admin.key);
    assert_eq!(admin.reply().sqlstate(), "57014");
    assert!(!is_paused());
    // Its client has gone.
    admin.send(&raw::query("PAUSE shop"));
    until(is_paused);
    drop(admin);
    until(|| !is_paused());
    assert_eq!(client(&proxy).value("select 1"), "1");
    open.rows("rollback");
    console(&proxy).rows("PAUSE");
    assert_eq!(open.refusal("select 1"), "53300");
    console(&proxy).rows("RESUME");
    assert_eq!(open.value("select 1"), "1");
}

#[test]
fn reload_takes_a_good_configuration_and_refuses_a_bad_one() {
    let proxy = proxy("default_pool_size = 3");
    let mut admin = console(&proxy);
    let value = || show(&proxy, "CONFIG").row("key", "default_pool_size")["value"].clone();
    let good = fs::read_to_string(&proxy.config).unwrap();
    fs::write(&proxy.config, good.replace("default_pool_size = 3", "default_pool_size = 4")).unwrap();
    assert_eq!(value(), "3");
    admin.rows("reload;");
    assert_eq!(value(), "4");
    fs::write(&proxy.config, good.replace("default_pool_size = 3", "default_pool_sice = 4")).unwrap();
    let reply = admin.query("RELOAD");
    let (sqlstate, message) = reply.error.unwrap();
    assert_eq!(sqlstate, "22023");
    assert!(message.contains("default_pool_sice"), "{message}");
    assert_eq!(value(), "4");
    let told = metrics(&proxy);
    let reloads = |result: &str| told.values("pgweir_reloads_total", &[("result", result)]);
    assert_eq!((reloads("ok"), reloads("refused")), (vec![1.0], vec![1.0]));
}

#[test]
fn shutdown_lets_transactions_end() {
    let mut proxy = proxy("");
    let (mut open, idle) = (client(&proxy), client(&proxy));
    open.rows("create table if not exists kept(seen_id bigint primary key)");
    open.rows("begin");
    open.rows("insert into kept values (1)");
    let mut admin = console(&proxy);
    assert_eq!(admin.query("SHUTDOWN").kinds, "CZ");
    let leaves = thread::spawn(move || {
        let mut idle = idle;
        idle.reply()
    });
    assert_eq!(leaves.join().unwrap().sqlstate(), "57P01");
    // Nobody is let in, but what is open goes on, and can be watched.
    until(|| TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).is_err());
    assert!(page(&proxy, "/readyz").0.starts_with("HTTP/1.0 503"));
    assert_eq!(metrics(&proxy).sum("pgweir_clients", &[("state", "idle in transaction")]), 1.0);
    open.rows("insert into kept values (2)");
    open.rows("commit");
    assert!(proxy.ended().success());
    let cluster = Cluster::shared();
    assert_eq!(cluster.sql(0, Role::Primary, "select count(*) from kept"), "2");
    cluster.sql_everywhere("drop table kept");
}

#[test]
fn shutdown_can_wait_for_clients_to_leave() {
    let mut proxy = proxy("");
    let (mut one, mut other) = (client(&proxy), client(&proxy));
    assert_eq!(console(&proxy).query("SHUTDOWN WAIT_FOR_CLIENTS").kinds, "CZ");
    until(|| TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).is_err());
    assert_eq!((one.value("select 1"), other.value("select 2")), ("1".to_owned(), "2".to_owned()));
    drop(one);
    assert_eq!(other.value("select 3"), "3");
    drop(other);
    assert!(proxy.ended().success());
    // And a signal ends the wait.
    let mut second = self::proxy("");
    let mut stays = client(&second);
    console(&second).query("SHUTDOWN WAIT_FOR_CLIENTS");
    until(|| TcpStream::connect((Ipv4Addr::LOCALHOST, second.port)).is_err());
    assert_eq!(stays.value("select 1"), "1");
    second.signal(Signal::SIGTERM);
    assert_eq!(stays.reply().sqlstate(), "57P01");
    assert!(second.ended().success());
}

#[test]
fn metrics_tell_what_was_done_by_route() {
    let cluster = Cluster::shared();
    cluster.sql_everywhere("create table counted(seen_id bigint primary key, n int); grant all on counted to public");
    cluster.settle();
    let proxy = proxy("");
    let mut one = client(&proxy);
    until(|| metrics(&proxy).sum("pgweir_server_up", &[]) == 6.0);
    until(|| one.query("select 1 from counted").error.is_none());
    let before = metrics(&proxy);
    let (two, three) = ("select * from counted where seen_id = 2", "insert into counted values (3, 0)");
    for text in [two, two, three, "insert into counted values (4, 0), (1004, 0)", "select count(*) from counted"] {
        one.rows(text);
    }
    one.rows("begin");
    one.rows("commit");
    assert_eq!(one.refusal("insert into counted values (0, 1)"), "22023");
    assert_eq!(one.refusal("insert into counted values (3, 1)"), "23505");
    let after = metrics(&proxy);
    let grown = |name: &str, labels: &[(&str, &str)]| after.sum(name, labels) - before.sum(name, labels);
    let took = |labels: &[(&str, &str)]| grown("pgweir_statement_duration_seconds_count", labels);
    let of = |route: &'static str| [("database", "shop"), ("route", route)];
    assert_eq!(took(&[("shard", "0"), ("role", "replica"), ("route", "one")]), 2.0);
    assert_eq!(took(&[("shard", "0"), ("role", "primary"), ("route", "one")]), 2.0);
    // A statement that was refused went nowhere.
    assert_eq!((took(&of("scatter")), took(&of("spread")), took(&of("local"))), (1.0, 1.0, 3.0));
    assert_eq!(grown("pgweir_statements_total", &[("database", "shop")]), 9.0);
    assert_eq!(grown("pgweir_transactions_total", &[("database", "shop")]), 8.0);
    assert_eq!(grown("pgweir_connection_wait_seconds_count", &[("database", "shop")]), 6.0);
    assert_eq!(grown("pgweir_errors_total", &[("class", "23")]), 1.0);
    assert_eq!(grown("pgweir_errors_total", &[("class", "22")]), 1.0);
    assert_eq!(grown("pgweir_refused_total", &[("sqlstate", "22023")]), 1.0);
    assert!(grown("pgweir_received_bytes_total", &[]) > 100.0 && grown("pgweir_sent_bytes_total", &[]) > 100.0);
    check_process(&proxy, &after);
    cluster.sql_everywhere("drop table counted");
}

/// Against what the kernel says.
fn check_process(proxy: &Proxy, told: &Metrics) {
    let pid = proxy.pid();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as f64;
    let files = told.sum("process_open_fds", &[]);
    assert!((files - open).abs() <= 5.0, "{files} {open}");
    let memory = told.sum("process_resident_memory_bytes", &[]);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim().trim_end_matches(" kB");
    let resident = resident.parse::<f64>().unwrap() * 1024.0;
    assert!((memory - resident).abs() < resident / 2.0, "{memory} {resident}");
    assert!(told.sum("process_cpu_seconds_total", &[]) > 0.0 && told.sum("pgweir_uptime_seconds", &[]) > 0.0);
    assert_eq!(told.values("pgweir_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), [1.0]);
    assert!(told.sum("process_max_fds", &[]) >= files);
}

#[test]
fn a_server_out_of_reach_is_seen() {
    // A port that nobody listens on.
    let port = support::free_port().unwrap();
    let extra = format!("[[databases]]\nname = \"gone\"\nhost = \"127.0.0.1\"\nport = {port}\n");
    let proxy = Proxy::start(&format!("{}{extra}", config("")));
    until(|| metrics(&proxy).sum("pgweir_probe_failures_total", &[("database", "gone")]) >= 2.0);
    let told = metrics(&proxy);
    assert_eq!(told.values("pgweir_server_up", &[("database", "gone")]), [0.0]);
    let health = show(&proxy, "HEALTH");
    let row = health.row("database", "gone");
    assert_eq!(row["state"], "down");
    assert_ne!(row["reason"], "");
    let (head, body) = page(&proxy, "/readyz");
    assert!(head.starts_with("HTTP/1.0 503"), "{head}");
    assert!(body.contains("{\"database\":\"gone\",\"reason\":\"no primary is up\",\"shard\":0}"), "{body}");
    let (head, body) = page(&proxy, "/healthz");
    assert!(head.starts_with("HTTP/1.0 200") && body.contains("\"healthy\":true"), "{head} {body}");
}

/// Every 10 ms.
fn again_and_again(done: &AtomicBool, mut look: impl FnMut()) {
    while !done.load(Ordering::Relaxed) {
        look();
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn looking_often_disturbs_nobody() {
    let proxy = proxy("");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (proxy, done) = (&proxy, &done);
        scope.spawn(move || again_and_again(done, || drop(metrics(proxy))));
        let mut console = console(proxy);
        scope.spawn(move || again_and_again(done, || drop(console.rows("show clients; show pools"))));
        let clients: Vec<_> = (0..8)
            .map(|number| {
                scope.spawn(move || {
                    let mut client = client(proxy);
                    (0..200).for_each(|turn| {
                        let value = format!("{}", number * 1000 + turn);
                        assert_eq!(client.value(&format!("select {value}")), value);
                    });
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(number(&stats(&proxy), "total_query_count"), 1600);
    assert_eq!(metrics(&proxy).sum("pgweir_statement_duration_seconds_count", &[("database", "shop")]), 1600.0);
}

/// What SHOW LAG and `/metrics` say of a replica, in seconds and bytes; `None`: nothing, at this moment.
fn lag(proxy: &Proxy, port: u16) -> Option<[(f64, u64); 2]> {
    let (shown, told) = (show(proxy, "LAG"), metrics(proxy));
    let server = format!("127.0.0.1:{port}");
    let row = shown.row("replica", &server);
    let of = |name: &str| told.values(name, &[("server", server.as_str())]).first().copied();
    let bytes = of("pgweir_replica_lag_bytes")?;
    assert!(bytes >= 0.0 && bytes.fract() == 0.0);
    let shown = (row["lag_s"].parse().ok()?, row["lag_bytes"].parse().ok()?);
    Some([shown, (of("pgweir_replica_lag_seconds")?, bytes as u64)])
}

/// A cluster whose replicas are held, and a proxy.
struct Held {
    cluster: Cluster,
    proxy: Proxy,
}

impl Held {
    fn start() -> Self {
        let cluster = Cluster::start(1, 2);
        cluster.sql(0, Role::Primary, "create table beats(at timestamptz)");
        cluster.settle();
        let proxy = Proxy::start(&format!(
            "admin_http = \"127.0.0.1:0\"\nprobe_interval = \"{}ms\"\n\
             [control]\nuser = \"postgres\"\npassword = \"{PASSWORD}\"\n{}\
             [[users]]\nname = \"{APP}\"\nauth = \"trust\"\nserver_password = \"{PASSWORD}\"\n",
            PROBE.as_millis(),
            cluster.databases_toml(),
        ));
        Self { cluster, proxy }
    }

    fn lag(&self, number: u16) -> Option<[(f64, u64); 2]> {
        lag(&self.proxy, self.cluster.replica(0, number).port())
    }

    /// Bytes that a replica lacks, asked of the servers.
    fn bytes_behind(&self, number: u16) -> u64 {
        let replayed = self.cluster.sql(0, Role::Replica(number), "select pg_last_wal_replay_lsn()");
        let sql = format!("select pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '{replayed}')::bigint");
        self.cluster.sql(0, Role::Primary, &sql).parse().unwrap()
    }

    /// Seconds since a commit that the replica does not show, asked of the replica.
    fn seconds_behind(&self, number: u16, committed: &str) -> f64 {
        let sql = format!("select extract(epoch from clock_timestamp() - '{committed}'::timestamptz)");
        self.cluster.sql(0, Role::Replica(number), &sql).parse().unwrap()
    }

    fn check_level(&self, number: u16) {
        until(|| self.lag(number) == Some([(0.0, 0); 2]) && self.bytes_behind(number) == 0);
    }

    /// While the replica is held: what is shown agrees with the servers.
    fn check_behind(&self, number: u16, hold: impl Fn(), release: impl Fn()) {
        // How late a write is seen is decided once, by the probe after it. Where the machine itself delays that probe,
        // there is another write.
        let agreed = (0..ATTEMPTS).any(|_| {
            hold();
            self.cluster.sql(0, Role::Primary, "insert into beats values (clock_timestamp())");
            let committed = self.cluster.sql(0, Role::Primary, "select clock_timestamp()");
            let agreed = self.agrees(number, &committed);
            self.check_bytes(number);
            release();
            self.check_level(number);
            agreed
        });
        assert!(agreed, "lag of replica {number}");
    }

    /// Looked at again and again until a second has passed: the lag grows with the clock.
    fn agrees(&self, number: u16, committed: &str) -> bool {
        let mut last = 0.0;
        while last < 1.0 {
            let earliest = self.seconds_behind(number, committed);
            let shown = self.lag(number);
            let latest = self.seconds_behind(number, committed);
            // Not before the write, and at most one interval late.
            let fits = |seconds: f64| seconds >= earliest - LATE && seconds <= latest + SLACK;
            if !shown.is_some_and(|shown| shown.iter().all(|(seconds, _)| fits(*seconds))) {
                eprintln!("replica {number}: {earliest} {shown:?} {latest}");
                return false;
            }
            last = earliest;
        }
        true
    }

    fn check_bytes(&self, number: u16) {
        until(|| {
            let bytes = self.bytes_behind(number);
            let agrees = |shown: [(f64, u64); 2]| shown.iter().all(|(_, shown)| *shown == bytes);
            bytes > 0 && self.lag(number).is_some_and(agrees) && self.bytes_behind(number) == bytes
        });
    }
}

#[test]
fn lag_is_what_the_replica_lacks() {
    let held = Held::start();
    let (cluster, one, two) = (&held.cluster, Role::Replica(1), Role::Replica(2));
    // An idle primary: the time of the last transaction grows, the lag does not.
    let naive = "select extract(epoch from now() - pg_last_xact_replay_timestamp()) > 1";
    until(|| cluster.sql(0, one, naive) == "t");
    held.check_level(1);
    // Replay is paused, then the primary is idle. The other replica goes on.
    held.check_behind(
        1,
        || cluster.pause_replay(0, 1),
        || {
            held.check_level(2);
            cluster.resume_replay(0, 1);
        },
    );
    // A receiver that has stopped: the replica has replayed all it got.
    let configure = |sql: &str| {
        cluster.sql(0, two, sql);
        cluster.sql(0, two, "select pg_reload_conf()");
    };
    let stop = || {
        configure("alter system set primary_conninfo = ''");
        until(|| cluster.sql(0, two, "select count(*) from pg_stat_wal_receiver") == "0");
    };
    held.check_behind(2, stop, || configure("alter system reset primary_conninfo"));
}

/// Things that nobody may read in a log, wherever they were said.
const SECRETS: [&str; 6] =
    ["s3cr3t_literal", "s3cr3t_parameter", "s3cr3t_password", "s3cr3t_set", "s3cr3t_copy", "s3cr3t_config"];

#[test]
fn the_log_tells_where_statements_went_and_nothing_they_said() {
    for format in ["text", "json"] {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let file = File::create(&log).unwrap();
        let general = format!("log_format = \"{format}\"\nlog_connections = true\nlog_disconnections = true");
        let scram = format!(
            "[[users]]\nname = \"proven\"\nserver_user = \"{APP}\"\nserver_password = \"{PASSWORD}\"\npassword = \"other\"\n"
        );
        let mut proxy = Proxy::start_by(&format!("{}{scram}", config(&general)), |command| {
            command.env("RUST_LOG", "trace").stderr(file);
        });
        say_secrets(&proxy);
        assert!(proxy.terminate().success());
        let text = fs::read_to_string(&log).unwrap();
        for secret in SECRETS.iter().chain([&PASSWORD]) {
            let line = text.lines().find(|line| line.contains(secret));
            assert_eq!(line, None);
        }
        let ended = text.lines().filter(|line| line.contains("statement ended")).collect::<Vec<_>>();
        let field = |name: &str, value: &str| match format {
            "json" => format!("\"{name}\":\"{value}\""),
            _ => format!("{name}=\"{value}\""),
        };
        for (route, role) in [("one", "replica"), ("one", "primary"), ("local", "")] {
            let told = |line: &&&str| {
                line.contains(&field("route", route)) && (role.is_empty() || line.contains(&field("role", role)))
            };
            assert!(ended.iter().find(told).is_some_and(|line| line.contains("cache")), "{route} {role}: {ended:#?}");
        }
        for event in ["client connected", "client disconnected", "log-in refused", "configuration stays as it was"] {
            assert!(text.contains(event), "{event}");
        }
        if format == "json" {
            let fault = text.lines().find(|line| serde_json::from_str::<serde_json::Value>(line).is_err());
            assert_eq!(fault, None);
        }
    }
}

fn say_secrets(proxy: &Proxy) {
    let mut one = client(proxy);
    one.rows("select 's3cr3t_literal' as a");
    one.rows("create temp table told(a text)");
    assert_eq!(one.refusal("select 's3cr3t_literal'::int"), "22P02");
    assert!(one.query("selekt 's3cr3t_literal'").error.is_some());
    one.rows("set my.secret = 's3cr3t_set'");
    assert!(one.query("create role nobody password 's3cr3t_password'").error.is_some());
    let reply = one.extended(&[parse("p", "select $1::text"), bind("p", &["s3cr3t_parameter"]), execute()]);
    assert_eq!(reply.rows, ["s3cr3t_parameter"]);
    one.extended(&[parse("i", "select $1::int"), bind("i", &["s3cr3t_parameter"]), execute()]);
    one.rows("begin");
    one.rows("commit");
    assert!(one.query("copy told from program 'echo s3cr3t_copy'").error.is_some());
    drop(one);
    let mut reader = client(proxy);
    until(|| show(proxy, "LAG").rows.iter().any(|row| row["lag_s"] == "0.000"));
    until(|| {
        reader.rows("select 's3cr3t_literal'");
        metrics(proxy).sum("pgweir_statement_duration_seconds_count", &[("role", "replica")]) > 0.0
    });
    let wrong = psql_as("proven", proxy.port, "shop", "s3cr3t_password", &["-c", "select 1"]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("password authentication failed"));
    assert!(!psql_as("proven", proxy.port, "shop", "other", &["-c", "select 's3cr3t_literal'"]).stdout.is_empty());
    let good = fs::read_to_string(&proxy.config).unwrap();
    for bad in [
        "\npassword = { s3cr3t_config = 1 }\n",
        "\npassword = [\"s3cr3t_config\"]\n",
        "\nserver_password = \"s3cr3t_config\"\nserver_password = 's3cr3t_config'\n",
    ] {
        fs::write(&proxy.config, format!("{good}\n[[users]]\nname = \"bad\"{bad}")).unwrap();
        let (_, message) = console(proxy).query("RELOAD").error.unwrap();
        assert!(!message.contains("s3cr3t"), "{message}");
    }
}

const PROBE: Duration = Duration::from_millis(100);
const ATTEMPTS: usize = 5;
/// What is shown may be late by one probe interval and 20 ms.
const LATE: f64 = 0.12;
const SLACK: f64 = 0.02;
