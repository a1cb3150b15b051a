//! Prepared statements of which the servers' copies do not hold any more.

use super::{Bench, direct};
use crate::raw::{self, Raw, bind, close, describe, describe_portal, execute, flush, parse, sync};

const CHANGED: (&str, &str) = ("0A000", "cached plan must not change result type");

fn changed() -> Option<(String, String)> {
    Some((CHANGED.0.to_owned(), CHANGED.1.to_owned()))
}

/// A table of the bench's own.
fn table(name: &str) {
    direct(&format!("create table {name} (a int, b text); grant all on {name} to public"));
    direct(&format!("insert into {name} values (1, 'one'), (2, 'two')"));
}

/// Each of them has met both connections of a pool of two.
fn meet_both(bench: &Bench, clients: &mut [Raw], messages: &[Vec<u8>]) {
    for held in 0..2 {
        let mut others = [bench.client(), bench.client()];
        let holds = &mut others[held];
        holds.rows("begin; select 1");
        clients.iter_mut().for_each(|client| assert_eq!(client.extended(messages).error, None));
        others.iter_mut().for_each(|other| _ = other.query("rollback"));
    }
}

#[test]
fn who_looks_at_its_rows_hears_nothing_of_a_table_that_has_changed() {
    let bench = Bench::start("looks", "default_pool_size = 2");
    table("looked");
    let mut clients: Vec<Raw> = (0..6).map(|_| bench.client()).collect();
    let sql = "select * from looked where a = $1";
    clients.iter_mut().for_each(|client| assert_eq!(client.extended(&[parse("s", sql)]).error, None));
    let all = [bind("s", &["1"]), describe_portal(""), execute()];
    let blind = [bind("s", &["1"]), execute()];
    meet_both(&bench, &mut clients, &all);
    for (change, row) in [
        ("alter table looked add c int default 7", "1|one|7"),
        ("alter table looked drop b", "1|7"),
        ("alter table looked alter c type text using 'c' || c", "1|c7"),
    ] {
        direct(change);
        for (index, client) in clients.iter_mut().enumerate() {
            let reply = client.extended(if index % 2 == 0 { &all } else { &blind });
            assert_eq!((reply.error, reply.rows), (None, vec![row.to_owned()]), "{change}");
        }
    }
}

#[test]
fn what_writes_is_done_once() {
    let bench = Bench::start("writes_once", "default_pool_size = 1");
    table("written");
    let mut client = bench.client();
    let insert = [bind("s", &["3"]), execute()];
    assert_eq!(client.extended(&[parse("s", "insert into written values ($1) returning *")]).error, None);
    assert_eq!(client.extended(&insert).rows, ["3|"]);
    direct("alter table written add c int default 7");
    let twice = client.extended(&[&insert[..], &insert[..]].concat());
    assert_eq!((twice.error, twice.rows), (None, vec!["3||7".to_owned(); 2]));
    assert_eq!(direct("select count(*) from written where a = 3"), "3");
    direct("alter table written add d int default 8");
    // What came before it in the unit was undone with it: the client decides.
    let behind = [parse("", "insert into written values (4)"), bind("", &[]), execute()];
    let reply = client.extended(&[&behind[..], &insert[..]].concat());
    assert_eq!(reply.error, changed());
    assert_eq!(client.extended(&insert).rows, ["3||7|8"]);
    assert_eq!(direct("select count(*) from written where a = 4"), "0");
}

#[test]
fn who_was_told_its_columns_hears_that_they_have_changed() {
    let bench = Bench::start("told", "default_pool_size = 2");
    table("told_of");
    let sql = "select * from told_of where a = $1";
    let run = [bind("s", &["2"]), execute()];
    let mut clients: Vec<Raw> = (0..3).map(|_| bench.client()).collect();
    for client in &mut clients {
        assert_eq!(client.extended(&[parse("s", sql), describe("s")]).kinds, "1tTZ");
    }
    meet_both(&bench, &mut clients, &run);
    direct("alter table told_of add c int default 7");
    for client in &mut clients {
        // As on a connection of its own. Prepared again, it works wherever it goes.
        let first = client.extended(&run);
        assert_eq!(first.error, changed());
        assert_eq!(client.extended(&[close("s"), parse("s", sql), describe("s")]).kinds, "31tTZ");
        assert_eq!(client.extended(&run).rows, ["2|two|7"]);
    }
    meet_both(&bench, &mut clients, &run);
    direct("alter table told_of drop c");
    // Who wants each column in a format of its own counts on those that it was told.
    let counting = raw::message(b'B', &[b"\0s\0\0\0\0\x01\0\0\0\x012\0\x03\0\0\0\0\0\0"]);
    assert_eq!(clients[0].extended(&[counting, describe_portal(""), execute()]).error, changed());
    // Who asks anew in the unit itself is told what holds.
    let asks = [bind("s", &["2"]), describe_portal(""), execute()];
    clients.iter_mut().for_each(|client| assert_eq!(client.extended(&asks).rows, ["2|two"]));
}

#[test]
fn who_changes_a_table_hears_of_its_own_statements_what_postgresql_says() {
    let bench = Bench::start("own_change", "default_pool_size = 2");
    table("changed_by_itself");
    direct("alter table changed_by_itself owner to own_change");
    let mut clients: Vec<Raw> = (0..2).map(|_| bench.client()).collect();
    let (prepare, looks) = (
        [parse("s", "select * from changed_by_itself where a = $1"), describe("s")],
        [bind("s", &["1"]), describe_portal(""), execute()],
    );
    clients.iter_mut().for_each(|client| assert_eq!(client.extended(&prepare).kinds, "1tTZ"));
    meet_both(&bench, &mut clients, &looks);
    for (change, row) in [("add c int default 7", "1|one|7"), ("drop c", "1|one")] {
        clients[0].rows(&format!("alter table changed_by_itself {change}"));
        assert_eq!(clients[0].extended(&looks).error, changed());
        clients[0].extended(&[&[close("s")][..], &prepare[..]].concat());
        clients.iter_mut().for_each(|client| assert_eq!(client.extended(&looks).rows, [row]));
    }
}

#[test]
fn who_came_after_the_change_hears_nothing_of_it() {
    let bench = Bench::start("late_comer", "default_pool_size = 1");
    table("changed_before");
    let sql = "select * from changed_before where a = $1";
    let run = [bind("s", &["2"]), execute()];
    let mut old = bench.client();
    assert_eq!(old.extended(&[parse("s", sql)]).error, None);
    assert_eq!(old.extended(&run).rows, ["2|two"]);
    direct("alter table changed_before alter a type text");
    let mut new = bench.client();
    // The server has a copy of before; so it has when only a Flush follows.
    let reply = new.extended(&[parse("s", sql), describe("s")]);
    assert_eq!((reply.error, &reply.kinds[..]), (None, "1tTZ"));
    assert_eq!(new.extended(&run).rows, ["2|two"]);
    direct("alter table changed_before add c int default 7");
    let mut newer = bench.client();
    newer.send(&[parse("s", sql), describe("s"), flush()].concat());
    let kinds: Vec<u8> = (0..3).map(|_| newer.frame().unwrap().0).collect();
    assert_eq!(kinds, b"1tT");
    newer.send(&sync());
    assert_eq!(newer.reply().kinds, "Z");
    assert_eq!(newer.extended(&run).rows, ["2|two|7"]);
    // Of the type that it was prepared with, the parameter does not do any more.
    assert_eq!(old.extended(&run).rows, ["2|two|7"]);
}

#[test]
fn a_transaction_is_told_once_that_its_table_has_changed() {
    let bench = Bench::start("in_block", "default_pool_size = 1");
    table("changed_under");
    let mut client = bench.client();
    let run = [bind("s", &["1"]), execute()];
    assert_eq!(client.extended(&[parse("s", "select * from changed_under where a = $1")]).error, None);
    assert_eq!(client.extended(&run).rows, ["1|one"]);
    direct("alter table changed_under add c int");
    client.rows("begin");
    let reply = client.extended(&run);
    assert_eq!((reply.error, reply.status), (changed(), 'E'));
    client.rows("rollback");
    client.rows("begin");
    assert_eq!(client.extended(&run).rows, ["1|one|"]);
    client.rows("commit");
    assert_eq!(client.extended(&run).rows, ["1|one|"]);
}

#[test]
fn a_block_that_goes_back_to_a_savepoint_has_its_statements_made_anew() {
    let bench = Bench::start("back_in_block", "default_pool_size = 1");
    table("changed_behind");
    let mut client = bench.client();
    let prepare = [parse("s", "select * from changed_behind where a = $1"), describe("s")];
    let run = [bind("s", &["1"]), execute()];
    assert_eq!(client.extended(&prepare).kinds, "1tTZ");
    assert_eq!(client.extended(&run).rows, ["1|one"]);
    direct("alter table changed_behind add c int default 7");
    client.rows("begin");
    client.rows("savepoint x");
    let reply = client.extended(&run);
    assert_eq!((reply.error, reply.status), (changed(), 'E'));
    client.rows("rollback to x");
    let reply = client.extended(&[&[close("s")][..], &prepare[..], &run[..]].concat());
    assert_eq!((reply.error, reply.rows), (None, vec!["1|one|7".to_owned()]));
    client.rows("commit");
}

#[test]
fn statements_that_others_have_deallocated_are_there() {
    let bench = Bench::start("deallocates", "default_pool_size = 1");
    let (mut client, mut other) = (bench.client(), bench.client());
    let run = [bind("s", &["7"]), execute()];
    assert_eq!(client.extended(&[parse("s", "select $1::int + 1"), describe("s")]).error, None);
    assert_eq!(client.extended(&run).rows, ["8"]);
    for out_of_sight in ["deallocate all", "discard all", "prepare pgweir_0 as select 1; prepare pgweir_1 as select 1"]
    {
        other.query(&format!("do $$ begin execute '{out_of_sight}'; end $$"));
        assert_eq!(client.extended(&run).rows, ["8"], "{out_of_sight}");
        assert_eq!(client.extended(&[parse("t", &format!("select 1 -- {out_of_sight}"))]).error, None);
        assert_eq!(client.extended(&[bind("t", &[]), execute(), close("t")]).rows, ["1"], "{out_of_sight}");
    }
    // In a block nothing can be done again; the next one goes well.
    other.query("do $$ begin execute 'deallocate all'; end $$");
    client.rows("begin");
    let reply = client.extended(&run).error;
    assert_eq!(reply, Some(("26000".to_owned(), "prepared statement \"s\" does not exist".to_owned())));
    client.rows("rollback");
    assert_eq!(client.extended(&run).rows, ["8"]);
}

#[test]
fn errors_name_statements_as_their_client_does() {
    let bench = Bench::start("own_names", "default_pool_size = 1");
    let mut client = bench.client();
    let mut straight = super::straight();
    for client in [&mut client, &mut straight] {
        assert_eq!(client.extended(&[parse("my own", "select $1::int")]).error, None);
    }
    for messages in [
        &[bind("my own", &["1", "2"])][..],
        &[bind("my own", &[]), close("my own")],
        &[parse("new", "select 2"), bind("new", &["1"])],
        &[parse("my own", "select 2")],
        &[bind("pgweir_0", &[])],
    ] {
        assert_eq!(client.extended(messages).error, straight.extended(messages).error);
    }
}

#[test]
fn who_was_told_its_columns_hears_of_a_change_on_connections_that_are_new() {
    let bench = Bench::start("told_before", "default_pool_size = 1");
    table("told_of_then");
    let (mut client, mut other) = (bench.client(), bench.client());
    let sql = "select * from told_of_then where a = $1";
    let run = [bind("s", &["2"]), execute()];
    let prepare = [parse("s", sql), describe("s")];
    assert_eq!(client.extended(&prepare).kinds, "1tTZ");
    assert_eq!(client.extended(&run).rows, ["2|two"]);
    // No server has a copy of before.
    other.rows("do $$ begin execute 'deallocate all'; end $$");
    direct("alter table told_of_then add c int default 7");
    assert_eq!(other.extended(&prepare).kinds, "1tTZ");
    assert_eq!(other.extended(&run).rows, ["2|two|7"]);
    assert_eq!(client.extended(&run).error, changed());
    direct("alter table told_of_then drop c");
    direct("select pg_terminate_backend(pid, 10000) from pg_stat_activity where usename = 'told_before'");
    assert_eq!(other.extended(&run).error, changed());
    assert_eq!(other.extended(&[close("s"), parse("s", sql), describe("s")]).kinds, "31tTZ");
    // Many at once wait for no more than one look.
    let many: Vec<Vec<u8>> = (0..50).flat_map(|_| run.clone()).collect();
    direct("select pg_terminate_backend(pid, 10000) from pg_stat_activity where usename = 'told_before'");
    assert_eq!(other.extended(&many).rows, vec!["2|two"; 50]);
}

/// In a block nothing is mended behind the client's back, nor need it be.
#[test]
fn what_is_prepared_after_a_change_is_prepared_anew() {
    let bench = Bench::start("prepares_anew", "default_pool_size = 1");
    let (mut client, mut other) = (bench.client(), bench.client());
    client.rows("create table remade as select 1 as a, 'one' as b");
    let sql = "select * from remade where a = 1";
    let unit = |name: &str| [parse(name, sql), bind(name, &[]), describe_portal(""), execute()];
    // Who holds it keeps it alive.
    assert_eq!(other.extended(&unit("held")).rows, ["1|one"]);
    for (number, (change, row)) in [
        ("alter table remade add c int default 7", "1|one|7"),
        ("drop table remade; create table remade as select 1 as a, 8 as d", "1|8"),
        ("drop table remade; create table remade as select 1 as a, 'e' as e", "1|e"),
    ]
    .into_iter()
    .enumerate()
    {
        client.rows(change);
        client.rows("begin; select 1");
        let reply = client.extended(&unit(&format!("s{number}")));
        assert_eq!((reply.error, reply.rows), (None, vec![row.to_owned()]), "{change}");
        client.rows("commit");
    }
}

#[test]
fn what_is_prepared_in_a_block_is_what_its_names_mean_by_then() {
    let bench = Bench::start("anew_in_block", "default_pool_size = 1");
    direct("create schema seen_1 authorization anew_in_block; create schema seen_2 authorization anew_in_block");
    let mut client = bench.client();
    client
        .rows("create table seen_1.seen (a int); create table seen_2.seen (a text); create table seen_1.kept (a int)");
    for (number, (sql, change)) in [
        ("select * from seen", "set search_path to seen_2"),
        ("select * from seen", "set local search_path to seen_2"),
        ("select * from kept", "alter table kept add column b int"),
        ("select * from kept", "drop table kept; create table kept (x text, y text)"),
        ("select * from kept", "create temporary table kept (x text)"),
    ]
    .into_iter()
    .enumerate()
    {
        client.rows("begin; set search_path to seen_1");
        let (before, after) = (format!("before{number}"), format!("after{number}"));
        assert_eq!(client.extended(&[parse(&before, sql), describe(&before)]).error, None);
        client.rows(change);
        let reply = client.extended(&[parse(&after, sql), describe(&after)]);
        assert_eq!((reply.error, reply.kinds.as_str()), (None, "1tTZ"), "{change}");
        assert_eq!(client.extended(&[bind(&after, &[]), execute()]).error, None);
        client.rows("rollback");
    }
}

/// As JDBC asks: a format for each column that it knows.
#[test]
fn who_names_formats_of_columns_that_are_others_now_is_told_so() {
    let bench = Bench::start("formatting", "default_pool_size = 1");
    table("formatted");
    let (mut client, mut other) = (bench.client(), bench.client());
    let with_formats = || raw::message(b'B', &[b"\0s\0\0\0\0\0\0\x02\0\0\0\0"]);
    for client in [&mut client, &mut other] {
        assert_eq!(client.extended(&[parse("s", "select * from formatted")]).error, None);
        let reply = client.extended(&[with_formats(), describe_portal(""), execute()]);
        assert_eq!((reply.error, reply.rows.len()), (None, 2));
    }
    direct("alter table formatted add c int");
    for client in [&mut client, &mut other] {
        assert_eq!(client.extended(&[with_formats(), describe_portal(""), execute()]).error, changed());
    }
}
