//! Clients that break the rules, or keep them to excess: each gets a clear error or is disconnected, in bounded memory
//! and time, while a client beside them is served as ever.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use crate::raw::{self, PROTOCOL_3_0, Raw, bind, execute, message, packet, parse, query, startup, sync};
use crate::stage::WHO;
use crate::support::{Cluster, PASSWORD, Proxy, Role, until};

/// Two shards, so that texts must be understood; one worker, so that whoever holds it up is noticed by all.
struct Bench {
    proxy: Proxy,
    cluster: Cluster,
}

impl Bench {
    fn start(general: &str) -> Self {
        let cluster = Cluster::start(2, 0);
        cluster
            .sql_everywhere("create table orders (id int, user_id bigint, note text); grant all on orders to public");
        let user = format!("[[users]]\nname = \"app\"\nauth = \"trust\"\nserver_password = \"{PASSWORD}\"\n");
        let other = format!("[[users]]\nname = \"careful\"\npassword = \"{PASSWORD}\"\nserver_user = \"app\"\n");
        let keys = "[[sharded_tables]]\ndatabase = \"shop\"\ncolumn = \"user_id\"\n\
                    [[sharded_tables.mapping]]\nstart = 1\nend = 1001\nshard = 0\n\
                    [[sharded_tables.mapping]]\nstart = 1001\nshard = 1\n";
        let control = format!("[control]\nuser = \"postgres\"\npassword = \"{PASSWORD}\"\n");
        let databases = cluster.databases_toml();
        let proxy = Proxy::start(&format!("workers = 1\n{general}\n{control}{databases}{user}{other}{keys}"));
        // The first log-in waits for what is known of the servers.
        drop(Raw::connect(proxy.port, &WHO));
        Self { proxy, cluster }
    }

    fn client(&self) -> Raw {
        Raw::connect(self.proxy.port, &WHO)
    }

    fn open(&self) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.proxy.port)).unwrap()
    }

    /// Resident memory of the proxy, in bytes.
    fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.proxy.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// What the proxy's memory has grown by, in MiB.
    fn grown(&self, since: usize) -> usize {
        self.memory().saturating_sub(since) >> 20
    }

    /// Sends bytes and gives all that comes back until the proxy closes the connection; it must not take long.
    fn told(&self, bytes: &[u8]) -> String {
        let mut stream = self.open();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        // It may be closed before all was written.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(cause) if cause.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(cause) => panic!("left open after {}: {cause}", bytes.escape_ascii()),
        }
        answer.escape_ascii().to_string()
    }
}

/// A well-behaved client, at work until `work` is done: what the slowest of its queries took.
fn beside<T>(bench: &Bench, work: impl FnOnce() -> T) -> (T, Duration) {
    let done = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let good = scope.spawn(|| {
            let mut client = bench.client();
            let mut slowest = Duration::ZERO;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let since = Instant::now();
                let reply = client.query("select 'well'");
                assert_eq!(
                    (reply.kinds.as_str(), reply.rows.first().map(String::as_str)),
                    ("TDCZ", Some("well")),
                    "{reply:?}"
                );
                slowest = slowest.max(since.elapsed());
            }
            slowest
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        let slowest = good.join().unwrap();
        (outcome.unwrap_or_else(|why| std::panic::resume_unwind(why)), slowest)
    })
}

/// On a machine that has other things to do, too.
const PROMPT: Duration = Duration::from_secs(5);

fn length(kind: &[u8], length: u32) -> Vec<u8> {
    [kind, &length.to_be_bytes()].concat()
}

/// Disconnected without a word, as PostgreSQL does it.
const SILENCE: &str = "nothing";

/// Nothing of this is a log-in: each is told so, or not, and disconnected.
#[test]
fn whoever_speaks_no_protocol_is_disconnected() {
    let bench = Bench::start("");
    let before = bench.memory();
    let cancel = packet(&[&80_877_102_u32.to_be_bytes()[..], &[0; 8]].concat());
    let tls = packet(&80_877_103_u32.to_be_bytes());
    let login = |parameters: &[(&str, &str)]| startup(PROTOCOL_3_0, parameters);
    let careful = login(&[("user", "careful"), ("database", "shop")]);
    let first = [careful.clone(), raw::sasl_initial("n,,n=,r=abcdefgh")].concat();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("another protocol", b"GET / HTTP/1.1\r\nHost: db\r\n\r\n".to_vec(), SILENCE),
        ("zeros", vec![0; 64], SILENCE),
        ("ones", vec![0xff; 64], SILENCE),
        ("a length of nothing", length(b"", 4), SILENCE),
        ("a negative length", length(b"", 0x8000_0000), SILENCE),
        ("a length of a gigabyte", length(b"", 1 << 30), SILENCE),
        ("a packet longer than any", [length(b"", 10_001), vec![b'x'; 9_997]].concat(), SILENCE),
        ("no user", login(&[("database", "shop")]), "28000"),
        ("an empty user", login(&[("user", ""), ("database", "shop")]), "28000"),
        ("no such database", login(&[("user", "app"), ("database", "nowhere")]), "3D000"),
        ("no such setting", login(&[&WHO[..], &[("no_such_setting", "1")]].concat()), "22023"),
        ("half a parameter", packet(&[&PROTOCOL_3_0.to_be_bytes()[..], b"user"].concat()), "08P01"),
        ("bytes behind the end", packet(&[&PROTOCOL_3_0.to_be_bytes()[..], b"\0x"].concat()), "08P01"),
        ("not UTF-8", packet(&[&PROTOCOL_3_0.to_be_bytes()[..], b"user\0\xff\0\0"].concat()), "08P01"),
        ("a cancel request of nobody", cancel.clone(), ""),
        ("a short cancel request", packet(&80_877_102_u32.to_be_bytes()), "08P01"),
        ("requests for TLS without end", tls.repeat(10), "08P01"),
        ("a query before the log-in", query("select 1"), SILENCE),
        ("a query instead of the password", [careful.clone(), query("select 1")].concat(), "08P01"),
        ("another user after the first", [careful.clone(), login(&WHO)].concat(), "08P01"),
        ("another mechanism", [careful.clone(), message(b'p', &[b"PLAIN\0\0\0\0\0"])].concat(), "08P01"),
        ("an empty password", [careful.clone(), message(b'p', &[])].concat(), "08P01"),
        ("a password of a megabyte", [careful.clone(), length(b"p", 1 << 20)].concat(), "08P01"),
        ("a negative length in a password", [careful.clone(), length(b"p", u32::MAX)].concat(), "08P01"),
        ("channel binding that was not offered", [careful.clone(), raw::sasl_initial("p=x,,n=,r=a")].concat(), "08P01"),
        ("a Terminate instead of the password", [careful.clone(), raw::terminate()].concat(), "08P01"),
        ("no nonce", [careful.clone(), raw::sasl_initial("n,,n=")].concat(), "08P01"),
        ("no proof", [first.clone(), message(b'p', &[b"c=biws,r=abcdefgh"])].concat(), "08P01"),
        ("another nonce", [first.clone(), message(b'p', &[b"c=biws,r=abcdefgh,p=AAAA"])].concat(), "08P01"),
        ("a second first message", [first.clone(), raw::sasl_initial("n,,n=,r=abcdefgh")].concat(), "08P01"),
        ("options without a name", login(&[&WHO[..], &[("options", "-c =1")]].concat()), ""),
        ("options without an end", login(&[&WHO[..], &[("options", "-c")]].concat()), ""),
    ];
    let (_, slowest) = beside(&bench, || {
        for (what, bytes, expected) in cases {
            // A log-in that succeeds goes on until the client leaves.
            let answer = bench.told(&[bytes, raw::terminate()].concat());
            assert!(
                answer.contains(&format!("C{expected}")) || expected.is_empty() || expected == SILENCE,
                "{what}: {answer}"
            );
            // Who begins with no packet of ours understands no answer.
            assert_eq!(
                answer.is_empty(),
                expected == SILENCE || what == "a cancel request of nobody",
                "{what}: {answer}"
            );
        }
    });
    assert!(slowest < PROMPT && bench.grown(before) < 32, "{slowest:?}, {} MiB", bench.grown(before));
}

/// The session ends with an error, except where only a statement is wrong.
#[test]
fn whoever_breaks_the_protocol_after_the_log_in_is_told() {
    let bench = Bench::start("");
    let before = bench.memory();
    let login = startup(PROTOCOL_3_0, &WHO);
    let fatal: Vec<(&str, Vec<u8>)> = vec![
        ("an unknown kind", message(b'?', &[])),
        ("a kind of the server's", message(b'Z', &[b"I"])),
        ("a zero", vec![0; 5]),
        ("a password", message(b'p', &[b"secret\0"])),
        ("another log-in", login.clone()),
        ("a length below its own", length(b"Q", 3)),
        ("a negative length", length(b"Q", u32::MAX)),
        ("a length above a gigabyte", length(b"Q", 0x4000_0000)),
        ("an unknown kind behind a Parse", [parse("", "select 1"), message(b'?', &[])].concat()),
        ("a long function call", length(b"F", 1 << 29)),
    ];
    let statements: Vec<(&str, Vec<u8>)> = vec![
        ("a query without its end", message(b'Q', &[b"select 1"])),
        ("a query with a zero in it", message(b'Q', &[b"select '\0'\0"])),
        ("an empty Parse", message(b'P', &[])),
        ("an empty Bind", message(b'B', &[])),
        ("an empty Execute", message(b'E', &[])),
        ("an empty Describe", message(b'D', &[])),
        ("a Describe of nothing that is", message(b'D', &[b"X\0"])),
        ("a Close of nothing that is", message(b'C', &[b"X\0"])),
        ("fewer types than were said", message(b'P', &[b"\0select 1\0\xff\xff\0\0"])),
        ("fewer parameters than were said", [parse("", "select 1"), message(b'B', &[b"\0\0\0\0\xff\xff"])].concat()),
        (
            "a parameter longer than its message",
            [parse("", "select $1"), message(b'B', &[b"\0\0\0\0\0\x01\x7f\xff\xff\xff\0\0"])].concat(),
        ),
        (
            "a parameter of a negative length",
            [parse("", "select $1"), message(b'B', &[b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0"])].concat(),
        ),
        (
            "as many formats as nobody has parameters",
            [parse("", "select $1"), message(b'B', &[b"\0\0\0\x03\0\0\0\0\0\0\0\x01\0\0\0\x011\0\0"])].concat(),
        ),
        ("bytes behind the end of a Sync", [parse("", "select 1"), message(b'S', &[b"more"])].concat()),
    ];
    let (_, slowest) = beside(&bench, || {
        for (what, bytes) in fatal {
            let answer = bench.told(&[login.clone(), bytes].concat());
            assert!(answer.contains("SFATAL") && answer.contains("C08P01"), "{what}: {answer}");
        }
        for (what, bytes) in statements {
            let mut client = bench.client();
            client.send(&[bytes, sync(), sync()].concat());
            let reply = client.reply();
            assert_eq!((reply.sqlstate(), reply.status), ("08P01", 'I'), "{what}: {reply:?}");
            client.send(&query("select 'the last'"));
            until_row(&mut client, "the last");
        }
    });
    assert!(slowest < PROMPT && bench.grown(before) < 32, "{slowest:?}, {} MiB", bench.grown(before));
}

/// Reads up to the ReadyForQuery behind this row.
fn until_row(client: &mut Raw, wanted: &str) {
    while !client.reply().rows.iter().any(|row| row == wanted) {}
}

/// Random bytes, before and after the log-in and in the middle of it: nobody hangs, nothing falls over.
#[test]
fn noise_is_survived() {
    let bench = Bench::start("client_login_timeout = '5s'");
    let before = bench.memory();
    let kinds = b"QPBDECSHFXdcfp\0?";
    let (_, slowest) = beside(&bench, || {
        thread::scope(|scope| {
            for seed in 0..4_u64 {
                let bench = &bench;
                scope.spawn(move || noise(bench, kinds, seed));
            }
        });
    });
    assert!(slowest < PROMPT && bench.grown(before) < 64, "{slowest:?}, {} MiB", bench.grown(before));
    assert_eq!(bench.client().value("select 'well'"), "well");
}

fn noise(bench: &Bench, kinds: &[u8], seed: u64) {
    use rand::{Rng, SeedableRng};
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    for round in 0..150 {
        let mut bytes = if round % 3 == 0 { Vec::new() } else { startup(PROTOCOL_3_0, &WHO) };
        for _ in 0..random.random_range(1..8) {
            let body: Vec<u8> = (0..random.random_range(0..40)).map(|_| random.random()).collect();
            match round % 3 {
                1 => bytes.extend(message(kinds[random.random_range(0..kinds.len())], &[&body])),
                _ => bytes.extend(body),
            }
        }
        let mut stream = bench.open();
        // The proxy may have closed it already.
        let _ = stream.write_all(&bytes).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut answer = Vec::new();
        if let Err(cause) = stream.read_to_end(&mut answer) {
            assert_eq!(cause.kind(), std::io::ErrorKind::ConnectionReset, "seed {seed}, round {round}");
        }
    }
}

/// Sockets on which nobody says anything, or half of it, are closed in time, and take nobody's place.
#[test]
fn half_open_connections_take_no_places() {
    let bench = Bench::start("client_login_timeout = '3s'\nmax_client_conn = 100");
    let before = bench.memory();
    let halves: Vec<Vec<u8>> = {
        let careful = startup(PROTOCOL_3_0, &[("user", "careful"), ("database", "shop")]);
        let tls = packet(&80_877_103_u32.to_be_bytes());
        vec![Vec::new(), vec![0], careful[..20].to_vec(), careful, tls]
    };
    let ((), slowest) = beside(&bench, || {
        let since = Instant::now();
        let mut opened: Vec<TcpStream> = (0..1_200)
            .map(|number| {
                let mut stream = bench.open();
                stream.write_all(&halves[number % halves.len()]).unwrap();
                stream
            })
            .collect();
        // All the while, others log in.
        let mut client = bench.client();
        assert_eq!(client.value("select 'well'"), "well");
        for stream in &mut opened {
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        }
        assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    });
    assert!(slowest < PROMPT && bench.grown(before) < 48, "{slowest:?}, {} MiB", bench.grown(before));
    // Those who are through count.
    let clients: Vec<Raw> = (0..100).map(|_| bench.client()).collect();
    assert_eq!(Raw::try_connect(bench.proxy.port, &WHO).1.sqlstate(), "53300");
    drop(clients);
    until(|| Raw::try_connect(bench.proxy.port, &WHO).1.error.is_none());
}

/// A length that was said and does not come keeps what came, no more.
#[test]
fn memory_is_taken_for_what_came_alone() {
    let bench = Bench::start("");
    let before = bench.memory();
    let ((), slowest) = beside(&bench, || {
        let mut clients: Vec<Raw> = (0..100).map(|_| bench.client()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            let kind = [&b"Q"[..], b"P", b"B", b"d", b"E"][number % 5];
            client.send(&[length(kind, 0x3fff_ffff), vec![b'x'; 100]].concat());
        }
        assert!(bench.grown(before) < 32, "{} MiB", bench.grown(before));
    });
    assert!(slowest < PROMPT, "{slowest:?}");
}

/// As many parameters as a message can name work; one more cannot be said, and is an error of PostgreSQL's own.
#[test]
fn as_many_parameters_as_a_message_can_name() {
    let bench = Bench::start("");
    let numbered = |count: usize| {
        let mut list = "$1".to_owned();
        (2..=count).for_each(|number| write!(list, ",${number}").unwrap());
        list
    };
    let values = vec!["7"; 65_535];
    let mut client = bench.client();
    let array = format!("select cardinality(array[{}])", numbered(65_535));
    let reply = client.extended(&[parse("", &array), bind("", &values), execute()]);
    assert_eq!((reply.error, reply.rows), (None, vec!["65535".to_owned()]));
    // Each of them names a shard.
    let chosen = format!("select count(*) from orders where user_id in ({})", numbered(65_535));
    let reply = client.extended(&[parse("many", &chosen), bind("many", &values), execute()]);
    assert_eq!((reply.error, reply.rows), (None, vec!["0".to_owned()]));
    let mut rows = "insert into orders (id, user_id) values ($1, $2)".to_owned();
    (1..32_767).for_each(|row| write!(rows, ",(${}, ${})", 2 * row + 1, 2 * row + 2).unwrap());
    let reply = client.extended(&[parse("", &rows), bind("", &values[..65_534]), execute()]);
    assert_eq!(reply.error, None);
    assert_eq!(bench.cluster.sql(0, Role::Primary, "select count(*) from orders"), "32767");
    let body = [&b"\0\0\0\0"[..], &34_464_u16.to_be_bytes(), &b"\0\0\0\x017".repeat(100_000), &[0, 0]].concat();
    let reply = client.extended(&[parse("", &array), message(b'B', &[&body]), execute()]);
    assert_eq!((reply.sqlstate(), reply.status), ("08P01", 'I'));
    let reply = client.extended(&[parse("", "select $100000"), bind("", &[]), execute()]);
    assert_eq!((reply.sqlstate(), reply.status), ("42P18", 'I'));
    assert_eq!(client.value("select 'well'"), "well");
}

/// Texts that nest, chain or repeat without end. What PostgreSQL would answer is not the point: the proxy stays.
#[test]
fn texts_of_a_megabyte_are_answered() {
    let bench = Bench::start("");
    let megabyte = |unit: &str| unit.repeat((1 << 20) / unit.len());
    // Without optimisation, what is looked at token by token takes its time: an eighth of a megabyte is enough there.
    let many = |unit: &str| unit.repeat((1 << 17) / unit.len());
    let nest = |open: &str, close: &str| {
        let count = (1 << 17) / open.len();
        format!("select {}1{}", open.repeat(count), close.repeat(count))
    };
    let texts: Vec<String> = vec![
        nest("(", ")"),
        nest("array[", "]"),
        nest("(select ", ")"),
        nest("case when ", " then 1 end"),
        nest("exists(select ", ")"),
        nest("abs(", ")"),
        format!("select 1{}", many("+1")),
        format!("select {} true", many("not ")),
        format!("select 1{}", many("::int")),
        format!("select 1::int{}", many("[]")),
        format!("select a{}", many("[1]")),
        format!("select 1{}", many(" union select 1")),
        format!("select 1{}", " union select 1".repeat(249)),
        format!("select 1{}", " union select 1".repeat(251)),
        format!("select now(){}", " at time zone 'utc'".repeat(999)),
        format!("select 1{}", "+1".repeat(999)),
        format!("select 1::int{}", "[]".repeat(999)),
        format!("select * from orders where user_id = 1{}", many(" or user_id = 1")),
        format!("{} select 1", many("explain ")),
        format!("{} select 1", many("declare c cursor for ")),
        many("copy ("),
        many("begin;"),
        // PostgreSQL itself takes time by the square where comments nest.
        "/*".repeat(4_000),
        megabyte("$"),
        "'".repeat((1 << 20) + 1),
        format!("select {}", megabyte("x")),
        format!("select length('{}')", megabyte("é")),
        format!("select count(*) from orders where user_id in (1{})", many(",1")),
        format!("select count(*) from orders where note in ('é'{})", many(",'é'")),
        "select 1;".repeat(5_000),
    ];
    let before = bench.memory();
    let (_, slowest) = beside(&bench, || {
        for sql in texts {
            let mut client = bench.client();
            client.stream().set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            client.send(&query(&sql));
            let reply = client.reply();
            assert_ne!(reply.status, ' ', "{:.60}: {:?}", sql, reply.error);
        }
    });
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    assert!(bench.grown(before) < 512, "{} MiB", bench.grown(before));
}

/// More than all sockets and buffers hold is sent before anything is read: nobody waits for the other for ever.
#[test]
fn a_pipeline_may_be_longer_than_all_buffers() {
    let bench = Bench::start("");
    let before = bench.memory();
    let unit = [parse("", "select repeat('x', 40000)"), bind("", &[]), execute(), sync()].concat();
    let count = 3_000;
    let ((), slowest) = beside(&bench, || {
        for pipeline in [
            unit.repeat(count),
            [parse("", "select repeat('y', 40000)"), bind("", &[]), execute()].concat().repeat(count),
        ] {
            let mut client = bench.client();
            let mut stream = client.stream().try_clone().unwrap();
            stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
            let mut written = 0;
            // Until the proxy takes no more, as it must, since nothing is read.
            while written < pipeline.len() {
                match stream.write(&pipeline[written..]) {
                    Ok(bytes) => written += bytes,
                    Err(_) => break,
                }
            }
            assert!(bench.grown(before) < 64, "{} MiB", bench.grown(before));
            stream.set_write_timeout(None).unwrap();
            let rest = [&pipeline[written..], &query("select 'the last'")].concat();
            let writer = thread::spawn(move || stream.write_all(&rest).unwrap());
            let mut rows = 0;
            loop {
                let reply = client.reply();
                assert_eq!(reply.error, None);
                if reply.rows.last().is_some_and(|row| row == "the last") {
                    rows += reply.rows.len() - 1;
                    break;
                }
                rows += reply.rows.len();
            }
            writer.join().unwrap();
            assert_eq!(rows, count);
        }
    });
    assert!(slowest < PROMPT && bench.grown(before) < 64, "{slowest:?}, {} MiB", bench.grown(before));
}

/// A configuration that is wrong changes nothing for those who are served, however it is reloaded.
#[test]
fn a_bad_reload_changes_nothing() {
    let bench = Bench::start("admin_users = [\"app\"]");
    let mut console = Raw::connect(bench.proxy.port, &[("user", "app"), ("database", "pgweir")]);
    let good = std::fs::read_to_string(&bench.proxy.config).unwrap();
    let (_, slowest) = beside(&bench, || {
        for bad in ["", "[general", "\0", "[general]\nport = 'many'", &good.replace("shard = 1", "shard = 7")] {
            std::fs::write(&bench.proxy.config, bad).unwrap();
            let reply = console.query("reload");
            assert_eq!((reply.sqlstate(), reply.status), ("22023", 'I'), "{bad}");
            let mut client = bench.client();
            assert_eq!(client.value("select count(*) from orders where user_id = 5000"), "0");
        }
        std::fs::write(&bench.proxy.config, &good).unwrap();
        assert_eq!(console.query("reload").error, None);
    });
    assert!(slowest < PROMPT, "{slowest:?}");
}
