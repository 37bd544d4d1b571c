"""Measures what idle WebSockets cost: resident memory of a running bookend before and after opening many.

    cargo build --release
    python3 loadtest/websocket_memory.py target/release/bookend --count 3000
    python3 loadtest/websocket_memory.py target/release/bookend --count 10000 --at-most 6144

The whole path is real: clients (this process), bookend (its own process, with a configuration made here), a server
(another process). Each WebSocket carries one message there and back and then stays idle, so nothing is counted that
its first message would add. Only bookend's memory is measured (VmRSS, so what the kernel keeps for its sockets is not
in it). Afterwards all are closed, and the gauges must be back at 0. Needs Python 3.9 and nothing else; two open files
per WebSocket in bookend, so `ulimit -Hn` bounds the count.
"""

import argparse
import asyncio
import json
import multiprocessing
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HANDSHAKE = (
    b"GET /ws/ HTTP/1.1\r\nHost: localhost:8080\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nAccept: */*\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
    b"Cookie: sessionid=0123456789abcdef0123456789abcdef; csrftoken=0123456789abcdef\r\n\r\n"
)
AGREES = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
MESSAGE = b"\x82\x84\x00\x00\x00\x00ping"  # a binary frame, masked
AT_ONCE = 100  # handshakes under way
WARM = 200  # opened and closed before anything is measured: buffers of threads, tables, the allocator's arenas


def raise_open_files():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def serve(listener):
    """The server: agrees to every handshake, then sends back what comes."""
    raise_open_files()

    async def one(reader, writer):
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(AGREES)
            while data := await reader.read(4096):
                writer.write(data)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        writer.close()

    async def run():
        async with await asyncio.start_server(one, sock=listener, backlog=4096) as server:
            await server.serve_forever()

    asyncio.run(run())


async def open_one(address, gate):
    async with gate:
        loop = asyncio.get_running_loop()
        client = socket.socket()
        client.setblocking(False)
        await loop.sock_connect(client, address)
        await loop.sock_sendall(client, HANDSHAKE)
        await expect_agreement(client)
        await loop.sock_sendall(client, MESSAGE)
        await expect(client, MESSAGE)
        return client


async def expect_agreement(client):
    """The server's answer, and a request id of bookend's."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        data = await asyncio.get_running_loop().sock_recv(client, 1)
        if not data:
            break
        head += data
    if not head.startswith(AGREES[:-2]):
        raise SystemExit(f"wanted {AGREES!r}, got {head!r}")


async def expect(client, wanted):
    seen = b""
    while len(seen) < len(wanted):
        data = await asyncio.get_running_loop().sock_recv(client, len(wanted) - len(seen))
        if not data:
            break
        seen += data
    if seen != wanted:
        raise SystemExit(f"wanted {wanted!r}, got {seen!r}")


async def open_many(address, count):
    gate = asyncio.Semaphore(AT_ONCE)
    return await asyncio.gather(*(open_one(address, gate) for _ in range(count)))


def resident_kb(pid):
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1])


def settled_kb(pid):
    """Waits until the memory no longer changes, at most some seconds."""
    last = resident_kb(pid)
    for _ in range(10):
        time.sleep(0.5)
        now = resident_kb(pid)
        if now == last:
            break
        last = now
    return last


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def gauges(admin):
    """Returns (WebSockets open, client connections open, requests and WebSockets at the servers)."""
    metrics, status = get(f"{admin}/metrics"), json.loads(get(f"{admin}/status"))
    summed = lambda name: sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", metrics, re.M))
    servers = [server for upstream in status["upstreams"] for server in upstream["servers"]]
    return (
        int(summed("bookend_websockets_open")),
        int(summed("bookend_client_connections_open")),
        sum(server["in_flight"] for server in servers),
    )


def wait_until(what, is_so, seconds=30):
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {seconds} s: {what}")
        time.sleep(0.1)


def is_ready(admin):
    try:
        return bool(get(f"{admin}/ready"))
    except (urllib.error.URLError, ConnectionError):
        return False


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def configuration(folder, server):
    front, admin = free_port(), free_port()
    # JSON is YAML.
    lb = {
        "listeners": [{"address": f"127.0.0.1:{front}", "max_connections": 100_000}],
        "admin": {"address": f"127.0.0.1:{admin}"},
        "upstreams": {"server": {"servers": [{"name": "web-1", "address": f"127.0.0.1:{server}"}]}},
        "routes": [{"path_prefix": "/", "upstream": "server"}],
    }
    path = Path(folder) / "lb.yaml"
    path.write_text(json.dumps(lb))
    return path, ("127.0.0.1", front), f"http://127.0.0.1:{admin}"


def measure(pid, address, admin, count):
    idle = gauges(admin)
    for client in asyncio.run(open_many(address, WARM)):
        client.close()
    wait_until("the first ones are closed", lambda: gauges(admin)[0] == 0)
    before = settled_kb(pid)
    begin = time.monotonic()
    clients = asyncio.run(open_many(address, count))
    took = time.monotonic() - begin
    wait_until("all are open", lambda: gauges(admin)[0] == count)
    after = settled_kb(pid)
    each = (after - before) * 1024 / count
    print(f"{count} idle WebSockets, opened in {took:.1f} s: {before} kB -> {after} kB, {each:.0f} bytes each")
    for client in clients:
        client.close()
    wait_until("the gauges are back", lambda: gauges(admin) == idle)
    print(f"closed again: {settled_kb(pid)} kB; gauges (WebSockets, connections, at servers) are {gauges(admin)}")
    return each


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--at-most", type=float, metavar="BYTES", help="exit with 1 above this many bytes each")
    arguments = parser.parse_args()
    files = raise_open_files()
    if files < 2 * arguments.count + 100:
        sys.exit(f"{arguments.count} WebSockets take {2 * arguments.count + 100} open files, the limit is {files}")

    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    server = multiprocessing.get_context("fork").Process(target=serve, args=(listener,), daemon=True)
    server.start()
    with tempfile.TemporaryDirectory() as folder:
        lb, address, admin = configuration(folder, listener.getsockname()[1])
        bookend = subprocess.Popen([arguments.binary, "run", "--lb", lb], stdout=subprocess.DEVNULL)
        try:
            wait_until("bookend is ready", lambda: is_ready(admin))
            each = measure(bookend.pid, address, admin, arguments.count)
        finally:
            bookend.terminate()
            bookend.wait(timeout=60)
            server.terminate()
    sys.exit(arguments.at_most is not None and each > arguments.at_most)


if __name__ == "__main__":
    main()
