//! Actions of an application with tokio-postgres, and what the driver returned for each.

use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt, TryStreamExt, pin_mut, stream};
use pgweir::control::connect::Login;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, Error, IsolationLevel, NoTls, Row, SimpleQueryMessage};

/// Keys of this program: the first half lives on one shard, the second on the other.
const NEAR: i64 = 400;
const FAR: i64 = 1400;
const MINE: i32 = 4;

const INSERT: &str = "insert into kinds (user_id, id, small, whole, big, body, raw, flag, at, words, numbers, ratio) \
                      values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
const READ: &str = "select user_id, id, small, whole, big, exact::text, body, raw, flag, at, day::text, words, numbers, \
                    ratio from kinds where user_id = $1 and id = $2";

pub(crate) struct Said(pub Vec<(String, String)>);

impl Said {
    fn part(&mut self, name: &str) {
        self.0.push(("part".to_owned(), name.to_owned()));
    }

    fn hear<T: Debug>(&mut self, label: impl Into<String>, came: Result<T, Error>) {
        let came = match came {
            Ok(value) => format!("{value:?}"),
            Err(cause) => told(&cause),
        };
        self.0.push((label.into(), came));
    }
}

fn told(cause: &Error) -> String {
    let Some(error) = cause.as_db_error() else { return cause.to_string() };
    let constraint = error.constraint().unwrap_or_default();
    match error.code().code() {
        "0A000" => format!("0A000: {}", error.message()),
        code => format!("{code} {constraint}"),
    }
}

type Kinds = (i64, i32, Option<i16>, Option<i32>, Option<i64>, Option<String>, Option<Vec<u8>>, Option<bool>);
type More = (Option<SystemTime>, Option<Vec<Option<String>>>, Option<Vec<Option<i32>>>, Option<f64>);

fn kinds(row: &Row) -> (Kinds, More) {
    (
        (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4), row.get(6), row.get(7), row.get(8)),
        (row.get(9), row.get(11), row.get(12), row.get(13)),
    )
}

async fn insert(client: &Client, key: i64) -> Result<u64, Error> {
    let (small, whole, big, flag, ratio) = (-7_i16, 70_000_i32, 1_i64 << 40, true, 0.1_f64);
    let at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_709_200_800_123_456);
    let (words, numbers) = (vec![Some("a"), None, Some("b\"c")], vec![Some(1), None, Some(-3)]);
    let parameters: [&(dyn ToSql + Sync); 12] =
        [&key, &MINE, &small, &whole, &big, &"häm 'quoted'", &&b"\x00\xff"[..], &flag, &at, &words, &numbers, &ratio];
    client.execute(INSERT, &parameters).await
}

async fn keys(client: &Client, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<i64>, Error> {
    Ok(client.query(sql, parameters).await?.iter().map(|row| row.get(0)).collect())
}

async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub(crate) async fn run(login: Login) -> Vec<(String, String)> {
    let mut config = Config::new();
    config.host(&login.host).port(login.port).dbname(&login.database).user(&login.user).password(&login.password);
    let mut said = Said(Vec::new());
    parameters(&mut said, &connect(&config).await).await;
    pipelines(&mut said, &connect(&config).await).await;
    transactions(&mut said, &mut connect(&config).await).await;
    several_shards(&mut said, &connect(&config).await).await;
    portals_and_copy(&mut said, &mut connect(&config).await).await;
    simple_and_errors(&mut said, &connect(&config).await).await;
    cancelled(&mut said, &connect(&config).await).await;
    notified(&mut said, &config).await;
    said.0
}

async fn parameters(said: &mut Said, client: &Client) {
    said.part("parameters");
    for key in [NEAR, FAR] {
        said.hear(format!("insert {key}"), insert(client, key).await);
        let row = client.query_one(READ, &[&key, &MINE]).await;
        said.hear(format!("read {key}"), row.map(|row| kinds(&row)));
        let nothing = "insert into kinds (user_id, id, body) values ($1, 99, $2)";
        said.hear(format!("NULL {key}"), client.execute(nothing, &[&key, &None::<&str>]).await);
        let read = client.query_opt(READ, &[&key, &99_i32]).await;
        said.hear(format!("read NULL {key}"), read.map(|row| row.map(|row| kinds(&row))));
        said.hear(format!("no row {key}"), client.query_opt(READ, &[&key, &98_i32]).await.map(|row| row.is_some()));
        said.hear(
            format!("more than one {key}"),
            client.query_one("select id from kinds where user_id = $1", &[&key]).await,
        );
    }
    let statement = client.prepare(READ).await.unwrap();
    let types: Vec<_> = statement.columns().iter().map(|column| (column.name(), column.type_().name())).collect();
    said.hear("columns", Ok((types, statement.params().iter().map(ToString::to_string).collect::<Vec<_>>())));
    for key in [FAR, NEAR, FAR, NEAR] {
        let row = client.query_one(&statement, &[&key, &MINE]).await;
        said.hear(format!("prepared {key}"), row.map(|row| kinds(&row)));
    }
    let typed = client.query_typed("select $1::int8 + 1", &[(&1_i64, tokio_postgres::types::Type::INT8)]).await;
    said.hear("typed", typed.map(|rows| rows[0].get::<_, i64>(0)));
    said.hear("cleared", client.execute("delete from kinds where id = any($1)", &[&vec![MINE, 99]]).await);
}

async fn pipelines(said: &mut Said, client: &Client) {
    said.part("pipelines");
    let all: Vec<i64> = (0..20).flat_map(|key| [NEAR + key, FAR + key]).collect();
    for (key, came) in all.iter().zip(join_all(all.iter().map(|&key| insert(client, key))).await) {
        said.hear(format!("insert {key}"), came);
    }
    let read = client.prepare(READ).await.unwrap();
    let reads = all.iter().map(async |key| client.query_one(&read, &[key, &MINE]).await.map(|row| kinds(&row)));
    for (key, came) in all.iter().zip(join_all(reads).await) {
        said.hear(format!("read {key}"), came);
    }
    let count = "select count(*) from kinds where id = $1";
    let mixed = tokio::join!(
        keys(client, "select 1::int8 / $1", &[&0_i64]),
        keys(client, count, &[&MINE]),
        insert(client, FAR),
        keys(client, count, &[&MINE]),
    );
    said.hear("an error among them", mixed.0);
    said.hear("a read among them", mixed.1);
    said.hear("a duplicate among them", mixed.2);
    said.hear("the last of them", mixed.3);
    said.hear("cleared", client.execute("delete from kinds where id = $1", &[&MINE]).await);
}

async fn transactions(said: &mut Said, client: &mut Client) {
    said.part("transactions");
    let ours = "select user_id from kinds where id = $1 order by 1";
    let update = "update kinds set body = 'changed' where user_id = $1";
    for key in [NEAR, FAR] {
        insert(client, key).await.unwrap();
    }
    let transaction = client.transaction().await.unwrap();
    said.hear("delete", transaction.execute("delete from kinds where user_id = $1", &[&FAR]).await);
    drop(transaction);
    said.hear("rolled back by dropping", keys(client, ours, &[&MINE]).await);
    let mut transaction = client.transaction().await.unwrap();
    said.hear("update", transaction.execute(update, &[&NEAR]).await);
    let inner = transaction.savepoint("one").await.unwrap();
    said.hear("update of the other shard", inner.execute(update, &[&FAR]).await);
    said.hear("an error", inner.execute("select 1/0", &[]).await);
    said.hear("rolled back", inner.rollback().await);
    let inner = transaction.transaction().await.unwrap();
    said.hear("deleted", inner.execute("delete from kinds where id = $1", &[&MINE]).await);
    inner.rollback().await.unwrap();
    said.hear("again", transaction.execute(update, &[&FAR]).await);
    said.hear("committed", transaction.commit().await);
    let changed = "select user_id from kinds where id = $1 and body = 'changed' order by 1";
    said.hear("seen", keys(client, changed, &[&MINE]).await);
    for level in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        let transaction = client.build_transaction().isolation_level(level).start().await.unwrap();
        said.hear(
            format!("{level:?}"),
            transaction.query("select body from kinds where user_id = $1", &[&FAR]).await.map(|rows| rows.len()),
        );
        said.hear(format!("{level:?} commits"), transaction.commit().await);
    }
    let transaction = client.build_transaction().read_only(true).start().await.unwrap();
    let reads = transaction.query("select count(*) from kinds where id = $1", &[&MINE]).await;
    said.hear("read only", reads.map(|rows| rows[0].get::<_, i64>(0)));
    said.hear("a write in it", transaction.execute(update, &[&FAR]).await);
    said.hear("its end", transaction.commit().await);
    said.hear("cleared", client.execute("delete from kinds where id = $1", &[&MINE]).await);
}

async fn several_shards(said: &mut Said, client: &Client) {
    said.part("several shards");
    let rows = "insert into kinds (user_id, id, body) values ($1, 4, 'a'), ($2, 4, 'b'), ($3, 4, $4) returning user_id";
    said.hear("rows", keys(client, rows, &[&FAR, &NEAR, &(FAR + 1), &"c"]).await);
    said.hear("in order", keys(client, "select user_id from kinds where id = $1 order by body desc", &[&MINE]).await);
    said.hear(
        "limited",
        keys(client, "select user_id from kinds where id = $1 order by 1 limit $2", &[&MINE, &2_i64]).await,
    );
    said.hear(
        "any",
        keys(client, "select user_id from kinds where user_id = any($1) and id = 4 order by 1", &[&vec![NEAR, FAR]])
            .await,
    );
    said.hear(
        "in",
        keys(client, "select user_id from kinds where user_id in ($1, $2) and id = 4 order by 1", &[&NEAR, &FAR]).await,
    );
    said.hear("count", keys(client, "select count(*) from kinds where id = $1", &[&MINE]).await);
    let grouped = client.query("select country, count(*) from users group by country order by country", &[]).await;
    said.hear(
        "grouped",
        grouped.map(|rows| rows.iter().map(|row| (row.get::<_, String>(0), row.get::<_, i64>(1))).collect::<Vec<_>>()),
    );
    let streamed = client.query_raw("select user_id from kinds where id = 4 order by 1", Vec::<i32>::new()).await;
    let streamed = match streamed {
        Ok(stream) => stream.map_ok(|row| row.get::<_, i64>(0)).try_collect::<Vec<_>>().await,
        Err(cause) => Err(cause),
    };
    said.hear("streamed", streamed);
    said.hear("updated", client.execute("update kinds set whole = 1 where id = $1", &[&MINE]).await);
    said.hear("cleared", client.execute("delete from kinds where id = $1", &[&MINE]).await);
}

async fn portals_and_copy(said: &mut Said, client: &mut Client) {
    said.part("portals and copy");
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("select id from orders where user_id = $1 order by id", &[&1003_i64]).await.unwrap();
    for most in [2, 1, 0] {
        let rows = transaction.query_portal(&portal, most).await;
        said.hear(
            format!("portal, {most} rows"),
            rows.map(|rows| rows.iter().map(|row| row.get::<_, i64>(0)).collect::<Vec<_>>()),
        );
    }
    transaction.rollback().await.unwrap();
    let sink = client.copy_in("/* pgweir: shard=0 */ copy kinds (user_id, id, body) from stdin").await.unwrap();
    pin_mut!(sink);
    let lines = (0..400).map(|line| Ok(bytes::Bytes::from(format!("{}\t4\trow {line}\n", NEAR + 100 + line))));
    sink.send_all(&mut stream::iter(lines)).await.unwrap();
    said.hear("copied in", sink.finish().await);
    let out = client
        .copy_out("/* pgweir: shard=0 */ copy (select user_id from kinds where id = 4 order by 1 limit 3) to stdout")
        .await;
    let out = out.unwrap().try_fold(Vec::new(), async |mut all: Vec<u8>, some| {
        all.extend_from_slice(&some);
        Ok(all)
    });
    said.hear("copied out", out.await.map(|all| String::from_utf8(all).unwrap()));
    said.hear("counted", keys(client, "select count(*) from kinds where id = $1", &[&MINE]).await);
    said.hear("cleared", client.execute("delete from kinds where id = $1", &[&MINE]).await);
}

async fn simple_and_errors(said: &mut Said, client: &Client) {
    said.part("simple and errors");
    for sql in [
        "select 1; select 'a' as b; show timezone",
        "select count(*) from users",
        "begin; select handle from users where id = 1002; commit",
        "select 1; select 1/0; select 2",
        "selec",
        "select * from nowhere",
        "",
    ] {
        let messages = client.simple_query(sql).await.map(|messages| {
            let text = |message: &SimpleQueryMessage| match message {
                SimpleQueryMessage::Row(row) => {
                    format!("{:?}", (0..row.len()).map(|at| row.get(at)).collect::<Vec<_>>())
                }
                SimpleQueryMessage::CommandComplete(rows) => format!("complete {rows}"),
                _ => "columns".to_owned(),
            };
            messages.iter().map(text).collect::<Vec<_>>()
        });
        said.hear(format!("simple {sql}"), messages);
        said.hear(format!("extended {sql}"), client.query(sql, &[]).await.map(|rows| rows.len()));
        said.hear(format!("prepared {sql}"), client.prepare(sql).await.map(|statement| statement.columns().len()));
    }
    said.hear("mistyped", client.query("select id from kinds where user_id = $1", &[&"x"]).await);
    said.hear(
        "in no range",
        client.query("select id from kinds where user_id = $1", &[&-5_i64]).await.map(|rows| rows.len()),
    );
}

async fn cancelled(said: &mut Said, client: &Client) {
    said.part("cancelled");
    let token = client.cancel_token();
    // Cancelled again and again until it lands: the first may arrive before the statement has begun.
    let cancels = async {
        loop {
            token.cancel_query(NoTls).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let came = tokio::select! {
        came = client.query("select pg_sleep(60)", &[]) => came.map(|rows| rows.len()),
        () = cancels => unreachable!(),
    };
    said.hear("cancelled", came);
}

async fn notified(said: &mut Said, config: &Config) {
    said.part("notified");
    let (listener, mut connection) = config.connect(NoTls).await.unwrap();
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = stream::poll_fn(move |cx| connection.poll_message(cx));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(heard) = message {
                sender.send((heard.channel().to_owned(), heard.payload().to_owned())).unwrap();
            }
        }
    });
    listener.batch_execute("listen tokio_trial").await.unwrap();
    let speaker = connect(config).await;
    speaker.batch_execute("notify tokio_trial, 'one'").await.unwrap();
    speaker.query("select pg_notify('tokio_trial', $1)", &[&"two"]).await.unwrap();
    said.hear("heard", Ok((receiver.recv().await, receiver.recv().await)));
    said.hear("meanwhile", keys(&listener, "select 1::int8", &[]).await);
}
