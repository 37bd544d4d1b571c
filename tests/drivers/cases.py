"""Runs a driver's cases from several workers at once, so that the few servers of a pool change hands between them.

A worker has one connection for all its cases and begins with another one than its neighbour; `me` is its number, and goes into
every value, so that an answer which belongs to somebody else is seen. Where PostgreSQL is comes from libpq's environment
(PGHOST, PGPORT, ...), which every driver reads by itself. The same assertions hold with a pool there and without one.
The last line printed is a JSON object: which cases ran, and by how many workers.
"""
import asyncio
import json
import os
import sys
import threading
import traceback

WORKERS = 5
CASES = []
FAILED = []


def case(function):
    """Decorates one case: `function(connection, me)`, or a coroutine of that kind."""
    CASES.append(function)
    return function


def case_of_a_session(function):
    """Decorates one that a pool in transaction mode must pin a server for, or keep what was set."""
    return case(function) if os.environ.get("DRIVERS_SESSIONS") else function


def chosen(me):
    """Returns the cases of worker `me` in its order; a name on the command line chooses one."""
    cases = [one for one in CASES if not sys.argv[1:] or one.__name__ in sys.argv[1:]]
    turn = me * len(cases) // WORKERS
    return cases[turn:] + cases[:turn]


def failed(what, me):
    FAILED.append(what)
    print(f"--- {what}, worker {me}\n{traceback.format_exc()}", file=sys.stderr)


def report():
    if FAILED:
        sys.exit(f"failed: {', '.join(sorted(set(FAILED)))}")
    print(json.dumps({"cases": [one.__name__ for one in chosen(0)], "workers": WORKERS}))


def run(connect):
    """Runs all cases in threads. `connect()` makes a worker's connection."""

    def work(me):
        try:
            go_through(me)
        except Exception:
            failed("connect or close", me)

    def go_through(me):
        connection = connect()
        for one in chosen(me):
            try:
                one(connection, me)
            except Exception:
                failed(one.__name__, me)
                connection.close()
                connection = connect()
        connection.close()

    threads = [threading.Thread(target=work, args=(me,), daemon=True) for me in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        if thread.is_alive():
            FAILED.append("a worker hangs")
    report()


def run_async(connect):
    """Runs all cases in tasks. `connect()` is a coroutine."""

    async def work(me):
        connection = await connect()
        for one in chosen(me):
            try:
                await asyncio.wait_for(one(connection, me), 30)
            except Exception:
                failed(one.__name__, me)
                await connection.close()
                connection = await connect()
        await connection.close()

    async def main():
        await asyncio.gather(*(work(me) for me in range(WORKERS)))

    asyncio.run(main())
    report()
