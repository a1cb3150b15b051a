//! The result cache as clients see it: what comes from it, and that it is never older than what was acknowledged.

#![allow(clippy::unwrap_used)]

mod support;

#[path = "support/raw.rs"]
mod raw;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use raw::{Raw, bind, describe_portal, execute, parse};
use support::{APP, Cluster, DATABASE, PASSWORD, Proxy, Role, until};

/// A server of its own with a cache in front.
struct Bench {
    proxy: Proxy,
    cluster: Cluster,
}

impl Bench {
    fn start(replicas: u16, cache: &str, schema: &str) -> Self {
        Self::start_with("", replicas, cache, schema)
    }

    /// `general`: keys of that section.
    fn start_with(general: &str, replicas: u16, cache: &str, schema: &str) -> Self {
        let cluster = Cluster::start(1, replicas);
        cluster.sql(0, Role::Primary, &format!("grant all on schema public to {APP}"));
        cluster.sql(0, Role::Primary, &format!("set role {APP}; {schema}"));
        cluster.settle();
        let users = format!("[[users]]\nname = \"{APP}\"\nauth = \"trust\"\npassword = \"{PASSWORD}\"\n");
        let control = format!("[control]\nuser = \"postgres\"\npassword = \"{PASSWORD}\"\n");
        let databases = cluster.databases_toml();
        let proxy = Proxy::start(&format!("{general}\n{control}{databases}{users}[cache]\nenabled = true\n{cache}\n"));
        let bench = Self { proxy, cluster };
        // Until the server's identity is known, nothing is kept.
        let mut client = bench.client();
        client.rows("create table warm(id int)");
        until(|| {
            let before = bench.hits();
            let mut client = bench.client();
            client.rows("select * from warm");
            client.rows("select * from warm");
            bench.hits() > before
        });
        bench
    }

    fn client(&self) -> Raw {
        Raw::connect(self.proxy.port, &[("user", APP), ("database", DATABASE)])
    }

    fn figure(&self, column: usize) -> u64 {
        let mut console = Raw::connect(self.proxy.port, &[("user", APP), ("database", "pgweir")]);
        console.value("show cache").split('|').nth(column).unwrap().parse().unwrap()
    }

    fn hits(&self) -> u64 {
        self.figure(4)
    }

    /// What a text gives, and whether it came from the cache.
    fn ask(&self, client: &mut Raw, sql: &str) -> (Vec<String>, bool) {
        let before = self.hits();
        let rows = client.rows(sql);
        (rows, self.hits() > before)
    }

    /// Asks until the answer comes from the cache; it must be this.
    fn check_kept(&self, client: &mut Raw, sql: &str, expected: &[&str]) {
        client.rows(sql);
        assert_eq!(self.ask(client, sql), (expected.iter().map(|&row| row.to_owned()).collect(), true), "{sql}");
    }

    /// After `write` the text gives `expected`, not what was kept.
    fn check_invalidated(&self, sql: &str, write: &str, expected: &[&str]) {
        let (mut reader, mut writer) = (self.client(), self.client());
        reader.rows(sql);
        reader.rows(sql);
        let reply = writer.query(write);
        assert_eq!(reply.error, None, "{write}");
        let (rows, hit) = self.ask(&mut reader, sql);
        assert_eq!(rows, expected, "after {write}");
        assert!(!hit, "{sql} after {write}");
    }
}

const ACCOUNTS: &str = "create table accounts(id bigint primary key, balance bigint); \
     insert into accounts select id, 0 from generate_series(1, 1000) id";

#[test]
fn a_read_is_kept_until_its_table_is_written() {
    let bench = Bench::start(0, "", ACCOUNTS);
    let mut client = bench.client();
    let read = "select balance from accounts where id = 7";
    bench.check_kept(&mut client, read, &["0"]);
    // Whoever asks the same, in another session.
    assert_eq!(bench.ask(&mut bench.client(), read), (vec!["0".to_owned()], true));
    bench.check_invalidated(read, "update accounts set balance = 5 where id = 7", &["5"]);
    bench.check_kept(&mut client, read, &["5"]);
    // A transaction that is rolled back changes nothing.
    let mut writer = bench.client();
    writer.rows("begin");
    writer.rows("update accounts set balance = 6 where id = 7");
    assert_eq!(writer.rows(read), ["6"], "a transaction sees its own writes");
    assert_eq!(bench.ask(&mut client, read), (vec!["5".to_owned()], true));
    writer.rows("rollback");
    assert_eq!(bench.ask(&mut client, read), (vec!["5".to_owned()], true));
    // One that commits does, from its COMMIT on.
    writer.rows("begin");
    writer.rows("update accounts set balance = 8 where id = 7");
    assert_eq!(client.rows(read), ["5"]);
    writer.rows("commit");
    assert_eq!(bench.ask(&mut client, read), (vec!["8".to_owned()], false));
}

#[test]
fn the_extended_protocol_is_answered_as_the_server_does() {
    let bench = Bench::start(0, "", ACCOUNTS);
    let mut client = bench.client();
    let text = "select id, balance from accounts where id = $1";
    let unit = |id: &str| [parse("", text), bind("", &[id]), describe_portal(""), execute()];
    let first = client.extended(&unit("7"));
    let before = bench.hits();
    let second = client.extended(&unit("7"));
    assert_eq!(bench.hits(), before + 1);
    assert_eq!((&first.rows, &first.kinds), (&second.rows, &second.kinds));
    assert_eq!(client.extended(&unit("8")).rows, ["8|0"], "another value is another answer");
    // Prepared once, executed often.
    client.extended(&[parse("named", text)]);
    let executed = |client: &mut Raw, id: &str| client.extended(&[bind("named", &[id]), execute()]).rows;
    assert_eq!(executed(&mut client, "9"), ["9|0"]);
    let before = bench.hits();
    assert_eq!(executed(&mut client, "9"), ["9|0"]);
    assert_eq!(bench.hits(), before + 1);
    client.rows("update accounts set balance = 1 where id = 9");
    assert_eq!(executed(&mut client, "9"), ["9|1"]);
    // A name that only a hit has seen is there all the same.
    let mut other = bench.client();
    assert_eq!(other.extended(&[parse("mine", text), bind("mine", &["9"]), execute()]).rows, ["9|1"]);
    other.rows("update accounts set balance = 2 where id = 9");
    assert_eq!(other.extended(&[bind("mine", &["9"]), execute()]).rows, ["9|2"]);
}

#[test]
fn settings_make_answers_of_their_own() {
    let bench =
        Bench::start(0, "", "create table moments(at timestamptz); insert into moments values ('2024-01-01 12:00+00')");
    let (mut here, mut there) = (bench.client(), bench.client());
    let read = "select at from moments";
    here.rows("set timezone = 'UTC'");
    there.rows("set timezone = 'Asia/Tokyo'");
    bench.check_kept(&mut here, read, &["2024-01-01 12:00:00+00"]);
    bench.check_kept(&mut there, read, &["2024-01-01 21:00:00+09"]);
    assert_eq!(here.rows(read), ["2024-01-01 12:00:00+00"]);
    // What is not known to be harmless makes a session go past.
    here.rows("set enable_seqscan = off");
    assert!(bench.ask(&mut here, read).1);
    here.rows("set my.setting = 'x'");
    assert!(!bench.ask(&mut here, read).1);
}

#[test]
fn what_others_missed_is_seen() {
    let schema = "create table parents(id bigint primary key); \
         create table children(id bigint, parent bigint references parents on delete cascade); \
         create table watched(id bigint); create table seen(id bigint); \
         create function note() returns trigger language plpgsql as 'begin insert into seen values (new.id); return new; end'; \
         create trigger note after insert on watched for each row execute function note(); \
         create function grow() returns bigint language sql as 'insert into seen values (99) returning id'; \
         create schema two; create table two.seen(id bigint); \
         insert into parents values (1), (2); insert into children values (10, 1), (20, 2)";
    let bench = Bench::start(0, "", schema);
    let children = "select id from children order by id";
    bench.check_invalidated(children, "delete from parents where id = 1", &["20"]);
    let seen = "select count(*) from seen";
    bench.check_invalidated(seen, "insert into watched values (1)", &["1"]);
    bench.check_invalidated(seen, "select grow()", &["2"]);
    bench.check_invalidated(seen, "do 'begin insert into seen values (3); end'", &["3"]);
    bench.check_invalidated(seen, "prepare p as insert into seen values (4); execute p", &["4"]);
    bench.check_invalidated(seen, "with new as (insert into seen values (5) returning id) select id from new", &["5"]);
    bench.check_invalidated(seen, "insert into children values (1, 2); insert into seen values (6)", &["6"]);
    bench.check_invalidated(seen, "truncate seen", &["0"]);
    // Equal names in two schemas are two tables.
    let mut client = bench.client();
    bench.check_kept(&mut client, seen, &["0"]);
    client.rows("set search_path = two");
    client.rows("insert into two.seen values (1)");
    bench.check_kept(&mut client, seen, &["1"]);
    client.rows("reset search_path");
    assert_eq!(client.rows(seen), ["0"]);
}

#[test]
fn sessions_and_texts_say_whether_they_want_it() {
    let bench = Bench::start(
        0,
        "[[cache.rules]]\ntables = [\"private\"]\ncache = false",
        &format!("{ACCOUNTS}; create table private(id bigint)"),
    );
    let mut client = bench.client();
    let read = "select count(*) from accounts";
    bench.check_kept(&mut client, read, &["1000"]);
    assert!(!bench.ask(&mut client, &format!("/* pgweir: cache=off */ {read}")).1);
    client.rows("set pgweir.cache = off");
    assert!(!bench.ask(&mut client, read).1);
    client.rows("set pgweir.cache = default");
    assert!(bench.ask(&mut client, read).1);
    for never in [
        "select count(*) from private",
        "select now(), count(*) from accounts",
        "select id from accounts where id = 1 for update",
    ] {
        client.rows(never);
        assert!(!bench.ask(&mut client, never).1, "{never}");
    }
}

#[test]
fn many_clients_with_one_question_are_one_query() {
    let bench = Bench::start(0, "", ACCOUNTS);
    let slow = "select count(*) from accounts a, accounts b, accounts c where a.id + b.id = c.id and a.id < 400";
    let clients = 500;
    let (fills, begin) = (bench.figure(6), Arc::new(std::sync::Barrier::new(clients)));
    let answers: Vec<_> = (0..clients)
        .map(|_| {
            let (mut client, begin) = (bench.client(), Arc::clone(&begin));
            thread::spawn(move || {
                begin.wait();
                client.rows(slow)
            })
        })
        .collect();
    let answers: Vec<_> = answers.into_iter().map(|client| client.join().unwrap()).collect();
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    let calls = format!("select count(*) from pg_stat_activity where usename = '{APP}' and query like '%a.id + b.id%'");
    assert_eq!(bench.figure(6), fills + 1, "{}", bench.cluster.sql(0, Role::Primary, &calls));
}

/// Who waits for the answer to another one's question need not wait for it to the end, and asks nobody.
#[test]
fn a_wait_for_an_answer_can_be_cancelled() {
    let bench = Bench::start_with("default_pool_size = 1", 0, "", ACCOUNTS);
    let slow = "select count(*) from accounts a, accounts b, accounts c where a.id * b.id <> c.id";
    let (mut first, mut second) = (bench.client(), bench.client());
    let of_server = |state: &str| {
        let which = format!("usename = '{APP}' and state = '{state}' and query like '%a.id * b.id%'");
        bench.cluster.sql(0, Role::Primary, &format!("select count(*) from pg_stat_activity where {which}"))
    };
    first.send(&raw::query(slow));
    until(|| of_server("active") == "1");
    second.send(&raw::query(slow));
    let mut console = Raw::connect(bench.proxy.port, &[("user", APP), ("database", "pgweir")]);
    let are_busy = format!("{APP}|{DATABASE}|active|");
    until(|| console.rows("show clients").iter().filter(|client| client.contains(&are_busy)).count() == 2);
    Raw::cancel(bench.proxy.port, &second.key);
    assert_eq!(second.reply().sqlstate(), "57014");
    assert_eq!(of_server("active"), "1");
    Raw::cancel(bench.proxy.port, &first.key);
    assert_eq!(first.reply().sqlstate(), "57014");
}

/// Behind late replicas, a session reads nothing older than it wrote or read before: where no read turns to the primary,
/// which shows more than what is promised for the next one.
#[test]
fn a_register_with_replicas_goes_back_for_nobody() {
    let bench = Bench::start_with("causal_wait = '10s'", 2, "", REGISTER);
    bench.cluster.delay_replay(0, 1, "5ms");
    bench.cluster.delay_replay(0, 2, "50ms");
    check_register(&bench, false);
    bench.cluster.delay_replay(0, 1, "0");
    bench.cluster.delay_replay(0, 2, "0");
    bench.cluster.settle();
    check_at_rest(&bench);
}

/// Without replicas nothing is older than any write that was acknowledged before the read began.
#[test]
fn a_register_without_replicas_is_one() {
    let bench = Bench::start(0, "", REGISTER);
    check_register(&bench, true);
    check_at_rest(&bench);
}

const REGISTER: &str = "create table register(id bigint primary key, value bigint); \
     insert into register select id, 0 from generate_series(1, 1000) id";

fn check_register(bench: &Bench, one_server: bool) {
    let rounds: u64 = std::env::var("PGWEIR_TRIALS").ok().and_then(|trials| trials.parse().ok()).unwrap_or(400);
    let register = Arc::new(Register::new(one_server));
    let before = bench.hits();
    let workers: Vec<_> = (0..32)
        .map(|seed| {
            let (mut client, register) = (bench.client(), Arc::clone(&register));
            thread::spawn(move || work(&mut client, &register, (seed, rounds)))
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    let (hits, reads) = (bench.hits() - before, register.reads.load(Ordering::Relaxed));
    println!("register: {reads} reads, {hits} of them hits, {} writes", register.writes.load(Ordering::Relaxed));
    assert!(hits > 0);
}

fn check_at_rest(bench: &Bench) {
    let mut client = bench.client();
    let values = bench.cluster.sql(0, Role::Primary, "select value from register order by id");
    for (index, value) in values.lines().enumerate() {
        let read = format!("select value from register where id = {}", index + 1);
        assert_eq!((&*client.value(&read), &*client.value(&read)), (value, value), "key {} at rest", index + 1);
    }
}

struct Register {
    /// By key: the newest value whose write was acknowledged. One writer a key at a time.
    acknowledged: Vec<AtomicU64>,
    locks: Vec<Mutex<()>>,
    reads: AtomicU64,
    writes: AtomicU64,
    one_server: bool,
}

impl Register {
    fn new(one_server: bool) -> Self {
        let acknowledged = (0..=1000).map(|_| AtomicU64::new(0)).collect();
        let locks = (0..=1000).map(|_| Mutex::new(())).collect();
        Self { acknowledged, locks, reads: AtomicU64::new(0), writes: AtomicU64::new(0), one_server }
    }
}

fn work(client: &mut Raw, register: &Register, (seed, rounds): (u64, u64)) {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut written, mut seen) = (vec![0; 1001], vec![0; 1001]);
    for _ in 0..rounds {
        // Near to Zipf: half of all are for a few keys.
        let id = (1000_f64.powf(random.random::<f64>())) as usize;
        let id = id.clamp(1, 1000);
        if random.random_ratio(1, 100) {
            let _held = register.locks[id].lock().unwrap();
            let next = register.acknowledged[id].load(Ordering::SeqCst) + 1;
            let update = format!("update register set value = {next} where id = {id}");
            match random.random_range(0..3) {
                0 => drop(client.rows(&update)),
                1 => ["begin", &update, "commit"].iter().for_each(|text| drop(client.rows(text))),
                _ => {
                    ["begin", &update, "rollback"].iter().for_each(|text| drop(client.rows(text)));
                    drop(client.rows(&update));
                }
            }
            register.acknowledged[id].store(next, Ordering::SeqCst);
            (written[id], seen[id]) = (next, next);
            register.writes.fetch_add(1, Ordering::Relaxed);
        } else {
            let acknowledged = register.acknowledged[id].load(Ordering::SeqCst);
            let floor = if register.one_server { acknowledged } else { seen[id] };
            let value: u64 = client.value(&format!("select value from register where id = {id}")).parse().unwrap();
            register.reads.fetch_add(1, Ordering::Relaxed);
            assert!(value >= written[id], "key {id}: {value} where {} was written", written[id]);
            assert!(value >= floor, "key {id}: {value} where {floor} was there");
            seen[id] = value;
        }
    }
}
