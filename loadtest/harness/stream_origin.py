"""What stands behind the proxies in the streaming cases, as a process of its own: one asyncio server, one core.

    python -m harness.stream_origin PORT [--interval 0.2]

/ws/      a WebSocket that sends back what comes
/stream/  server-sent events in a chunked body, as an ASGI server sends them: one event per interval, each with its number on
          this stream and the clock (CLOCK_MONOTONIC, which is the same in every process), e.g. `data: 7 123456789`
others    a page of a few bytes; the connection is kept

Streams tick at times that are spread evenly over the interval, by schedule: one late event does not delay the next ones.
"""
from __future__ import annotations

import argparse
import asyncio
import gc
import resource
import time

from . import websocket

PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n"
# X-Accel-Buffering is what Django applications send so that nginx passes events on at once; it removes it.
STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
HEAD_MAX_BYTES = 16 * 1024
GOLDEN = 0.618033988749895  # its multiples modulo 1 are spread evenly, however many there are


class Origin(asyncio.Protocol):
    """One connection from a proxy."""

    interval = 0.2
    streams = 0

    def __init__(self):
        self.transport = None
        self.buffer = b""
        self.is_websocket = False
        self.timer = None
        self.sent = 0
        self.due = 0.0

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, error):
        if self.timer:
            self.timer.cancel()

    def data_received(self, data):
        if self.is_websocket:
            answer, self.buffer, closes = websocket.echo(self.buffer + data)
            self.transport.write(answer)
            if closes:
                self.transport.close()
            return
        head, ends, rest = (self.buffer + data).partition(b"\r\n\r\n")
        self.buffer = rest if ends else head
        if ends:
            self.answer(head)
        elif len(head) > HEAD_MAX_BYTES:
            self.transport.close()

    def answer(self, head: bytes):
        """Requests of the holders have no body and are not sent before the answer to the last one."""
        path = head.split(b" ", 2)[1]
        if path.startswith(b"/ws/"):
            key = websocket.header(head, b"sec-websocket-key") or b""
            self.is_websocket = True
            self.transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + websocket.accept(key) + b"\r\n\r\n"
            )
        elif path.startswith(b"/stream/"):
            self.transport.write(STREAM)
            Origin.streams += 1
            now = asyncio.get_running_loop().time()
            self.due = now + self.interval * (Origin.streams * GOLDEN % 1.0)
            self.tick()
        else:
            self.transport.write(PAGE)

    def tick(self):
        """Sends one event and arranges for the next."""
        self.sent += 1
        event = b"data: %d %d\n\n" % (self.sent, time.monotonic_ns())
        self.transport.write(b"%x\r\n%s\r\n" % (len(event), event))
        self.timer = asyncio.get_running_loop().call_at(self.due, self.tick)
        self.due += self.interval


async def serve(port: int):
    server = await asyncio.get_running_loop().create_server(Origin, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("port", type=int)
    parser.add_argument("--interval", type=float, default=Origin.interval, help="seconds between two events of a stream")
    asked = parser.parse_args()
    Origin.interval = asked.interval
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.disable()  # a pause over ten thousand connections would be taken for the proxy's delay
    asyncio.run(serve(asked.port))


if __name__ == "__main__":
    main()
