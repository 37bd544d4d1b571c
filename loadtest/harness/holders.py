"""What the streaming cases run on the load's core: the origin behind the proxies, and those who hold connections to them.

Both are processes of their own (`stream_origin`, `hold`), so that what Python costs is on the load's core and never among
the figures, and both end with this process: the origin by its death signal, a holder because its stdin ends.
"""
from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path

from .case import SampleFailed
from .machine import REPOSITORY, free_port, memory, pinned, running, tree, wait_until

LOADTEST = REPOSITORY / "loadtest"
# Ten thousand connections take some four seconds through the slowest proxy on a quiet machine.
OPEN_SECONDS = 60
REPORT_SECONDS = 10
CLOSE_SECONDS = 10
SETTLE_SECONDS = 0.25
SETTLE_READINGS = 12
# Two readings that differ by less are the same: a page table here, a timer's page there.
SETTLED_BYTES = 64 * 1024


def listens(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


@contextlib.contextmanager
def origin(logs: Path, interval: float = 0.2, place: str = "load"):
    """Yields the port of a running `stream_origin` whose streams have an event every `interval` seconds."""
    port = free_port()
    log = Path(logs) / f"stream-origin-{port}.log"
    argv = [sys.executable, "-m", "harness.stream_origin", port, "--interval", interval]
    with running(argv, log=log, place=place, cwd=LOADTEST) as process:
        wait_until(lambda: listens(port), 10, "the streams' origin", process, log)
        yield port


@dataclasses.dataclass
class Holding:
    """A running `hold`, all its connections open. `opened` is what it said of opening them."""

    process: subprocess.Popen
    count: int
    opened: dict

    def report(self) -> dict:
        """What happened since the last report. Raises SampleFailed when a connection is gone."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(b"\n")
        told = said(self.process, REPORT_SECONDS)
        if told["open"] != self.count:
            raise SampleFailed(f"{self.count - told['open']} of {self.count} connections were closed while they were held")
        return told


def said(process: subprocess.Popen, seconds: float) -> dict:
    """The holder's next line. It writes whole lines through an unbuffered pipe, so what is readable is a line."""
    if not select.select([process.stdout], [], [], seconds)[0]:
        raise SampleFailed(f"the holder said nothing within {seconds:.0f} s")
    line = process.stdout.readline()
    if not line:
        raise SampleFailed(f"the holder ended with code {process.wait()}")
    return json.loads(line)


@contextlib.contextmanager
def holding(kind: str, port: int, count: int, in_flight: int = 64, place: str = "load"):
    """Yields a Holding once all `count` connections of a kind (see `hold`) are open; they are closed afterwards."""
    argv = [sys.executable, "-m", "harness.hold", kind, port, count, "--in-flight", in_flight]
    process = subprocess.Popen(
        pinned(argv, place), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, cwd=LOADTEST
    )
    try:
        opened = said(process, OPEN_SECONDS)
        if opened["failed"] or opened["opened"] != count:
            raise SampleFailed(f"{opened['opened']} of {count} {kind} came to be: {'; '.join(opened['errors'])}")
        yield Holding(process, count, opened)
    finally:
        close(process)


def close(process: subprocess.Popen):
    """Ends a holder by ending its stdin; by force when that does not do."""
    with contextlib.suppress(OSError):
        process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(CLOSE_SECONDS)
    process.kill()
    process.wait()
    process.stdout.close()


def settled(pid: int) -> tuple[float, float]:
    """(RSS, PSS) of a tree in bytes once they no longer change, at most some seconds from now."""
    last = memory(pid)
    for _ in range(SETTLE_READINGS):
        time.sleep(SETTLE_SECONDS)
        now = memory(pid)
        if abs(now[1] - last[1]) < SETTLED_BYTES:
            return now
        last = now
    return last


def open_files(pid: int) -> int:
    """Descriptors in use in a tree."""
    count = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            count += len(os.listdir(f"/proc/{one}/fd"))
    return count


def wait_for_closed(pid: int, files_before: int):
    """Returns when a tree holds no more descriptors than before (or hardly more: kept connections to the origin)."""
    deadline = time.monotonic() + CLOSE_SECONDS
    while (left := open_files(pid) - files_before) > 10:
        if time.monotonic() > deadline:
            raise SampleFailed(f"{left} descriptors were still open {CLOSE_SECONDS} s after the clients had closed")
        time.sleep(0.02)
