"""psycopg and asyncpg at their default settings: each uses what it has, then waits with its connections open.

Usage: at_rest.py HOST PORT DATABASE USER PASSWORD

Says `at rest` when everything was done; ends when its input does.
"""

import asyncio
import sys

import asyncpg
import psycopg
from psycopg_pool import ConnectionPool

host, port, database, user, password = sys.argv[1:6]
FIND = "select handle from users where id = %s"


def with_psycopg():
    where = dict(host=host, port=port, dbname=database, user=user, password=password)
    conn = psycopg.connect(**where)
    # More often than the threshold from which the driver prepares.
    for _ in range(10):
        assert conn.execute(FIND, (7,)).fetchone() == ("user7",)
    conn.commit()
    with conn.transaction(), conn.cursor("rows") as cursor:
        cursor.itersize = 5
        cursor.execute("select id from users order by id")
        assert len(cursor.fetchall()) == 40
    conn.commit()
    with conn.transaction():
        conn.cursor().executemany(FIND, [(number,) for number in range(1, 9)])
    with conn.pipeline():
        found = [conn.execute(FIND, (number,)) for number in (1, 2)]
    assert [each.fetchone() for each in found] == [("user1",), ("user2",)]
    conn.commit()
    with conn.cursor().copy("copy (select 1) to stdout") as copy:
        assert list(copy)
    conn.rollback()
    pool = ConnectionPool(kwargs=where, min_size=2)
    with pool.connection() as pooled:
        pooled.execute("set timezone to 'Asia/Tokyo'")
    alone = psycopg.connect(**where, autocommit=True)
    alone.execute("listen at_rest")
    with psycopg.ClientCursor(alone) as cursor:
        cursor.execute(FIND, (3,))
    return conn, pool, alone


async def with_asyncpg():
    where = dict(host=host, port=int(port), database=database, user=user, password=password)
    conn = await asyncpg.connect(**where)
    find = FIND.replace("%s", "$1")
    for number in range(1, 9):
        assert await conn.fetchval(find, number) == f"user{number}"
    prepared = await conn.prepare(find)
    assert await prepared.fetchval(9) == "user9"
    async with conn.transaction():
        assert len([row async for row in conn.cursor("select id from users")]) == 40
    await conn.executemany(find, [(number,) for number in range(1, 9)])
    await conn.add_listener("at_rest", print)
    pool = await asyncpg.create_pool(min_size=2, max_size=2, **where)
    for number in range(1, 9):
        async with pool.acquire() as pooled:
            await pooled.execute("set work_mem to '5MB'")
            assert await pooled.fetchval(find, number) == f"user{number}"
    return conn, prepared, pool


async def main():
    kept = with_psycopg(), await with_asyncpg()
    print("at rest", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    kept[0][1].close()
    await kept[1][2].close()


asyncio.run(main())
