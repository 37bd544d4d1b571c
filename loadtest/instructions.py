"""Counts the instructions Bookend takes for one HTTP request and for one database transaction: `make bench-instructions`, or

    .venv/bin/python loadtest/instructions.py --paths pg-simple --runs 1

The real program runs under callgrind with one worker thread, between a client and a server that say the same bytes every
time. After a warm-up come N requests and then 2N; the difference, without what the idle program takes in that time, divided
by N is one request. Time plays no part, so the figure is the same on a busy machine; loadtest/INSTRUCTIONS.md says how to
read it. Writes loadtest/results/DATE-instructions.md.
"""
from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import callgrind, machine, scripted  # noqa: E402
from harness.callgrind import Profile  # noqa: E402

WARM_UP = 300
IDLE_SECONDS = 2
# Under valgrind everything takes fifty times as long.
START_SECONDS = 90
USER, DATABASE = "arena_user", "arena_db"
TITLES = {
    "http": "one HTTP request (GET, 7 headers, keep-alive, 1 KiB answer), access log off",
    "http-log": "the same with its line in the access log",
    "pg-simple": "one simple query through the pool (a transaction of its own)",
    "pg-extended": "one statement without a name through the pool: Parse, Bind, Describe, Execute, Sync",
    "pg-prepared": "one prepared statement through the pool: Bind, Describe, Execute, Sync",
}

FRONT = """
listeners: [{{ address: "127.0.0.1:{port}" }}]
threads: 1
keepalive_requests: 100000000
admin: {{ address: "127.0.0.1:{admin}" }}
access_log: {{ enabled: {log} }}
upstreams: {{ django: {{ servers: [{{ name: web-1, address: "127.0.0.1:{server}" }}] }} }}
routes: [{{ path_prefix: /, upstream: django }}]
"""
# One server connection is open for all of it, and the probe looks once.
POOL = """
pool: {{ listen_addr: 127.0.0.1, listen_port: {port}, auth_type: trust, default_pool_size: 1, probe: {{ interval: 1h }} }}
databases: {{ {database}: {{ host: 127.0.0.1, port: {server} }} }}
users: {{ {user}: {{}} }}
admin: {{ address: "127.0.0.1:{admin}" }}
"""
PGBOUNCER = """
[databases]
{database} = host=127.0.0.1 port={server} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 1
max_prepared_statements = 200
"""


@dataclasses.dataclass
class Count:
    """One run: instructions for each request, and where the 2N requests' went."""

    per_request: float
    idle_per_second: float
    profile: Profile
    requests: int


class Counted:
    """A program under callgrind; `part` hands out what was counted since the last call."""

    def __init__(self, process, out: Path, user):
        self.process = process
        self.user = user
        self.out = out
        self.parts = 0
        self.since = time.monotonic()

    def part(self) -> tuple[Profile, float]:
        """(the profile, seconds it covers)."""
        control = ["callgrind_control", "--dump", str(self.process.pid)]
        subprocess.run([*self.user, *control], check=True, capture_output=True)
        now = time.monotonic()
        seconds, self.since = now - self.since, now
        self.parts += 1
        file = self.out.with_name(f"{self.out.name}.{self.parts}")
        return callgrind.parse(file.read_text()), seconds


def is_ready(admin: int) -> bool:
    """Whether the program says so itself. 503 and no connection are both an OSError."""
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/ready", timeout=10) as answer:
        return answer.status == 200


def listens(port: int) -> bool:
    """Whether somebody accepts there. Nobody is an OSError."""
    socket.create_connection(("127.0.0.1", port), timeout=10).close()
    return True


@contextlib.contextmanager
def counted(argv: list, ready, folder: Path, user=()):
    """Runs the program under callgrind until it is ready, and ends it afterwards."""
    out, log = folder / "callgrind.out", folder / "program.log"
    valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
    process = machine.spawn([*user, *valgrind, *argv], log=log)
    try:
        machine.wait_until(ready, START_SECONDS, "the program under callgrind", process, log)
        yield Counted(process, out, user)
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def arranged(path: str, bookend: str, folder: Path, postgres_port: int | None):
    """Yields (the counted program, a client's `ask`) for one of TITLES."""
    port, admin = machine.free_port(), machine.free_port()
    config = folder / "bookend.yaml"
    if path.startswith("http"):
        log = "true" if path == "http-log" else "false"
        config.write_text(FRONT.format(port=port, admin=admin, server=scripted.HttpServer().port, log=log))
        with counted([bookend, "run", "--lb", config], lambda: is_ready(admin), folder) as program:
            yield program, scripted.HttpClient(port).ask
        return
    words = {"port": port, "admin": admin, "server": postgres_port, "user": USER, "database": DATABASE}
    if bookend == "pgbouncer":
        config.write_text(PGBOUNCER.format(**words))
        running = counted([*peer(), config], lambda: listens(port), folder, nobody(folder))
    else:
        config.write_text(POOL.format(**words))
        running = counted([bookend, "run", "--pool", config], lambda: is_ready(admin), folder)
    with running as program:
        yield program, scripted.PgClient(port, USER, DATABASE, path.removeprefix("pg-")).ask


def peer() -> list:
    """PgBouncer out of the peers' root, by the C library of that root: valgrind is outside of it."""
    root = machine.ROOT
    libraries = f"{root}/usr/lib/x86_64-linux-gnu:{root}/lib/x86_64-linux-gnu"
    return [root / "lib64/ld-linux-x86-64.so.2", "--library-path", libraries, root / "usr/sbin/pgbouncer"]


def nobody(folder: Path) -> list:
    """What runs a command as somebody else, where PgBouncer would refuse to run as root."""
    if os.geteuid() != 0:
        return []
    shutil.chown(folder, "nobody")
    return ["setpriv", "--reuid=nobody", "--clear-groups"]


def count(path: str, bookend: str, requests: int, postgres_port: int | None) -> Count:
    """One run of one path."""
    with tempfile.TemporaryDirectory(prefix="bookend-instructions-") as name:
        with arranged(path, bookend, Path(name), postgres_port) as (program, ask):
            for _ in range(WARM_UP):
                ask()
            program.part()
            time.sleep(IDLE_SECONDS)
            idle, idle_seconds = program.part()
            for _ in range(requests):
                ask()
            once, once_seconds = program.part()
            for _ in range(2 * requests):
                ask()
            twice, twice_seconds = program.part()
    idle_per_second = idle.total / idle_seconds
    more = twice.total - once.total - idle_per_second * (twice_seconds - once_seconds)
    return Count(more / requests, idle_per_second, twice, 2 * requests)


@contextlib.contextmanager
def postgres(wanted: bool):
    """Yields the port of a real PostgreSQL that trusts us, or None."""
    if not wanted:
        yield None
        return
    from postgres import Cluster  # psycopg, which the HTTP paths can do without

    with tempfile.TemporaryDirectory(prefix="bookend-instructions-") as name:
        Path(name).chmod(0o755)
        cluster = Cluster(Path(name) / "postgres", Path(name), auth="trust", max_connections=20, settings={})
        cluster.create()
        cluster.configure()
        cluster.start()
        try:
            cluster.create_database()
            yield cluster.port
        finally:
            cluster.stop("immediate")


def rows(counter, divisor: int, most: int, whole: float) -> list[str]:
    """Table rows of the largest entries: instructions for each request, their share, the name."""
    return [
        f"| {cost / divisor:,.0f} | {100 * cost / whole:.1f} % | `{callgrind.short(name)}` |"
        for name, cost in counter.most_common(most)
        if cost >= divisor / 2
    ]


def table(title: str, counter, run: Count, most: int) -> list[str]:
    head = [f"**{title}**", "", "| instructions | share | |", "|---:|---:|---|"]
    return [*head, *rows(counter, run.requests, most, run.profile.total), ""]


def report(counts: dict[str, list[Count]], bookend: str, requests: int) -> str:
    """The whole page."""
    argv = peer() if bookend == "pgbouncer" else [bookend]
    version = subprocess.run([*argv, "--version"], capture_output=True, text=True).stdout.splitlines()[0].strip()
    describe = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(describe, cwd=machine.REPOSITORY, capture_output=True, text=True)
    valgrind = subprocess.run(["valgrind", "--version"], capture_output=True, text=True).stdout.strip()
    lines = [
        "# Instructions of the hot paths", "",
        f"Made by `make bench-instructions` at commit {commit.stdout.strip()}: {version}, {valgrind}, Linux "
        f"{platform.release()} {platform.machine()}; {requests:,} and {2 * requests:,} requests on one connection, "
        "one worker thread. How to read it: ../INSTRUCTIONS.md.", "",
        "| path | instructions for each | smallest to largest run | idle, each second |", "|---|---:|---:|---:|",
    ]
    for path, runs in counts.items():
        each = sorted(run.per_request for run in runs)
        spread = 100 * (each[-1] - each[0]) / each[0]
        lines.append(
            f"| {path}: {TITLES[path]} | {each[len(each) // 2]:,.0f} | {each[0]:,.0f} to {each[-1]:,.0f} "
            f"({spread:.2f} %, {len(each)} runs) | {runs[0].idle_per_second:,.0f} |"
        )
    for path, runs in counts.items():
        run, profile = runs[0], runs[0].profile
        ours = {name: cost for name, cost in profile.inclusive.items() if callgrind.is_ours(name)}
        lines += ["", f"## {path}: {TITLES[path]}", ""]
        lines += table("By whose source lines they are", callgrind.by_crate(profile), run, 16)
        lines += table("Our own lines, wherever they were inlined", callgrind.own_files(profile), run, 16)
        lines += table("Top functions, without what they call", profile.exclusive, run, 30)
        lines += table("Our own functions, with what they call", Counter(ours), run, 30)
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--bookend", default=str(machine.REPOSITORY / "target/release/bookend"))
    parser.add_argument("--paths", default=",".join(TITLES), help="by comma; all: %(default)s")
    parser.add_argument("--requests", type=int, default=1000, help="N (%(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="of each path, each a new process (%(default)s)")
    parser.add_argument("--out", type=Path, help="default: loadtest/results/DATE-instructions.md")
    parser.add_argument("--pgbouncer", action="store_true", help="count PgBouncer of `make peers` instead; wants --out")
    options = parser.parse_args()
    paths = options.paths.split(",")
    if options.pgbouncer:
        paths = [path for path in paths if path.startswith("pg-")]
        options.bookend = "pgbouncer"
        if not options.out:
            parser.error("--pgbouncer wants --out: the page of results is Bookend's")
    if unknown := [path for path in paths if path not in TITLES]:
        parser.error(f"there is no path {unknown[0]}")
    for program in ("valgrind", "callgrind_control"):
        if not shutil.which(program):
            print(f"instructions: {program} is missing; on Debian and Ubuntu: apt-get install valgrind", file=sys.stderr)
            return 2
    if not options.pgbouncer and not os.access(options.bookend, os.X_OK):
        print(f"instructions: no {options.bookend}; make build", file=sys.stderr)
        return 2
    counts: dict[str, list[Count]] = {}
    with postgres(any(path.startswith("pg") for path in paths)) as postgres_port:
        for path in paths:
            for number in range(options.runs):
                run = count(path, options.bookend, options.requests, postgres_port)
                counts.setdefault(path, []).append(run)
                print(f"{path:<12} run {number + 1}: {run.per_request:>9,.0f} instructions", flush=True)
    out = options.out or machine.REPOSITORY / f"loadtest/results/{datetime.date.today()}-instructions.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(report(counts, options.bookend, options.requests))
    print(f"where they go: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
