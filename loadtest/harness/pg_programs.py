"""The poolers: each started with a configuration for a fair fight (loadtest/peers/*.in: every line there says why).

Alike for all: transaction mode, SCRAM from clients and to the server, a pool of the same size, named statements, nothing
written per connection, the same core, the same limit of open files. What a program cannot do raises NotOffered.
"""
from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
import shlex
import shutil
import string
import subprocess
from pathlib import Path

from .case import NotOffered
from .machine import REPOSITORY, free_port, in_root, root_folder, running, tree, wait_until
from .pg_server import TEMPLATE, Server, psql

FILES = REPOSITORY / "loadtest/peers"
# Bytes per read by default: PgBouncer's pkt_buf and Odyssey's readahead (its manual says 8192; an idle client's memory says
# that 1.5 has 4096). Bookend's are not a setting.
BUFFERS = {"pgbouncer": 4096, "odyssey": 4096}
START_SECONDS = 10


@dataclasses.dataclass(frozen=True)
class Pooler:
    """Where clients connect. `pid` is the root of the program's process tree (machine.Cpu, machine.memory count all of it),
    None for the database itself (`direct`); `process` is its Popen, `log` what it wrote."""

    name: str
    pid: int | None
    port: int
    user: str
    password: str
    database: str
    log: Path
    process: object | None
    host: str = "127.0.0.1"
    tls: bool = False

    @property
    def sslmode(self) -> str:
        """What a client says to libpq, so that TLS is used where it is meant and nowhere else."""
        return "require" if self.tls else "disable"

    def server_connections(self, server: Server) -> int:
        """How many connections to the server the program has open now, by the sockets it holds; 0 for `direct`."""
        return sum(len(sockets_to(server.port, one)) for one in tree(self.pid)) if self.pid else 0

    def query(self, sql: str) -> list[list[str]]:
        """One query through the pooler, as its user; rows of text."""
        return psql(self.host, self.port, self.user, self.password, self.database, sql, sslmode=self.sslmode)


def offered(program: str, *, threads: int = 1, processes: int = 1) -> None:
    """Raises NotOffered for what the program cannot do; for `Case.offered`. What only trying tells, `start` raises."""
    if program == "pgbouncer" and threads > 1 and processes == 1:
        raise NotOffered("one process has one thread; see the case with several processes")
    if program != "pgbouncer" and processes > 1:
        raise NotOffered("uses more cores by threads, not by processes")


@contextlib.contextmanager
def start(
    bench, program: str, server: Server, *, place: str = "proxy", threads: int = 1, pool_size: int = 20,
    max_clients: int = 12000, processes: int = 1, tls: bool = False, server_tls: bool | None = None,
    buffer: int | None = None,
):
    """Runs one of bookend, pgbouncer, odyssey, direct before `server`; yields a Pooler once a client could log in and ask.

    `pool_size` is what the whole program may open, however many processes it is. `tls`: on the clients' side, with the
    server's certificate; and to the server, which must then have been started with it, unless `server_tls` says otherwise.
    `buffer` is how many bytes are read at once, where that can be set; None is the program's default.
    """
    offered(program, threads=threads, processes=processes)
    who = {"user": server.user, "password": server.password, "database": server.database}
    if program == "direct":
        yield Pooler("direct", None, server.port, **who, log=server.log, process=None, tls=tls)
        return
    with root_folder(program) as (outside, inside):
        log = Path(bench.logs) / f"{program}.log"
        words = {
            **who, "verifier": verifier(server), "port": free_port(), "server_port": server.port, "threads": threads,
            "pool_size": pool_size // processes, "buffer": buffer or BUFFERS.get(program), "max_clients": max_clients,
            "folder": inside, "reuseport": int(processes > 1),
        }
        sides = Tls(clients=tls, server=tls if server_tls is None else server_tls)
        argv = COMMANDS[program](bench, outside, inside, words, processes, sides)
        with running(with_open_files(argv), log=log, place=place) as process:
            pooler = Pooler(program, process.pid, words["port"], **who, log=log, process=process, tls=tls)
            wait_until(lambda: answers(pooler, processes), START_SECONDS, program, process, log)
            yield pooler


@dataclasses.dataclass(frozen=True)
class Tls:
    """On which sides of the pooler TLS is spoken."""

    clients: bool
    server: bool


def verifier(server: Server) -> str:
    """The user's password as PostgreSQL stores it: what a SCRAM server needs to check a client without hashing anew."""
    return server.query(f"select rolpassword from pg_authid where rolname = '{server.user}'")[0][0]


def bookend(bench, outside: Path, inside: Path, words: dict, processes: int, tls: Tls) -> list:
    lines = []
    if tls.clients or tls.server:
        key, certificate = (outside / name.name for name in certificates(outside, inside))
    if tls.clients:
        lines += ["client_tls_sslmode: require", f"client_tls_key_file: {key}", f"client_tls_cert_file: {certificate}"]
    if tls.server:
        lines += ["server_tls_sslmode: verify-ca", f"server_tls_ca_file: {certificate}"]
    pool = filled("bookend-pool.yaml.in", outside / "pool.yaml", {**words, "tls": "\n  ".join(lines)})
    if lines:
        # The day it knows these keys it is measured; until then its own words say why not.
        check = [bench.options.bookend, "check", "--pool", pool]
        checked = subprocess.run(check, capture_output=True, text=True, timeout=10)
        unknown = [line for line in (checked.stdout + checked.stderr).splitlines() if "_tls_" in line]
        if checked.returncode and unknown:
            raise NotOffered(unknown[0].replace(f"{outside}/", ""))
    return [bench.options.bookend, "run", "--pool", pool]


def pgbouncer(bench, outside: Path, inside: Path, words: dict, processes: int, tls: Tls) -> list:
    (outside / "userlist.txt").write_text(f'"{words["user"]}" "{words["password"]}"\n')
    lines = ["; No TLS asked of the server: the default asks for it on every connection.", "server_tls_sslmode = disable"]
    if tls.clients or tls.server:
        key, certificate = certificates(outside, inside)
    if tls.server:
        lines = ["server_tls_sslmode = verify-ca", f"server_tls_ca_file = {certificate}"]
    if tls.clients:
        lines += ["client_tls_sslmode = require", f"client_tls_key_file = {key}", f"client_tls_cert_file = {certificate}"]
        lines += ["; Only to have one: it is loaded though clients show no certificate."]
        lines += [f"client_tls_ca_file = {certificate}"]
    filled("pgbouncer.ini.in", outside / "pgbouncer.ini", {**words, "tls": "\n".join(lines)})
    one = in_root(["/usr/sbin/pgbouncer", inside / "pgbouncer.ini"], user="postgres")
    if processes == 1:
        return one
    # One parent for all of them, so that what they use is counted as one tree.
    return ["sh", "-c", f"{shlex.join(one)} & " * processes + "wait"]


def odyssey(bench, outside: Path, inside: Path, words: dict, processes: int, tls: Tls) -> list:
    sides = {"client_tls": '\ttls "disable"', "server_tls": '\ttls "disable"'}
    if tls.clients or tls.server:
        key, certificate = certificates(outside, inside)
    if tls.clients:
        sides["client_tls"] = f'\ttls "require"\n\ttls_key_file "{key}"\n\ttls_cert_file "{certificate}"'
    if tls.server:
        sides["server_tls"] = f'\ttls "require"\n\ttls_ca_file "{certificate}"  # it verifies whatever is asked'
    filled("odyssey.conf.in", outside / "odyssey.conf", {**words, **sides})
    return in_root(["/usr/bin/odyssey", inside / "odyssey.conf"], user="postgres")


COMMANDS = {"bookend": bookend, "pgbouncer": pgbouncer, "odyssey": odyssey}


def certificates(outside: Path, inside: Path) -> tuple[Path, Path]:
    """The server's key and certificate, where the pooler's user may read them; as seen from inside."""
    for name in ("server.key", "server.crt"):
        shutil.copyfile(TEMPLATE / name, outside / name)
        shutil.copystat(TEMPLATE / name, outside / name)
        shutil.chown(outside / name, TEMPLATE.stat().st_uid, TEMPLATE.stat().st_gid)
    return inside / "server.key", inside / "server.crt"


def filled(template: str, to: Path, words: dict) -> Path:
    """Writes a configuration made of one of loadtest/peers/*.in."""
    to.write_text(string.Template((FILES / template).read_text()).substitute(words))
    return to


def with_open_files(argv: list) -> list:
    """The command with as many open files as the machine allows; some raise the limit by themselves, some do not."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return ["prlimit", f"--nofile={most}:{most}", *argv]


def answers(pooler: Pooler, processes: int) -> bool:
    """Whether a client is served, and by as many listeners as there are processes."""
    try:
        return listeners(pooler.port) == processes and pooler.query("select 1") == [["1"]]
    except RuntimeError:
        return False


def sockets_to(port: int, pid: int) -> set[str]:
    """The inodes of a process's established TCP sockets whose far end is that port."""
    held = set()
    with contextlib.suppress(OSError):
        for descriptor in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                held.add(os.readlink(descriptor.path))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    there = {f"socket:[{row[9]}]" for row in rows if row[2].endswith(f":{port:04X}") and row[3] == "01"}
    return held & there


def listeners(port: int) -> int:
    """How many sockets listen there (several with SO_REUSEPORT)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(1 for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A")
