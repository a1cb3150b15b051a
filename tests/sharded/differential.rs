//! The same statements on the sharded cluster and on one PostgreSQL that holds all rows: equal answers, or a refusal.
//!
//! `answered.sql` must be answered as that server answers, errors by SQLSTATE included; what `refused.sql` holds may be
//! refused with 0A000, each for the reason that stands above it, and must not be answered otherwise. A statement that
//! ends in a fixed ORDER BY gives its rows in that order, any other in any order.

use std::collections::BTreeMap;

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::support::{Cluster, PASSWORD, SUPERUSER, wait_for};
use pgweir::control::connect::Login;
use pgweir::control::migrate::{Migrations, apply};

/// Columns, rows and command tag, or the SQLSTATE.
#[derive(Debug, PartialEq)]
enum Answer {
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
    let (answered, refused) = generated(&whole, &sharded, &mut failures).await;
    println!("{answered} generated statements answered alike, {refused} refused");
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
    assert!(answered > refused, "too much is refused");
}

/// Statements put together at random: answered alike, or refused with 0A000.
async fn generated(whole: &Client, sharded: &Client, failures: &mut Vec<String>) -> (usize, usize) {
    let rounds = std::env::var("PGWEIR_STATEMENTS").map_or(400, |count| count.parse().unwrap());
    let mut pieces = Pieces(0x9E37_79B9_7F4A_7C15);
    let (mut answered, mut refused) = (0, 0);
    for _ in 0..rounds {
        let statement = pieces.statement();
        let (expected, found) = (ask(whole, &statement).await, ask(sharded, &statement).await);
        match &found {
            Answer::Error { sqlstate, .. } if sqlstate == "0A000" => refused += 1,
            _ if alike(&expected, &found, is_ordered(&statement)) => answered += 1,
            _ => failures.push(format!("{statement}\n  one PostgreSQL: {expected:?}\n  sharded:        {found:?}")),
        }
    }
    (answered, refused)
}

/// A source of numbers (xorshift), and of words chosen by them.
struct Pieces(u64);

impl Pieces {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn some(&mut self, of: &[&str], least: usize) -> Vec<String> {
        let count = least + self.below(3);
        (0..count).map(|_| self.one(of).to_owned()).collect()
    }

    /// A query over `u`, which is always there, and perhaps `o`.
    fn statement(&mut self) -> String {
        let (from, has_orders) = [
            ("users u", false),
            ("users u", false),
            ("users u join orders o on o.user_id = u.id", true),
            ("users u left join orders o on u.id = o.user_id", true),
            ("users u left join orders o on u.id = o.user_id and o.gift", true),
            ("users u left join orders o on o.note = u.full_name", true),
            ("orders o right join users u on u.id = o.user_id", true),
            ("users u full join orders o on u.id = o.user_id", true),
            ("users u, orders o", true),
            ("users u join products p on p.id = u.id % 10 + 1 left join orders o on o.user_id = u.id", true),
        ][self.below(10)];
        let condition = self.condition(3, has_orders);
        let columns: &[&str] = if has_orders { &[USER_COLUMNS, ORDER_COLUMNS].concat() } else { USER_COLUMNS };
        let unique = if has_orders { "u.id, o.user_id, o.id" } else { "u.id" };
        if self.below(3) == 0 {
            let keys = self.some(GROUP_KEYS, 0);
            let totals = self.some(AGGREGATES, 1);
            let list = [keys.clone(), totals].concat().join(", ");
            let group = if keys.is_empty() { String::new() } else { format!(" group by {}", keys.join(", ")) };
            let ordinals: Vec<String> = (1..=keys.len()).map(|place| place.to_string()).collect();
            let limit = self.one(&["", "", " limit 2", " limit 3 offset 1", " offset 1"]);
            let order =
                if keys.is_empty() { String::new() } else { format!(" order by {}{limit}", ordinals.join(", ")) };
            return format!("select {list} from {from} where {condition}{group}{order}");
        }
        let list = self.some(columns, 1).join(", ");
        match self.below(4) {
            0 => format!("select {list} from {from} where {condition}"),
            1 => format!("select distinct {list} from {from} where {condition}"),
            _ => {
                let keys: Vec<String> = self
                    .some(columns, 0)
                    .into_iter()
                    .map(|key| format!("{key}{}, ", self.one(&["", "", " desc", " nulls first", " desc nulls last"])))
                    .collect();
                let limit = self.one(&["", "", " limit 3", " limit 5 offset 2", " fetch first row only"]);
                format!("select {list} from {from} where {condition} order by {}{unique}{limit}", keys.concat())
            }
        }
    }

    fn condition(&mut self, depth: usize, has_orders: bool) -> String {
        if depth > 0 {
            match self.below(5) {
                0 | 1 => {
                    let (left, right) = (self.condition(depth - 1, has_orders), self.condition(depth - 1, has_orders));
                    return format!("({left} {} {right})", self.one(&["and", "or"]));
                }
                2 => return format!("not {}", self.condition(depth - 1, has_orders)),
                _ => {}
            }
        }
        let conditions: &[&str] =
            if has_orders { &[USER_CONDITIONS, ORDER_CONDITIONS].concat() } else { USER_CONDITIONS };
        format!("({})", self.one(conditions))
    }
}

const USER_COLUMNS: &[&str] =
    &["u.id", "u.handle", "u.full_name", "u.balance", "u.country", "u.verified", "u.balance + 1", "lower(u.full_name)"];
const ORDER_COLUMNS: &[&str] = &["o.id", "o.user_id", "o.total", "o.note", "o.gift"];
const GROUP_KEYS: &[&str] = &["u.country", "u.verified", "u.full_name", "u.id"];
const AGGREGATES: &[&str] =
    &["count(*)", "count(u.full_name)", "sum(u.balance)", "avg(u.balance)", "min(u.handle)", "max(u.id)", "avg(u.id)"];
const USER_CONDITIONS: &[&str] = &[
    "u.id = 5",
    "u.id = 1005",
    "u.id in (5, 6, 1005)",
    "u.id not in (5, null)",
    "u.id between 15 and 1003",
    "u.id > 1000",
    "u.id < 1001",
    "u.id = null",
    "u.id is null",
    "u.id is not null",
    "u.id = '1006'",
    "u.id = any('{7,1007}')",
    "u.id <> 5",
    "u.verified",
    "u.full_name = 'Ann Lee'",
    "u.full_name is null",
    "u.balance > 0",
    "u.country in ('DE', 'PL')",
    "u.id in (select user_id from carts)",
    "u.id not in (select user_id from carts)",
    "exists (select from orders x where x.user_id = u.id and x.gift)",
    "not exists (select from orders x where x.user_id = u.id)",
    "exists (select from orders x where x.note = u.full_name)",
    "u.balance > (select avg(x.total) from orders x where x.user_id = u.id)",
    "true",
    "null",
];
const ORDER_CONDITIONS: &[&str] = &[
    "o.user_id = 5",
    "o.user_id is null",
    "o.user_id = u.id",
    "(o.user_id, o.id) = (1005, 2)",
    "(o.user_id, o.id) >= (1005, 2)",
    "o.total > 50",
    "o.note is null",
    "o.gift",
    "o.user_id <> 1005",
];

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

async fn ask(client: &Client, statement: &str) -> Answer {
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

fn alike(expected: &Answer, found: &Answer, ordered: bool) -> bool {
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
fn is_ordered(statement: &str) -> bool {
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
