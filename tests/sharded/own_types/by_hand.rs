//! Messages in an order that drivers do not send.

use super::super::raw::{
    self, Raw, bind_portal, close_portal, copy_data, copy_done, describe, describe_portal, execute_portal, flush,
    message, parse, sync, text,
};
use super::super::shop;
use super::{make_types, values};
use crate::support::{APP, PASSWORD, Role};

/// Binds a portal; all values and results are in binary.
fn bind_binary(portal: &str, statement: &str, values: &[&[u8]]) -> Vec<u8> {
    let count = u16::try_from(values.len()).unwrap().to_be_bytes();
    let items =
        values.iter().flat_map(|value| [&u32::try_from(value.len()).unwrap().to_be_bytes()[..], value].concat());
    let names = [text(portal), text(statement)].concat();
    message(b'B', &[&names, &[0, 1, 0, 1], &count, &items.collect::<Vec<_>>(), &[0, 1, 0, 1]])
}

/// What a unit was answered with: kinds of messages, and the bodies of its rows or copied data.
fn answer(raw: &mut Raw, messages: &[Vec<u8>]) -> (String, Vec<Vec<u8>>) {
    raw.send(&messages.concat());
    let (mut kinds, mut found) = (String::new(), Vec::new());
    while let Some((kind, body)) = raw.frame() {
        match kind {
            b'D' | b'd' => found.push(body),
            b'E' => kinds.push_str(&format!("E{} ", raw::field(&body, 'C'))),
            b'S' | b'N' => {}
            kind => kinds.push(char::from(kind)),
        }
        if kind == b'Z' {
            break;
        }
    }
    (kinds, found)
}

fn log_in() -> Raw {
    make_types();
    Raw::log_in(shop().0.port, &[("user", APP), ("database", "shop")], PASSWORD)
}

/// Rows of the same values on either shard, and statements that read one of them.
fn prepare(raw: &mut Raw, table: &str, keys: [i64; 2]) {
    for key in keys {
        raw.rows(&format!("insert into {table} values {}", values(key)));
    }
    let many = "array(select pet from generate_series(1, 3000))";
    let one = "where user_id = $1::bigint";
    for (name, sql) in [
        ("past", format!("select past from {table} {one}")),
        ("pets", format!("select n, pets from {table}, generate_series(1, 5) n {one}")),
        ("key", format!("select bytes, user_id % 1000 from {table} {one}")),
        ("long", format!("select {many}, bytes, {many} from {table}, generate_series(1, 4) {one}")),
    ] {
        assert_eq!(answer(raw, &[parse(name, &sql), sync()]).0, "1Z");
    }
}

/// Units over those statements.
fn units(key: i64) -> Vec<Vec<Vec<u8>>> {
    let binary = key.to_be_bytes();
    let bind = |portal: &str, statement: &str| bind_binary(portal, statement, &[&binary]);
    let all = |portal: &str| execute_portal(portal, 0);
    let some = execute_portal;
    let told = describe_portal;
    vec![
        vec![bind("", "past"), all(""), sync()],
        vec![bind("", "past"), told(""), all(""), sync()],
        // One after another, each without a description, with one, with another's.
        vec![bind("", "past"), all(""), bind("", "pets"), all(""), bind("", "key"), all(""), sync()],
        vec![bind("a", "past"), bind("b", "pets"), all("b"), all("a"), sync()],
        vec![bind("a", "past"), told("a"), bind("b", "key"), told("b"), all("a"), all("b"), sync()],
        vec![bind("a", "key"), told("a"), bind("b", "past"), all("b"), all("a"), sync()],
        vec![bind("a", "past"), told("a"), close_portal("a"), bind("a", "key"), all("a"), sync()],
        vec![bind("a", "past"), told("a"), bind("b", "key"), all("b"), all("a"), sync()],
        vec![bind("", "past"), told(""), bind("", "key"), all(""), sync()],
        vec![bind("", "past"), describe("key"), all(""), sync()],
        // In parts, and what hangs on a Flush.
        vec![bind("a", "pets"), some("a", 2), bind("b", "key"), all("b"), some("a", 1), flush(), all("a"), sync()],
        vec![bind("a", "pets"), told("a"), some("a", 2), some("a", 2), all("a"), sync()],
        // Longer than any buffer.
        vec![bind("", "long"), all(""), bind("", "past"), all(""), sync()],
        // An error in between.
        vec![bind("a", "past"), all("b"), sync()],
        vec![bind("", "key"), all(""), sync()],
        // In text.
        vec![bind_portal("", "past", &[&key.to_string()]), all(""), sync()],
    ]
}

#[test]
fn rows_are_known_by_their_portal() {
    let mut raw = log_in();
    prepare(&mut raw, "raw_tastes", [641, 1641]);
    let home: Vec<_> = units(641).iter().map(|unit| answer(&mut raw, unit)).collect();
    let failed: Vec<&str> = home.iter().map(|(kinds, _)| &**kinds).filter(|kinds| kinds.contains('E')).collect();
    assert_eq!(failed, ["2E34000 Z"]);
    for attempt in 0..2 {
        for (number, (unit, expected)) in units(1641).iter().zip(&home).enumerate() {
            let found = answer(&mut raw, unit);
            assert_eq!(found.0, expected.0, "unit {number}, attempt {attempt}");
            let differs = found.1.iter().zip(&expected.1).position(|(one, other)| one != other);
            assert_eq!((found.1.len(), differs), (expected.1.len(), None), "unit {number}, attempt {attempt}");
        }
    }
    raw.rows("delete from raw_tastes where user_id in (641, 1641)");
}

#[test]
fn portals_cursors_and_copies_may_be_long() {
    let mut raw = log_in();
    prepare(&mut raw, "raw_tastes", [643, 1643]);
    let walk = |raw: &mut Raw, key: i64| {
        let one = format!("from raw_tastes where user_id = {key}");
        let declare = format!("declare c binary cursor for select past, pet {one}");
        assert_eq!(answer(raw, &[raw::query("begin")]).0, "CZ");
        assert_eq!(answer(raw, &[raw::query(&declare)]).0, "CZ");
        let copy =
            format!("copy (select array(select pet from generate_series(1, 3000)), bytes {one}) to stdout binary");
        let binary = key.to_be_bytes();
        let bind = |portal: &str, statement: &str| bind_binary(portal, statement, &[&binary]);
        let units = [
            vec![raw::query("fetch c")],
            vec![bind("p", "pets"), describe_portal("p"), execute_portal("p", 2), sync()],
            vec![bind("q", "key"), execute_portal("q", 0), execute_portal("p", 1), sync()],
            vec![execute_portal("p", 0), sync()],
            vec![raw::query(&copy)],
        ];
        let found: Vec<_> = units.iter().map(|unit| answer(raw, unit)).collect();
        assert_eq!(raw.query("rollback").error, None);
        found
    };
    let (home, there) = (walk(&mut raw, 643), walk(&mut raw, 1643));
    for (number, (found, expected)) in there.iter().zip(&home).enumerate() {
        assert!(!found.1.is_empty(), "unit {number}: {}", found.0);
        assert!(found == expected, "unit {number}: {} and {}", found.0, expected.0);
    }
    raw.rows("delete from raw_tastes where user_id in (643, 1643)");
}

/// An array and a composite, as home writes them.
fn values_of_home(raw: &mut Raw) -> [Vec<u8>; 2] {
    ["'{sad,happy}'::mood[]", "'(Rex,3,sad,{happy})'::pet"].map(|value| {
        let sql = format!("select {value}");
        let rows = answer(raw, &[parse("", &sql), bind_binary("", "", &[]), execute_portal("", 0), sync()]).1;
        rows[0][6..].to_vec()
    })
}

#[test]
fn parameters_are_known_by_their_statement() {
    let mut raw = log_in();
    let [past, pet] = values_of_home(&mut raw);
    // Types that nobody declares, on either shard; bytes stay what they are.
    for key in [651i64, 1651, 1652] {
        let sql = "insert into raw_tastes (user_id, past, pet, bytes) values ($1, $2, $3, $4)";
        let bind = |statement: &str, key: i64| bind_binary("", statement, &[&key.to_be_bytes(), &past, &pet, &past]);
        let execute = || execute_portal("", 0);
        assert_eq!(answer(&mut raw, &[parse("", sql), bind("", key), execute(), sync()]).0, "12CZ", "{key}");
        // What was parsed in a unit before.
        raw.rows(&format!("delete from raw_tastes where user_id = {key}"));
        assert_eq!(answer(&mut raw, &[parse("", sql), sync()]).0, "1Z");
        assert_eq!(answer(&mut raw, &[bind("", key), execute(), sync()]).0, "2CZ", "{key}");
        raw.rows(&format!("delete from raw_tastes where user_id = {key}"));
        // Several at once, within a block.
        let name = format!("put {key}");
        let twice = [parse(&name, sql), bind(&name, key), execute(), bind(&name, key + 5), execute(), sync()];
        assert_eq!(answer(&mut raw, &[raw::query("begin")]).0, "CZ");
        assert_eq!(answer(&mut raw, &twice).0, "12C2CZ", "{key}");
        assert_eq!(answer(&mut raw, &[raw::query("commit")]).0, "CZ");
        let found = "select user_id, past, pet, bytes = array_send(past) from raw_tastes where user_id = KEY";
        let shard = u16::from(key > 1000);
        for key in [key, key + 5] {
            let held = shop().1.sql(shard, Role::Primary, &found.replace("KEY", &key.to_string()));
            // The bytes name home's number.
            let same = if shard == 0 { "t" } else { "f" };
            assert_eq!(held, format!("{key}|{{sad,happy}}|(Rex,3,sad,{{happy}})|{same}"));
        }
        // The server says what is wrong with a value.
        let wrong = bind_binary("", &name, &[&key.to_be_bytes(), &past[..past.len() - 1], &pet, &past]);
        assert_eq!(answer(&mut raw, &[wrong, sync()]).0, "E22P03 Z", "{key}");
    }
    shop().1.sql_everywhere("delete from raw_tastes where user_id % 1000 between 651 and 657");
}

/// Each statement goes where its rows are.
#[test]
fn a_text_may_copy_from_several_shards() {
    let mut raw = log_in();
    for key in [671, 1671] {
        raw.rows(&format!("insert into raw_tastes values {}", values(key)));
    }
    let copy = |key: i64| format!("copy (select past, pets from raw_tastes where user_id = {key}) to stdout binary");
    let home = answer(&mut raw, &[raw::query(&copy(671))]).1.concat();
    let both = answer(&mut raw, &[raw::query(&format!("{}; {}", copy(1671), copy(671)))]);
    assert_eq!((&*both.0, both.1.concat()), ("HcCHcCZ", home.repeat(2)));
    raw.rows("delete from raw_tastes where user_id in (671, 1671)");
}

#[test]
fn copied_data_comes_in_any_pieces() {
    let mut raw = log_in();
    raw.rows(&format!("insert into raw_tastes values {}", values(661)));
    let copy = "copy (select user_id + 1000, past, pet, bytes from raw_tastes where user_id = 661) to stdout binary";
    let data = answer(&mut raw, &[raw::query(copy)]).1.concat();
    for then in ["", "copy (select past from raw_tastes where user_id = 1661) to stdout binary"] {
        let copy = "copy raw_tastes (user_id, past, pet, bytes) from stdin (format binary);";
        let sql = format!("/* pgweir: shard=1 */ delete from raw_tastes where user_id = 1661; {copy} {then}");
        let mut messages = vec![raw::query(&sql)];
        messages.extend(data.chunks(5).map(|part| message(b'd', &[part])));
        messages.push(copy_done());
        assert_eq!(answer(&mut raw, &messages).0, if then.is_empty() { "CGCZ" } else { "CGCHcCZ" });
        let held = shop().1.sql(1, Role::Primary, "select past, pet from raw_tastes where user_id = 1661");
        assert_eq!(held, "{sad,NULL,happy}|(Rex,3,sad,{happy})");
    }
    let fails = [
        raw::query("/* pgweir: shard=1 */ copy raw_tastes (user_id, past) from stdin binary"),
        copy_data("nonsense"),
        copy_done(),
    ];
    assert_eq!(answer(&mut raw, &fails).0, "GE22P04 Z");
    raw.rows("delete from raw_tastes where user_id in (661, 1661)");
}
