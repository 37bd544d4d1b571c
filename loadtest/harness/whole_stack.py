"""A whole deployment around the sample Django project: PostgreSQL, three replicas, and what stands before and behind them.

    locust -> front -> web-1..3 (uvicorn, Django) -> pool -> PostgreSQL

Two sides answer for front and pool: Bookend, which is both in one process, and nginx with PgBouncer. Each has three replicas
of its own whose DB_HOST is its pool; PostgreSQL is the same. Nothing of this is pinned: Django needs most of both cores, and
a proxy on a core of its own would be a machine nobody has. A side's CPU and memory are those of front and pool alone.
"""
from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import string
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from .case import US, SampleFailed
from .machine import (
    CORES, REPOSITORY, cpu_seconds, end, free_port, in_root, memory, pinned, root_folder, spawn, tree, wait_until,
)
from client import StackClient, StackError  # noqa: E402  (machine puts the stack runner on the path)

THEM = "nginx+pgbouncer"
REPLICAS = 3
TEMPLATES = REPOSITORY / "loadtest/peers"
PYTHON = REPOSITORY / ".venv/bin/python"
READY_SECONDS = 30
# nginx gives up on a server after so many failures and looks again after so long. Three as in Bookend; and as often as
# Bookend checks its servers, for nginx's 10 s would keep a restarted replica idle for that long.
NGINX_SERVER = "max_fails=3 fail_timeout=2s"
# In Django the option would be sent as a startup parameter, which PgBouncer cannot take; PostgreSQL sets it for both sides.
STATEMENT_TIMEOUT = "statement_timeout=30s"


class AtSign(string.Template):
    """A template whose places begin with @: nginx and Bookend have a use for the dollar sign."""

    delimiter = "@"


@dataclasses.dataclass
class Side:
    """Front and pool of one side, running. `roots` are the processes whose trees they are; `reload` has all of it read its
    files again, with another value in them, and returns when told; `replicas` are names that the stack knows."""

    name: str
    url: str
    roots: list[int]
    replicas: list[str]
    reload: Callable[[], None]
    logs: list[Path]

    def cpu(self) -> float:
        """CPU seconds of its living processes so far."""
        return sum(map(cpu_seconds, self.roots))

    def pss(self) -> float:
        """Bytes, pages that its processes share counted once."""
        return sum(memory(pid)[1] for pid in self.roots)

    def processes(self) -> int:
        return sum(len(tree(pid)) for pid in self.roots)


@contextlib.contextmanager
def postgres():
    """Yields the stack runner with PostgreSQL alone, migrated and seeded."""
    with StackClient("--pg-only", "--setting", STATEMENT_TIMEOUT, python=str(PYTHON)) as stack:
        yield stack


def tell(stack: StackClient, command: str, **fields) -> dict:
    """Sends the stack a command; what it refuses fails the sample, not the run."""
    try:
        return stack.send(command, **fields)
    except StackError as error:
        raise SampleFailed(f"{command}: {error}") from error


@contextlib.contextmanager
def side(bench, program: str, stack: StackClient):
    """Yields a Side whose three replicas answer through its front and its pool."""
    pool_port = free_port()
    # Replicas need no database to start, and their ports are known for certain only when they have.
    started = stack.send("start_replicas", count=REPLICAS, db_host="127.0.0.1", db_port=pool_port,
                         env={"DB_STATEMENT_TIMEOUT_MS": 0})["replicas"]
    values = {
        "front_port": free_port(),
        "pool_port": pool_port,
        "postgres_port": stack.postgres["port"],
        "threads": len(CORES["both"]),
    }
    begin = bookend if program == US else nginx_and_pgbouncer
    with begin(bench, stack, values, started) as running:
        for _ in range(REPLICAS * 2):
            wait_until(lambda: answers(f"{running.url}/health/"), READY_SECONDS, f"{program} with Django and PostgreSQL",
                       log=running.logs[0])
        yield running


def answers(url: str) -> bool:
    """Whether a GET there is answered 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except urllib.error.HTTPError:
        return False


class Files:
    """The filled-in templates of a side, in a folder. Each `write` gives the values that a reload is to bring another way
    round, so that no reload finds its files unchanged: the largest body, and how long a query may wait."""

    def __init__(self, folder: Path, templates: dict[str, str], values: dict):
        self.folder, self.templates, self.values = folder, templates, values
        self.turn = 0
        self.write()

    def write(self):
        self.turn += 1
        values = self.values | {"body_mib": 20 + self.turn % 2, "query_wait_timeout": 30 + self.turn % 2}
        for name, template in self.templates.items():
            text = AtSign((TEMPLATES / template).read_text()).substitute(values)
            # As a careful hand does it: nobody ever reads half a file.
            unfinished = self.folder / f"{name}.new"
            unfinished.write_text(text)
            unfinished.rename(self.folder / name)


@contextlib.contextmanager
def bookend(bench, stack, values: dict, replicas: list[dict]):
    """One process: front, pool and the checks of both."""
    values["admin_port"] = free_port()
    values["servers"] = "\n      ".join(f"- {{ name: {one['name']}, address: {one['address']} }}" for one in replicas)
    admin = f"http://127.0.0.1:{values['admin_port']}"
    folder = Path(tempfile.mkdtemp(prefix="whole-bookend-", dir=bench.logs))
    templates = {"lb.yaml": "bookend-django-lb.yaml.in", "pool.yaml": "bookend-django-pool.yaml.in"}
    files = Files(folder, templates, values)
    program, log = bench.options.bookend, folder / "bookend.log"

    def reload():
        files.write()
        run([program, "reload", "--admin", admin])

    argv = [program, "run", "--lb", folder / "lb.yaml", "--pool", folder / "pool.yaml"]
    with child(argv, log, env=os.environ | {"DB_PASSWORD": stack.postgres["password"]}) as process:
        wait_until(lambda: answers(f"{admin}/ready"), READY_SECONDS, "bookend", process, log)
        names = [one["name"] for one in replicas]
        yield Side(US, f"http://127.0.0.1:{values['front_port']}", [process.pid], names, reload, [log])


@contextlib.contextmanager
def nginx_and_pgbouncer(bench, stack, values: dict, replicas: list[dict]):
    """Two programs, four processes."""
    values["servers"] = "\n        ".join(f"server {one['address']} {NGINX_SERVER};" for one in replicas)
    with root_folder("whole") as (outside, inside), contextlib.ExitStack() as programs:
        values["folder"] = inside
        user, password = stack.postgres["user"], stack.postgres["password"]
        (outside / "userlist.txt").write_text(f'"{user}" "{password}"\n')
        templates = {"nginx.conf": "nginx-django.conf.in", "pgbouncer.ini": "pgbouncer-django.ini.in"}
        files = Files(outside, templates, values)
        logs = [bench.logs / "whole-nginx.log", bench.logs / "whole-pgbouncer.log"]
        # PgBouncer refuses to be root; setpriv keeps the kernel's promise to end it with us, which a change of user breaks.
        as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=KILL"]
        pgbouncer = in_root([*as_postgres, "pgbouncer", inside / "pgbouncer.ini"])
        # SIGTERM would wait for its clients to leave, who stay.
        pool = programs.enter_context(child(pgbouncer, logs[1], stop=signal.SIGQUIT))
        nginx = in_root(["nginx", "-c", inside / "nginx.conf"])
        # SIGTERM, should we die: killed outright, nginx's master would leave its workers behind.
        front = programs.enter_context(child(nginx, logs[0], death_signal=signal.SIGTERM))

        def reload():
            files.write()
            run([*nginx, "-s", "reload"])
            pool.send_signal(signal.SIGHUP)

        url = f"http://127.0.0.1:{values['front_port']}"
        for process, log in ((front, logs[0]), (pool, logs[1])):
            wait_until(lambda: process.poll() is None and answers(f"{url}/nodb/"), READY_SECONDS, THEM, process, log)
        yield Side(THEM, url, [front.pid, pool.pid], [one["name"] for one in replicas], reload, logs)


@contextlib.contextmanager
def child(argv, log: Path, stop=signal.SIGTERM, **options):
    """A process on any core that ends, by `stop`, with this block. Yields its Popen."""
    process = spawn(pinned(argv, "both"), log=log, **options)
    try:
        yield process
    finally:
        end(process, stop)


def run(argv):
    """A command that must succeed; otherwise what it said."""
    done = subprocess.run([str(part) for part in argv], capture_output=True, text=True, timeout=READY_SECONDS, check=False)
    if done.returncode != 0:
        raise SampleFailed(f"{argv[0]} {argv[-1]}: {done.stdout}{done.stderr}".strip())


def keep_logs(running: Side, folder: Path):
    """Copies a side's logs, for who looks into an error."""
    folder.mkdir(parents=True, exist_ok=True)
    for log in running.logs:
        shutil.copy(log, folder / f"{running.name}-{log.name}")
