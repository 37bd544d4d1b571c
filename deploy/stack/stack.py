"""Runs PostgreSQL and Django replicas for a test or the demo, and leaves nothing behind.

    .venv/bin/python deploy/stack/stack.py --replicas 3

prints one JSON line when all is up:

    {"event":"ready",
     "postgres":{"host","port","socket_dir","superuser","superuser_password","user","password",
                 "database","data_dir","bin_dir","pid","running","log"},
     "replicas":[{"name":"web-1","address":"127.0.0.1:21234","host","port","pid","alive","log"}],
     "home":TEMPORARY FOLDER,"seconds":HOW LONG IT TOOK}

or {"event":"failed","error":TEXT} and exit code 1. Then it reads one JSON command per line from
stdin and answers each with one line, {"event":"ok","cmd":...,...} or {"event":"error","cmd","error"}:

    {"cmd":"start_replicas","count":3,"db_host":"127.0.0.1","db_port":6432,"ports":null,"env":{}}
    {"cmd":"kill","replica":"web-1","signal":"KILL","wait":true}   any signal: TERM, STOP, CONT, ...
    {"cmd":"start","replica":"web-1","env":{}}         on its old port; answers when the replica does
    {"cmd":"stop_postgres","mode":"immediate"}         smart, fast (default) or immediate
    {"cmd":"start_postgres"}                           on its old port; answers when PostgreSQL does
    {"cmd":"restart_postgres","mode":"fast"}
    {"cmd":"status"}                                   {"postgres":...,"replicas":[...]}
    {"cmd":"exit"}

"ok" carries what changed: "replicas" for start_replicas, "replica" for kill and start, "postgres"
for the three about PostgreSQL. End of stdin, SIGTERM and SIGINT mean exit. Should this process be
killed outright, the kernel ends its children, and the next run removes its folder.

The password of arena_user is DB_PASSWORD from the environment, else random.
"""
import argparse
import fcntl
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import template
from postgres import DATABASE, ROLE, SUPERUSER, Cluster, PostgresError
from replicas import Replica, ReplicaError, start_together

PREFIX = "bookend-stack-"
# A unix socket's path must fit sun_path (108 bytes, unix(7)); ours adds some 40 to the folder.
FOLDER_PATH_MAX = 60


class Stop(Exception):
    """A signal, or whoever listens to us, says it is enough."""


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--replicas", type=int, default=3, metavar="N")
    parser.add_argument("--replica-ports", default="", help="8001,8002,8003 (default: free ones)")
    parser.add_argument("--no-replicas", "--pg-only", action="store_true", dest="pg_only")
    parser.add_argument("--db-host", help="where the replicas connect (default: PostgreSQL)")
    parser.add_argument("--db-port", type=int)
    choices = ("scram-sha-256", "md5", "trust")
    parser.add_argument("--auth", choices=choices, default=choices[0])
    parser.add_argument("--max-connections", type=int, default=100)
    parser.add_argument("--setting", action="append", default=[], metavar="NAME=VALUE",
                        help="a PostgreSQL setting, may be repeated")
    parser.add_argument("--replica-env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--no-template", action="store_true",
                        help="initdb, migrate and seed now instead of copying a cached result")
    parser.add_argument("--log-dir", type=Path, help="keep the logs here")
    return parser.parse_args()


def temporary_home():
    """Returns a new folder and the lock that says it is in use; removes what dead runs left."""
    base = Path(tempfile.gettempdir())
    if len(str(base)) > FOLDER_PATH_MAX:
        base = Path("/tmp")
    for old in base.glob(f"{PREFIX}*"):
        remove_if_abandoned(old)
    home = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    # Locked before it has the name that others look for.
    lock = open(home / "lock.new", "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    (home / "lock.new").rename(home / "lock")
    # The server may run as another user and must get through to its part.
    home.chmod(0o755)
    return home, lock


def remove_if_abandoned(folder: Path):
    try:
        if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
            return
        with open(folder / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        pass  # in use, or gone meanwhile


class Stack:
    """All that one run started."""

    def __init__(self, options):
        self.options = options
        self.home, self.lock = temporary_home()
        self.logs = options.log_dir or self.home / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.password = os.environ.get("DB_PASSWORD") or secrets.token_urlsafe(18)
        self.superuser_password = secrets.token_urlsafe(18)
        self.cluster = None
        self.replicas = {}

    def start(self):
        options = self.options
        self.cluster = Cluster(
            self.home / "pg",
            self.logs,
            auth=options.auth,
            max_connections=options.max_connections,
            settings=dict(pair.split("=", 1) for pair in options.setting),
        )
        template.fill(self.cluster, use_template=not options.no_template)
        self.cluster.configure()
        self.cluster.start()
        self.cluster.set_passwords({ROLE: self.password, SUPERUSER: self.superuser_password})
        if not options.pg_only:
            ports = [int(port) for port in options.replica_ports.split(",") if port]
            env = dict(pair.split("=", 1) for pair in options.replica_env)
            self.start_replicas(
                len(ports) or options.replicas, options.db_host, options.db_port, ports, env
            )

    def start_replicas(self, count, db_host=None, db_port=None, ports=None, env=None) -> list:
        """Adds replicas web-K, web-K+1, ... that connect to the given address."""
        if ports and len(ports) != count:
            raise ReplicaError(f"{count} replicas, but {len(ports)} ports")
        settings = {
            "DB_HOST": db_host or "127.0.0.1",
            "DB_PORT": str(db_port or self.cluster.port),
            "DB_NAME": DATABASE,
            "DB_USER": ROLE,
            "DB_PASSWORD": self.password,
            **{name: str(value) for name, value in (env or {}).items()},
        }
        first = len(self.replicas) + 1
        fresh = [
            Replica(f"web-{first + i}", ports[i] if ports else None, self.logs, settings)
            for i in range(count)
        ]
        self.replicas.update({replica.name: replica for replica in fresh})
        try:
            start_together(fresh)
        except ReplicaError:
            for replica in fresh:
                self.end(replica)
                del self.replicas[replica.name]
            raise
        return fresh

    def end(self, replica: Replica):
        if replica.alive():
            replica.process.kill()
            replica.process.wait()

    def describe_postgres(self) -> dict:
        cluster = self.cluster
        return {
            "host": "127.0.0.1",
            "port": cluster.port,
            "socket_dir": str(cluster.socket_dir),
            "superuser": SUPERUSER,
            "superuser_password": self.superuser_password,
            "user": ROLE,
            "password": self.password,
            "database": DATABASE,
            "data_dir": str(cluster.data),
            "bin_dir": str(cluster.bin),
            "pid": cluster.process.pid,
            "running": cluster.running(),
            "log": str(cluster.log),
        }

    def describe(self) -> dict:
        return {
            "postgres": self.describe_postgres(),
            "replicas": [replica.describe() for replica in self.replicas.values()],
        }

    def named(self, command) -> Replica:
        try:
            return self.replicas[command["replica"]]
        except KeyError:
            raise ReplicaError(f"no such replica; there are: {', '.join(self.replicas)}")

    def obey(self, command: dict) -> dict:
        """Carries out one command and returns what its answer adds."""
        match command.get("cmd"):
            case "start_replicas":
                fresh = self.start_replicas(
                    int(command.get("count", 3)),
                    command.get("db_host"),
                    command.get("db_port"),
                    command.get("ports"),
                    command.get("env"),
                )
                return {"replicas": [replica.describe() for replica in fresh]}
            case "kill":
                replica = self.named(command)
                name = command.get("signal", "KILL").removeprefix("SIG")
                if f"SIG{name}" not in signal.Signals.__members__:
                    raise ReplicaError(f"no such signal: {name}")
                replica.signal(signal.Signals[f"SIG{name}"], command.get("wait", True))
                return {"replica": replica.describe()}
            case "start":
                replica = self.named(command)
                extra = command.get("env") or {}
                replica.env.update({name: str(value) for name, value in extra.items()})
                start_together([replica])
                return {"replica": replica.describe()}
            case "stop_postgres":
                self.stop_postgres(command)
            case "start_postgres":
                self.cluster.start()
            case "restart_postgres":
                self.stop_postgres(command)
                self.cluster.start()
            case "status":
                return self.describe()
            case "exit":
                raise Stop
            case other:
                raise ReplicaError(f"unknown command: {other!r}")
        return {"postgres": self.describe_postgres()}

    def stop_postgres(self, command):
        mode = command.get("mode", "fast")
        if mode not in ("smart", "fast", "immediate"):
            raise PostgresError(f"unknown mode: {mode}")
        self.cluster.stop(mode)

    def close(self):
        """Ends everything; what it served is thrown away, so nobody is asked politely."""
        for replica in self.replicas.values():
            self.end(replica)
        if self.cluster:
            self.cluster.stop("immediate")
        shutil.rmtree(self.home, ignore_errors=True)


def say(**fields):
    print(json.dumps(fields), flush=True)


def serve(stack: Stack):
    """Answers commands until there are no more."""
    for line in sys.stdin:
        if not line.strip():
            continue
        name = None
        try:
            command = json.loads(line)
            name = command.get("cmd")
            say(event="ok", cmd=name, **stack.obey(command))
        except (PostgresError, ReplicaError, ValueError, TypeError, AttributeError) as error:
            say(event="error", cmd=name, error=str(error))


def stop_on_signal(number, frame):
    raise Stop


def main() -> int:
    began = time.monotonic()
    options = parse_arguments()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop_on_signal)
    stack = None
    try:
        stack = Stack(options)
        stack.start()
        seconds = round(time.monotonic() - began, 2)
        say(event="ready", **stack.describe(), home=str(stack.home), seconds=seconds)
        serve(stack)
        return 0
    except (Stop, BrokenPipeError):
        return 0
    except (PostgresError, ReplicaError, OSError) as error:
        say(event="failed", error=str(error))
        return 1
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if stack:
            stack.close()


if __name__ == "__main__":
    code = main()
    try:
        sys.stdout.close()
    except BrokenPipeError:
        pass
    sys.exit(code)
