"""Clients work through the pool while PostgreSQL restarts: half in transactions, half between them.

usage: restart.py POOL_DSN CLIENTS SECONDS; prints one JSON object.
"""

import json
import sys
import threading
import time

import psycopg

dsn, clients, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
end = time.monotonic() + seconds
lock = threading.Lock()
seen = {"good": 0, "after": 0, "wrong": 0, "open_failed": 0, "idle_clients_disturbed": 0, "longest_stall": 0.0, "errors": []}
failed_at = [0.0]


def worker(number: int) -> None:
    """Transactions of two statements; every value is this client's own. Reconnects after a failure."""
    connection, last_good = None, time.monotonic()
    while time.monotonic() < end:
        in_transaction = False
        try:
            if connection is None or connection.closed:
                connection = psycopg.connect(dsn, autocommit=True, connect_timeout=20)
            with connection.transaction():
                in_transaction = True
                first = connection.execute("SELECT %s::int", (number,)).fetchone()[0]
                second = connection.execute("SELECT %s::int * 2, pg_sleep(0.01)", (number,)).fetchone()[0]
            right = (first, second) == (number, number * 2)
            with lock:
                seen["good" if right else "wrong"] += 1
                seen["longest_stall"] = max(seen["longest_stall"], time.monotonic() - last_good)
                if failed_at[0]:
                    seen["after"] += 1
            last_good = time.monotonic()
        except psycopg.Error as error:
            with lock:
                seen["open_failed"] += 1
                seen["errors"] = (seen["errors"] + [f"{'in' if in_transaction else 'out'}: {error}"])[:8]
                failed_at[0] = failed_at[0] or time.monotonic()
            if connection is not None:
                connection.close()
            connection = None


def idler(number: int) -> None:
    """Connected all along, idle while PostgreSQL goes away; asks once when it is back and must be answered."""
    with psycopg.connect(dsn, autocommit=True, connect_timeout=20) as connection:
        try:
            assert connection.execute("SELECT %s::int", (number,)).fetchone() == (number,)
            time.sleep(max(0.0, end - time.monotonic() - 2))
            assert connection.execute("SELECT %s::int", (number,)).fetchone() == (number,)
        except (psycopg.Error, AssertionError) as error:
            with lock:
                seen["idle_clients_disturbed"] += 1
                seen["errors"] = (seen["errors"] + [f"idle: {error}"])[-8:]


threads = [threading.Thread(target=worker, args=(n,)) for n in range(clients)]
threads += [threading.Thread(target=idler, args=(1000 + n,)) for n in range(10)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(seen))
