"""Runs pgbench and reads what it says: the summary, and its log of every transaction.

The log is what percentiles, fairness and the CPU per transaction are made of. It costs pgbench less than a microsecond per
transaction, on its own core and the same for every pooler. CPU is read while pgbench runs and set against the transactions
that ended between the first and the last reading within the run proper: 500 logins by SCRAM are not counted as transactions.

pgbench starts the clock of its -T before the clients log in, so that 500 logins could take all of the time. Here it is told
to run for an hour, and gets SIGALRM, by which its own clock would end it, so many seconds after the last login.
"""
from __future__ import annotations

import bisect
import collections
import contextlib
import dataclasses
import math
import os
import re
import signal
import subprocess
import time
from pathlib import Path

from .case import SampleFailed
from .machine import CORES, cpu_seconds, end, in_root, memory, pinned, root_folder, spawn, tail
from .pg_programs import sockets_to
from .pg_server import BIN

# How often CPU is read; a reading costs some 50 µs of the generator's core.
READ_SECONDS = 0.05
# One reading of memory for so many of CPU: it walks the page tables.
MEMORY_EVERY = 10
# Beyond the time asked for: starting, the last transactions; and each client's login.
GRACE_SECONDS = 30
LOGIN_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Summary:
    """What pgbench prints at its end. Latencies in ms. `connecting` is the mean time of a login, only with --connect; `lag`
    the mean lateness of a start, only with --rate."""

    transactions: int
    failed: int
    tps: float
    latency: float
    connecting: float | None
    lag: float | None


@dataclasses.dataclass(frozen=True)
class Transaction:
    """One line of the log: who, when it ended (seconds since 1970), how long it took (µs; with --rate from when it was due)."""

    client: int
    ended: float
    took: int


@dataclasses.dataclass
class Reading:
    """The pooler's CPU seconds so far, at a moment (seconds since 1970)."""

    at: float
    cpu: float


@dataclasses.dataclass
class Run:
    """A run that had no errors. `readings` and `rss` (bytes, the most seen) are empty and None without a pooler."""

    summary: Summary
    transactions: list[Transaction]
    readings: list[Reading]
    rss: int | None
    clients: int

    def percentile(self, share: float) -> float:
        """The latency in ms that `share` of the transactions did not exceed."""
        return percentile(sorted(one.took for one in self.transactions), share) / 1000

    def rate(self) -> float:
        """Transactions per second of the run proper."""
        return rate(self.transactions)

    def cpu_per_transaction(self) -> float | None:
        """µs of the pooler's CPU time, or None without a pooler."""
        return cpu_per_transaction(self.transactions, self.readings)

    def served(self) -> list[int]:
        """Transactions per client, all of them, least first."""
        counts = collections.Counter(one.client for one in self.transactions)
        return sorted(counts.get(client, 0) for client in range(self.clients))


def run(
    bench, pooler, *, seconds: float | None = None, count: int | None = None, clients: int, threads: int = 1,
    mode: str = "simple", builtin: str = "select-only", script: str | None = None, rate: float | None = None,
    connect: bool = False, place: str = "load",
) -> Run:
    """One pgbench against `pooler`, for `seconds` or for `count` transactions of each client; SampleFailed after
    any error.

    `builtin` is one of pgbench's own scripts, `script` the text of another instead; `connect`: a login for each transaction.
    """
    with root_folder("pgbench") as (outside, inside):
        argv = [BIN / "pgbench", "-n", "-M", mode, "-c", clients, "-j", threads, "-h", pooler.host, "-p", pooler.port]
        argv += ["-U", pooler.user, "--log", f"--log-prefix={inside}/log"]
        argv += ["-T", 3600] if seconds else ["-t", count]
        argv += ["-R", rate] if rate else []
        argv += ["-C"] if connect else []
        if script is not None:
            (outside / "script.sql").write_text(script)
            argv += ["-f", inside / "script.sql"]
        else:
            argv += ["-b", builtin]
        output = outside / "output"
        env = {**os.environ, "PGPASSWORD": pooler.password, "PGSSLMODE": pooler.sslmode}
        process = spawn(pinned(in_root([*argv, pooler.database]), place), log=output, env=env)
        try:
            deadline = time.monotonic() + (seconds or 0) + GRACE_SECONDS + clients * LOGIN_SECONDS
            # With a login for each transaction the run begins with the first login.
            logging_in = lambda: not connect and len(sockets_to(pooler.port, process.pid)) < clients  # noqa: E731
            readings, rss = watch(process, pooler.pid, seconds, logging_in, deadline)
        finally:
            end(process)
        said = output.read_text(errors="replace")
        check(process.returncode, said, tail(pooler.log))
        logs = [path.read_text() for path in sorted(outside.glob("log.*"))]
    transactions = [one for text in logs for one in parse_log(text)]
    summary = parse_summary(said)
    if not transactions or summary.failed:
        raise SampleFailed(f"pgbench: {len(transactions)} transactions, {summary.failed} failed")
    return Run(summary, transactions, readings, rss, clients)


def watch(process, pid: int | None, seconds: float | None, logging_in, deadline: float) -> tuple[list[Reading], int | None]:
    """Reads CPU and memory of the tree of `pid` until the process ends, and ends its run `seconds` after the logins."""
    readings, rss = [], None
    finish = None
    while process.poll() is None:
        now = time.monotonic()
        if now > deadline:
            raise SampleFailed("pgbench did not end")
        if seconds and finish is None and not logging_in():
            finish = now + seconds
        if finish and now >= finish:
            process.send_signal(signal.SIGALRM)
            finish = math.inf
        if pid is not None:
            readings.append(Reading(time.time(), cpu_seconds(pid)))
            if len(readings) % MEMORY_EVERY == 0:
                rss = max(rss or 0, memory(pid)[0])
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(READ_SECONDS if finish in (None, math.inf) else min(READ_SECONDS, max(0.001, finish - now)))
    return readings, rss


def check(code: int, said: str, log: str) -> None:
    """Raises SampleFailed unless all clients came through to the end."""
    wrong = [line for line in said.splitlines() if re.search(r"aborted|error:|FATAL|ERROR", line)]
    if code or wrong:
        why = "; ".join(wrong[:3] or said.splitlines()[-3:])
        raise SampleFailed(f"pgbench ended with code {code}: {why}\n{log[-600:]}")


def parse_summary(said: str) -> Summary:
    """What pgbench 18 printed, as a Summary; SampleFailed when it is not all there."""

    def number(pattern: str) -> float | None:
        found = re.search(pattern, said, re.MULTILINE)
        return float(found.group(1)) if found else None

    transactions = number(r"^number of transactions actually processed: (\d+)")
    tps = number(r"^tps = ([\d.]+)")
    latency = number(r"^latency average = ([\d.]+) ms")
    if transactions is None or tps is None or latency is None:
        raise SampleFailed(f"pgbench printed no result: {said.strip()[-300:]}")
    return Summary(
        transactions=int(transactions),
        failed=int(number(r"^number of failed transactions: (\d+)") or 0),
        tps=tps,
        latency=latency,
        connecting=number(r"^average connection time = ([\d.]+) ms"),
        lag=number(r"^rate limit schedule lag: avg ([\d.]+) "),
    )


def parse_log(text: str) -> list[Transaction]:
    """The lines of `pgbench --log`: client, number, µs, script, seconds and µs of the end. A skipped one is an error."""
    found = []
    for line in text.splitlines():
        client, _, took, _, second, micro, *_ = line.split(" ")
        if not took.isdigit():
            raise SampleFailed(f"pgbench: a transaction {took}")  # "skipped" or "failed"
        found.append(Transaction(int(client), int(second) + int(micro) / 1e6, int(took)))
    return found


def percentile(ordered: list[int], share: float) -> int:
    """The smallest value that `share` of the (sorted, not empty) values do not exceed: the nearest rank."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def began(transactions: list[Transaction]) -> float:
    """When the first one began, or was due."""
    return min(one.ended - one.took / 1e6 for one in transactions)


def rate(transactions: list[Transaction]) -> float:
    """Transactions per second from the first one's begin to the last one's end."""
    return len(transactions) / (max(one.ended for one in transactions) - began(transactions))


def cpu_per_transaction(transactions: list[Transaction], readings: list[Reading]) -> float | None:
    """µs of CPU over the transactions that ended between the first and the last reading taken while transactions ran.

    A login before the run proper or the clients' leaving after it is outside. None when there are no two such readings.
    """
    ends = sorted(one.ended for one in transactions)
    first_began = began(transactions)
    within = [reading for reading in readings if first_began <= reading.at <= ends[-1]]
    if len(within) < 2:
        return None
    first, last = within[0], within[-1]
    count = bisect.bisect_right(ends, last.at) - bisect.bisect_right(ends, first.at)
    return (last.cpu - first.cpu) * 1e6 / count if count else None
