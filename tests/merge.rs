//! Merged answers against those of one PostgreSQL: random values of many types, split in three.

#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use futures_util::TryStreamExt;
use pgweir::merge::{Aggregation, Columns, Final, Merge, Merger, SortKey, Step};
use std::sync::OnceLock;
use support::{Cluster, PASSWORD, Role};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

const INPUTS: usize = 3;
const LIMIT: usize = 1 << 28;

/// A type, an SQL expression over `g` for random values of it, and values at the edges.
const TYPES: &[(&str, &str, &[&str])] = &[
    ("bool", "random() < 0.5", &[]),
    ("int2", "(random() * 65535 - 32768)", &["-32768", "32767", "0", "-1"]),
    ("int4", "(random() * 2000 - 1000)", &["-2147483648", "2147483647", "0", "-1"]),
    ("int8", "(random() * 1e18 - 5e17)", &["-9223372036854775808", "9223372036854775807", "0", "-1"]),
    ("oid", "(random() * 4e9)::int8", &["0", "4294967295"]),
    ("float4", "(random() - 0.5) * 10 ^ (random() * 60 - 30)", FLOATS),
    ("float8", "(random() - 0.5) * 10 ^ (random() * 500 - 250)", FLOATS),
    (
        "numeric",
        "round(((random() - 0.5) * 10 ^ (random() * 40 - 20))::numeric, (random() * 25)::int)",
        &[
            "NaN",
            "Infinity",
            "-Infinity",
            "0",
            "0.00",
            "-0.001",
            "1",
            "1.0",
            "1.00",
            "9999",
            "10000",
            "10000.0001",
            "0.0001",
            "0.00001",
            "-10000",
            "-9999.9999",
            "1e50",
            "-1e50",
            "1e-50",
            "1234567890123456789012345678.9",
            "1e5000",
            "-1e5000",
            "1e-5000",
            "100000000",
            "99999999",
        ],
    ),
    ("text collate \"C\"", "substr(md5(g::text), 1, (random() * 4)::int)", TEXTS),
    ("varchar collate \"C\"", "chr((random() * 50000)::int + 128) || g", TEXTS),
    (
        "char(6) collate \"C\"",
        "substr(md5(g::text), 1, (random() * 3)::int)",
        &["", "a", "a ", "a\t", "a b", "ab", "é"],
    ),
    ("name", "substr(md5(g::text), 1, (random() * 4)::int)", TEXTS),
    ("\"char\"", "chr((random() * 94 + 32)::int)", &["", "a", "~", "\\"]),
    (
        "bytea",
        "decode(substr(md5(g::text), 1, 2 * (random() * 5)::int), 'hex')",
        &["\\x", "\\x00", "\\x0000", "\\x00ff", "\\x01", "\\xff", "\\x5c", "\\x5c78", "\\x61", "\\x6100"],
    ),
    ("uuid", "md5(g::text)::uuid", &[]),
    ("macaddr", "substr(md5(g::text), 1, 12)::macaddr", &[]),
    ("macaddr8", "substr(md5(g::text), 1, 16)::macaddr8", &[]),
    (
        "date",
        "date '2000-01-01' + (random() * 2000000 - 1000000)::int",
        &["infinity", "-infinity", "0044-03-15 BC", "0001-01-01", "0001-12-31 BC", "5874897-12-31", "4713-01-01 BC"],
    ),
    (
        "timestamp",
        "timestamp '1980-01-01' + random() * interval '60 years' - random() * interval '3000 years'",
        MOMENTS,
    ),
    (
        "timestamptz",
        "timestamptz '1980-01-01' + random() * interval '60 years' - random() * interval '200 years'",
        MOMENTS,
    ),
    ("time", "time '00:00' + random() * interval '24 hours'", &["00:00", "24:00", "23:59:59.999999", "12:00:00.5"]),
    (
        "timetz",
        "(time '00:00' + random() * interval '24 hours' || to_char((random() * 20 - 10)::int, 'SG00'))",
        &["00:00+00", "24:00-12", "12:00+01", "11:00+00", "13:00+02", "12:00+05:30", "12:00-03:30:15"],
    ),
    (
        "interval",
        "make_interval(mons => (random() * 40 - 20)::int, days => (random() * 40 - 20)::int, secs => random() * 9e4 - 4e4)",
        &[
            "1 mon",
            "30 days",
            "720:00:00",
            "1 mon -1 day",
            "29 days 24:00:00",
            "0",
            "-1 year",
            "-12 mons",
            "1 year 1 mon",
            "178000000 years",
            "-178000000 years",
            "-00:00:00.000001",
            "1 mon -1 day +24:00:00",
            "1000000:00:00",
        ],
    ),
    (
        "inet",
        "('10.' || (random() * 3)::int || '.' || (random() * 3)::int || '.0/' || (random() * 32)::int)",
        &[
            "10.0.0.0",
            "10.0.0.0/8",
            "10.0.0.0/16",
            "10.0.0.1/8",
            "::1",
            "::/0",
            "2001:db8::/32",
            "2001:db8::1/32",
            "255.255.255.255",
            "0.0.0.0/0",
            "::ffff:10.0.0.0/104",
        ],
    ),
    ("cidr", "set_masklen(('10.' || (random() * 3)::int || '.0.0')::cidr, (random() * 32)::int)", &["10/8", "::/0"]),
    ("bit(5)", "(random() * 31)::int::bit(5)", &[]),
    (
        "varbit",
        "substring(((random() * 1e9)::int::bit(32))::varbit, 1, (random() * 12)::int)",
        &["", "0", "00", "000000000", "1"],
    ),
];

const FLOATS: &[&str] =
    &["NaN", "Infinity", "-Infinity", "0", "-0", "1e-30", "-1e-30", "1", "1.5", "-1.5", "1e15", "1e6", "123456"];
const TEXTS: &[&str] =
    &["", " ", "a", "A", "b", "ab", "a b", "a\u{1}", "é", "ä", "z", "日本", "\u{10ffff}", "~", "\u{fffd}"];
const MOMENTS: &[&str] = &[
    "infinity",
    "-infinity",
    "0044-03-15 12:00:00 BC",
    "0001-12-31 23:59:59.999999 BC",
    "0001-01-01",
    "294276-12-31",
    "1920-05-01 12:00:00.5",
    "2024-03-31 00:30:00",
    "2024-03-31 01:30:00",
    "2024-10-27 00:30:00",
    "2024-10-27 01:30:00",
];

#[test]
fn sorted_and_distinct_values_of_every_type_are_as_one_server_gives_them() {
    with_server(async |client| {
        for (index, (kind, values, edges)) in TYPES.iter().enumerate() {
            let table = format!("values_{index}");
            fill(client, &table, kind, values, edges).await;
            for order in ["ASC", "DESC", "ASC NULLS FIRST", "DESC NULLS LAST"] {
                check_order(client, &table, kind, order).await;
            }
            check_distinct(client, &table, kind).await;
            check_extremes(client, &table, kind).await;
        }
        let zones = ["Asia/Kolkata", "America/St_Johns", "Europe/Amsterdam", "Africa/Monrovia"];
        let settings = zones.map(|zone| format!("timezone = '{zone}'")).into_iter();
        for setting in settings.chain(["bytea_output = 'escape'".to_owned()]) {
            client.batch_execute(&format!("SET {setting}")).await.unwrap();
            for (index, (kind, ..)) in TYPES.iter().enumerate().filter(|(_, (kind, ..))| is_shown_by_setting(kind)) {
                check_order(client, &format!("values_{index}"), kind, "ASC").await;
            }
        }
    });
}

#[test]
fn equal_arrays_are_one_row() {
    with_server(async |client| {
        for (kind, elements) in
            [("int4[]", "(g % 4)"), ("text[]", "chr(65 + g % 4)"), ("uuid[]", "md5((g % 4)::text)::uuid")]
        {
            let values = format!("ARRAY[{elements}, NULL, {elements}][1:1 + g % 3]");
            let table = format!("arrays_{}", &kind[..3]);
            fill(client, &table, kind, &values, &["{}", "{NULL}"]).await;
            check_distinct(client, &table, kind).await;
        }
    });
}

/// A column's type, an expression for its values, and the sums that are checked.
const SUMMED: &[(&str, &str, bool)] = &[
    ("int2", "(random() * 60000 - 30000)", true),
    ("int4", "(random() * 10 ^ (random() * 9))", true),
    ("int8", "((random() - 0.3) * 10 ^ (random() * 18))", true),
    ("numeric", "round(((random() - 0.4) * 10 ^ (random() * 40 - 20))::numeric, (random() * 25)::int)", true),
    ("numeric", "round(((random() - 0.4) * 10 ^ (random() * 6))::numeric, (random() * 3)::int)", true),
    ("numeric", "(ARRAY['NaN', 'Infinity', '-Infinity', 0, 1.5, 1e30, 1e-30])[1 + (random() * 6)::int]::numeric", true),
    ("numeric", "(ARRAY['0', '0.00', '1e1000', '1e-1000', '-3'])[1 + (random() * 4)::int]::numeric", true),
    // Eighths: their sums do not depend on the order of addition.
    ("float8", "(random() * 1e6 - 5e5)::int / 8.0", true),
    ("float8", "(ARRAY['NaN', 'Infinity', '-Infinity', 0, -0.0, 2])[1 + (random() * 5)::int]::float8", true),
    ("float4", "(random() * 1e4 - 5e3)::int / 8.0", false),
    (
        "interval",
        "make_interval(mons => (random() * 40 - 20)::int, days => (random() * 40 - 20)::int, secs => random() * 9e4 - 4e4)",
        false,
    ),
];

#[test]
fn aggregates_of_parts_are_those_of_the_whole() {
    with_server(async |client| {
        for (index, (kind, values, has_average)) in SUMMED.iter().enumerate() {
            let table = format!("summed_{index}");
            let create = format!(
                "CREATE TABLE {table} AS SELECT g % 700 AS k, (random() * 2)::int AS part,
                 CASE WHEN random() < 0.9 THEN ({values})::{kind} END AS v FROM generate_series(1, 3000) g"
            );
            client.batch_execute(&create).await.unwrap();
            check_aggregates(client, &table, *has_average, "k").await;
            check_aggregates(client, &table, *has_average, "k % 3").await;
            check_aggregates(client, &table, *has_average, "").await;
            client.batch_execute(&format!("DELETE FROM {table}")).await.unwrap();
            check_aggregates(client, &table, *has_average, "").await;
        }
    });
}

/// One value per group: what is shown is how we write a sum.
#[test]
fn floats_are_written_as_the_server_writes_them() {
    with_server(async |client| {
        for (kind, exponents) in
            [("float8", "random() * 600 - 300"), ("float8", "random() * 22 - 6"), ("float4", "random() * 14 - 6")]
        {
            let create = format!(
                "DROP TABLE IF EXISTS floats; CREATE TABLE floats AS SELECT g AS k, 0 AS part,
                 (round((random() - 0.5)::numeric, (random() * 18)::int)::float8 * 10 ^ ({exponents}))::{kind} AS v
                 FROM generate_series(1, 4000) g;
                 INSERT INTO floats SELECT 10000 + g, 0, ('1e' || g)::{kind} FROM generate_series(-30, 30) g WHERE g <> 23"
            );
            client.batch_execute(&create).await.unwrap();
            check_aggregates(client, "floats", false, "k").await;
        }
    });
}

#[test]
fn booleans_are_combined_as_the_server_does() {
    with_server(async |client| {
        let create = "CREATE TABLE flags AS SELECT g % 40 AS k, (random() * 2)::int AS part,
                      CASE WHEN random() < 0.7 THEN random() < 0.5 END AS v FROM generate_series(1, 150) g";
        client.batch_execute(create).await.unwrap();
        let select =
            |part: &str| format!("SELECT k, bool_and(v), bool_or(v) FROM flags WHERE {part} GROUP BY k ORDER BY k");
        let outputs = vec![Final::Group(0), Final::BoolAnd(1), Final::BoolOr(2)];
        let aggregate = Some(Aggregation { group: vec![0], outputs });
        check_whole(client, select, &Merge { aggregate, order: vec![by(0, "ASC")], ..Merge::default() }).await;
    });
}

async fn check_order(client: &Client, table: &str, kind: &str, order: &str) {
    let part = |part: usize| {
        format!(
            "SELECT v, rank FROM (SELECT part, v, dense_rank() OVER (ORDER BY v {order}) AS rank FROM {table}) ranked
             WHERE part = {part} ORDER BY v {order}"
        )
    };
    let all = format!("SELECT dense_rank() OVER (ORDER BY v {order}) AS rank FROM {table} ORDER BY 1");
    for binary in [false, true] {
        let merge = Merge { order: vec![by(0, order)], ..Merge::default() };
        let merged = merged(client, [part(0), part(1), part(2)], &merge, binary).await;
        let ranks: Vec<Bytes> = merged.iter().map(|row| cells(row)[1].clone().unwrap()).collect();
        let expected: Vec<Bytes> =
            rows(client, &all, binary).await.iter().map(|row| cells(row)[0].clone().unwrap()).collect();
        assert!(expected.len() > 300);
        assert!(ranks == expected, "{kind} {order} binary={binary}: {}", first_difference(&merged, &ranks, &expected));
    }
}

async fn check_distinct(client: &Client, table: &str, kind: &str) {
    let part = |part: usize| format!("SELECT DISTINCT v FROM {table} WHERE part = {part}");
    let all = format!("SELECT DISTINCT v FROM {table}");
    for binary in [false, true] {
        let merge = Merge { distinct: true, ..Merge::default() };
        let merged = merged(client, [part(0), part(1), part(2)], &merge, binary).await;
        let expected = rows(client, &all, binary).await;
        assert_eq!(merged.len(), expected.len(), "distinct {kind} binary={binary}");
    }
}

/// The first and the last by the server's order are minimum and maximum; equal values may look different.
async fn check_extremes(client: &Client, table: &str, kind: &str) {
    let part = |part: usize| {
        format!(
            "SELECT (array_agg(v ORDER BY v) FILTER (WHERE v IS NOT NULL))[1],
             (array_agg(v ORDER BY v DESC) FILTER (WHERE v IS NOT NULL))[1] FROM {table} WHERE part = {part}"
        )
    };
    let aggregate = Some(Aggregation { group: vec![], outputs: vec![Final::Min(0), Final::Max(1)] });
    let merge = Merge { aggregate, bytewise: vec![0, 1], ..Merge::default() };
    let merged = merged(client, [part(0), part(1), part(2)], &merge, false).await;
    let [least, greatest] = [0, 1].map(|column| cells(&merged[0])[column].clone().unwrap());
    let quote = |value: &[u8]| std::str::from_utf8(value).unwrap().replace('\'', "''");
    let plain = kind.split(" collate").next().unwrap();
    let beyond = format!(
        "SELECT count(*) FROM {table} WHERE v < '{}'::{plain} OR v > '{}'::{plain}",
        quote(&least),
        quote(&greatest)
    );
    let beyond: i64 = client.query_one(&beyond, &[]).await.unwrap().get(0);
    assert_eq!((merged.len(), beyond), (1, 0), "{kind}: {least:?} {greatest:?}");
}

/// Rows must be the server's own, byte by byte.
async fn check_aggregates(client: &Client, table: &str, has_average: bool, group: &str) {
    let average = if has_average { ", avg(v), sum(v), count(v)" } else { "" };
    let (key, clause) = match group {
        "" => ("0".to_owned(), String::new()),
        group => (group.to_owned(), format!("GROUP BY {group} ORDER BY {group}")),
    };
    let select = |part: &str| {
        format!(
            "SELECT max({key}) AS k, count(*), count(v), sum(v), min(v), max(v){average} FROM {table} WHERE {part} {clause}"
        )
    };
    let first = if group.is_empty() { Final::Max(0) } else { Final::Group(0) };
    let mut outputs = vec![first, Final::Count(1), Final::Count(2), Final::Sum(3), Final::Min(4), Final::Max(5)];
    if has_average {
        outputs.extend([Final::Avg { shown: 6, sum: 7, count: 8 }, Final::Sum(7), Final::Count(8)]);
    }
    let group = if group.is_empty() { vec![] } else { vec![0] };
    let order = group.iter().map(|&column| by(column, "ASC")).collect();
    let aggregate = Some(Aggregation { group, outputs });
    check_whole(client, select, &Merge { aggregate, order, ..Merge::default() }).await;
}

async fn check_whole(client: &Client, select: impl Fn(&str) -> String, merge: &Merge) {
    for binary in [false, true] {
        let parts = [0, 1, 2].map(|part| select(&format!("part = {part}")));
        let merged = merged(client, parts, merge, binary).await;
        let expected = rows(client, &select("true"), binary).await;
        let differing = merged.iter().zip(&expected).find(|(merged, expected)| merged != expected);
        let shown = differing.map(|(merged, expected)| (cells(merged), cells(expected)));
        assert!(shown.is_none(), "{} binary={binary}:\n{shown:?}", select("true"));
        assert_eq!(merged.len(), expected.len());
    }
}

/// What the merger makes of the answers to these queries.
async fn merged(client: &Client, queries: [String; INPUTS], merge: &Merge, binary: bool) -> Vec<Bytes> {
    let columns = described(client, &queries[0]).await.with_formats(&[i16::from(binary)]);
    let mut inputs = Vec::new();
    for query in &queries {
        inputs.push(rows(client, query, binary).await.into_iter());
    }
    let mut merger = Merger::new(merge, &columns, INPUTS, LIMIT).unwrap();
    let mut answer = Vec::new();
    loop {
        match merger.step().unwrap() {
            Step::Need(input) => match inputs[input].next() {
                Some(row) => merger.feed(input, row).unwrap(),
                None => merger.end(input).unwrap(),
            },
            Step::Row(row) => answer.push(row),
            Step::Done => return answer,
        }
    }
}

/// DataRow bodies: a binary COPY has rows of the same layout.
async fn rows(client: &Client, query: &str, binary: bool) -> Vec<Bytes> {
    if !binary {
        let messages = client.simple_query(query).await.unwrap();
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        return rows.map(|row| body((0..row.len()).map(|column| row.get(column)))).collect();
    }
    let copy = format!("COPY ({query}) TO STDOUT (FORMAT binary)");
    let chunks: Vec<Bytes> = client.copy_out(&copy).await.unwrap().try_collect().await.unwrap();
    let all = Bytes::from(chunks.concat());
    let mut at = HEADER_BYTES;
    let mut rows = Vec::new();
    while all[at..at + 2] != [255, 255] {
        let start = at;
        at += 2;
        for _ in 0..u16::from_be_bytes([all[start], all[start + 1]]) {
            let length = i32::from_be_bytes(all[at..at + 4].try_into().unwrap());
            at += 4 + length.max(0) as usize;
        }
        rows.push(all.slice(start..at));
    }
    rows
}

/// Of a binary COPY.
const HEADER_BYTES: usize = 19;

fn body<'a>(cells: impl ExactSizeIterator<Item = Option<&'a str>>) -> Bytes {
    let mut body = (cells.len() as u16).to_be_bytes().to_vec();
    for cell in cells {
        body.extend_from_slice(&cell.map_or(-1, |cell| cell.len() as i32).to_be_bytes());
        body.extend_from_slice(cell.unwrap_or_default().as_bytes());
    }
    body.into()
}

fn cells(row: &Bytes) -> Vec<Option<Bytes>> {
    let mut rest = row.slice(2..);
    let mut cells = Vec::new();
    while !rest.is_empty() {
        let length = i32::from_be_bytes(rest[..4].try_into().unwrap());
        let end = 4 + length.max(0) as usize;
        cells.push((length >= 0).then(|| rest.slice(4..end)));
        rest = rest.slice(end..);
    }
    cells
}

async fn described(client: &Client, query: &str) -> Columns {
    let statement = client.prepare(query).await.unwrap();
    let mut body = (statement.columns().len() as u16).to_be_bytes().to_vec();
    for column in statement.columns() {
        body.extend_from_slice(column.name().as_bytes());
        body.extend_from_slice(&[0; 7]);
        body.extend_from_slice(&column.type_().oid().to_be_bytes());
        body.extend_from_slice(&[0; 8]);
    }
    Columns::parse(&body).unwrap()
}

async fn fill(client: &Client, table: &str, kind: &str, values: &str, edges: &[&str]) {
    let plain = kind.split(" collate").next().unwrap();
    let create = format!(
        "CREATE TABLE {table} (part int, v {kind});
         INSERT INTO {table} SELECT (random() * 2)::int, ({values})::{plain} FROM generate_series(1, 300) g;
         INSERT INTO {table} SELECT g % 3, NULL FROM generate_series(0, 3) g"
    );
    client.batch_execute(&create).await.unwrap();
    for edge in edges {
        let insert = format!("INSERT INTO {table} SELECT g, '{edge}'::{plain} FROM generate_series(0, 2) g");
        client.batch_execute(&insert).await.unwrap();
    }
}

fn by(column: usize, order: &str) -> SortKey {
    let descending = order.starts_with("DESC");
    let nulls_first = order.ends_with("NULLS FIRST") || (descending && !order.ends_with("NULLS LAST"));
    SortKey { column, descending, nulls_first, collation_is_bytes: true }
}

fn is_shown_by_setting(kind: &str) -> bool {
    ["timestamptz", "timetz", "bytea"].contains(&kind)
}

fn first_difference(merged: &[Bytes], ranks: &[Bytes], expected: &[Bytes]) -> String {
    let at = ranks.iter().zip(expected).position(|(rank, expected)| rank != expected).unwrap_or(0);
    let around = merged[at.saturating_sub(2)..].iter().take(4).map(cells).collect::<Vec<_>>();
    format!("{} of {} rows, at {at}: {around:?}", ranks.len(), expected.len())
}

fn with_server(test: impl AsyncFnOnce(&Client)) {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| Cluster::start(1, 0));
    let port = cluster.server(0, Role::Primary).port();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config = format!("host=127.0.0.1 port={port} user=postgres password='{PASSWORD}' dbname=shop");
        let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        client.batch_execute("SELECT setseed(0.25)").await.unwrap();
        test(&client).await;
        connection.abort();
    });
}
