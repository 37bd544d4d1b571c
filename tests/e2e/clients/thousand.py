"""N psycopg clients at once on the pool, each checking values only it could have asked for.

usage: thousand.py POOL_DSN DIRECT_DSN CLIENTS ROUNDS; prints one JSON object.
"""

import asyncio
import json
import sys

import psycopg

pool_dsn, direct_dsn, clients, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
seen = {"answers": 0, "wrong": 0, "failed": 0, "errors": [], "connected_at_once": 0, "peak_server_connections": 0}


async def client(number: int, everyone_is_here: asyncio.Event) -> None:
    """Connects, waits until all are connected, then asks for its own number in and out of transactions."""
    try:
        async with await psycopg.AsyncConnection.connect(pool_dsn, autocommit=True, connect_timeout=60) as connection:
            seen["connected_at_once"] += 1
            if seen["connected_at_once"] == clients:
                everyone_is_here.set()
            await everyone_is_here.wait()
            for turn in range(rounds):
                async with connection.transaction():
                    mine = f"client {number} turn {turn}"
                    cursor = await connection.execute("SELECT %s::text, set_config('bookend.mine', %s, true)", (mine, mine))
                    first = await cursor.fetchone()
                    cursor = await connection.execute("SELECT current_setting('bookend.mine'), %s::int", (number,))
                    second = await cursor.fetchone()
                right = first == (mine, mine) and second == (mine, number)
                seen["answers" if right else "wrong"] += 1
    except Exception as error:  # every failure is counted and shown
        seen["failed"] += 1
        seen["errors"] = (seen["errors"] + [repr(error)])[:5]
        everyone_is_here.set()


async def watch(done: asyncio.Event) -> None:
    """Asks PostgreSQL itself how many sessions the pool holds there."""
    async with await psycopg.AsyncConnection.connect(direct_dsn, autocommit=True) as connection:
        while not done.is_set():
            cursor = await connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            (count,) = await cursor.fetchone()
            seen["peak_server_connections"] = max(seen["peak_server_connections"], count)
            await asyncio.sleep(0.05)


async def main() -> None:
    done = asyncio.Event()
    watcher = asyncio.create_task(watch(done))
    everyone_is_here = asyncio.Event()
    await asyncio.wait_for(asyncio.gather(*(client(number, everyone_is_here) for number in range(clients))), 120)
    done.set()
    await watcher
    print(json.dumps(seen))


asyncio.run(main())
