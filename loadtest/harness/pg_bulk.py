"""Much data through the pool: results of 10 MB, COPY both ways, and the page of rows that a Django list view asks for.

The generator and PostgreSQL share a core and are busy before any pooler is, so the rate says how fast the whole is and the CPU
time per megabyte what the pooler costs. A megabyte is 10^6 bytes of what the query yields or the file holds; the protocol's own
bytes come on top, alike for all.
"""
from __future__ import annotations

import os
import subprocess
import time

from . import pg_programs
from .case import RSS, Case, Figure, SampleFailed
from .machine import Cpu, in_root, memory, pinned, root_folder
from .pg_cases import POOL_SIZE, Pgbench
from .pg_server import BIN

CPU_PER_MB = Figure("cpu", "ms CPU/MB", "lower")
MB_RATE = Figure("rate", "MB/s", "higher")
# What PgBouncer and Odyssey are told to read at once. With their defaults (4 KiB both) they need two to three times the CPU.
BUFFER = 64 * 1024
MIB = 2**20
# A transfer takes less than a second; one that takes so long hangs.
TRANSFER_SECONDS = 30

ROW_BYTES = 1_000
RESULT_ROWS = 10_000
COPY_ROWS = 50_000
COPY_MB = COPY_ROWS * ROW_BYTES / 1e6
# A line of a COPY in text format ends with a newline; a value of a result does not.
COPY_LINE = "x" * (ROW_BYTES - 1) + "\n"
ROWS = f"select repeat('x', {ROW_BYTES - 1}) from generate_series(1, {COPY_ROWS})"
RESULT = f"SELECT repeat('x', {ROW_BYTES}) FROM generate_series(1, {RESULT_ROWS});\n"
RESULT_MB = RESULT_ROWS * ROW_BYTES / 1e6

# As the sample project's /api/items/ asks for a page (deploy/arena/shop/rows.py): 50 rows joined with their category.
TABLES = """
create table page_category (id bigint primary key, name varchar(60) not null unique);
create table page_item (
    id bigint primary key, category_id bigint not null references page_category, name varchar(80) not null unique,
    price_cents integer not null, sold integer not null, created_at timestamptz not null
);
insert into page_category select n, 'category number ' || n from generate_series(1, 20) n;
insert into page_item select n, n % 20 + 1, 'an item of the shop, number ' || n, n * 7 % 10000, n % 13, now()
    from generate_series(1, 2000) n;
analyze page_category, page_item;
grant select on page_category, page_item to public;
"""
ITEM = '"page_item"."id", "page_item"."category_id", "page_item"."name", "page_item"."price_cents", "page_item"."sold"'
PAGE = f"""\\set first 50 * random(0, 9)
SELECT {ITEM}, "page_item"."created_at", "page_category"."id", "page_category"."name" FROM "page_item"
    INNER JOIN "page_category" ON ("page_item"."category_id" = "page_category"."id")
    ORDER BY "page_item"."id" ASC LIMIT 50 OFFSET :first;
"""
MANY = f'SELECT {ITEM}, "page_item"."created_at" FROM "page_item" ORDER BY "page_item"."id" ASC LIMIT 1000;\n'


class Bulk(Pgbench):
    """Pgbench with the buffers that suit it: PgBouncer and Odyssey read as much at once as they can be told to."""


    def start(self, bench, program):
        return pg_programs.start(bench, program, self.server, pool_size=POOL_SIZE, buffer=BUFFER)


class Pages(Bulk):
    """Small rows, many clients: cost per transaction."""

    def open(self, bench):
        super().open(bench)
        self.server.query(TABLES)


class LargeResult(Bulk):
    """Few clients, each of which takes all of a large result into memory."""

    figures = [CPU_PER_MB, MB_RATE, RSS]

    def warm_up(self, bench, program, running):
        self.run(bench, running, count=3, **self.asked)

    def made_of(self, run):
        made = super().made_of(run)
        cpu = made["cpu"]
        return {
            "cpu": None if cpu is None else cpu / 1e3 / RESULT_MB, "rate": made["rate"] * RESULT_MB, "rss": made["rss"],
        }


class Copy(Bulk):
    """One psql after the other, each of which logs in and copies 50 MB. `arguments` is what psql is given, with {file}."""

    figures = [CPU_PER_MB, MB_RATE, RSS]

    def __init__(self, name: str, title: str, arguments: list[str]):
        super().__init__(name, title)
        self.arguments = arguments

    def open(self, bench):
        super().open(bench)
        folder, inside = bench.enter(root_folder(self.name))
        (folder / "lines").write_text(COPY_LINE * COPY_ROWS)
        self.argv = [word.format(file=inside / "lines") for word in self.arguments]

    def warm_up(self, bench, program, running):
        self.transfer(running)

    def transfer(self, running):
        argv = [BIN / "psql", "-Xw", "-v", "ON_ERROR_STOP=1", "-h", running.host, "-p", running.port, "-U", running.user]
        done = subprocess.run(
            pinned(in_root([*argv, "-d", running.database, *self.argv]), "load"), capture_output=True, text=True,
            timeout=TRANSFER_SECONDS, env={**os.environ, "PGPASSWORD": running.password, "PGSSLMODE": running.sslmode},
        )
        if done.returncode or f"COPY {COPY_ROWS}\n" not in done.stdout:
            raise SampleFailed(f"psql: {done.stdout[-200:]}{done.stderr[-400:]}")

    def measure(self, bench, program, running):
        cpu = Cpu(running.pid)
        began = time.monotonic()
        megabytes = 0.0
        while time.monotonic() - began < bench.seconds:
            self.transfer(running)
            megabytes += COPY_MB
        took = time.monotonic() - began
        return {
            "cpu": cpu.used() * 1e3 / megabytes, "rate": megabytes / took, "rss": memory(running.pid)[0] / MIB,
        }


CASES: list[Case] = [
    Pages("pg-rows-50", "a Django list page, 50 rows joined, 32 clients", script=PAGE, clients=32),
    Pages("pg-rows-1000", "1,000 rows of 100 bytes, 32 clients", script=MANY, clients=32),
    LargeResult("pg-large-result", "results of 10 MB (10,000 rows of 1,000 bytes), 4 clients", script=RESULT, clients=4),
    Copy("pg-copy-out", "COPY of 50 MB out, one psql", ["-c", f"\\copy ({ROWS}) to /dev/null"]),
    # A table made in the same transaction: PostgreSQL needs no write-ahead log for it, and keeps nothing.
    Copy("pg-copy-in", "COPY of 50 MB in, one psql",
         ["-1", "-c", "create temp table sink (line text) on commit drop", "-c", "\\copy sink from '{file}'"]),
]
