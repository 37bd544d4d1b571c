"""The poolers: each started with a configuration for a fair fight (loadtest/peers/*.in, where every line says why it is there).

Alike for all: transaction mode, SCRAM from clients and to the server, a pool of the same size, named statements, nothing written
per connection, the same core, the same limit of open files. What a program cannot do raises NotOffered.
"""
from __future__ import annotations

import contextlib
import dataclasses
import resource
import shlex
import shutil
import string
from pathlib import Path

from .case import NotOffered
from .machine import REPOSITORY, free_port, in_root, root_folder, running, wait_until
from .pg_server import TEMPLATE, Server, psql

FILES = REPOSITORY / "loadtest/peers"
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

    def query(self, sql: str) -> list[list[str]]:
        """One query through the pooler, as its user; rows of text."""
        return psql(self.host, self.port, self.user, self.password, self.database, sql)


def offered(program: str, *, threads: int = 1, processes: int = 1, tls: bool = False) -> None:
    """Raises NotOffered for what the program cannot do; for `Case.offered`."""
    if program == "bookend" and tls:
        raise NotOffered("the pool speaks no TLS yet, neither to clients nor to the server")
    if program == "pgbouncer" and threads > 1 and processes == 1:
        raise NotOffered("one process has one thread; see the case with several processes")
    if program != "pgbouncer" and processes > 1:
        raise NotOffered("uses more cores by threads, not by processes")


@contextlib.contextmanager
def start(
    bench, program: str, server: Server, *, place: str = "proxy", threads: int = 1, pool_size: int = 20,
    max_clients: int = 12000, processes: int = 1, tls: bool = False,
):
    """Runs one of bookend, pgbouncer, odyssey, direct before `server`; yields a Pooler once a client could log in and ask.

    `pool_size` is what the whole program may open, however many processes it is. `tls`: on both sides, with the server's
    certificate (the server must have been started with it).
    """
    offered(program, threads=threads, processes=processes, tls=tls)
    who = {"user": server.user, "password": server.password, "database": server.database}
    if program == "direct":
        yield Pooler("direct", None, server.port, **who, log=server.log, process=None)
        return
    with root_folder(program) as (outside, inside):
        log = Path(bench.logs) / f"{program}.log"
        words = {
            **who, "port": free_port(), "server_port": server.port, "threads": threads, "pool_size": pool_size // processes,
            "max_clients": max_clients, "folder": inside, "reuseport": int(processes > 1),
        }
        argv = COMMANDS[program](bench, outside, inside, words, processes, tls)
        with running(with_open_files(argv), log=log, place=place) as process:
            pooler = Pooler(program, process.pid, words["port"], **who, log=log, process=process)
            wait_until(lambda: answers(pooler, processes), START_SECONDS, program, process, log)
            yield pooler


def bookend(bench, outside: Path, inside: Path, words: dict, processes: int, tls: bool) -> list:
    return [bench.options.bookend, "run", "--pool", filled("bookend-pool.yaml.in", outside / "pool.yaml", words)]


def pgbouncer(bench, outside: Path, inside: Path, words: dict, processes: int, tls: bool) -> list:
    (outside / "userlist.txt").write_text(f'"{words["user"]}" "{words["password"]}"\n')
    lines = ""
    if tls:
        key, certificate = certificates(outside, inside)
        lines = f"client_tls_sslmode = require\nclient_tls_key_file = {key}\nclient_tls_cert_file = {certificate}\n"
        lines += f"; Only to have one: it is loaded though clients show no certificate.\nclient_tls_ca_file = {certificate}\n"
        lines += f"server_tls_sslmode = verify-ca\nserver_tls_ca_file = {certificate}"
    else:
        lines = "; No TLS asked of the server: the default asks for it on every connection.\nserver_tls_sslmode = disable"
    filled("pgbouncer.ini.in", outside / "pgbouncer.ini", {**words, "tls": lines})
    one = in_root(["/usr/sbin/pgbouncer", inside / "pgbouncer.ini"], user="postgres")
    if processes == 1:
        return one
    # One parent for all of them, so that what they use is counted as one tree.
    return ["sh", "-c", f"{shlex.join(one)} & " * processes + "wait"]


def odyssey(bench, outside: Path, inside: Path, words: dict, processes: int, tls: bool) -> list:
    sides = {"client_tls": '\ttls "disable"', "server_tls": '\ttls "disable"'}
    if tls:
        key, certificate = certificates(outside, inside)
        sides["client_tls"] = f'\ttls "require"\n\ttls_key_file "{key}"\n\ttls_cert_file "{certificate}"'
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


def listeners(port: int) -> int:
    """How many sockets listen there (several with SO_REUSEPORT)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(1 for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A")
