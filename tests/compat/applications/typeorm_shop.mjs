// The shop by TypeORM: entities, migrations by its query runner, CRUD by user, transactions, relations, query builder.

import "reflect-metadata";
import typeorm from "typeorm";

const { DataSource, EntitySchema, In, MoreThan, Table, TableColumn, TableIndex } = typeorm;
const [ONE, OTHER] = [7, 150];
const THEN = new Date("2024-02-29T12:00:00Z");
const uuid = (number) => `00000000-0000-0000-0000-${String(number).padStart(12, "0")}`;
const say = (label, came) => console.log(`${label} => ${JSON.stringify(came)}`.replaceAll("\n", " "));

async function attempt(label, work) {
  try {
    say(label, await work());
  } catch (cause) {
    say(label, [cause.name, cause.driverError?.code, cause.message]);
  }
}

const User = new EntitySchema({
  name: "User", tableName: "users", columns: {
    id: { type: "bigint", primary: true }, handle: { type: "text" }, email: { type: "text" }, full_name: { type: "text", nullable: true },
    country: { type: "char", length: 2 }, balance: { type: "numeric", precision: 12, scale: 2, default: 0 },
    interests: { type: "text", array: true, default: "{}" }, settings: { type: "jsonb", default: {} }, created_at: { type: "timestamptz" },
  },
  relations: {
    orders: { type: "one-to-many", target: "Order", inverseSide: "user" }, posts: { type: "one-to-many", target: "Post", inverseSide: "user" },
  },
});
const Order = new EntitySchema({
  name: "Order", tableName: "orders", columns: {
    user_id: { type: "bigint", primary: true }, id: { type: "bigint", primary: true }, tracking: { type: "uuid" },
    status: { type: "text", default: "placed" }, total: { type: "numeric", precision: 12, scale: 2 }, placed_at: { type: "timestamptz" },
  },
  relations: { user: { type: "many-to-one", target: "User", inverseSide: "orders", joinColumn: { name: "user_id" } } },
});
const Post = new EntitySchema({
  name: "Post", tableName: "posts", columns: {
    user_id: { type: "bigint", primary: true }, id: { type: "bigint", primary: true }, public_id: { type: "uuid" }, body: { type: "text" },
    likes: { type: "integer", default: 0 }, published_at: { type: "timestamptz" },
  },
  relations: { user: { type: "many-to-one", target: "User", inverseSide: "posts", joinColumn: { name: "user_id" } } },
});
const Category = new EntitySchema({
  name: "Category", tableName: "categories", columns: { id: { type: "integer", primary: true }, name: { type: "text" }, slug: { type: "text" } },
});

const { PGDATABASE, PGUSER, PGPASSWORD, PGHOST, PGPORT } = process.env;
const source = new DataSource({
  type: "postgres", host: PGHOST, port: Number(PGPORT), username: PGUSER, password: PGPASSWORD, database: PGDATABASE,
  entities: [User, Order, Post, Category], extra: { max: 1 },
});
await source.initialize();
const [users, orders, posts] = [User, Order, Post].map((entity) => source.getRepository(entity));

async function fill() {
  console.log('part => "filling"');
  say("categories", (await source.getRepository(Category).save([1, 2].map((id) => ({ id, name: `category ${id}`, slug: `slug-${id}` })))).length);
  for (const id of [ONE, ONE + 1, OTHER, OTHER + 1]) {
    await source.transaction(async (manager) => {
      const user = await manager.save(User, { id, handle: `user${id}`, email: `${id}@example.com`, country: "DE", interests: ["a"], created_at: THEN });
      await manager.save(Order, [1, 2, 3].map((n) => ({ user_id: id, id: n, tracking: uuid(id * 100 + n), total: n * 5, placed_at: THEN })));
      await manager.insert(Post, { user_id: id, id: 1, public_id: uuid(id * 1000), body: "first", published_at: THEN });
      say("user", user);
    });
  }
}

async function oneUser(id) {
  say("part", `user ${id}`);
  const user = await users.findOneBy({ id });
  say("found", user);
  say("none", await users.findOneBy({ id, handle: "nobody" }));
  say("exists", await users.existsBy({ id }));
  say("orders", await orders.find({ where: { user_id: id }, order: { id: "ASC" } }));
  await attempt("relations", () => users.findOne({ where: { id }, relations: { orders: true, posts: true }, order: { orders: { id: "ASC" } } }));
  await attempt("relations by queries", () => users.find({ where: { id }, relations: { orders: true }, relationLoadStrategy: "query" }).then((all) => all.map((one) => one.orders.length)));
  await attempt("find and count", () => orders.findAndCount({ where: { user_id: id, total: MoreThan(5) }, order: { id: "DESC" }, take: 1 }));
  await attempt("paged relations", () => users.find({ where: { id }, relations: { orders: true }, take: 1 }).then((all) => all.map((one) => one.orders.length)));
  await attempt("builder", () => source.createQueryBuilder(Order, "o").innerJoinAndSelect("o.user", "u").where("o.user_id = :id", { id }).orderBy("o.id").getMany().then((all) => all.map((one) => one.user.handle)));
  say("grouped", await orders.createQueryBuilder("o").select("o.status", "status").addSelect("count(*)", "n").where("o.user_id = :id", { id }).groupBy("o.status").getRawMany());
  user.full_name = "Updated";
  say("saved", await users.save(user));
  say("updated", (await orders.update({ user_id: id, id: 1 }, { status: "paid" })).affected);
  await users.increment({ id }, "balance", 5);
  say("balance", (await users.findOneBy({ id })).balance);
  await attempt("upsert", () => posts.upsert({ user_id: id, id: 1, public_id: uuid(id * 1000), body: "upserted", published_at: THEN }, ["user_id", "id"]).then((done) => done.identifiers));
  say("deleted", (await orders.delete({ user_id: id, id: 3 })).affected);
  say("sum", await orders.sum("total", { user_id: id }));
  say("count", await orders.countBy({ user_id: id }));
  say("raw", await source.query("select id from orders where user_id = $1 order by id", [id]));
}

async function transactions() {
  console.log('part => "transactions"');
  const balances = () => users.find({ where: { id: In([ONE, OTHER]) }, order: { id: "ASC" }, select: { balance: true } });
  await source.transaction(async (manager) => {
    for (const id of [ONE, OTHER]) await manager.update(User, { id }, { balance: 50 });
    throw new Error("changed its mind");
  }).catch((cause) => say("failed", cause.message));
  say("neither", await balances());
  await source.transaction(async (manager) => {
    for (const id of [ONE, OTHER]) await manager.update(User, { id }, { balance: 60 });
    await manager.transaction((inner) => inner.insert(User, { id: ONE, handle: "twice", email: "t", country: "DE", created_at: THEN })).catch((cause) => say("nested", cause.driverError.code));
  });
  say("both", await balances());
  await source.transaction("SERIALIZABLE", async (manager) => {
    say("locked", (await manager.findOne(User, { where: { id: OTHER }, lock: { mode: "pessimistic_write" } })).handle);
  });
}

async function allUsers() {
  console.log('part => "all users"');
  say("ordered", (await users.find({ order: { id: "ASC" } })).map((user) => user.id));
  say("page", (await users.find({ order: { id: "DESC" }, take: 2, skip: 1 })).map((user) => user.id));
  await attempt("find and count", () => users.findAndCount({ take: 1, order: { id: "ASC" } }).then(([some, count]) => [some.length, count]));
  await attempt("relations", () => users.find({ relations: { orders: true }, order: { id: "ASC" } }).then((all) => all.map((user) => [user.id, user.orders.length])));
  await attempt("relations by queries", () => users.find({ relations: { orders: true }, relationLoadStrategy: "query", order: { id: "ASC" } }).then((all) => all.map((user) => [user.id, user.orders.length])));
  await attempt("paged relations", () => users.find({ relations: { orders: true }, order: { id: "ASC" }, take: 2 }).then((all) => all.map((user) => [user.id, user.orders.length])));
  await attempt("grouped", () => orders.createQueryBuilder("o").select("o.status", "status").addSelect("count(*)", "n").groupBy("o.status").orderBy("o.status").getRawMany());
  await attempt("distinct", () => users.createQueryBuilder("u").select("u.country", "country").distinct(true).getRawMany());
  await attempt("saved on both", () => users.save([40, 140].map((id) => ({ id, handle: "bulk", email: "b", country: "FR", balance: 0, interests: [], settings: {}, created_at: THEN }))).then((all) => all.map((user) => user.id)));
  await attempt("inserted on both", () => users.insert([41, 141].map((id) => ({ id, handle: "bulk", email: "b", country: "FR", balance: 0, interests: [], settings: {}, created_at: THEN }))).then((done) => done.identifiers));
  await attempt("deleted", () => users.delete([40, 140, 41, 141]).then((done) => done.affected));
}

async function migrations() {
  console.log('part => "migrations"');
  const runner = source.createQueryRunner();
  await runner.startTransaction();
  await runner.createTable(new Table({ name: "reviews", columns: [{ name: "user_id", type: "bigint", isPrimary: true }, { name: "id", type: "bigint", isPrimary: true }, { name: "body", type: "text", isNullable: true }] }), true);
  await runner.commitTransaction();
  await attempt("column", () => runner.addColumn("reviews", new TableColumn({ name: "stars", type: "integer", default: 5 })).then(() => "done"));
  await attempt("index", () => runner.createIndex("reviews", new TableIndex({ name: "reviews_stars", columnNames: ["stars"] })).then(() => "done"));
  await runner.query("insert into reviews (user_id, id) values ($1, 1), ($2, 1)", [ONE, OTHER]);
  say("made", await runner.query("select user_id, stars from reviews order by user_id"));
  await attempt("table", async () => (await runner.getTable("reviews")).columns.map((column) => [column.name, column.type, column.default]));
  await attempt("dropped", () => runner.dropTable("reviews").then(() => "done"));
  say("there", [await runner.hasTable("orders"), await runner.hasTable("reviews")]);
  await runner.release();
  await attempt("schema", async () => (await source.driver.createSchemaBuilder().log()).upQueries.length > 0);
  await attempt("migrations", () => source.showMigrations());
  await source.query('drop table if exists "migrations"');
}

await fill();
await oneUser(ONE);
await oneUser(OTHER);
await transactions();
await allUsers();
await migrations();
await source.destroy();
