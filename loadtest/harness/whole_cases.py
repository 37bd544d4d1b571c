"""The cases of a whole deployment: a mix of Django's work as it is, and the same while something goes wrong or is changed.

An event begins one second after all users are there, and the load goes on for a while after it is over. In these cases
errors are the figure, so a sample that saw some counts; only the undisturbed mix is refused when it did.
"""
from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from .case import P50, P99, PSS, RATE, US, Case, Figure, SampleFailed
from .whole_load import Locust, Seen, Watch
from .whole_stack import THEM, Side, keep_logs, postgres, side, tell

CPU = Figure("cpu", "µs CPU/request of front+pool", "lower")
P95 = Figure("p95", "ms", "lower")
CONNECTIONS = Figure("connections", "database connections at most", "lower")
PROCESSES = Figure("processes", "processes of front+pool", "lower")
ERRORS = Figure("errors", "errors", "lower")
ERROR_SHARE = Figure("error_share", "% of all that was tried", "lower")
STALL = Figure("stall", "s longest stall", "lower")

USERS = 80
# Of a sample, in units of --seconds (1.4 s): percentiles want thousands of requests, an event takes its time.
MIX_UNITS = 6
EVENT_UNITS = 4
WARM_UP_SECONDS = 2.0
BEFORE_EVENT_SECONDS = 1.0
# The least that is looked at after an event: a late error, a replica that does not come back.
AFTER_EVENT_SECONDS = 3.0
VICTIM = 0
# A supervisor sees a death and starts the process again.
DEAD_SECONDS = 2.0
# Between two replicas of a rolling restart: as a deployment waits for the one to be in use before it takes the next.
SETTLE_SECONDS = 1.5
RELOADS = 6
RELOAD_SECONDS = 1.0
DOWN_SECONDS = 2.0


class Whole(Case):
    """Both sides at once beside one PostgreSQL, each with its own replicas; only one is loaded at a time."""

    group = "whole"
    programs = [US, THEM]
    units = MIX_UNITS
    sticky = True

    def open(self, bench):
        self.stack = bench.enter(postgres())
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=bench.logs))

    def start(self, bench, program: str):
        return side(bench, program, self.stack)

    def warm_up(self, bench, program: str, running: Side):
        """Opens connections everywhere and has Django load what it loads late."""
        with Locust(running.url, USERS, self.folder) as locust:
            locust.finish(WARM_UP_SECONDS)

    def measure(self, bench, program: str, running: Side) -> dict:
        cpu = running.cpu()
        with Watch(self.stack.postgres, running) as watch:
            with Locust(running.url, USERS, self.folder, self.sticky) as locust:
                time.sleep(BEFORE_EVENT_SECONDS)
                self.event(running)
                seen = locust.finish(self.units * bench.seconds, AFTER_EVENT_SECONDS)
        if folder := os.environ.get("BENCH_KEEP_LOGS"):
            keep_logs(running, Path(folder) / self.name)
        if seen.errors:
            bench.say(f"    {program}: {seen.errors_by_kind}")
        sample = self.sample(seen, watch, running.cpu() - cpu)
        # Kept with the raw numbers: which errors they were.
        return sample | {"requests": seen.requests, "errors_by_kind": seen.errors_by_kind}

    def event(self, running: Side):
        """What happens during the load; nothing."""

    def sample(self, seen: Seen, watch: Watch, cpu: float) -> dict:
        raise NotImplementedError


class Mix(Whole):
    """Nothing happens but the load."""

    name = "whole-mix"
    title = f"Django behind front and pool, {USERS} Locust users: pages, writes, WebSockets, streams"
    figures = [RATE, P50, P95, P99, CPU, PSS, CONNECTIONS, PROCESSES, ERRORS]

    def sample(self, seen: Seen, watch: Watch, cpu: float) -> dict:
        if seen.errors:
            raise SampleFailed(f"{seen.errors} errors with {seen.requests} requests: {seen.errors_by_kind}")
        return {
            "rate": seen.rps,
            "p50": seen.p50,
            "p95": seen.p95,
            "p99": seen.p99,
            "cpu": cpu / seen.requests * 1e6,
            "pss": watch.pss / 2**20,
            "connections": watch.connections,
            "processes": watch.processes,
            "errors": seen.errors,
        }


class Event(Whole):
    """Something happens under load: what did the users notice?"""

    figures = [ERRORS, ERROR_SHARE, STALL, P99, RATE, CONNECTIONS, PROCESSES]
    units = EVENT_UNITS

    def sample(self, seen: Seen, watch: Watch, cpu: float) -> dict:
        return {
            "errors": seen.errors,
            "error_share": seen.error_share,
            "stall": seen.stall,
            "p99": seen.p99,
            "rate": seen.rps,
            "connections": watch.connections,
            "processes": watch.processes,
        }


class KillReplica(Event):
    name = "whole-kill-replica"
    title = f"the same while one replica of three dies by SIGKILL and is started again after {DEAD_SECONDS:.0f} s"
    sticky = False

    def event(self, running: Side):
        victim = running.replicas[VICTIM]
        tell(self.stack, "kill", replica=victim, signal="KILL")
        time.sleep(DEAD_SECONDS)
        tell(self.stack, "start", replica=victim)


class RollingRestart(Event):
    name = "whole-rolling-restart"
    title = "the same while the replicas are restarted one by one (SIGTERM, its end, start)"
    sticky = False

    def event(self, running: Side):
        for turn, replica in enumerate(running.replicas):
            if turn:
                time.sleep(SETTLE_SECONDS)
            tell(self.stack, "kill", replica=replica, signal="TERM")
            tell(self.stack, "start", replica=replica)


class Reload(Event):
    name = "whole-reload"
    title = f"the same while front and pool read a changed configuration {RELOADS} times"

    def event(self, running: Side):
        for _ in range(RELOADS):
            running.reload()
            time.sleep(RELOAD_SECONDS)


class RestartPostgres(Event):
    name = "whole-restart-postgres"
    title = "the same while PostgreSQL restarts (fast)"

    def event(self, running: Side):
        tell(self.stack, "restart_postgres", mode="fast")


class PostgresAway(Event):
    name = "whole-postgres-away"
    title = f"the same while PostgreSQL is away for {DOWN_SECONDS:.0f} s: stopped (fast) and started"

    def event(self, running: Side):
        tell(self.stack, "stop_postgres", mode="fast")
        time.sleep(DOWN_SECONDS)
        tell(self.stack, "start_postgres")


CASES: list[Case] = [Mix(), KillReplica(), RollingRestart(), Reload(), RestartPostgres(), PostgresAway()]
