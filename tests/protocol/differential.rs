//! Random sequences of messages, with errors among them: what a client is answered through the proxy is, byte by byte,
//! what PostgreSQL itself answers. A sequence that shows a difference is shrunk before it is printed.

use std::cell::RefCell;
use std::fmt::Write;

use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::raw::{self, Raw};
use crate::support::{Cluster, PASSWORD, Proxy, Role, sql, until};

/// One message, or some that make sense together only.
#[derive(Clone, Debug)]
enum Step {
    Query(&'static str),
    Parse {
        name: &'static str,
        sql: &'static str,
    },
    Bind {
        portal: &'static str,
        name: &'static str,
        values: &'static [&'static str],
    },
    DescribeStatement(&'static str),
    DescribePortal(&'static str),
    Execute {
        portal: &'static str,
        rows: u32,
    },
    CloseStatement(&'static str),
    ClosePortal(&'static str),
    /// Parse, Bind, Describe and Execute of a text.
    Whole(&'static str),
    Flush,
    Sync,
    /// By the simple protocol, behind a Sync: within a pipeline it reaches the server, which knows no names of the client's.
    Deallocate(&'static str),
    /// A COPY FROM STDIN by either protocol, its data, and its end.
    Copy {
        extended: bool,
        /// Other statements of its text.
        among: [&'static str; 2],
        sync_before: bool,
        data: &'static str,
        fails: bool,
    },
    /// Copy data that nobody waits for.
    Stray,
    /// A function by its number (`int4div`), of these two; it divides by zero, or is none.
    Call(u32, i32, i32),
}

const TEXTS: [&str; 72] = [
    "select 1",
    "select id, v from d order by id",
    "select v from d where id = $1",
    "select $1::int + 1",
    "select generate_series(1, 3)",
    "insert into d values (10, 'ten')",
    "insert into d values (1, 'twice')",
    "update d set v = v || '!' where id = 2 returning id, v",
    "delete from d where id = 3",
    "select 1/0",
    "select 10/(id - 2) from d order by id",
    "select from where",
    "select * from nowhere",
    "",
    ";",
    "begin",
    "start transaction read only",
    "commit",
    "rollback",
    "end",
    "savepoint a",
    "rollback to a",
    "release a",
    "select 1; select v from d where id = 1",
    "insert into d values (11, 'gone'); select 1/0; select 2",
    "begin; insert into d values (12, 'maybe')",
    "commit; select 3",
    "copy (select * from d order by id) to stdout",
    "do $$ begin raise notice 'heard'; end $$",
    "declare c cursor for select id from d order by id",
    "fetch 2 from c",
    "show timezone",
    "set timezone to 'Asia/Tokyo'",
    "set local timezone to 'Asia/Tokyo'",
    "reset timezone",
    "set timezone to 'nowhere'",
    "select 1; begin; insert into d values (13, 'begun'); select 2",
    "begin; select 1/0; commit",
    "begin; rollback; select 4",
    "select 5; commit; select 1/0",
    "insert into d values (14, 'kept'); commit; insert into d values (15, 'undone'); select 1/0",
    "rollback; begin; select 6",
    "begin; savepoint a; select 1/0",
    "rollback to a; select 7; release a",
    "set transaction read only",
    "begin isolation level serializable read only deferrable",
    "commit and chain",
    "rollback and chain",
    "select 8;;select 9;",
    "copy (select id from d order by id) to stdout; select 11; copy (select 12) to stdout",
    "copy nowhere from stdin",
    "create temp table t (a int)",
    "insert into t values (1) returning a + 1",
    "drop table t",
    "select pg_try_advisory_lock(3)",
    "select pg_advisory_unlock(3)",
    "declare h cursor with hold for select id from d order by id",
    "fetch 1 from h",
    "close h",
    "discard all",
    "do $$ begin perform 1/0; end $$",
    "prepare q (int) as select $1 + 1",
    "prepare a as select v from d where id = 1",
    "prepare q as select nothing from d",
    "execute q(2)",
    "execute q(1/0)",
    "execute q",
    "execute a",
    "execute b(2)",
    "deallocate q",
    "execute q(3); execute q(4)",
    "explain (costs off) execute a",
];
const STATEMENTS: [&str; 3] = ["", "a", "b"];
const PORTALS: [&str; 2] = ["", "p"];
const VALUES: [&[&str]; 4] = [&[], &[], &["2"], &["two"]];

fn step() -> impl Strategy<Value = Step> {
    let of = |names: &'static [&'static str]| proptest::sample::select(names);
    let (text, name, portal) = (|| of(&TEXTS), || of(&STATEMENTS), || of(&PORTALS));
    prop_oneof![
        3 => text().prop_map(Step::Query),
        1 => of(&["deallocate all", "deallocate a"]).prop_map(Step::Deallocate),
        4 => text().prop_map(Step::Whole),
        3 => (name(), text()).prop_map(|(name, sql)| Step::Parse { name, sql }),
        4 => (portal(), name(), proptest::sample::select(&VALUES[..]))
            .prop_map(|(portal, name, values)| Step::Bind { portal, name, values }),
        1 => name().prop_map(Step::DescribeStatement),
        // The unnamed one is described in [`Step::Whole`]: that of a BEGIN which the proxy answered is not kept for long.
        1 => Just(Step::DescribePortal("p")),
        4 => (portal(), 0..3_u32).prop_map(|(portal, rows)| Step::Execute { portal, rows }),
        1 => name().prop_map(Step::CloseStatement),
        1 => portal().prop_map(Step::ClosePortal),
        1 => Just(Step::Flush),
        4 => Just(Step::Sync),
        1 => copy(),
        1 => Just(Step::Stray),
        1 => of_calls(),
    ]
}

fn copy() -> impl Strategy<Value = Step> {
    let of = |names: &'static [&'static str]| proptest::sample::select(names);
    let among = proptest::sample::select(vec![["", ""], ["", "; select 10"], ["select 12; ", "; select 1/0"]]);
    (any::<bool>(), among, any::<bool>(), of(&["20\tx\n", "1\tx\n", "x", ""]), any::<bool>()).prop_map(
        |(extended, among, sync_before, data, fails)| {
            let among = if extended { ["", ""] } else { among };
            Step::Copy { extended, among, sync_before, data, fails }
        },
    )
}

fn of_calls() -> impl Strategy<Value = Step> {
    proptest::sample::select(vec![Step::Call(154, 7, 2), Step::Call(154, 1, 0), Step::Call(1, 1, 1)])
}

impl Step {
    fn put(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Query(sql) => out.extend(raw::query(sql)),
            // No two names of a client's have one text: an error that names the statement could mean either.
            Self::Parse { name, sql } => {
                // Nor is one that executes another, which may be itself.
                let sql = if sql.contains("execute") && !name.is_empty() { "select 8" } else { sql };
                out.extend(raw::parse(name, &format!("{sql} /* {name} */")));
            }
            Self::Bind { portal, name, values } => out.extend(raw::bind_portal(portal, name, values)),
            Self::DescribeStatement(name) => out.extend(raw::describe(name)),
            Self::DescribePortal(portal) => out.extend(raw::describe_portal(portal)),
            Self::Execute { portal, rows } => out.extend(raw::execute_portal(portal, rows)),
            Self::CloseStatement(name) => out.extend(raw::close(name)),
            Self::ClosePortal(portal) => out.extend(raw::close_portal(portal)),
            Self::Whole(sql) => {
                let messages = [raw::parse("", sql), raw::bind("", &[]), raw::describe_portal(""), raw::execute()];
                out.extend(messages.concat());
            }
            Self::Flush => out.extend(raw::flush()),
            Self::Sync => out.extend(raw::sync()),
            Self::Deallocate(sql) => out.extend([raw::sync(), raw::query(sql)].concat()),
            Self::Copy { extended, among: [before, behind], sync_before, data, fails } => {
                let sql = &format!("{before}copy d from stdin{behind}");
                if extended {
                    out.extend([raw::parse("", sql), raw::bind("", &[]), raw::execute()].concat());
                } else {
                    // It would be skipped after an error, and its data then read as strays.
                    out.extend([raw::sync(), raw::query(sql)].concat());
                }
                if extended && sync_before {
                    out.extend(raw::sync());
                }
                out.extend(raw::copy_data(data));
                out.extend(if fails { raw::copy_fail("enough") } else { raw::copy_done() });
                out.extend(raw::sync());
            }
            Self::Call(function, one, other) => out.extend(raw::call(function, &[one, other])),
            Self::Stray => out.extend([raw::copy_data("nobody's"), raw::copy_done()].concat()),
        }
    }
}

/// Both ways to one server.
struct Pair {
    proxy: Proxy,
    /// Of the user that the trials are made as.
    direct: Raw,
    superuser: Raw,
    cluster: Cluster,
}

impl Pair {
    fn start() -> Self {
        let cluster = Cluster::start(1, 0);
        cluster.sql(0, Role::Primary, "create table d (id int primary key, v text); grant all on d to public");
        let proxy = Self::proxy(&cluster);
        let (direct, superuser) = log_in(&cluster);
        Self { proxy, direct, superuser, cluster }
    }

    fn proxy(cluster: &Cluster) -> Proxy {
        let user = format!("[[users]]\nname = \"app\"\nauth = \"trust\"\nserver_password = \"{PASSWORD}\"\n");
        Proxy::start(&format!("default_pool_size = 2\n{}{user}", cluster.databases_toml()))
    }

    fn check(&mut self, steps: &[Step]) -> Result<(), TestCaseError> {
        self.reset();
        let direct = answers(&mut self.direct, steps);
        if direct.ends_with(CLOSED) {
            eprintln!("PostgreSQL itself did not survive {steps:?}");
            let login = self.cluster.app(self.cluster.primary(0));
            until(|| sql(&login, "select 1").is_ok());
            (self.direct, self.superuser) = log_in(&self.cluster);
            until(|| Raw::try_connect(self.proxy.port, &WHO).0.query("select 1").error.is_none());
            return Ok(());
        }
        self.direct.rows("discard all");
        self.reset();
        let proxied = answers(&mut Raw::connect(self.proxy.port, &WHO), steps);
        let mut next = Raw::connect(self.proxy.port, &WHO);
        if next.parameters.get("TimeZone").is_none_or(|told| told != "UTC") {
            self.proxy = Self::proxy(&self.cluster);
            return Err(TestCaseError::fail(format!(
                "the next client is told of this one's settings: {:?}",
                next.parameters
            )));
        }
        let left = next.value("show timezone");
        if left != "UTC" {
            // Not to be found again by the next trial.
            let others = "select pg_terminate_backend(pid, 10000) from pg_stat_activity where usename = 'app'";
            self.superuser.rows(others);
            (self.direct, self.superuser) = log_in(&self.cluster);
            return Err(TestCaseError::fail(format!("the next client finds the time zone of this one: {left}")));
        }
        if direct == proxied {
            return Ok(());
        }
        Err(TestCaseError::fail(format!("PostgreSQL answers\n{direct}\nthe proxy answers\n{proxied}")))
    }

    fn reset(&mut self) {
        self.superuser.rows("delete from d; insert into d select n, 'v' || n from generate_series(1, 4) n");
    }
}

/// The user of the trials, and the superuser, without a proxy.
fn log_in(cluster: &Cluster) -> (Raw, Raw) {
    let port = cluster.primary(0).port();
    (Raw::log_in(port, &WHO, PASSWORD), Raw::log_in(port, &[("user", "postgres"), ("database", "shop")], PASSWORD))
}

const WHO: [(&str, &str); 2] = [("user", "app"), ("database", "shop")];

/// All that a client is sent for these steps, as text.
fn answers(client: &mut Raw, steps: &[Step]) -> String {
    let mut sent = Vec::new();
    steps.iter().for_each(|step| step.put(&mut sent));
    sent.extend([raw::sync(), raw::query("rollback"), raw::query(LAST)].concat());
    client.send(&sent);
    let mut seen = String::new();
    let (mut ending, mut failed) = (false, false);
    while let Some((kind, body)) = client.frame() {
        ending |= kind == b'D' && body.ends_with(LAST_VALUE.as_bytes());
        match kind {
            // A failed block refuses either way, but not at the same message: the proxy may have to make a statement known
            // once more before it can be bound, or has no server any more that would parse it.
            b'E' if failed => seen += "  E in a failed block\n",
            b'1' | b'2' | b'3' | b't' | b'n' if failed => {}
            _ => tell(&mut seen, kind, &body),
        }
        failed = if kind == b'Z' { body == b"E" } else { failed };
        if ending && kind == b'Z' {
            return seen;
        }
    }
    seen + CLOSED
}

/// Errors and notices without the place in PostgreSQL's own source.
fn tell(out: &mut String, kind: u8, body: &[u8]) {
    let mut body = body.to_vec();
    if matches!(kind, b'E' | b'N') {
        let fields = body.split(|&byte| byte == 0).filter(|field| !matches!(field.first(), Some(b'F' | b'L' | b'R')));
        body = fields.collect::<Vec<_>>().join(&0);
    }
    let text = body.escape_ascii().to_string();
    // The portal of a BEGIN that was answered by the proxy is gone with its unit, in PostgreSQL it is of no use any more.
    let text = text.replace("C55000", "C34000").replace("\\\" cannot be run", "\\\" does not exist");
    writeln!(out, "  {} {text}", char::from(kind)).unwrap();
}

const CLOSED: &str = "  closed";
const LAST: &str = "select 'the last word'";
const LAST_VALUE: &str = "the last word";

/// `PGWEIR_DIFFERENTIAL=20000` runs so many sequences, from another seed each time.
#[test]
fn random_pipelines_are_answered_as_by_postgresql() {
    let many: Option<u32> = std::env::var("PGWEIR_DIFFERENTIAL").ok().map(|count| count.parse().unwrap());
    let seed: [u8; 32] = if many.is_some() { rand::random() } else { [7; 32] };
    let cases = many.unwrap_or(400);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 4000, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let pair = RefCell::new(Pair::start());
    let outcome = TestRunner::new_with_rng(config, rng)
        .run(&proptest::collection::vec(step(), 1..14), |steps| pair.borrow_mut().check(&steps));
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, steps)) => panic!("{steps:#?}\n{why}"),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}
