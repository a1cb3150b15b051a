//! PREPARE, EXECUTE and DEALLOCATE as SQL, which follow their client as the protocol's own do.

use super::{Bench, PID, direct, straight};
use crate::raw::{Raw, Reply, bind, close, describe, execute, parse};

/// All that a client is told, with the places of errors.
fn told(client: &mut Raw, messages: &[u8]) -> Vec<String> {
    client.send(messages);
    let mut told = Vec::new();
    while let Some((kind, body)) = client.frame() {
        let fields = body.split(|&byte| byte == 0);
        let kept =
            fields.filter(|field| !matches!(kind, b'E' | b'N') || !matches!(field.first(), Some(b'F' | b'L' | b'R')));
        let text = kept.collect::<Vec<_>>().join(&0).escape_ascii().to_string();
        told.push(format!("{} {text}", char::from(kind)));
        if kind == b'Z' {
            break;
        }
    }
    told
}

#[test]
fn statements_prepared_by_sql_follow_their_client() {
    let bench = Bench::start("by_sql", "default_pool_size = 2");
    let (mut client, mut other, mut blocker) = (bench.client(), bench.client(), bench.client());
    client.rows("PREPARE q (int) AS select $1 + 1, pg_backend_pid()");
    other.rows("prepare q as select 'the other', $1::int, pg_backend_pid()");
    let mut pids = std::collections::HashSet::new();
    for round in 0..6 {
        let row = client.value(&format!("execute q({round})"));
        assert!(row.starts_with(&format!("{}|", round + 1)), "{row}");
        pids.insert(row.split('|').next_back().unwrap().to_owned());
        assert!(other.value("execute q(5 * 5)").starts_with("the other|25|"));
        blocker.rows(if round % 2 == 0 { "begin; select 1" } else { "commit" });
    }
    assert_eq!(pids.len(), 2);
    assert_eq!(bench.pinned_by(), [""; 0]);
    // It outlives the transaction that made it.
    client.rows("begin");
    client.rows("prepare r as select 'r'");
    assert_eq!(client.value("execute r"), "r");
    client.rows("rollback");
    assert_eq!(client.value("execute r"), "r");
    client.rows("deallocate r");
    assert_eq!(client.refusal("execute r"), "26000");
    assert_eq!(other.refusal("execute r"), "26000");
    client.rows("prepare r as select 'new'");
    assert_eq!(client.value("execute r"), "new");
    client.rows("deallocate all");
    assert_eq!([client.refusal("execute r"), client.refusal("execute q(1)")], ["26000"; 2]);
    assert!(other.value("execute q(7)").starts_with("the other|7|"));
    other.rows("discard all");
    assert_eq!(other.refusal("execute q(7)"), "26000");
}

#[test]
fn drivers_and_sql_share_the_names() {
    let bench = Bench::start("both_ways", "default_pool_size = 1");
    let (mut client, mut other) = (bench.client(), bench.client());
    let scramble = |other: &mut Raw| _ = other.rows("discard all");
    assert_eq!(client.extended(&[parse("driver's own", "select $1::int * 2")]).error, None);
    scramble(&mut other);
    assert_eq!(client.value("execute \"driver's own\" (21)"), "42");
    client.rows("prepare s (int) as select $1 * 3");
    scramble(&mut other);
    assert_eq!(client.extended(&[bind("s", &["14"]), execute()]).rows, ["42"]);
    scramble(&mut other);
    assert_eq!(client.extended(&[describe("s")]).kinds, "tTZ");
    let ask = |client: &mut Raw, sql: &str| client.extended(&[parse("", sql), bind("", &[]), execute()]);
    assert_eq!(ask(&mut client, "prepare t (int) as select $1 * 6").error, None);
    for _ in 0..2 {
        scramble(&mut other);
        assert_eq!(ask(&mut client, "execute t(7)").rows, ["42"]);
        assert_eq!(ask(&mut client, "execute s(14)").rows, ["42"]);
    }
    // A named statement that executes another one.
    assert_eq!(client.extended(&[parse("u", "execute t(6)"), describe("u")]).kinds, "1tTZ");
    for _ in 0..2 {
        scramble(&mut other);
        assert_eq!(client.extended(&[bind("u", &[]), execute()]).rows, ["36"]);
    }
    let all = [parse("", "prepare v as select 'v'"), bind("", &[]), execute(), parse("", "execute v"), bind("", &[])];
    assert_eq!(client.extended(&[&all[..], &[execute()]].concat()).rows, ["v"]);
    assert_eq!(client.extended(&[close("s")]).error, None);
    assert_eq!(client.refusal("execute s(1)"), "26000");
    assert_eq!(ask(&mut client, "deallocate t").error, None);
    assert_eq!(ask(&mut client, "execute t(1)").sqlstate(), "26000");
    assert_eq!(bench.pinned_by(), [""; 0]);
}

#[test]
fn what_is_said_of_statements_by_sql_is_what_postgresql_says() {
    let bench = Bench::start("says", "default_pool_size = 1");
    direct("create table said (a int, b text); grant all on said to public; insert into said values (1, 'one')");
    let (mut client, mut straight) = (bench.client(), straight());
    for sql in [
        "prepare q (int) as select * from said where a = $1",
        "execute q(1)",
        "EXECUTE q (2 - 1)",
        "execute q",
        "execute q(1, 2)",
        "execute q('x')",
        "execute q(nothing)",
        "/* é */ prepare q as select nothing from said",
        "prepare q as select 1",
        "prepare \"a very long name, longer than any number would be\" as select nothing from said",
        "prepare r as select from from",
        "prepare r",
        "execute r",
        "deallocate r",
        "explain (costs off) execute q(1)",
        "explain analyze execute r",
        "execute q(1); select 2; execute q(1)",
        "explain (costs off) create table said_again as execute q(1)",
        "explain (analyze, costs off, timing off, summary off) create temp table said_again as execute q(1)",
        "select a + 0, b || '' from said_again",
        "drop table said_again",
        "create temp table said_again as execute q(1)",
        "select a + 0, b || '' from said_again",
        "drop table said_again",
        "prepare w as insert into said values (2, 'two') returning b",
        "begin",
        "execute w",
        "execute q(2)",
        "execute q('x')",
        "execute q(2)",
        "rollback",
        "execute q(2)",
        "prepare t as select 3; execute t",
        "execute t",
        "deallocate t",
        "deallocate prepare q",
        "execute q(1)",
        "deallocate w; select 4",
        "execute w",
    ] {
        for extended in [false, true] {
            if extended && (sql.contains(';') || sql.starts_with("prepare") || sql.contains("said_again")) {
                continue;
            }
            let messages = match extended {
                false => crate::raw::query(sql),
                true => [parse("", sql), bind("", &[]), execute(), crate::raw::sync()].concat(),
            };
            assert_eq!(told(&mut client, &messages), told(&mut straight, &messages), "{sql} (extended: {extended})");
        }
    }
    assert_eq!(bench.pinned_by(), [""; 0]);
}

#[test]
fn a_table_that_has_changed_is_told_once_of_a_statement_by_sql() {
    let bench = Bench::start("by_sql_later", "default_pool_size = 1");
    direct("create table seen_by_sql (a int); grant all on seen_by_sql to public; insert into seen_by_sql values (1)");
    let (mut client, mut other) = (bench.client(), bench.client());
    client.rows("prepare q as select * from seen_by_sql");
    assert_eq!(client.value("execute q"), "1");
    direct("alter table seen_by_sql add b int default 2");
    assert_eq!(client.refusal("execute q"), "0A000");
    assert_eq!(client.value("execute q"), "1|2");
    // Who prepares the same later hears nothing of it.
    direct("alter table seen_by_sql add c int default 3");
    other.rows("prepare q as select * from seen_by_sql");
    assert_eq!(other.value("execute q"), "1|2|3");
}

#[test]
fn what_a_statement_by_sql_does_ties_as_it_would_alone() {
    let bench = Bench::start("ties_by_sql", "default_pool_size = 3");
    let mut client = bench.client();
    client.rows("prepare locks as select pg_advisory_lock(4711)");
    client.rows("prepare sets as select set_config('timezone', 'Asia/Tokyo', false)");
    let pid = client.value(PID);
    client.rows("execute locks");
    assert_eq!(bench.pinned_by(), ["advisory lock"]);
    client.rows("select pg_advisory_unlock(4711)");
    assert_eq!(bench.pinned_by(), [""; 0]);
    client.rows("execute sets");
    let (mut one, mut two) = (bench.client(), bench.client());
    for other in [&mut one, &mut two] {
        other.rows("begin");
        assert_eq!(other.value("show timezone"), "UTC");
    }
    drop((pid, one, two));
    assert_eq!(client.value("show timezone"), "Asia/Tokyo");
    let reply: Reply = client.query("execute nothing");
    assert_eq!(reply.sqlstate(), "26000");
}
