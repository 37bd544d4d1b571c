"""Requests and answers: small ones at several numbers of clients, new connections, large bodies, and fixed rates.

The proxy under test has one core and one thread; the generator and the upstream share the other. At saturation the rate says
how much one core of proxy does, as long as the proxy is what is busy: `busy` shows that. Where it is not (large bodies: the
other half costs as much as the proxy), CPU time per unit is the figure to read, and it stands first.
"""
from __future__ import annotations

import contextlib
import urllib.request
from pathlib import Path

from . import http_load as load
from .case import CPU, P50, P99, RATE, RSS, Case, Figure, SampleFailed
from .http_programs import MIB, PROGRAMS, Proxy, origin, start
from .machine import Cpu, memory, root_folder, tree

BUSY = Figure("busy", "% of its cores", None)
P999 = Figure("p99.9", "ms", "lower")
THROUGHPUT = Figure("throughput", "MiB/s", "higher")
CPU_PER_MIB = Figure("cpu", "µs CPU/MiB", "lower")
PEAK = Figure("peak", "MiB RSS peak", "lower")

# Share of bench.seconds that one sample takes: samples are many and these figures settle early.
SAMPLE_SHARE = 0.6
WARM_UP_SECONDS = 0.3
# A proxy that opens a connection to the upstream for more than one request in so many does not keep them.
REQUESTS_PER_CONNECTION = 20


class Http(Case):
    """Small requests to one proxy, as many as it answers. Subclasses say by whom they are sent."""

    group = "http"
    programs = PROGRAMS
    figures = [RATE, CPU, P50, P99, RSS, BUSY]
    access_log = False
    threads = 1
    place = "proxy"
    load_place = "load"
    connections = 64
    # Requests under way on each connection.
    streams = 1
    # Connections a program must be able to hold, to clients and upstream together. No more than needed: some set memory
    # aside for each.
    held = 2048

    def open(self, bench) -> None:
        self.upstream = bench.enter(origin(bench))

    def start(self, bench, program: str):
        return start(
            bench, program, self.upstream, place=self.place, threads=self.threads, access_log=self.access_log,
            connections=self.held,
        )

    def seconds(self, bench) -> float:
        return bench.seconds * SAMPLE_SHARE

    def send(self, proxy: Proxy, seconds: float) -> load.Load:
        """Loads the proxy for so long."""
        raise NotImplementedError

    def warm_up(self, bench, program: str, running: Proxy) -> None:
        # The samples will tell what is wrong, if anything is.
        with contextlib.suppress(SampleFailed):
            self.send(running, WARM_UP_SECONDS)

    def measure(self, bench, program: str, running: Proxy) -> dict[str, float | None]:
        reuse = Reuse(self.upstream)
        cpu = Cpu(running.pid)
        seen = self.send(running, self.seconds(bench))
        used = cpu.used()
        reuse.check(program, self.connections * self.streams)
        return {
            "rate": seen.rate,
            "cpu": used / seen.requests * 1e6,
            "p50": seen.p50,
            "p99": seen.p99,
            "p99.9": seen.p999,
            "rss": memory(running.pid)[0] / MIB,
            "busy": used / seen.seconds / self.threads * 100,
        }


class Reuse:
    """Whether the connections to the upstream were kept, as the upstream counts them."""

    def __init__(self, upstream: int):
        self.url = f"http://127.0.0.1:{upstream}/connections"
        self.before = self.counted()

    def counted(self) -> tuple[int, int]:
        """(connections, requests) since the upstream started."""
        with urllib.request.urlopen(self.url, timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        accepted, _, requests = map(int, lines[2].split())
        return accepted, requests

    def check(self, program: str, under_way: int) -> None:
        """Raises SampleFailed when more connections were opened than requests were under way at once, by a good part of
        the requests there were. (A proxy may open one for each at the beginning. One more is ours.)"""
        accepted, requests = (now - then for now, then in zip(self.counted(), self.before))
        if accepted > 1 + under_way + requests // REQUESTS_PER_CONNECTION:
            raise SampleFailed(f"{program} opened {accepted} connections to the upstream for {requests} requests")


class Small(Http):
    """`connections` clients of wrk, each with one request under way."""

    options: tuple[str, ...] = ()

    def __init__(self, name: str, title: str, connections: int, **differences):
        self.name, self.title, self.connections = name, title, connections
        for attribute, value in differences.items():
            assert hasattr(self, attribute), attribute
            setattr(self, attribute, value)

    def send(self, proxy: Proxy, seconds: float) -> load.Load:
        url = f"http://127.0.0.1:{proxy.port}/small"
        return load.wrk(url, self.connections, seconds, place=self.load_place, options=self.options)


class Rate(Http):
    """An open loop: requests are due at a fixed rate whatever became of the earlier ones, and latency counts from then."""

    figures = [P99, P50, P999, CPU]
    plot = "rate"

    def __init__(self, rate: int):
        self.x = rate
        self.name = f"http-rate-{rate}"
        self.title = f"100-byte answers at {rate:,} requests/s, {self.connections} connections, latency from when due"

    def seconds(self, bench) -> float:
        # For p99.9 of the lower rates.
        return bench.seconds

    def send(self, proxy: Proxy, seconds: float) -> load.Load:
        return load.oha(f"http://127.0.0.1:{proxy.port}/small", ["-c", self.connections], seconds, rate=self.x)

    def warm_up(self, bench, program: str, running: Proxy) -> None:
        # At no rate: too short to reach one.
        with contextlib.suppress(SampleFailed):
            load.wrk(f"http://127.0.0.1:{running.port}/small", self.connections, WARM_UP_SECONDS)


class Body(Http):
    """Large bodies, down or up. 1 MiB: by wrk for a time; 100 MiB: a fixed number by oha, so that none is cut off."""

    figures = [CPU_PER_MIB, THROUGHPUT, PEAK, BUSY]
    # Of 100 MiB each.
    large_requests = 4

    def __init__(self, mib: int, up: bool):
        self.mib, self.up = mib, up
        self.connections = 8 if mib == 1 else 2
        way = "up" if up else "down"
        self.name = f"http-{mib}m-{way}"
        self.title = f"{mib} MiB bodies {way}, {self.connections} connections"
        self.path = "upload" if up else f"{mib}m"

    def open(self, bench) -> None:
        super().open(bench)
        outside, inside = bench.enter(root_folder("body"))
        self.body = outside / "body"
        with self.body.open("wb") as file:
            file.truncate(self.mib * MIB)
        self.script = inside / "upload.lua"
        (outside / "upload.lua").write_text(f'wrk.method = "POST"\nwrk.body = string.rep("x", {MIB})\n')

    def send(self, proxy: Proxy, seconds: float) -> load.Load:
        url = f"http://127.0.0.1:{proxy.port}/{self.path}"
        if self.mib == 1:
            return load.wrk(url, self.connections, seconds, options=("-s", self.script) if self.up else ())
        upload = ["-m", "POST", "-D", self.body] if self.up else []
        return load.oha(url, ["-n", self.large_requests, "-c", self.connections, *upload], seconds)

    def warm_up(self, bench, program: str, running: Proxy) -> None:
        if self.mib == 1:
            super().warm_up(bench, program, running)

    def measure(self, bench, program: str, running: Proxy) -> dict[str, float | None]:
        reset_peak(running.pid)
        sample = super().measure(bench, program, running)
        return {
            "cpu": sample["cpu"] / self.mib,
            "throughput": sample["rate"] * self.mib,
            "peak": peak(running.pid) / MIB,
            "busy": sample["busy"],
        }


def reset_peak(pid: int) -> None:
    """Begins anew what `peak` tells (proc(5), clear_refs)."""
    for one in tree(pid):
        Path(f"/proc/{one}/clear_refs").write_text("5")


def peak(pid: int) -> float:
    """The largest RSS of each process of a tree, together, in bytes."""
    lines = [line for one in tree(pid) for line in Path(f"/proc/{one}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


CASES: list[Case] = [
    *(Small(f"http-small-{count}", f"100-byte answers, {count} keep-alive connections", count) for count in (8, 64, 256)),
    Small("http-small-64-log", "100-byte answers, 64 keep-alive connections, access log on, to a file", 64, access_log=True),
    Small(
        "http-two-threads-64", "100-byte answers, 64 keep-alive connections, two threads, all on both cores", 64,
        threads=2, place="both", load_place="both",
    ),
    Small(
        "http-new-conn", "100-byte answers, a new client connection for each", 64, options=("-H", "Connection: close"),
    ),
    *(Body(mib, up) for mib in (1, 100) for up in (False, True)),
    *(Rate(rate) for rate in (1000, 2500, 5000, 7500)),
]
