"""The machine: which core runs what, and what a process tree has used, as the kernel counts it.

CPU time is read from schedstat, in nanoseconds: the ticks of /proc/PID/stat (10 ms) are too coarse for samples of a second or two.
A proxy is its whole tree, so that nginx's workers, Envoy's threads and Bookend's one process are counted alike.
"""
from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "deploy/stack"))
from processes import free_port, spawn, tail  # noqa: E402  (they live with the stack runner)

PEERS = REPOSITORY / ".cache/peers"
ROOT = PEERS / "root"
STOP_SECONDS = 10

# The proxy has one core for itself; the load generator shares the other with what stands behind the proxy.
PROXY_CORE = 0
LOAD_CORE = 1
CORES = {"proxy": [PROXY_CORE], "load": [LOAD_CORE], "both": [PROXY_CORE, LOAD_CORE]}


def pinned(argv, place: str) -> list[str]:
    """The command, bound to a place: "proxy", "load" or "both"."""
    return ["taskset", "-c", ",".join(map(str, CORES[place])), *map(str, argv)]


def in_root(argv, user: str | None = None) -> list[str]:
    """The command, run inside the peers' Debian root, as `user` of it. See `root_folder` for files both sides see."""
    # Becoming another user undoes what `spawn` has set: that it dies with us (prctl(2), PR_SET_PDEATHSIG).
    who = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--pdeathsig=KILL"] if user else []
    return ["chroot", str(ROOT), *who, *map(str, argv)]


@contextlib.contextmanager
def root_folder(name: str):
    """Yields a new folder as (seen from here, seen from inside the root); it is gone afterwards."""
    inside = Path("/tmp") / f"bench-{os.getpid()}-{name}"
    outside = ROOT / inside.relative_to("/")
    shutil.rmtree(outside, ignore_errors=True)
    outside.mkdir(parents=True)
    outside.chmod(0o777)
    try:
        yield outside, inside
    finally:
        shutil.rmtree(outside, ignore_errors=True)


@contextlib.contextmanager
def running(argv, *, log: Path, place: str, env=None, cwd=None, stop=signal.SIGTERM):
    """A child bound to a place; ended by `stop`, then by force. Yields its Popen."""
    process = spawn(pinned(argv, place), log=log, env=env, cwd=cwd)
    try:
        yield process
    finally:
        end(process, stop)


def end(process, stop=signal.SIGTERM):
    """Ends a child and everything left in its session."""
    if process.poll() is None:
        process.send_signal(stop)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def tree(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{one}/task"):
                found += map(int, Path(f"/proc/{one}/task/{task}/children").read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of the living threads of a tree. A worker that ended in between is missed: none does here."""
    nanoseconds = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{one}/task"):
                nanoseconds += int(Path(f"/proc/{one}/task/{task}/schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def memory(pid: int) -> tuple[float, float]:
    """(RSS, PSS) of a tree in bytes. PSS shares out pages that several processes map."""
    rss = pss = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Rss:"):
                    rss += int(line.split()[1])
                elif line.startswith("Pss:"):
                    pss += int(line.split()[1])
    return rss * 1024, pss * 1024


class Cpu:
    """CPU seconds of a tree since it was made, or between `start` and `stop`."""

    def __init__(self, pid: int):
        self.pid = pid
        self.before = cpu_seconds(pid)

    def used(self) -> float:
        return cpu_seconds(self.pid) - self.before


def wait_until(answers, seconds: float, what: str, process=None, log: Path | None = None):
    """Returns when `answers()` is true (OSError counts as no); raises with the log's end when it never is."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            if answers():
                return
        ended = process is not None and process.poll() is not None
        if ended or time.monotonic() > deadline:
            why = f"ended with code {process.returncode}" if ended else f"not there after {seconds:.0f} s"
            raise RuntimeError(f"{what}: {why}\n{tail(log) if log else ''}")
        time.sleep(0.02)


def description() -> dict:
    """What a reader needs to place the numbers: CPU, cores, memory, kernel, when."""
    cpu = next(
        (line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown"
    )
    memory_kb = int(open("/proc/meminfo").readline().split()[1])
    return {
        "name": os.environ.get("BENCH_MACHINE") or f"{os.cpu_count()}-core-{platform.machine()}",
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kb / 2**20, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


__all__ = [
    "CORES", "Cpu", "PEERS", "REPOSITORY", "ROOT", "cpu_seconds", "description", "end", "free_port", "in_root", "memory",
    "pinned", "root_folder", "running", "spawn", "tail", "tree", "wait_until",
]
