//! `pgweir check --live`: whatever is not the same on all servers is named.

#![allow(clippy::unwrap_used)]

#[path = "live/columns.rs"]
mod columns;
#[path = "live/indexes.rs"]
mod indexes;
mod support;
#[path = "live/unique.rs"]
mod unique;

use std::fs;
use std::process::Command;

use support::{APP, Cluster, PASSWORD, Proxy, Role, Stop};

/// What `check --live` prints, and its exit status.
struct Report {
    status: Option<i32>,
    lines: Vec<String>,
    last: String,
}

impl Report {
    fn faults(&self) -> Vec<&str> {
        self.lines.iter().filter_map(|line| line.strip_prefix("fault shop")).map(str::trim_start).collect()
    }

    fn notes(&self) -> Vec<&str> {
        self.lines.iter().filter_map(|line| line.strip_prefix("note  shop")).collect()
    }
}

fn check(toml: &str, more: &[&str]) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pgweir.toml");
    fs::write(&file, toml).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgweir"));
    let output = command.args(["check", "--live", "--config"]).arg(&file).args(more).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let lines = text(&output.stdout).lines().map(str::to_owned).collect();
    Report { status: output.status.code(), lines, last: text(&output.stderr) }
}

/// The only value that a query gives.
async fn value(client: &tokio_postgres::Client, sql: &str) -> String {
    let messages = client.simple_query(sql).await.unwrap_or_else(|cause| panic!("{sql}: {cause:?}"));
    let value = messages.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    value.unwrap_or_default()
}

fn toml(cluster: &Cluster) -> String {
    format!("[general]\n{}", cluster.toml())
}

/// What is wrong after a text was run on shard 1 alone, which another one there mends.
fn check_fault(cluster: &Cluster, toml: &str, (breaks, mends): (&str, &str), expected: &[&str]) {
    cluster.sql(1, Role::Primary, breaks);
    let report = check(toml, &[]);
    let found = report.faults();
    assert_eq!(found.len(), expected.len(), "{breaks}: {:#?}", report.lines);
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{breaks}: {found}");
    }
    assert_eq!(report.status, Some(1), "{breaks}");
    cluster.sql(1, Role::Primary, mends);
}

#[test]
fn definitions_that_differ_are_named_with_the_shard_and_what_differs() {
    let cluster = Cluster::start(2, 1);
    cluster.make_shop();
    let toml = toml(&cluster);
    let report = check(&toml, &[]);
    assert_eq!(report.faults(), [""; 0], "{:#?}", report.lines);
    assert_eq!(report.status, Some(0));
    assert!(report.lines.last().unwrap().ends_with("pgweir.toml: ok on all servers"), "{:#?}", report.lines);
    for (change, expected) in [
        (
            ("alter table users alter handle type varchar(40)", "alter table users alter handle type text"),
            &["shard 1: public.users: column handle is: character varying(40) NOT NULL; on shard 0: text NOT NULL"][..],
        ),
        (
            ("alter table users alter verified set default true", "alter table users alter verified set default false"),
            &["column verified is: boolean NOT NULL DEFAULT true; on shard 0: boolean NOT NULL DEFAULT false"],
        ),
        (
            ("alter table users alter email drop not null", "alter table users alter email set not null"),
            &["column email is: text; on shard 0: text NOT NULL"],
        ),
        (
            ("alter table users add more int", "alter table users drop more"),
            &["order of columns", "column more is not on shard 0; here it is: integer"],
        ),
        (
            (
                "alter table carts drop constraint carts_quantity_check",
                "alter table carts add constraint carts_quantity_check check (quantity > 0)",
            ),
            &["public.carts: constraint carts_quantity_check is missing; shard 0 has: CHECK ((quantity > 0))"],
        ),
        (
            ("drop index posts_tags", "create index posts_tags on posts using gin (tags)"),
            &["public.posts: index posts_tags is missing; shard 0 has: CREATE INDEX posts_tags ON public.posts"],
        ),
        (
            ("create table stray (n int)", "drop table stray"),
            &["shard 1: public.stray: shard 0 has none; this is a table"],
        ),
        (
            ("alter table follows rename to followed", "alter table followed rename to follows"),
            &["shard 1: public.follows: is missing; shard 0 has a table", "public.followed: shard 0 has none"],
        ),
        (
            ("create type mood as enum ('ok')", "drop type mood"),
            &["shard 1: type public.mood: shard 0 has none; this is an enum of 'ok'"],
        ),
        (
            ("revoke select on posts from app", "grant select on posts to app"),
            &["public.posts: privileges is: app=awdDxt/app; on shard 0: app=arwdDxt/app"],
        ),
    ] {
        check_fault(&cluster, &toml, change, expected);
    }
    assert_eq!(check(&toml, &[]).faults(), [""; 0]);
}

#[test]
fn rows_where_they_do_not_belong_are_named() {
    let cluster = Cluster::start(2, 0);
    cluster.make_shop();
    cluster.sql_everywhere(
        "insert into categories select n, 'c' || n, null, 's' || n from generate_series(1, 300) n; \
         create table jobs (n int); create table unkeyed (n int, note text); insert into unkeyed values (1, 'a'), (2, 'b'); \
         create table places (place text, note text);",
    );
    let toml = toml(&cluster)
        + "[[reference_tables]]\ndatabase = \"shop\"\ntables = [\"unkeyed\"]\n\
           [[sharded_tables]]\ndatabase = \"shop\"\nname = \"places\"\ncolumn = \"place\"\ndata_type = \"text\"\n\
           [[sharded_tables.mapping]]\nend = \"m\"\nshard = 0\n[[sharded_tables.mapping]]\nstart = \"m\"\nshard = 1\n";
    let user = |id: u32| format!("insert into users (id, handle, email, country) values ({id}, 'h', 'e', 'de')");
    for (change, expected) in [
        (
            ("update categories set name = 'x' where id = 77", "update categories set name = 'c77' where id = 77"),
            &["shard 1: public.categories: rows differ from those of shard 0: id 77 differs"][..],
        ),
        (
            (
                "delete from categories where id in (9, 10)",
                "insert into categories values (9, 'c9', null, 's9'), (10, 'c10', null, 's10')",
            ),
            &[
                "public.categories: rows differ from those of shard 0 (298 here, 300 there): id 9 is missing, 10 is missing",
            ],
        ),
        (
            ("insert into categories values (301, 'x', null, 'x')", "delete from categories where id = 301"),
            &["(301 here, 300 there): id 301 is not on shard 0"],
        ),
        (
            ("update unkeyed set note = null where n = 1", "update unkeyed set note = 'a' where n = 1"),
            &["shard 1: public.unkeyed: rows differ from those of shard 0"],
        ),
        (
            (&*format!("{}; {}", user(5), user(6)), "delete from users where id < 1000"),
            &["shard 1: public.users: 2 rows are here of shard 0, one with id = 5"],
        ),
        (
            (&*user(0), "delete from users where id = 0"),
            &["shard 1: public.users: 1 row is here whose key is in no range, one with id = 0"],
        ),
        (
            ("insert into places values ('Zoo', ''), ('n', '')", "delete from places"),
            &["shard 1: public.places: 1 row is here of shard 0, one with place = Zoo"],
        ),
        (
            ("insert into jobs values (1)", "delete from jobs"),
            &["shard 1: public.jobs: 1 rows are here, where no statement looks for them"],
        ),
    ] {
        check_fault(&cluster, &toml, change, expected);
    }
    assert_eq!(check(&toml, &[]).faults(), [""; 0]);
}

#[test]
fn what_was_begun_and_not_ended_is_named_with_what_mends_it() {
    let cluster = Cluster::start(2, 0);
    cluster.make_shop();
    cluster.sql_everywhere("create table tickets (user_id bigint, id serial); grant all on tickets to public");
    let toml = toml(&cluster);
    let faults = check(&toml, &[]);
    assert_eq!(faults.faults().len(), 1, "{:#?}", faults.lines);
    assert!(
        faults.faults()[0].contains("shard 1: public.tickets_id_seq: its numbers begin at 1"),
        "{:?}",
        faults.lines
    );
    // A proxy that serves gives each shard its block.
    let proxy = Proxy::start(&cluster.toml());
    let starts = "select start_value > 1 from pg_sequences where sequencename = 'tickets_id_seq'";
    support::until(|| cluster.sql(1, Role::Primary, starts) == "t");
    drop(proxy);
    assert_eq!(check(&toml, &[]).faults(), [""; 0]);
    let next = "select setval('tickets_id_seq', 1, false)";
    cluster.sql(1, Role::Primary, "alter sequence tickets_id_seq minvalue 1");
    let mend = "select setval('tickets_id_seq', (select start_value from pg_sequences where sequencename = 'tickets_id_seq'), false)";
    check_fault(&cluster, &toml, (&next.replace("false", "true"), mend), &["its numbers are beyond its block"]);

    // A unique index whose building failed stays behind, invalid.
    cluster.sql(
        1,
        Role::Primary,
        "insert into users (id, handle, email, country) values (1001, 'h', 'e', 'de'), (1002, 'h', 'e', 'de')",
    );
    for shard in 0..2 {
        let built = support::sql(
            &cluster.superuser(cluster.primary(shard)),
            "create unique index concurrently handles on users (handle)",
        );
        assert_eq!(built.err().as_deref(), (shard == 1).then_some("23505"));
    }
    let report = check(&toml, &[]);
    let repair = "public.users: index public.handles is invalid: its building has failed; \
                  repair: /* pgweir: shard=1 */ REINDEX INDEX CONCURRENTLY public.handles";
    assert!(report.faults().iter().any(|fault| fault.contains(repair)), "{:#?}", report.lines);
    // The statement that is named mends it, through pgweir, once the rows do not collide any more.
    cluster.sql(1, Role::Primary, "update users set handle = 'g' where id = 1002");
    let proxy = Proxy::start(&cluster.toml());
    let mended = support::psql_as(
        APP,
        proxy.port,
        "shop",
        PASSWORD,
        &["-c", "/* pgweir: shard=1 */ REINDEX INDEX CONCURRENTLY public.handles"],
    );
    drop(proxy);
    assert!(mended.status.success() || String::from_utf8_lossy(&mended.stderr).contains("owner"), "{mended:?}");
    cluster.sql(1, Role::Primary, "drop index handles");
    cluster.sql(0, Role::Primary, "drop index handles");

    cluster.sql(1, Role::Primary, "begin; create table held (n int); prepare transaction 'elsewhere'");
    support::until(|| {
        check(&toml, &[])
            .faults()
            .iter()
            .any(|fault| fault.contains("transaction 'elsewhere' of postgres has been prepared"))
    });
    cluster.sql(1, Role::Primary, "rollback prepared 'elsewhere'");
    assert_eq!(check(&toml, &[]).faults(), [""; 0]);
}

#[test]
fn constraints_of_one_shard_are_listed_and_are_no_fault() {
    let cluster = Cluster::start(2, 0);
    cluster.make_shop();
    cluster.sql_everywhere(
        "create unique index emails on users (lower(email)); alter table users add unique (handle); \
         alter table posts add constraint mentions foreign key (user_id, id) references posts",
    );
    let report = check(&toml(&cluster), &[]);
    assert_eq!((report.status, report.faults().len()), (Some(0), 0), "{:#?}", report.lines);
    let notes = report.notes().join("\n");
    for expected in [
        ": public.emails: the uniqueness of \"users\" ((…)) holds within each shard only",
        ": public.users_handle_key: the uniqueness of \"users\" (handle) holds within each shard only \
         (It is without the shard key \"id\".)",
    ] {
        assert!(notes.contains(expected), "{notes}");
    }
    assert!(!notes.contains("mentions") && !notes.contains("_pkey"), "{notes}");
}

#[test]
fn servers_that_are_away_or_have_another_role_are_named() {
    let cluster = Cluster::start(2, 1);
    cluster.make_shop();
    let toml = toml(&cluster);
    cluster.primary(1).stop(Stop::Fast);
    let port = cluster.primary(1).port();
    let report = check(&toml, &[]);
    assert_eq!(report.status, Some(1));
    let expected = format!("shard 1: 127.0.0.1:{port}/shop: does not let pgweir in: ");
    assert!(report.faults().iter().any(|fault| fault.starts_with(&expected)), "{:#?}", report.lines);
    assert!(report.faults().contains(&"shard 1: primary: no server of this shard takes writes"), "{:#?}", report.lines);
    assert!(report.last.contains("2 faults"), "{}", report.last);
    cluster.sql(1, Role::Replica(1), "select pg_promote()");
    let port = cluster.replica(1, 1).port();
    let report = check(&toml, &["--json"]);
    let promoted = format!("127.0.0.1:{port}/shop");
    let found = report.lines.iter().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let of_promoted: Vec<_> = found.filter(|found| found["subject"] == promoted.as_str()).collect();
    assert_eq!(of_promoted.len(), 1, "{:#?}", report.lines);
    assert_eq!(of_promoted[0]["level"], "fault");
    assert_eq!(of_promoted[0]["shard"], 1);
    assert_eq!(of_promoted[0]["text"], "takes writes, and is configured as a replica");
}
