"""Clients in short transactions while the pool is told to leave: none is cut in one, each is told why it must go.

usage: leaving.py POOL_DSN CLIENTS; ends when all are gone; prints one JSON object.
"""

import json
import sys
import threading
import time

import psycopg

dsn, clients = sys.argv[1], int(sys.argv[2])
end = time.monotonic() + 30
lock = threading.Lock()
seen = {"good": 0, "told": 0, "cut_in_transaction": 0, "errors": []}


def worker(number: int) -> None:
    connection = psycopg.connect(dsn, autocommit=True)
    # What arrives while libpq awaits nothing it hands on as a notice, then it sees the socket's end.
    told = []
    connection.add_notice_handler(lambda diagnostic: told.append(diagnostic.sqlstate))
    begun = False
    try:
        while time.monotonic() < end:
            with connection.transaction():
                connection.execute("SELECT %s::int", (number,))
                begun = True
                connection.execute("SELECT pg_sleep(0.02)")
            begun = False
            with lock:
                seen["good"] += 1
    except psycopg.Error as error:
        with lock:
            seen["cut_in_transaction"] += begun
            seen["told"] += error.sqlstate == "57P01" or "57P01" in told
            seen["errors"] = (seen["errors"] + [f"{begun} {error.sqlstate} {told} {error}"])[:6]


threads = [threading.Thread(target=worker, args=(n,)) for n in range(clients)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(seen))
