// node-postgres at its default settings: it uses what it has, then waits with its connections open.
//
// Usage: node at_rest.mjs HOST PORT DATABASE USER PASSWORD
//
// Says `at rest` when everything was done; ends when its input does.

import { createRequire } from "node:module";
import assert from "node:assert";
import path from "node:path";

const require = createRequire(path.join(import.meta.dirname, "../../.drivers/"));
const pg = require("pg");

const [host, port, database, user, password] = process.argv.slice(2);
const where = { host, port: Number(port), database, user, password };
const find = "select handle from users where id = $1";

const client = new pg.Client(where);
await client.connect();
for (let number = 1; number < 9; number++) {
  const { rows } = await client.query({ name: "find", text: find, values: [number] });
  assert.deepEqual(rows, [{ handle: `user${number}` }]);
}
await client.query("begin");
await client.query(find, [7]);
await client.query("commit");
await client.query("set timezone to 'Asia/Tokyo'");
await client.query("listen at_rest");
const pool = new pg.Pool({ ...where, max: 3 });
await Promise.all([1, 2, 3, 4, 5, 6].map((number) => pool.query(find, [number])));

console.log("at rest");
process.stdin.on("end", () => process.exit(0)).resume();
