//! Many clients on few connections, each of which makes state of every kind, cancels and dies: none sees another's.
//!
//! Each client keeps a model of what is its own; PostgreSQL's rules are the model's. `PGWEIR_TRIAL_SECONDS` runs it so
//! long, with 500 clients (`make trial`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Bench, direct};
use crate::raw::{self, Raw, Reply, bind, close, describe_portal, execute, parse};
use crate::support::until;

/// What all clients share.
struct World {
    stop: AtomicBool,
    /// Who holds the locks of these numbers, as far as they were told: nobody is 0.
    locks: [AtomicU64; LOCKS],
    asked: AtomicU64,
}

struct Client<'w> {
    bench: &'w Bench,
    world: &'w World,
    me: u64,
    random: StdRng,
    raw: Raw,
    /// What it has set, and what that was before the block that is open.
    settings: BTreeMap<&'static str, String>,
    before: Option<BTreeMap<&'static str, String>>,
    /// Prepared statements by name: what they give beside the client's number.
    prepared: HashMap<String, u64>,
    has_table: bool,
    holds: BTreeSet<usize>,
    channels: BTreeSet<String>,
    turn: u64,
}

/// A client may set these to any of the values; the first one is the default.
const SETTINGS: [(&str, [&str; 3]); 5] = [
    ("timezone", ["UTC", "Asia/Tokyo", "Europe/Berlin"]),
    ("work_mem", ["4MB", "5MB", "6MB"]),
    ("search_path", ["\"$user\", public", "first, public", "second, public"]),
    ("datestyle", ["ISO, MDY", "SQL, DMY", "German, DMY"]),
    ("lock_timeout", ["0", "55s", "56s"]),
];
const LOCKS: usize = 8;
const FIRST_LOCK: usize = 770;

impl<'w> Client<'w> {
    fn new(bench: &'w Bench, world: &'w World, me: u64, seed: u64) -> Self {
        let raw = bench.client();
        // A hundred others may come first, on a machine that does more than this.
        raw.stream().set_read_timeout(Some(Duration::from_secs(150))).unwrap();
        Self {
            bench,
            world,
            me,
            random: StdRng::seed_from_u64(seed.wrapping_mul(1000) + me),
            raw,
            settings: BTreeMap::new(),
            before: None,
            prepared: HashMap::new(),
            has_table: false,
            holds: BTreeSet::new(),
            channels: BTreeSet::new(),
            turn: 0,
        }
    }

    fn run(mut self) {
        while !self.world.stop.load(Ordering::Relaxed) {
            self.turn += 1;
            self.world.asked.fetch_add(1, Ordering::Relaxed);
            match self.random.random_range(0..24) {
                0..3 => self.set(),
                3..6 => self.check(),
                6 => self.block(),
                7..9 => self.prepare(),
                9..13 => self.run_prepared(),
                13 => self.table(),
                14 | 15 => self.lock(),
                16 => self.listen(),
                17 => self.notify(),
                18 => self.cancel(),
                19 => self.fail(),
                20 if self.random.random_bool(0.2) => self.die(),
                21 => self.rows_of_a_changing_table(),
                22 => self.forget(),
                _ => self.token(),
            }
            // What ties a client is not held for long: there are five connections.
            if self.random.random_bool(0.3) {
                self.untie();
            }
        }
        self.untie();
        self.check();
    }

    fn value(&self, name: &str) -> String {
        let default = SETTINGS.iter().find(|(known, _)| *known == name).unwrap().1[0];
        self.settings.get(name).map_or(default, |value| value).to_owned()
    }

    fn ask(&mut self, sql: &str) -> Reply {
        let reply = self.raw.query(sql);
        assert_eq!(reply.error, None, "client {}: {sql}", self.me);
        self.hears(&reply);
        reply
    }

    /// Only of channels that it listens to.
    fn hears(&self, reply: &Reply) {
        for payload in &reply.notified {
            let channel = payload.split(' ').next().unwrap();
            assert!(self.channels.contains(channel), "client {} hears of {payload}: {:?}", self.me, self.channels);
        }
    }

    fn token(&mut self) {
        let token = format!("{} {}", self.me, self.turn);
        let sql = "select $1 || ' ' || current_setting('timezone')";
        let reply = match self.random.random_bool(0.5) {
            false => self.raw.query(&sql.replace("$1", &format!("'{token}'"))),
            true => self.raw.extended(&[parse("", sql), bind("", &[&token]), describe_portal(""), execute()]),
        };
        self.hears(&reply);
        assert_eq!((reply.error, reply.rows), (None, vec![format!("{token} {}", self.value("timezone"))]));
    }

    fn set(&mut self) {
        let (name, values) = SETTINGS[self.random.random_range(0..SETTINGS.len())];
        let value = values[self.random.random_range(0..3)];
        let quoted = if name == "search_path" { value.to_owned() } else { format!("'{value}'") };
        match self.random.random_range(0..5) {
            0 => {
                self.ask(&format!("reset {name}"));
                self.settings.remove(name);
            }
            1 => {
                // It ends with its transaction.
                let show = self.ask(&format!("begin; set local {name} to {quoted}; show {name}; commit"));
                assert_eq!(show.rows, [value]);
            }
            2 => {
                self.ask(&format!("select set_config('{name}', '{}', false)", value.replace('\'', "''")));
                self.settings.insert(name, value.to_owned());
            }
            _ => {
                self.ask(&format!("set {name} to {quoted}"));
                self.settings.insert(name, value.to_owned());
            }
        }
    }

    /// All that it has is as it left it, and nothing is there that it has not.
    fn check(&mut self) {
        let names = SETTINGS.map(|(name, _)| format!("current_setting('{name}')")).join(", ");
        let row = self.ask(&format!("select {names}, to_regclass('pg_temp.mine') is not null")).rows.remove(0);
        let has_table = if self.has_table { "t" } else { "f" }.to_owned();
        let expected: Vec<String> = SETTINGS.iter().map(|(name, _)| self.value(name)).chain([has_table]).collect();
        assert_eq!(row, expected.join("|"), "client {}, turn {}", self.me, self.turn);
        let locks = "select objid from pg_locks where locktype = 'advisory' and pid = pg_backend_pid() order by 1";
        let held: Vec<String> = self.holds.iter().map(|lock| (FIRST_LOCK + lock).to_string()).collect();
        assert_eq!(self.ask(locks).rows, held, "client {}", self.me);
    }

    fn block(&mut self) {
        self.ask("begin");
        self.before = Some(self.settings.clone());
        for _ in 0..self.random.random_range(0..4) {
            self.set_in_block();
        }
        if self.random.random_bool(0.2) {
            assert_eq!(self.raw.refusal("select 1/0"), "22012");
            assert_eq!(self.raw.refusal("select 1"), "25P02");
            self.raw.rows("rollback");
            self.settings = self.before.take().unwrap();
        } else if self.random.random_bool(0.5) {
            self.ask("commit");
            self.before = None;
        } else {
            self.ask("rollback");
            self.settings = self.before.take().unwrap();
        }
        self.check();
    }

    fn set_in_block(&mut self) {
        let (name, values) = SETTINGS[self.random.random_range(0..2)];
        let value = values[self.random.random_range(0..3)];
        let inner = self.random.random_bool(0.3);
        if inner {
            self.ask("savepoint s");
        }
        self.ask(&format!("set {name} to '{value}'"));
        if inner {
            self.ask("rollback to s");
        } else {
            self.settings.insert(name, value.to_owned());
        }
        assert_eq!(self.raw.value(&format!("show {name}")), self.value(name));
    }

    /// By the protocol or by SQL, under names that all clients use for statements of their own.
    fn prepare(&mut self) {
        let name = format!("s{}", self.random.random_range(0..4));
        if self.prepared.remove(&name).is_some() {
            match self.random.random_bool(0.5) {
                false => _ = self.ask(&format!("deallocate {name}")),
                true => {
                    let reply = self.raw.extended(&[close(&name)]);
                    self.hears(&reply);
                    assert_eq!(reply.error, None);
                }
            }
        }
        let number = self.random.random_range(0..1000);
        // Some are the same for many clients.
        let own = if self.random.random_bool(0.5) { self.me } else { 0 };
        let sql = format!("select {own} + $1::int, {number}");
        match self.random.random_bool(0.5) {
            false => _ = self.ask(&format!("prepare {name} as {sql}")),
            true => assert_eq!(self.raw.extended(&[parse(&name, &sql)]).error, None),
        }
        self.prepared.insert(name, own * 1000 + number);
    }

    fn run_prepared(&mut self) {
        let name = format!("s{}", self.random.random_range(0..4));
        let reply = match self.random.random_bool(0.4) {
            false => self.raw.extended(&[bind(&name, &["7"]), execute()]),
            true => self.raw.query(&format!("execute {name}(3 + 4)")),
        };
        self.hears(&reply);
        match self.prepared.get(&name) {
            None => assert_eq!(reply.sqlstate(), "26000", "client {} has no {name}: {reply:?}", self.me),
            Some(number) => {
                let expected = format!("{}|{}", number / 1000 + 7, number % 1000);
                assert_eq!((reply.error, reply.rows), (None, vec![expected]), "client {} {name}", self.me);
            }
        }
    }

    fn table(&mut self) {
        if self.has_table {
            assert_eq!(self.ask("select owner from mine").rows, [self.me.to_string()]);
        } else {
            self.ask(&format!("create temp table mine as select {} as owner", self.me));
            self.has_table = true;
        }
    }

    fn lock(&mut self) {
        let lock = self.random.random_range(0..LOCKS);
        let held = &self.world.locks[lock];
        if self.holds.remove(&lock) {
            assert_eq!(held.swap(0, Ordering::SeqCst), self.me);
            assert_eq!(self.ask(&format!("select pg_advisory_unlock({})", FIRST_LOCK + lock)).rows, ["t"]);
            return;
        }
        match &*self.ask(&format!("select pg_try_advisory_lock({})", FIRST_LOCK + lock)).rows[0] {
            "t" => {
                let before = held.swap(self.me, Ordering::SeqCst);
                assert_eq!(before, 0, "lock {lock} is {before}'s and {}'s", self.me);
                self.holds.insert(lock);
            }
            _ => assert!(!self.holds.contains(&lock)),
        }
    }

    fn listen(&mut self) {
        let channel = format!("c{}", self.random.random_range(0..6));
        if self.channels.contains(&channel) {
            // What was told before may still come with this reply.
            self.ask(&format!("unlisten {channel}"));
            self.channels.remove(&channel);
        } else {
            self.channels.insert(channel.clone());
            self.ask(&format!("listen {channel}"));
        }
    }

    fn notify(&mut self) {
        let channel = format!("c{}", self.random.random_range(0..6));
        self.ask(&format!("notify {channel}, '{channel} of {}'", self.me));
    }

    /// Its own statement, and nobody else's.
    fn cancel(&mut self) {
        // One that keeps its connection may be hit late, as without a proxy: a signal takes its time.
        self.untie();
        let (port, key) = (self.bench.proxy.port, self.raw.key.clone());
        self.raw.send(&raw::query("select 'slept' from pg_sleep(0.02)"));
        Raw::cancel(port, &key);
        let reply = self.raw.reply();
        self.hears(&reply);
        assert!(reply.rows == ["slept"] || reply.sqlstate() == "57014", "{reply:?}");
        // The server may have been told just then: a client that cancels cannot know, as without a proxy.
        for _ in 0..3 {
            let after = self.raw.query("select 'after'");
            self.hears(&after);
            if after.rows == ["after"] {
                return;
            }
            assert_eq!(after.sqlstate(), "57014", "{after:?}");
        }
        panic!("client {} is cancelled again and again", self.me);
    }

    fn fail(&mut self) {
        let reply = match self.random.random_range(0..3) {
            0 => self.raw.query("select 1; select 1/0"),
            1 => self.raw.extended(&[parse("", "select 1/$1::int"), bind("", &["0"]), execute()]),
            _ => self.raw.query("select nothing"),
        };
        self.hears(&reply);
        assert!(matches!(reply.sqlstate(), "22012" | "42703"), "{reply:?}");
    }

    /// Without a word, perhaps while something runs or is open.
    fn die(&mut self) {
        for lock in std::mem::take(&mut self.holds) {
            self.world.locks[lock].store(0, Ordering::SeqCst);
        }
        match self.random.random_range(0..4) {
            0 => self.raw.send(&raw::query("select pg_sleep(60)")),
            1 => self.raw.send(&raw::query("begin; set timezone to 'Asia/Tokyo'; select pg_sleep(60)")),
            2 => self.raw.send(&raw::query("copy dead from stdin")),
            _ => {}
        }
        self.raw.stream().shutdown(std::net::Shutdown::Both).unwrap();
        // Before the next log-in, which needs a connection that this one may have.
        *self = Self::new(self.bench, self.world, self.me, self.random.random());
    }

    fn rows_of_a_changing_table(&mut self) {
        let name = "changing";
        if self.prepared.insert(name.to_owned(), 0).is_none() {
            assert_eq!(self.raw.extended(&[parse(name, "select * from public.changing where id = $1")]).error, None);
        }
        let reply = self.raw.extended(&[bind(name, &["1"]), describe_portal(""), execute()]);
        self.hears(&reply);
        assert!(reply.error.is_none() && reply.rows[0].starts_with("1|"), "client {}: {reply:?}", self.me);
    }

    fn forget(&mut self) {
        match self.random.random_range(0..3) {
            0 => {
                self.untie();
                self.ask("discard all");
                self.settings.clear();
                self.prepared.clear();
                self.channels.clear();
            }
            1 => {
                self.ask("deallocate all");
                self.prepared.clear();
            }
            _ => {
                self.ask("reset all");
                self.settings.clear();
            }
        }
    }

    fn untie(&mut self) {
        for lock in std::mem::take(&mut self.holds) {
            assert_eq!(self.world.locks[lock].swap(0, Ordering::SeqCst), self.me);
            assert_eq!(self.ask(&format!("select pg_advisory_unlock({})", FIRST_LOCK + lock)).rows, ["t"]);
        }
        if std::mem::take(&mut self.has_table) {
            self.ask("drop table mine");
        }
    }
}

fn change_the_table(world: &World) {
    for turn in 0.. {
        if world.stop.load(Ordering::Relaxed) {
            return;
        }
        let change = if turn % 2 == 0 { "add more int" } else { "drop more" };
        direct(&format!("alter table changing {change}"));
        thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn no_state_is_ever_seen_by_a_stranger() {
    let long: Option<u64> = std::env::var("PGWEIR_TRIAL_SECONDS").ok().map(|text| text.parse().unwrap());
    let (seconds, clients) = long.map_or((5, 60), |seconds| (seconds, 500));
    let seed: u64 = rand::random::<u32>().into();
    eprintln!("seed {seed}");
    let bench = Bench::start("trial", "default_pool_size = 5\nquery_wait_timeout = \"120s\"");
    direct("create table changing (id int, v text); insert into changing values (1, 'one'); create table dead (a int)");
    direct(
        "grant all on changing, dead to public; create schema if not exists first; create schema if not exists second",
    );
    let world = World { stop: AtomicBool::new(false), locks: Default::default(), asked: AtomicU64::new(0) };
    let memories: Vec<usize> = thread::scope(|scope| {
        let (bench, world) = (&bench, &world);
        let running: Vec<_> = (1..=clients)
            .map(|me| {
                let spawned = thread::Builder::new().stack_size(256 << 10);
                let run = move || {
                    // Where one fails, the others are not to go on for ten minutes.
                    let ends = StopsAtPanic(world);
                    Client::new(bench, world, me, seed).run();
                    drop(ends);
                };
                spawned.spawn_scoped(scope, run).unwrap()
            })
            .collect();
        scope.spawn(move || change_the_table(world));
        let mut memories = Vec::new();
        for _ in 0..seconds * 10 {
            thread::sleep(Duration::from_millis(100));
            memories.push(bench.memory());
            if world.stop.load(Ordering::Relaxed) {
                break;
            }
        }
        world.stop.store(true, Ordering::Relaxed);
        running.into_iter().for_each(|client| client.join().unwrap());
        memories
    });
    let asked = world.asked.load(Ordering::Relaxed);
    eprintln!("{asked} turns; memory {} then {}", memories[memories.len() / 3], memories[memories.len() - 1]);
    assert!(asked > clients * 5, "{asked}");
    let grown = memories[memories.len() - 1].saturating_sub(memories[memories.len() / 3]);
    assert!(grown < 16 << 20, "memory grows: {memories:?}");
    let left = "select count(*) from pg_locks join pg_stat_activity using (pid) where usename = 'trial'";
    until(|| direct(&format!("{left} and locktype = 'advisory'")) == "0");
    until(|| bench.server_connections("active") == 0);
    assert!(bench.server_connections("") <= 5 + 1, "the pool's and the one that listens");
    assert_eq!(bench.pinned_by(), [""; 0]);
}

/// One client's failure is the end for all.
struct StopsAtPanic<'w>(&'w World);

impl Drop for StopsAtPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop.store(true, Ordering::Relaxed);
        }
    }
}
