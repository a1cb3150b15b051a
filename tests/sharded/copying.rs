//! COPY over shards, beside one PostgreSQL that takes the same bytes.

use std::fmt::Write;

use super::shop;
use crate::raw::{self, Raw, copy_data, copy_done, copy_fail, field, message};
use crate::support::{PASSWORD, Role, SUPERUSER};

/// A table on both shards, and the same one in a database that has all rows.
struct Pair {
    sharded: Raw,
    whole: Raw,
}

/// What came of a COPY: its tag, or error and place.
#[derive(Debug, PartialEq)]
struct Came {
    outcome: String,
    kinds: String,
    data: Vec<u8>,
}

impl Pair {
    fn new(table: &str, columns: &str) -> Self {
        let cluster = shop().1;
        let made = format!("create table {table}({columns}); grant all on {table} to public");
        cluster.sql_everywhere(&made);
        let database = format!("whole_{table}");
        cluster.sql(0, Role::Primary, &format!("create database {database}"));
        let log_in = |port, database: &str| Raw::log_in(port, &[("user", SUPERUSER), ("database", database)], PASSWORD);
        let mut pair = Self { sharded: client(), whole: log_in(cluster.primary(0).port(), &database) };
        pair.whole.rows(&made);
        // Its columns are known when a key can be looked for.
        crate::support::until(|| {
            pair.sharded
                .rows(&format!("explain route copy {table} to stdout"))
                .iter()
                .any(|row| row.contains("copy from"))
        });
        pair
    }

    /// The same on both; then both have the same rows.
    #[track_caller]
    fn check(&mut self, sql: &str, data: &[&[u8]]) -> String {
        let expected = run(&mut self.whole, sql, data);
        let found = run(&mut self.sharded, sql, data);
        assert_eq!(
            found,
            expected,
            "{sql}: {:?}",
            data.iter().map(|part| String::from_utf8_lossy(part)).collect::<Vec<_>>()
        );
        found.outcome
    }

    fn truncate(&mut self, table: &str) {
        self.whole.rows(&format!("truncate {table}"));
        self.sharded.rows(&format!("truncate {table}"));
    }

    #[track_caller]
    fn compare(&mut self, query: &str) {
        let (expected, found) = (self.whole.rows(query), self.sharded.rows(query));
        assert_eq!(found, expected, "{query}");
    }
}

fn client() -> Raw {
    let user = [("user", crate::support::APP), ("database", "shop")];
    Raw::log_in(shop().0.port, &user, PASSWORD)
}

/// By the simple protocol, each part in a message of its own.
fn run(raw: &mut Raw, sql: &str, data: &[&[u8]]) -> Came {
    let mut messages = raw::query(sql);
    data.iter().for_each(|part| messages.extend(message(b'd', &[part])));
    messages.extend(copy_done());
    raw.send(&messages);
    hear(raw)
}

/// Everything up to ReadyForQuery.
fn hear(raw: &mut Raw) -> Came {
    let mut came = Came { outcome: String::new(), kinds: String::new(), data: Vec::new() };
    while let Some((kind, body)) = raw.frame() {
        if !(kind == b'd' && came.kinds.ends_with('d')) {
            came.kinds.push(char::from(kind));
        }
        match kind {
            b'C' => came.outcome.push_str(String::from_utf8_lossy(&body).trim_end_matches('\0')),
            b'E' => {
                let told = |code| field(&body, code);
                write!(came.outcome, "{} {} | {}", told('C'), told('M'), told('W')).unwrap();
            }
            b'd' => came.data.extend(body),
            b'Z' => {
                came.kinds.push(char::from(body[0]));
                break;
            }
            _ => {}
        }
    }
    came
}

#[test]
fn every_format_is_split_as_it_is_read() {
    let mut pair = Pair::new("copied", "user_id bigint primary key, name text, score numeric check (score > -1)");
    let all = "select * from copied order by user_id";
    for (columns, options, data) in [
        ("", "", &[&b"1\ta\t1.5\n1001\tb\t\\N\n2\tc\\td\\\\\t2\n"[..], b"1002\t\\N\t3\n"][..]),
        ("", "", &[b"1\ta", b"\t1.5\n10", b"01\tb\\", b"\nb\t\\N", b"\n"]),
        ("", "", &[b"1001\tend without a newline\t1"]),
        ("", "", &[b"1\ta\t1\r\n1001\tb\t2\r\n"]),
        ("", "", &[b"1\ta\t1\n1001\tb\t2\n\\.\n7\tnothing\t1\n"]),
        ("", "", &[b"\\x31\ta\t1\n\\061001\tb\t1\n"]),
        ("", "", &[b" 3 \ta\t1\n+1003\tb\t1\n"]),
        ("", "with (delimiter '|', null 'nil', header)", &[b"some|header|line\n1|nil|2\n1001|a\\|b|nil\n"]),
        ("", "delimiter E'\\t' null as ''", &[b"1\t\t\n1001\tx\t\n"]),
        ("", "csv", &[b"1,\"a,\"\"b\"\"\",1\n1001,,\n2,\"two\nlines\",2\n1002,\"\",1\n"]),
        ("", "csv", &[b"\"1\",x,\n\"1\"001,y,\n"]),
        ("", "(format csv, header match)", &[b"user_id,name,score\n1,a,1\n1001,b,2\n"]),
        (
            "",
            "(format csv, header, quote '''', escape '\\', delimiter ';', force_null (name), force_not_null (score))",
            &[b"user_id;name;score\n1;'';1\n1001;'a\\'b\n;c';2\n"],
        ),
        ("(name, user_id)", "", &[b"a\t1\nb\t1001\n"]),
        ("(score, user_id)", "csv force null user_id", &[b"1,1\n2,1001\n"]),
        ("", "where name <> 'b'", &[b"1\ta\t1\n2\tb\t2\n1001\tb\t2\n1002\tc\t1\n"]),
        ("", "(encoding 'LATIN1')", &[b"1\t\xe9\t1\n1001\t\xfc\t1\n"]),
        ("", "", &[]),
        ("", "csv header", &[b"nothing,but,header\n"]),
    ] {
        let outcome = pair.check(&format!("copy copied {columns} from stdin {options}"), data);
        assert!(outcome.starts_with("COPY "), "{options}: {outcome}");
        pair.compare(all);
        pair.truncate("copied");
    }
}

#[test]
fn what_a_server_refuses_leaves_nothing_anywhere() {
    let mut pair =
        Pair::new("refused", "user_id bigint primary key, name varchar(5) check (name <> 'bad'), score numeric");
    for (options, data) in [
        ("", &b"1\ta\t1\n1001\tb\t1\nx\tc\t1\n2\td\t1\n"[..]),
        ("", b"1\ta\t1\n1001\tb\t1\n1002\n2\td\t1\n"),
        ("", b"1\ta\t1\n1001\tb\t1\n2\tbad\t1\n1003\ta\t1\n"),
        ("", b"1\ta\t1\n1001\tb\t1\n1002\tc\td\te\n2\td\t1\n"),
        ("", b"1\ta\t1\n1001\tb\t1\n1001\tb\t1\n"),
        ("", b"1\ta\t1\n\n2\tb\t1\n"),
        ("", b"1\ta\t1\n1001\tb\t1\r\n2\tb\t1\n"),
        ("", b"1\ta\t1\n1001\tmuch too long\t1\n"),
        ("", b"1\ta\t1\n99999999999999999999\tb\t1\n"),
        ("csv", b"1,a,1\n2,\"multi\nb\",1\n1001,\"open,1\n"),
        ("csv", b"1,a,1\n2,b,1\n1001,toolong,1\n"),
        ("(format binary)", b"PGCOPX\n\xff\r\n\0\0\0\0\0\0\0\0\0"),
        ("(format csv, delimiter 'ab')", b"1,a,1\n"),
        ("(format csv, header match)", b"user_id,title,score\n1,a,1\n"),
        ("(nosuch 1)", b"1\ta\t1\n"),
        ("where nosuch = 1", b"1\ta\t1\n"),
    ] {
        let sql = format!("copy refused from stdin {options}");
        let expected = run(&mut pair.whole, &sql, &[data]);
        let found = run(&mut pair.sharded, &sql, &[data]);
        if options == "(nosuch 1)" {
            assert!(found.outcome.starts_with("0A000"), "{found:?}");
        } else {
            assert_eq!(found, expected, "{sql}: {}", String::from_utf8_lossy(data));
        }
        assert_eq!(pair.sharded.value("select count(*) from refused"), "0", "{sql}");
        assert_eq!(pair.sharded.value("select 1"), "1", "the session goes on");
    }
}

#[test]
fn a_key_that_belongs_nowhere_is_refused_by_its_line() {
    let mut pair = Pair::new("placed", "user_id bigint, name text");
    for (options, data, context) in [
        ("", &b"1\ta\n1001\tb\n-5\tc\n"[..], "COPY placed, line 3, column user_id: \"-5\""),
        ("", b"1\ta\n\\N\tb\n", "COPY placed, line 2, column user_id: null input"),
        ("csv header", b"h,h\n1,\"a\nb\"\n,c\n", "COPY placed, line 4, column user_id: null input"),
    ] {
        let came = run(&mut pair.sharded, &format!("copy placed from stdin {options}"), &[data]);
        assert!(came.outcome.starts_with("22023 "), "{came:?}");
        assert!(came.outcome.ends_with(context), "{came:?}");
        assert_eq!(pair.sharded.value("select count(*) from placed"), "0");
    }
    for (sql, hint) in [
        ("copy placed (name) from stdin", "without its shard key"),
        ("copy placed from '/tmp/nosuch'", "file or program"),
        ("copy placed from program 'true'", "file or program"),
        ("copy placed to '/tmp/nosuch'", "file or program"),
        ("copy placed from stdin (encoding 'SJIS')", "embeds ASCII"),
    ] {
        let reply = pair.sharded.query(sql);
        assert_eq!(reply.sqlstate(), "0A000", "{sql}: {reply:?}");
        assert!(reply.error.unwrap().1.contains(hint), "{sql}");
    }
}

#[test]
fn rows_come_out_as_they_went_in() {
    let mut pair = Pair::new("given", "user_id bigint primary key, name text, score numeric");
    let data = b"1\ta\t1.50\n1001\tb\\tc\t\\N\n1002\t\\N\t3\n";
    pair.check("copy given from stdin", &[data]);
    for (out, back) in [
        ("", ""),
        ("csv header", "csv header"),
        ("(format csv, force_quote *)", "csv"),
        ("(header)", "(header match)"),
        ("(format binary)", "(format binary)"),
        ("(delimiter ',')", "(delimiter ',')"),
    ] {
        let sql = format!("copy given to stdout {out}");
        let (expected, found) = (copied(&mut pair.whole, &sql), copied(&mut pair.sharded, &sql));
        assert_eq!(found, expected, "{sql}");
        pair.truncate("given");
        assert_eq!(pair.check(&format!("copy given from stdin {back}"), &[&found.data]), "COPY 3");
    }
    pair.compare("select * from given order by user_id");
}

#[test]
fn queries_are_copied_as_one_server_copies_them() {
    let columns = "user_id bigint primary key, name text collate \"C\", score numeric, \"Odd \"\"x\" text";
    let mut pair = Pair::new("told", columns);
    let odd = r#"insert into told values (1, E'a\tb\\c\n', 1.50, '"'), (2, E'\r\b\f\v\x01', null, ''), (3, '\.', 2, null),
        (4, '', -1, ','), (5, null, 3, E'x"y'';'), (1001, E'\\N', 'NaN', '\'), (1002, 'plain', 1e9, 'xax'),
        (1003, 'ä€', 0.00, E'\\"'), (1004, 'NULL', 7, 'x')"#;
    pair.whole.rows(odd);
    pair.sharded.rows(odd);
    let queries = [
        "select name, score from told order by user_id",
        "select name from told order by name nulls first",
        "select * from told order by score desc, user_id limit 5 offset 1",
        "select \"Odd \"\"x\", user_id from told order by user_id -- the last",
        "select count(*) as n, sum(score), max(name), avg(user_id) from told where score <> 'NaN'",
        "select user_id > 1000 as far, count(*) from told group by 1 order by 1",
        "select distinct length(name) from told order by 1",
        "select name from told where user_id in (4, 1004) order by user_id",
        "select user_id, row_number() over (order by user_id desc) from told order by 1",
        "select name from told where false",
        "select 1 / (user_id - 3) from told order by user_id",
        "select nosuch from told",
    ];
    let formats = [
        "",
        "csv",
        "csv header",
        "(format csv, force_quote *, header)",
        "(format csv, force_quote (name))",
        "csv delimiter 'x' null 'NULL' quote '''' escape '\\'",
        "(format csv, delimiter '|', null '\\N', quote 'a')",
        "(delimiter 'X', null 'plain')",
        "delimiter ','",
        "(format binary)",
        "(header)",
        "(encoding 'LATIN9')",
        "(delimiter 'x')",
        "(delimiter '||')",
        "(format csv, force_not_null (name))",
        "(format csv, quote ',')",
        "(format json5)",
    ];
    for query in queries {
        for format in formats {
            let sql = format!("copy ({query}\n) to stdout {format}");
            let (expected, found) = (copied(&mut pair.whole, &sql), copied(&mut pair.sharded, &sql));
            // What stands before an error is no answer.
            let is_error = !expected.outcome.starts_with("COPY");
            let told = |came: Came| if is_error { came.outcome } else { format!("{came:?}") };
            assert_eq!(told(found), told(expected), "{sql}");
        }
    }
    let route = pair.sharded.rows(&format!("explain route copy ({}) to stdout", queries[0]));
    assert!(route.iter().any(|row| row.contains("merge")), "{route:?}: merged as it comes");
}

fn copied(raw: &mut Raw, sql: &str) -> Came {
    raw.send(&raw::query(sql));
    hear(raw)
}

#[test]
fn a_copy_in_a_block_ends_with_it() {
    let mut pair = Pair::new("blocked", "user_id bigint primary key, name text");
    let data: &[&[u8]] = &[b"1\ta\n1001\tb\n"];
    let count = "select count(*), min(user_id) from blocked";
    for (before, end, left) in [("", "rollback", "0|"), ("insert into blocked values (5, 'x')", "commit", "3|1")] {
        pair.sharded.rows("begin");
        pair.sharded.rows(before);
        pair.sharded.rows("savepoint s");
        let came = run(&mut pair.sharded, "copy blocked from stdin", data);
        assert_eq!((came.outcome.as_str(), came.kinds.as_str()), ("COPY 2", "GCZT"));
        // What fails within the block fails it, and a savepoint brings it back.
        pair.sharded.rows("savepoint t");
        let came = run(&mut pair.sharded, "copy blocked from stdin", &[b"2\ta\n1001\tb\n3\tc\n"]);
        assert!(came.outcome.starts_with("23505 ") && came.outcome.ends_with("COPY blocked, line 2"), "{came:?}");
        assert_eq!(pair.sharded.refusal("select 1"), "25P02");
        pair.sharded.rows("rollback to savepoint t");
        let came = run(&mut pair.sharded, "copy blocked from stdin", &[b"2\ta\n5001\tb\n-1\tc\n"]);
        assert!(came.outcome.starts_with("22023 ") && came.kinds.ends_with("ZE"), "{came:?}");
        pair.sharded.rows("rollback to savepoint t");
        let came = copied(&mut pair.sharded, "copy blocked to stdout");
        assert!(came.data.ends_with(b"1\ta\n1001\tb\n"), "{came:?}");
        pair.sharded.rows(end);
        assert_eq!(pair.sharded.value(count), left);
    }
}

#[test]
fn a_client_may_end_its_copy_in_any_way() {
    let mut pair = Pair::new("ended", "user_id bigint primary key, name text");
    let sql = "copy ended from stdin";
    let rows = copy_data("1\ta\n1001\tb\n2\tc");
    // It gives up.
    for raw in [&mut pair.whole, &mut pair.sharded] {
        raw.send(&[raw::query(sql), rows.clone(), raw::sync(), raw::flush(), copy_fail("no more")].concat());
        let came = hear(raw);
        assert_eq!(came.outcome, "57014 COPY from stdin failed: no more | COPY ended, line 3", "{came:?}");
        assert_eq!(raw.value("select count(*) from ended"), "0");
    }
    // It goes away, also in the middle of a message.
    for cut in [rows.len(), rows.len() - 3, 7] {
        let mut other = client();
        other.send(&[&raw::query(sql)[..], &rows[..cut]].concat());
        assert_eq!(other.frame().unwrap().0, b'G');
        other.reset();
    }
    crate::support::until(|| {
        let left = "select count(*) from pg_stat_activity where query like 'copy ended%' and state <> 'idle'";
        shop().1.sql_everywhere(left) == ["0", "0"]
    });
    assert_eq!(pair.sharded.value("select count(*) from ended"), "0");
    // It sends on behind an error, which it is told at once.
    pair.sharded.send(&[raw::query(sql), copy_data("-1\tx\n"), rows.clone()].concat());
    let came = hear(&mut pair.sharded);
    assert!(came.outcome.starts_with("22023 "), "{came:?}");
    pair.sharded.send(&[rows.clone(), rows, copy_done()].concat());
    assert_eq!(pair.sharded.value("select count(*) from ended"), "0");
    // It says something else.
    let mut other = client();
    other.send(&[raw::query(sql), copy_data("1\tx\n"), raw::query("select 1")].concat());
    assert!(hear(&mut other).outcome.starts_with("08P01 "));
    assert_eq!(pair.sharded.value("select count(*) from ended"), "0");
}

#[test]
fn the_extended_protocol_copies_too() {
    let mut pair = Pair::new("bound", "user_id bigint primary key, name text");
    let from = [raw::parse("", "copy bound from stdin"), raw::bind("", &[]), raw::execute()].concat();
    let described =
        [raw::parse("", "copy bound from stdin"), raw::bind("", &[]), raw::describe_portal(""), raw::execute()];
    let (done, sync) = (copy_done(), raw::sync());
    let data = |first: i64| copy_data(&format!("{first}\ta\n{}\tb\n", first + 1000));
    let more = [raw::parse("", "insert into bound values (100, 'c')"), raw::bind("", &[]), raw::execute()].concat();
    for (round, messages) in [
        // Drivers send a Sync ahead, which is ignored, or none.
        [&from, &sync, &data(1), &done, &sync].map(|part| &part[..]).concat(),
        [&from, &raw::flush(), &data(2), &done, &sync].map(|part| &part[..]).concat(),
        [&described.concat(), &sync, &data(3), &raw::sync(), &done, &sync].map(|part| &part[..]).concat(),
        // What follows is in the same transaction.
        [&from, &sync, &data(4), &done, &more, &sync].map(|part| &part[..]).concat(),
        [&from, &sync, &data(5), &done, &more, &sync].map(|part| &part[..]).concat(),
        [&from, &sync, &data(6), &copy_fail("no"), &more, &sync].map(|part| &part[..]).concat(),
        [&from, &sync, &copy_data("7\ta\nx\tb\n"), &data(8), &done, &more, &sync].map(|part| &part[..]).concat(),
    ]
    .into_iter()
    .enumerate()
    {
        for raw in [&mut pair.whole, &mut pair.sharded] {
            raw.send(&messages);
        }
        let (expected, found) = (hear(&mut pair.whole), hear(&mut pair.sharded));
        assert_eq!(found, expected, "round {round}");
        pair.compare("select * from bound order by user_id");
    }
    for (sql, prepared) in [("copy bound to stdout", false), ("copy bound to stdout (format binary)", true)] {
        let parse = if prepared { raw::parse("p", sql) } else { raw::parse("", sql) };
        let messages = [parse, raw::bind(if prepared { "p" } else { "" }, &[]), raw::execute(), raw::sync()].concat();
        for raw in [&mut pair.whole, &mut pair.sharded] {
            raw.send(&messages);
        }
        let (expected, found) = (hear(&mut pair.whole), hear(&mut pair.sharded));
        assert_eq!(
            (found.kinds, found.outcome, found.data.len()),
            (expected.kinds, expected.outcome, expected.data.len())
        );
    }
}

#[test]
fn reference_tables_take_the_same_rows_everywhere() {
    let mut raw = client();
    let cluster = shop().1;
    let copy = "copy categories (id, name, slug) from stdin csv header";
    let came = run(&mut raw, copy, &[b"id,name,slug\n900,\"a\nb\",nine", b"hundred\n901,c,x\n"]);
    assert_eq!(came.outcome, "COPY 2");
    let rows = "select string_agg(id || name || slug, ',' order by id) from categories where id >= 900";
    assert_eq!(cluster.sql_everywhere(rows), ["900a\nbninehundred,901cx"; 2]);
    let came = run(&mut raw, copy, &[b"id,name,slug\n902,x,y\n901,c,x\n"]);
    assert!(came.outcome.starts_with("23505 ") && came.outcome.ends_with("line 3"), "{came:?}");
    assert_eq!(cluster.sql_everywhere(rows), ["900a\nbninehundred,901cx"; 2]);
    let came = copied(&mut raw, "copy (select id from categories where id >= 900 order by id) to stdout");
    assert_eq!(came.data, b"900\n901\n");
    assert!(copied(&mut raw, "copy categories to stdout").data.ends_with(b"901\tc\t\\N\tx\n"));
    assert_eq!(raw.refusal("copy products (id, sku, category_id, name, price) from stdin"), "0A000");
    assert_eq!(raw.refusal("copy categories from stdin where random() < 2"), "0A000");
    raw.rows("delete from categories where id >= 900");
}

#[test]
fn a_text_of_several_statements_may_copy() {
    let mut pair = Pair::new("texts", "user_id bigint primary key, name text");
    let sql =
        "insert into texts values (5, 'x'); copy texts from stdin; update texts set name = 'y' where user_id < 1001";
    let came = pair.check(sql, &[b"1\ta\n1001\tb\n"]);
    assert_eq!(came, "INSERT 0 1COPY 2UPDATE 2");
    pair.check(sql, &[b"2\ta\n1002\tb\n"]);
    pair.check("copy texts from stdin; select 1/0", &[b"3\ta\n1003\tb\n"]);
    pair.compare("select * from texts order by user_id");
}

#[test]
fn a_slow_shard_holds_back_the_client() {
    let mut pair = Pair::new("slowed", "user_id bigint, filler text");
    let (proxy, cluster) = shop();
    // Its server takes no rows while somebody else has the lock.
    cluster.sql_everywhere(
        "create function wait_here() returns trigger language plpgsql \
         as $$ begin perform pg_advisory_xact_lock(4711); return new; end $$; \
         create trigger waits before insert on slowed for each row when (new.user_id = 1001) execute function wait_here()",
    );
    let mut holder = Raw::log_in(cluster.primary(1).port(), &[("user", SUPERUSER), ("database", "shop")], PASSWORD);
    holder.rows("select pg_advisory_lock(4711)");
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    };
    let before = memory();
    pair.sharded.send(&[raw::query("copy slowed from stdin"), copy_data("1001\tfirst\n")].concat());
    assert_eq!(pair.sharded.frame().unwrap().0, b'G');
    let rows: String = (0..2000).map(|row| format!("{}\t{}\n", 1 + row % 2 * 1001, "x".repeat(500))).collect();
    let data = copy_data(&rows);
    pair.sharded.stream().set_write_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
    let mut sent = 0;
    while let Ok(count) = std::io::Write::write(&mut pair.sharded.stream(), &data[sent % data.len()..]) {
        sent += count;
        assert!(sent < 256 << 20, "nothing holds the client back");
    }
    assert!(memory() < before + (64 << 20), "{before} bytes before, {} now", memory());
    holder.rows("select pg_advisory_unlock(4711)");
    pair.sharded.stream().set_write_timeout(None).unwrap();
    let rest = &data[sent % data.len()..];
    pair.sharded.send(&[rest, &copy_done()].concat());
    let came = hear(&mut pair.sharded);
    assert_eq!(came.outcome, format!("COPY {}", 1 + (sent / data.len() + 1) * 2000));
    let by_shard = cluster.sql_everywhere("select count(*) from slowed");
    let half = (sent / data.len() + 1) * 1000;
    assert_eq!(by_shard, [half.to_string(), (half + 1).to_string()]);
    cluster.sql_everywhere("drop table slowed; drop function wait_here()");
}

#[test]
fn a_shard_that_is_lost_midway_takes_the_copy_with_it() {
    let mut pair = Pair::new("lost", "user_id bigint primary key, name text");
    let cluster = shop().1;
    for block in [false, true] {
        let raw = &mut pair.sharded;
        if block {
            raw.rows("begin");
            raw.rows("insert into lost values (7, 'x')");
        }
        raw.send(&[raw::query("copy lost from stdin"), copy_data("1\ta\n1001\tb\n")].concat());
        assert_eq!(raw.frame().unwrap().0, b'G');
        let ended =
            "select count(pg_terminate_backend(pid)) from pg_stat_activity where query = 'copy lost from stdin'";
        crate::support::until(|| cluster.sql(1, Role::Primary, ended) == "1");
        let came = hear(raw);
        assert!(came.outcome.starts_with("08006 ") || came.outcome.starts_with("57P01 "), "{came:?}");
        raw.send(&[copy_data("2\ta\n1002\tb\n"), copy_done()].concat());
        if block {
            raw.rows("rollback");
        }
        assert_eq!(raw.value("select count(*) from lost"), "0");
        assert_eq!(cluster.sql_everywhere(&super::prepared_on("lost")), ["0", "0"]);
    }
}
