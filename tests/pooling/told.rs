//! What a session is told of itself.

use super::{Bench, direct, soon, straight};
use crate::raw::{Raw, Reply, parse};

fn log_in(bench: &Bench, application: &str) -> Reply {
    let parameters = [("user", bench.role), ("database", "shop"), ("application_name", application)];
    Raw::try_connect(bench.proxy.port, &parameters).1
}

#[test]
fn what_a_server_remarks_at_a_log_in_is_told() {
    let bench = Bench::start("remarking", "default_pool_size = 1");
    let long = "x".repeat(65);
    for _ in 0..2 {
        let reply = log_in(&bench, &long);
        assert_eq!((reply.error, reply.kinds.matches('N').count()), (None, 1), "that the name is cut off");
    }
    let reply = log_in(&bench, "short");
    assert_eq!(reply.kinds.matches('N').count(), 0);
}

#[test]
fn prepared_statements_are_shown_to_whom_they_belong() {
    let bench = Bench::start("listing", "default_pool_size = 1");
    let (mut client, mut other) = (bench.client(), bench.client());
    other.rows("set standard_conforming_strings = off");
    client.rows("prepare \"it's\" (int) as select $1");
    client.extended(&[parse("driver", "select 'secret', $1::text")]);
    other.rows("prepare theirs as select E'\\\\'");
    let shown = "select name, statement, parameter_types::text, from_sql from pg_prepared_statements p order by name";
    for _ in 0..2 {
        assert_eq!(
            client.rows(shown),
            ["driver|select 'secret', $1::text|{text}|f", "it's|prepare \"it's\" (int) as select $1|{integer}|t"]
        );
        let theirs = other.rows("select name, statement from pg_catalog.pg_prepared_statements");
        assert_eq!(theirs, ["theirs|prepare theirs as select E'\\\\'"]);
    }
    assert_eq!(client.value("select count(*) from pg_prepared_statements"), "2");
    assert_eq!(client.rows("table pg_prepared_statements").len(), 2);
    assert_eq!(client.refusal("select nope, pg_prepared_statements.name from pg_prepared_statements"), "42703");
    client.rows("deallocate all");
    assert_eq!((client.rows(shown).len(), bench.pinned_by().len()), (0, 0));
}

#[test]
fn what_is_in_the_database_is_known_while_its_tables_are_locked() {
    let bench = Bench::start("knowing", "");
    direct(
        "create table locked_now (id serial, day date default now()); create view of_locked as select * from locked_now; \
         grant create on schema public to knowing",
    );
    let mut owner = straight();
    owner.rows("begin; lock table locked_now");
    let mut client = bench.client();
    client.rows("create table made_meanwhile (id serial)");
    soon(|| client.rows("explain route select * from made_meanwhile").concat().contains("query: a read"));
    let locks = "select count(*) from pg_locks where relation in ('locked_now'::regclass, 'of_locked'::regclass)";
    assert_eq!(owner.value(locks), "1");
    owner.rows("rollback");
}

#[test]
fn columns_that_an_alias_renames_are_what_the_server_makes_of_them() {
    let bench = Bench::start("renaming", "");
    direct(
        "create table renamed (a int, b int); insert into renamed values (1, 2); grant select on renamed to renaming",
    );
    let mut client = bench.client();
    assert_eq!(client.value("select row_to_json(r) from renamed r (x, y)"), "{\"a\":1,\"b\":2}");
    let plan = client.rows("explain (verbose, costs off) select x from renamed r (x, y)");
    assert_eq!(plan, ["Seq Scan on public.renamed r", "  Output: x"]);
}
