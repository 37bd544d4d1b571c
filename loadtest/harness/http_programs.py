"""The programs of the HTTP cases: Bookend, its four peers, and the nginx that stands behind each of them.

A configuration is a template of loadtest/peers with @NAME@ filled in; a line that begins with @tls@, @log@ or @nolog@ stays
only where it applies. Every program listens on loopback alone, is pinned to its place, and ends with its context manager.
Bookend and Envoy run on the host, the rest inside the peers' root; files that both sides read lie in a folder of that root.
"""
from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import socket
import subprocess
from pathlib import Path

from .case import NotOffered
from .machine import PEERS, REPOSITORY, ROOT, free_port, in_root, root_folder, running, wait_until

PROGRAMS = ["bookend", "nginx", "haproxy", "caddy", "envoy"]
TEMPLATES = REPOSITORY / "loadtest/peers"
# Descriptors a process may have here, less a few.
FILES = 19_900
START_SECONDS = 15
MIB = 1024 * 1024
# Bodies the upstream has: name and bytes.
FILE_SIZES = {"1m": MIB, "100m": 100 * MIB}
SMALL = "0123456789" * 10


@dataclasses.dataclass(frozen=True)
class Certificate:
    """Files of one self-signed certificate for 127.0.0.1, as seen from here. `pem` is both in one, as HAProxy wants it."""

    certificate: Path
    key: Path
    pem: Path


@dataclasses.dataclass(frozen=True)
class Proxy:
    """A proxy that listens. `pid` is the root of its process tree; `tls_port` is None without a certificate."""

    name: str
    pid: int
    port: int
    tls_port: int | None
    log: Path
    process: subprocess.Popen


def seen_inside(path: Path) -> Path:
    """The path as a program in the peers' root sees it."""
    return Path("/") / path.relative_to(ROOT)


def filled_in(template: Path, values: dict[str, object], marks: set[str]) -> str:
    """The template with its values; marked lines stay when their mark is in `marks`. A name without a value is an error."""
    lines = []
    for line in template.read_text().splitlines():
        for mark in ("tls", "log", "nolog"):
            if line.startswith(f"@{mark}@"):
                line = line.removeprefix(f"@{mark}@") if mark in marks else None
                break
        if line is None:
            continue
        if not line.lstrip().startswith("#"):
            for name, value in values.items():
                line = line.replace(f"@{name}@", str(value))
            if left := re.search(r"@[A-Z_]+@", line):
                raise ValueError(f"{template.name}: nothing is known of {left[0]}")
        lines.append(line)
    return "\n".join(lines) + "\n"


def listens(port: int) -> bool:
    """Whether a connection to the port succeeds."""
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def free_ports(count: int) -> list[int]:
    """So many different free ports."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)


@contextlib.contextmanager
def origin(bench):
    """Yields the port of an nginx on the generator's core: /small (100 bytes), /1m, /100m, /upload, /connections."""
    [port] = free_ports(1)
    with root_folder("origin") as (outside, inside):
        (outside / "files").mkdir()
        for name, size in FILE_SIZES.items():
            (outside / "files" / name).write_bytes(os.urandom(MIB) * (size // MIB))
        values = {"PORT": port, "FOLDER": inside, "FILES": FILES, "SMALL": SMALL}
        (outside / "nginx.conf").write_text(filled_in(TEMPLATES / "nginx-origin.conf.in", values, set()))
        log = bench.logs / "origin.log"
        argv = in_root(["nginx", "-c", inside / "nginx.conf"])
        with running(argv, log=log, place="load") as process:
            wait_until(lambda: listens(port), START_SECONDS, "the upstream", process, log)
            yield port


@contextlib.contextmanager
def certificate():
    """Yields a Certificate (EC P-256, what most sites have) made by the root's openssl."""
    with root_folder("certificate") as (outside, inside):
        subprocess.run(
            in_root([
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "7",
                "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
                "-keyout", inside / "key.pem", "-out", inside / "certificate.pem",
            ]),
            check=True,
            capture_output=True,
        )
        made = Certificate(outside / "certificate.pem", outside / "key.pem", outside / "both.pem")
        made.pem.write_text(made.certificate.read_text() + made.key.read_text())
        for path in (made.certificate, made.key, made.pem):
            path.chmod(0o644)
        yield made


@contextlib.contextmanager
def start(
    bench,
    program: str,
    upstream_port: int,
    *,
    place: str = "proxy",
    threads: int = 1,
    access_log: bool = False,
    websocket_upstream: int | None = None,
    certificate: Certificate | None = None,
    connections: int = FILES,
):
    """Yields the Proxy once it listens. /ws/ and /stream/ go to `websocket_upstream`, all else to `upstream_port`.

    `connections` is how many it must be able to hold, clients and upstream together (nginx and HAProxy want to know).
    Raises NotOffered when the program refuses what is asked of it.
    """
    port, tls_port = free_ports(2)
    with root_folder(f"{program}-{port}") as (outside, inside):
        native = program in ("bookend", "envoy")

        def place_of(path: Path) -> Path:
            return path if native else seen_inside(path)

        values: dict[str, object] = {
            "PORT": port,
            "TLS_PORT": tls_port,
            "UPSTREAM": upstream_port,
            "SOCKETS": websocket_upstream or upstream_port,
            "THREADS": threads,
            "CONNECTIONS": connections,
            "FILES": FILES,
            "FOLDER": outside if native else inside,
        }
        if certificate:
            values["CERTIFICATE"] = place_of(certificate.certificate)
            values["KEY"] = place_of(certificate.key)
            values["PEM"] = place_of(certificate.pem)
        marks = {"log" if access_log else "nolog"} | ({"tls"} if certificate else set())
        template, argv, env = RECIPES[program](bench, threads)
        config = outside / template.removesuffix(".in")
        config.write_text(filled_in(TEMPLATES / template, values, marks))
        if certificate and program == "bookend":
            refuse_unless_accepted(bench, config)
        log = bench.logs / f"{program}-{port}.log"
        argv = [str(part).replace("CONFIG", str(place_of(config))) for part in argv]
        if not native:
            argv = in_root(argv)
        with running(argv, log=log, place=place, env={**os.environ, **env}) as process:
            for each in [port, tls_port] if certificate else [port]:
                wait_until(functools.partial(listens, each), START_SECONDS, program, process, log)
            yield Proxy(program, process.pid, port, tls_port if certificate else None, log, process)


def refuse_unless_accepted(bench, config: Path) -> None:
    """Raises NotOffered with what `bookend check` says of the configuration."""
    said = subprocess.run(
        [bench.options.bookend, "check", "--lb", config], capture_output=True, text=True, check=False
    )
    if said.returncode:
        lines = (said.stdout + said.stderr).replace(f"{config}:", "").strip().splitlines()
        raise NotOffered(f"no TLS: `bookend check` says: {lines[0] if lines else 'nothing'}")


# Each: the template, the command with CONFIG in it, and what its environment must have.
RECIPES = {
    "bookend": lambda bench, threads: (
        "bookend-lb.yaml.in", [bench.options.bookend, "run", "--lb", "CONFIG"], {},
    ),
    "nginx": lambda bench, threads: ("nginx.conf.in", ["nginx", "-c", "CONFIG"], {}),
    # -db: stay in the foreground.
    "haproxy": lambda bench, threads: ("haproxy.cfg.in", ["haproxy", "-db", "-f", "CONFIG"], {}),
    "caddy": lambda bench, threads: (
        "Caddyfile.in",
        ["caddy", "run", "--adapter", "caddyfile", "--config", "CONFIG"],
        # See the template. HOME: it wants to keep certificates of its own somewhere, and makes none here.
        {"GOMAXPROCS": str(threads), "HOME": "/tmp"},
    ),
    # A hot restart would share memory with an earlier Envoy; there is none.
    "envoy": lambda bench, threads: (
        "envoy.yaml.in",
        [envoy(), "-c", "CONFIG", "--concurrency", str(threads), "--disable-hot-restart", "--log-level", "error"],
        {},
    ),
}


def envoy() -> Path:
    """The binary inside the PyPI package; the script beside it is Python and would be in the process tree."""
    found = sorted((PEERS / "venv/lib").glob("python3*/site-packages/envoy/_bin/envoy"))
    if not found:
        raise RuntimeError("no Envoy: run loadtest/peers/install")
    return found[0]
