"""The load of the whole-* cases: Locust with the project's own locustfile, and what is watched while it runs.

In: a side's URL, the number of users, how long. Out: Locust's summary (what its users saw), and of the side its CPU, memory
and processes and the database connections it held. Locust is a child process; the watching is one thread of ours.
"""
from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

from .case import SampleFailed
from .machine import REPOSITORY, end, pinned, spawn, tail, wait_until

LOCUST = REPOSITORY / ".cache/loadtest/bin/locust"
LOCUSTFILE = REPOSITORY / "loadtest/locustfile.py"
# Pause between two actions of a user, from,to: short, so that few users keep two cores busy. And its patience: less than a
# sample, so that who hangs is counted.
THINK_S = "0.1,0.5"
TIMEOUT_S = "8"
# What Locust says when its users are there; events of a sample happen after it.
SPAWNED = "All users spawned"
SPAWN_SECONDS = 30
# To end its users and write the summary.
END_SECONDS = 20
# How long it loads is ours to say, by a signal: an event may take longer than thought. This is for when we are gone.
LONGEST_SECONDS = 120
WATCH_SECONDS = 0.1
MEMORY_SECONDS = 1.0
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"


@dataclasses.dataclass(frozen=True)
class Seen:
    """What Locust's users saw. `rps` and percentiles (milliseconds) are of ordinary requests; `errors` and their share (per
    cent of all that was tried) of requests, WebSockets and streams alike; the stall is the longest time, in seconds, in
    which no request succeeded. None: there was nothing to measure."""

    requests: int
    rps: float
    p50: float | None
    p95: float | None
    p99: float | None
    stall: float | None
    errors: int
    error_share: float
    errors_by_kind: dict[str, int]


def parse_summary(text: str) -> Seen:
    """What the locustfile leaves at LOADTEST_SUMMARY. SampleFailed when it is cut off or nothing was asked."""
    try:
        said = json.loads(text)
        kinds = said["errors_by_kind"]
        seen = Seen(
            requests=said["requests"],
            rps=said["rps"],
            p50=said["p50"],
            p95=said["p95"],
            p99=said["p99"],
            stall=said["longest_stall_s"],
            errors=sum(kinds.values()),
            error_share=100 * said["error_share"],
            errors_by_kind=kinds,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SampleFailed(f"Locust's summary cannot be read: {error!r} in {text[:200]!r}") from error
    if not seen.requests:
        raise SampleFailed("Locust made no request")
    return seen


def command(url: str, users: int) -> list[str]:
    """Locust without its page; all users come within the first second."""
    return [str(LOCUST), "-f", str(LOCUSTFILE), "--host", url, "--headless", "--only-summary",
            "-u", str(users), "-r", str(users), "-t", f"{LONGEST_SECONDS}s"]


class Locust:
    """One run; `with` starts it and returns when its users are there; `finish` ends it and returns what they saw.

    `sticky`: a WebSocket user that meets another replica than before is an error. Not where replicas go away.
    """

    def __init__(self, url: str, users: int, folder: Path, sticky: bool = True):
        self.argv = command(url, users)
        self.env = {
            "LOADTEST_THINK_S": THINK_S, "LOADTEST_TIMEOUT_S": TIMEOUT_S, "LOADTEST_STICKY": str(int(sticky)),
        }
        self.log, self.summary = folder / "locust.log", folder / "locust.json"

    def __enter__(self):
        if not LOCUST.exists():
            raise RuntimeError(f"{LOCUST} is missing: scripts/setup --loadtest")
        for left in (self.log, self.summary):
            left.unlink(missing_ok=True)
        # What else the environment says of load tests is meant for who tests a deployment.
        rest = {name: value for name, value in os.environ.items() if not name.startswith(("LOADTEST_", "DATABASE_URL"))}
        env = rest | self.env | {"LOADTEST_SUMMARY": str(self.summary)}
        self.process = spawn(pinned(self.argv, "both"), log=self.log, env=env, cwd=REPOSITORY)
        try:
            wait_until(lambda: SPAWNED in self.log.read_text(), SPAWN_SECONDS, "locust", self.process, self.log)
        except BaseException:
            end(self.process)
            raise
        self.began = time.monotonic()
        return self

    def __exit__(self, *_):
        end(self.process)

    def finish(self, seconds: float, tail_seconds: float = 0) -> Seen:
        """Ends the load when it has lasted `seconds`, and `tail_seconds` from now at least."""
        last = max(self.began + seconds, time.monotonic() + tail_seconds)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.0, last - time.monotonic()))
            raise SampleFailed(f"Locust ended early:\n{tail(self.log)}")
        # It writes its summary first and takes its leave from its users then, which is not waited for. Nor is its exit code
        # asked, which says whether it liked what it saw.
        self.process.send_signal(signal.SIGTERM)
        wait_until(lambda: whole(self.summary), END_SECONDS, "Locust's summary", self.process, self.log)
        return parse_summary(self.summary.read_text())


def whole(path: Path) -> bool:
    """Whether a JSON file is there to its end."""
    try:
        json.loads(path.read_text())
        return True
    except ValueError:
        return False


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
        import psycopg  # here, so that the rest is tested where only the standard library is

        next_memory = 0.0
        while not self.stopped.is_set():
            # PostgreSQL may be restarting: then there is nothing to count, and a new connection to make.
            with contextlib.suppress(psycopg.Error), self.connect(psycopg) as connection:
                while not self.stopped.wait(WATCH_SECONDS):
                    now = connection.execute(SESSIONS, [self.postgres["user"]]).fetchone()[0]
                    self.connections = max(self.connections, now)
                    if time.monotonic() >= next_memory:
                        next_memory = time.monotonic() + MEMORY_SECONDS
                        self.pss = max(self.pss, self.side.pss())
                        self.processes = max(self.processes, self.side.processes())
            self.stopped.wait(WATCH_SECONDS)

    def connect(self, psycopg):
        """Past the pool, over the socket, where superusers always find a place."""
        return psycopg.connect(host=self.postgres["socket_dir"], port=self.postgres["port"], dbname="postgres",
                               user=self.postgres["superuser"], autocommit=True, connect_timeout=2)
