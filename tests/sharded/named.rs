//! PREPARE, EXECUTE and DEALLOCATE as SQL, and sessions that write their texts in older ways.

use tokio_postgres::SimpleQueryMessage;

use super::{client, rows, sqlstate};

/// The parts of an error that a client reads: SQLSTATE, message, place.
async fn refusal(client: &tokio_postgres::Client, sql: &str) -> (String, String, Option<u32>) {
    let cause = client.simple_query(sql).await.expect_err(sql);
    let told = cause.as_db_error().unwrap_or_else(|| panic!("{sql}: {cause:?}"));
    let place = match told.position() {
        Some(tokio_postgres::error::ErrorPosition::Original(place)) => Some(*place),
        _ => None,
    };
    (told.code().code().to_owned(), told.message().to_owned(), place)
}

#[tokio::test]
async fn a_statement_is_executed_where_its_arguments_belong() {
    let client = client().await;
    client.simple_query("insert into twins values (401, 'near', 1), (1401, 'far', 2)").await.unwrap();
    client.simple_query("prepare one (bigint) as select name from twins where user_id = $1").await.unwrap();
    for (argument, expected) in [("401", "near"), ("1401", "far"), ("'1401'", "far"), ("400 + 1001", "far")] {
        assert_eq!(rows(&client, &format!("execute one({argument})")).await, [expected], "{argument}");
    }
    assert!(rows(&client, "execute one(null)").await.is_empty());
    let both = "prepare both as select user_id, name from twins where user_id in ($1, $2) order by name limit 2";
    client.simple_query(both).await.unwrap();
    assert_eq!(rows(&client, "execute both(401, 1401)").await, ["1401|far", "401|near"]);
    client.simple_query("prepare put (bigint, text) as insert into twins values ($1, $2, 0)").await.unwrap();
    client.simple_query("begin; execute put(402, 'a'); execute put(1402, E'b\\'c')").await.unwrap();
    let count = "select count(*) from twins where user_id in (402, 1402)";
    assert_eq!(rows(&client, count).await, ["2"]);
    client.simple_query("rollback").await.unwrap();
    assert_eq!(rows(&client, count).await, ["0"]);
    // The tag alone: a write without RETURNING has no columns.
    let said = client.simple_query("execute put(402, 'a')").await.unwrap();
    assert!(matches!(said.as_slice(), [SimpleQueryMessage::CommandComplete(1)]), "{said:?}");
    client.simple_query("prepare gone as delete from twins where user_id = $1 returning name").await.unwrap();
    assert_eq!(rows(&client, "execute gone(402)").await, ["a"]);
    assert_eq!(rows(&client, "explain (costs off) execute one(1401)").await.len(), 2);
    assert_eq!(sqlstate(&client, "explain execute both(401, 1401)").await, "0A000");
    assert_eq!(sqlstate(&client, "create table t as execute one(1)").await, "0A000");
}

#[tokio::test]
async fn errors_are_those_of_postgresql() {
    let client = client().await;
    client.simple_query("prepare p (bigint, text) as select $1, $2").await.unwrap();
    for (sql, code, message, place) in [
        ("execute p(1)", "42601", "wrong number of parameters for prepared statement \"p\"", None),
        ("execute q(1)", "26000", "prepared statement \"q\" does not exist", None),
        ("execute p('x', 'y')", "22P02", "invalid input syntax for type bigint: \"x\"", Some(11)),
        (
            "execute p(true, 'y')",
            "42804",
            "parameter $1 of type boolean cannot be coerced to the expected type bigint",
            Some(11),
        ),
        ("execute p(1 / 0, 'y')", "22012", "division by zero", None),
        ("prepare p as select 1", "42P05", "prepared statement \"p\" already exists", None),
        ("prepare r as select nope", "42703", "column \"nope\" does not exist", Some(21)),
        ("prepare r as", "42601", "syntax error at end of input", Some(13)),
        ("execute p()", "42601", "syntax error at or near \")\"", Some(11)),
        ("deallocate q", "26000", "prepared statement \"q\" does not exist", None),
        ("prepare s as select 1; selec", "42601", "syntax error at or near \"selec\"", Some(24)),
        ("execute s", "26000", "prepared statement \"s\" does not exist", None),
    ] {
        assert_eq!(refusal(&client, sql).await, (code.to_owned(), message.to_owned(), place), "{sql}");
    }
    client.simple_query("begin").await.unwrap();
    assert_eq!(sqlstate(&client, "execute q").await, "26000");
    assert_eq!(sqlstate(&client, "execute p(1, 'a')").await, "25P02", "the block has failed");
    client.simple_query("rollback").await.unwrap();
    assert_eq!(rows(&client, "execute p(1, 'a')").await, ["1|a"]);
}

#[tokio::test]
async fn what_is_prepared_stays_whatever_its_transaction_comes_to() {
    let client = client().await;
    client.simple_query("begin; prepare a as select 1; rollback").await.unwrap();
    assert_eq!(
        sqlstate(&client, "prepare b as select count(*) from twins; select 1 / 0; prepare c as select 3").await,
        "22012"
    );
    assert_eq!(rows(&client, "execute a; select 2; execute b; deallocate a").await.len(), 3);
    for gone in ["execute a", "execute c"] {
        assert_eq!(sqlstate(&client, gone).await, "26000");
    }
    client.simple_query("discard all").await.unwrap();
    assert_eq!(sqlstate(&client, "execute b").await, "26000");
}

#[tokio::test]
async fn both_protocols_share_the_names() {
    let client = client().await;
    client.simple_query("prepare shared (bigint) as select $1 + 1").await.unwrap();
    // By a driver's own call: the text has no parameters, its columns are those of what it executes.
    let executes = client.prepare("execute shared(1401)").await.unwrap();
    assert_eq!((executes.params().len(), executes.columns()[0].type_()), (0, &tokio_postgres::types::Type::INT8));
    assert_eq!(client.query_one(&executes, &[]).await.unwrap().get::<_, i64>(0), 1402);
    let explains = client.prepare("explain (format json) execute shared(null)").await.unwrap();
    assert_eq!(client.query(&explains, &[]).await.unwrap().len(), 1);
    // tokio-postgres names its statements s0, s1 …
    let own = client.prepare("select name from twins where user_id = $1").await.unwrap();
    assert_eq!(own.params().len(), 1);
    let names = rows(&client, "select name from pg_prepared_statements order by name").await;
    let own = names.iter().filter(|name| name.starts_with('s') && *name != "shared").max_by_key(|name| name.len());
    assert!(rows(&client, &format!("execute {}(null)", own.unwrap())).await.is_empty(), "{names:?}");
    client.execute("prepare other as select 5", &[]).await.unwrap();
    assert_eq!(rows(&client, "execute other").await, ["5"]);
    client.execute("deallocate other", &[]).await.unwrap();
    assert_eq!(sqlstate(&client, "execute other").await, "26000");
}

#[tokio::test]
async fn a_backslash_is_read_as_the_server_reads_it() {
    let client = client().await;
    client.simple_query("set standard_conforming_strings = off; set escape_string_warning = off").await.unwrap();
    // To a reader who takes the backslash for a letter, the literal ends at the first quote, and the key is another.
    let insert = "insert into twins values (1411, 'it\\'s, 411, 0); --', 1), (411, 'a\\\\', 2)";
    client.simple_query(insert).await.unwrap();
    let cluster = super::shop().1;
    let near = "select string_agg(name, ',' order by user_id) from twins where user_id in (411, 1411)";
    assert_eq!(cluster.sql_everywhere(near), ["a\\", "it's, 411, 0); --"]);
    let found = client.query("select user_id from twins where name = 'a\\\\' and user_id = $1", &[&411i64]).await;
    assert_eq!(found.unwrap().len(), 1);
    assert_eq!(
        refusal(&client, "select 'a\\n', nope").await,
        ("42703".to_owned(), "column \"nope\" does not exist".to_owned(), Some(15))
    );
    client.simple_query("reset standard_conforming_strings").await.unwrap();
    assert_eq!(rows(&client, "select 'a\\'").await, ["a\\"]);
    client.simple_query("delete from twins where user_id in (411, 1411)").await.unwrap();
}
