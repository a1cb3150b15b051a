//! What a configuration may be, what is refused and in which words; `check`, `serve` and reloads say the same.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use pgweir::config::{Config, ConfigError};
use pgweir::topology::Topology;
use support::{APP, Cluster, PASSWORD, Proxy, Role, until};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// A file that is refused: the offending text stands between « and ».
struct Refused<'t> {
    name: &'t str,
    text: String,
    /// Line and column from 1, and the text.
    marked: Option<(usize, usize, &'t str)>,
    message: &'t str,
    help: Option<&'t str>,
}

impl<'t> Refused<'t> {
    /// `= name`, the file, `> message`, `? help`; files end with a line of dashes.
    fn read_all(text: &'t str) -> Vec<Self> {
        let cases = text.split("\n----\n").filter(|case| !case.trim().is_empty());
        cases.map(Self::read).collect()
    }

    fn read(case: &'t str) -> Self {
        let line = |prefix: &str| case.lines().find_map(|line| line.strip_prefix(prefix));
        let lines = case.lines().filter(|line| !["= ", "> ", "? ", "# "].iter().any(|mark| line.starts_with(mark)));
        let lines: Vec<&str> = lines.collect();
        let marked = lines.iter().enumerate().find_map(|(number, line)| {
            let (before, rest) = line.split_once('«')?;
            Some((number + 1, before.chars().count() + 1, rest.split_once('»').unwrap().0))
        });
        Self {
            name: line("= ").unwrap_or_else(|| panic!("{case}")),
            text: lines.join("\n").replace(['«', '»'], ""),
            marked,
            message: line("> ").unwrap(),
            help: line("? "),
        }
    }
}

fn read(text: &str) -> Result<Topology, ConfigError> {
    Config::parse(Path::new("shop.toml"), text).and_then(|config| Topology::new(&config, 1))
}

#[test]
fn each_refusal_names_place_fault_and_remedy() {
    let cases = Refused::read_all(include_str!("config/refused.txt"));
    assert!(cases.len() > 90, "only {} cases", cases.len());
    let mut failures = Vec::new();
    for case in cases {
        let Err(error) = read(&case.text) else {
            failures.push(format!("{}: accepted", case.name));
            continue;
        };
        let (line, rendered) = (error.to_string(), error.render());
        // What follows from the first fault is only counted.
        let line = line.split_once(" (and ").map_or(line.as_str(), |(first, _)| first);
        let place = case.marked.map(|(row, column, _)| format!(":{row}:{column}")).unwrap_or_default();
        let help = case.help.map(|help| format!(" ({help})")).unwrap_or_default();
        let expected = format!("shop.toml{place}: {}{help}", case.message);
        if line != expected {
            failures.push(format!("{}\n  expected {expected}\n  found    {line}", case.name));
        }
        if let Some((row, column, text)) = case.marked
            && underlined(&rendered) != Some((row, column, text.to_owned()))
        {
            failures.push(format!("{}: {text} is not underlined\n{rendered}", case.name));
        }
        if !rendered.contains(&format!("shop.toml{place}")) {
            failures.push(format!("{}: no place\n{rendered}", case.name));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Line, column and text that stand above the first line of dashes: ` 3 │ port = 0` and ` ·        ┬`.
fn underlined(rendered: &str) -> Option<(usize, usize, String)> {
    let mut row = None;
    for line in rendered.lines() {
        if let Some((number, source)) = line.split_once(" │ ") {
            row = number.trim().parse::<usize>().ok().map(|number| (number, source.to_owned()));
        } else if let (Some((number, source)), Some((_, marks))) = (&row, line.split_once(" · ")) {
            let is_mark = |letter: &char| matches!(letter, '─' | '┬' | '▲');
            let start = marks.chars().position(|letter| is_mark(&letter))?;
            let length = marks.chars().skip(start).take_while(is_mark).count();
            return Some((*number, start + 1, source.chars().skip(start).take(length).collect()));
        }
    }
    None
}

#[test]
fn several_faults_are_told_at_once() {
    let text = "[general]\nprot = 1\nhots = 2\n";
    let rendered = read(text).unwrap_err().render();
    assert!(rendered.contains("unknown key \"general.prot\"") && rendered.contains("unknown key \"general.hots\""));
    let text = "[[databases]]\nname = \"shop\"\nhost = \"\"\nport = 0\n";
    let rendered = read(text).unwrap_err().render();
    assert!(rendered.contains("port cannot be 0") && rendered.contains("no [[users]]"), "{rendered}");
}

#[test]
fn no_message_shows_a_secret() {
    const SECRET: &str = "hunter2-very-secret";
    let good = format!(
        "[[databases]]\nname = \"shop\"\nhost = \"h\"\n[[users]]\nname = \"app\"\npassword = \"{SECRET}\"\n\
         server_password = \"{SECRET}\"\n[control]\nuser = \"c\"\npassword = '''{SECRET}'''\n"
    );
    let config = Config::parse(Path::new("shop.toml"), &good).unwrap();
    let topology = Topology::new(&config, 1).unwrap();
    let mut told = vec![format!("{config:?}"), format!("{topology:?}")];
    for bad in [
        good.replace("[control]", "port = 1\n[control]"),
        good.replace("password =", "passwort ="),
        good.replace("password =", "password = 5 #"),
        good.replace("server_password = ", "server_password = ["),
        good.replace("password = \"", "password = { text = \"").replace("\"\n", "\" }\n"),
        good.replace("password = \"", "password = { file = \"no such file\", x = \"").replace("\"\n", "\" }\n"),
        good.replace("'''", "\"\"\""),
        good.replace("[[users]]", "[[users]"),
        good.replace("host = \"h\"", "host = 5"),
        good.replace("name = \"app\"", "name = \"app"),
    ] {
        if let Err(error) = read(&bad) {
            told.extend([error.to_string(), error.render(), format!("{error:?}")]);
        }
    }
    assert!(told.len() > 20, "{}", told.len());
    for text in told {
        assert!(!text.contains(SECRET), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn secrets_come_from_where_they_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("secret"), "from a file\n").unwrap();
    let password = |entry: &str| {
        let text =
            format!("[[databases]]\nname = \"shop\"\nhost = \"h\"\n[[users]]\nname = \"app\"\npassword = {entry}\n");
        let config = Config::parse(&folder.path().join("shop.toml"), &text)?;
        Ok::<_, ConfigError>(config.users[0].password.as_ref().unwrap().value().0.clone())
    };
    assert_eq!(password("\"plain\"").unwrap(), "plain");
    assert_eq!(password("{ file = \"secret\" }").unwrap(), "from a file");
    // Set for every process that cargo starts.
    assert_eq!(password("{ env = \"CARGO_PKG_NAME\" }").unwrap(), "pgweir");
}

/// The design's example: keys of later versions are refused by name, the rest is accepted.
#[test]
fn keys_of_later_versions_are_refused_by_name() {
    let text = include_str!("config/design.toml");
    let error = Config::parse(Path::new("shop.toml"), text).unwrap_err();
    let rendered = error.render();
    for key in LATER {
        assert!(rendered.contains(&format!("\"{key}\" is not in this version")), "{key}:\n{rendered}");
    }
    assert_eq!(error.problems().len(), LATER.len(), "{rendered}");
    let is_later = |header: &str| LATER.contains(&header.trim_matches(['[', ']']));
    let mut rest = String::new();
    let mut skipping = false;
    for line in text.lines() {
        let header = line.split_whitespace().next().unwrap_or_default();
        if header.starts_with('[') {
            skipping = is_later(header);
        }
        if !skipping && !LATER.iter().any(|key| key.split_once('.').is_some_and(|(_, key)| header == key)) {
            rest.extend([line, "\n"]);
        }
    }
    // What the example leaves to the reader: the second shard's server, files and the password.
    rest.push_str("[[databases]]\nname = \"shop\"\nshard = 1\nhost = \"10.0.0.2\"\n");
    let folder = tempfile::tempdir().unwrap();
    ["server.crt", "server.key"].iter().for_each(|file| fs::write(folder.path().join(file), "").unwrap());
    let rest = rest.replace("SHOP_PASSWORD", "CARGO_PKG_NAME");
    let config = Config::parse(&folder.path().join("shop.toml"), &rest).unwrap();
    let topology = Topology::new(&config, 1).unwrap();
    assert_eq!(topology.database("shop").unwrap().shards.len(), 2);
}

const LATER: &[&str] = &["databases.zone", "outlier", "circuit_breaker", "limits", "mirroring"];

/// `config/pgweir.toml` lists every key that is known, and none that is not.
#[test]
fn the_reference_names_every_key() {
    let text = fs::read_to_string("config/pgweir.toml").unwrap();
    let sections = [
        "general",
        "general.tls",
        "control",
        "databases",
        "users",
        "hba",
        "ident",
        "sharded_tables",
        "sharded_tables.mapping",
        "reference_tables",
        "cache",
        "cache.rules",
    ];
    for section in sections {
        let known = known_keys(section);
        let mut named = BTreeSet::new();
        let mut inside = false;
        for line in text.lines() {
            if let Some(header) = line.trim_start_matches("# ").strip_prefix('[') {
                inside = header.trim_start_matches('[').split(']').next() == Some(section);
                continue;
            }
            let bare = line.trim_start_matches("# ");
            let key = bare.split_once(" = ").map(|(key, _)| key).filter(|key| key.chars().all(is_letter_of_key));
            named.extend(key.filter(|_| inside).map(str::to_owned));
            // "pool_size, pooler_mode, consistency: as in [general]", "values = [1, 2], or modulus = 4 with …"
            if let Some((_, comment)) = line.split_once("# ").filter(|_| inside) {
                let words = comment.split(|letter: char| !is_letter_of_key(letter));
                named.extend(words.filter(|word| known.contains(*word)).map(str::to_owned));
            }
        }
        // A subsection is known as a key, too.
        let is_section = |key: &&String| sections.contains(&format!("{section}.{key}").as_str());
        let known: BTreeSet<String> = known.iter().filter(|key| !is_section(key)).cloned().collect();
        let tells_lists = section == "sharded_tables.mapping";
        let named = named.into_iter().filter(|key| known.contains(key) || !tells_lists);
        assert_eq!(named.collect::<BTreeSet<_>>(), known, "[{section}]");
    }
}

fn is_letter_of_key(letter: char) -> bool {
    letter.is_ascii_lowercase() || letter == '_'
}

/// What the refusal of a key that cannot be meant lists.
fn known_keys(section: &str) -> BTreeSet<String> {
    let text = match section {
        "general" | "general.tls" | "control" | "cache" => {
            format!("[{section}]\nqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq = 1\n")
        }
        "sharded_tables.mapping" | "cache.rules" => {
            let parent = section.split('.').next().unwrap();
            let parent = if parent == "cache" { "[cache]".to_owned() } else { format!("[[{parent}]]") };
            format!("{parent}\n[[{section}]]\nqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq = 1\n")
        }
        _ => format!("[[{section}]]\nqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq = 1\n"),
    };
    let rendered = read(&text).unwrap_err().to_string();
    let (_, list) = rendered.split_once("Known here: ").unwrap_or_else(|| panic!("{rendered}"));
    let list = list.split_once(".)").unwrap().0;
    list.split(", ").map(str::to_owned).collect()
}

/// The values that the reference shows for `[general]` are the defaults it says they are.
#[test]
fn the_reference_tells_the_defaults() {
    let text = fs::read_to_string("config/pgweir.toml").unwrap();
    let reference = Config::parse(Path::new("config/pgweir.toml"), &text).unwrap();
    let defaults = pgweir::config::General::default();
    let mut shown = reference.general.clone();
    assert_eq!(shown.admin_http.as_deref(), Some("127.0.0.1:9090"), "an example: the default is not to serve it");
    assert_eq!(shown.admin_users, ["app"], "an example: the default is nobody");
    shown.admin_http.clone_from(&defaults.admin_http);
    shown.admin_users.clone_from(&defaults.admin_users);
    shown.tls.clone_from(&defaults.tls);
    assert_eq!(shown, defaults);
    Topology::new(&reference, 1).unwrap();
}

/// The README's rules are rules.
#[test]
fn the_readmes_rules_are_taken() {
    let readme = fs::read_to_string("README.md").unwrap();
    let rules = readme.split("```").find_map(|part| part.strip_prefix("toml\n[[hba]]")).unwrap();
    let file = "Cargo.toml";
    let text = format!(
        "[general]\nunix_socket_dir = '/tmp'\n[general.tls]\nmode = 'prefer'\ncertificate = '{file}'\n\
         private_key = '{file}'\nclient_ca = '{file}'\n[control]\nuser = 'pgweir'\npassword = 'x'\n\
         [[databases]]\nname = 'shop'\nhost = 'h'\n[[users]]\nname = '*'\nauth = 'query'\n[[hba]]{rules}"
    );
    read(&text).unwrap();
}

fn run(arguments: &[&str], file: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pgweir")).args(arguments).arg(file).output().unwrap()
}

#[test]
fn check_and_serve_refuse_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pgweir.toml");
    let good = "[[databases]]\nname = \"shop\"\nhost = \"127.0.0.1\"\n[[users]]\nname = \"app\"\npassword = \"x\"\n";
    fs::write(&file, good).unwrap();
    let output = run(&["check", "--config"], &file);
    assert_eq!(
        (output.status.code(), String::from_utf8_lossy(&output.stdout).trim().ends_with(": ok")),
        (Some(0), true)
    );
    fs::write(&file, good.replace("host", "hots")).unwrap();
    let (check, serve) = (run(&["check", "-c"], &file), run(&["serve", "-c"], &file));
    assert_eq!((check.status.code(), serve.status.code()), (Some(1), Some(1)));
    assert_eq!(check.stderr, serve.stderr);
    let told = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(told.contains("unknown key \"databases.hots\"") && told.contains("Did you mean \"host\"?"), "{told}");
    assert!(told.contains("pgweir.toml:3:1"), "{told}");
    let missing = run(&["check", "-c"], &folder.path().join("none.toml"));
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("none.toml: cannot be read"));
    let usage = Command::new(env!("CARGO_BIN_EXE_pgweir")).arg("check").output().unwrap();
    assert_eq!(usage.status.code(), Some(2), "the file is not named");
}

/// As the README has it: only the file is needed.
#[test]
fn route_says_where_a_statement_goes_without_any_server() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.toml");
    let text = include_str!("config/design.toml");
    let tables = &text[text.find("[[sharded_tables]]").unwrap()..text.find("[cache]").unwrap()];
    let servers =
        "[[databases]]\nname = \"shop\"\nhost = \"a\"\n[[databases]]\nname = \"shop\"\nhost = \"b\"\nshard = 1\n";
    fs::write(&file, format!("{servers}[[users]]\nname = \"app\"\npassword = \"x\"\n{tables}")).unwrap();
    let route = |sql: &str| {
        let command =
            Command::new(env!("CARGO_BIN_EXE_pgweir")).args(["route", "-c"]).arg(&file).arg(sql).output().unwrap();
        assert_eq!(command.status.code(), Some(0), "{sql}: {}", String::from_utf8_lossy(&command.stderr));
        String::from_utf8(command.stdout).unwrap()
    };
    let told = route("SELECT * FROM orders WHERE user_id = 1000007");
    for line in [
        "kind       query: a read",
        "table      orders (sharded by user_id)",
        "key        orders: user_id = 1000007: shards 1",
        "route      one shard (1)",
        "server     replica, else primary",
        "assumed    orders is a table with column user_id",
    ] {
        assert!(told.contains(line), "{line}:\n{told}");
    }
    let told = route("select count(*) from orders");
    assert!(
        told.contains("route      scatter over shards (0, 1)") && told.contains("merge      combine (count)"),
        "{told}"
    );
    assert!(route("update products set price = 1").contains("write on shards (0, 1), all or none"));
    assert!(route("select nextval('s')").contains("function nextval may write"));
    assert!(route("call settle_all()").contains("refused"));
}

fn cluster() -> &'static Cluster {
    Cluster::shared()
}

async fn client(port: u16, database: &str) -> Client {
    let login = format!("host=127.0.0.1 port={port} user={APP} password='{PASSWORD}' dbname={database}");
    let (client, connection) = tokio_postgres::connect(&login, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn value(client: &Client, sql: &str) -> String {
    let messages = client.simple_query(sql).await.unwrap_or_else(|cause| panic!("{sql}: {cause:?}"));
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
        _ => None,
    });
    row.unwrap_or_default()
}

/// Rows of SHOW, a map of its columns each.
async fn shown(console: &Client, what: &str, column: &str) -> Vec<String> {
    let messages = console.simple_query(&format!("show {what}")).await.unwrap();
    let of = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(column).unwrap_or_default().to_owned()),
        _ => None,
    };
    messages.iter().filter_map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_reload_changes_nothing_and_says_why() {
    let proxy = tokio::task::spawn_blocking(|| Proxy::start(&cluster().toml())).await.unwrap();
    let console = client(proxy.port, "pgweir").await;
    let good = fs::read_to_string(&proxy.config).unwrap();
    let ranges = shown(&console, "ranges", "shard").await;
    for (bad, why) in [
        (good.replace("shard = 1", "shrad = 1"), "unknown key"),
        (good.replace("end = 1001", "end = 1000"), "hole"),
        ("not toml".to_owned(), "pgweir.toml:1:"),
    ] {
        fs::write(&proxy.config, &bad).unwrap();
        let cause = console.simple_query("reload").await.unwrap_err();
        let error = cause.as_db_error().unwrap();
        assert!(error.message().contains(why), "{why}: {}", error.message());
        proxy.signal(nix::sys::signal::Signal::SIGHUP);
        assert_eq!(shown(&console, "ranges", "shard").await, ranges);
        assert_eq!(value(&client(proxy.port, "shop").await, "select 1").await, "1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_reload_swaps_drains_and_cuts_no_transaction() {
    let config = cluster().toml().replace("database = \"shop\"\npassword", "database = \"*\"\npassword");
    let proxy = tokio::task::spawn_blocking(move || Proxy::start(&config)).await.unwrap();
    let good = fs::read_to_string(&proxy.config).unwrap();
    let console = client(proxy.port, "pgweir").await;
    let inside = client(proxy.port, "shop").await;
    inside.batch_execute("begin").await.unwrap();
    let pid = value(&inside, "select pid from pg_stat_activity where pid = pg_backend_pid()").await;
    // The user's pool size changes: its pools go, a second database comes.
    let mut next = good.replace("database = \"*\"\npassword", "database = \"*\"\npool_size = 3\npassword");
    let primary = cluster().primary(0).port();
    next.push_str(&format!(
        "\n[[databases]]\nname = \"other\"\nhost = \"127.0.0.1\"\nport = {primary}\ndatabase_name = \"shop\"\n"
    ));
    assert_ne!(next, good);
    fs::write(&proxy.config, &next).unwrap();
    console.simple_query("reload").await.unwrap();
    assert_eq!(value(&client(proxy.port, "other").await, "select 1").await, "1");
    assert_eq!(
        value(&inside, "select pid from pg_stat_activity where pid = pg_backend_pid()").await,
        pid,
        "the transaction goes on where it was"
    );
    inside.batch_execute("commit").await.unwrap();
    assert_eq!(value(&inside, "select 1").await, "1");
    let gone = format!("select count(*) from pg_stat_activity where pid = {pid}");
    until(|| cluster().sql(0, Role::Primary, &gone) == "0");
    // By signal, too; and a database that goes is gone for those who come.
    fs::write(&proxy.config, &good).unwrap();
    proxy.signal(nix::sys::signal::Signal::SIGHUP);
    let login = format!("host=127.0.0.1 port={} user={APP} password='{PASSWORD}' dbname=other", proxy.port);
    loop {
        if let Err(cause) = tokio_postgres::connect(&login, NoTls).await {
            assert_eq!(cause.code().map(|code| code.code()), Some("3D000"), "{cause:?}");
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn min_pool_size_fills_pools_before_anybody_comes() {
    let config =
        cluster().toml().replace("database = \"shop\"\npassword", "database = \"shop\"\nmin_pool_size = 2\npassword");
    assert_ne!(config, cluster().toml());
    let config = format!("server_idle_timeout = \"1ms\"\n{config}");
    let proxy = tokio::task::spawn_blocking(move || Proxy::start(&config)).await.unwrap();
    let console = client(proxy.port, "pgweir").await;
    // Two on each server, of one user in one database.
    let wanted = (2 * cluster().servers().count()).to_string();
    let filled = async {
        while !shown(&console, "pools", "sv_idle").await.contains(&wanted) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), filled).await.unwrap();
    // They are good for clients of every worker.
    let one = client(proxy.port, "shop").await;
    assert_eq!(value(&one, "select 1").await, "1");
}
