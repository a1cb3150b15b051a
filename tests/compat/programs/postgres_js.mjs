// postgres.js: its pipelines, prepared statements, transactions, cursors, COPY, listeners, large objects, types.

import { once } from "node:events";
import { pipeline } from "node:stream/promises";
import { Readable } from "node:stream";
import postgres from "postgres";

const say = (label, came) => console.log(`${label} => ${JSON.stringify(came)}`.replaceAll("\n", " "));

async function attempt(label, work) {
  try {
    say(label, await work());
  } catch (cause) {
    say(label, [cause.code, cause.message, cause.severity, cause.constraint_name, cause.position]);
  }
}

async function statements(sql) {
  console.log('part => "statements"');
  const made = await sql`create table kept (id int primary key, t text, j jsonb, a int[], d timestamptz, b bytea)`;
  say("create", [made.command, made.count]);
  const row = { id: 1, t: "it's", j: sql.json({ a: [1] }), a: [1, 3], d: new Date("2024-02-29T12:00:00Z"), b: Buffer.from([0, 255]) };
  say("insert", await sql`insert into kept ${sql(row)} returning *`);
  say("several rows", (await sql`insert into kept ${sql([{ id: 2, t: "b" }, { id: 3, t: null }], "id", "t")}`).count);
  say("update", (await sql`update kept set ${sql({ t: "c" }, "t")} where id = ${2}`).count);
  say("list", await sql`select id, t from kept where id in ${sql([1, 2])} order by id`);
  say("fragments", await sql`select ${sql("id")} from ${sql("kept")} where ${sql`id > ${1}`} order by id`);
  say("columns", (await sql`select id, t, d from kept where id = 1`).columns.map((column) => [column.name, column.type]));
  say("described", (await sql`select t from kept where id = ${1}`.describe()).types);
  say("simple", (await sql`select 1 as a; select 2 as b`.simple()).map((rows) => [...rows]));
  say("unsafe", [...(await sql.unsafe("select $1::int + 1 as n", [4], { prepare: true }))]);
  say("values", [...(await sql`select 1, 2`.values())]);
  say("raw", (await sql`select 'raw' as r`.raw())[0].map((value) => value.toString()));
  await attempt("unique", () => sql`insert into kept (id) values (1)`);
  await attempt("mistake", () => sql`selec`);
  await attempt("division", () => sql`select 1 / ${0}::int`);
  say("pipelined", (await Promise.all(Array.from({ length: 500 }, (_, n) => sql`select ${n}::int as n`))).reduce((sum, rows) => sum + rows[0].n, 0));
  const mixed = await Promise.allSettled([sql`select 1 as one`, sql`select 1 / 0`, sql`select 2 as two`]);
  say("with an error", mixed.map((one) => [one.status, one.value?.[0], one.reason?.code]));
  const query = sql`select pg_sleep(30)`;
  const running = query.execute();
  setTimeout(() => query.cancel(), 500);
  await attempt("cancelled", () => running);
  say("goes on", [...(await sql`select 'yes' as goes_on`)]);
}

async function transactions(sql) {
  console.log('part => "transactions"');
  say("result", await sql.begin(async (tx) => {
    await tx`insert into kept (id) values (10)`;
    await tx.savepoint(async (inner) => {
      await inner`insert into kept (id) values (11)`;
      throw new Error("inner");
    }).catch(() => {});
    return (await tx`select id from kept where id >= 10`).map((row) => row.id);
  }));
  await attempt("fails", () => sql.begin(async (tx) => {
    await tx`insert into kept (id) values (20)`;
    await tx`insert into kept (id) values (20)`;
  }));
  say("read only", await sql.begin("read only", async (tx) => (await tx`select current_setting('transaction_read_only') as n`)[0].n));
  say("pipelined", await sql.begin((tx) => [tx`insert into kept (id) values (30)`, tx`select id from kept where id = 30`]).then(([, rows]) => [...rows]));
  const reserved = await sql.reserve();
  await reserved`set application_name = 'reserved'`;
  say("reserved", [...(await reserved`show application_name`)]);
  reserved.release();
}

async function rows(sql) {
  console.log('part => "rows"');
  let sum = 0;
  await sql`select n from generate_series(1, 1000) n`.cursor(100, async (batch) => {
    sum += batch.reduce((total, row) => total + row.n, 0);
  });
  say("cursor", sum);
  sum = 0;
  for await (const [row] of sql`select n from generate_series(1, 50) n`.cursor()) {
    sum += row.n;
    if (row.n === 20) break;
  }
  say("left early", sum);
  sum = 0;
  await sql`select n from generate_series(1, 5000) n`.forEach((row) => { sum += row.n; });
  say("each", sum);
  await sql`create table copied (id int, t text)`;
  await pipeline(Readable.from(["1\tone\n", "2\t\\N\n"]), await sql`copy copied from stdin`.writable());
  say("copied", [...(await sql`select * from copied where id > 0 order by id for share`)]);
  let text = "";
  for await (const chunk of await sql`copy copied to stdout`.readable()) text += chunk;
  say("out", text);
  const { writable, readable, close, seek, read, write, tell } = await sql.largeObject();
  await write(Buffer.from("a large object"));
  await seek(2);
  say("large object", [(await read(5))[0].data.toString(), await tell().then((rows) => rows[0]?.location)]);
  await close();
}

async function listeners(sql, other) {
  console.log('part => "listeners"');
  const heard = [];
  let told;
  const { unlisten } = await sql.listen("news", (payload) => { heard.push(payload); told?.(); });
  const until = async (count) => {
    while (heard.length < count) await new Promise((resolve) => { told = resolve; });
  };
  await other.notify("news", "first");
  await until(1);
  await sql.notify("news", "own");
  await until(2);
  await unlisten();
  await other.notify("news", "unheard");
  await sql`select 1`;
  say("heard", heard);
}

const notices = [];
const options = { max: 3, ssl: false, onnotice: (notice) => notices.push([notice.severity, notice.message]) };
const sql = postgres(options);
const other = postgres({ ...options, max: 1, prepare: false, connection: { application_name: "other", statement_timeout: 9000 } });
await statements(sql);
await transactions(sql);
await rows(sql);
await listeners(sql, other);
say("settings", [...(await other`select current_setting('application_name') as a, current_setting('statement_timeout') as t`)]);
await sql`do $$ begin raise notice 'of the server'; end $$`;
say("notices", notices);
await sql.end();
await other.end();
