"""Memory of idle logged-in database clients: what thousands of Django threads that ask nothing cost the pooler.

A program lives for one sample, so that no sample is measured on what an earlier one left behind. The first hundred clients come
before the first look at its memory: the pool's server connections, its threads and the allocator's first pages are what it
takes to run at all; what further clients add is divided by their number. An allocator that takes huge pages grows by 2 MiB at
a time, which at 1,000 clients is more than they need (0 or 2.3 KiB each): what the whole takes is therefore the headline.
"""
from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

from . import pg_programs, pg_server
from .case import PSS, RSS, Case, Figure, SampleFailed
from .machine import Cpu, memory, pinned

HOLDER = Path(__file__).with_name("pg_hold.py")
FIRST = 100
POOL_SIZE = 20
MAX_CLIENTS = 12_000
# A hundred times slower than any of them is: a limit, not a measure.
LOGINS_SECONDS = 120
# After the last answer, before memory is read: what is given back at once is given back.
SETTLE_SECONDS = 0.5
MIB = 2**20


class Holder:
    """pg_hold.py as a child bound to the load's core. It ends when its stdin closes, so also when this process dies."""

    def __init__(self, pooler, count: int, *, first: int = FIRST, at_once: int | None = None, meek: bool = False):
        """`meek`: it gets what the core's others leave of it (sched(7), SCHED_IDLE)."""
        argv = [sys.executable, HOLDER, "--port", pooler.port, "--user", pooler.user, "--database", pooler.database]
        argv += ["--tls"] if pooler.tls else []
        argv += ["--at-once", at_once] if at_once else []
        self.process = subprocess.Popen(
            pinned([*(["chrt", "--idle", "0"] if meek else []), *argv, "--count", count, "--first", first], "load"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env={**os.environ, "PGPASSWORD": pooler.password},
        )

    def said(self, event: str) -> dict:
        """The holder's next line, which has to be `event`. It writes whole lines, so one readable byte means one line."""
        if not select.select([self.process.stdout], [], [], LOGINS_SECONDS)[0]:
            raise SampleFailed(f"the holder said nothing for {LOGINS_SECONDS} s instead of {event!r}")
        line = self.process.stdout.readline()
        said = json.loads(line) if line else {}
        if said.get("event") != event:
            raise SampleFailed(f"the holder ended: {said}")
        return said

    def expect(self, event: str, clients: int) -> dict:
        """The same, with so many clients logged in and nothing gone wrong."""
        said = self.said(event)
        if said["error"] or said["clients"] != clients:
            raise SampleFailed(f"{said['clients']} of {clients} clients are in: {said['error']}")
        return said

    def go_on(self):
        self.process.stdin.write(b"\n")

    def close(self) -> None:
        """Lets all clients go; raises if the program had dropped one of them meanwhile."""
        self.process.stdin.close()
        lost = self.said("end")["lost"]
        if lost:
            raise SampleFailed(f"{lost} idle clients were disconnected")

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()


@contextlib.contextmanager
def holder(pooler, count: int, **how):
    found = Holder(pooler, count, **how)
    try:
        yield found
    finally:
        found.end()


class Idle(Case):
    """`count` clients of one program, each logged in by SCRAM and idle after one query."""

    group = "pg"
    figures: ClassVar[list[Figure]] = [
        RSS,
        PSS,
        Figure("rss_client", "KiB RSS/client", "lower"),
        Figure("pss_client", "KiB PSS/client", "lower"),
        Figure("cpu", "µs CPU/login and query", "lower"),
        # As fast as one Python client can ask, on a core it shares with PostgreSQL: seen, not judged.
        Figure("logins", "logins/s", None),
    ]
    programs: ClassVar[list[str]] = ["bookend", "pgbouncer", "odyssey"]
    fresh = True
    plot = "memory"

    def __init__(self, count: int):
        self.count = count
        self.x = count
        self.name = f"pg-idle-{count}"
        self.title = f"{count:,} idle clients, logged in by SCRAM, one query each; pool of {POOL_SIZE}"

    def open(self, bench):
        self.server = bench.enter(pg_server.server(bench))

    def start(self, bench, program):
        return pg_programs.start(bench, program, self.server, pool_size=POOL_SIZE, max_clients=MAX_CLIENTS)

    def measure(self, bench, program, running):
        with holder(running, self.count) as clients:
            clients.expect("first", FIRST)
            time.sleep(SETTLE_SECONDS)
            rss_before, pss_before = memory(running.pid)
            cpu = Cpu(running.pid)
            clients.go_on()
            said = clients.expect("all", self.count)
            used = cpu.used()
            time.sleep(SETTLE_SECONDS)
            rss, pss = memory(running.pid)
            clients.close()
        new = self.count - FIRST
        return {
            "rss_client": (rss - rss_before) / new / 1024,
            "pss_client": (pss - pss_before) / new / 1024,
            "rss": rss / MIB,
            "pss": pss / MIB,
            "cpu": used / new * 1e6,
            "logins": new / said["seconds"],
        }


CASES: list[Case] = [Idle(1_000), Idle(5_000), Idle(10_000)]
