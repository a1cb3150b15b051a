//! The numbers by which clients know themselves and one another, whatever process works for them.

use super::{Bench, direct, number, soon};
use crate::raw::{Raw, bind, execute, parse, query};

/// The same in one text, and prepared with the number as a parameter.
fn asked(client: &mut Raw, text: &str, number: i32) -> [Vec<String>; 2] {
    let whole = client.rows(&text.replace("$1", &number.to_string()));
    let prepared = client.extended(&[parse("", text), bind("", &[&number.to_string()]), execute()]);
    assert_eq!(prepared.error, None, "{text}");
    [whole, prepared.rows]
}

#[test]
fn a_client_finds_its_own_number() {
    let bench = Bench::start("numbered", "default_pool_size = 1");
    let mut clients: Vec<_> = (0..3).map(|_| bench.client()).collect();
    for client in &mut clients {
        let own = number(client).to_string();
        assert_eq!(client.extended(&[parse("own", "select $1::int, pg_backend_pid()")]).error, None);
        for round in 0..2 {
            assert_eq!(client.value("select pg_backend_pid()"), own);
            assert_eq!(client.value("SELECT pg_catalog.pg_backend_pid()::text || ''"), own);
            assert_eq!(client.value("begin; select x from pg_backend_pid() x; commit"), own);
            let row = client.extended(&[bind("own", &[&round.to_string()]), execute()]).rows;
            assert_eq!(row, [format!("{round}|{own}")]);
        }
        let own_row = "select count(*) from pg_stat_activity where pid = $1";
        assert_eq!(asked(client, own_row, number(client)).concat(), ["1", "1"]);
        assert_eq!(client.value(&own_row.replace("$1", "pg_backend_pid()")), "1");
    }
    let mut column = clients.remove(0);
    column.send(&query("select pg_backend_pid(), pg_backend_pid()::int8"));
    let described = column.frame().unwrap().1;
    assert_eq!(described.windows(15).filter(|name| name == b"pg_backend_pid\0").count(), 2);
}

#[test]
fn others_find_the_process_that_works_for_a_client() {
    let bench = Bench::start("found", "default_pool_size = 4");
    direct("create table held (a int); grant all on held to found");
    let (mut holder, mut waiter, mut other) = (bench.client(), bench.client(), bench.client());
    let (holding, waiting) = (number(&holder), number(&waiter));
    let states = "select state from pg_stat_activity where pid = $1";
    holder.rows("begin; lock table held");
    let in_block = vec!["idle in transaction".to_owned()];
    assert_eq!(asked(&mut other, states, holding), [in_block.clone(), in_block]);
    let modes = "select mode from pg_locks where pid = any ('{3, $1}') and relation = 'held'::regclass";
    assert_eq!(other.rows(&modes.replace("$1", &holding.to_string())), ["AccessExclusiveLock"]);
    // As PostgreSQL's own isolation tester asks.
    let text = format!("select pg_isolation_test_session_is_blocked($1, '{{{holding},{waiting}}}')");
    other.extended(&[parse("blocked", &text)]);
    waiter.send(&query("select count(*) from held"));
    soon(|| other.extended(&[bind("blocked", &[&waiting.to_string()]), execute()]).rows == ["t"]);
    assert_eq!(other.extended(&[bind("blocked", &[&holding.to_string()]), execute()]).rows, ["f"]);
    let [whole, prepared] = asked(&mut other, "select cardinality(pg_blocking_pids($1))", waiting);
    assert_eq!((whole, prepared), (vec!["1".to_owned()], vec!["1".to_owned()]));
    holder.rows("commit");
    assert_eq!(waiter.reply().rows, ["0"]);
    // Who does nothing is there as long as its client is.
    assert_eq!(holder.value("select pg_backend_pid()"), holding.to_string());
    holder.rows("select 1");
    let there = "select count(*) from pg_stat_activity where pid = $1";
    assert_eq!(asked(&mut other, there, holding).concat(), ["1", "1"]);
    drop(holder);
    soon(|| asked(&mut other, there, holding).concat() == ["0", "0"]);
}
