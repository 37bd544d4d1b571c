"""The two ends of a counted request: one connection that asks, one that answers, the same bytes every time.

No load generators: here nothing is timed, and one request after the other in single writes is what makes two runs alike. The
client reads each answer to its end before it asks again, so nothing is ever pipelined.
"""
from __future__ import annotations

import socket
import struct
import threading

# What a browser sends, and what Django with its usual middleware answers.
REQUEST = "\r\n".join([
    "GET /items/?page=2&order=-created HTTP/1.1",
    "Host: shop.example.com",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language: en-US,en;q=0.5",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Referer: https://shop.example.com/items/",
    "Cookie: sessionid=4bf92f3577b34da6a3ce929d0e0e4736; csrftoken=oVq1YdMGrNGXZpjW6UYbvC2aJm8RkT0x",
    "", "",
]).encode()
BODY = b"x" * 1024
ANSWER = "\r\n".join([
    "HTTP/1.1 200 OK",
    "date: Mon, 23 Nov 2026 12:00:00 GMT",
    "server: uvicorn",
    "content-type: text/html; charset=utf-8",
    "x-frame-options: DENY",
    f"content-length: {len(BODY)}",
    "vary: Cookie",
    "x-content-type-options: nosniff",
    "referrer-policy: same-origin",
    "", "",
]).encode() + BODY


class HttpServer:
    """Answers every request with ANSWER. A thread for each connection; they end with the program."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        quick(connection)
        waiting = b""
        while part := connection.recv(65536):
            waiting += part
            while b"\r\n\r\n" in waiting:
                _, waiting = waiting.split(b"\r\n\r\n", 1)
                connection.sendall(ANSWER)


class HttpClient:
    """One keep-alive connection; `ask` is one request and its whole answer."""

    def __init__(self, port: int):
        self.connection = quick(socket.create_connection(("127.0.0.1", port), timeout=60))

    def ask(self):
        self.connection.sendall(REQUEST)
        answer = receive(self.connection, lambda so_far: so_far.endswith(BODY))
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"not the expected answer: {answer[:200]!r}")


def message(tag: bytes, body: bytes) -> bytes:
    """One message of PostgreSQL's protocol 3.0."""
    return tag + struct.pack("!i", len(body) + 4) + body


SIMPLE = message(b"Q", b"SELECT 1\0")


def parse(name: bytes) -> bytes:
    return message(b"P", name + b"\0SELECT $1::int\0" + struct.pack("!h", 0))


def bound(name: bytes) -> bytes:
    """The statement, one parameter as text, the answer as text; then the portal's description, its rows, the end."""
    return (
        message(b"B", b"\0" + name + b"\0" + struct.pack("!hhi", 0, 1, 2) + b"17" + struct.pack("!h", 0))
        + message(b"D", b"P\0") + message(b"E", b"\0" + struct.pack("!i", 0))
    )


SYNC = message(b"S", b"")
READY = message(b"Z", b"I")


class PgClient:
    """One logged-in client (trusted: no password is asked); `ask` is one transaction and its whole answer, by `mode`:
    simple, extended, or prepared."""

    def __init__(self, port: int, user: str, database: str, mode: str):
        self.connection = quick(socket.create_connection(("127.0.0.1", port), timeout=60))
        settings = f"user\0{user}\0database\0{database}\0client_encoding\0UTF8\0\0".encode()
        self.request = struct.pack("!ii", len(settings) + 8, 3 << 16) + settings
        self.ask()
        if mode == "prepared":
            self.request = parse(b"counted") + SYNC
            self.ask()
        asked = {"simple": SIMPLE, "extended": parse(b"") + bound(b"") + SYNC, "prepared": bound(b"counted") + SYNC}
        self.request = asked[mode]

    def ask(self):
        self.connection.sendall(self.request)
        answer = receive(self.connection, lambda so_far: so_far.endswith(READY))
        if answer.startswith(b"E"):
            raise RuntimeError(f"the pool refused: {answer[:200]!r}")


def quick(connection):
    """Small writes leave at once."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def receive(connection, is_whole) -> bytes:
    """Reads until `is_whole` says so."""
    answer = b""
    while not is_whole(answer):
        part = connection.recv(65536)
        if not part:
            raise RuntimeError(f"hung up after {answer[:200]!r}")
        answer += part
    return answer
