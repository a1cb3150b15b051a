"""psycopg and asyncpg at their default settings, while a table changes under their prepared statements.

Usage: changes.py HOST PORT DATABASE USER PASSWORD SERVER_PORT

Says `no error` at the end. Outside of transactions neither driver's user is to hear of a change.
"""

import asyncio
import sys

import asyncpg
import psycopg

host, port, database, user, password, server = sys.argv[1:7]
WHERE = dict(host=host, user=user, password=password)
CHANGES = [
    "alter table changing add c int default 7",
    "alter table changing alter c type text",
    "alter table changing drop b",
    "alter table changing add b text default 'new'",
    "alter table changing alter a type bigint",
]


def rows_of(straight, sql, key):
    return [tuple(row) for row in straight.execute(sql.replace("$1", "%s"), (key,)).fetchall()]


async def main():
    straight = psycopg.connect(**WHERE, port=server, dbname=database, autocommit=True)
    straight.execute("create table changing (a int primary key, b text)")
    straight.execute("insert into changing select n, 'row' || n from generate_series(1, 20) n")
    read = "select * from changing where a = $1"
    # The primary's, that no replica has to catch up.
    write = "update changing set a = a where a = $1 returning *"
    some = [psycopg.connect(**WHERE, port=port, dbname=database, autocommit=True) for _ in range(4)]
    others = [await asyncpg.connect(**WHERE, port=int(port), database=database) for _ in range(4)]
    for change in [None, *CHANGES]:
        if change:
            straight.execute(change)
        expected = rows_of(straight, read, 3)
        for _ in range(7):
            for conn in some:
                assert [tuple(row) for row in conn.execute(write.replace("$1", "%s"), (3,))] == expected, change
            for conn in others:
                assert [tuple(row) for row in await conn.fetch(write, 3)] == expected, change
            # What a replica knows, may be older; it is no error.
            for conn in some:
                assert len(conn.execute(read.replace("$1", "%s"), (3,)).fetchall()) == 1
            for conn in others:
                assert len(await conn.fetch(read, 3)) == 1
    for conn in others:
        await conn.close()
    print("no error")


asyncio.run(main())
