"""`make demo`: real Django replicas and a real PostgreSQL around Bookend, driven and shown.

    clients -> :8080 bookend -> web-1..3 on :8001-8003 -> :6432 bookend -> a temporary PostgreSQL

Bookend runs with exactly lb.yaml and pool.yaml of the repository; what differs from run to run (the
port of PostgreSQL, the password) comes from the environment. Stays up until Ctrl-C; with
DEMO_EXIT=1 it leaves after the table, with code 0 if every line of it was as promised, else 1.
Whatever it started is gone when it ends, however it ends.
"""
import argparse
import dataclasses
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from client import StackClient, StackError
from demo_checks import CHECKS, Demo, Row
from processes import port_is_free, spawn, tail
from template import REPOSITORY

FRONT, ADMIN, POOL = 8080, 9180, 6432
REPLICA_PORTS = [8001, 8002, 8003]


@dataclasses.dataclass(frozen=True)
class Place:
    """Bookend's two files, and the ports that stand in them."""

    lb: Path = REPOSITORY / "lb.yaml"
    pool: Path = REPOSITORY / "pool.yaml"
    front_port: int = FRONT
    admin_port: int = ADMIN
    pool_port: int = POOL
    replica_ports: tuple[int, ...] = tuple(REPLICA_PORTS)


LIVE_SECONDS = 20
READY_SECONDS = 60
# Bookend exits as soon as all is finished; its own deadline is 30 s.
STOP_SECONDS = 40


class Stop(Exception):
    """Ctrl-C, or a signal that means the same."""


class DemoError(Exception):
    """The demo could not be set up; the text says why."""


def say(text: str):
    print(text, flush=True)


def check_ports():
    """The ports of the two YAML files must be free: say at once which one is not."""
    wanted = {
        FRONT: "the front (lb.yaml, listeners)",
        ADMIN: "the admin pages (lb.yaml, admin)",
        POOL: "the pool (pool.yaml, listen_port)",
        **{port: "a Django replica (lb.yaml, servers)" for port in REPLICA_PORTS},
    }
    taken = [
        f"port {port} is in use; it is needed for {purpose}"
        for port, purpose in wanted.items()
        if not port_is_free(port, "0.0.0.0")
    ]
    if taken:
        raise DemoError("\n".join(taken))


def fetch(path: str, port: int = ADMIN):
    """Returns (status, text), from the admin address by default; status 0 when nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except OSError as error:
        return 0, str(error)


class Bookend:
    """The program itself, as a child."""

    def __init__(self, program: Path, postgres: dict, log: Path, place: Place = Place()):
        self.log = log
        self.place = place
        here = {
            "DB_HOST": postgres["host"],
            "DB_PORT": str(postgres["port"]),
            "DB_READ_HOST": postgres["host"],
            "DB_READ_PORT": str(postgres["port"]),
            "DB_PASSWORD": postgres["password"],
        }
        self.process = spawn(
            [program, "run", "--lb", place.lb, "--pool", place.pool],
            log=log,
            env=os.environ | here,
            cwd=REPOSITORY,
        )

    def wait_for(self, path: str, seconds: float):
        """Returns when the admin address answers 200 there."""
        deadline = time.monotonic() + seconds
        while True:
            status, text = fetch(path, self.place.admin_port)
            if status == 200:
                return
            if self.process.poll() is not None:
                code = self.process.returncode
                raise DemoError(f"bookend ended with code {code}:\n{tail(self.log)}")
            if time.monotonic() > deadline:
                raise DemoError(f"{path} still says {status} {text.strip()}\n{tail(self.log)}")
            time.sleep(0.1)

    def wait_for_replicas(self, names: set, seconds: float):
        """Returns when each of these servers is up: /ready asks for one per upstream alone."""
        deadline = time.monotonic() + seconds
        while True:
            status, text = fetch("/status", self.place.admin_port)
            states = {
                server["name"]: server["state"]
                for upstream in (json.loads(text)["upstreams"] if status == 200 else [])
                for server in upstream["servers"]
            }
            if names <= {name for name, state in states.items() if state == "up"}:
                return
            if time.monotonic() > deadline:
                raise DemoError(f"not every replica is up: {states or text}\n{tail(self.log)}")
            time.sleep(0.1)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def start(program: Path, place: Place = Place(), replica_env: dict | None = None):
    """Yields each part as it is up, so that the caller can end it whatever comes after."""
    say("PostgreSQL: a temporary cluster, migrated and seeded ...")
    env = os.environ | {"DB_PASSWORD": secrets.token_urlsafe(18)}
    stack = StackClient("--pg-only", "--no-template", env=env, new_session=True)
    yield stack
    say(f"bookend run --lb lb.yaml --pool pool.yaml (PostgreSQL on port {stack.postgres['port']})")
    log = Path(stack.ready["home"]) / "logs" / "bookend.log"
    bookend = Bookend(program, stack.postgres, log, place)
    yield bookend
    bookend.wait_for("/live", LIVE_SECONDS)
    say(f"Django: three replicas, DB_HOST=127.0.0.1 DB_PORT={place.pool_port} ...")
    started = stack.send(
        "start_replicas",
        count=len(place.replica_ports),
        ports=list(place.replica_ports),
        db_host="127.0.0.1",
        db_port=place.pool_port,
        env=replica_env,
    )
    bookend.wait_for("/ready", READY_SECONDS)
    # Asked at once: "ready" is a promise that requests are served, not that they soon will be.
    status, text = fetch("/nodb/", place.front_port)
    if status != 200:
        raise DemoError(f"/ready said yes, but a request got {status} {text.strip()}")
    names = {replica["name"] for replica in started["replicas"]}
    bookend.wait_for_replicas(names, READY_SECONDS)


def drive(demo: Demo) -> bool:
    """Runs every check and prints the table. True when all is as promised."""
    say("")
    all_ok = True
    for title, check in CHECKS:
        try:
            row = check(demo)
        except Stop:
            raise
        except Exception as error:  # whatever went wrong is what the line has to say
            row = Row(False, f"{type(error).__name__}: {error}".splitlines()[0])
        all_ok &= row.ok
        say(f"  {'ok  ' if row.ok else 'FAIL'}  {title:<34} {row.seen}")
    return all_ok


def show_addresses(postgres: dict):
    say(f"""
  http://127.0.0.1:{FRONT}/api/items/            Django, through the balancer
  http://127.0.0.1:{FRONT}/db/connections/       database connections, per replica
  http://127.0.0.1:{ADMIN}/                       the admin page
  http://127.0.0.1:{ADMIN}/status                 upstreams, servers, checks
  http://127.0.0.1:{ADMIN}/metrics                for Prometheus
  PGPASSWORD={postgres['password']} psql -h 127.0.0.1 -p {POOL} -U arena_user pgbouncer -c 'SHOW POOLS'
""")


def stay(bookend: Bookend):
    say("Running. Ctrl-C ends it.")
    while bookend.process.poll() is None:
        time.sleep(0.5)
    raise DemoError(f"bookend ended with code {bookend.process.returncode}:\n{tail(bookend.log)}")


def run(program: Path) -> int:
    """Everything between the first and the last process."""
    stack = bookend = demo = None
    all_ok = False
    try:
        check_ports()
        for part in start(program):
            if isinstance(part, StackClient):
                stack = part
            else:
                bookend = part
        demo = Demo(stack, front=FRONT, admin=ADMIN, pool=POOL)
        all_ok = drive(demo)
        show_addresses(stack.postgres)
        if os.environ.get("DEMO_EXIT", "0") in ("", "0"):
            stay(bookend)
    except Stop:
        say("")
    except (DemoError, StackError) as error:
        print(f"demo: {error}", file=sys.stderr, flush=True)
        all_ok = False
    finally:
        for number in ENDINGS:
            signal.signal(number, signal.SIG_IGN)
        if stack:
            say("stopping ...")
        if demo:
            demo.close()
        if bookend:
            bookend.stop()
        if stack:
            stack.close()
    return 0 if all_ok else 1


ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def stop_on_signal(number, frame):
    raise Stop


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--bookend", type=Path, default=REPOSITORY / "target/release/bookend")
    parser.add_argument("--check-ports", action="store_true", help="only tell whether they are free")
    options = parser.parse_args()
    if options.check_ports:
        try:
            check_ports()
        except DemoError as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
        return 0
    for number in ENDINGS:
        signal.signal(number, stop_on_signal)
    return run(options.bookend.resolve())


if __name__ == "__main__":
    sys.exit(main())
