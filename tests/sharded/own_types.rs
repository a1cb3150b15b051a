//! Values in binary of types that each shard knows by numbers (OIDs) of its own: clients write and read those of home,
//! wherever a row is.

#[path = "own_types/by_hand.rs"]
mod by_hand;
#[path = "own_types/codecs.rs"]
mod codecs;

use std::sync::OnceLock;

use futures_util::{SinkExt, TryStreamExt, pin_mut};
use tokio_postgres::binary_copy::{BinaryCopyInWriter, BinaryCopyOutStream};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use codecs::{Bytes, Checked, Mood, Pet};

use super::raw::Raw;
use super::{client, client_of, rows, shop};
use crate::support::{APP, PASSWORD, Proxy, Role};

/// Makes the types, whose numbers are others on shard 1, and a table of them for each test. Gives bytes, in hexadecimal, that
/// look like an array of that shard.
fn make_types() -> &'static str {
    static MADE: OnceLock<String> = OnceLock::new();
    MADE.get_or_init(|| {
        let (proxy, cluster) = shop();
        cluster.sql(1, Role::Primary, "create type only_there as (a int); create type only_there_too as enum ('a')");
        let mut client = Raw::log_in(proxy.port, &[("user", APP), ("database", "shop")], PASSWORD);
        client.rows("create type mood as enum ('sad', 'happy')");
        client.rows("create domain nick as text");
        client.rows("create type pet as (name nick, age int, mood mood, past mood[])");
        client.rows("create type pet_span as range (subtype = pet)");
        client.rows("create domain moods as mood[]");
        for table in ["tastes", "copied_tastes", "taken_tastes", "raw_tastes"] {
            client.rows(&format!(
                "create table {table}(user_id bigint primary key, mood mood, past mood[], pet pet, pets pet[], \
                 span pet_span, moods moods, plain int[], bytes bytea)"
            ));
        }
        let numbers = cluster.sql_everywhere(
            "select array_agg(oid order by typname) from pg_type where typname in ('mood', '_mood', 'pet', '_pet')",
        );
        assert_ne!(numbers[0], numbers[1]);
        cluster.sql(1, Role::Primary, "select encode(array_send('{sad}'::mood[]), 'hex')")
    })
}

async fn client_with_types() -> Client {
    tokio::task::spawn_blocking(make_types).await.unwrap();
    client().await
}

/// One row of such a table, written as text.
fn values(key: i64) -> String {
    format!(
        "({key}, 'happy', '{{sad,NULL,happy}}', '(Rex,3,sad,{{happy}})', \
         array['(Rex,3,sad,{{}})', null, '(,,,\"{{sad,sad}}\")']::pet[], \
         pet_span(row('a', 1, 'sad', '{{sad}}')::pet, row('b', 1, 'happy', null)::pet), '{{happy}}', '{{1,2}}', '\\x{}')",
        make_types()
    )
}

const ALL: &str = "mood, past, pet, pets, span, moods, plain, bytes";

fn bytes_of(row: &Row, from: usize) -> Vec<Option<Vec<u8>>> {
    (from..row.len()).map(|column| row.get::<_, Option<Bytes>>(column).map(|bytes| bytes.0)).collect()
}

/// What a shard itself holds, as text.
fn held(shard: u16, key: i64) -> String {
    shop().1.sql(shard, Role::Primary, &format!("select {ALL} from tastes where user_id = {key}"))
}

#[tokio::test]
async fn drivers_write_and_read_them_on_every_shard() {
    let client = client_with_types().await;
    let sql = "insert into tastes (user_id, mood, past, pet, pets) values ($1, $2, $3, $4, $5)";
    let insert = client.prepare(sql).await.unwrap();
    let (past, pets) = (vec![Mood("happy"), Mood("sad")], vec![Pet::rex(), Pet::nobody()]);
    for key in [601i64, 1601, 602, 1602] {
        let done = client.execute(&insert, &[&key, &Mood("sad"), &past, &Pet::rex(), &pets]).await.unwrap();
        assert_eq!(done, 1, "{key}");
    }
    for sql in [
        "select mood, past, pet, pets, user_id from tastes where user_id = $1",
        "select mood, past, pet, pets, user_id from tastes where user_id between $1 and $1 and user_id <> 0 order by 5",
        "select mood, past, pet, pets, user_id from tastes where user_id in ($1, 601, 1602) order by user_id = $1 desc, user_id",
        // What one server computes.
        "select a.mood, a.past, b.pet, b.pets, a.user_id from tastes a, tastes b \
         where a.user_id = $1 and b.user_id in (601, 1602) and a.pet = b.pet limit 1",
    ] {
        let statement = client.prepare(sql).await.unwrap();
        for key in [1601i64, 601, 1602, 1601] {
            let found = client.query(&statement, &[&key]).await.unwrap();
            assert_eq!(found[0].get::<_, Mood>(0), Mood("sad"), "{sql}");
            assert_eq!(found[0].get::<_, Checked<Mood>>(1).0, past, "{sql}");
            assert_eq!(found[0].get::<_, Pet>(2), Pet::rex(), "{sql}");
            assert_eq!(found[0].get::<_, Checked<Pet>>(3).0, pets, "{sql}");
            assert_eq!(found[0].get::<_, i64>(4), key, "{sql}");
        }
    }
    // Where they are looked for.
    let kinds = insert.params();
    for sql in [
        "select user_id from tastes where user_id = 1601 and past = $1 and pet = $2::pet and pets = $3",
        "select user_id from tastes where user_id in (601, 1601) and past = $1 and pet = $2::pet and pets = $3 order by 1 desc",
        "update tastes set past = $1, pet = $2, pets = $3 where user_id = 1601 returning user_id",
        "update tastes set past = $1, pet = $2, pets = $3 where user_id in (1601, 601) returning user_id",
        "select user_id from tastes where past = $1 and pet = $2::pet and pets = $3 and user_id in (1601, 1602) \
         group by user_id having count(*) = 1 order by 1",
    ] {
        for statement in [client.prepare(sql).await.unwrap(), client.prepare_typed(sql, &kinds[2..5]).await.unwrap()] {
            for _ in 0..2 {
                let found = client.query(&statement, &[&past, &Pet::rex(), &pets]).await.expect(sql);
                assert!(found.iter().any(|row| row.get::<_, i64>(0) == 1601), "{sql}");
            }
        }
        // All in one: Parse with types, Bind, Describe, Execute.
        let typed: [(&(dyn ToSql + Sync), Type); 3] =
            [(&past, kinds[2].clone()), (&Pet::rex(), kinds[3].clone()), (&pets, kinds[4].clone())];
        let found = client.query_typed(sql, &typed).await.expect(sql);
        assert!(found.iter().any(|row| row.get::<_, i64>(0) == 1601), "{sql}");
    }
    client.batch_execute("delete from tastes where user_id in (601, 602, 1601, 1602)").await.unwrap();
}

#[tokio::test]
async fn any_value_is_that_of_home() {
    let client = client_with_types().await;
    for key in [611, 1611] {
        client.batch_execute(&format!("insert into tastes values {}", values(key))).await.unwrap();
    }
    for columns in [
        ALL,
        "row(mood, past, pet, pets, span, user_id % 1000), array[row(pet), row(pets)], row(row(row(past)))",
        // A whole row.
        "(select r from (select mood, past, pet, pets, moods) r)",
        "array[past, past], array[array[pet], array[pet]], (pet).past, pets[3]",
        "array[span], multirange(span), '{}'::pet[], '{}'::mood[], null::pet, row(null::pet)",
    ] {
        let one = client.prepare(&format!("select user_id, {columns} from tastes where user_id = $1")).await.unwrap();
        let all = format!("select user_id, {columns} from tastes where user_id in ($1, $2) order by user_id");
        let all = client.prepare(&all).await.unwrap();
        let home = bytes_of(&client.query_one(&one, &[&611i64]).await.unwrap(), 1);
        for _ in 0..2 {
            let there = bytes_of(&client.query_one(&one, &[&1611i64]).await.unwrap(), 1);
            assert_eq!(there, home, "{columns}");
            let both = client.query(&all, &[&1611i64, &611i64]).await.unwrap();
            assert_eq!(
                both.iter().map(|row| bytes_of(row, 1)).collect::<Vec<_>>(),
                [&home[..], &home[..]],
                "{columns}"
            );
        }
    }
    // What was read at home can be written anywhere.
    let one = client.prepare(&format!("select {ALL} from tastes where user_id = $1")).await.unwrap();
    let home = client.query_one(&one, &[&611i64]).await.unwrap();
    let copies: Vec<Bytes> = (0..home.len()).map(|column| home.get(column)).collect();
    for sql in ["insert into tastes values ($1, $2, $3, $4, $5, $6, $7, $8, $9)"] {
        let insert = client.prepare(sql).await.unwrap();
        for key in [1612i64, 612, 1613] {
            let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&key];
            parameters.extend(copies.iter().map(|value| value as &(dyn ToSql + Sync)));
            client.execute(&insert, &parameters).await.unwrap();
            assert_eq!(held(u16::from(key > 1000), key), held(0, 611), "{key}");
        }
    }
    let sql = "select count(*) from tastes where user_id in (611, 612, 1611, 1612) and row(pet, past) = $1";
    let record = client.query_one("select row(pet, past) from tastes where user_id = 1611", &[]).await.unwrap();
    let refused = client.query(sql, &[&record.get::<_, Bytes>(0)]).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "0A000", "as PostgreSQL: input of anonymous composite types");
    client.batch_execute("delete from tastes where user_id in (611, 612, 1611, 1612, 1613)").await.unwrap();
}

#[tokio::test]
async fn merged_rows_are_those_of_one_server() {
    let client = client_with_types().await;
    let keys = "(621, 622, 1621, 1622)";
    for (key, past, name) in [(621, "{sad}", "b"), (1621, "{happy}", "a"), (622, "{happy}", "b"), (1622, "{sad}", "c")]
    {
        let sql = format!(
            "insert into tastes (user_id, mood, past, pet) values ({key}, '{}', '{past}', ('{name}', 1, 'sad', '{past}'))",
            past.trim_matches(['{', '}'])
        );
        client.batch_execute(&sql).await.unwrap();
    }
    for (sql, expected) in [
        (
            "select past::text as shown, past from tastes where user_id in KEYS order by past, user_id",
            &["{sad}", "{sad}", "{happy}", "{happy}"][..],
        ),
        (
            "select past::text as shown, past from tastes where user_id in KEYS order by pet desc, user_id limit 2",
            &["{sad}", "{happy}"],
        ),
        (
            "select distinct past::text as shown, past from tastes where user_id in KEYS order by 2",
            &["{sad}", "{happy}"],
        ),
        (
            "select past::text as shown, past, count(*) from tastes where user_id in KEYS group by past order by past",
            &["{sad}", "{happy}"],
        ),
        ("select max(past)::text, max(past) from tastes where user_id in KEYS", &["{happy}"]),
        ("select array[min(mood)]::text, array[min(mood)] from tastes where user_id in KEYS", &["{sad}"]),
        (
            "select past::text as shown, past from tastes where user_id = 1621 union select past::text as shown, past from tastes where user_id = 621 order by 2",
            &["{sad}", "{happy}"],
        ),
    ] {
        let sql = sql.replace("KEYS", keys);
        let statement = client.prepare(&sql).await.unwrap();
        for _ in 0..2 {
            let found = client.query(&statement, &[]).await.unwrap_or_else(|cause| panic!("{sql}: {cause}"));
            let as_text: Vec<String> = found.iter().map(|row| row.get(0)).collect();
            assert_eq!(as_text, expected, "{sql}");
            for row in &found {
                let moods: Checked<Mood> = row.get(1);
                assert_eq!(format!("{{{}}}", moods.0[0].0), row.get::<_, String>(0), "{sql}");
            }
        }
    }
    client.batch_execute(&format!("delete from tastes where user_id in {keys}")).await.unwrap();
}

/// A row of the values, as home gives it, and the types of the columns.
async fn copied(client: &Client, table: &str, keys: [i64; 2]) -> (Vec<Option<Vec<u8>>>, Vec<Type>) {
    for key in keys {
        client.batch_execute(&format!("insert into {table} values {}", values(key))).await.unwrap();
    }
    let described = client.prepare(&format!("select user_id, {ALL} from {table}")).await.unwrap();
    let types = described.columns().iter().map(|column| column.type_().clone()).collect();
    let sql = format!("select {ALL} from {table} where user_id = $1");
    (bytes_of(&client.query_one(&sql, &[&keys[0]]).await.unwrap(), 0), types)
}

#[tokio::test]
async fn copy_in_binary_gives_them() {
    let client = client_with_types().await;
    let table = "copied_tastes";
    let (home, types) = copied(&client, table, [631, 1631]).await;
    let hint = "/* pgweir: shard=1 */ ";
    for (sql, count) in [
        (format!("copy {table} to stdout (format binary)"), 2),
        (format!("copy {table} (user_id, {ALL}) to stdout binary"), 2),
        (format!("{hint}copy {table} to stdout (format binary)"), 1),
        (format!("copy (select user_id, {ALL} from {table} where user_id = 1631) to stdout (format binary)"), 1),
        (
            format!(
                "copy (update {table} set plain = plain where user_id = 1631 returning user_id, {ALL}) to stdout binary"
            ),
            1,
        ),
        (
            format!("copy (select user_id, {ALL} from {table} where user_id in (1631, 631)) to stdout (format binary)"),
            2,
        ),
        // Computed by the server of one shard.
        (
            format!(
                "copy (select a.* from {table} a, {table} b where a.user_id = 1631 and a.pet = b.pet and b.user_id < 1000) to stdout binary"
            ),
            1,
        ),
    ] {
        for _ in 0..2 {
            let stream = client.copy_out(sql.as_str()).await.unwrap_or_else(|cause| panic!("{sql}: {cause}"));
            let stream = BinaryCopyOutStream::new(stream, &types);
            pin_mut!(stream);
            let mut found = 0;
            while let Some(row) = stream.try_next().await.unwrap() {
                let values = (1..types.len()).map(|column| row.get::<Option<Bytes>>(column).map(|bytes| bytes.0));
                assert_eq!(values.collect::<Vec<_>>(), home, "{sql}");
                found += 1;
            }
            assert_eq!(found, count, "{sql}");
        }
    }
    let cause = client
        .copy_out("copy (select nothing from copied_tastes where user_id = 1631) to stdout (format binary)")
        .await
        .err()
        .unwrap();
    let told = cause.as_db_error().unwrap();
    assert_eq!(
        (told.code().code(), told.position()),
        ("42703", Some(&tokio_postgres::error::ErrorPosition::Original(14)))
    );
    client.batch_execute(&format!("truncate {table}")).await.unwrap();
}

#[tokio::test]
async fn copy_in_binary_takes_them() {
    let client = client_with_types().await;
    let table = "taken_tastes";
    let (home, types) = copied(&client, table, [631, 1631]).await;
    let hint = "/* pgweir: shard=1 */ ";
    for (sql, keys) in [
        (format!("copy {table} from stdin (format binary)"), &[1632i64, 632, 1633][..]),
        (format!("copy {table} (user_id, {ALL}) from stdin binary"), &[1634, 634]),
        (format!("{hint}copy {table} from stdin (format binary)"), &[1635, 1636]),
    ] {
        let writer = BinaryCopyInWriter::new(client.copy_in(sql.as_str()).await.unwrap(), &types);
        pin_mut!(writer);
        for key in keys {
            let values: Vec<Option<Bytes>> = home.iter().cloned().map(|value| value.map(Bytes)).collect();
            let mut row: Vec<&(dyn ToSql + Sync)> = vec![key];
            row.extend(values.iter().map(|value| value as &(dyn ToSql + Sync)));
            writer.as_mut().write(&row).await.unwrap();
        }
        assert_eq!(writer.finish().await.unwrap_or_else(|cause| panic!("{sql}: {cause}")), keys.len() as u64);
    }
    let held = shop().1.sql_everywhere(&format!("select distinct {ALL} from {table}"));
    assert_eq!(held[0], held[1]);
    assert_eq!(held[0].lines().count(), 1);
    assert_eq!(rows(&client, &format!("select count(*) from {table}")).await, ["9"]);
    client.batch_execute(&format!("truncate {table}")).await.unwrap();
}

/// A reference table has the same rows on every shard.
#[tokio::test]
async fn copy_goes_to_every_shard_with_the_numbers_of_each() {
    let client = client_with_types().await;
    client.batch_execute("create table palette(id bigint primary key, past mood[], pets pet[])").await.unwrap();
    let toml = "[[reference_tables]]\ndatabase = \"shop\"\ntables = [\"palette\"]\n";
    let proxy = tokio::task::spawn_blocking(move || Proxy::start(&format!("{}{toml}", shop().1.toml()))).await.unwrap();
    let client = client_of(proxy.port).await;
    client.batch_execute("insert into palette values (1, '{sad}', array['(Rex,3,sad,{happy})']::pet[])").await.unwrap();
    let mut data = Vec::new();
    let stream = client.copy_out("copy palette to stdout (format binary)").await.unwrap();
    pin_mut!(stream);
    while let Some(part) = stream.try_next().await.unwrap() {
        data.extend_from_slice(&part);
    }
    client.batch_execute("delete from palette").await.unwrap();
    let sink = client.copy_in::<_, bytes::Bytes>("copy palette from stdin (format binary)").await.unwrap();
    pin_mut!(sink);
    // In pieces that end anywhere.
    for part in data.chunks(7) {
        sink.send(bytes::Bytes::copy_from_slice(part)).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), 1);
    let insert = client.prepare("insert into palette values ($1, $2, $3)").await.unwrap();
    client.execute(&insert, &[&2i64, &vec![Mood("sad")], &vec![Pet::rex()]]).await.unwrap();
    let held = shop().1.sql_everywhere("select * from palette order by id");
    assert_eq!(held[0], "1|{sad}|{\"(Rex,3,sad,{happy})\"}\n2|{sad}|{\"(Rex,3,sad,\\\"{happy,sad}\\\")\"}");
    assert_eq!(held[0], held[1]);
    client.batch_execute("drop table palette").await.unwrap();
}
