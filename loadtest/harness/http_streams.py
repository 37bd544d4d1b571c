"""Connections that stay: event streams, idle keep-alive connections, WebSockets.

What they cost is memory and, per event or message, CPU; requests per second say nothing here. Memory is what a proxy's
processes grew by between a first few connections (threads, buffers and the allocator's first pages are there then) and all
of them, divided by their number, and a program lives for one sample, since an allocator that keeps what it had gives a
second sample for nothing. What the kernel keeps for their sockets is in no figure.

The origin is one Python process (`stream_origin`), the holders another (`hold`), both on the load's core. Messages are k6's.
"""
from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from typing import ClassVar

from . import http_programs
from .case import PSS, RSS, Case, Figure, SampleFailed
from .holders import LOADTEST, Holding, holding, open_files, origin, settled, wait_for_closed
from .machine import REPOSITORY, Cpu, pinned

MIB = 2**20
# Connections that come before memory is first read: as many as are on their way at once later.
FIRST = 64
# Connections a proxy has beside those counted: kept ones to the origin, and what is not quite closed yet.
SPARE = 400
RSS_EACH = Figure("rss_each", "KiB RSS/connection", "lower")
PSS_EACH = Figure("pss_each", "KiB PSS/connection", "lower")


def capacity(connections: int) -> int:
    """What a program is told to make room for, so that it holds that many, clients and upstream together.

    nginx begins to close idle clients when a sixteenth of its worker_connections is left (ngx_drain_connections).
    """
    return (connections + SPARE) * 16 // 15


class Streams(Case):
    """A case on the origin of `stream_origin`, reached through each program."""

    group = "http"
    programs: ClassVar[list[str]] = http_programs.PROGRAMS
    interval = 0.2
    # That the proxy has to have at once, clients and upstream together.
    connections: int

    def open(self, bench):
        self.origin = bench.enter(origin(bench.logs, self.interval))

    def start(self, bench, program):
        return http_programs.start(
            bench, program, self.origin, websocket_upstream=self.origin, connections=capacity(self.connections)
        )


@contextlib.contextmanager
def grown(program, kind: str, count: int):
    """Yields (holding, figures) with `count` connections of a kind open through a program that was just started."""
    with holding(kind, program.port, FIRST):
        pass
    rss_before, pss_before = settled(program.pid)
    cpu = Cpu(program.pid)
    with holding(kind, program.port, count, FIRST) as held:
        used = cpu.used()
        rss, pss = settled(program.pid)
        yield held, {
            "pss_each": (pss - pss_before) / count / 1024,
            "rss_each": (rss - rss_before) / count / 1024,
            "pss": pss / MIB,
            "rss": rss / MIB,
            "cpu": used / count * 1e6,
            "opened": count / held.opened["seconds"],
        }


class Idle(Streams):
    """`count` connections that did one thing each and are only held since then.

    nginx sets some 400 bytes aside for each connection it may have when it starts; that is in its `rss`, not in `rss_each`.
    """

    figures: ClassVar[list[Figure]] = [
        # First, since pages that others map or let go of do not change it; a difference of PSS moves with its neighbours.
        RSS_EACH,
        # All of it; the one that is plotted over connections.
        PSS,
        RSS,
        PSS_EACH,
        Figure("cpu", "µs CPU/connection opened", "lower"),
        # As fast as one Python process can connect, on a core it shares with the origin: seen, not judged.
        Figure("opened", "connections/s", None),
    ]
    fresh = True
    plot = "memory"

    def __init__(self, kind: str, name: str, count: int, title: str):
        self.kind = kind
        self.x = count
        self.count = count
        self.connections = 2 * count if kind == "websockets" else count
        self.name = name
        self.title = title

    def measure(self, bench, program, running):
        with grown(running, self.kind, self.count) as (held, figures):
            held.report()  # fails when one is gone
        return figures


class ServerSentEvents(Streams):
    """Every reader reads one stream; every stream has an event per interval."""

    name = "http-sse-1000"
    count = 1_000
    connections = 2 * count
    title = "1,000 event streams, an event every 200 ms on each"
    figures: ClassVar[list[Figure]] = [
        Figure("cpu", "µs CPU/event", "lower"),
        Figure("p50", "ms from origin to reader", "lower"),
        Figure("p99", "ms from origin to reader", "lower"),
        Figure("rss_each", "KiB RSS/stream", "lower"),
        Figure("pss_each", "KiB PSS/stream", "lower"),
        Figure("events", "events/s", None),
    ]
    fresh = True

    def measure(self, bench, program, running):
        with grown(running, "streams", self.count) as (held, grew):
            check_events(held.report(), self.count, 0)
            cpu = Cpu(running.pid)
            time.sleep(bench.seconds)
            used = cpu.used()
            told = held.report()
        check_events(told, self.count, events_due(told["seconds"], self.interval))
        return {
            "cpu": used / told["events"] * 1e6,
            "p50": told["p50_ms"],
            "p99": told["p99_ms"],
            "pss_each": grew["pss_each"],
            "rss_each": grew["rss_each"],
            "events": told["events"] / told["seconds"],
        }


def events_due(seconds: float, interval: float) -> int:
    """Events below which a stream counts as stalled: half of the schedule, since the origin may be late on a busy core.

    An event that was lost on the way shows in the numbers, whenever it was.
    """
    return int(seconds / interval / 2)


def check_events(told: dict, streams: int, least: int):
    """Raises SampleFailed unless every stream delivered all it should have, in order."""
    if told["lost"]:
        raise SampleFailed(f"{told['lost']} events were lost, repeated or damaged")
    if told["streams"] != streams:
        raise SampleFailed(f"only {told['streams']} of {streams} streams delivered anything")
    if told["least"] < least:
        raise SampleFailed(f"a stream delivered {told['least']} events where {least} were due")


class Messages(Streams):
    """Echoes as fast as k6 and the origin manage on one core, so the judged figure is what one message costs the proxy."""

    name = "http-ws-messages"
    sockets = 64
    connections = 2 * sockets
    title = "64 WebSockets, each echoing 32 bytes as fast as the load's core allows (k6)"
    figures: ClassVar[list[Figure]] = [
        Figure("cpu", "µs CPU/message", "lower"),
        Figure("per_cpu", "messages/CPU second", "higher"),
        Figure("messages", "messages/s", None),
    ]

    def warm_up(self, bench, program, running):
        echo(running.port, self.sockets, min(1.0, bench.seconds))

    def measure(self, bench, program, running):
        cpu = Cpu(running.pid)
        told = echo(running.port, self.sockets, bench.seconds)
        used = cpu.used()
        messages = 2 * told["messages"]  # there and back
        return {"cpu": used / messages * 1e6, "per_cpu": messages / used, "messages": messages / told["seconds"]}


def k6() -> str:
    """The k6 that `scripts/setup --loadtest` put there, or one of the PATH."""
    ours = REPOSITORY / ".cache/loadtest/bin/k6"
    found = str(ours) if ours.exists() else shutil.which("k6")
    if not found:
        raise SampleFailed("there is no k6: run scripts/setup --loadtest")
    return found


def echo(port: int, sockets: int, seconds: float) -> dict:
    """Runs bench_websocket.js and returns what it says; raises SampleFailed when a message was lost or wrong."""
    argv = [k6(), "run", "--quiet", "--no-summary", "--no-usage-report", "--log-format", "raw"]
    argv += ["-e", f"PORT={port}", "-e", f"SOCKETS={sockets}", "-e", f"SECONDS={seconds}"]
    argv.append(LOADTEST / "k6/bench_websocket.js")
    try:
        run = subprocess.run(pinned(argv, "load"), capture_output=True, text=True, timeout=seconds + 20)
    except subprocess.TimeoutExpired:
        raise SampleFailed(f"k6 was not done {seconds + 20:.0f} s after it began") from None
    return echoed(run.stdout + run.stderr, sockets)


def echoed(output: str, sockets: int) -> dict:
    """The line of JSON in k6's output, checked."""
    lines = [line for line in output.splitlines() if line.startswith('{"sockets"')]
    if not lines:
        raise SampleFailed(f"k6 gave no result: {output.strip()[-300:]}")
    told = json.loads(lines[-1])
    if told["sockets"] != sockets or told["wrong"] or told["errors"] or not told["messages"]:
        raise SampleFailed(f"wanted {sockets} sockets without errors: {lines[-1]}")
    return told


class Storm(Streams):
    """What follows a restart: everyone connects again. Measured until the last one is closed."""

    name = "http-ws-storm"
    count = 2_000
    in_flight = 100
    connections = 2 * count
    title = "2,000 WebSocket handshakes, 100 at a time, all held, then all closed"
    figures: ClassVar[list[Figure]] = [
        Figure("cpu", "µs CPU/WebSocket opened and closed", "lower"),
        Figure("rate", "handshakes/s", "higher"),
        Figure("p50", "ms to the answer", "lower"),
        Figure("p99", "ms to the answer", "lower"),
    ]

    def warm_up(self, bench, program, running):
        self.storm(running, self.count // 4)

    def measure(self, bench, program, running):
        used, held = self.storm(running, self.count)
        return {
            "cpu": used / self.count * 1e6,
            "rate": self.count / held.opened["seconds"],
            "p50": held.opened["p50_ms"],
            "p99": held.opened["p99_ms"],
        }

    def storm(self, running, count: int) -> tuple[float, Holding]:
        files, cpu = open_files(running.pid), Cpu(running.pid)
        with holding("handshakes", running.port, count, self.in_flight) as held:
            held.report()
        wait_for_closed(running.pid, files)
        return cpu.used(), held


CASES: list[Case] = [
    ServerSentEvents(),
    Idle("requests", "http-idle-1000", 1_000, "1,000 idle keep-alive connections, one request each before"),
    Idle("requests", "http-idle-10000", 10_000, "10,000 idle keep-alive connections, one request each before"),
    Idle("websockets", "http-idle-ws-1000", 1_000, "1,000 idle WebSockets, one message there and back before"),
    # Two descriptors each: this is what 20,000 per process leave room for.
    Idle("websockets", "http-idle-ws-9500", 9_500, "9,500 idle WebSockets, one message there and back before"),
    Messages(),
    Storm(),
]
