"""The Django replicas: uvicorn processes that can be killed and started again on their port."""
import http.client
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from processes import free_port, port_is_free, spawn, tail
from template import ARENA

START_SECONDS = 60
KILL_SECONDS = 40
PORT_TRIES = 5
# Set from the outside these would make a run differ from the next.
NOT_INHERITED = ("DB_", "UVICORN_", "DJANGO_", "CONN_", "REPLICA_NAME", "WEB_THREADS")
UVICORN = (
    "--host=127.0.0.1",
    f"--app-dir={ARENA}",
    "--lifespan=on",
    "--timeout-keep-alive=5",  # uvicorn's default, which an upstream keep-alive must stay below
    "--timeout-graceful-shutdown=30",
    "--no-proxy-headers",  # /echo/ shows what was sent, not what uvicorn makes of it
    "--no-access-log",
    "--log-level=warning",
)


class ReplicaError(Exception):
    """A replica did not do as told."""


class Replica:
    """One replica. `env` is kept, so that a restart is the same replica again."""

    def __init__(self, name: str, port, logs: Path, env: dict):
        self.name = name
        self.fixed_port = port is not None
        self.port = port or free_port()
        self.log = logs / f"{name}.log"
        self.env = dict(env)
        self.process = None

    def describe(self) -> dict:
        return {
            "name": self.name,
            "address": f"127.0.0.1:{self.port}",
            "host": "127.0.0.1",
            "port": self.port,
            "pid": self.process.pid if self.process else None,
            "alive": self.alive(),
            "log": str(self.log),
        }

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def launch(self):
        """Starts the process and does not wait for it."""
        if self.alive():
            raise ReplicaError(f"{self.name} runs already")
        if not port_is_free(self.port):
            raise ReplicaError(f"port {self.port} for {self.name} is in use")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(NOT_INHERITED)}
        env = inherited | self.env | {"REPLICA_NAME": self.name, "PYTHONUNBUFFERED": "1"}
        argv = [sys.executable, "-m", "uvicorn", "arena.asgi:application", *UVICORN]
        self.process = spawn([*argv, f"--port={self.port}"], log=self.log, env=env, cwd=ARENA)

    def answers(self) -> bool:
        """Tells whether this very replica answers HTTP (its database need not)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            connection.request("GET", "/nodb/")
            return connection.getresponse().headers.get("X-Replica") == self.name
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def signal(self, number: signal.Signals, wait: bool):
        """Sends a signal; with `wait` and one that ends it, returns when the process is gone."""
        if not self.alive():
            raise ReplicaError(f"{self.name} does not run")
        self.process.send_signal(number)
        if not wait or number in (signal.SIGSTOP, signal.SIGCONT):
            return
        try:
            self.process.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired:
            raise ReplicaError(f"{self.name} still runs {KILL_SECONDS}s after {number.name}")


def start_together(replicas):
    """Starts several at once and returns when each of them answers."""
    for replica in replicas:
        replica.launch()
    deadline = time.monotonic() + START_SECONDS
    waiting, relaunches = list(replicas), PORT_TRIES
    while waiting:
        for replica in list(waiting):
            if replica.answers():
                waiting.remove(replica)
            elif not replica.alive():
                lost_the_port = "address already in use" in tail(replica.log)
                if replica.fixed_port or not lost_the_port or not relaunches:
                    raise ReplicaError(f"{replica.name} did not start:\n{tail(replica.log)}")
                relaunches -= 1
                replica.port = free_port()
                replica.launch()
        if waiting and time.monotonic() > deadline:
            names = ", ".join(replica.name for replica in waiting)
            raise ReplicaError(f"{names}: no answer after {START_SECONDS}s")
        time.sleep(0.03)
    for replica in replicas:
        replica.fixed_port = True  # from now on others know it
