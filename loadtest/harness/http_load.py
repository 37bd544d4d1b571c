"""Load on an HTTP program by wrk, h2load and oha, and what they print read back into one form.

wrk is the lightest per request: closed loop, HTTP/1.1. h2load speaks HTTP/2 and never resumes a TLS session. oha sends at a
fixed rate and counts latency from when a request was due, and does a fixed number of large requests. The `parse_*` functions
are pure; each raises SampleFailed when anything but answered requests was seen.
"""
from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
from pathlib import Path

from .case import SampleFailed
from .machine import PEERS, in_root, pinned

OHA = PEERS / "oha/bin/oha"
# What a generator may take beyond the time it was given.
PATIENCE_SECONDS = 30
# A generator that sent less than this share of the rate asked for measured something else.
RATE_REACHED = 0.97
MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3}


@dataclasses.dataclass(frozen=True)
class Load:
    """What a generator saw. Latencies in ms, None where it does not say."""

    requests: int
    seconds: float
    p50: float | None
    p99: float | None
    p999: float | None = None

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def milliseconds(text: str) -> float:
    """wrk's and h2load's "1.22ms", "870us" or "1.02s"."""
    found = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text)
    if not found:
        raise SampleFailed(f"not a duration: {text!r}")
    return float(found[1]) * MILLISECONDS[found[2]]


def field(pattern: str, text: str, program: str) -> re.Match:
    """The pattern's first match; output without it is no output of a run that went well."""
    found = re.search(pattern, text, re.MULTILINE)
    if not found:
        raise SampleFailed(f"{program} did not say {pattern!r}: {text.strip()[-300:]}")
    return found


def parse_wrk(text: str) -> Load:
    """The output of `wrk --latency`."""
    errors = re.search(r"^\s*Socket errors: .*$", text, re.MULTILINE)
    if errors:
        raise SampleFailed(f"wrk: {errors[0].strip()}")
    refused = re.search(r"^\s*Non-2xx or 3xx responses: \d+$", text, re.MULTILINE)
    if refused:
        raise SampleFailed(f"wrk: {refused[0].strip()}")
    done = field(r"^\s*(\d+) requests in ([\d.]+\w+),", text, "wrk")
    if done[1] == "0":
        raise SampleFailed("wrk: no request was answered")
    return Load(
        requests=int(done[1]),
        seconds=milliseconds(done[2]) / 1e3,
        p50=milliseconds(field(r"^\s*50%\s+(\S+)$", text, "wrk")[1]),
        p99=milliseconds(field(r"^\s*99%\s+(\S+)$", text, "wrk")[1]),
    )


def parse_h2load(text: str, protocol: str) -> Load:
    """The output of h2load; `protocol` is what must have been spoken: "h2", "h2c" or "http/1.1"."""
    ended = r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout"
    done = field(rf"^requests: \d+ total, \d+ started, {ended}", text, "h2load")
    if done[2] != done[1] or any(int(done[part]) for part in (3, 4, 5)):
        raise SampleFailed(f"h2load: {done[0]}")
    if done[1] == "0":
        raise SampleFailed("h2load: no request was answered")
    codes = field(r"^status codes: \d+ 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text, "h2load")
    if any(map(int, codes.groups())):
        raise SampleFailed(f"h2load: {codes[0]}")
    spoken = field(r"^Application protocol: (\S+)$", text, "h2load")[1]
    if spoken != protocol:
        raise SampleFailed(f"h2load: spoke {spoken}, not {protocol}")
    times = field(r"^request\s+:\s+\S+\s+\S+\s+(\S+)\s+\S+\s+(\S+)", text, "h2load")
    return Load(
        requests=int(done[1]),
        seconds=milliseconds(field(r"^finished in ([\d.]+\w+),", text, "h2load")[1]) / 1e3,
        p50=milliseconds(times[1]),
        p99=milliseconds(times[2]),
    )


def parse_oha(text: str, rate: int | None = None) -> Load:
    """The output of `oha --output-format json`. With a rate: refused when less than that was sent or answered."""
    try:
        said = json.loads(text)
        summary, percentiles = said["summary"], said["latencyPercentiles"]
        codes, errors = said["statusCodeDistribution"], said["errorDistribution"]
    except (ValueError, KeyError) as error:
        raise SampleFailed(f"oha: {error!r} in {text.strip()[-300:]}") from error
    if errors:
        raise SampleFailed(f"oha: {errors}")
    if not codes or any(not code.startswith("2") for code in codes):
        raise SampleFailed(f"oha: answers by status: {codes}")
    if rate and summary["requestsPerSec"] < rate * RATE_REACHED:
        raise SampleFailed(f"oha: {summary['requestsPerSec']:,.0f} requests/s of {rate:,} were answered")
    p50, p99, p999 = (percentiles[name] and percentiles[name] * 1e3 for name in ("p50", "p99", "p99.9"))
    return Load(sum(codes.values()), summary["total"], p50, p99, p999)


def run(argv, seconds: float, place: str, env: dict[str, str] | None = None) -> str:
    """Runs a generator at its place; returns what it printed."""
    try:
        ended = subprocess.run(
            pinned(argv, place),
            capture_output=True,
            text=True,
            timeout=seconds + PATIENCE_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
        )
    except subprocess.TimeoutExpired as late:
        raise SampleFailed(f"{Path(str(argv[0])).name}: not done after {late.timeout:.0f} s") from late
    if ended.returncode:
        raise SampleFailed(f"{argv[0]} ended with {ended.returncode}: {(ended.stderr or ended.stdout).strip()[-300:]}")
    return ended.stdout


def wrk(url: str, connections: int, seconds: float, *, place: str = "load", options=(), env=None) -> Load:
    """One thread of wrk with so many connections. `options` are wrk's own: headers, a script (as seen in the root)."""
    # wrk knows whole seconds alone, so a fraction is had by ending it: SIGINT makes it stop and report.
    stopped = ["timeout", "--preserve-status", "-s", "INT", seconds]
    asked = ["wrk", "-t1", f"-c{connections}", f"-d{int(seconds) + 2}s", "--latency", *options, url]
    argv = in_root([*stopped, *asked])
    return parse_wrk(run(argv, seconds, place, env))


def h2load(url: str, protocol: str, options, seconds: float, *, place: str = "load") -> Load:
    """h2load with its own options; `seconds` is how long they are expected to take."""
    return parse_h2load(run(in_root(["h2load", *map(str, options), url]), seconds, place), protocol)


def oha(url: str, options, seconds: float, *, rate: int | None = None, place: str = "load") -> Load:
    """oha with its own options; with a rate it sends at that for `seconds`, then waits for what is under way."""
    fixed = ["-z", f"{round(seconds * 1000)}ms", "-w", "-q", rate, "--latency-correction"] if rate else []
    argv = [OHA, "--no-tui", "--output-format", "json", *map(str, fixed), *map(str, options), url]
    return parse_oha(run(argv, seconds, place), rate)
