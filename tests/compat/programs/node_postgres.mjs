// node-postgres, pg-cursor and pg-query-stream: text, extended and named statements, pools, transactions, errors,
// notifications, cursors, streams, types.

import { createRequire } from "node:module";
import pg from "pg";

const require = createRequire(import.meta.url);
const Cursor = require("pg-cursor");
const QueryStream = require("pg-query-stream");

const say = (label, came) => console.log(`${label} => ${JSON.stringify(came)}`.replaceAll("\n", " "));

async function attempt(label, work) {
  try {
    say(label, await work());
  } catch (cause) {
    say(label, [cause.code, cause.message, cause.severity, cause.constraint, cause.position]);
  }
}

const shape = (result) => [
  result.command, result.rowCount, result.rows, result.fields.map((field) => [field.name, field.dataTypeID, field.format]),
];

async function statements(client) {
  console.log('part => "statements"');
  say("create", shape(await client.query("create table kept (id int primary key, t text, j jsonb, d timestamptz, b bytea, a int[])")));
  say("insert", shape(await client.query("insert into kept values ($1, $2, $3, $4, $5, $6) returning *", [
    1, "it's", { a: [1] }, new Date("2024-02-29T12:00:00Z"), Buffer.from([0, 255]), [1, null, 3],
  ])));
  for (const id of [1, 2, 1, 2, 1, 2]) {
    say("named", shape(await client.query({ name: "by id", text: "select t from kept where id = $1", values: [id] })));
  }
  await attempt("another by that name", () => client.query({ name: "by id", text: "select 1" }));
  say("array", (await client.query({ text: "select 1, 2 as two", rowMode: "array" })).rows);
  say("binary", (await client.query({ text: "select 7::int4, 'x'::text", binary: true })).rows);
  say("several", (await client.query("select 1 as a; select 2 as b; insert into kept (id) values (9)")).map(shape));
  say("empty", shape(await client.query("")));
  await attempt("mistake", () => client.query("selec"));
  await attempt("unique", () => client.query("insert into kept (id) values ($1)", [1]));
  await attempt("type", () => client.query("select $1::int", ["x"]));
  await attempt("division", () => client.query("select 1 / $1::int", [0]));
  say("null", (await client.query("select $1::text as n, $2::int[] as a", [null, []])).rows);
  const many = await Promise.all(Array.from({ length: 200 }, (_, n) => client.query("select $1::int as n", [n])));
  say("queued", many.map((result) => result.rows[0].n).reduce((sum, n) => sum + n, 0));
  const failing = await Promise.allSettled([
    client.query("select 1 as before"), client.query("select 1 / 0"), client.query("select 2 as behind"),
  ]);
  say("queued with an error", failing.map((one) => [one.status, one.value?.rows, one.reason?.code]));
  say("wide", (await client.query("select repeat('w', 1000000) as w")).rows[0].w.length);
  say("large parameter", (await client.query("select length($1::text) as l", ["p".repeat(2000000)])).rows);
}

async function transactions(client) {
  console.log('part => "transactions"');
  await client.query("begin");
  await client.query("insert into kept (id) values (20)");
  await client.query("savepoint s");
  await attempt("fails", () => client.query("insert into kept (id) values (20)"));
  await attempt("failed", () => client.query("select 1"));
  await client.query("rollback to s");
  say("commit", (await client.query("commit")).command);
  await client.query("begin isolation level serializable");
  say("level", (await client.query("show transaction_isolation")).rows);
  await client.query("rollback");
  await client.query("begin; insert into kept (id) values (21)");
  await client.query("rollback");
  say("kept", (await client.query("select id from kept order by id")).rows);
  await client.query("set statement_timeout = '200ms'");
  await attempt("timeout", () => client.query("select pg_sleep(10)"));
  await client.query("reset statement_timeout");
  say("process", typeof client.processID);
}

async function cursors(client) {
  console.log('part => "cursors"');
  const cursor = client.query(new Cursor("select n from generate_series(1, $1::int) n", [25]));
  say("ten", (await cursor.read(10)).length);
  say("ten", (await cursor.read(10))[9]);
  say("five", (await cursor.read(10)).length);
  say("none", (await cursor.read(10)).length);
  await cursor.close();
  const left = client.query(new Cursor("select n from generate_series(1, 1000000) n"));
  say("one", await left.read(1));
  await left.close();
  say("after", (await client.query("select 1 as one")).rows);
  const bad = client.query(new Cursor("select 1 / (3 - n) as n from generate_series(1, 5) n"));
  await attempt("up to an error", () => bad.read(10));
  await bad.close().catch(() => {});
  let sum = 0;
  for await (const row of client.query(new QueryStream("select n from generate_series(1, 3000) n", [], { batchSize: 70 }))) {
    sum += row.n;
  }
  say("stream", sum);
  const stream = client.query(new QueryStream("select n from generate_series(1, 100000) n"));
  for await (const row of stream) {
    if (row.n === 10) break;
  }
  say("left early", (await client.query("select 2 as two")).rows);
  await client.query("begin");
  const inside = client.query(new Cursor("select n from generate_series(1, 9) n"));
  say("in a block", (await inside.read(4)).length);
  await inside.close();
  await client.query("commit");
}

async function notifications(client, config) {
  console.log('part => "notifications"');
  const heard = [];
  client.on("notification", (message) => heard.push(message));
  await client.query('listen "News"');
  const other = new pg.Client(config);
  await other.connect();
  const until = async (count) => {
    while (heard.length < count) await new Promise((resolve) => client.once("notification", resolve));
  };
  await other.query("select pg_notify('News', 'first')");
  await until(1);
  await client.query(`notify "News", 'own'`);
  await until(2);
  say("heard", heard.map((one) => [one.channel, one.payload]));
  say("from", [heard[0].processId === other.processID, heard[1].processId === client.processID]);
  await client.query("unlisten *");
  await other.query(`notify "News", 'unheard'`);
  await client.query("select 1");
  say("no more", heard.length);
  const notices = [];
  client.on("notice", (notice) => notices.push([notice.severity, notice.message]));
  await client.query("do $$ begin raise notice 'of the server'; end $$");
  say("notices", notices);
  await other.end();
}

async function pools(config) {
  console.log('part => "pools"');
  const pool = new pg.Pool({ ...config, max: 5, idleTimeoutMillis: 100 });
  const sums = await Promise.all(Array.from({ length: 50 }, (_, n) => pool.query("select $1::int * 2 as n", [n])));
  say("fifty", sums.reduce((sum, result) => sum + result.rows[0].n, 0));
  const client = await pool.connect();
  await client.query("set application_name = 'one of a pool'");
  say("set", (await client.query("show application_name")).rows);
  client.release(true);
  say("a new one", (await pool.query("select current_setting('application_name') as a")).rows);
  await attempt("error", () => pool.query("nonsense"));
  await pool.end();
  const wrong = new pg.Client({ ...config, database: "no such database" });
  await attempt("no such database", () => wrong.connect());
  const options = new pg.Client({ ...config, options: "-c search_path=pg_catalog -c work_mem=8MB", application_name: "named", statement_timeout: 5000 });
  await options.connect();
  say("options", (await options.query("select current_setting('search_path') as s, current_setting('work_mem') as w, current_setting('application_name') as a, current_setting('statement_timeout') as t")).rows);
  await options.end();
}

const config = { ssl: false };
const client = new pg.Client(config);
await client.connect();
await statements(client);
await transactions(client);
await cursors(client);
await notifications(client, config);
await pools(config);
await client.end();
