"""Holds idle database clients: a program of its own, so that what it costs is not what is measured.

    python pg_hold.py --port 6432 --user u --database d --count 10000 --first 100 <<pipe, password in PGPASSWORD>>

Logs in `first` clients, says so, waits for a line on stdin, logs in the rest up to `count`, says so, and holds them all until
stdin closes. Every client logs in by SCRAM-SHA-256 as RFC 7677 has it, proofs checked on both sides, asks one query and reads
its whole answer; after that it only sits there. Ten thousand of psycopg's connections would take a gigabyte and a minute of the
core that PostgreSQL needs; these are asyncio protocols of a few kilobytes.

On stdout one JSON line each: {"event": "first" | "all", "clients", "since" (seconds since 1970), "seconds", "error"} and at last
{"event": "end", "lost"}.
`clients` is how many got their answer, `error` the first thing that went wrong or null.
"""
from __future__ import annotations

import argparse
import asyncio
import base64
import functools
import hashlib
import hmac
import json
import os
import resource
import secrets
import socket
import ssl
import struct
import sys
import time

# Logins under way at once, unless asked for otherwise: enough to keep one core of a pooler busy, far below any listen backlog.
AT_ONCE = 64
LOGIN_SECONDS = 30
QUERY = b"SELECT 1"
# Descriptors this program needs beside one for each client.
OWN_FILES = 50

GS2_HEADER = b"n,,"
AUTHENTICATION_OK, SASL, SASL_CONTINUE, SASL_FINAL = 0, 10, 11, 12
SSL_REQUEST = 80877103


class Refused(Exception):
    """The server said no, or something that is not the protocol."""


# --- SCRAM-SHA-256, the client's side: RFC 5802 section 3 with RFC 7677's hash -----------------------------------------------


def digest(key: bytes, text: bytes) -> bytes:
    return hmac.new(key, text, hashlib.sha256).digest()


@functools.lru_cache(maxsize=64)
def salted(password: bytes, salt: bytes, rounds: int) -> bytes:
    """The costly step, once per salt: a server that stores a verifier sends the same salt each time."""
    return hashlib.pbkdf2_hmac("sha256", password, salt, rounds)


def attributes(message: bytes) -> dict[bytes, bytes]:
    """`r=..,s=..,i=..` as a mapping."""
    return dict(part.split(b"=", 1) for part in message.split(b",") if b"=" in part)


class Scram:
    """One exchange: `first()` is sent, `final(server_first)` is sent, `check(server_final)` raises if the server lied.

    PostgreSQL takes the user from the startup packet and ignores the one here, so it is empty by default.
    """

    def __init__(self, password: bytes, nonce: bytes | None = None, user: bytes = b""):
        self.password = password
        self.nonce = nonce or base64.b64encode(secrets.token_bytes(18))
        self.first_bare = b"n=" + user + b",r=" + self.nonce
        self.server_signature = b""

    def first(self) -> bytes:
        return GS2_HEADER + self.first_bare

    def final(self, server_first: bytes) -> bytes:
        said = attributes(server_first)
        if not said[b"r"].startswith(self.nonce) or said[b"r"] == self.nonce:
            raise Refused("the server's nonce does not continue ours")
        key = salted(self.password, base64.b64decode(said[b"s"]), int(said[b"i"]))
        without_proof = b"c=" + base64.b64encode(GS2_HEADER) + b",r=" + said[b"r"]
        message = b",".join((self.first_bare, server_first, without_proof))
        client_key = digest(key, b"Client Key")
        signature = digest(hashlib.sha256(client_key).digest(), message)
        self.server_signature = digest(digest(key, b"Server Key"), message)
        proof = bytes(a ^ b for a, b in zip(client_key, signature))
        return without_proof + b",p=" + base64.b64encode(proof)

    def check(self, server_final: bytes) -> None:
        said = attributes(server_final).get(b"v", b"")
        if not hmac.compare_digest(base64.b64decode(said), self.server_signature):
            raise Refused("the server's signature is wrong")


# --- The protocol: https://www.postgresql.org/docs/current/protocol-message-formats.html --------------------------------------


def frame(tag: bytes, body: bytes) -> bytes:
    return tag + struct.pack("!I", len(body) + 4) + body


def startup(user: str, database: str) -> bytes:
    body = struct.pack("!I", 3 << 16)
    for word in ("user", user, "database", database):
        body += word.encode() + b"\0"
    return frame(b"", body + b"\0")


def frames(buffer: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """([(tag, body)] of the whole messages at the front, what is left)."""
    found, at = [], 0
    while len(buffer) - at >= 5:
        end = at + 1 + struct.unpack_from("!I", buffer, at + 1)[0]
        if end > len(buffer):
            break
        found.append((buffer[at:at + 1], buffer[at + 5:end]))
        at = end
    return found, buffer[at:]


class Client(asyncio.Protocol):
    """One connection. `answered` resolves once the login and the query are through; then nothing is ever sent again."""

    __slots__ = ("account", "answered", "buffer", "scram", "rows", "ready", "transport")
    lost = 0

    def __init__(self, account, answered: asyncio.Future):
        self.account = account
        self.answered: asyncio.Future | None = answered
        self.buffer = b""
        self.scram: Scram | None = Scram(account.password)
        self.rows = 0
        self.ready = False
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport
        transport.write(startup(self.account.user, self.account.database))

    def data_received(self, data):
        found, self.buffer = frames(self.buffer + data)
        try:
            for tag, body in found:
                self.message(tag, body)
        except (Refused, KeyError, ValueError) as error:
            self.settle(error)
            self.transport.abort()

    def connection_lost(self, exc):
        if self.answered is not None:
            self.settle(Refused(f"closed during login: {exc}"))
        else:
            Client.lost += 1

    def message(self, tag: bytes, body: bytes):
        if tag == b"R":
            self.authentication(struct.unpack_from("!I", body)[0], body[4:])
        elif tag == b"E":
            raise Refused(body.replace(b"\0", b" ").decode(errors="replace"))
        elif tag == b"D":
            self.rows += 1
        elif tag == b"Z" and not self.ready:
            self.ready = True
            self.transport.write(frame(b"Q", QUERY + b"\0"))
        elif tag == b"Z":
            self.settle(None if self.rows == 1 else Refused(f"{self.rows} rows instead of 1"))

    def authentication(self, kind: int, body: bytes):
        if kind == SASL:
            if b"SCRAM-SHA-256" not in body.split(b"\0"):
                raise Refused(f"no SCRAM-SHA-256 among {body!r}")
            first = self.scram.first()
            self.transport.write(frame(b"p", b"SCRAM-SHA-256\0" + struct.pack("!I", len(first)) + first))
        elif kind == SASL_CONTINUE:
            self.transport.write(frame(b"p", self.scram.final(body)))
        elif kind == SASL_FINAL:
            self.scram.check(body)
            self.scram = None
        elif kind != AUTHENTICATION_OK or self.scram is not None:
            raise Refused(f"authentication {kind} instead of SCRAM")

    def settle(self, error):
        """Resolves `answered` once and lets go of all that an idle client does not need."""
        answered, self.answered = self.answered, None
        self.buffer = b""
        if answered is not None and not answered.done():
            if error is None:
                answered.set_result(None)
            else:
                answered.set_exception(error)


async def log_in(account, clients: list[Client]) -> None:
    """Adds one client that has had its answer, or raises."""
    loop = asyncio.get_running_loop()
    answered = loop.create_future()
    if account.tls:
        where = {"sock": await secured(account), "ssl": account.tls, "server_hostname": ""}
    else:
        where = {"host": account.host, "port": account.port}
    _, client = await loop.create_connection(lambda: Client(account, answered), **where)
    await asyncio.wait_for(answered, LOGIN_SECONDS)
    clients.append(client)


async def secured(account) -> socket.socket:
    """A connection whose server has said that it speaks TLS; the handshake is still to come."""
    loop = asyncio.get_running_loop()
    connection = socket.socket()
    connection.setblocking(False)
    await loop.sock_connect(connection, (account.host, account.port))
    await loop.sock_sendall(connection, struct.pack("!II", 8, SSL_REQUEST))
    if await loop.sock_recv(connection, 1) != b"S":
        raise Refused("no TLS")
    return connection


def encrypted() -> ssl.SSLContext:
    """TLS that takes any certificate, as libpq's sslmode=require does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def log_in_many(account, clients: list[Client], count: int) -> str | None:
    """Brings `clients` to `count`, `at_once` logins under way; stops at the first error and returns it."""
    left = iter(range(count - len(clients)))
    errors: list[str] = []

    async def worker():
        for _ in left:
            if errors:
                return
            try:
                await log_in(account, clients)
            except (Refused, OSError, asyncio.TimeoutError) as error:
                errors.append(f"{type(error).__name__}: {error}")

    await asyncio.gather(*(worker() for _ in range(account.at_once)))
    return errors[0] if errors else None


def say(event: str, **said):
    print(json.dumps({"event": event, **said}), flush=True)


async def hold(account) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (account.count + OWN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    clients: list[Client] = []
    for event, count in (("first", account.first), ("all", account.count)):
        began, since = time.monotonic(), time.time()
        before = len(clients)
        error = await log_in_many(account, clients, count)
        seconds = time.monotonic() - began
        say(event, clients=len(clients) - Client.lost, new=len(clients) - before, since=since, seconds=seconds, error=error)
        if not await stdin.readline():
            break
    say("end", lost=Client.lost)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--first", type=int, default=100)
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="logins under way (%(default)s)")
    parser.add_argument("--tls", action="store_true")
    account = parser.parse_args()
    account.tls = encrypted() if account.tls else None
    account.password = os.environ["PGPASSWORD"].encode()
    asyncio.run(hold(account))


if __name__ == "__main__":
    main()
