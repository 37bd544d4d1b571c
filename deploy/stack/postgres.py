"""A temporary PostgreSQL cluster: its own data directory, socket directory and port.

It never touches a cluster that exists, and needs no privilege: as root (whom PostgreSQL refuses)
the server runs as `postgres` or `nobody`, otherwise as whoever calls. Over TCP clients log in as
`auth` says; over the unix socket, whose directory only we can enter, they are trusted.
"""
import os
import pwd
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psycopg
from psycopg import sql

from processes import free_port, spawn, tail

SUPERUSER = "postgres"
ROLE = "arena_user"
DATABASE = "arena_db"
START_SECONDS = 60
STOP_SECONDS = 30
STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
PORT_TRIES = 5

# Nothing here survives the run, so durability buys nothing.
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "jit": "off",
    "listen_addresses": "127.0.0.1",
    "log_line_prefix": "%m [%p] %u@%d ",
    "logging_collector": "off",
}


class PostgresError(Exception):
    """The server is missing, or did not do as told."""


def binaries() -> Path:
    """Returns the folder of the newest PostgreSQL server on this machine (PG_BIN overrides)."""
    if os.environ.get("PG_BIN"):
        return Path(os.environ["PG_BIN"])

    def version(folder: Path):
        return [int(part) for part in re.findall(r"\d+", folder.parent.name)]

    found = [f for f in Path("/usr/lib/postgresql").glob("*/bin") if (f / "initdb").exists()]
    if found:
        return max(found, key=version)
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    raise PostgresError("no PostgreSQL server found: run scripts/setup, or set PG_BIN")


def account():
    """Returns whom the server runs as: None means ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise PostgresError("running as root, and there is neither a user postgres nor nobody")


class Cluster:
    """One cluster below `home`. Life: create or copied data, configure, start, stop, start, ..."""

    def __init__(self, home: Path, logs: Path, *, auth: str, max_connections: int, settings: dict):
        self.bin = binaries()
        self.account = account()
        self.home = home
        self.data = home / "data"
        self.socket_dir = home / "socket"
        self.log = logs / "postgres.log"
        self.auth = auth
        self.settings = SETTINGS | {"max_connections": str(max_connections)} | settings
        self.settings["unix_socket_directories"] = str(self.socket_dir)
        self.port = free_port()
        self.process = None
        for folder in (home, self.socket_dir):
            folder.mkdir(mode=0o700)
            if self.account:
                os.chown(folder, self.account.pw_uid, self.account.pw_gid)

    def create(self):
        """Makes an empty cluster."""
        argv = [self.bin / "initdb", "-D", self.data, "-U", SUPERUSER, "-A", "trust", "--no-sync"]
        argv += ["--encoding=UTF8", "--locale=C", "--wal-segsize=1"]
        initdb = spawn(argv, log=self.log, account=self.account, cwd="/")
        if initdb.wait(START_SECONDS) != 0:
            raise PostgresError(f"initdb failed:\n{tail(self.log)}")

    def configure(self):
        """Writes what depends on this run; what the data directory holds already stays."""
        method = {"md5": "md5"}.get(self.auth, "scram-sha-256")
        self.settings["password_encryption"] = method
        lines = ["local all all trust", "local replication all trust"]
        for database in ("all", "replication"):
            for address in ("127.0.0.1/32", "::1/128"):
                lines.append(f"host {database} all {address} {self.auth}")
        self._write("pg_hba.conf", lines)
        self._write("stack.conf", [f"{k} = '{v}'" for k, v in self.settings.items()])
        main = self.data / "postgresql.conf"
        include = "include_if_exists = 'stack.conf'"
        if include not in main.read_text():
            with open(main, "a") as text:
                text.write(f"\n{include}\n")

    def _write(self, name: str, lines):
        path = self.data / name
        path.write_text("\n".join(lines) + "\n")
        if self.account:
            os.chown(path, self.account.pw_uid, self.account.pw_gid)

    def start(self):
        """Starts the server and returns once it answers queries."""
        if self.running():
            raise PostgresError("PostgreSQL runs already")
        first_start = self.process is None
        for _ in range(PORT_TRIES):
            argv = [self.bin / "postgres", "-D", self.data, "-p", self.port]
            self.process = spawn(
                argv, log=self.log, account=self.account, cwd="/", death_signal=signal.SIGQUIT
            )
            if self._answers():
                return
            # Clients know the port after the first start, so only then may it be another one.
            if not first_start or "Address already in use" not in tail(self.log):
                break
            self.port = free_port()
        raise PostgresError(f"PostgreSQL did not start:\n{tail(self.log)}")

    def _answers(self) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while self.running() and time.monotonic() < deadline:
            try:
                self.superuser("postgres").close()
                return True
            except psycopg.OperationalError:
                time.sleep(0.02)
        return False

    def superuser(self, database: str = DATABASE):
        """Returns a connection of the superuser, over the socket."""
        return psycopg.connect(
            host=str(self.socket_dir),
            port=self.port,
            user=SUPERUSER,
            dbname=database,
            autocommit=True,
            connect_timeout=5,
        )

    def create_database(self):
        """Makes the sample project's role and database."""
        with self.superuser("postgres") as connection:
            role, database = sql.Identifier(ROLE), sql.Identifier(DATABASE)
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {}").format(database, role)
            )

    def set_passwords(self, passwords: dict):
        """Sets each role's password, stored the way this run's `auth` needs it."""
        with self.superuser("postgres") as connection:
            for role, password in passwords.items():
                statement = sql.SQL("ALTER ROLE {} PASSWORD {}")
                connection.execute(statement.format(sql.Identifier(role), sql.Literal(password)))

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self, mode: str = "fast"):
        """Stops the server: `smart`, `fast` or `immediate`, as pg_ctl means them."""
        if not self.running():
            return
        self.process.send_signal(STOP_SIGNALS[mode])
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(STOP_SECONDS)
