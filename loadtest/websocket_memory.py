"""Measures what idle WebSockets cost: resident memory of a running bookend before and after opening many.

    cargo build --release
    python3 loadtest/websocket_memory.py target/release/bookend --count 3000
    python3 loadtest/websocket_memory.py target/release/bookend --count 10000 --at-most 6144

The whole path is real: clients (a process), bookend (its own, with a configuration made here), a server (another). Each
WebSocket carries one message there and back and then stays idle, so nothing is counted that its first message would add.
Only bookend's memory is measured (Rss of smaps, so what the kernel keeps for its sockets is not in it). Afterwards all are
closed, and the gauges must be back at 0. Needs Python 3.10 and nothing else; two open files per WebSocket in bookend, so
`ulimit -Hn` bounds the count. bench.py's http-idle-ws cases measure the same beside nginx and others.
"""

import argparse
import json
import re
import resource
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from harness import holders, machine
from harness.case import SampleFailed

WARM = 200  # opened and closed before anything is measured: buffers of threads, tables, the allocator's arenas
AT_ONCE = 100  # handshakes under way


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


def configuration(folder, server):
    front, admin = machine.free_port(), machine.free_port()
    # JSON is YAML.
    lb = {
        "listeners": [{"address": f"127.0.0.1:{front}", "max_connections": 100_000}],
        "admin": {"address": f"127.0.0.1:{admin}"},
        "upstreams": {"server": {"servers": [{"name": "web-1", "address": f"127.0.0.1:{server}"}]}},
        "routes": [{"path_prefix": "/", "upstream": "server"}],
    }
    path = Path(folder) / "lb.yaml"
    path.write_text(json.dumps(lb))
    return path, front, f"http://127.0.0.1:{admin}"


def open_many(port, count):
    return holders.holding("websockets", port, count, AT_ONCE, place="both")


def measure(pid, port, admin, count):
    """Returns the bytes that one of `count` WebSockets takes."""
    idle = gauges(admin)
    with open_many(port, WARM):
        pass
    wait_until("the first ones are closed", lambda: gauges(admin)[0] == 0)
    before, _ = holders.settled(pid)
    with open_many(port, count) as held:
        wait_until("all are open", lambda: gauges(admin)[0] == count)
        after, _ = holders.settled(pid)
        held.report()
    each = (after - before) / count
    grew = f"{before / 1024:.0f} kB -> {after / 1024:.0f} kB, {each:.0f} bytes each"
    print(f"{count} idle WebSockets, opened in {held.opened['seconds']:.1f} s: {grew}")
    wait_until("the gauges are back", lambda: gauges(admin) == idle)
    closed, _ = holders.settled(pid)
    print(f"closed again: {closed / 1024:.0f} kB; gauges (WebSockets, connections, at servers) are {gauges(admin)}")
    return each


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--at-most", type=float, metavar="BYTES", help="exit with 1 above this many bytes each")
    asked = parser.parse_args()
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files < 2 * asked.count + 100:
        sys.exit(f"{asked.count} WebSockets take {2 * asked.count + 100} open files, the limit is {files}")

    with tempfile.TemporaryDirectory() as folder, holders.origin(Path(folder), place="both") as server:
        lb, port, admin = configuration(folder, server)
        argv, log = [asked.binary, "run", "--lb", lb], Path(folder) / "bookend.log"
        with machine.running(argv, log=log, place="both") as bookend:
            wait_until("bookend is ready", lambda: is_ready(admin))
            try:
                each = measure(bookend.pid, port, admin, asked.count)
            except SampleFailed as error:
                sys.exit(str(error))
    sys.exit(asked.at_most is not None and each > asked.at_most)


if __name__ == "__main__":
    main()
