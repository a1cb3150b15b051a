// Actions of an application with node-postgres, and what the driver returned for each, a line of text.
//
// Usage: node pg_trial.mjs HOST PORT DATABASE USER PASSWORD POOL_PORT
//
// What one connection of a pool wrote, another must see at POOL_PORT at once.

import { createRequire } from "node:module";
import path from "node:path";

// What `make drivers` installs is in a folder beside the project's own.
const require = createRequire(path.join(import.meta.dirname, "../../.drivers/"));
const pg = require("pg");

const [host, port, database, user, password, poolPort] = process.argv.slice(2);
const login = { host, port: Number(port), database, user, password };

// Keys of this program: the first half lives on one shard, the second on the other.
const near = Array.from({ length: 10 }, (_, place) => 300 + place);
const far = near.map((key) => key + 1000);
const all = near.flatMap((key, place) => [key, far[place]]);
const mine = 3;
const columns =
  "user_id, id, small, whole, big, exact, body, raw, flag, at, day, token, doc, words, numbers, ratio".split(", ");
const insert = `insert into kinds (${columns}) values (${columns.map((_, place) => `$${place + 1}`)})`;
const noon = new Date("2024-02-29T10:00:00.123Z");

function row(key, number = mine) {
  const token = `00000000-0000-0000-0000-${String(key).padStart(12, "0")}`;
  return [key, number, -7, 70000, "1099511627776", "12.3400", "häm 'quoted' \\ back", Buffer.from([0, 255, 92]), true,
    noon, "1999-12-31", token, { a: [1, null, "x"] }, ["a", null, 'b"c', ""], [1, null, -3], 0.1];
}

function say(label, what) {
  console.log(`${label} => ${what}`.replaceAll("\n", "\\n"));
}

// What came of one action; an error is what it returned.
async function act(label, work) {
  try {
    say(label, JSON.stringify(await work()));
  } catch (error) {
    const reason = error.code === "0A000" ? `: ${error.message}` : "";
    say(label, `${error.constructor.name} ${error.code} ${error.constraint ?? ""}${reason}`);
  }
}

function told(result) {
  const { command, rowCount, rows, fields } = result;
  return { command, rowCount, rows, types: fields?.map((field) => [field.name, field.dataTypeID]) };
}

const rows = async (client, ...query) => (await client.query(...query)).rows;

const parts = {
  async parameters(client) {
    for (const key of [near[0], far[0]]) {
      await act(`insert ${key}`, async () => told(await client.query(insert, row(key))));
      await act(`types of ${key}`, async () =>
        told(await client.query(`select ${columns} from kinds where user_id = $1 and id = $2`, [key, mine])));
      await act(`NULLs ${key}`, async () =>
        (await client.query(insert, [key + 1, mine, ...Array(14).fill(null)])).rowCount);
      await act(`read NULLs ${key}`, () => rows(client, `select ${columns} from kinds where user_id = $1`, [key + 1]));
      for (const [place, name] of columns.entries()) {
        if (place > 1) {
          await act(`${name} of ${key}`, () =>
            rows(client, `select id from kinds where user_id = $1 and ${name} = $2`, [key, row(key)[place]]));
        }
      }
      await act(`binary ${key}`, () =>
        rows(client, { text: "select big, raw, flag from kinds where user_id = $1", values: [key], binary: true }));
      await act(`arrays ${key}`, () =>
        rows(client, { text: "select user_id, body from kinds where user_id = $1 and id = 3", values: [key], rowMode: "array" }));
    }
    await act("delete", async () => told(await client.query("delete from kinds where id = $1", [mine])));
  },

  async prepared(client) {
    const read = (key) => ({ name: "read", text: "select user_id, body from kinds where user_id = $1", values: [key] });
    const write = (key) => ({ name: "write", text: insert, values: row(key) });
    const both = { name: "both", text: "select user_id from kinds where id = $1 order by user_id desc limit 3", values: [mine] };
    for (const place of [0, 1, 2]) {
      for (const key of [near[place], far[place]]) {
        await act(`write ${key}`, async () => told(await client.query(write(key))));
        await act(`read ${key}`, () => rows(client, read(key)));
      }
      await act(`both ${place}`, () => rows(client, both));
      await client.query("begin");
      await act(`read in a transaction ${place}`, () => rows(client, read(far[place])));
      await act(`both in a transaction ${place}`, () => rows(client, both));
      await client.query("commit");
    }
    await act("duplicate", () => client.query(write(near[0])));
    await act("another text", () => client.query({ ...read(1), text: "select 1" }).catch((error) => error.message));
    await act("cleared", async () => (await client.query("delete from kinds where id = $1", [mine])).rowCount);
  },

  async concurrent(client) {
    await act("many at once", async () => {
      const results = await Promise.all(all.map((key) => client.query(insert, row(key))));
      return results.map((result) => result.rowCount);
    });
    await act("reads at once", () =>
      Promise.all(all.map((key) => rows(client, "select user_id, exact from kinds where user_id = $1", [key]))));
    await act("with errors among them", async () => {
      const queries = [["select 1"], ["select 1/0"], [insert, row(far[0])],
        ["select user_id from kinds where id = $1 order by 1 limit 2", [mine]]];
      const results = await Promise.allSettled(queries.map((query) => client.query(...query)));
      return results.map(({ value, reason }) => value?.rows ?? reason.code);
    });
    await act("cleared", async () => (await client.query("delete from kinds where id = $1", [mine])).rowCount);
  },

  async transactions(client) {
    await client.query("begin");
    await act("insert", async () => (await client.query(insert, row(near[0]))).rowCount);
    await act("seen", () => rows(client, "select user_id from kinds where user_id = $1", [near[0]]));
    await client.query("rollback");
    await act("rolled back", () => rows(client, "select user_id from kinds where user_id = $1", [near[0]]));
    await client.query("begin");
    await client.query(insert, row(near[0]));
    await client.query("savepoint one");
    await act("duplicate", () => client.query(insert, row(near[0])));
    await act("after it", () => client.query("select 1"));
    await act("back", async () => (await client.query("rollback to savepoint one")).command);
    await act("the other shard", async () => (await client.query(insert, row(far[0]))).rowCount);
    await act("both", () => rows(client, "select user_id from kinds where id = $1 order by 1", [mine]));
    await client.query("savepoint two");
    await client.query("update kinds set body = 'changed' where id = $1", [mine]);
    await act("changed", () => rows(client, "select user_id, body from kinds where id = $1 order by 1", [mine]));
    await act("back again", async () => (await client.query("rollback to two")).command);
    await act("released", async () => (await client.query("release one")).command);
    await act("commit", async () => (await client.query("commit")).command);
    await act("after the commit", () => rows(client, "select user_id, body from kinds where id = $1 order by 1", [mine]));
    await client.query("begin");
    await client.query("update kinds set body = 'lost' where user_id = $1", [near[0]]);
    await client.query("update kinds set body = 'lost' where user_id = $1", [far[0]]);
    await act("an error", () => client.query("selec"));
    await act("commit of a failed one", async () => (await client.query("commit")).command);
    await act("nothing of it", () => rows(client, "select user_id, body from kinds where id = $1 order by 1", [mine]));
    await act("commit and chain", async () => {
      await client.query("begin");
      await client.query("update kinds set body = 'kept' where user_id = $1", [near[0]]);
      await client.query("commit and chain");
      await client.query("update kinds set body = 'not kept' where user_id = $1", [far[0]]);
      await client.query("rollback");
      return rows(client, "select user_id, body from kinds where id = $1 order by 1", [mine]);
    });
    await act("a text with a block", async () =>
      (await client.query("begin; update kinds set body = 'text' where user_id = 300; commit; select body from kinds where user_id = 300"))
        .map(told));
    await act("cleared", async () => (await client.query("delete from kinds where id = $1", [mine])).rowCount);
  },

  async severalShards(client) {
    const keys = [far[0], near[0], far[1], near[1]];
    const values = keys.map((_, place) => `($${3 * place + 1}, 3, $${3 * place + 2}, $${3 * place + 3})`);
    const flat = keys.flatMap((key) => [key, `body ${key}`, key / 4]);
    await act("rows over shards", async () =>
      told(await client.query(`insert into kinds (user_id, id, body, exact) values ${values} returning user_id, body`, flat)));
    for (const [label, ...query] of [
      ["order and limit", "select user_id, exact from kinds where id = $1 order by exact desc limit 3", [mine]],
      ["offset", "select user_id from kinds where id = $1 order by user_id limit $2 offset $3", [mine, 2, 1]],
      ["group", `select user_id > 1000 as far, count(*), sum(exact), avg(exact), min(body collate "C"), max(user_id)
                 from kinds where id = $1 group by 1 order by 1`, [mine]],
      ["aggregates", "select count(*), sum(user_id), avg(user_id), min(exact), max(exact) from kinds where id = $1", [mine]],
      ["any", "select user_id, body from kinds where id = 3 and user_id = any($1) order by user_id", [[near[0], far[1]]]],
      ["in", "select user_id, body from kinds where id = 3 and user_id in ($1, $2) order by user_id", [near[1], far[0]]],
      ["simple", "select count(*), min(user_id) from kinds where id = 3"],
      ["of the shop", "select country, count(*), sum(balance) from users group by country order by 3 desc, 1"],
      ["a join", `select u.handle, count(*) from users u join orders o on o.user_id = u.id
                  group by u.handle, u.id order by 2 desc, u.id limit 5`],
    ]) {
      await act(label, async () => told(await client.query(...query)));
    }
    await act("update over shards", async () => told(await client.query("update kinds set whole = 5 where id = $1", [mine])));
    await act("delete over shards", async () => told(await client.query("delete from kinds where id = $1", [mine])));
  },

  async errors(client) {
    for (const text of ["selec", "select nonsense from kinds where user_id = 300", "select * from nowhere", "select 'x'::int",
      "insert into kinds (user_id, id, small) values (300, 1, 99999)", "insert into users (id) values (300)", ""]) {
      await act(`error of ${text}`, () => rows(client, text));
      await act(`extended error of ${text}`, () => rows(client, { text, values: [], queryMode: "extended" }));
    }
    await act("several", async () => (await client.query("select 1 as one; select 2 as two; show timezone")).map(told));
    await act("an error in several", () => client.query("select 1; select 1/0; select 2"));
    await act("going on", () => rows(client, "select 1 as one"));
  },

  async notifications(client) {
    const heard = [];
    const enough = new Promise((resolve) => client.on("notification", ({ channel, payload }) => {
      heard.push([channel, payload]);
      if (heard.length === 2) resolve();
    }));
    await client.query("listen pg_trial");
    const other = new pg.Client(login);
    await other.connect();
    await other.query("notify pg_trial, 'one'");
    await other.query("select pg_notify('pg_trial', $1)", ["two"]);
    await enough;
    await act("heard", async () => heard);
    await other.end();
  },

  async settings(client) {
    await client.query("set timezone to 'Asia/Kolkata'");
    await act("time zone", () => rows(client, "select '2024-01-01 00:00:00+00'::timestamptz::text as at"));
    await client.query("begin");
    await client.query("set local timezone to 'America/New_York'");
    for (const key of [1, 1001]) {
      await act(`local time zone ${key}`, () => rows(client, "select created_at::text from users where id = $1", [key]));
    }
    await client.query("commit");
    await act("after it", () => rows(client, "select created_at::text from users where id = $1", [1001]));
    await act("discard", async () => (await client.query("discard all")).command);
    await act("after the discard", () => rows(client, "show timezone"));
    const own = new pg.Client({ ...login, application_name: "trial", statement_timeout: 50, options: "-c work_mem=5MB" });
    await own.connect();
    await act("own settings", () => rows(own, "select current_setting('application_name') as name, current_setting('work_mem') as mem"));
    await act("timeout", () => own.query("select pg_sleep(20)"));
    await act("after the timeout", () => rows(own, "select 1 as one"));
    await own.end();
  },

  async pools() {
    const pool = new pg.Pool({ ...login, port: Number(poolPort), max: 4 });
    await act("writes", async () => (await Promise.all(all.map((key) => pool.query(insert, row(key))))).length);
    await act("reads", () =>
      Promise.all([...all, ...all, ...all].map((key) => rows(pool, "select user_id, body from kinds where user_id = $1", [key]))));
    await act("counts", () => Promise.all(all.map(() => rows(pool, "select count(*) from kinds where id = $1", [mine]))));
    const client = await pool.connect();
    await act("of its own", () => rows(client, "select 1 as one"));
    client.release();
    await act("cleared", async () => (await pool.query("delete from kinds where id = $1", [mine])).rowCount);
    await pool.end();
  },
};

for (const [name, part] of Object.entries(parts)) {
  say("part", name);
  const client = new pg.Client(login);
  await client.connect();
  await part(client);
  await client.end();
}
