//! Merges written as text: `check` gives the rows of the inputs and the answer.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;

use super::{Aggregation, Columns, Final, Merge, Merger, SortKey, Step};
use crate::error::Error;

const LIMIT: usize = 1 << 20;

#[test]
fn without_order_inputs_follow_each_other() {
    check("int4", &Merge::default(), &["1 | 3", "", "2"], "1 | 3 | 2");
    check("int4", &Merge::default(), &[], "");
}

#[test]
fn sorted_inputs_interleave() {
    let ascending = Merge { order: vec![by(0)], ..Merge::default() };
    check("int4", &ascending, &["-5 | 2 | 10 | NULL", "1 | 9", "", "3"], "-5 | 1 | 2 | 3 | 9 | 10 | NULL");
    let descending = SortKey { descending: true, nulls_first: true, ..by(0) };
    let descending = Merge { order: vec![descending], ..Merge::default() };
    check("int4", &descending, &["NULL | 10 | 2", "NULL | 9"], "NULL | NULL | 10 | 9 | 2");
    let nulls_first = Merge { order: vec![SortKey { nulls_first: true, ..by(0) }], ..Merge::default() };
    check("int4", &nulls_first, &["1", "NULL | 0"], "NULL | 0 | 1");
}

#[test]
fn ties_keep_the_order_of_the_inputs() {
    let merge = Merge { order: vec![by(0)], ..Merge::default() };
    check("numeric text", &merge, &["1.0 a | 1.00 b | 2 c", "1 d", "1.000 e"], "1.0 a | 1.00 b | 1 d | 1.000 e | 2 c");
}

#[test]
fn two_keys_sort_in_different_directions() {
    let second = SortKey { descending: true, ..by(1) };
    let merge = Merge { order: vec![by(0), second], ..Merge::default() };
    check("text int4", &merge, &["a 2 | ab 9", "a 3 | b 1"], "a 3 | a 2 | ab 9 | b 1");
}

#[test]
fn limit_and_offset_count_over_all_inputs() {
    let merge = Merge { order: vec![by(0)], offset: 1, limit: Some(2), ..Merge::default() };
    check("int4", &merge, &["1 | 4", "2 | 3"], "2 | 3");
    check("int4", &Merge { limit: Some(0), ..Merge::default() }, &["1"], "");
    check("int4", &Merge { offset: 2, ..Merge::default() }, &["1", "2 | 3"], "3");
}

#[test]
fn nothing_is_asked_for_after_the_limit() {
    let columns = columns("int4");
    let mut merger = Merger::new(&Merge { limit: Some(1), ..Merge::default() }, &columns, 2, LIMIT).unwrap();
    assert_eq!(merger.step().unwrap(), Step::Need(0));
    merger.feed(0, rows("1")[0].clone()).unwrap();
    assert!(matches!(merger.step().unwrap(), Step::Row(_)));
    assert_eq!(merger.step().unwrap(), Step::Done);
}

#[test]
fn hidden_columns_sort_and_go() {
    let merge = Merge { order: vec![by(1)], hidden: 1, ..Merge::default() };
    check("text int4", &merge, &["a 1 | b 4", "c 2"], "a | c | b");
    let visible = columns("text int4").visible(&merge);
    assert_eq!(Columns::parse(&visible).unwrap(), columns("text"));
}

#[test]
fn distinct_gives_equal_rows_once() {
    let merge = Merge { distinct: true, limit: Some(3), ..Merge::default() };
    check("numeric", &merge, &["1.0 | 2 | NULL", "1.00 | NULL | 3"], "1.0 | 2 | NULL");
    let sorted = Merge { distinct: true, order: vec![by(0)], ..Merge::default() };
    check("float8 text", &sorted, &["-0 a | 1 a | 2 b", "0 a | 1 b | 2 b"], "-0 a | 1 a | 1 b | 2 b");
}

#[test]
fn distinct_under_an_order_needs_memory_for_one_key_only() {
    let numbers: Vec<String> = (0..1000).map(|number| format!("{number:04}")).collect();
    let all = numbers.join(" | ");
    let merge = Merge { distinct: true, order: vec![by(0)], ..Merge::default() };
    let rows = answer("text", &merge, &[&all, &all], 100).unwrap();
    assert_eq!(rows, all);
    let unsorted = Merge { distinct: true, ..Merge::default() };
    let error = answer("text", &unsorted, &[&all], 100).unwrap_err();
    assert_eq!((error.sqlstate.0, error.message.contains("100 bytes")), ("54000", true));
}

#[test]
fn values_that_cannot_be_compared_exactly_are_refused() {
    let text = SortKey { collation_is_bytes: false, ..by(0) };
    refused("text", &Merge { order: vec![text], ..Merge::default() }, "COLLATE \"C\"");
    refused("jsonb", &Merge { order: vec![by(0)], ..Merge::default() }, "cast");
    refused("jsonb", &Merge { distinct: true, ..Merge::default() }, "cast");
    refused("numeric[]", &Merge { distinct: true, ..Merge::default() }, "cast");
    refused("int4[]", &Merge { order: vec![by(0)], ..Merge::default() }, "cast");
    refused("text", &aggregate(&[], vec![Final::Min(0)]), "COLLATE \"C\"");
    refused("money", &aggregate(&[], vec![Final::Sum(0)]), "cast");
    let average = Final::Avg { shown: 0, sum: 1, count: 2 };
    refused("interval interval int8", &aggregate(&[], vec![average]), "cast");
}

#[test]
fn dates_of_another_style_are_an_error_not_another_order() {
    let merge = Merge { order: vec![by(0)], ..Merge::default() };
    let styles = [("date", "12-31-2024"), ("date", "31/12/2024"), ("date", "31.12.2024"), ("interval", "PT1H")];
    for (kind, value) in styles {
        let error = answer(kind, &merge, &[value, value], LIMIT).unwrap_err();
        assert_eq!(error.sqlstate.0, "0A000", "{kind} {value}");
        assert!(error.told().hint.unwrap().starts_with("SET "));
    }
}

#[test]
fn groups_come_together() {
    let outputs = vec![Final::Group(0), Final::Count(1), Final::Sum(2)];
    let merge = aggregate(&[0], outputs);
    let inputs = ["a 1 2.5 | b 2 NULL | NULL 1 1", "b 1 0.25 | a 1 -2.50 | NULL 1 1"];
    check("text int8 numeric", &merge, &inputs, "a 2 0.00 | b 3 0.25 | NULL 2 2");
    check("text int8 numeric", &merge, &[], "");
}

#[test]
fn groups_are_sorted_by_final_values() {
    let outputs = vec![Final::Group(0), Final::Count(1)];
    let order = vec![SortKey { descending: true, ..by(1) }, by(0)];
    let merge = Merge { order, limit: Some(2), ..aggregate(&[0], outputs) };
    check("text int8", &merge, &["a 1 | b 2 | c 3", "b 9 | c 8"], "b 11 | c 11");
}

#[test]
fn groups_are_sorted_by_what_is_not_shown() {
    let merge = Merge { order: vec![by(1)], hidden: 1, ..aggregate(&[1], vec![Final::Count(0)]) };
    check("int8 int4", &merge, &["1 7 | 2 5", "3 6 | 4 7"], "2 | 3 | 5");
    let outputs = vec![Final::Group(0), Final::Sum(1)];
    let merge = Merge { order: vec![by(1)], hidden: 1, hidden_outputs: 1, ..aggregate(&[0], outputs) };
    check("text int8", &merge, &["a 5 | b 4", "b 4"], "a | b");
    assert_eq!(Columns::parse(&columns("text int8").visible(&merge)).unwrap(), columns("text"));
}

#[test]
fn aggregates_without_groups_give_one_row() {
    let average = Final::Avg { shown: 6, sum: 7, count: 8 };
    let outputs = [Final::Count(0), Final::Sum(1), Final::Min(2), Final::Max(3), Final::BoolAnd(4), Final::BoolOr(5)];
    let merge = aggregate(&[], outputs.into_iter().chain([average]).collect());
    let types = "int8 int8 date float8 bool bool numeric int8 int8";
    check(types, &merge, &[], "0 NULL NULL NULL NULL NULL NULL");
    let nothing = "0 NULL NULL NULL NULL NULL NULL NULL 0";
    check(types, &merge, &[nothing, nothing], "0 NULL NULL NULL NULL NULL NULL");
    let some = "3 9 2024-02-29 NaN t f 3.0000000000000000 9 3";
    let more = "1 1 0044-03-15 1e300 f f 1.0000000000000000 1 1";
    check(types, &merge, &[some, nothing, more], "4 10 0044-03-15 NaN f f 2.5000000000000000");
}

#[test]
fn sums_beyond_bigint_are_an_error_as_in_postgresql() {
    let merge = aggregate(&[], vec![Final::Sum(0)]);
    let error = answer("int8", &merge, &["9223372036854775807", "1"], LIMIT).unwrap_err();
    assert_eq!((error.sqlstate.0, error.message.as_str()), ("22003", "bigint out of range"));
    check("numeric", &merge, &["9223372036854775807", "1.5"], "9223372036854775808.5");
}

#[test]
fn groups_beyond_the_limit_are_an_error_that_names_what_to_filter_by() {
    let numbers: Vec<String> = (0..1000).map(|number| format!("{number} 1")).collect();
    let merge = aggregate(&[0], vec![Final::Group(0), Final::Count(1)]);
    let error = answer("int4 int8", &merge, &[&numbers.join(" | ")], 5000).unwrap_err();
    assert_eq!(error.sqlstate.0, "54000");
    assert!(error.message.contains("5000 bytes") && error.told().hint.unwrap().contains("\"c0\""));
}

#[test]
fn min_and_max_of_bytewise_text() {
    let merge = Merge { bytewise: vec![0, 1], ..aggregate(&[], vec![Final::Min(0), Final::Max(1)]) };
    check("text text", &merge, &["b B", "a é | ab z"], "a é");
}

#[test]
fn formats_are_those_of_bind() {
    let columns = columns("int4 text");
    let binary = |columns: &Columns| (0..2).map(|column| columns.get(column).unwrap().is_binary()).collect::<Vec<_>>();
    assert_eq!(binary(&columns.with_formats(&[1])), [true, true]);
    assert_eq!(binary(&columns.with_formats(&[])), [false, false]);
    assert_eq!(binary(&columns.with_formats(&[0, 1])), [false, true]);
}

#[test]
fn malformed_rows_are_an_error() {
    let merge = Merge { order: vec![by(0)], ..Merge::default() };
    for row in [&b""[..], &[0, 2, 0, 0, 0, 0], &[0, 1, 0, 0, 0, 9, 1], &[0, 1, 0, 0, 0, 1, b'x']] {
        let mut merger = Merger::new(&merge, &columns("int4"), 2, LIMIT).unwrap();
        assert_eq!(merger.feed(0, Bytes::copy_from_slice(row)).unwrap_err().sqlstate.0, "08P01", "{row:?}");
    }
}

#[test]
fn an_input_that_was_not_asked_for_is_an_error() {
    let mut merger = Merger::new(&Merge::default(), &columns("int4"), 2, LIMIT).unwrap();
    assert!(merger.feed(1, rows("1")[0].clone()).is_err());
    assert!(merger.end(7).is_err());
}

/// Ascending, NULLs last, text by bytes.
fn by(column: usize) -> SortKey {
    SortKey { column, descending: false, nulls_first: false, collation_is_bytes: true }
}

fn aggregate(group: &[usize], outputs: Vec<Final>) -> Merge {
    Merge { aggregate: Some(Aggregation { group: group.to_vec(), outputs }), ..Merge::default() }
}

/// Rows are parted by ` | `, their cells by a blank; all in text format.
fn check(types: &str, merge: &Merge, inputs: &[&str], expected: &str) {
    assert_eq!(answer(types, merge, inputs, LIMIT).unwrap(), expected, "{types} {inputs:?}");
}

fn refused(types: &str, merge: &Merge, hint: &str) {
    let error = Merger::new(merge, &columns(types), 2, LIMIT).unwrap_err();
    assert_eq!(error.sqlstate.0, "0A000");
    assert!(error.hint.clone().unwrap().contains(hint), "{error:?}");
}

fn answer(types: &str, merge: &Merge, inputs: &[&str], limit_bytes: usize) -> Result<String, Error> {
    let mut merger = Merger::new(merge, &columns(types), inputs.len(), limit_bytes)?;
    let mut inputs: Vec<_> = inputs.iter().map(|input| rows(input).into_iter()).collect();
    let mut answer = Vec::new();
    loop {
        match merger.step()? {
            Step::Need(input) => match inputs[input].next() {
                Some(row) => merger.feed(input, row)?,
                None => merger.end(input)?,
            },
            Step::Row(row) => answer.push(shown(&row)),
            Step::Done => return Ok(answer.join(" | ")),
        }
    }
}

fn columns(types: &str) -> Columns {
    let oid = |name: &str| -> u32 {
        let known = [
            ("bool", 16),
            ("int8", 20),
            ("int4", 23),
            ("text", 25),
            ("float8", 701),
            ("money", 790),
            ("int4[]", 1007),
            ("date", 1082),
            ("interval", 1186),
            ("numeric[]", 1231),
            ("numeric", 1700),
            ("jsonb", 3802),
        ];
        known.iter().find(|(known, _)| *known == name).unwrap().1
    };
    let types: Vec<&str> = types.split(' ').collect();
    let mut body = (types.len() as u16).to_be_bytes().to_vec();
    for (index, name) in types.iter().enumerate() {
        body.extend_from_slice(format!("c{index}\0").as_bytes());
        body.extend_from_slice(&[0; 6]);
        body.extend_from_slice(&oid(name).to_be_bytes());
        body.extend_from_slice(&[0; 8]);
    }
    Columns::parse(&body).unwrap()
}

fn rows(text: &str) -> Vec<Bytes> {
    text.split(" | ").filter(|row| !row.is_empty()).map(row).collect()
}

fn row(text: &str) -> Bytes {
    let cells: Vec<&str> = text.split(' ').collect();
    let mut row = (cells.len() as u16).to_be_bytes().to_vec();
    for cell in cells {
        let length = if cell == "NULL" { -1 } else { cell.len() as i32 };
        row.extend_from_slice(&length.to_be_bytes());
        row.extend_from_slice(if cell == "NULL" { b"" } else { cell.as_bytes() });
    }
    row.into()
}

fn shown(row: &[u8]) -> String {
    let mut cells = Vec::new();
    let mut rest = &row[2..];
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = i32::from_be_bytes(*length);
        let width = length.max(0) as usize;
        let value = std::str::from_utf8(&after[..width]).unwrap();
        cells.push(if length < 0 { "NULL" } else { value });
        rest = &after[width..];
    }
    assert_eq!(cells.len(), usize::from(u16::from_be_bytes([row[0], row[1]])));
    cells.join(" ")
}
