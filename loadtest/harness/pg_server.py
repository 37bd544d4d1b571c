"""PostgreSQL 18 as the database behind the poolers: a cluster per case, copied from a template that is made once.

What is measured is the pooler, so everything that would make the disk speak is off or in memory: the cluster lies in a tmpfs
of the server's own mount namespace, which is gone with the process. The server runs inside the peers' root as user postgres
(it refuses root) and listens on 127.0.0.1 alone; whoever comes by TCP logs in by SCRAM.
"""
from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shutil
import signal
import subprocess
from pathlib import Path

from .machine import PEERS, ROOT, end, free_port, in_root, pinned, root_folder, spawn, wait_until

BIN = Path("/usr/lib/postgresql/18/bin")
SUPERUSER = "postgres"
USER = "bench"
PASSWORD = "a password for measuring"
DATABASE = "bench"
# 1,000,000 accounts, 10 branches: 150 MB, all of it in shared_buffers and the page cache.
SCALE = 10
# One name per content: a template made by older settings is not used.
TEMPLATE = PEERS / "pg-template-1"
START_SECONDS = 30

# What makes runs alike; the reason stands beside each.
SETTINGS = f"""
listen_addresses = '127.0.0.1'
max_connections = 200                # more than any pool here, so that the pooler's limit is what counts
password_encryption = 'scram-sha-256'
shared_buffers = '256MB'             # the whole database fits
fsync = off                          # the disk is not what is measured
synchronous_commit = off
full_page_writes = off
wal_level = minimal                  # the least write-ahead log
max_wal_senders = 0
max_wal_size = '8GB'                 # no checkpoint during a case
checkpoint_timeout = '1h'
autovacuum = off                     # nothing runs in the background during one sample and not during another
jit = off                            # as for queries this small it is anyway
dynamic_shared_memory_type = 'mmap'  # the root has no /dev/shm
huge_pages = off
log_min_messages = warning
ssl_cert_file = 'server.crt'
ssl_key_file = 'server.key'
"""
HBA = """
local all {superuser} trust
local all all scram-sha-256
host  all all 127.0.0.1/32 scram-sha-256
"""


@dataclasses.dataclass(frozen=True)
class Server:
    """Where the database is and who may log in. `socket_dir` is as seen from outside the root; only `superuser` is trusted
    there. `log` is the server's own."""

    host: str
    port: int
    superuser: str
    user: str
    password: str
    database: str
    socket_dir: Path
    log: Path
    pid: int

    def query(self, sql: str) -> list[list[str]]:
        """Asks as superuser, past every pooler; rows of text. For checks before and after a sample, never within one."""
        inside = Path("/") / self.socket_dir.relative_to(ROOT)
        return psql(inside, self.port, self.superuser, "", self.database, sql)


def psql(host, port: int, user: str, password: str, database: str, sql: str, sslmode="disable") -> list[list[str]]:
    """The rows of one query as text; RuntimeError with what psql said if it failed. `host` is as seen inside the root."""
    argv = [BIN / "psql", "-XAtq", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-h", host, "-p", port, "-U", user, "-d", database]
    env = {**os.environ, "PGPASSWORD": password, "PGSSLMODE": sslmode}
    done = subprocess.run(in_root([*argv, "-c", sql]), capture_output=True, text=True, timeout=20, env=env)
    if done.returncode:
        raise RuntimeError(f"psql: {done.stderr.strip()}")
    return [line.split("\t") for line in done.stdout.splitlines()]


@contextlib.contextmanager
def server(bench, *, place: str = "load", tls: bool = False):
    """Starts a fresh copy of the template, bound to `place`; yields its Server. `tls`: it speaks TLS too, with a certificate
    of its own (127.0.0.1, self-signed). About two seconds, once the template is there."""
    make_template(bench)
    with root_folder("postgresql") as (outside, inside):
        log = Path(bench.logs) / "postgresql.log"
        port = free_port()
        argv = [BIN / "postgres", "-D", inside / "data", "-p", port, "-k", inside, "-c", f"ssl={'on' if tls else 'off'}"]
        process = spawn(in_memory(TEMPLATE, outside / "data", pinned(in_root(argv, user="postgres"), place)), log=log)
        try:
            found = Server("127.0.0.1", port, SUPERUSER, USER, PASSWORD, DATABASE, outside, log, process.pid)
            wait_until(lambda: answers(found), START_SECONDS, "PostgreSQL", process, log)
            # The tables come into shared_buffers now, not in the first sample.
            found.query("select count(*) from pgbench_accounts; select count(abalance) from pgbench_accounts where aid > 0")
            yield found
        finally:
            end(process, signal.SIGINT)  # a fast shutdown: it does not wait for clients


def in_memory(template: Path, data: Path, argv: list[str]) -> list[str]:
    """The command in a mount namespace of its own, where `data` is a tmpfs with a copy of the template."""
    data.mkdir()
    script = 'mount -t tmpfs -o mode=0700 bench "$1" && cp -a "$0/." "$1" && chown --reference="$0" "$1"'
    script += ' && shift && exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(template), str(data), *argv]


def answers(found: Server) -> bool:
    try:
        return found.query("select 1") == [["1"]]
    except (RuntimeError, subprocess.TimeoutExpired):
        return False


def make_template(bench) -> None:
    """Runs initdb and `pgbench -i` once for this installation; two runs at once make it once."""
    with open(PEERS / "pg-template.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if TEMPLATE.exists():
            return
        bench.say(f"    making the database template (pgbench -i -s {SCALE})")
        with root_folder("template") as (outside, inside):
            fill(outside, inside, Path(bench.logs) / "template.log")
            new = TEMPLATE.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            subprocess.run(["cp", "-a", outside / "data", new], check=True)
            new.rename(TEMPLATE)


def fill(outside: Path, inside: Path, log: Path) -> None:
    """Makes the cluster in `inside`/data (users, settings, certificate, pgbench's tables, vacuumed) and shuts it down."""
    data = outside / "data"

    def do(*argv, user="postgres", env=None):
        done = subprocess.run(
            in_root(argv, user=user), capture_output=True, text=True, env={**os.environ, **(env or {})}
        )
        if done.returncode:
            raise RuntimeError(f"{argv[0]}: {done.stdout}{done.stderr}")

    do(BIN / "initdb", "-D", inside / "data", "-U", SUPERUSER, "--auth=trust", "--no-locale", "-E", "UTF8", "--no-sync")
    with open(data / "postgresql.conf", "a") as conf:
        conf.write(SETTINGS)
    (data / "pg_hba.conf").write_text(HBA.format(superuser=SUPERUSER))
    do(
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=127.0.0.1",
        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", inside / "data/server.key", "-out", inside / "data/server.crt",
    )
    port = free_port()
    process = spawn(in_root([BIN / "postgres", "-D", inside / "data", "-p", port, "-k", inside], user="postgres"), log=log)
    try:
        maintenance = Server("127.0.0.1", port, SUPERUSER, USER, PASSWORD, "postgres", outside, log, process.pid)
        wait_until(lambda: answers(maintenance), START_SECONDS, "PostgreSQL", process, log)
        maintenance.query(f"create user {USER} password '{PASSWORD}'")
        maintenance.query(f"create database {DATABASE} owner {USER}")
        where = ["-h", inside, "-p", port, "-U", USER, DATABASE]
        do(BIN / "pgbench", "-i", "-q", "-s", SCALE, *where, user=None, env={"PGPASSWORD": PASSWORD})
        dataclasses.replace(maintenance, database=DATABASE).query("vacuum (freeze, analyze)")
        maintenance.query("checkpoint")
    finally:
        end(process, signal.SIGINT)
