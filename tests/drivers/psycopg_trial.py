"""Actions of an application with psycopg 3, and what the driver returned for each, a line of text.

Usage: psycopg_trial.py HOST PORT DATABASE USER PASSWORD POOL_PORT

What one connection of a pool wrote, another must see at POOL_PORT at once.
"""

import sys
import threading
import uuid
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal

import psycopg
from psycopg.rows import dict_row, namedtuple_row
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

host, port, database, user, password, pool_port = sys.argv[1:7]
DSN = dict(host=host, port=port, dbname=database, user=user, password=password)

# Keys of this program: the first half lives on one shard, the second on the other.
NEAR, FAR = range(100, 110), range(1100, 1110)
MINE = 1
NOON = datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
COLUMNS = "user_id, id, small, whole, big, exact, body, raw, flag, at, day, token, doc, words, numbers, ratio"


def show(value):
    """With its type, so that a text is not taken for a number."""
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


def act(label, work):
    """Runs one action; an error is what it returned."""
    try:
        say(label, show(work()))
    except psycopg.Error as error:
        say(label, f"{type(error).__name__} {error.sqlstate}" + reason(error))


def row(key, number=MINE, **other):
    values = dict(
        small=-7, whole=70_000, big=2**40, exact=Decimal("12.3400"), body="häm 'quoted' \\ back", raw=b"\x00\xff\\",
        flag=True, at=NOON, day=date(1999, 12, 31), token=uuid.UUID(int=key),
        doc=Jsonb({"a": [1, None, "x"]}), words=["a", None, 'b"c', ""], numbers=[1, None, -3], ratio=0.1,
    )
    values.update(other)
    return (key, number, *values.values())


INSERT = f"insert into kinds ({COLUMNS}) values ({', '.join(['%s'] * 16)})"


def connect(**more):
    return psycopg.connect(**DSN, **more)


def facts():
    with connect(autocommit=True) as conn:
        act("version", lambda: conn.execute("select pg_catalog.version()").fetchone()[0].startswith("PostgreSQL"))
        for name in ("standard_conforming_strings", "client_encoding", "TimeZone", "transaction isolation level"):
            act(f"show {name}", lambda: conn.execute(f"show {name}").fetchone())
        act("info", lambda: (conn.info.server_version > 130000, conn.info.encoding, str(conn.info.timezone),
                             conn.info.parameter_status("integer_datetimes"), conn.info.transaction_status.name))
        act("type look-up", lambda: psycopg.types.TypeInfo.fetch(conn, "timestamptz").oid)


def parameters():
    with connect(autocommit=True) as conn:
        for key in (NEAR[0], FAR[0]):
            act(f"insert {key}", lambda: conn.execute(INSERT, row(key)).statusmessage)
            for binary in (False, True):
                act(f"types of {key}, binary {binary}", lambda: conn.cursor(binary=binary).execute(
                    f"select {COLUMNS} from kinds where user_id = %s and id = %s", (key, MINE)).fetchall())
            act(f"description {key}", lambda: [(column.name, column.type_code) for column in conn.execute(
                f"select {COLUMNS} from kinds where user_id = %s", (key,)).description])
            nothing = dict.fromkeys(("small", "whole", "big", "exact", "body", "raw", "flag", "at", "day", "token",
                                     "doc", "words", "numbers", "ratio"))
            act(f"insert NULLs {key}", lambda: conn.execute(INSERT, row(key + 1, **nothing)).rowcount)
            act(f"NULLs {key}", lambda: conn.execute(
                f"select {COLUMNS} from kinds where user_id = %s", (key + 1,)).fetchall())
            for name, value in (("small", -7), ("whole", 70_000), ("big", 2**40), ("exact", Decimal("12.34")),
                                ("body", "häm 'quoted' \\ back"), ("raw", b"\x00\xff\\"), ("flag", True), ("at", NOON),
                                ("day", date(1999, 12, 31)), ("token", uuid.UUID(int=key)), ("words", ["a", None, 'b"c', ""]),
                                ("numbers", [1, None, -3]), ("ratio", 0.1)):
                act(f"{name} as %s, %t, %b of {key}", lambda: [conn.execute(
                    f"select id from kinds where user_id = {format} and {name} = {format}", (key, value)).fetchall()
                    for format in ("%s", "%t", "%b")])
        act("mappings", lambda: conn.cursor(row_factory=dict_row).execute(
            "select user_id, body from kinds where user_id = %(key)s", {"key": NEAR[0]}).fetchone())
        act("named tuples", lambda: conn.cursor(row_factory=namedtuple_row).execute(
            "select user_id, flag from kinds where user_id = %s", (FAR[0],)).fetchone()._asdict())
        act("client-side cursor", lambda: psycopg.ClientCursor(conn).execute(
            "select user_id, body from kinds where user_id = %s and body = %s", (FAR[0], "häm 'quoted' \\ back")).fetchall())
        act("delete", lambda: conn.execute("delete from kinds where id = %s", (MINE,)).rowcount)


def transactions():
    with connect() as conn:
        act("a block begins by itself", lambda: (conn.execute(INSERT, row(NEAR[0])).rowcount, conn.info.transaction_status.name))
        act("read in it", lambda: conn.execute("select body from kinds where user_id = %s", (NEAR[0],)).fetchall())
        conn.rollback()
        act("rolled back", lambda: conn.execute("select count(*) from kinds where user_id = %s", (NEAR[0],)).fetchone())
        conn.commit()
        for key in (NEAR[0], FAR[0]):
            conn.execute(INSERT, row(key))
            conn.commit()
        act("both there", lambda: conn.execute("select user_id from kinds where id = %s order by user_id", (MINE,)).fetchall())
        act("counted in a block", lambda: conn.execute("select count(*), sum(big) from kinds where id = %s", (MINE,)).fetchone())
        conn.commit()

        def nested():
            with conn.transaction():
                conn.execute("update kinds set body = 'outer' where user_id = %s", (FAR[0],))
                try:
                    with conn.transaction():
                        conn.execute("update kinds set body = 'inner' where user_id = %s", (FAR[0],))
                        conn.execute(INSERT, row(FAR[0]))
                except psycopg.errors.UniqueViolation as error:
                    say("nested failure", f"{error.sqlstate} {error.diag.constraint_name} {error.diag.table_name}")
                with conn.transaction():
                    conn.execute("update kinds set whole = 1 where user_id = %s", (FAR[0],))
                return conn.execute("select body, whole from kinds where user_id = %s", (FAR[0],)).fetchall()

        act("savepoints", nested)
        act("an error", lambda: conn.execute("select 1/0 from kinds where user_id = %s", (FAR[0],)))
        act("after an error", lambda: conn.execute("select 1").fetchone())
        say("status", conn.info.transaction_status.name)
        conn.rollback()
        act("going on", lambda: conn.execute("select body from kinds where user_id = %s", (FAR[0],)).fetchone())
        act("commit of a failed block", lambda: [
            attempt(conn, "update kinds set body = 'lost' where user_id = %s", NEAR[0]), attempt(conn, "selec", None),
            conn.commit(), conn.info.transaction_status.name])
        act("nothing of it is left", lambda: conn.execute("select count(*) from kinds where body = 'lost'").fetchone())
        conn.rollback()

        def both():
            with conn.transaction():
                for key in (NEAR[0], FAR[0]):
                    conn.execute("update kinds set body = 'both' where user_id = %s", (key,))
                return conn.execute("select user_id, body from kinds where id = %s order by user_id", (MINE,)).fetchall()

        act("a block over both", both)
        act("seen after it", lambda: conn.execute("select count(*) from kinds where body = 'both'").fetchone())
        conn.rollback()

        def neither():
            with conn.transaction():
                for key in (NEAR[0], FAR[0]):
                    conn.execute("update kinds set body = 'neither' where user_id = %s", (key,))
                conn.execute("select 1/0")

        act("a block over both fails", neither)
        act("nothing after it", lambda: conn.execute("select count(*) from kinds where body = 'neither'").fetchone())
        conn.rollback()
        conn.read_only = True
        act("read only", lambda: conn.execute("select body from kinds where user_id = %s", (NEAR[0],)).fetchone())
        act("write in read only", lambda: conn.execute("delete from kinds where user_id = %s", (NEAR[0],)))
        conn.rollback()
        conn.read_only = None
        for level in (psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE):
            conn.isolation_level = level
            act(f"{level.name}", lambda: (conn.execute("update kinds set whole = whole + 1 where user_id = %s returning whole",
                                                       (NEAR[0],)).fetchone(),
                                          conn.execute("show transaction isolation level").fetchone()))
            conn.commit()
        conn.isolation_level = None
        act("cleared", lambda: conn.execute("delete from kinds where id = %s", (MINE,)).rowcount)
        conn.commit()


def attempt(conn, sql, key):
    try:
        return conn.execute(sql, None if key is None else (key,)).statusmessage
    except psycopg.Error as error:
        return error.sqlstate


def prepared():
    with connect(autocommit=True, prepare_threshold=2) as conn:
        for round in range(4):
            for key in (NEAR[0], FAR[0]):
                act(f"prepared insert {round} {key}", lambda: conn.execute(INSERT, row(key + round)).statusmessage)
                act(f"prepared read {round} {key}", lambda: conn.execute(
                    "select user_id, body from kinds where user_id = %s", (key + round,)).fetchall())
            act(f"prepared scatter {round}", lambda: conn.execute(
                "select user_id from kinds where id = %s order by user_id desc limit 3", (MINE,)).fetchall())
            with conn.transaction():
                act(f"prepared in a block {round}", lambda: conn.execute(
                    "select user_id, body from kinds where user_id = %s", (FAR[0] + round,)).fetchall())
        act("prepared explicitly", lambda: [conn.execute("select exact from kinds where user_id = %s", (key,), prepare=True)
                                            .fetchone() for key in (NEAR[0], FAR[0], NEAR[1], FAR[1])])
        act("prepared error", lambda: [attempt_params(conn, "select 10 / %s::int from kinds where user_id = %s", value)
                                       for value in ((0, NEAR[0]), (5, NEAR[0]), (0, FAR[0]), (2, FAR[0]))])
        act("cleared", lambda: conn.execute("delete from kinds where id = %s", (MINE,)).rowcount)


def attempt_params(conn, sql, values):
    try:
        return conn.execute(sql, values, prepare=True).fetchone()
    except psycopg.Error as error:
        return error.sqlstate


def many():
    rows = [row(key) for pair in zip(NEAR, FAR) for key in pair]
    with connect() as conn:
        cursor = conn.cursor()

        def insert():
            cursor.executemany(INSERT, rows)
            return cursor.rowcount

        act("executemany over shards in a block", insert)
        conn.rollback()
        act("executemany rolled back", lambda: conn.execute("select count(*) from kinds where id = %s", (MINE,)).fetchone())
        conn.rollback()
        act("executemany on one shard in a block", lambda: cursor.executemany(INSERT, rows[::2]))
        conn.commit()
        act("executemany committed", lambda: conn.execute("select count(*) from kinds where id = %s", (MINE,)).fetchone())
        conn.execute("delete from kinds where id = %s", (MINE,))
        conn.commit()
    with connect(autocommit=True) as conn:
        cursor = conn.cursor()
        act("executemany over shards", lambda: (cursor.executemany(INSERT, rows), cursor.rowcount))

        def returning():
            cursor.executemany("update kinds set whole = %s where user_id = %s returning user_id, whole",
                               [(position, values[0]) for position, values in enumerate(rows)], returning=True)
            results = [cursor.fetchall()]
            while cursor.nextset():
                results.append(cursor.fetchall())
            return results

        act("executemany returning", returning)
        act("executemany that fails", lambda: cursor.executemany(INSERT, [row(NEAR[0], 90), row(FAR[0], 90), row(NEAR[0], 90)]))
        act("all or none", lambda: conn.execute("select count(*) from kinds where id = 90").fetchone())
        act("rows of all", lambda: conn.execute(
            "select user_id, whole from kinds where id = %s order by user_id", (MINE,)).fetchall())
        act("many at once", lambda: cursor.executemany(
            "insert into kinds (user_id, id, body) values (%s, %s, %s)",
            [(key, number, "x" * 200) for number in range(1000, 1100) for key in (NEAR[0], FAR[0])]))
        act("many are there", lambda: conn.execute(
            "select count(*), min(id), max(id) from kinds where id >= 1000 and user_id = any(%s)", ([NEAR[0], FAR[0]],)).fetchone())
        act("cleared", lambda: conn.execute("delete from kinds where id = %s or (id >= 1000 and user_id = any(%s))",
                                            (MINE, [NEAR[0], FAR[0]])).rowcount)


def several_shards():
    with connect(autocommit=True) as conn:
        values = ", ".join(["(%s, %s, %s, %s)"] * 4)
        flat = [value for key in (FAR[0], NEAR[0], FAR[1], NEAR[1]) for value in (key, MINE, f"body {key}", Decimal(key) / 4)]
        act("rows over shards returning", lambda: conn.execute(
            f"insert into kinds (user_id, id, body, exact) values {values} returning user_id, body", flat).fetchall())
        for label, sql, params in (
            ("order and limit", "select user_id, exact from kinds where id = %s order by exact desc limit 3", (MINE,)),
            ("offset", "select user_id from kinds where id = %s order by user_id limit 2 offset 1", (MINE,)),
            ("group", "select user_id > 1000 as far, count(*), sum(exact), avg(exact), min(body collate \"C\"), max(user_id)"
                      " from kinds where id = %s group by 1 order by 1", (MINE,)),
            ("aggregates", "select count(*), count(body), sum(user_id), avg(user_id), min(exact), max(exact), bool_or(flag)"
                           " from kinds where id = %s", (MINE,)),
            ("no rows", "select count(*), sum(exact), max(user_id) from kinds where id = %s", (77,)),
            ("any", "select user_id, body from kinds where id = %s and user_id = any(%s) order by user_id",
             (MINE, [NEAR[0], FAR[1]])),
            ("in", "select user_id, body from kinds where id = %s and user_id in (%s, %s) order by user_id",
             (MINE, NEAR[1], FAR[0])),
            ("between", "select user_id from kinds where id = %s and user_id between %s and %s order by 1",
             (MINE, NEAR[1], FAR[0])),
            ("distinct", "select distinct user_id > 1000 from kinds where id = %s order by 1", (MINE,)),
            ("of the shop", "select country, count(*), sum(balance) from users group by country order by 3 desc, 1", None),
            ("a join by the key", "select u.handle, count(*) from users u join orders o on o.user_id = u.id"
                                  " group by u.handle, u.id order by 2 desc, u.id limit 5", None),
            ("a reference table", "select o.user_id, p.name from order_items o join products p on p.id = o.product_id"
                                  " where o.user_id = any(%s) order by 1, p.id, o.order_id, o.line", ([1, 1001],)),
        ):
            act(label, lambda: conn.execute(sql, params).fetchall())
            act(f"{label}, binary", lambda: conn.cursor(binary=True).execute(sql, params).fetchall())
        act("stream", lambda: list(conn.cursor().stream("select user_id from kinds where id = %s order by user_id", (MINE,))))
        act("fetchone of many", lambda: [conn.execute("select user_id from kinds where id = %s order by user_id", (MINE,)).fetchone()
                                         for _ in range(3)])
        act("update over shards", lambda: conn.execute("update kinds set whole = 5 where id = %s returning user_id", (MINE,)).rowcount)
        act("delete over shards", lambda: conn.execute("delete from kinds where id = %s", (MINE,)).statusmessage)
        act("constraint", lambda: conn.execute("insert into kinds (user_id, id) values (%s, 90), (%s, 90), (%s, 90)",
                                               (NEAR[0], FAR[0], NEAR[0])))
        act("nothing stays", lambda: conn.execute("select count(*) from kinds where id = 90").fetchone())


def pipelines():
    with connect(autocommit=True) as conn:
        def insert_and_read():
            with conn.pipeline():
                cursors = [conn.execute(INSERT, row(key)) for key in (NEAR[0], FAR[0], NEAR[1], FAR[1])]
                cursors += [conn.execute("select user_id from kinds where id = %s order by user_id", (MINE,))]
                return [cursor.rowcount for cursor in cursors[:4]], cursors[4].fetchall()

        act("pipeline", insert_and_read)

        def failing():
            results = []
            with conn.pipeline() as pipeline:
                before = conn.execute("select user_id from kinds where user_id = %s", (FAR[0],))
                pipeline.sync()
                # One by one: the driver throws away what arrives together with an error, and an error may come at once.
                results.append(before.fetchall())
                for text, values in (("select 1/0", None), ("select user_id from kinds where user_id = %s", (NEAR[0],))):
                    try:
                        results.append(conn.execute(text, values).fetchall())
                    except psycopg.Error as error:
                        results.append(f"{type(error).__name__} {error.sqlstate}")
            return results

        act("pipeline with an error", failing)
        act("after it", lambda: conn.execute("select count(*) from kinds where id = %s", (MINE,)).fetchone())

        def blocks():
            with conn.pipeline():
                with conn.transaction():
                    conn.execute("update kinds set body = 'piped' where user_id = %s", (NEAR[0],))
                    first = conn.execute("select body from kinds where user_id = %s", (NEAR[0],))
                with conn.transaction():
                    conn.execute("update kinds set body = 'piped' where user_id = %s", (FAR[0],))
                    second = conn.execute("select body from kinds where user_id = %s", (FAR[0],))
                return first.fetchall(), second.fetchall()

        act("pipelined blocks", blocks)
        act("cleared", lambda: conn.execute("delete from kinds where id = %s", (MINE,)).rowcount)


def cursors_and_copy():
    with connect() as conn:
        conn.cursor().executemany("insert into kinds (user_id, id, body) values (%s, %s, %s)",
                                  [(NEAR[2], number, f"body {number}") for number in range(200, 230)])
        conn.commit()

        def server_cursor():
            with conn.cursor("walk") as cursor:
                cursor.itersize = 7
                cursor.execute("select id, body from kinds where user_id = %s order by id", (NEAR[2],))
                return cursor.fetchmany(3), cursor.fetchone(), len(cursor.fetchall())

        act("server-side cursor", server_cursor)
        conn.rollback()

        def scrolled():
            with conn.cursor("walk", scrollable=True) as cursor:
                cursor.execute("select id from kinds where user_id = %s order by id", (NEAR[2],))
                cursor.scroll(5)
                ahead = cursor.fetchone()
                cursor.scroll(0, mode="absolute")
                return ahead, cursor.fetchone()

        act("scrolled cursor", scrolled)
        conn.rollback()
    with connect(autocommit=True) as conn:
        hint = "/* pgweir: shard=0 */ "

        def copy_in(format):
            with conn.cursor().copy(f"{hint}copy kinds (user_id, id, body) from stdin {format}") as copy:
                if format:
                    copy.set_types(["int8", "int4", "text"])
                for number in range(300, 400):
                    copy.write_row((NEAR[3], number, None if number % 7 == 0 else f"row\t{number}"))
            count = conn.execute("select count(*), count(body) from kinds where user_id = %s", (NEAR[3],)).fetchone()
            conn.execute("delete from kinds where user_id = %s and id > 349", (NEAR[3],))
            return count

        act("copy in", lambda: copy_in(""))

        def copy_out(format):
            with conn.cursor().copy(f"{hint}copy (select id, body from kinds where user_id = {NEAR[3]} order by id limit 12)"
                                    f" to stdout {format}") as copy:
                copy.set_types(["int4", "text"])
                return list(copy.rows())

        act("copy out", lambda: copy_out(""))
        act("binary copy out", lambda: copy_out("(format binary)"))
        act("binary copy in", lambda: (conn.execute("delete from kinds where user_id = %s", (NEAR[3],)).rowcount,
                                       copy_in("(format binary)")))

        def broken_copy():
            with conn.cursor().copy(f"{hint}copy kinds (user_id, id, body) from stdin") as copy:
                copy.write_row((NEAR[3], "nonsense", "x"))

        act("copy of nonsense", broken_copy)

        def cancelled_copy():
            with conn.cursor().copy(f"{hint}copy kinds (user_id, id, body) from stdin") as copy:
                copy.write_row((NEAR[3], 999, "x"))
                raise psycopg.Error("the client gives up")

        act("copy given up", cancelled_copy)
        act("after copies", lambda: conn.execute("select count(*) from kinds where user_id = %s", (NEAR[3],)).fetchone())
        act("cleared", lambda: [conn.execute("delete from kinds where user_id = %s", (key,)).rowcount > 0 for key in (NEAR[2], NEAR[3])])


def settings():
    with connect(autocommit=True, options="-c statement_timeout=54321", application_name="trial") as conn:
        act("startup options", lambda: (conn.execute("show statement_timeout").fetchone(),
                                        conn.execute("show application_name").fetchone()))
        conn.execute("set timezone to 'Asia/Kolkata'")
        at = "select at from kinds where user_id = %s and id = %s"
        conn.execute(INSERT, row(FAR[4]))
        act("time zone", lambda: (conn.execute(at, (FAR[4], MINE)).fetchone()[0].isoformat(), str(conn.info.timezone)))
        act("time zone in a block", lambda: in_block(conn, "set local timezone to 'America/New_York'", at, (FAR[4], MINE)))
        act("time zone after it", lambda: (conn.execute(at, (FAR[4], MINE)).fetchone()[0].isoformat(), str(conn.info.timezone)))
        act("date style", lambda: [conn.execute("set datestyle to 'German'").statusmessage,
                                   conn.execute("select day::text from kinds where user_id = %s", (FAR[4],)).fetchone(),
                                   conn.execute("reset datestyle").statusmessage,
                                   conn.execute("select day::text from kinds where user_id = %s", (FAR[4],)).fetchone()])
        act("set_config", lambda: (conn.execute("select set_config('work_mem', '5MB', false)").fetchone(),
                                   conn.execute("show work_mem").fetchone()))
        conn.execute("reset all")
        act("reset all", lambda: (conn.execute("show timezone").fetchone(), conn.execute("show statement_timeout").fetchone(),
                                  conn.execute("show work_mem").fetchone()))
        conn.execute("set statement_timeout to '50ms'")
        act("statement timeout", lambda: conn.execute("select pg_sleep(20)"))
        conn.execute("discard all")
        act("discard all", lambda: conn.execute("show statement_timeout").fetchone())
        act("cleared", lambda: conn.execute("delete from kinds where id = %s", (MINE,)).rowcount)


def in_block(conn, setting, sql, params):
    with conn.transaction():
        conn.execute(setting)
        return conn.execute(sql, params).fetchone()[0].isoformat()


def cancel():
    with connect(autocommit=True) as conn:
        stop = threading.Event()

        def again_and_again():
            while not stop.wait(0.05):
                conn.cancel_safe()

        canceller = threading.Thread(target=again_and_again)
        canceller.start()
        act("cancelled", lambda: conn.execute("select pg_sleep(60)"))
        stop.set()
        canceller.join()
        act("cancelled, then", lambda: [each for each in [attempt(conn, "select 1", None) for _ in range(20)] if each == "SELECT 1"][0])


def notifications():
    with connect(autocommit=True) as listener, connect(autocommit=True) as speaker:
        listener.execute("listen psycopg_trial")
        speaker.execute("notify psycopg_trial, 'one'")
        speaker.execute("select pg_notify('psycopg_trial', 'two')")
        act("notified", lambda: [(each.channel, each.payload) for each in listener.notifies(timeout=20, stop_after=2)])
        act("meanwhile", lambda: listener.execute("select 1").fetchone())


def pools():
    with ConnectionPool(kwargs=DSN | {"port": pool_port}, min_size=2, max_size=3, open=True) as pool:
        pool.wait()

        def work(key):
            with pool.connection() as conn:
                conn.execute(INSERT, row(key))
            with pool.connection() as conn:
                return conn.execute("select user_id, body from kinds where user_id = %s and id = %s", (key, MINE)).fetchone()

        results, threads = {}, []
        for key in (*NEAR, *FAR):
            threads.append(threading.Thread(target=lambda key=key: results.update({key: work(key)})))
            threads[-1].start()
        for thread in threads:
            thread.join()
        act("pool", lambda: [results[key] for key in sorted(results)])

        def failing():
            with pool.connection() as conn:
                conn.execute("selec")

        act("pool with an error", failing)

        def clear():
            with pool.connection() as conn:
                return conn.execute("delete from kinds where id = %s", (MINE,)).rowcount

        act("pool after it", clear)


def statements():
    with connect(autocommit=True) as conn:
        act("empty", lambda: conn.execute("").statusmessage)
        act("several in one text", lambda: results_of(conn.execute("select 1; select 2 as two; set extra_float_digits = 0")))
        act("values", lambda: conn.execute("values (1, 'a'), (2, null)").fetchall())
        act("notice", lambda: notices(conn, "do $$ begin raise notice 'heard'; end $$"))
        act("reference table", lambda: conn.execute("select * from categories order by id").fetchall())
        act("returning", lambda: conn.execute("insert into kinds (user_id, id) values (%s, %s) returning *", (NEAR[9], MINE)).fetchone()[:2])
        act("upsert", lambda: conn.execute(
            "insert into kinds (user_id, id, whole) values (%s, %s, 4) on conflict (user_id, id) do update"
            " set whole = coalesce(kinds.whole, 0) + excluded.whole returning whole", (NEAR[9], MINE)).fetchone())
        act("common table", lambda: conn.execute(
            "with gone as (delete from kinds where user_id = %s returning id) select count(*) from gone", (NEAR[9],)).fetchone())
        for sql in ("selec", "select nonsense from kinds where user_id = 100", "select * from nowhere", "select 'x'::int",
                    "insert into kinds (user_id, id, small) values (100, 1, 99999)", "insert into users (id) values (100)",
                    "select %s::int + %s", "update kinds set id = null where user_id = 100 and id = 90"):
            act(f"error of {sql}", lambda: conn.execute(sql, (1, "x") if "%s" in sql else None).fetchall())
        act("advisory lock", lambda: (conn.execute("select pg_try_advisory_lock(71)").fetchone(),
                                      conn.execute("select pg_advisory_unlock(71)").fetchone()))
        act("temporary table", lambda: (conn.execute("create temp table scratch (n int)").statusmessage,
                                        conn.execute("insert into scratch values (1), (2)").rowcount,
                                        conn.execute("select n from scratch order by n").fetchall()))


def results_of(cursor):
    results = [(cursor.statusmessage, cursor.fetchall())]
    while cursor.nextset():
        results.append((cursor.statusmessage, cursor.fetchall() if cursor.description else None))
    return results


def notices(conn, sql):
    heard = []
    conn.add_notice_handler(lambda diagnostic: heard.append((diagnostic.severity, diagnostic.message_primary)))
    conn.execute(sql)
    return heard


for part in (facts, parameters, transactions, prepared, many, several_shards, pipelines, cursors_and_copy, settings, cancel,
             notifications, pools, statements):
    say("part", part.__name__)
    part()
