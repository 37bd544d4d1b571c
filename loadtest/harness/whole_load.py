"""The load of the whole-* cases: Locust with the project's own locustfile, and what is watched while it runs.

In: a side's URL, the number of users, how long. Out: Locust's summary (what its users saw), and of the side its CPU, memory
and processes and the database connections it held. Locust is a child process; the watching is one thread of ours.
"""
from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import threading
import time
from pathlib import Path

import psycopg

from .case import SampleFailed
from .machine import REPOSITORY, end, pinned, spawn, tail, wait_until

LOCUST = REPOSITORY / ".cache/loadtest/bin/locust"
LOCUSTFILE = REPOSITORY / "loadtest/locustfile.py"
# What Locust says when its users are there; events of a sample happen after it.
SPAWNED = "All users spawned"
SPAWN_SECONDS = 30
# Beyond the load itself: its start, the last answers, the summary.
END_SECONDS = 30
WATCH_SECONDS = 0.1
MEMORY_SECONDS = 1.0
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"


@dataclasses.dataclass(frozen=True)
class Seen:
    """What Locust's users saw. Times in milliseconds, the stall in seconds."""

    requests: int
    failures: int
    rps: float
    p50: float
    p95: float
    p99: float
    longest_stall_s: float
    errors_by_kind: dict[str, int]

    @property
    def error_share(self) -> float:
        """Per cent of all requests."""
        return 100 * self.failures / self.requests if self.requests else 0.0


def parse_summary(text: str) -> Seen:
    """What the locustfile leaves at LOADTEST_SUMMARY. SampleFailed when it is cut off or nothing was asked."""
    try:
        fields = json.loads(text)
        seen = Seen(**{field.name: fields[field.name] for field in dataclasses.fields(Seen)})
    except (ValueError, KeyError, TypeError) as error:
        raise SampleFailed(f"Locust's summary cannot be read: {error!r} in {text[:200]!r}") from error
    if not seen.requests:
        raise SampleFailed("Locust made no request")
    return seen


def command(url: str, users: int, seconds: float) -> list[str]:
    """Locust without its page; all users come within the first second, as after a failover of the balancer in front."""
    return [str(LOCUST), "-f", str(LOCUSTFILE), "--host", url, "--headless", "--only-summary",
            "-u", str(users), "-r", str(users), "-t", f"{seconds:.0f}s"]


class Locust:
    """One run; `with` starts it and returns when its users are there. `finish` waits for its end and returns what it saw."""

    def __init__(self, url: str, users: int, seconds: float, folder: Path):
        self.argv = command(url, users, seconds)
        self.seconds = seconds
        self.log, self.summary = folder / "locust.log", folder / "locust.json"

    def __enter__(self):
        if not LOCUST.exists():
            raise RuntimeError(f"{LOCUST} is missing: scripts/setup --loadtest")
        for left in (self.log, self.summary):
            left.unlink(missing_ok=True)
        # The limits are for who tests a deployment; here errors are what is measured.
        env = os.environ | {"LOADTEST_SUMMARY": str(self.summary)}
        self.process = spawn(pinned(self.argv, "both"), log=self.log, env=env, cwd=REPOSITORY)
        try:
            wait_until(lambda: SPAWNED in self.log.read_text(), SPAWN_SECONDS, "locust", self.process, self.log)
        except BaseException:
            end(self.process)
            raise
        return self

    def __exit__(self, *_):
        end(self.process)

    def loads(self) -> bool:
        return self.process.poll() is None

    def finish(self) -> Seen:
        """Its exit code says whether it liked what it saw; a summary says that it ran to its end."""
        with contextlib.suppress(Exception):
            self.process.wait(self.seconds + END_SECONDS)
        if self.loads() or not self.summary.exists():
            raise SampleFailed(f"Locust left no summary:\n{tail(self.log)}")
        return parse_summary(self.summary.read_text())


class Watch:
    """Looks at the database and at a side from the moment it is made until `stop`; keeps the most it saw."""

    def __init__(self, postgres: dict, side):
        self.postgres, self.side = postgres, side
        self.connections = self.processes = 0
        self.pss = 0.0
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()

    def look(self):
        next_memory = 0.0
        while not self.stopped.is_set():
            # PostgreSQL may be restarting: then there is nothing to count, and a new connection to make.
            with contextlib.suppress(psycopg.Error), self.connect() as connection:
                while not self.stopped.wait(WATCH_SECONDS):
                    now = connection.execute(SESSIONS, [self.postgres["user"]]).fetchone()[0]
                    self.connections = max(self.connections, now)
                    if time.monotonic() >= next_memory:
                        next_memory = time.monotonic() + MEMORY_SECONDS
                        self.pss = max(self.pss, self.side.pss())
                        self.processes = max(self.processes, self.side.processes())
            self.stopped.wait(WATCH_SECONDS)

    def connect(self):
        """Past the pool, over the socket, where superusers always find a place."""
        return psycopg.connect(host=self.postgres["socket_dir"], port=self.postgres["port"], dbname="postgres",
                               user=self.postgres["superuser"], autocommit=True, connect_timeout=2)
