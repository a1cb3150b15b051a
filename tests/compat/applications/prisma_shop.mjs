// The shop by Prisma, which asks by the adapter of node-postgres: CRUD by user, nested writes, relations, transactions,
// aggregates, texts of its own.

import { PrismaPg } from "@prisma/adapter-pg";
import client from "@prisma/client";

const { Prisma, PrismaClient } = client;
const [ONE, OTHER] = [7n, 150n];
const THEN = new Date("2024-02-29T12:00:00Z");
const uuid = (number) => `00000000-0000-0000-0000-${String(number).padStart(12, "0")}`;
const plain = (_, value) => (typeof value === "bigint" ? String(value) : value);
const say = (label, came) => console.log(`${label} => ${JSON.stringify(came, plain)}`.replaceAll("\n", " "));

async function attempt(label, work) {
  try {
    say(label, await work());
  } catch (cause) {
    say(label, [cause.name, cause.code, cause.meta?.driverAdapterError?.cause ?? cause.message]);
  }
}

const { PGDATABASE, PGUSER, PGPASSWORD, PGHOST, PGPORT } = process.env;
const adapter = new PrismaPg({ host: PGHOST, port: Number(PGPORT), user: PGUSER, password: PGPASSWORD, database: PGDATABASE, max: 1 });
const prisma = new PrismaClient({ adapter });

async function fill() {
  console.log('part => "filling"');
  say("categories", await prisma.category.createMany({ data: [1, 2].map((id) => ({ id, name: `category ${id}`, slug: `slug-${id}` })) }));
  const products = [1, 2, 3, 4, 5].map((id) => ({ id, sku: uuid(id), categoryId: 1 + (id % 2), name: `product ${id}`, price: id * 10, tags: ["a"], createdAt: THEN }));
  say("products", await prisma.product.createMany({ data: products }));
  for (const id of [ONE, ONE + 1n, OTHER, OTHER + 1n]) {
    const items = (count) => Array.from({ length: count }, (_, n) => ({ line: n + 1, productId: n + 1, quantity: n + 1, unitPrice: 3 }));
    const user = await prisma.user.create({
      data: {
        id, handle: `user${id}`, email: `${id}@example.com`, country: "DE", interests: ["a", "b"], avatar: Buffer.from([0, 255]), born: THEN,
        orders: { create: [1, 2, 3].map((n) => ({ id: n, tracking: uuid(Number(id) * 100 + n), total: n * 5, placedAt: THEN, items: { create: items(n) } })) },
        posts: { create: [1, 2].map((n) => ({ id: n, publicId: uuid(Number(id) * 1000 + n), body: `post ${n}` })) },
      },
      include: { orders: { include: { items: true }, orderBy: { id: "asc" } } },
    });
    say("created", [user.id, user.balance, user.orders.map((order) => [order.status, order.items.length])]);
  }
  await attempt("twice", () => prisma.user.create({ data: { id: ONE, handle: "again", email: "a", country: "DE" } }));
}

async function oneUser(id) {
  console.log(`part => "user ${id}"`);
  const user = await prisma.user.findUnique({ where: { id } });
  say("found", [user.handle, user.balance, user.interests, user.settings, user.born, Array.from(user.avatar)]);
  say("none", await prisma.user.findUnique({ where: { id: 99n } }));
  const graph = { orders: { include: { items: { include: { product: { include: { category: true } } }, orderBy: { line: "asc" } } }, orderBy: { id: "asc" } } };
  const eager = await prisma.user.findUniqueOrThrow({ where: { id }, include: graph });
  say("eager", eager.orders.map((order) => [order.id, order.items.map((item) => [item.product.name, item.product.category.slug])]));
  say("selected", await prisma.order.findMany({ where: { userId: id, total: { gt: 5 } }, select: { id: true, total: true }, orderBy: { id: "desc" } }));
  say("by key", await prisma.order.findUnique({ where: { userId_id: { userId: id, id: 2n } }, select: { status: true, user: { select: { handle: true } } } }));
  const data = { fullName: "Updated", settings: { theme: "dark" }, balance: { increment: 5 }, interests: { push: "c" } };
  const changed = await prisma.user.update({ where: { id }, data, select: { fullName: true, settings: true, balance: true, interests: true } });
  say("updated", changed);
  say("many", await prisma.order.updateMany({ where: { userId: id, status: "placed" }, data: { status: "paid" } }));
  say("returned", await prisma.order.updateManyAndReturn({ where: { userId: id, id: 1n }, data: { gift: true }, select: { id: true, gift: true } }));
  say("connected", (await prisma.user.update({ where: { id }, data: { orders: { create: { id: 4n, tracking: uuid(Number(id) * 100 + 4), total: 1 } } }, include: { orders: true } })).orders.length);
  const upsert = { where: { userId_id: { userId: id, id: 3n } }, create: { userId: id, id: 3n, publicId: uuid(Number(id) * 1000 + 3), body: "new" }, update: { body: "old" } };
  say("upserted", [(await prisma.post.upsert(upsert)).body, (await prisma.post.upsert(upsert)).body]);
  say("counted", await prisma.user.findUnique({ where: { id }, select: { _count: { select: { orders: true, posts: true } } } }));
  say("aggregate", await prisma.order.aggregate({ where: { userId: id }, _sum: { total: true }, _avg: { total: true }, _max: { id: true }, _count: true }));
  say("grouped", await prisma.order.groupBy({ by: ["status"], where: { userId: id }, _count: true, _sum: { total: true }, orderBy: { status: "asc" } }));
  say("first", await prisma.order.findFirst({ where: { userId: id }, orderBy: { total: "desc" }, select: { id: true } }));
  say("paged", await prisma.order.findMany({ where: { userId: id }, orderBy: { id: "asc" }, cursor: { userId_id: { userId: id, id: 2n } }, skip: 1, take: 2, select: { id: true } }));
  say("some", await prisma.order.findMany({ where: { userId: id, items: { some: { quantity: { gte: 3 } } } }, select: { id: true }, orderBy: { id: "asc" } }));
  say("by json", await prisma.user.findMany({ where: { id, settings: { path: ["theme"], equals: "dark" } }, select: { id: true } }));
  say("by array", await prisma.user.count({ where: { id, interests: { has: "c" } } }));
  say("deleted", (await prisma.order.delete({ where: { userId_id: { userId: id, id: 1n } } })).id);
  await attempt("not there", () => prisma.order.delete({ where: { userId_id: { userId: id, id: 77n } } }));
  say("raw", await prisma.$queryRaw`select id, total::text from orders where user_id = ${id} order by id`);
  say("executed", await prisma.$executeRaw`update users set handle = ${"raw"} where id = ${id}`);
  say("unsafe", await prisma.$queryRawUnsafe("select handle from users where id = $1", id));
}

async function transactions() {
  console.log('part => "transactions"');
  say("batch", await prisma.$transaction([prisma.user.count({ where: { id: ONE } }), prisma.user.update({ where: { id: OTHER }, data: { handle: "batched" }, select: { handle: true } })]));
  await attempt("rolled back", () => prisma.$transaction(async (tx) => {
    await tx.user.create({ data: { id: 20n, handle: "temporary", email: "t", country: "FR" } });
    throw new Error("no");
  }));
  say("gone", await prisma.user.findUnique({ where: { id: 20n } }));
  await prisma.$transaction(async (tx) => {
    for (const id of [ONE, OTHER]) await tx.user.update({ where: { id }, data: { balance: { increment: 7 } } });
  });
  const both = () => prisma.user.findMany({ where: { id: { in: [ONE, OTHER] } }, orderBy: { id: "asc" }, select: { id: true, balance: true } });
  say("on both", await both());
  await attempt("neither", () => prisma.$transaction(async (tx) => {
    for (const id of [ONE, OTHER]) await tx.user.update({ where: { id }, data: { balance: 0 } });
    await tx.user.create({ data: { id: ONE, handle: "twice", email: "t", country: "FR" } });
  }));
  say("as before", await both());
  say("serializable", await prisma.$transaction((tx) => tx.user.findUnique({ where: { id: ONE }, select: { id: true } }), { isolationLevel: Prisma.TransactionIsolationLevel.Serializable }));
}

async function allUsers() {
  console.log('part => "all users"');
  say("ordered", await prisma.user.findMany({ orderBy: { id: "asc" }, select: { id: true } }));
  say("page", await prisma.user.findMany({ orderBy: { id: "desc" }, skip: 1, take: 2, select: { id: true } }));
  await attempt("count", () => prisma.user.count());
  await attempt("aggregate", () => prisma.order.aggregate({ _sum: { total: true }, _count: { _all: true } }));
  await attempt("grouped", () => prisma.order.groupBy({ by: ["status"], _count: true, orderBy: { status: "asc" } }));
  await attempt("eager", async () => (await prisma.user.findMany({ include: { orders: true, posts: { orderBy: { id: "asc" } } }, orderBy: { id: "asc" } })).map((user) => [user.id, user.orders.length, user.posts.length]));
  await attempt("some", () => prisma.user.findMany({ where: { orders: { some: { total: { gt: 10 } } } }, select: { id: true }, orderBy: { id: "asc" } }));
  await attempt("none", () => prisma.user.findMany({ where: { orders: { none: {} } }, select: { id: true } }));
  await attempt("by relation", () => prisma.user.findMany({ orderBy: [{ orders: { _count: "desc" } }, { id: "asc" }], select: { id: true, _count: { select: { orders: true } } } }));
  await attempt("distinct", () => prisma.order.findMany({ distinct: ["status"], orderBy: { status: "asc" }, select: { status: true } }));
  await attempt("contains", () => prisma.user.findMany({ where: { email: { contains: "EXAMPLE", mode: "insensitive" } }, select: { id: true }, orderBy: { id: "asc" } }));
  await attempt("joined", () => prisma.item.findMany({ where: { product: { category: { slug: "slug-1" } } }, select: { userId: true, line: true }, orderBy: [{ userId: "asc" }, { orderId: "asc" }, { line: "asc" }] }));
  await attempt("created on both", () => prisma.user.createManyAndReturn({ data: [40n, 140n].map((id) => ({ id, handle: "m", email: "m", country: "DE" })), select: { id: true } }));
  await attempt("updated on both", () => prisma.user.updateMany({ where: { handle: "m" }, data: { country: "FR" } }));
  await attempt("deleted on both", () => prisma.user.deleteMany({ where: { handle: "m" } }));
  say("products", await prisma.product.findMany({ where: { category: { slug: "slug-1" } }, select: { name: true }, orderBy: { id: "asc" } }));
  say("product", await prisma.product.update({ where: { id: 1 }, data: { price: 11, attributes: { colour: "red" } }, select: { price: true, attributes: true } }));
}

async function deleting() {
  console.log('part => "deleting"');
  say("user", (await prisma.user.delete({ where: { id: ONE } })).id);
  say("posts", await prisma.post.deleteMany({ where: { userId: OTHER } }));
  say("left", await prisma.order.findMany({ select: { userId: true }, distinct: ["userId"], orderBy: { userId: "asc" } }));
}

await fill();
for (const id of [ONE, OTHER]) await oneUser(id);
await transactions();
await allUsers();
await deleting();
await prisma.$disconnect();
