//! The same statements on the sharded cluster and on one PostgreSQL that holds all rows: equal answers, or a refusal.
//!
//! `answered.sql` must be answered as that server answers, errors by SQLSTATE included; what `refused.sql` holds may be
//! refused with 0A000, each for the reason that stands above it, and must not be answered otherwise. A statement that
//! ends in a fixed ORDER BY gives its rows in that order, any other in any order.

use std::collections::BTreeMap;

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::generated;
use crate::support::{Cluster, PASSWORD, SUPERUSER, wait_for};
use pgweir::control::connect::Login;
use pgweir::control::migrate::{Migrations, apply};

/// Columns, rows and command tag, or the SQLSTATE.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    Rows { columns: Vec<String>, rows: Vec<String>, count: u64 },
    Error { sqlstate: String, message: String },
}

#[tokio::test]
async fn answers_are_those_of_one_postgresql() {
    let cluster = crate::shop().1;
    let whole = whole(cluster).await;
    let sharded = crate::client().await;
    copy_rows(&whole, &sharded).await;
    let mut failures = Vec::new();
    for (_, statement) in statements(include_str!("answered.sql")) {
        let (expected, found) = (ask(&whole, statement).await, ask(&sharded, statement).await);
        if !alike(&expected, &found, is_ordered(statement)) {
            failures.push(format!("{statement}\n  one PostgreSQL: {expected:?}\n  sharded:        {found:?}"));
        }
    }
    let mut refusals: BTreeMap<&str, usize> = BTreeMap::new();
    for (reason, statement) in statements(include_str!("refused.sql")) {
        match ask(&sharded, statement).await {
            Answer::Error { sqlstate, message } if sqlstate == "0A000" && message.contains(reason) => {
                *refusals.entry(reason).or_default() += 1;
            }
            found => failures.push(format!("{statement}\n  refusal: {reason}\n  sharded: {found:?}")),
        }
    }
    for (reason, count) in &refusals {
        println!("{count:4} refused: {reason}");
    }
    compare_tables(&whole, &sharded, &mut failures).await;
    for table in ["products", "categories"] {
        let all = cluster.sql_everywhere(&format!("select md5(string_agg(t::text, '|' order by id)) from {table} t"));
        if all.iter().any(|rows| *rows != all[0]) {
            failures.push(format!("{table} is not the same on every shard"));
        }
    }
    let counts = generated::compare(&whole, &sharded, &mut failures).await;
    println!("{counts}");
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
    assert!(counts.alike > 19 * counts.refused.values().sum::<usize>(), "too much is refused");
}

/// Statements, one a line, each with the comment above it.
fn statements(text: &str) -> Vec<(&str, &str)> {
    let mut comment = "";
    let mut found = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix("-- ") {
            Some(words) => comment = words,
            None => found.push((comment, line)),
        }
    }
    assert!(!found.is_empty());
    found
}

/// A database on its own that holds every row, with the shop's tables.
async fn whole(cluster: &Cluster) -> Client {
    cluster.sql(0, crate::Role::Primary, "create database whole");
    let Login { host, port, .. } = cluster.superuser(cluster.primary(0));
    let login = Login { database: "whole".to_owned(), ..cluster.superuser(cluster.primary(0)) };
    wait_for(async move { apply(&[login], &[Migrations::shop()]).await.unwrap() });
    let login = format!("host={host} port={port} user={SUPERUSER} password='{PASSWORD}' dbname=whole");
    let (client, connection) = tokio_postgres::connect(&login, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(include_str!("rows.sql")).await.unwrap();
    client
}

/// Brings every row to the cluster, in statements of many rows.
async fn copy_rows(whole: &Client, sharded: &Client) {
    for table in TABLES {
        let mut rows = Vec::new();
        for message in whole.simple_query(&format!("select * from {table} order by 1, 2")).await.unwrap() {
            if let SimpleQueryMessage::Row(row) = message {
                let literal = |column: usize| {
                    row.get(column)
                        .map_or_else(|| "NULL".to_owned(), |value| format!("'{}'", value.replace('\'', "''")))
                };
                rows.push(format!("({})", (0..row.len()).map(literal).collect::<Vec<_>>().join(", ")));
            }
        }
        let insert = format!("insert into {table} values {}", rows.join(", "));
        sharded.simple_query(&insert).await.unwrap_or_else(|cause| panic!("{table}: {cause:?}"));
    }
}

async fn compare_tables(whole: &Client, sharded: &Client, failures: &mut Vec<String>) {
    for table in TABLES {
        let statement = format!("select * from {table} order by 1, 2");
        let (expected, found) = (ask(whole, &statement).await, ask(sharded, &statement).await);
        if !alike(&expected, &found, false) {
            failures.push(format!("{statement}\n  one PostgreSQL: {expected:?}\n  sharded:        {found:?}"));
        }
    }
}

pub(crate) async fn ask(client: &Client, statement: &str) -> Answer {
    let messages = match client.simple_query(statement).await {
        Ok(messages) => messages,
        Err(cause) => {
            let error = cause.as_db_error().unwrap_or_else(|| panic!("{statement}: {cause:?}"));
            return Answer::Error { sqlstate: error.code().code().to_owned(), message: error.message().to_owned() };
        }
    };
    let (mut names, mut rows, mut count) = (Vec::new(), Vec::new(), 0);
    for message in messages {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                names = columns.iter().map(|column| column.name().to_owned()).collect();
            }
            SimpleQueryMessage::Row(row) => {
                let values = (0..row.len()).map(|column| row.get(column).unwrap_or("NULL"));
                rows.push(values.collect::<Vec<_>>().join("|"));
            }
            SimpleQueryMessage::CommandComplete(affected) => count = affected,
            _ => {}
        }
    }
    Answer::Rows { columns: names, rows, count }
}

pub(crate) fn alike(expected: &Answer, found: &Answer, ordered: bool) -> bool {
    let sorted = |rows: &[String]| {
        let mut rows = rows.to_vec();
        if !ordered {
            rows.sort_unstable();
        }
        rows
    };
    match (expected, found) {
        (
            Answer::Rows { columns, rows, count },
            Answer::Rows { columns: other_columns, rows: other_rows, count: other_count },
        ) => columns == other_columns && count == other_count && sorted(rows) == sorted(other_rows),
        (Answer::Error { sqlstate, .. }, Answer::Error { sqlstate: other, .. }) => sqlstate == other,
        _ => false,
    }
}

/// ORDER BY stands outside of all parentheses.
pub(crate) fn is_ordered(statement: &str) -> bool {
    let mut depth = 0;
    let outer = |letter: &char| {
        depth += match letter {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        depth == 0
    };
    statement.chars().filter(outer).collect::<String>().contains("order by")
}

const TABLES: [&str; 8] = ["categories", "products", "users", "orders", "order_items", "carts", "posts", "follows"];
