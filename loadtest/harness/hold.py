"""Holds many connections open, as a process of its own, and says in JSON lines what became of them.

    python -m harness.hold KIND PORT COUNT [--in-flight 64]

KIND is what each connection does before it only stays:
    requests     one GET and its whole answer
    handshakes   a WebSocket handshake
    websockets   the same, then one message there and back
    streams      reads server-sent events of stream_origin's form, and goes on reading

Once all are open it prints {"opened", "failed", "errors", "seconds", "p50_ms", "p99_ms"}; times are from connect to the
answer. For each line on stdin it prints what happened since the last one: {"open"} and, for streams, what `Delivered` lists.
When stdin ends it closes all and exits: so it never outlives whom it works for.
"""
from __future__ import annotations

import argparse
import asyncio
import gc
import json
import re
import resource
import sys
import time

from . import websocket

GET = b"GET / HTTP/1.1\r\nHost: localhost:8080\r\n" + websocket.BROWSER + b"\r\n"
SUBSCRIBE = b"GET /stream/ HTTP/1.1\r\nHost: localhost:8080\r\nAccept: text/event-stream\r\n\r\n"
EVENT = re.compile(rb"data: (\d+) (\d+)")
OPEN_TIMEOUT_SECONDS = 20.0
ERRORS_SHOWN = 5


def percentile(ordered: list[float], share: float) -> float | None:
    """The value that `share` of an ordered list do not exceed (nearest rank)."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


class Delivered:
    """Events of all streams since the last report. `lost`: numbers skipped, repeated, or bytes that are no event."""

    def __init__(self):
        self.began = time.monotonic()
        self.delays_ns: list[int] = []
        self.lost = 0
        self.of_stream: dict[int, int] = {}

    def add(self, stream: int, delay_ns: int, in_order: bool):
        self.delays_ns.append(delay_ns)
        self.lost += not in_order
        self.of_stream[stream] = self.of_stream.get(stream, 0) + 1

    def report(self) -> dict:
        """`streams` counts those that had an event, `least` is the number of events of the poorest of them."""
        ordered = sorted(self.delays_ns)
        milliseconds = {name: percentile(ordered, share) for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99))}
        return {
            "seconds": time.monotonic() - self.began,
            "events": len(ordered),
            "lost": self.lost,
            "streams": len(self.of_stream),
            "least": min(self.of_stream.values(), default=0),
            **{name: value / 1e6 if value is not None else None for name, value in milliseconds.items()},
        }


class Held(asyncio.Protocol):
    """One connection. `opened` is done once it has come as far as its kind asks, or holds why it did not."""

    asks = b""

    def __init__(self, holder: Holder):
        self.holder = holder
        self.buffer = b""
        self.opened = asyncio.get_running_loop().create_future()
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport
        transport.write(self.asks)

    def connection_lost(self, error):
        self.fail(error or ConnectionError("closed before the answer"))
        self.holder.open -= 1

    def fail(self, error: Exception):
        if not self.opened.done():
            self.opened.set_exception(error)

    def succeed(self):
        if not self.opened.done():
            self.opened.set_result(None)

    def data_received(self, data):
        self.buffer += data
        head, ends, rest = self.buffer.partition(b"\r\n\r\n")
        if ends and not self.opened.done():
            self.answered(head, rest)

    def answered(self, head: bytes, rest: bytes):
        """Called with a whole head, and again with every further piece until `opened` is done."""
        raise NotImplementedError


class Request(Held):
    asks = GET

    def answered(self, head, rest):
        if not head.startswith(b"HTTP/1.1 200 "):
            self.fail(ConnectionError(f"answered {head[:80]!r}"))
        elif websocket.header(head, b"connection") == b"close":
            self.fail(ConnectionError("the proxy does not keep the connection"))
        elif rest.endswith(b"ok\n") or rest.endswith(b"ok\n\r\n0\r\n\r\n"):
            self.succeed()


class Handshake(Held):
    asks = websocket.HANDSHAKE

    def answered(self, head, rest):
        if websocket.agrees(head):
            self.succeed()
        else:
            self.fail(ConnectionError(f"answered {head[:80]!r}"))


class WebSocket(Held):
    asks = websocket.HANDSHAKE
    sent = False

    def answered(self, head, rest):
        if not websocket.agrees(head):
            self.fail(ConnectionError(f"answered {head[:80]!r}"))
        elif not self.sent:
            self.sent = True
            self.transport.write(websocket.PING_MASKED)
        elif rest == websocket.PING_ECHOED:
            self.succeed()


class Stream(Held):
    asks = SUBSCRIBE

    def __init__(self, holder):
        super().__init__(holder)
        self.number = 0
        self.chunks: websocket.Chunks | None = None
        self.text = b""

    def data_received(self, data):
        arrived = time.monotonic_ns()
        if self.chunks is None:
            head, ends, data = (self.buffer + data).partition(b"\r\n\r\n")
            if not ends:
                self.buffer = head
                return
            if not head.startswith(b"HTTP/1.1 200 ") or websocket.header(head, b"transfer-encoding") != b"chunked":
                self.fail(ConnectionError(f"answered {head[:80]!r}"))
                return
            self.chunks = websocket.Chunks()
        self.text += self.chunks.feed(data)
        *events, self.text = self.text.split(b"\n\n")
        for event in events:
            self.take(event, arrived)

    def take(self, event: bytes, arrived_ns: int):
        found = EVENT.fullmatch(event)
        number = int(found[1]) if found else 0
        sent_ns = int(found[2]) if found else arrived_ns
        self.holder.delivered.add(id(self), arrived_ns - sent_ns, number == self.number + 1)
        self.number = number
        self.succeed()


KINDS = {"requests": Request, "handshakes": Handshake, "websockets": WebSocket, "streams": Stream}


class Holder:
    """All connections of this process."""

    def __init__(self, kind: type[Held], port: int, in_flight: int):
        self.kind = kind
        self.port = port
        self.in_flight = in_flight
        self.open = 0
        self.held: list[Held] = []
        self.seconds: list[float] = []
        self.errors: list[str] = []
        self.delivered = Delivered()

    async def open_one(self):
        began = time.perf_counter()
        try:
            _, one = await asyncio.get_running_loop().create_connection(lambda: self.kind(self), "127.0.0.1", self.port)
            self.open += 1
            self.held.append(one)
            await asyncio.wait_for(one.opened, OPEN_TIMEOUT_SECONDS)
            self.seconds.append(time.perf_counter() - began)
        except (OSError, ValueError, asyncio.TimeoutError) as error:
            self.errors.append(f"{type(error).__name__}: {error}")

    async def open_all(self, count: int) -> dict:
        """At most `in_flight` at a time are on their way."""
        left = iter(range(count))
        began = time.perf_counter()

        async def some():
            for _ in left:
                await self.open_one()

        await asyncio.gather(*(some() for _ in range(self.in_flight)))
        took = time.perf_counter() - began
        ordered = sorted(self.seconds)
        return {
            "opened": len(ordered),
            "failed": len(self.errors),
            "errors": self.errors[:ERRORS_SHOWN],
            "seconds": took,
            "p50_ms": (percentile(ordered, 0.5) or 0) * 1e3,
            "p99_ms": (percentile(ordered, 0.99) or 0) * 1e3,
        }

    def report(self) -> dict:
        told = {"open": self.open}
        if self.kind is Stream:
            told |= self.delivered.report()
            self.delivered = Delivered()
        return told

    def close_all(self):
        for one in self.held:
            one.transport.abort() if one.transport.is_closing() else one.transport.close()


async def hold(holder: Holder, count: int):
    print(json.dumps(await holder.open_all(count)), flush=True)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while await lines.readline():
        print(json.dumps(holder.report()), flush=True)
    holder.close_all()
    await asyncio.sleep(0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("port", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--in-flight", type=int, default=64)
    asked = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.disable()  # a pause over ten thousand connections would be taken for the proxy's delay
    asyncio.run(hold(Holder(KINDS[asked.kind], asked.port, asked.in_flight), asked.count))


if __name__ == "__main__":
    main()
