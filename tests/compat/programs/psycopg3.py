"""psycopg 3: pipelines, server-side and client-side cursors, COPY, pools, two-phase commit, adapters, cancellation."""

import asyncio
import datetime
import decimal
import os
import threading
import uuid

import psycopg
import psycopg_pool
from psycopg import sql
from psycopg.rows import dict_row, namedtuple_row, scalar_row
from psycopg.types.json import Jsonb
from psycopg.types.range import Range


def say(label, came):
    print(f"{label} => {came!r}".replace("\n", " "), flush=True)


def attempt(label, work):
    try:
        say(label, work())
    except psycopg.Error as cause:
        say(label, (type(cause).__name__, cause.sqlstate, str(cause.diag.message_primary), cause.diag.constraint_name))


def values(connection):
    print("part => values")
    cursor = connection.cursor()
    cursor.execute(
        "create table kept (id int primary key, n numeric, t text, b bytea, d date, ts timestamptz, u uuid, j jsonb,"
        " a int[], r int4range, i interval, f float8, e bool)"
    )
    row = (
        1, decimal.Decimal("12.50"), "text \u20ac", b"\x00\xff", datetime.date(2024, 2, 29),
        datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC), uuid.UUID(int=7), Jsonb({"a": [1, None]}), [1, None, 3],
        Range(1, 5), datetime.timedelta(days=1, seconds=2), 0.1, True,
    )  # fmt: skip
    cursor.execute("insert into kept values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) returning *", row)
    say("text", cursor.fetchone())
    for binary in (False, True):
        with connection.cursor(binary=binary) as cursor:
            for time in range(8):
                cursor.execute("select * from kept where id = %s", [1], prepare=None if time % 2 else True)
            say(f"binary {binary}", cursor.fetchone())
            say("columns", [(column.name, column.type_code, column.internal_size) for column in cursor.description])
    connection.commit()
    for factory in (dict_row, namedtuple_row, scalar_row):
        with connection.cursor(row_factory=factory) as cursor:
            say("factory", cursor.execute("select id, t from kept").fetchall())
    with psycopg.ClientCursor(connection) as cursor:
        say("mogrified", cursor.execute("select %s::text, %s", ["it's", 3]).fetchone())
    with psycopg.RawCursor(connection) as cursor:
        say("raw", cursor.execute("select $1::int + $2", [1, 2]).fetchone())
    query = sql.SQL("select {} from {}").format(sql.Identifier("t"), sql.Identifier("kept"))
    say("composed", connection.execute(query).fetchall())
    connection.execute("create type pair as (x int, y text)")
    connection.commit()
    psycopg.types.composite.CompositeInfo.fetch(connection, "pair").register(connection)
    say("composite", connection.execute("select row(1, 'a')::pair").fetchone())
    connection.execute("create type mood as enum ('good', 'bad')")
    psycopg.types.enum.register_enum(psycopg.types.enum.EnumInfo.fetch(connection, "mood"), connection)
    say("enum", connection.execute("select 'good'::mood").fetchone())
    connection.commit()


def cursors(connection):
    print("part => cursors")
    with connection.cursor("named") as cursor:
        cursor.execute("select n from generate_series(1, 1000) n")
        say("two", cursor.fetchmany(2))
        cursor.scroll(100)
        say("behind", cursor.fetchone())
        cursor.itersize = 100
        say("the rest", sum(row[0] for row in cursor))
    connection.commit()
    with connection.cursor("scrolls", scrollable=True, withhold=True) as cursor:
        cursor.execute("select n from generate_series(1, 10) n")
        connection.commit()
        say("last", cursor.fetchall()[-1])
        cursor.scroll(0, "absolute")
        say("first again", cursor.fetchone())
    connection.commit()
    connection.autocommit = True
    with connection.cursor("outside", withhold=True) as cursor:
        say("outside of a transaction", cursor.execute("select n from generate_series(1, 10) n").fetchmany(3))
    connection.autocommit = False
    with connection.cursor() as cursor:
        say("streamed", sum(row[0] for row in cursor.stream("select n from generate_series(1, 5000) n")))
        cursor.executemany("insert into kept (id, t) values (%s, %s) returning id", [(n, "m") for n in range(10, 15)], returning=True)
        got = [cursor.fetchone()]
        while cursor.nextset():
            got.append(cursor.fetchone())
        say("many", got)
        cursor.execute("select 1; select 'two'; create table several (id int)")
        got = [cursor.fetchall()]
        while cursor.nextset():
            got.append(cursor.statusmessage)
        say("several", got)
    connection.rollback()


def pipelines(connection):
    print("part => pipelines")
    with connection.pipeline():
        first = connection.execute("insert into kept (id) values (%s) returning id", [50])
        second = connection.execute("select count(*) from kept where id = %s", [50])
        say("both", (first.fetchone(), second.fetchone()))
    connection.rollback()

    def failing():
        with connection.pipeline() as pipeline:
            connection.execute("insert into kept (id) values (60)")
            connection.execute("insert into kept (id) values (60)")
            connection.execute("select 1")
            pipeline.sync()

    attempt("fails", failing)
    connection.rollback()
    say("nothing stayed", connection.execute("select count(*) from kept where id = 60").fetchone())
    connection.commit()
    connection.autocommit = True
    with connection.pipeline(), connection.transaction():
        with connection.transaction():
            connection.execute("insert into kept (id) values (70)")
        try:
            with connection.transaction():
                connection.execute("insert into kept (id) values (71)")
                raise psycopg.Rollback
        except psycopg.Error as cause:
            say("unexpected", cause)
    say("nested", connection.execute("select id from kept where id in (70, 71)").fetchall())
    with connection.pipeline():
        made = [connection.execute("select %s::int, repeat('x', 100)", [n]) for n in range(3000)]
    say("three thousand", sum(cursor.fetchone()[0] for cursor in made))
    with connection.pipeline(), connection.cursor() as cursor:
        cursor.executemany("insert into kept (id) values (%s)", [(n,) for n in range(1000, 1100)])
    say("many", connection.execute("select count(*) from kept where id >= 1000").fetchone())
    connection.autocommit = False


def copies(connection):
    print("part => copies")
    connection.execute("create table copied (id int primary key, t text)")
    with connection.cursor() as cursor:
        with cursor.copy("copy copied from stdin") as copy:
            for number in range(2000):
                copy.write_row((number, None if number % 2 else f"row {number}"))
        say("in", cursor.rowcount)
        with cursor.copy("copy copied (id, t) from stdin (format binary)") as copy:
            copy.set_types(["int4", "text"])
            copy.write_row((5000, "binary"))
        with cursor.copy("copy (select * from copied order by id limit 3) to stdout") as copy:
            say("rows", [row for row in copy.rows()])
        with cursor.copy("copy copied to stdout (format binary)") as copy:
            say("bytes", sum(len(data) for data in copy))
    connection.commit()

    def interrupted():
        with connection.cursor() as cursor, cursor.copy("copy copied from stdin") as copy:
            copy.write_row((9000, "x"))
            raise ZeroDivisionError

    try:
        interrupted()
    except ZeroDivisionError:
        connection.rollback()

    def twice():
        with connection.cursor() as cursor, cursor.copy("copy copied from stdin") as copy:
            copy.write_row((1, "x"))

    attempt("twice", twice)
    connection.rollback()
    say("as before", connection.execute("select count(*) from copied").fetchone())
    connection.commit()


def transactions(connection, way):
    print("part => transactions")
    for level in psycopg.IsolationLevel:
        connection.isolation_level = level
        say(level.name, connection.execute("show transaction_isolation").fetchone())
        say("reads", connection.execute("select count(*) from kept where id < 0").fetchone())
        connection.commit()
    connection.isolation_level = None
    connection.read_only = True
    attempt("read only", lambda: connection.execute("insert into kept (id) values (200)"))
    connection.rollback()
    connection.read_only = None
    connection.deferrable = True
    say("deferrable", connection.execute("show transaction_deferrable").fetchone())
    connection.rollback()
    connection.deferrable = None
    xid = connection.xid(1, "of the trial", "branch")
    connection.tpc_begin(xid)
    connection.execute("insert into kept (id) values (300)")
    connection.tpc_prepare()
    with psycopg.connect(**way) as other:
        say("recovered", [str(known.gtrid) for known in other.tpc_recover() if known.gtrid == "of the trial"])
        other.rollback()
        other.tpc_commit(xid)
    connection.close()
    with psycopg.connect(**way) as other:
        say("committed", other.execute("select count(*) from kept where id = 300").fetchone())


def notices(way):
    print("part => notices")
    with psycopg.connect(**way, autocommit=True) as connection:
        heard = []
        connection.add_notice_handler(lambda diagnostic: heard.append((diagnostic.severity, diagnostic.message_primary)))
        connection.execute("do $$ begin raise notice 'one'; raise warning 'two'; end $$")
        say("heard", heard)
        connection.execute("listen channel")
        with psycopg.connect(**way, autocommit=True) as other:
            for number in range(3):
                other.execute("select pg_notify('channel', %s)", [f"payload {number}"])
            theirs = other.info.backend_pid
        got = list(connection.notifies(timeout=10, stop_after=3))
        say("notified", [(note.channel, note.payload, note.pid == theirs) for note in got])
        connection.execute("notify channel, 'own'")
        got = list(connection.notifies(timeout=10, stop_after=1))
        say("own", [(note.payload, note.pid == connection.info.backend_pid) for note in got])
        cancelled = threading.Timer(0.5, connection.cancel_safe)
        cancelled.start()
        attempt("cancelled", lambda: connection.execute("select pg_sleep(30)"))
        cancelled.join()
        say("goes on", connection.execute("select 1").fetchone())
        say("standby", connection.pgconn.parameter_status(b"in_hot_standby"))
        say("server", (connection.info.server_version, connection.info.encoding, connection.info.transaction_status.name))


def pools(way):
    print("part => pools")
    with psycopg_pool.ConnectionPool(kwargs=way, min_size=2, max_size=4, check=psycopg_pool.ConnectionPool.check_connection) as pool:
        pool.wait()

        def work(number):
            with pool.connection() as connection:
                connection.execute("insert into copied values (%s, 'pool')", [20_000 + number])

        threads = [threading.Thread(target=work, args=[number]) for number in range(20)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        with pool.connection() as connection:
            say("all there", connection.execute("select count(*) from (select from copied where t = 'pool' for share) p").fetchone())


async def asynchronous(way):
    print("part => asynchronous")
    async with await psycopg.AsyncConnection.connect(**way) as connection:
        async with connection.pipeline():
            cursors = [await connection.execute("select %s::int", [n]) for n in range(10)]
            say("pipeline", [await cursor.fetchone() for cursor in cursors])
        async with connection.cursor("named") as cursor:
            await cursor.execute("select n from generate_series(1, 100) n")
            say("cursor", await cursor.fetchmany(3))
        task = asyncio.create_task(connection.execute("select pg_sleep(30)"))
        await asyncio.sleep(0.5)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            await connection.rollback()
        say("after a cancelled task", await (await connection.execute("select 'fine'")).fetchone())


def main():
    way = {
        "host": os.environ["PGHOST"], "port": os.environ["PGPORT"], "dbname": os.environ["PGDATABASE"],
        "user": os.environ["PGUSER"], "password": os.environ["PGPASSWORD"],
    }  # fmt: skip
    with psycopg.connect(**way) as connection:
        values(connection)
        cursors(connection)
        pipelines(connection)
        copies(connection)
    with psycopg.connect(**way) as connection:
        transactions(connection, way)
    notices(way)
    pools(way)
    asyncio.run(asynchronous(way))


main()
