//! What texts mean, as a table: text to a short rendering of its analysis.

use std::fmt::Write;

use super::*;

/// Statements, one a line: kind, relations, filter, calls.
fn render(text: &str) -> String {
    let mut out = String::new();
    for statement in &analyze(text).statements {
        let kind = format!("{:?}", statement.kind);
        let end = kind.find(['{', '(']).unwrap_or(kind.len());
        write!(out, "{}", kind[..end].trim()).unwrap();
        for block in &statement.blocks {
            let names: Vec<String> = block.relations.iter().map(relation).collect();
            write!(out, " | {:?} {} {}", block.role, names.join(","), filter(&block.filter)).unwrap();
        }
        let calls: Vec<&str> = statement.calls.iter().map(|call| call.name.name.as_str()).collect();
        if !calls.is_empty() {
            write!(out, " | calls {}", calls.join(",")).unwrap();
        }
        out.push('\n');
    }
    out.trim_end().to_owned()
}

fn relation(relation: &Relation) -> String {
    let name = relation.table.as_ref().map_or_else(|| "-".to_owned(), |table| table.name.clone());
    let marks = [(relation.written, "!"), (relation.nullable, "?")];
    name + &marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark).collect::<String>()
}

fn filter(predicate: &Predicate) -> String {
    let join = |all: &[Predicate], by: &str| all.iter().map(filter).collect::<Vec<_>>().join(by);
    match predicate {
        Predicate::True => "T".to_owned(),
        Predicate::False => "F".to_owned(),
        Predicate::And(all) => format!("({})", join(all, " & ")),
        Predicate::Or(all) => format!("({})", join(all, " or ")),
        Predicate::Compare { column, comparison, value: given } => {
            let sign = match comparison {
                Comparison::Equal => "=",
                Comparison::Less => "<",
                Comparison::LessOrEqual => "<=",
                Comparison::Greater => ">",
                Comparison::GreaterOrEqual => ">=",
            };
            format!("{}{sign}{}", self::column(column), value(given))
        }
        Predicate::In { column, values, .. } => {
            format!("{} in {}", self::column(column), values.iter().map(value).collect::<Vec<_>>().join(","))
        }
        Predicate::EqualsAny { column, array } => format!("{} any {}", self::column(column), value(array)),
        Predicate::Same(one, other) => format!("{}~{}", column(one), column(other)),
        Predicate::Follows { from, to } => format!("{}>{}", column(from), column(to)),
        Predicate::IsNull(one) => format!("{} null", column(one)),
    }
}

fn column(column: &ColumnRef) -> String {
    match column.relation {
        Some(of) => format!("{}.{}.{}", of.block, of.relation, column.column),
        None => column.column.clone(),
    }
}

fn value(value: &Value) -> String {
    match value {
        Value::Literal { index, negated, .. } => format!("{}#{index}", if *negated { "-" } else { "" }),
        Value::Parameter { index, .. } => format!("${}", index + 1),
        other => format!("{other:?}"),
    }
}

fn check(text: &str, expected: &str) {
    assert_eq!(render(text), expected, "{text}");
}

#[test]
fn conditions_on_columns() {
    check("select * from t where id = 42", "Query | Outermost t 0.0.id=#0");
    check("select * from t where 42 < id", "Query | Outermost t 0.0.id>#0");
    check("select * from t where id = -42", "Query | Outermost t 0.0.id=-#0");
    check("select * from t where id = $1::bigint", "Query | Outermost t 0.0.id=$1");
    check("select * from t where id = bigint '5'", "Query | Outermost t 0.0.id=#0");
    check("select * from t where id in (1, $2, 3)", "Query | Outermost t 0.0.id in #0,$2,#1");
    check("select * from t where id = any($1)", "Query | Outermost t 0.0.id any $1");
    check("select * from t where id = any('{1,2}'::bigint[])", "Query | Outermost t 0.0.id any #0");
    check("select * from t where id = any(array[1,2])", "Query | Outermost t 0.0.id in #0,#1");
    check("select * from t where id between 1 and 2", "Query | Outermost t (0.0.id>=#0 & 0.0.id<=#1)");
    check("select * from t where id = 1 or id = 2", "Query | Outermost t (0.0.id=#0 or 0.0.id=#1)");
    check("select * from t where id = 1 or x > y + 1", "Query | Outermost t T");
    check("select * from t where (id, x) = (1, 2)", "Query | Outermost t (0.0.id=#0 & 0.0.x=#1)");
    check("select * from t where id is null", "Query | Outermost t 0.0.id null");
    check("select * from t where id = null", "Query | Outermost t F");
    check("select * from t where not id = 1", "Query | Outermost t T");
    check("select * from t where id not in (1)", "Query | Outermost t T");
    check("select * from t where id + 1 = 2", "Query | Outermost t T");
    check("select * from t where id = 1 and name like 'a%'", "Query | Outermost t 0.0.id=#0");
    check("select * from t where t.id = 1 -- and more", "Query | Outermost t 0.0.id=#0");
    check("select * from s.t as x where x.\"Id\" = 1", "Query | Outermost t 0.0.Id=#0");
}

#[test]
fn joins() {
    check(
        "select * from a join b on a.id = b.a_id where a.id = 1",
        "Query | Outermost a,b (0.0.id~0.1.a_id & 0.0.id=#0)",
    );
    check("select * from a join b using (id) where id = 1", "Query | Outermost a,b (0.0.id~0.1.id & 0.0.id=#0)");
    check("select * from a, b where a.x = b.y", "Query | Outermost a,b 0.0.x~0.1.y");
    check("select * from a left join b on a.id = b.id and b.x = 1", "Query | Outermost a,b? (0.0.id>0.1.id & T)");
    check("select * from a full join b on a.id = b.id", "Query | Outermost a?,b? T");
    check("select * from a natural join b where id = 1", "Query | Outermost a,b id=#0");
}

#[test]
fn subqueries_are_blocks() {
    check(
        "select * from a where id in (select a_id from b where x = 1)",
        "Query | Outermost a 0.0.id~a_id | Filter b x=#0",
    );
    check(
        "select (select max(x) from b where b.id = a.id) from a",
        "Query | Outermost a T | Scalar b 1.0.id~0.0.id | calls max",
    );
    check("select * from (select * from a where id = 1) s", "Query | Outermost - T | Derived a id=#0");
    check("with c as (select * from a) select * from c where id = 1", "Query | Outermost - 0.0.id=#0 | Cte a T");
    check("select 1 from a union select 2 from b", "Query | Outermost  T | SetArm a T | SetArm b T");
    check("with d as (delete from a returning *) select * from d", "ModifyingQuery | Outermost - T | Cte a! T");
}

#[test]
fn data_changes() {
    check("insert into t(id, x) values (1, 2), ($1, 3)", "Insert | Outermost t! T");
    check("insert into t select * from s where id = 1", "Insert | Outermost t! T | InsertSource s id=#0");
    check("update t set x = 1 where id = 2", "Update | Outermost t! 0.0.id=#1");
    check("delete from t using s where t.id = s.id", "Delete | Outermost t!,s 0.0.id~0.1.id");
    check("merge into t using s on t.id = s.id when matched then delete", "Merge | Outermost t!,s 0.0.id~0.1.id");
    let analysis = analyze("insert into t(id, x) values (1, default), ($2, $1)");
    let Kind::Insert(insert) = &analysis.statements[0].kind else { panic!() };
    let InsertSource::Values(rows) = &insert.source else { panic!() };
    assert_eq!(
        (&insert.columns[..], rows[1].parameters.as_slice()),
        (&["id".to_owned(), "x".to_owned()][..], &[0, 1][..])
    );
    assert_eq!(rows[0].values[1], Value::Default);
}

#[test]
fn commands() {
    for (text, expected) in [
        ("begin", "Transaction"),
        ("start transaction read only", "Transaction"),
        ("commit and chain", "Transaction"),
        ("rollback to savepoint s", "Transaction"),
        ("prepare transaction 'x'", "Transaction"),
        ("set transaction isolation level serializable", "Transaction"),
        ("set local timezone to 'UTC'", "Setting"),
        ("show all", "Setting"),
        ("discard all", "Setting"),
        ("prepare p as select 1", "Prepare"),
        ("deallocate all", "Deallocate"),
        ("listen c", "Listen"),
        ("lock table t", "LockTable"),
        ("do $$ begin end $$", "Do"),
        ("call f()", "Call"),
        ("truncate a, b", "Truncate"),
        ("copy t from stdin", "Copy"),
        ("create temp table x(a int)", "Ddl"),
        ("create index concurrently i on t(a)", "Ddl"),
        ("vacuum t", "Utility"),
        ("grant select on t to u", "Ddl"),
        ("selec 1", "Unknown"),
        ("", ""),
        ("select 1; begin; bogus", "Query | Outermost  T\nTransaction\nUnknown"),
        ("create function f() returns int begin atomic select 1; select 2; end; select 3", "Ddl\nQuery | Outermost  T"),
    ] {
        check(text, expected);
    }
    check("explain analyze select * from t", "Explain | Outermost t T");
    check("explain (costs off) select * from t", "Explain | Outermost t T");
    check("explain route select 1", "ExplainRoute");
    check("declare c cursor with hold for select * from t", "DeclareCursor | Outermost t T");
    check("copy (select * from t) to stdout", "Copy | Outermost t T");
}

#[test]
fn settings_are_read_as_postgresql_names_them() {
    let control = |text: &str| match &analyze(text).statements[0].kind {
        Kind::Setting(control) => control.clone(),
        other => panic!("{other:?}"),
    };
    let set = |name: &str, sql: &str, plain: &str| SettingControl::Set {
        name: name.to_owned(),
        value: Some(SettingValue { sql: sql.to_owned(), plain: plain.to_owned() }),
        local: false,
    };
    assert_eq!(control("SET search_path TO a, \"B\""), set("search_path", "a, \"B\"", "a, B"));
    assert_eq!(control("set session timezone = 'Asia/Tokyo'"), set("timezone", "'Asia/Tokyo'", "Asia/Tokyo"));
    assert_eq!(control("set time zone 'UTC'"), set("timezone", "'UTC'", "UTC"));
    assert_eq!(control("set names 'UTF8'"), set("client_encoding", "'UTF8'", "UTF8"));
    let read_only = "set session characteristics as transaction read only";
    assert_eq!(control(read_only), set("default_transaction_read_only", "'on'", "on"));
    let SettingControl::Several(both) = control(&format!("{read_only}, not deferrable")) else { panic!("{read_only}") };
    let names: Vec<_> = both.iter().map(|(name, value)| (&**name, &*value.plain)).collect();
    assert_eq!(names, [("default_transaction_read_only", "on"), ("default_transaction_deferrable", "off")]);
    assert_eq!(control("set pgweir.shard = 1"), set("pgweir.shard", "1", "1"));
    assert_eq!(control("SET SHARD TO '1'"), set("pgweir.shard", "'1'", "1"));
    assert_eq!(control("SET SHARDING KEY TO '42'"), set("pgweir.key", "'42'", "42"));
    assert_eq!(control("SET SERVER ROLE TO 'auto'"), set("pgweir.role", "'auto'", "auto"));
    assert_eq!(control("SET pgdog.sharding_key TO '42'"), set("pgweir.key", "'42'", "42"));
    assert_eq!(control("RESET pgdog.shard"), SettingControl::Reset { name: "pgweir.shard".to_owned() });
    assert_eq!(control("set session authorization bob"), set("session_authorization", "bob", "bob"));
    assert_eq!(control("reset all"), SettingControl::ResetAll);
}

#[test]
fn shapes_of_queries() {
    let shape = |text: &str| analyze(text).statements[0].shape.clone();
    let ordered = shape(
        "select a, b as c, count(*) from t group by a, 2 order by c desc nulls last, lower(a), a limit 5 offset $1",
    );
    assert_eq!(ordered.columns.len(), 3);
    assert_eq!(ordered.group_by, [GroupKey::Output(0), GroupKey::Output(1)]);
    assert_eq!(ordered.order_by[0].target, OrderTarget::Output(1));
    assert!(ordered.order_by[0].descending && !ordered.order_by[0].nulls_first);
    assert!(matches!(ordered.order_by[1].target, OrderTarget::Hidden { .. }));
    assert_eq!(ordered.order_by[2].target, OrderTarget::Output(0));
    assert_eq!(ordered.offset, Some(Bound::Value(Value::Parameter { index: 0, cast: None })));
    assert!(matches!(&ordered.columns[2].expression, Output::Aggregate(count) if count.star && count.name == "count"));
    let text = "select sum(x + 1) as s from t order by 1";
    let shape = shape(text);
    let Output::Aggregate(sum) = &shape.columns[0].expression else { panic!() };
    assert_eq!(&text[bytes_of(&token_ranges(text), sum.argument)], "x + 1");
    assert_eq!(&text[bytes_of(&token_ranges(text), shape.columns[0].tokens)], "sum(x + 1)");
    assert!(analyze(text).literal_sensitive);
}

#[test]
fn great_texts_are_read_without_fear() {
    let deep = format!("select {}1{}", "(".repeat(20_000), ")".repeat(20_000));
    analyze(&deep);
    let wide = format!("select * from t where id = 0{}", " or id = 1".repeat(20_000));
    assert!(matches!(analyze(&wide).statements[0].kind, Kind::Query | Kind::Unknown { .. }));
    let list = format!("select * from t where id in (0{})", ", 1".repeat(50_000));
    assert_eq!(analyze(&list).statements[0].kind, Kind::Query);
}

#[test]
fn words_of_clauses_may_stand_anywhere() {
    for text in ["select from select where group", "select 1 from t where order", "select 1 from t order"] {
        analyze(text);
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_analysed(text: String) {
        analyze(&text);
    }

    #[test]
    fn any_words_are_analysed(words in proptest::collection::vec("select|from|where|t|id|=|1|'a'|\\(|\\)|,|group|order|by|limit|join|on|insert|into|values|update|set|with|as|;|\\*", 0..40)) {
        analyze(&words.join(" "));
    }
}
