// The shop by Sequelize: models, migrations by its query interface, CRUD by user, transactions, eager loading.

import { DataTypes, Op, QueryTypes, Sequelize, Transaction, col, fn, literal } from "sequelize";

const [ONE, OTHER] = [7, 150];
const THEN = new Date("2024-02-29T12:00:00Z");
const uuid = (number) => `00000000-0000-0000-0000-${String(number).padStart(12, "0")}`;
const say = (label, came) => console.log(`${label} => ${JSON.stringify(came)}`.replaceAll("\n", " "));

async function attempt(label, work) {
  try {
    say(label, await work());
  } catch (cause) {
    say(label, [cause.name, cause.original?.code, (cause.original ?? cause).message]);
  }
}

const { PGDATABASE, PGUSER, PGPASSWORD, PGHOST, PGPORT } = process.env;
const sequelize = new Sequelize(PGDATABASE, PGUSER, PGPASSWORD, {
  host: PGHOST, port: PGPORT, dialect: "postgres", logging: false, pool: { max: 1 }, define: { timestamps: false },
});

const User = sequelize.define("User", {
  id: { type: DataTypes.BIGINT, primaryKey: true }, handle: DataTypes.TEXT, email: DataTypes.TEXT, full_name: DataTypes.TEXT,
  country: DataTypes.CHAR(2), balance: { type: DataTypes.DECIMAL(12, 2), defaultValue: 0 },
  interests: { type: DataTypes.ARRAY(DataTypes.TEXT), defaultValue: [] }, settings: { type: DataTypes.JSONB, defaultValue: {} },
  created_at: { type: DataTypes.DATE, defaultValue: THEN },
}, { tableName: "users" });
const Order = sequelize.define("Order", {
  user_id: { type: DataTypes.BIGINT, primaryKey: true }, id: { type: DataTypes.BIGINT, primaryKey: true }, tracking: DataTypes.UUID,
  status: { type: DataTypes.TEXT, defaultValue: "placed" }, total: DataTypes.DECIMAL(12, 2),
  placed_at: { type: DataTypes.DATE, defaultValue: THEN },
}, { tableName: "orders" });
const Post = sequelize.define("Post", {
  user_id: { type: DataTypes.BIGINT, primaryKey: true }, id: { type: DataTypes.BIGINT, primaryKey: true }, public_id: DataTypes.UUID,
  body: DataTypes.TEXT, likes: { type: DataTypes.INTEGER, defaultValue: 0 }, published_at: { type: DataTypes.DATE, defaultValue: THEN },
}, { tableName: "posts" });
const Category = sequelize.define("Category", {
  id: { type: DataTypes.INTEGER, primaryKey: true }, name: DataTypes.TEXT, slug: DataTypes.TEXT,
}, { tableName: "categories" });
User.hasMany(Order, { foreignKey: "user_id", as: "orders" });
User.hasMany(Post, { foreignKey: "user_id", as: "posts" });
Order.belongsTo(User, { foreignKey: "user_id", as: "user" });

async function fill() {
  console.log('part => "filling"');
  await sequelize.authenticate();
  say("categories", (await Category.bulkCreate([1, 2].map((id) => ({ id, name: `category ${id}`, slug: `slug-${id}` })))).length);
  for (const id of [ONE, ONE + 1, OTHER, OTHER + 1]) {
    await sequelize.transaction(async (transaction) => {
      const user = await User.create({ id, handle: `user${id}`, email: `${id}@example.com`, country: "DE", interests: ["a"] }, { transaction });
      await Order.bulkCreate([1, 2, 3].map((n) => ({ user_id: id, id: n, tracking: uuid(id * 100 + n), total: n * 5 })), { transaction });
      await Post.create({ user_id: id, id: 1, public_id: uuid(id * 1000), body: "first" }, { transaction });
      say("user", user.toJSON());
    });
  }
}

async function oneUser(id) {
  say("part", `user ${id}`);
  const user = await User.findByPk(id);
  say("found", user);
  say("one", await User.findOne({ where: { id, handle: `user${id}` } }));
  say("none", await User.findOne({ where: { id, handle: "nobody" } }));
  say("lazy", await user.getOrders({ order: [["id", "ASC"]] }));
  await attempt("eager", () => User.findOne({ where: { id }, include: [{ model: Order, as: "orders", where: { user_id: id } }, { model: Post, as: "posts" }], order: [[{ model: Order, as: "orders" }, "id", "ASC"]] }));
  await attempt("eager, apart", () => User.findAll({ where: { id }, include: [{ model: Order, as: "orders", separate: true, order: [["id", "ASC"]] }] }));
  await attempt("inner join", () => Order.findAll({ where: { user_id: id }, include: [{ model: User, as: "user", required: true }], order: [["id", "ASC"]] }).then((orders) => orders.map((order) => order.user.handle)));
  say("count", await Order.count({ where: { user_id: id } }));
  await attempt("find and count", async () => { const { count, rows } = await Order.findAndCountAll({ where: { user_id: id }, limit: 2, order: [["id", "DESC"]] }); return [count, rows.map((order) => order.id)]; });
  say("sum", await Order.sum("total", { where: { user_id: id } }));
  say("grouped", await Order.findAll({ where: { user_id: id }, attributes: ["status", [fn("count", col("id")), "n"]], group: ["status"], raw: true }));
  user.full_name = "Updated";
  await user.save();
  await user.update({ settings: { theme: "dark" } });
  await user.increment("balance", { by: 5 });
  say("reloaded", [(await user.reload()).full_name, user.balance, user.settings]);
  say("updated", await Order.update({ status: "paid" }, { where: { user_id: id, total: { [Op.gt]: 5 } }, returning: true }).then(([count, rows]) => [count, rows.map((order) => order.id).sort()]));
  await attempt("upsert", () => Post.upsert({ user_id: id, id: 1, public_id: uuid(id * 1000), body: "upserted" }).then(([post]) => post.body));
  await attempt("find or create", () => Post.findOrCreate({ where: { user_id: id, id: 2 }, defaults: { public_id: uuid(id * 1000 + 2), body: "second" } }).then(([post, made]) => [post.body, made]));
  await attempt("and again", () => Post.findOrCreate({ where: { user_id: id, id: 2 }, defaults: { public_id: uuid(id * 1000 + 2), body: "second" } }).then(([post, made]) => [post.body, made]));
  say("destroyed", await Order.destroy({ where: { user_id: id, id: 3 } }));
  say("raw", await sequelize.query("select id from orders where user_id = :id order by id", { replacements: { id }, type: QueryTypes.SELECT }));
  say("bound", await sequelize.query("select body from posts where user_id = $1 order by id", { bind: [id], type: QueryTypes.SELECT }));
  say("json", await User.count({ where: { id, settings: { theme: "dark" } } }));
}

async function transactions() {
  console.log('part => "transactions"');
  const balances = () => User.findAll({ where: { id: [ONE, OTHER] }, order: [["id", "ASC"]], attributes: ["balance"], raw: true });
  await sequelize.transaction(async (transaction) => {
    for (const id of [ONE, OTHER]) await User.update({ balance: 50 }, { where: { id }, transaction });
    throw new Error("changed its mind");
  }).catch((cause) => say("failed", cause.message));
  say("neither", await balances());
  await sequelize.transaction(async (transaction) => {
    for (const id of [ONE, OTHER]) await User.update({ balance: 60 }, { where: { id }, transaction });
    await sequelize.transaction({ transaction }, (inner) => User.create({ id: ONE, handle: "twice", email: "t", country: "DE" }, { transaction: inner })).catch((cause) => say("nested", cause.name));
  });
  say("both", await balances());
  await sequelize.transaction({ isolationLevel: Transaction.ISOLATION_LEVELS.SERIALIZABLE }, async (transaction) => {
    say("locked", (await User.findByPk(OTHER, { transaction, lock: transaction.LOCK.UPDATE })).handle);
  });
  await attempt("unique", () => User.create({ id: ONE, handle: "twice", email: "t", country: "DE" }));
  await attempt("not null", () => User.create({ id: 30, email: "t", country: "DE" }));
}

async function allUsers() {
  console.log('part => "all users"');
  const ids = (users) => users.map((user) => user.id);
  say("ordered", ids(await User.findAll({ order: [["id", "ASC"]] })));
  say("page", ids(await User.findAll({ order: [["id", "DESC"]], limit: 2, offset: 1 })));
  await attempt("find and count", async () => { const { count, rows } = await User.findAndCountAll({ limit: 2, order: [["id", "ASC"]] }); return [count, ids(rows)]; });
  await attempt("eager", async () => (await User.findAll({ include: [{ model: Order, as: "orders" }], order: [["id", "ASC"]] })).map((user) => [user.id, user.orders.length]));
  await attempt("eager, apart", async () => (await User.findAll({ include: [{ model: Order, as: "orders", separate: true }], order: [["id", "ASC"]] })).map((user) => [user.id, user.orders.length]));
  await attempt("eager with a limit", async () => (await User.findAll({ include: [{ model: Order, as: "orders" }], order: [["id", "ASC"]], limit: 3 })).map((user) => [user.id, user.orders.length]));
  await attempt("grouped", () => Order.findAll({ attributes: ["status", [fn("count", literal("*")), "n"], [fn("sum", col("total")), "total"]], group: ["status"], order: ["status"], raw: true }));
  await attempt("distinct", () => User.count({ distinct: true, col: "country" }));
  await attempt("aggregate", () => User.aggregate("country", "DISTINCT", { plain: false }));
  await attempt("bulk on both", () => User.bulkCreate([40, 140].map((id) => ({ id, handle: "bulk", email: "b", country: "FR" }))).then(ids));
  await attempt("updated", () => User.update({ full_name: "bulk" }, { where: { id: [40, 140] } }));
  await attempt("destroyed", () => User.destroy({ where: { id: [40, 140] } }));
  await attempt("max", () => Order.max("total"));
}

async function migrations() {
  console.log('part => "migrations"');
  const change = sequelize.getQueryInterface();
  await change.createTable("reviews", { user_id: { type: DataTypes.BIGINT, primaryKey: true }, id: { type: DataTypes.BIGINT, primaryKey: true }, body: DataTypes.TEXT });
  await change.addColumn("reviews", "stars", { type: DataTypes.INTEGER, defaultValue: 5 });
  await change.addIndex("reviews", ["stars"], { name: "reviews_stars" });
  await change.bulkInsert("reviews", [{ user_id: ONE, id: 1, body: "fine" }, { user_id: OTHER, id: 1, body: "good" }]);
  say("made", await sequelize.query("select user_id, stars from reviews order by user_id", { type: QueryTypes.SELECT }));
  await attempt("described", () => change.describeTable("reviews"));
  await attempt("indexes", async () => (await change.showIndex("reviews")).map((index) => index.name).sort());
  await attempt("foreign keys", async () => (await change.getForeignKeyReferencesForTable("orders")).map((key) => key.referencedTableName));
  await attempt("changed", () => change.changeColumn("reviews", "body", { type: DataTypes.STRING(200) }).then(() => "done"));
  await change.removeColumn("reviews", "stars");
  await change.dropTable("reviews");
  await attempt("tables", async () => (await change.showAllTables()).map((table) => table.tableName ?? table).filter((name) => ["orders", "reviews"].includes(name)));
  const Visit = sequelize.define("Visit", { user_id: { type: DataTypes.BIGINT, primaryKey: true }, place: DataTypes.STRING }, { tableName: "visits" });
  await attempt("sync", () => Visit.sync().then(() => "done"));
  await attempt("altered", () => Visit.sync({ alter: true }).then(() => "done"));
  await attempt("dropped", () => Visit.drop().then(() => "done"));
  say("version", typeof (await sequelize.databaseVersion()));
}

await fill();
await oneUser(ONE);
await oneUser(OTHER);
await transactions();
await allUsers();
await migrations();
await sequelize.close();
