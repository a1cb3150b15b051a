"""Actions of an application with asyncpg, and what the driver returned for each, a line of text.

Usage: asyncpg_trial.py HOST PORT DATABASE USER PASSWORD POOL_PORT

What one connection of a pool wrote, another must see at POOL_PORT at once.
"""

import asyncio
import io
import json
import sys
import uuid
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import asyncpg

host, port, database, user, password, pool_port = sys.argv[1:7]
DSN = dict(host=host, port=int(port), database=database, user=user, password=password)

# Keys of this program: the first half lives on one shard, the second on the other.
NEAR, FAR = range(200, 210), range(1200, 1210)
MINE = 2
NOON = datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
COLUMNS = "user_id, id, small, whole, big, exact, body, raw, flag, at, day, token, doc, words, numbers, ratio"
INSERT = f"insert into kinds ({COLUMNS}) values ({', '.join(f'${number}' for number in range(1, 17))})"


def row(key, number=MINE):
    return (key, number, -7, 70_000, 2**40, Decimal("12.3400"), "häm 'quoted' \\ back", b"\x00\xff\\", True, NOON,
            date(1999, 12, 31), uuid.UUID(int=key), json.dumps({"a": [1, None, "x"]}), ["a", None, 'b"c', ""],
            [1, None, -3], 0.1)


def show(value):
    """With its type, so that a text is not taken for a number."""
    if isinstance(value, asyncpg.Record):
        return show(dict(value))
    if isinstance(value, (list, tuple)):
        return "(" + ", ".join(show(each) for each in value) + ")"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{show(key)}: {show(value[key])}" for key in value) + "}"
    return f"{type(value).__name__}:{value!s}"


def reason(error):
    """What does not go over several shards is said by the proxy."""
    return ": " + str(error).splitlines()[0] if error.sqlstate == "0A000" else ""


def say(label, what):
    print(f"{label} => {what}".replace("\n", "\\n"), flush=True)


async def act(label, work):
    """Awaits one action; an error is what it returned."""
    try:
        say(label, show(await work))
    except asyncpg.PostgresError as error:
        say(label, f"{type(error).__name__} {error.sqlstate}" + reason(error))
    except asyncpg.InterfaceError as error:
        say(label, f"{type(error).__name__} {error}")
    except asyncio.TimeoutError:
        say(label, "TimeoutError")


async def facts(conn):
    say("version", conn.get_server_version().major >= 13)
    say("settings", [getattr(conn.get_settings(), name) for name in ("server_encoding", "TimeZone", "DateStyle", "integer_datetimes")])
    await act("version", conn.fetchval("select pg_catalog.version() like 'PostgreSQL%'"))
    await act("show", conn.fetchval("show standard_conforming_strings"))
    await act("introspection", conn.fetch("select array[row(1, 'a')]::text[], '{1,2}'::int4multirange[]::text, '1 day'::interval"))
    await act("range types", conn.fetchval("select int4range(1, 5)"))


async def parameters(conn):
    for key in (NEAR[0], FAR[0]):
        await act(f"insert {key}", conn.execute(INSERT, *row(key)))
        await act(f"types of {key}", conn.fetchrow(f"select {COLUMNS} from kinds where user_id = $1 and id = $2", key, MINE))
        await act(f"NULLs {key}", conn.execute(INSERT, key + 1, MINE, *[None] * 14))
        await act(f"read NULLs {key}", conn.fetch(f"select {COLUMNS} from kinds where user_id = $1", key + 1))
        for position, name in enumerate(COLUMNS.split(", ")[2:], 2):
            await act(f"{name} of {key}", conn.fetch(
                f"select id from kinds where user_id = $1 and {name} = $2", key, row(key)[position]))
        await act(f"value {key}", conn.fetchval("select body from kinds where user_id = $1", key))
        await act(f"no row {key}", conn.fetchrow("select body from kinds where user_id = $1 and id = 77", key))
    await act("inference", conn.fetchrow("select $1::int + 1 as a, $2::text || 'x' as b, $3::timestamptz as c", 5, "y", NOON))
    await act("delete", conn.execute("delete from kinds where id = $1", MINE))


async def own_types(conn):
    """All of it is in binary, and the driver looks at the numbers of types inside."""
    insert = "insert into tastes (user_id, mood, past, pet, pets) values ($1, $2, $3, $4, $5)"
    columns = "user_id, mood, past, pet, pets"
    pet = ("Rex", 3, "sad", ["happy", "sad"])
    values = ("happy", ["sad", None, "happy"], pet, [pet, None, ("", None, None, [])])
    for key in (NEAR[0], FAR[0], NEAR[1], FAR[1]):
        await act(f"insert {key}", conn.execute(insert, key, *values))
        await act(f"read {key}", conn.fetchrow(f"select {columns} from tastes where user_id = $1", key))
        await act(f"anonymous {key}", conn.fetchval(
            "select row(mood, past, pet, pets, row(pet)) from tastes where user_id = $1", key))
        for position, (name, kind) in enumerate({"mood": "mood", "past": "mood[]", "pet": "pet", "pets": "pet[]"}.items()):
            await act(f"by {name} {key}", conn.fetch(
                f"select user_id from tastes where user_id = $1 and {name} = $2::{kind}", key, values[position]))
            await act(f"by {name} anywhere {key}", conn.fetch(
                f"select user_id, {name} from tastes where {name} = $1::{kind} order by user_id", values[position]))
    read = await conn.prepare(f"select {columns} from tastes where user_id = any($1) order by user_id")
    for _ in range(2):
        await act("all", read.fetch([FAR[0], NEAR[0]]))
        await act("groups", conn.fetch("select past, max(mood), count(*) from tastes group by past"))
        await act("in their order", conn.fetch("select distinct pet, pets from tastes order by pet"))
        async with conn.transaction():
            await act("by a cursor", (await conn.cursor(f"select {columns} from tastes where user_id = $1", FAR[0])).fetch(2))
    await act("update", conn.execute("update tastes set pets = $1, past = $2 where user_id > 0", [pet], ["happy"]))
    await act("returning", conn.fetch("delete from tastes where user_id = $1 returning pets, past", FAR[1]))
    records = [(key, *values) for key in (*NEAR[2:], *FAR[2:])]
    await act("copied", conn.copy_records_to_table("tastes", records=records, columns=columns.split(", ")))
    await act("read what was copied", conn.fetch(f"select {columns} from tastes order by user_id"))
    await act("many", conn.executemany("update tastes set pet = $2 where user_id = $1", [(key, pet) for key in (NEAR[3], FAR[3])]))
    await act("cleared", conn.execute("delete from tastes"))


async def prepared(conn):
    insert = await conn.prepare(INSERT)
    read = await conn.prepare("select user_id, body from kinds where user_id = $1 and id = $2")
    both = await conn.prepare("select user_id from kinds where id = $1 order by user_id desc limit 3")
    say("parameters", [each.name for each in insert.get_parameters()])
    say("attributes", [(each.name, each.type.name) for each in read.get_attributes()])
    say("attributes of both", [(each.name, each.type.name) for each in both.get_attributes()])
    for round in range(3):
        for key in (NEAR[round], FAR[round]):
            await act(f"prepared insert {round} {key}", insert.fetch(*row(key)))
            await act(f"prepared read {round} {key}", read.fetchrow(key, MINE))
        await act(f"prepared read of both {round}", both.fetch(MINE))
        await act(f"its value {round}", both.fetchval(MINE))
        async with conn.transaction():
            await act(f"in a transaction {round}", read.fetch(FAR[round], MINE))
            await act(f"both in a transaction {round}", both.fetch(MINE))
    say("status", insert.get_statusmsg())
    await act("executemany of it", insert.executemany([row(key) for key in (NEAR[5], FAR[5])]))
    await act("same text again", conn.fetch("select user_id, body from kinds where user_id = $1 and id = $2", FAR[5], MINE))
    await act("wrong argument", read.fetch("x", MINE))
    await act("cleared", conn.execute("delete from kinds where id = $1", MINE))


async def transactions(conn):
    async def outer():
        async with conn.transaction():
            await conn.execute(INSERT, *row(NEAR[0]))
            try:
                async with conn.transaction():
                    await conn.execute("update kinds set body = 'inner' where user_id = $1", NEAR[0])
                    await conn.execute(INSERT, *row(NEAR[0]))
            except asyncpg.UniqueViolationError as error:
                say("inner", f"{error.constraint_name} {error.sqlstate}")
            async with conn.transaction():
                await conn.execute("update kinds set whole = 1 where user_id = $1", NEAR[0])
            return await conn.fetch("select body, whole from kinds where user_id = $1", NEAR[0])

    await act("savepoints", outer())

    async def both():
        async with conn.transaction():
            await conn.execute(INSERT, *row(FAR[0]))
            async with conn.transaction():
                await conn.execute("update kinds set body = 'both' where user_id = $1", NEAR[0])
            try:
                async with conn.transaction():
                    await conn.execute("update kinds set body = 'gone' where user_id = any($1::bigint[])", [NEAR[0], FAR[0]])
                    await conn.fetchval("select 1 / 0")
            except asyncpg.DivisionByZeroError as error:
                say("inner over both", error.sqlstate)
            return await conn.fetch("select user_id, body from kinds where id = $1 order by user_id", MINE)

    await act("a transaction over both", both())
    await act("seen after it", conn.fetch("select user_id, body from kinds where id = $1 order by user_id", MINE))

    async def neither():
        async with conn.transaction():
            for key in (NEAR[0], FAR[0]):
                await conn.execute("update kinds set body = 'neither' where user_id = $1", key)
            await conn.execute("selec")

    await act("a transaction over both fails", tell_only_that(neither()))
    await act("nothing after it", conn.fetch("select user_id, body from kinds where id = $1 order by user_id", MINE))
    for isolation in ("repeatable_read", "serializable"):
        async def isolated():
            async with conn.transaction(isolation=isolation):
                await conn.execute("update kinds set whole = whole + 1 where user_id = $1", FAR[0])
                return await conn.fetchval("select whole from kinds where user_id = $1", FAR[0])
        await act(isolation, isolated())

    async def read_only():
        async with conn.transaction(readonly=True):
            say("read only", show(await conn.fetchval("select count(*) from kinds where id = $1", MINE)))
            return await conn.execute("delete from kinds where user_id = $1", FAR[0])

    await act("write in read only", read_only())

    async def walk():
        async with conn.transaction():
            cursor = await conn.cursor("select user_id, id from orders where user_id = $1 order by id", 3)
            some = await cursor.fetch(2), await cursor.fetchrow(), await cursor.fetch(10)
            return some, [each["id"] async for each in conn.cursor("select id from orders where user_id = 1003 order by id", prefetch=2)]

    await act("cursors", walk())
    await act("cleared", conn.execute("delete from kinds where id = $1", MINE))


async def tell_only_that(work):
    try:
        await work
    except asyncpg.PostgresError:
        return "failed"


async def many(conn):
    rows = [row(key) for pair in zip(NEAR, FAR) for key in pair]
    await act("executemany over shards", conn.executemany(INSERT, rows))
    await act("they are there", conn.fetch("select user_id, exact from kinds where id = $1 order by user_id", MINE))
    await act("executemany that fails", conn.executemany(INSERT, [row(NEAR[0], 90), row(FAR[0], 90), row(NEAR[0], 90)]))
    await act("all or none", conn.fetchval("select count(*) from kinds where id = 90"))
    await act("fetchmany", conn.fetchmany("update kinds set whole = $2 where user_id = $1 and id = 2 returning user_id, whole",
                                          [(key, position) for position, (key, *_) in enumerate(rows)]))
    much = [(key, number, "x" * 300) for number in range(1000, 1200) for key in (NEAR[0], FAR[0])]
    await act("more than a buffer", conn.executemany("insert into kinds (user_id, id, body) values ($1, $2, $3)", much))
    await act("all of it", conn.fetchrow("select count(*), min(id), max(id) from kinds where id >= 1000 and user_id = any($1)",
                                         [NEAR[0], FAR[0]]))
    await act("cleared", conn.execute("delete from kinds where id = $1 or (id >= 1000 and user_id = any($2))", MINE, [NEAR[0], FAR[0]]))

    async def in_a_transaction():
        async with conn.transaction():
            await conn.executemany(INSERT, rows)
            return await conn.fetchval("select count(*) from kinds where id = $1", MINE)

    await act("executemany in a transaction", in_a_transaction())
    await act("cleared again", conn.execute("delete from kinds where id = $1", MINE))


async def several_shards(conn):
    keys = [FAR[0], NEAR[0], FAR[1], NEAR[1]]
    values = ", ".join(f"(${3 * place + 1}, 2, ${3 * place + 2}, ${3 * place + 3})" for place in range(4))
    flat = [value for key in keys for value in (key, f"body {key}", Decimal(key) / 4)]
    await act("rows over shards returning", conn.fetch(
        f"insert into kinds (user_id, id, body, exact) values {values} returning user_id, body", *flat))
    for label, sql, arguments in (
        ("order and limit", "select user_id, exact from kinds where id = $1 order by exact desc limit 3", (MINE,)),
        ("offset", "select user_id from kinds where id = $1 order by user_id limit $2 offset $3", (MINE, 2, 1)),
        ("group", "select user_id > 1000 as far, count(*), sum(exact), avg(exact), min(body collate \"C\"), max(user_id)"
                  " from kinds where id = $1 group by 1 order by 1", (MINE,)),
        ("aggregates", "select count(*), count(body), sum(user_id), avg(user_id), min(exact), max(exact), bool_or(flag)"
                       " from kinds where id = $1", (MINE,)),
        ("no rows", "select count(*), sum(exact), max(user_id) from kinds where id = $1", (77,)),
        ("any", "select user_id, body from kinds where id = $1 and user_id = any($2) order by user_id", (MINE, [NEAR[0], FAR[1]])),
        ("in", "select user_id, body from kinds where id = $1 and user_id in ($2, $3) order by user_id", (MINE, NEAR[1], FAR[0])),
        ("distinct", "select distinct user_id > 1000 from kinds where id = $1 order by 1", (MINE,)),
        ("of the shop", "select country, count(*), sum(balance) from users group by country order by 3 desc, 1", ()),
        ("a join by the key", "select u.handle, count(*) from users u join orders o on o.user_id = u.id"
                              " group by u.handle, u.id order by 2 desc, u.id limit 5", ()),
    ):
        await act(label, conn.fetch(sql, *arguments))
        await act(f"{label}, one row", conn.fetchrow(sql, *arguments))
        await act(f"{label}, one value", conn.fetchval(sql, *arguments))
    await act("update over shards", conn.execute("update kinds set whole = 5 where id = $1", MINE))
    await act("delete over shards", conn.execute("delete from kinds where id = $1", MINE))


async def copies(conn):
    hint = "/* pgweir: shard=0 */ "
    await act("copy of the query's rows", conn.execute(
        "insert into kinds (user_id, id, body) values ($1, 300, 'a'), ($1, 301, null)", NEAR[3]))

    async def out(format):
        target = io.BytesIO()
        status = await conn.copy_from_query(f"{hint}select id, body from kinds where user_id = $1 order by id", NEAR[3],
                                            output=target, format=format)
        return status, target.getvalue()

    await act("copy out", out("csv"))
    await act("binary copy out", out("binary"))
    await act("several in one text", conn.execute("select 1; select 2"))
    await act("cleared", conn.execute("delete from kinds where user_id = $1", NEAR[3]))
    await act("records", conn.copy_records_to_table("kinds", records=[(NEAR[3], 300 + n, f"b{n}") for n in range(50)],
                                                    columns=["user_id", "id", "body"]))
    await act("a bad record", conn.copy_records_to_table("kinds", records=[(NEAR[3], 300, "again")],
                                                         columns=["user_id", "id", "body"]))
    await act("their number", conn.execute("delete from kinds where user_id = $1", NEAR[3]))


async def settings(conn):
    await conn.execute(INSERT, *row(FAR[4]))
    await conn.execute("set timezone to 'Asia/Kolkata'")
    say("time zone", conn.get_settings().TimeZone)
    await act("as text", conn.fetchval("select at::text from kinds where user_id = $1", FAR[4]))
    await conn.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    await act("codec", conn.fetchval("select doc from kinds where user_id = $1", FAR[4]))
    await act("reset", conn.reset())
    say("time zone after it", conn.get_settings().TimeZone)
    await act("cleared", conn.execute("delete from kinds where id = $1", MINE))
    own = await asyncpg.connect(**DSN, server_settings={"application_name": "trial", "search_path": "public", "work_mem": "5MB"})
    await act("server settings", own.fetchrow("select current_setting('application_name'), current_setting('search_path'),"
                                              " current_setting('work_mem')"))
    await own.close()


async def timeouts(conn):
    await act("timeout", conn.fetch("select pg_sleep(60)", timeout=0.2))
    await act("after it", conn.fetchval("select 1"))
    task = asyncio.ensure_future(conn.fetch("select pg_sleep(60)"))
    await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        say("cancelled", True)
    await act("then", conn.fetchval("select count(*) from users"))


async def notifications(conn):
    heard = asyncio.Queue()
    await conn.add_listener("asyncpg_trial", lambda _, pid, channel, payload: heard.put_nowait((channel, payload)))
    other = await asyncpg.connect(**DSN)
    await other.execute("notify asyncpg_trial, 'one'")
    await other.execute("select pg_notify('asyncpg_trial', $1)", "two")
    await act("notified", asyncio.wait_for(heard.get(), 20))
    await act("notified again", asyncio.wait_for(heard.get(), 20))
    await act("meanwhile", conn.fetchval("select 1"))
    await conn.remove_listener("asyncpg_trial", print)
    await other.close()


async def pools():
    async with asyncpg.create_pool(**DSN | {"port": int(pool_port)}, min_size=2, max_size=4) as pool:
        async def work(key):
            async with pool.acquire() as conn:
                async with conn.transaction():
                    await conn.execute(INSERT, *row(key))
                return await conn.fetchval("select body from kinds where user_id = $1", key)

        await act("pool", asyncio.gather(*(work(key) for key in (*NEAR, *FAR))))
        await act("pool reads", asyncio.gather(*(pool.fetchval("select user_id from kinds where user_id = $1 and id = 2", key)
                                                for key in (*NEAR, *FAR) * 5)))
        await act("pool counts", asyncio.gather(*(pool.fetchval("select count(*) from kinds where id = $1", MINE)
                                                 for _ in range(10))))
        async with pool.acquire() as conn:
            await conn.execute("set work_mem to '7MB'")
        await act("settings do not stay", asyncio.gather(*(pool.fetchval("show work_mem") for _ in range(6))))
        await act("cleared", pool.execute("delete from kinds where id = $1", MINE))


async def errors(conn):
    for sql in ("selec", "select nonsense from kinds where user_id = 200", "select * from nowhere", "select 'x'::int",
                "insert into kinds (user_id, id, small) values (200, 1, 99999)", "insert into users (id) values (200)"):
        await act(f"error of {sql}", conn.fetch(sql))
    await act("going on", conn.fetchval("select 1"))
    await act("empty fetch", conn.fetch(""))
    heard = []
    conn.add_log_listener(lambda _, message: heard.append((message.severity, message.message)))
    await act("notice", conn.execute("do $$ begin raise notice 'heard'; end $$"))
    say("heard", heard)


async def main():
    for part in (facts, parameters, own_types, prepared, transactions, many, several_shards, copies, settings, timeouts, notifications,
                 errors):
        say("part", part.__name__)
        conn = await asyncpg.connect(**DSN)
        await part(conn)
        await conn.close()
    say("part", "pools")
    await pools()


asyncio.run(main())
