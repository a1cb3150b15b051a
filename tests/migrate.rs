//! Migrations: on all shards or on none.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;

use pgweir::control::connect::Login;
use pgweir::control::migrate::{MigrateError, Migrations, Report, apply};
use support::{Cluster, Role, Stop};

#[test]
fn a_file_that_fails_on_one_shard_leaves_nothing_on_the_others() {
    let cluster = Cluster::start(2, 0);
    let folder = folder(&[("1_a.sql", "create table a (n int)"), ("2_b.sql", "create table b (n int);\nselect 1")]);
    cluster.sql(1, Role::Primary, "create table b (n int)");
    check_fails(&cluster, folder.path(), "2_b.sql failed, nothing was changed on any shard");
    check_everywhere(&cluster, "select to_regclass('a'), to_regclass('pgweir.migrations')", "|");

    cluster.sql(1, Role::Primary, "drop table b");
    assert_eq!(migrate(&cluster, folder.path()).unwrap().applied.len(), 2 * (5 + 2));
    assert_eq!(migrate(&cluster, folder.path()).unwrap(), Report::default());
    check_everywhere(&cluster, "select to_regclass('a'), to_regclass('b'), count(*) from pgweir.migrations", "a|b|7");

    fs::write(folder.path().join("1_a.sql"), "create table a (n bigint)").unwrap();
    check_fails(&cluster, folder.path(), "1_a.sql was changed after it was applied");
}

#[test]
fn a_file_cannot_end_the_transaction() {
    let cluster = Cluster::start(2, 0);
    let folder = folder(&[("1_a.sql", "create table a (n int); commit; create table b (n int)")]);
    check_fails(&cluster, folder.path(), "1_a.sql failed, nothing was changed on any shard");
    check_everywhere(&cluster, "select to_regclass('a')", "");
}

#[test]
fn a_run_that_died_is_finished_by_the_next() {
    let cluster = Cluster::start(2, 0);
    migrate(&cluster, folder(&[]).path()).unwrap();
    // One run had committed on shard 1, the other nowhere.
    let recorded = "insert into pgweir.migrations values ('x/1.sql', 'sum', 'pgweir-migrate:one')";
    cluster.sql(1, Role::Primary, recorded);
    for (table, run) in [("kept", "one"), ("lost", "two")] {
        let sql = format!("begin; create table {table} (n int); prepare transaction 'pgweir-migrate:{run}:0'");
        cluster.sql(0, Role::Primary, &sql);
    }
    migrate(&cluster, folder(&[]).path()).unwrap();
    let left = "select to_regclass('kept'), to_regclass('lost'), count(*) from pg_prepared_xacts";
    assert_eq!(cluster.sql(0, Role::Primary, left), "kept||0");
}

#[test]
fn two_runs_at_once_apply_each_file_once() {
    let cluster = Cluster::start(2, 0);
    let folder = folder(&[("1_a.sql", "create table a (n int)")]);
    let runs: Vec<_> = (0..2).map(|_| (cluster.primaries(), Migrations::read(folder.path()).unwrap())).collect();
    let applied = support::wait_for(async move {
        let [first, second] = <[(Vec<Login>, Migrations); 2]>::try_from(runs).unwrap();
        let (first_folders, second_folders) = ([first.1], [second.1]);
        let (first, second) = tokio::join!(apply(&first.0, &first_folders), apply(&second.0, &second_folders));
        first.unwrap().applied.len() + second.unwrap().applied.len()
    });
    assert_eq!(applied, 2 * (5 + 1));
}

#[test]
fn servers_that_cannot_prepare_commit_one_after_another() {
    let cluster = Cluster::start(2, 0);
    for shard in 0..2 {
        cluster.sql(shard, Role::Primary, "alter system set max_prepared_transactions = 0");
        cluster.primary(shard).stop(Stop::Fast);
        cluster.primary(shard).start().unwrap();
    }
    let folder = folder(&[("1_a.sql", "create table a (n int)")]);
    migrate(&cluster, folder.path()).unwrap();
    check_everywhere(&cluster, "select to_regclass('a')", "a");
}

#[test]
fn any_role_can_decide_and_none_can_change_a_decision() {
    let cluster = Cluster::start(1, 0);
    cluster.make_shop();
    let app = cluster.app(cluster.primary(0));
    for (sql, expected) in [
        ("select pgweir.decide('gid-1')", Ok("")),
        ("select pgweir.decide('gid-1')", Err("23505")),
        ("select pgweir.decide('')", Err("23514")),
        ("select * from pgweir.decisions", Err("42501")),
        ("insert into pgweir.decisions values ('gid-2', 'aborted')", Err("42501")),
        ("create table pgweir.decoy (n int)", Err("42501")),
        ("select tableowner from pg_tables where tablename = 'order_items'", Ok("app")),
    ] {
        let answer = support::sql(&app, sql);
        assert_eq!(answer.as_deref().map_err(String::as_str), expected, "{sql}");
    }
    assert_eq!(cluster.sql(0, Role::Primary, "select gid, outcome from pgweir.decisions"), "gid-1|committed");
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, sql) in files {
        fs::write(folder.path().join(name), sql).unwrap();
    }
    folder
}

fn migrate(cluster: &Cluster, folder: &Path) -> Result<Report, MigrateError> {
    let (servers, migrations) = (cluster.primaries(), Migrations::read(folder).unwrap());
    support::wait_for(async move { apply(&servers, &[migrations]).await })
}

fn check_fails(cluster: &Cluster, folder: &Path, expected: &str) {
    let failed = migrate(cluster, folder).unwrap_err().to_string();
    assert!(failed.contains(expected), "{failed}");
    check_everywhere(cluster, "select count(*) from pg_prepared_xacts", "0");
}

fn check_everywhere(cluster: &Cluster, sql: &str, expected: &str) {
    assert!(cluster.sql_everywhere(sql).iter().all(|answer| answer == expected), "{:?}", cluster.sql_everywhere(sql));
}
