//! Applications with the drivers that people use, at their default settings: what a driver returned through the proxy
//! is what it returned directly, on one server with all rows.
//!
//! Each program under `tests/drivers/` does the same actions three times and prints what came of each, a line of text:
//! directly, through the proxy on that kind of database with a replica, and through the proxy on two shards.

#![allow(clippy::unwrap_used)]

mod support;

#[path = "drivers/sqlx_trial.rs"]
mod sqlx_trial;
#[path = "drivers/tokio_postgres_trial.rs"]
mod tokio_postgres_trial;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use pgweir::control::connect::Login;
use pgweir::control::migrate::{Migrations, apply};
use pgweir::topology::{ServerTls, TlsNegotiation};
use support::{APP, Cluster, KEYS, PASSWORD, Proxy, Role, SUPERUSER, wait_for};

/// Databases `direct` and `whole` hold all rows on shard 0's servers, database `shop` is split.
struct Bench {
    cluster: &'static Cluster,
    proxy: Proxy,
    /// Every read sees every write: for pools, whose connections are sessions of their own.
    strict: Proxy,
}

fn bench() -> &'static Bench {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    BENCH.get_or_init(|| {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        let cluster = CLUSTER.get_or_init(|| Cluster::start(2, 1));
        cluster.make_shop();
        for name in ["direct", "whole"] {
            cluster.sql(0, Role::Primary, &format!("create database {name} owner {APP}"));
            let login = Login { database: name.to_owned(), ..cluster.superuser(cluster.primary(0)) };
            wait_for(async move { apply(&[login], &[Migrations::shop().run_as(APP)]).await.unwrap() });
            fill(&Login { database: name.to_owned(), ..cluster.app(cluster.primary(0)) }, &[0, KEYS]);
        }
        for shard in 0..2 {
            fill(&cluster.app(cluster.primary(shard)), &[KEYS * u64::from(shard)]);
        }
        cluster.settle();
        let configuration = configuration(cluster);
        let strict = Proxy::start(&format!("consistency = \"strong\"\n{configuration}"));
        Bench { cluster, proxy: Proxy::start(&configuration), strict }
    })
}

/// As a reader of the README writes it: several databases, the same servers under two names, a user for each.
fn configuration(cluster: &Cluster) -> String {
    let server = |name: &str, shard: u16, role: Role| {
        let port = cluster.server(shard, role).port();
        let role = if role == Role::Primary { "primary" } else { "replica" };
        format!(
            "[[databases]]\nname = \"{name}\"\nshard = {shard}\nrole = \"{role}\"\nhost = \"127.0.0.1\"\nport = {port}\n"
        )
    };
    let table = |key: &str| {
        format!(
            "[[sharded_tables]]\ndatabase = \"shop\"\n{key}\n\
             [[sharded_tables.mapping]]\nstart = 1\nend = {end}\nshard = 0\n\
             [[sharded_tables.mapping]]\nstart = {end}\nshard = 1\n",
            end = KEYS + 1
        )
    };
    let user =
        |database: &str| format!("[[users]]\nname = \"{APP}\"\ndatabase = \"{database}\"\npassword = \"{PASSWORD}\"\n");
    [
        // Migrations were applied by the superuser, whose schema "pgweir" is.
        format!("[control]\nuser = \"{SUPERUSER}\"\npassword = \"{PASSWORD}\"\n"),
        user("shop"),
        user("whole"),
        server("shop", 0, Role::Primary),
        server("shop", 0, Role::Replica(1)),
        server("shop", 1, Role::Primary),
        server("shop", 1, Role::Replica(1)),
        server("whole", 0, Role::Primary),
        server("whole", 0, Role::Replica(1)),
        table("column = \"user_id\""),
        table("name = \"users\"\ncolumn = \"id\""),
        "[[reference_tables]]\ndatabase = \"shop\"\ntables = [\"products\", \"categories\"]\n".to_owned(),
    ]
    .concat()
}

/// Users 1 to 20 behind each offset, with what hangs on them; and a table with a column of every common type.
fn fill(login: &Login, offsets: &[u64]) {
    let run = |sql: &str| {
        support::sql(login, sql).unwrap_or_else(|sqlstate| panic!("{sql}: {sqlstate}"));
    };
    run(KINDS);
    run(REFERENCE);
    for offset in offsets {
        run(&SHARDED.replace("OFFSET", &offset.to_string()));
    }
}

const KINDS: &str = "
    create table kinds (
        user_id bigint not null, id int not null, small smallint, whole int, big bigint, exact numeric(12, 4), body text,
        raw bytea, flag boolean, at timestamptz, day date, token uuid, doc jsonb, words text[], numbers int[],
        ratio double precision, primary key (user_id, id)
    );
    create type mood as enum ('sad', 'happy');
    create type pet as (name text, age int, mood mood, past mood[]);
    create table tastes (user_id bigint primary key, mood mood, past mood[], pet pet, pets pet[])";

const REFERENCE: &str = "
    insert into categories select n, 'category ' || n, null, 'slug-' || n from generate_series(1, 3) n;
    insert into products (id, sku, category_id, name, price, weight_kg, created_at)
        select n, lpad(n::text, 32, '0')::uuid, 1 + n % 3, 'product ' || n, n * 1.25, n / 2.0, '2024-01-01'
        from generate_series(1, 10) n";

const SHARDED: &str = "
    insert into users (id, handle, email, full_name, born, country, balance, verified, interests, settings, created_at)
        select OFFSET + n, 'user' || OFFSET + n, 'user' || n || '@example.com', nullif('Name ' || n % 7, 'Name 3'),
            date '1980-01-01' + n::int, (array['DE', 'FR', 'JP'])[1 + n % 3], n * 10.5, n % 2 = 0, array['a', 'b'],
            '{\"k\": 1}', '2024-01-01'
        from generate_series(1, 20) n;
    insert into orders (user_id, id, tracking, total, placed_at)
        select OFFSET + n, o, lpad((OFFSET + n * 10 + o)::text, 32, '0')::uuid, n * o * 3.5,
            timestamptz '2024-01-01' + n * interval '1 day' + o * interval '1 hour'
        from generate_series(1, 20) n, generate_series(1, 1 + n % 4) o;
    insert into order_items (user_id, order_id, line, product_id, quantity, unit_price)
        select user_id, id, l, 1 + (user_id + l) % 10, l, 2.5 from orders, generate_series(1, 2) l
        where user_id > OFFSET;
    insert into posts (user_id, id, public_id, body, tags, likes, score, published_at)
        select OFFSET + n, p, lpad((OFFSET + n * 10 + p)::text, 32, '0')::uuid, 'post ' || p, array['t' || p], n * p,
            n / 4.0, timestamptz '2024-02-01' + n * interval '1 hour' + (OFFSET + p) * interval '1 minute'
        from generate_series(1, 20) n, generate_series(1, 3) p";

/// One line of a program: what was done, and what came of it.
type Transcript = Vec<(String, String)>;

impl Bench {
    /// Databases, and where to connect to.
    fn targets(&self) -> [(&'static str, u16); 3] {
        [("direct", self.cluster.primary(0).port()), ("whole", self.proxy.port), ("shop", self.proxy.port)]
    }

    /// Runs the program three times and compares.
    fn compare(&self, program: &dyn Fn(&str, u16) -> Transcript) {
        let [direct, whole, shop] = self.targets().map(|(database, port)| program(database, port));
        assert!(direct.len() > 10, "the program did nothing: {direct:?}");
        let mut differences = differences("whole", &direct, &whole);
        differences.extend(self::differences("shop", &direct, &shop));
        assert!(differences.is_empty(), "through the proxy it is not as it is directly:\n{}", differences.join("\n"));
    }
}

/// By label, so that one more or less of something does not shift all that follows.
fn differences(database: &str, direct: &Transcript, proxied: &Transcript) -> Vec<String> {
    let (direct, proxied) = (by_label(direct), by_label(proxied));
    let labels: BTreeSet<&String> = direct.keys().chain(proxied.keys()).collect();
    let difference = |label: &String| {
        let wanted = direct.get(label).copied().unwrap_or("nothing");
        let got = proxied.get(label).copied().unwrap_or("nothing");
        (got != wanted).then(|| format!("{database}: {label}\n  wanted {wanted}\n  got    {got}"))
    };
    labels.into_iter().filter_map(difference).collect()
}

/// Labels that come more than once are numbered.
fn by_label(transcript: &Transcript) -> BTreeMap<String, &str> {
    let mut map = BTreeMap::new();
    let mut part = "";
    for (label, came) in transcript {
        if label == "part" {
            part = came;
        }
        let label = format!("{part}: {label}");
        let times = (1..).find(|times| !map.contains_key(&numbered(&label, *times))).unwrap();
        map.insert(numbered(&label, times), came.as_str());
    }
    map
}

fn numbered(label: &str, times: u32) -> String {
    if times == 1 { label.to_owned() } else { format!("{label} ({times})") }
}

fn transcript(mut command: Command) -> Transcript {
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let lines = said.lines().filter_map(|line| line.split_once(" => "));
    let transcript = lines.map(|(label, came)| (label.to_owned(), came.to_owned())).collect();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}:\n{said}\n{errors}", output.status);
    transcript
}

fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers")
}

/// A file of what `make drivers` installs.
fn installed(file: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".drivers").join(file);
    assert!(path.exists(), "{} is missing: run `make drivers` first", path.display());
    path
}

fn python(program: &str, database: &str, port: u16) -> Transcript {
    let mut command = Command::new(installed("venv/bin/python"));
    command.arg(programs().join(program)).args(where_to(database, port));
    transcript(command)
}

/// What every program is told.
fn where_to(database: &str, port: u16) -> [String; 6] {
    let strict = if database == "direct" { port } else { bench().strict.port };
    ["127.0.0.1", &port.to_string(), database, APP, PASSWORD, &strict.to_string()].map(str::to_owned)
}

#[test]
fn psycopg() {
    bench().compare(&|database, port| python("psycopg_trial.py", database, port));
}

#[test]
fn asyncpg() {
    bench().compare(&|database, port| python("asyncpg_trial.py", database, port));
}

#[test]
fn node_postgres() {
    let node = |database: &str, port: u16| {
        installed("node_modules/pg");
        let mut command = Command::new("node");
        command.arg(programs().join("pg_trial.mjs")).args(where_to(database, port));
        transcript(command)
    };
    bench().compare(&node);
}

/// Programs for clients of other languages, some files of clients' own suites, and the shop by object-relational mappers:
/// the short form of `make compat`.
#[test]
fn other_clients_suites_and_mappers() {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat/run.py");
    let mut command = Command::new("python3");
    command.arg(program).args(["--short", "--pgweir", env!("CARGO_BIN_EXE_pgweir")]);
    let output = command.output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "(`make suites` gets what this needs)\n{said}\n{errors}");
}

/// Their default settings, pools and listeners among them, leave every client free of the connections it used.
#[test]
fn drivers_at_rest_keep_no_connection() {
    let proxy = Proxy::start(&format!("admin_users = [\"{APP}\"]\n{}", configuration(bench().cluster)));
    let mut python = Command::new(installed("venv/bin/python"));
    python.arg(programs().join("at_rest.py"));
    installed("node_modules/pg");
    let mut node = Command::new("node");
    node.arg(programs().join("at_rest.mjs"));
    let ask = |show: &str| {
        let output = support::psql_as(APP, proxy.port, "pgweir", PASSWORD, &["-Atc", show]);
        String::from_utf8(output.stdout).unwrap()
    };
    for (mut program, clients) in [(python, 7), (node, 4)] {
        program.args(&where_to("whole", proxy.port)[..5]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = program.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(running.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let shown = ask("show clients");
        drop(running.stdin.take());
        assert!(running.wait().unwrap().success());
        assert_eq!(said, "at rest\n");
        let of_drivers: Vec<_> = shown.lines().filter(|line| line.contains("|whole|")).collect();
        assert!(of_drivers.len() >= clients, "{shown}");
        assert!(of_drivers.iter().all(|line| line.ends_with('|')), "{shown}");
        assert!(of_drivers.iter().all(|line| line.contains("|idle|")), "{shown}");
    }
}

/// All that psql writes, in order, a line each.
fn psql(arguments: &[&str], database: &str, port: u16) -> Vec<String> {
    let mut file = tempfile::tempfile().unwrap();
    Command::new("psql")
        .args(["-X", "-h", "127.0.0.1", "-U", APP, "-p", &port.to_string(), "-d", database])
        .args(arguments)
        .env("PGPASSWORD", PASSWORD)
        .stdout(file.try_clone().unwrap())
        .stderr(file.try_clone().unwrap())
        .status()
        .unwrap();
    file.rewind().unwrap();
    let said = std::io::read_to_string(file).unwrap();
    // Of a verbose error, the place in the server's source is the server's affair.
    let lines = said.lines().filter(|line| !line.contains("LOCATION:  "));
    lines.map(|line| line.replace(&format!("\"{database}\""), "\"the database\"")).collect()
}

/// The lines of one that the other does not have in their place, by the longest common rest.
fn changed(direct: &[String], proxied: &[String]) -> Vec<String> {
    let mut common = vec![vec![0_usize; proxied.len() + 1]; direct.len() + 1];
    for one in (0..direct.len()).rev() {
        for other in (0..proxied.len()).rev() {
            common[one][other] = if direct[one] == proxied[other] {
                common[one + 1][other + 1] + 1
            } else {
                common[one + 1][other].max(common[one][other + 1])
            };
        }
    }
    let (mut one, mut other, mut changed) = (0, 0, Vec::new());
    while one < direct.len() || other < proxied.len() {
        if one < direct.len() && other < proxied.len() && direct[one] == proxied[other] {
            (one, other) = (one + 1, other + 1);
        } else if other == proxied.len() || (one < direct.len() && common[one + 1][other] >= common[one][other + 1]) {
            changed.push(format!("- {}", direct[one]));
            one += 1;
        } else {
            changed.push(format!("+ {}", proxied[other]));
            other += 1;
        }
    }
    changed
}

#[test]
fn tables_change_under_prepared_statements() {
    let cluster = bench().cluster;
    cluster.sql(0, Role::Primary, &format!("create database changes owner {APP}"));
    cluster.settle();
    let server = |role: Role| {
        let port = cluster.server(0, role).port();
        let role = if role == Role::Primary { "primary" } else { "replica" };
        format!("[[databases]]\nname = \"changes\"\nrole = \"{role}\"\nhost = \"127.0.0.1\"\nport = {port}\n")
    };
    let user = format!("[[users]]\nname = \"{APP}\"\npassword = \"{PASSWORD}\"\n");
    let servers = [server(Role::Primary), server(Role::Replica(1)), user].concat();
    let proxy = Proxy::start(&format!("default_pool_size = 3\n{servers}"));
    let (port, straight) = (proxy.port.to_string(), cluster.primary(0).port().to_string());
    let mut command = Command::new(installed("venv/bin/python"));
    command.arg(programs().join("changes.py")).args(["127.0.0.1", &port, "changes", APP, PASSWORD, &straight]);
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "no error\n", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn psql_scripts() {
    let script = programs().join("psql_trial.sql");
    let run = |database: &str, port| psql(&["-a", "-f", script.to_str().unwrap()], database, port);
    let [direct, whole, shop] = bench().targets().map(|(database, port)| run(database, port));
    assert!(direct.len() > 300, "{direct:#?}");
    assert_eq!(changed(&direct, &whole), [""; 0]);
    assert_eq!(changed(&direct, &shop), [""; 0]);
}

#[test]
fn psql_prepares_by_sql_where_there_is_one_server() {
    let statements = [
        "prepare by_id (bigint) as select handle from users where id = $1",
        "execute by_id(1005)",
        "explain (costs off) execute by_id(1005)",
        "create temp table kept as table users limit 3",
        "select count(*) from kept",
        "deallocate by_id",
        "execute by_id(5)",
    ];
    let arguments: Vec<&str> = statements.iter().flat_map(|statement| ["-c", statement]).collect();
    let [direct, whole, _] = bench().targets();
    assert_eq!(psql(&arguments, direct.0, direct.1), psql(&arguments, whole.0, whole.1));
}

#[test]
fn psql_runs_a_file_as_one_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("one.sql");
    let count = "select count(*) from kinds where id = 6";
    for (script, expected) in [
        (
            "insert into kinds (user_id, id) values (510, 6);\ninsert into kinds (user_id, id) values (1510, 6);\nselec;\n",
            "0",
        ),
        ("insert into kinds (user_id, id) values (510, 6);\ninsert into kinds (user_id, id) values (1510, 6);\n", "2"),
        ("delete from kinds where id = 6;\n", "0"),
    ] {
        std::fs::write(&file, script).unwrap();
        let run = |database: &str, port| {
            let said = psql(&["-1", "-v", "ON_ERROR_STOP=1", "-f", file.to_str().unwrap()], database, port);
            (said, psql(&["-Atc", count], database, port))
        };
        let [direct, whole, shop] = bench().targets().map(|(database, port)| run(database, port));
        assert_eq!(direct.1, [expected]);
        assert_eq!((&direct, &direct), (&whole, &shop));
    }
}

#[test]
fn tokio_postgres() {
    let run = |database: &str, port| wait_for(tokio_postgres_trial::run(login(database, port)));
    bench().compare(&run);
}

#[test]
fn sqlx() {
    let run = |database: &str, port| {
        let port = if database == "direct" { port } else { bench().strict.port };
        wait_for(sqlx_trial::run(login(database, port)))
    };
    bench().compare(&run);
}

fn login(database: &str, port: u16) -> Login {
    let (user, password) = (APP.to_owned(), PASSWORD.to_owned());
    let (host, database) = ("127.0.0.1".to_owned(), database.to_owned());
    let tls_negotiation = TlsNegotiation::Postgres;
    Login { host, port, database, user, password, tls: ServerTls::Disable, tls_ca: None, tls_negotiation }
}

/// Hosts, the password, the port and the split are the cluster's own; all else is as the README has it.
#[test]
fn the_readmes_configuration_serves() {
    let Bench { cluster, .. } = bench();
    let readme = include_str!("../README.md");
    let mut config = readme.split("```toml\n").nth(1).unwrap().split("```").next().unwrap().to_owned();
    let server = |shard, role| format!("host = \"127.0.0.1\"\nport = {}", cluster.server(shard, role).port());
    for (written, meant) in [
        ("port = 6432\n", String::new()),
        ("{ env = \"SHOP_PASSWORD\" }", format!("\"{PASSWORD}\"")),
        ("{ file = \"/etc/pgweir/clerk\" }", format!("\"{PASSWORD}\"")),
        ("1_000_000", "1_001".to_owned()),
        ("office_live", "whole".to_owned()),
        ("\"clerk\"", format!("\"{SUPERUSER}\"")),
        ("host = \"10.0.0.1\"", server(0, Role::Primary)),
        ("host = \"10.0.0.2\"", server(0, Role::Replica(1))),
        ("host = \"10.0.1.1\"", server(1, Role::Primary)),
    ] {
        assert!(config.contains(written), "{written}");
        config = config.replace(written, &meant);
    }
    let proxy = Proxy::start(&config);
    let ask = |user, database, sql| {
        let output = support::psql_as(user, proxy.port, database, PASSWORD, &["-tc", sql]);
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(ask(APP, "shop", "select count(*) from users where id in (3, 1003)").trim(), "2");
    assert_eq!(ask(APP, "shop", "select count(*) from orders").trim(), "100");
    assert_eq!(ask(APP, "shop", "select count(*) from products").trim(), "10");
    assert_eq!(ask(SUPERUSER, "office", "select count(*) from users").trim(), "40");
    for (user, database) in [(APP, "office"), (SUPERUSER, "shop")] {
        assert!(ask(user, database, "select 1").contains("password authentication failed"), "{user} {database}");
    }
}
