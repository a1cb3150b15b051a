//! Statements that are carried out as several, and blocks that see one state of all shards.

use tokio_postgres::{Client, SimpleQueryMessage};

use super::{Role, client, rows, shop, sqlstate};

/// Rows of this test alone: users `first` to `first + 2` on one shard, the same and 1000 on the other.
async fn fill(client: &Client, first: i64, id: i64) {
    let values =
        (first..first + 3).flat_map(|user| [user, user + 1000]).map(|user| format!("({user}, {id}, 'b{user}')"));
    let insert = format!("insert into scraps values {}", values.collect::<Vec<_>>().join(", "));
    client.batch_execute(&insert).await.unwrap();
}

async fn count(client: &Client, id: i64) -> String {
    rows(client, &format!("select count(*) from scraps where id = {id}")).await.remove(0)
}

#[tokio::test]
async fn a_driver_moves_rows_by_a_write_in_with() {
    let client = client().await;
    fill(&client, 601, 6001).await;
    let moved = "with gone as (delete from scraps where id = $1 and body <> $2 returning user_id, body) \
                 insert into notes(user_id, id, body) select user_id, $3, body || '!' from gone returning user_id, body";
    let moved = client.prepare(moved).await.unwrap();
    let found = client.query(&moved, &[&6001i64, &"b602", &6001i64]).await.unwrap();
    let mut found: Vec<(i64, String)> = found.iter().map(|row| (row.get(0), row.get(1))).collect();
    found.sort_unstable();
    let expected = [601, 603, 1601, 1602, 1603].map(|user: i64| (user, format!("b{user}!")));
    assert_eq!(found, expected);
    assert_eq!(rows(&client, "select user_id from scraps where id = 6001").await, ["602"]);
    // All or nothing: the second part fails for one row of one shard, which is there already.
    fill(&client, 611, 6002).await;
    client.batch_execute("insert into notes values (1612, 6002, 'first')").await.unwrap();
    let again = client.query(&moved, &[&6002i64, &"", &6002i64]).await.unwrap_err();
    assert_eq!(again.code().map(|code| code.code()), Some("23505"));
    assert_eq!(count(&client, 6002).await, "6");
    assert_eq!(rows(&client, "select body from notes where id = 6002").await, ["first"]);
    // In a block it is undone with it.
    client.batch_execute("begin; savepoint s").await.unwrap();
    let counted = "with gone as (delete from scraps where id = 6002 returning *) select count(*) from gone";
    assert_eq!(rows(&client, counted).await, ["6"]);
    assert_eq!(count(&client, 6002).await, "0");
    client.batch_execute("rollback to s; commit").await.unwrap();
    assert_eq!(count(&client, 6002).await, "6");
}

#[tokio::test]
async fn a_merge_puts_each_row_where_its_key_is() {
    let client = client().await;
    fill(&client, 621, 6003).await;
    let merge = "merge into scraps s using (values (621::bigint, $1), (625, $1), (1625, $1)) as v(u, b) \
                 on s.user_id = v.u and s.id = 6003 when matched then update set body = v.b \
                 when not matched then insert (user_id, id, body) values (v.u, 6003, v.b)";
    assert_eq!(client.execute(merge, &[&"merged"]).await.unwrap(), 3);
    let of_shards = shop().1.sql_everywhere(
        "select string_agg(user_id::text, ',' order by user_id) from scraps where id = 6003 and body = 'merged'",
    );
    assert_eq!(of_shards, ["621,625", "1625"]);
}

#[tokio::test]
async fn workers_take_different_jobs() {
    let (client, other) = (client().await, client().await);
    fill(&client, 631, 6004).await;
    let job = "update scraps set body = 'taken' where (user_id, id) in (select user_id, id from scraps \
               where id = 6004 and body <> 'taken' order by user_id limit 1 for update skip locked) returning user_id";
    client.batch_execute("begin").await.unwrap();
    assert_eq!(rows(&client, job).await, ["631"]);
    assert_eq!(rows(&other, job).await, ["632"]);
    client.batch_execute("commit").await.unwrap();
    let left = "select user_id from scraps where id = 6004 and body <> 'taken' order by user_id";
    assert_eq!(rows(&client, left).await, ["633", "1631", "1632", "1633"]);
}

#[tokio::test]
async fn repeatable_read_is_one_state_of_all_shards() {
    let (client, other) = (client().await, client().await);
    fill(&client, 641, 6005).await;
    client.batch_execute("begin isolation level repeatable read").await.unwrap();
    // What it sees is settled on both shards by its first statement, on one.
    assert_eq!(rows(&client, "select body from scraps where user_id = 641 and id = 6005").await, ["b641"]);
    other.batch_execute("update scraps set body = 'later' where id = 6005 and user_id % 1000 = 642").await.unwrap();
    other.batch_execute("delete from scraps where id = 6005 and user_id % 1000 = 643").await.unwrap();
    assert_eq!(count(&client, 6005).await, "6");
    assert_eq!(rows(&client, "select body from scraps where user_id = 1642 and id = 6005").await, ["b1642"]);
    client.batch_execute("update scraps set body = 'own' where id = 6005 and user_id in (641, 1641)").await.unwrap();
    client.batch_execute("commit").await.unwrap();
    assert_eq!(
        rows(&client, "select count(*), count(*) filter (where body = 'own') from scraps where id = 6005").await,
        ["4|2"]
    );
    // Who writes what others have written meanwhile is told so.
    client.batch_execute("begin isolation level repeatable read; select 1").await.unwrap();
    other.batch_execute("update scraps set body = 'other' where id = 6005 and user_id = 1641").await.unwrap();
    assert_eq!(sqlstate(&client, "update scraps set body = 'x' where id = 6005").await, "40001");
    client.batch_execute("rollback").await.unwrap();
    // One that begins on its shard, of a session whose level it is, stays there.
    client.batch_execute("set default_transaction_isolation = 'repeatable read'").await.unwrap();
    client
        .batch_execute("begin; select count(*) from scraps; select 1 from scraps where user_id = 641; commit")
        .await
        .unwrap();
    client.batch_execute("begin; select 1 from scraps where user_id = 641").await.unwrap();
    assert_eq!(sqlstate(&client, "select count(*) from scraps").await, "0A000");
    client.batch_execute("rollback; reset default_transaction_isolation").await.unwrap();
}

#[tokio::test]
async fn a_block_with_a_temporary_table_is_on_all_shards() {
    let client = client().await;
    fill(&client, 651, 6006).await;
    client.batch_execute("begin; create temp table chosen (who bigint) on commit drop").await.unwrap();
    client
        .batch_execute("insert into chosen select user_id from scraps where id = 6006 and user_id > 651")
        .await
        .unwrap();
    client
        .batch_execute("update scraps set body = 'chosen' from chosen where who = user_id and id = 6006")
        .await
        .unwrap();
    assert_eq!(rows(&client, "select count(*) from scraps where body = 'chosen' and id = 6006").await, ["5"]);
    client.batch_execute("commit").await.unwrap();
    assert_eq!(sqlstate(&client, "select * from chosen").await, "42P01");
    assert_eq!(rows(&client, "select count(*) from scraps where body = 'chosen' and id = 6006").await, ["5"]);
    // What was there before the block is there within and after it, undone with it.
    client.batch_execute("create temp table kept as select user_id as who from scraps where id = 6006").await.unwrap();
    client
        .batch_execute("begin; delete from kept; update scraps set body = 'lost' where id = 6006; rollback")
        .await
        .unwrap();
    assert_eq!(rows(&client, "select count(*) from kept").await, ["6"]);
    assert_eq!(rows(&client, "select count(*) from scraps where body = 'lost' and id = 6006").await, ["0"]);
    client.batch_execute("drop table kept").await.unwrap();
}

#[tokio::test]
async fn what_a_block_defines_has_no_rows_in_the_wrong_place() {
    let client = client().await;
    client.batch_execute("begin; create table just_made (user_id bigint primary key, body text)").await.unwrap();
    assert_eq!(sqlstate(&client, "insert into just_made values (1, 'a'), (1001, 'b')").await, "0A000");
    client
        .batch_execute("rollback; begin; create table just_made (user_id bigint primary key, body text)")
        .await
        .unwrap();
    client.batch_execute("create table plainly_made (name text); insert into plainly_made values ('x')").await.unwrap();
    client.batch_execute("commit").await.unwrap();
    client.batch_execute("insert into just_made values (1, 'a'), (1001, 'b')").await.unwrap();
    assert_eq!(shop().1.sql_everywhere("select user_id from just_made"), ["1", "1001"]);
    let refused =
        sqlstate(&client, "begin; create view seen as select * from just_made; select count(*) from seen").await;
    assert_eq!(refused, "0A000");
    client.batch_execute("rollback").await.unwrap();
    client.batch_execute("create table just_copied as select * from just_made").await.unwrap();
    assert_eq!(shop().1.sql_everywhere("select user_id from just_copied"), ["1", "1001"]);
    client.batch_execute("drop table just_made, plainly_made, just_copied").await.unwrap();
}

#[tokio::test]
async fn columns_that_differ_are_named_before_their_rows_are_joined() {
    let (client, cluster) = (client().await, shop().1);
    client.batch_execute("create table drifting (user_id bigint primary key, at timestamptz, n int)").await.unwrap();
    client.batch_execute("insert into drifting values (1, '2024-01-01', 1), (1001, '2024-01-02', 2)").await.unwrap();
    let joined = "select a.user_id from drifting a join drifting b on a.n < b.n";
    assert_eq!(rows(&client, joined).await, ["1"]);
    cluster.sql(1, Role::Primary, "alter table drifting alter column at type timestamp");
    assert_eq!(rows(&client, joined).await, ["1"], "what is not read does not matter");
    let error =
        client.simple_query("select a.at, b.at from drifting a join drifting b on a.n < b.n").await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "0A000");
    assert!(error.message().contains("shard 1") && error.detail().unwrap_or_default().contains("at"), "{error:?}");
    client.batch_execute("drop table drifting").await.unwrap();
}

#[tokio::test]
async fn a_text_that_is_wrong_is_not_begun() {
    let client = client().await;
    let text =
        "insert into scraps values (661, 6007, 'a'), (1661, 6007, 'b'); select count(*) from scraps; select from where";
    assert_eq!(sqlstate(&client, text).await, "42601");
    assert_eq!(count(&client, 6007).await, "0");
    assert_eq!(sqlstate(&client, "begin; select nosuch from scraps").await, "42703");
    for (text, expected) in [("selec 1", "42601"), ("select 1", "25P02"), ("select nosuch", "25P02")] {
        assert_eq!(sqlstate(&client, text).await, expected, "{text}");
    }
    client.batch_execute("rollback").await.unwrap();
}

#[tokio::test]
async fn a_materialized_view_shows_what_was_there_when_it_was_refreshed() {
    let client = client().await;
    fill(&client, 671, 6008).await;
    let query = "select user_id % 1000 as who, count(*) n from scraps where id = 6008 group by 1";
    client.batch_execute(&format!("create materialized view counted as {query}")).await.unwrap();
    let sum = "select count(*), sum(n) from counted";
    assert_eq!(rows(&client, sum).await, ["3|6"]);
    client.batch_execute("delete from scraps where id = 6008 and user_id = 1671").await.unwrap();
    assert_eq!(rows(&client, sum).await, ["3|6"]);
    client
        .batch_execute("create unique index on counted (who); refresh materialized view concurrently counted")
        .await
        .unwrap();
    assert_eq!(rows(&client, sum).await, ["3|5"]);
    let dropped = client.simple_query("drop materialized view counted").await.unwrap();
    assert!(matches!(dropped.last(), Some(SimpleQueryMessage::CommandComplete(_))));
    let left = shop().1.sql_everywhere("select count(*) from pg_class where relname like '%counted%'");
    assert_eq!(left, ["0", "0"]);
}

#[tokio::test]
async fn a_body_whose_statements_are_one_shards_runs_there() {
    let client = client().await;
    fill(&client, 651, 6017).await;
    let block = |first: i64, second: i64| {
        format!(
            "DO $$ DECLARE n bigint := 0; BEGIN
                 SELECT count(*) INTO STRICT n FROM scraps WHERE user_id = {first} AND id = 6017;
                 IF n > 0 THEN
                     UPDATE scraps SET body = 'by DO ' || n WHERE user_id = {first} AND id = 6017;
                 ELSE
                     RAISE EXCEPTION 'nobody there';
                 END IF;
                 PERFORM 1 FROM scraps WHERE user_id = {second};
                 INSERT INTO scraps VALUES ({second}, 6017, 'new');
             EXCEPTION WHEN unique_violation THEN
                 INSERT INTO scraps VALUES ({second}, 6018, 'again');
             END $$"
        )
    };
    client.batch_execute(&block(1652, 1653)).await.unwrap();
    let of_shards = shop().1.sql_everywhere(
        "select string_agg(user_id || ' ' || id || ' ' || body, ', ' order by user_id, id) from scraps \
         where id in (6017, 6018) and user_id in (652, 653, 1652, 1653)",
    );
    assert_eq!(of_shards, ["652 6017 b652, 653 6017 b653", "1652 6017 b1652, 1653 6017 b1653, 1653 6018 again"]);
    // Where it writes nothing to begin with, the whole block has not happened.
    let nobody = client.batch_execute(&block(655, 651)).await.unwrap_err();
    assert_eq!(nobody.code().map(|code| code.code()), Some("P0001"));
    for refused in [
        block(651, 1651),
        "DO $$ DECLARE u bigint := 651; BEGIN DELETE FROM scraps WHERE user_id = u; END $$".to_owned(),
        "DO $$ BEGIN EXECUTE 'delete from scraps where user_id = 651'; DELETE FROM scraps WHERE user_id = 651; END $$"
            .to_owned(),
    ] {
        assert_eq!(sqlstate(&client, &refused).await, "0A000", "{refused}");
    }
    assert_eq!(rows(&client, "select count(*) from scraps where user_id = 651 and id = 6017").await, ["1"]);
}

/// What Sequelize sends to find a row or create it.
#[tokio::test]
async fn a_function_made_called_and_dropped_is_what_it_says() {
    let client = client().await;
    fill(&client, 661, 6019).await;
    let find_or_create = |user: &str, id: i64| {
        format!(
            "CREATE OR REPLACE FUNCTION pg_temp.testfunc(OUT response \"scraps\", OUT caught text) RETURNS RECORD AS $func_1$ \
             BEGIN INSERT INTO \"scraps\" (\"user_id\",\"id\",\"body\") VALUES ({user},{id},'made') \
             RETURNING \"user_id\",\"id\",\"body\" INTO response; \
             EXCEPTION WHEN unique_violation THEN GET STACKED DIAGNOSTICS caught = PG_EXCEPTION_DETAIL; \
             END $func_1$ LANGUAGE plpgsql; \
             SELECT (testfunc.response).\"user_id\", (testfunc.response).\"body\", testfunc.caught FROM pg_temp.testfunc(); \
             DROP FUNCTION IF EXISTS pg_temp.testfunc();"
        )
    };
    assert_eq!(rows(&client, &find_or_create("664", 6019)).await, ["664|made|NULL"]);
    assert_eq!(rows(&client, &find_or_create("1664", 6019)).await, ["1664|made|NULL"]);
    client.batch_execute("start transaction").await.unwrap();
    let there = rows(&client, &find_or_create("1661", 6019)).await.remove(0);
    assert!(there.starts_with("NULL|NULL|Key (user_id, id)=(1661, 6019) already exists"), "{there}");
    assert_eq!(rows(&client, &find_or_create("1665", 6019)).await, ["1665|made|NULL"]);
    // PostgreSQL does not prepare what has temporary objects in it: the block may read on the other shard, not write.
    assert_eq!(rows(&client, "select body from scraps where user_id = 664 and id = 6019").await, ["made"]);
    client.batch_execute("commit").await.unwrap();
    let found = "select user_id, body from scraps where id = 6019 and user_id % 1000 > 663 order by 1";
    assert_eq!(rows(&client, found).await, ["664|made", "1664|made", "1665|made"]);
    assert_eq!(sqlstate(&client, &find_or_create("(select max(user_id) + 1 from scraps)", 6019)).await, "0A000");
}

#[tokio::test]
async fn a_function_that_the_catalog_does_not_know_is_not_run_on_one_shard() {
    let client = client().await;
    fill(&client, 671, 6020).await;
    let makes = |name: &str| {
        format!("create function {name} returns bigint language sql as 'select count(*) from scraps where id = 6020'")
    };
    for (name, call) in [("pg_temp.counted()", "pg_temp.counted()"), ("just_counted()", "just_counted()")] {
        client.batch_execute(&format!("begin; {}", makes(name))).await.unwrap();
        assert_eq!(sqlstate(&client, &format!("select {call}")).await, "0A000", "{call}");
        client.batch_execute("rollback").await.unwrap();
    }
    assert_eq!(sqlstate(&client, "select nosuch_function(1)").await, "42883");
    // Called as a column is read.
    let makes = "create function beside(scraps) returns bigint language sql stable as 'select count(*) from scraps'; \
                 create function shouted(scraps) returns text language sql stable as 'select upper($1.body)'";
    client.batch_execute(makes).await.unwrap();
    for reads in
        ["select s.beside from scraps s", "select user_id from scraps s where (s).beside > 0 order by 1 limit 1"]
    {
        assert_eq!(sqlstate(&client, reads).await, "0A000", "{reads}");
    }
    let shouted = "select s.shouted from scraps s where id = 6020 and user_id % 1000 = 671";
    assert_eq!(rows(&client, shouted).await, ["B671", "B1671"]);
    client.batch_execute("drop function beside(scraps), shouted(scraps)").await.unwrap();
}

#[tokio::test]
async fn a_temporary_table_hides_a_table_within_its_block_as_well() {
    let client = client().await;
    fill(&client, 681, 6021).await;
    for reaches in [
        "select count(*) from scraps where id = 6021",
        "select body from scraps where user_id = 1681",
        "delete from scraps where id = 6021",
    ] {
        client.batch_execute("begin; create temp table scraps (user_id bigint, id bigint, body text)").await.unwrap();
        assert_eq!(rows(&client, "select count(*) from scraps where user_id = 681").await, ["0"]);
        assert_eq!(sqlstate(&client, reaches).await, "0A000", "{reaches}");
        assert_eq!(sqlstate(&client, "select 1").await, "25P02");
        client.batch_execute("rollback").await.unwrap();
    }
    // On a shard that the block has reached before, too.
    client
        .batch_execute("begin; select 1 from scraps where user_id = 1681; select 1 from scraps where user_id = 681")
        .await
        .unwrap();
    client.batch_execute("create temp table scraps (user_id bigint, id bigint, body text)").await.unwrap();
    assert_eq!(sqlstate(&client, "select body from scraps where user_id = 1681").await, "0A000");
    client
        .batch_execute("rollback; begin; create temp table scrapped as select * from scraps where user_id = 681")
        .await
        .unwrap();
    assert_eq!(rows(&client, "select count(*) from scraps where id = 6021").await, ["6"]);
    client.batch_execute("rollback").await.unwrap();
}
