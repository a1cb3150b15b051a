//! What makes the cache right, shown.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use smallvec::smallvec;
use tokio::time::{Instant, advance};

use super::*;
use crate::topology::{ConfiguredRole, Server, ServerId, ServerTls, ShardId, TlsNegotiation};

fn spaces() -> (Spaces, Arc<Space>) {
    let now = Instant::now();
    let spaces = Spaces::new(now);
    let space = spaces.space(&Identity { system: 7, database: "shop".to_owned() }, now);
    (spaces, space)
}

fn tag(name: &str) -> TableTag {
    TableTag::new("public", name)
}

fn touched(names: &[&str]) -> Touched {
    let mut touched = Touched::nothing();
    names.iter().for_each(|name| touched.add(tag(name)));
    touched
}

fn witness() -> Witness {
    let server = Server {
        id: ServerId(0),
        database: "shop".to_owned(),
        shard: ShardId(0),
        role: ConfiguredRole::Primary,
        host: "h".to_owned(),
        port: 5432,
        database_name: "shop".to_owned(),
        tls: ServerTls::Disable,
        tls_ca: None,
        tls_negotiation: TlsNegotiation::Postgres,
        lb_weight: 100,
        pool_size: None,
        zone: None,
    };
    Witness { server: Arc::new(server), process: 1, gid: None }
}

fn limits() -> Limits {
    Limits { memory: 1 << 20, ttl: Duration::from_secs(60), max_result: 10_000, policy: Policy::Lfu }
}

fn key(name: &str) -> KeyBytes {
    let mut key = KeyBytes::default();
    key.text(name);
    key
}

fn fill(rows: &[u8], sent: Instant) -> Fill {
    let rows = Bytes::copy_from_slice(rows);
    let answer = Answer { columns: None, rows, tag: Bytes::from_static(b"SELECT 1"), row_count: 1 };
    Fill { answer, sent, ended: sent, origins: smallvec![Origin::primary(0)], ttl: Duration::from_secs(60) }
}

fn from_replica(caught_up: Option<Instant>) -> Fill {
    Fill { origins: smallvec![Origin::primary(0), Origin::replica(1, caught_up)], ..fill(b"row", Instant::now()) }
}

fn lead(found: Found) -> Lead {
    match found {
        Found::Lead(lead) => lead,
        _ => panic!("not led"),
    }
}

/// What a look-up gives, in a word.
fn word(found: &Found) -> &'static str {
    match found {
        Found::Hit(_) => "hit",
        Found::Lead(_) => "lead",
        Found::Follow(_) => "follow",
        Found::Pass(reason) => reason.as_str(),
    }
}

/// One table behind one cache.
struct Bench {
    spaces: Spaces,
    space: Arc<Space>,
    cache: Arc<Cache>,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        let (spaces, space) = spaces();
        Self { spaces, space, cache: Cache::new(limits) }
    }

    fn places(&self) -> &[Arc<Space>] {
        std::slice::from_ref(&self.space)
    }

    fn stamp(&self) -> Result<Stamp, Reason> {
        self.spaces.stamp(self.places(), &[tag("users")])
    }

    fn find(&self, name: &str) -> Found {
        self.cache.find(&key(name), Instant::now(), || self.stamp())
    }

    fn keep(&self, name: &str, rows: &[u8]) {
        let kept = lead(self.find(name)).keep(fill(rows, Instant::now()), Instant::now());
        assert!(kept.is_ok(), "{kept:?}");
    }

    fn write(&self, names: &[&str]) -> Writing {
        self.spaces.write(self.places(), &touched(names), witness())
    }

    fn misses(&self, reason: Reason) -> u64 {
        self.cache.figures().misses.iter().find(|(name, _)| *name == reason.as_str()).unwrap().1
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_is_served_until_its_table_is_written() {
    let bench = Bench::new(limits());
    assert_eq!(word(&bench.find("a")), "lead");
    bench.keep("a", b"row");
    match bench.find("a") {
        Found::Hit(entry) => {
            assert_eq!(entry.answer().rows, b"row".as_slice());
            assert_eq!(entry.answer().tag, b"SELECT 1".as_slice());
        }
        other => panic!("{}", word(&other)),
    }
    bench.write(&["orders"]).committed(Instant::now());
    assert_eq!(word(&bench.find("a")), "hit");
    bench.write(&["users"]).committed(Instant::now());
    assert_eq!(word(&bench.find("a")), "lead");
    let figures = bench.cache.figures();
    assert_eq!((figures.hits, figures.fills, figures.invalidations), (2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_pending_write_bypasses_and_its_rollback_brings_the_entry_back() {
    let bench = Bench::new(limits());
    bench.keep("a", b"row");
    let write = bench.write(&["users"]);
    assert_eq!(word(&bench.find("a")), "write_pending");
    assert_eq!(word(&bench.find("b")), "write_pending");
    write.rolled_back();
    assert_eq!(word(&bench.find("a")), "hit");
}

#[tokio::test(start_paused = true)]
async fn everything_and_places_unknown_touch_every_table() {
    let bench = Bench::new(limits());
    bench.keep("a", b"row");
    bench.spaces.write(bench.places(), &Touched::everything(), witness()).committed(Instant::now());
    assert_eq!(word(&bench.find("a")), "lead");
    bench.keep("a", b"row");
    bench.spaces.write(&[], &touched(&["orders"]), witness()).committed(Instant::now());
    assert_eq!(word(&bench.find("a")), "lead");
    bench.keep("a", b"row");
    bench.space.changed(Instant::now());
    assert_eq!(word(&bench.find("a")), "lead");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_a_write_overtook_is_not_kept() {
    let bench = Bench::new(limits());
    let overtaken = lead(bench.find("a"));
    let write = bench.write(&["users"]);
    let result = overtaken.keep(fill(b"old", Instant::now()), Instant::now());
    assert_eq!(result.unwrap_err(), Reason::Overtaken);
    write.rolled_back();
    let overtaken = lead(bench.find("a"));
    bench.write(&["users"]).committed(Instant::now());
    let result = overtaken.keep(fill(b"old", Instant::now()), Instant::now());
    assert_eq!(result.unwrap_err(), Reason::Overtaken);
    assert_eq!(word(&bench.find("a")), "lead");
}

#[tokio::test(start_paused = true)]
async fn a_replica_fills_only_what_it_had_caught_up_with() {
    let bench = Bench::new(limits());
    let keep = |caught_up| lead(bench.find("a")).keep(from_replica(caught_up), Instant::now()).map(drop);
    // Nothing is known of the time before the space was made.
    assert_eq!(keep(Some(Instant::now())), Err(Reason::Behind));
    assert_eq!(keep(None), Err(Reason::Behind));
    advance(Duration::from_millis(1)).await;
    let before = Instant::now();
    advance(Duration::from_millis(1)).await;
    bench.write(&["users"]).committed(Instant::now());
    let at = Instant::now();
    assert_eq!(keep(Some(before)), Err(Reason::Behind));
    assert_eq!(keep(Some(at)), Err(Reason::Behind));
    advance(Duration::from_millis(1)).await;
    assert_eq!(keep(Some(Instant::now())), Ok(()));
    assert_eq!(bench.misses(Reason::Behind), 4);
}

#[tokio::test(start_paused = true)]
async fn a_write_dropped_without_an_outcome_stays_pending_until_it_is_resolved() {
    let bench = Bench::new(limits());
    bench.keep("a", b"row");
    drop(bench.write(&["users"]));
    assert_eq!(word(&bench.find("a")), "write_pending");
    // Whoever takes it and goes away hands it on.
    drop(bench.spaces.unresolved().await);
    assert_eq!(word(&bench.find("a")), "write_pending");
    let mut taken = bench.spaces.unresolved().await;
    assert_eq!((taken.len(), taken[0].witness().process), (1, 1));
    taken.remove(0).resolved(Instant::now());
    assert_eq!(word(&bench.find("a")), "lead");
    assert!(bench.spaces.take_unresolved().is_empty());
    let heard = bench.write(&["users"]).unresolved();
    assert_eq!(word(&bench.find("b")), "write_pending");
    heard.resolved(Instant::now());
    assert_eq!(word(&bench.find("b")), "lead");
}

#[tokio::test(start_paused = true)]
async fn a_future_cancelled_in_the_middle_of_a_write_leaves_it_pending() {
    let bench = Bench::new(limits());
    let write = bench.write(&["users"]);
    let task = async move {
        std::future::pending::<()>().await;
        write.rolled_back();
    };
    assert!(tokio::time::timeout(Duration::from_secs(1), task).await.is_err());
    assert_eq!(bench.stamp().unwrap_err(), Reason::Pending);
    assert_eq!(bench.spaces.take_unresolved().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_entry_ends_with_its_ttl_and_one_makes_it_anew_before() {
    let bench = Bench::new(limits());
    bench.keep("a", b"row");
    advance(Duration::from_secs(53)).await;
    assert_eq!(word(&bench.find("a")), "hit");
    advance(Duration::from_secs(2)).await;
    let leading = bench.find("a");
    assert_eq!(word(&leading), "lead");
    assert_eq!(word(&bench.find("a")), "hit");
    assert_eq!(word(&bench.find("a")), "hit");
    // Who gives up leaves it to the next one.
    lead(leading).give_up(Reason::Error);
    let leading = bench.find("a");
    assert_eq!(word(&leading), "lead");
    assert_eq!(word(&bench.find("a")), "hit");
    lead(leading).keep(fill(b"new", Instant::now()), Instant::now()).unwrap();
    advance(Duration::from_secs(10)).await;
    match bench.find("a") {
        Found::Hit(entry) => assert_eq!(entry.answer().rows, b"new".as_slice()),
        other => panic!("{}", word(&other)),
    }
    advance(Duration::from_secs(60)).await;
    assert_eq!(word(&bench.find("a")), "lead");
    assert_eq!(bench.misses(Reason::Abandoned), 1);
}

#[tokio::test(start_paused = true)]
async fn a_rule_shortens_a_life() {
    let bench = Bench::new(limits());
    let short = Fill { ttl: Duration::from_secs(1), ..fill(b"row", Instant::now()) };
    lead(bench.find("a")).keep(short, Instant::now()).unwrap();
    advance(Duration::from_millis(1001)).await;
    assert_eq!(word(&bench.find("a")), "lead");
    let long = Fill { ttl: Duration::from_secs(1000), ..fill(b"row", Instant::now()) };
    lead(bench.find("b")).keep(long, Instant::now()).unwrap();
    advance(Duration::from_secs(61)).await;
    assert_eq!(word(&bench.find("b")), "lead");
}

#[tokio::test(start_paused = true)]
async fn five_hundred_clients_on_one_key_send_one_query() {
    let bench = Arc::new(Bench::new(limits()));
    bench.keep("a", b"old");
    advance(Duration::from_secs(61)).await;
    let queries = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..500)
        .map(|_| {
            let (bench, queries) = (Arc::clone(&bench), Arc::clone(&queries));
            tokio::spawn(async move {
                let found = bench.cache.look(&key("a"), Duration::from_secs(5), || bench.stamp()).await;
                match found {
                    Found::Hit(entry) => entry.answer().rows.clone(),
                    Found::Lead(lead) => {
                        queries.fetch_add(1, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        let now = Instant::now();
                        lead.keep(fill(b"new", now), now).unwrap().answer().rows.clone()
                    }
                    other => panic!("{}", word(&other)),
                }
            })
        })
        .collect();
    for client in clients {
        assert_eq!(client.await.unwrap(), b"new".as_slice());
    }
    assert_eq!(queries.load(Ordering::SeqCst), 1);
    let figures = bench.cache.figures();
    assert_eq!((figures.hits, figures.follows, figures.in_flight), (499, 499, 0));
}

#[tokio::test(start_paused = true)]
async fn when_a_leader_goes_away_the_next_one_leads() {
    let bench = Arc::new(Bench::new(limits()));
    let first = lead(bench.find("a"));
    let followers: Vec<_> = (0..3)
        .map(|_| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move {
                match bench.cache.look(&key("a"), Duration::from_secs(5), || bench.stamp()).await {
                    Found::Lead(lead) => lead.keep(fill(b"row", Instant::now()), Instant::now()).map(|_| true),
                    Found::Hit(_) => Ok(false),
                    other => panic!("{}", word(&other)),
                }
            })
        })
        .collect();
    tokio::task::yield_now().await;
    drop(first);
    let mut led = 0;
    for follower in followers {
        led += u32::from(follower.await.unwrap().unwrap());
    }
    assert_eq!(led, 1);
    assert_eq!(bench.misses(Reason::Abandoned), 1);
}

#[tokio::test(start_paused = true)]
async fn a_follower_waits_for_a_while_only() {
    let bench = Bench::new(limits());
    let slow = lead(bench.find("a"));
    let begun = Instant::now();
    let found = bench.cache.look(&key("a"), Duration::from_millis(200), || bench.stamp()).await;
    assert_eq!((word(&found), begun.elapsed()), ("followed_too_long", Duration::from_millis(200)));
    drop(slow);
}

#[tokio::test(start_paused = true)]
async fn followers_of_an_answer_that_cannot_be_kept_pass_all_at_once() {
    let bench = Bench::new(limits());
    let leading = lead(bench.find("a"));
    let key = key("a");
    let looks: Vec<_> =
        (0..5).map(|_| bench.cache.look(&key, Duration::from_secs(5), || bench.stamp())).map(Box::pin).collect();
    let fail = async {
        tokio::task::yield_now().await;
        leading.give_up(Reason::Error);
    };
    let (all, ()) = tokio::join!(futures_util::future::join_all(looks), fail);
    assert!(all.iter().all(|found| word(found) == "followed_in_vain"));
}

#[tokio::test(start_paused = true)]
async fn followers_whose_table_was_written_meanwhile_do_not_get_the_old_answer() {
    let bench = Bench::new(limits());
    let leading = lead(bench.find("a"));
    let key = key("a");
    let look = bench.cache.look(&key, Duration::from_secs(5), || bench.stamp());
    let overtake = async {
        tokio::task::yield_now().await;
        let entry = leading.keep(fill(b"old", Instant::now()), Instant::now()).unwrap();
        bench.write(&["users"]).committed(Instant::now());
        entry
    };
    let (found, _) = tokio::join!(look, overtake);
    assert_eq!(word(&found), "lead");
}

#[tokio::test(start_paused = true)]
async fn a_large_answer_is_not_kept_and_not_waited_for_again() {
    let bench = Bench::new(limits());
    let large = fill(&vec![0; 10_001], Instant::now());
    assert_eq!(lead(bench.find("a")).keep(large, Instant::now()).unwrap_err(), Reason::TooLarge);
    assert_eq!(word(&bench.find("a")), "too_large");
    advance(Duration::from_secs(61)).await;
    assert_eq!(word(&bench.find("a")), "lead");
}

#[tokio::test(start_paused = true)]
async fn a_cache_smaller_than_one_entry_serves_nothing_and_holds_nothing() {
    let bench = Bench::new(Limits { memory: 500, ..limits() });
    for _ in 0..100 {
        let kept = lead(bench.find("a")).keep(fill(&[0; 200], Instant::now()), Instant::now());
        assert_eq!(kept.unwrap_err(), Reason::TooLarge);
    }
    let figures = bench.cache.figures();
    assert_eq!((figures.entries, figures.bytes), (0, 0));
}

/// `PGWEIR_TRIALS` says how many.
#[test]
fn any_number_of_keys_takes_no_more_memory_than_allowed() {
    let keys = std::env::var("PGWEIR_TRIALS").map_or(50_000, |text| text.parse().unwrap());
    let bench = Bench::new(limits());
    let now = Instant::now();
    let (stamp, mut key) = (bench.stamp().unwrap(), KeyBytes::default());
    for number in 0..keys {
        key.clear();
        key.number(number);
        if let Found::Lead(lead) = bench.cache.find(&key, now, || Ok(stamp.clone())) {
            lead.keep(fill(&[0; 100], now), now).unwrap();
        }
        if number % 10_000 == 0 {
            assert!(bench.cache.figures().bytes <= 1 << 20);
        }
    }
    let figures = bench.cache.figures();
    assert!(figures.bytes <= figures.limit_bytes, "{figures:?}");
    assert!(figures.entries > 500 && figures.entries < 3_000, "{figures:?}");
    assert_eq!((figures.fills, figures.in_flight), (keys, 0));
    assert!(figures.evictions > keys * 9 / 10);
}

/// Share of hits over keys drawn by Zipf's law, with a scan of keys that never come again in between.
fn hit_share(policy: Policy) -> f64 {
    let bench = Bench::new(Limits { memory: 200 << 10, policy, ..limits() });
    let mut random = StdRng::seed_from_u64(42);
    let (now, stamp, mut key) = (Instant::now(), bench.stamp().unwrap(), KeyBytes::default());
    let weights: Vec<f64> = (1..=5_000).map(|rank| 1.0 / f64::from(rank)).collect();
    let zipf = rand::distr::weighted::WeightedIndex::new(&weights).unwrap();
    let (mut hits, mut asked) = (0, 0);
    for round in 0..60_000_u64 {
        let scans = round % 2 == 1;
        key.clear();
        key.number(if scans { 1_000_000 + round } else { random.sample(&zipf) as u64 });
        let found = bench.cache.find(&key, now, || Ok(stamp.clone()));
        asked += u64::from(!scans);
        match found {
            Found::Hit(_) => hits += 1,
            Found::Lead(lead) => drop(lead.keep(fill(&[0; 100], now), now).unwrap()),
            other => panic!("{}", word(&other)),
        }
    }
    hits as f64 / asked as f64
}

#[test]
fn under_pressure_frequency_keeps_what_a_scan_would_push_out() {
    let (lfu, lru) = (hit_share(Policy::Lfu), hit_share(Policy::Lru));
    // The 300 or so most frequent of 5,000 keys, which fit, are two thirds of what is asked; half of all look-ups scan.
    assert!(lfu > 0.40, "{lfu}");
    assert!(lru > 0.30, "{lru}");
    assert!(lfu > lru + 0.03, "{lfu} {lru}");
}

#[test]
fn the_same_database_is_the_same_space_and_no_other_is() {
    let (spaces, space) = spaces();
    let again =
        |system, database: &str| spaces.space(&Identity { system, database: database.to_owned() }, Instant::now());
    assert!(Arc::ptr_eq(&again(7, "shop"), &space));
    assert!(!Arc::ptr_eq(&again(7, "other"), &space));
    assert!(!Arc::ptr_eq(&again(8, "shop"), &space));
    let stamp = spaces.stamp(&[again(8, "shop")], &[tag("users")]).unwrap();
    spaces.write(&[space], &touched(&["users"]), witness()).committed(Instant::now());
    assert!(stamp.holds());
}

#[test]
fn equal_names_in_two_schemas_are_two_tables() {
    assert_ne!(TableTag::new("a", "users"), TableTag::new("b", "users"));
    assert_ne!(TableTag::new("a", "bc"), TableTag::new("ab", "c"));
    assert_ne!(TableTag::new("a", "users"), TableTag::below("a", "users"));
}

#[test]
fn a_transaction_touches_what_its_statements_touch() {
    let mut all = touched(&["a"]);
    all.merge(&touched(&["b", "a"]));
    assert_eq!(all, touched(&["a", "b"]));
    all.merge(&Touched::nothing());
    assert!(!all.is_everything() && !all.is_nothing());
    (0..100).for_each(|number| all.add(tag(&number.to_string())));
    assert!(all.is_everything());
    let mut everything = Touched::everything();
    everything.merge(&touched(&["a"]));
    assert_eq!(everything, Touched::everything());
}

#[test]
fn a_stamp_of_several_shards_breaks_with_each() {
    let (spaces, one) = spaces();
    let other = spaces.space(&Identity { system: 9, database: "shop".to_owned() }, Instant::now());
    for place in [&one, &other] {
        let stamp = spaces.stamp(&[Arc::clone(&one), Arc::clone(&other)], &[tag("a"), tag("b")]).unwrap();
        assert!(stamp.holds());
        let write = spaces.write(std::slice::from_ref(place), &touched(&["b"]), witness());
        assert!(!stamp.holds());
        assert_eq!(stamp.why_not(), Reason::Pending);
        write.committed(Instant::now());
        assert!(!stamp.holds());
        assert_eq!(stamp.why_not(), Reason::Stale);
    }
}

/// A register that a writer sets and readers read through the cache, as a database would hold it: whoever looks after
/// a write was acknowledged must not get an older value.
struct Register {
    bench: Bench,
    value: AtomicU64,
    acknowledged: AtomicU64,
    hits: AtomicU64,
    stop: AtomicBool,
}

impl Register {
    fn write(&self, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        for number in 1..=500_u64 {
            let write = self.bench.write(&["users"]);
            if random.random_bool(0.3) {
                write.rolled_back();
                continue;
            }
            // Visible to others before the writer is told.
            self.value.store(number, Ordering::SeqCst);
            if random.random_bool(0.5) {
                thread::yield_now();
            }
            write.committed(Instant::now());
            self.acknowledged.store(number, Ordering::SeqCst);
            (0..random.random_range(0..200)).for_each(|_| std::hint::spin_loop());
        }
        self.stop.store(true, Ordering::SeqCst);
    }

    fn read(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            let floor = self.acknowledged.load(Ordering::SeqCst);
            let seen = self.look().unwrap_or(floor);
            assert!(seen >= floor, "{seen} after {floor} was acknowledged");
        }
    }

    fn look(&self) -> Option<u64> {
        match self.bench.find("register") {
            Found::Hit(entry) => {
                self.hits.fetch_add(1, Ordering::Relaxed);
                Some(number(&entry.answer().rows))
            }
            Found::Lead(lead) => {
                let seen = self.value.load(Ordering::SeqCst);
                thread::yield_now();
                let now = Instant::now();
                // Whether it was kept or overtaken is the cache's to say.
                let _ = lead.keep(fill(&seen.to_be_bytes(), now), now);
                Some(seen)
            }
            _ => None,
        }
    }
}

/// Threads and their order are left to the machine, what they do to seeds.
#[test]
fn no_hit_is_older_than_an_acknowledged_write() {
    let mut hits = 0;
    for seed in 0..5 {
        let (value, acknowledged, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let register = Register { bench: Bench::new(limits()), value, acknowledged, hits: AtomicU64::new(0), stop };
        thread::scope(|scope| {
            scope.spawn(|| register.write(seed));
            (0..2).for_each(|_| drop(scope.spawn(|| register.read())));
        });
        // At rest, what is served is what there is.
        let (value, seen) = (register.value.load(Ordering::SeqCst), register.look());
        assert_eq!(seen, Some(value));
        hits += register.hits.load(Ordering::SeqCst);
    }
    assert!(hits > 0);
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

#[derive(Clone, Debug)]
enum Step {
    Begin(usize, u8),
    Commit(usize),
    RollBack(usize),
    Drop(usize),
    Resolve,
    Stamp(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4_usize, 1..8_u8).prop_map(|(write, tables)| Step::Begin(write, tables)),
        (0..4_usize).prop_map(Step::Commit),
        (0..4_usize).prop_map(Step::RollBack),
        (0..4_usize).prop_map(Step::Drop),
        Just(Step::Resolve),
        (1..8_u8).prop_map(Step::Stamp),
    ]
}

fn names(tables: u8) -> Vec<&'static str> {
    ["a", "b", "c"].into_iter().enumerate().filter(|(bit, _)| tables & (1 << bit) != 0).map(|(_, name)| name).collect()
}

proptest! {
    /// Any order of four writes and their ends against stamps of three tables, beside a model that only counts.
    #[test]
    fn a_stamp_holds_exactly_while_nothing_was_or_is_written(steps in prop::collection::vec(step(), 1..60)) {
        let (spaces, space) = spaces();
        let places = [space];
        let mut writes: [Option<(Writing, u8)>; 4] = Default::default();
        let (mut pending, mut versions) = ([0_u32; 3], [0_u32; 3]);
        let mut lost: Vec<u8> = Vec::new();
        let mut stamps: Vec<(Stamp, u8, [u32; 3])> = Vec::new();
        let bits = |tables: u8| (0..3_usize).filter(move |bit| tables & (1 << bit) != 0);
        for step in steps {
            match step {
                Step::Begin(write, tables) if writes[write].is_none() => {
                    writes[write] = Some((spaces.write(&places, &touched(&names(tables)), witness()), tables));
                    bits(tables).for_each(|bit| pending[bit] += 1);
                }
                Step::Commit(write) => if let Some((write, tables)) = writes[write].take() {
                    write.committed(Instant::now());
                    bits(tables).for_each(|bit| { pending[bit] -= 1; versions[bit] += 1; });
                },
                Step::RollBack(write) => if let Some((write, tables)) = writes[write].take() {
                    write.rolled_back();
                    bits(tables).for_each(|bit| pending[bit] -= 1);
                },
                Step::Drop(write) => if let Some((write, tables)) = writes[write].take() {
                    drop(write);
                    lost.push(tables);
                },
                Step::Resolve => {
                    let taken = spaces.take_unresolved();
                    prop_assert_eq!(taken.len(), lost.len());
                    taken.into_iter().for_each(|write| write.resolved(Instant::now()));
                    lost.drain(..).flat_map(bits).for_each(|bit| { pending[bit] -= 1; versions[bit] += 1; });
                }
                Step::Stamp(tables) => {
                    let tags: Vec<TableTag> = names(tables).into_iter().map(tag).collect();
                    let stamp = spaces.stamp(&places, &tags);
                    prop_assert_eq!(stamp.is_ok(), bits(tables).all(|bit| pending[bit] == 0));
                    stamps.extend(stamp.ok().map(|stamp| (stamp, tables, versions)));
                }
                Step::Begin(..) => {}
            }
            for (stamp, tables, at) in &stamps {
                let holds = bits(*tables).all(|bit| pending[bit] == 0 && versions[bit] == at[bit]);
                prop_assert_eq!(stamp.holds(), holds);
            }
        }
    }

    /// Different parts never give the same key.
    #[test]
    fn keys_differ_where_their_parts_do(
        one in prop::collection::vec(prop::option::of(prop::collection::vec(0..3_u8, 0..4)), 0..4),
        other in prop::collection::vec(prop::option::of(prop::collection::vec(0..3_u8, 0..4)), 0..4),
    ) {
        let build = |parts: &[Option<Vec<u8>>]| {
            let mut key = KeyBytes::default();
            key.list(parts.len());
            for part in parts {
                key.optional(part.as_deref());
            }
            key.as_slice().to_vec()
        };
        prop_assert_eq!(one == other, build(&one) == build(&other));
    }
}

#[test]
fn a_key_is_no_longer_than_it_may_be() {
    let mut key = KeyBytes::default();
    key.bytes(&vec![0; 60_000]).number(1);
    assert!(!key.is_too_long());
    key.bytes(&vec![0; 10_000]);
    assert!(key.is_too_long());
    key.clear();
    assert!(key.as_slice().is_empty());
}

#[test]
fn counters_go_on_over_other_limits() {
    let bench = Bench::new(limits());
    bench.keep("a", b"row");
    assert_eq!(word(&bench.find("a")), "hit");
    let smaller = bench.cache.replaced(Limits { memory: 4096, ..limits() });
    let figures = smaller.figures();
    assert_eq!((figures.hits, figures.fills, figures.entries, figures.limit_bytes), (1, 1, 0, 4096));
    smaller.pass(Reason::Wrote);
    assert!(smaller.figures().misses.contains(&("wrote", 1)));
    let names: HashSet<_> = smaller.figures().misses.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), Reason::all().count());
}
