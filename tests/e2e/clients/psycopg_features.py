"""What Django's driver does on a connection, several clients taking turns on the same few servers."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import psycopg

dsn = sys.argv[1]
zones = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo"]


def one(number: int) -> None:
    zone = zones[number % len(zones)]
    with psycopg.connect(dsn, autocommit=True, options=f"-c statement_timeout={20000 + number}") as connection:
        connection.prepare_threshold = 1
        connection.execute(psycopg.sql.SQL("SET TIME ZONE {}").format(psycopg.sql.Literal(zone)))
        for turn in range(30):
            assert connection.execute("SHOW TimeZone").fetchone() == (zone,), "time zone of another client"
            assert connection.execute("SHOW statement_timeout").fetchone() in (
                (f"{20000 + number}ms",),
                (f"{(20000 + number) // 1000}s",),
            ), connection.execute("SHOW statement_timeout").fetchone()
            assert connection.execute("SELECT %s::int + 1", (number * 1000 + turn,)).fetchone() == (number * 1000 + turn + 1,)
        with connection.transaction():
            connection.execute("CREATE TEMP TABLE copied (n int, who int) ON COMMIT DROP")
            with connection.cursor().copy("COPY copied FROM STDIN") as copy:
                for n in range(2000):
                    copy.write_row((n, number))
            with connection.cursor().copy("COPY copied TO STDOUT") as copy:
                rows = list(copy.rows())
            assert len(rows) == 2000 and all(who == str(number) for _, who in rows)
        with connection.pipeline():
            cursors = [connection.execute("SELECT %s::int", (n,)) for n in range(20)]
            assert [cursor.fetchone()[0] for cursor in cursors] == list(range(20))
        try:
            connection.execute("SELECT 1/0")
        except psycopg.errors.DivisionByZero:
            pass
        assert connection.execute("SELECT 1").fetchone() == (1,)


with ThreadPoolExecutor(40) as executor:
    for done in [executor.submit(one, number) for number in range(40)]:
        done.result()
print(json.dumps({"ok": True}))
