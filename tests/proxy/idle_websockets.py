"""Measures what idle WebSockets cost the front: resident memory before and after opening many.

    python3 tests/proxy/idle_websockets.py TEST_BINARY [COUNT]

TEST_BINARY is the compiled `proxy` integration test (`cargo test --test proxy --no-run` names it). The server and the
clients live in this process, the front alone in the other, so that its memory is its own.
"""

import re
import selectors
import socket
import subprocess
import sys
import threading
import time

HANDSHAKE = (
    b"GET /ws/ HTTP/1.1\r\nHost: localhost:8080\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Origin: http://localhost:8080\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
    b"Accept: */*\r\nCookie: sessionid=0123456789abcdef0123456789abcdef; csrftoken=0123456789abcdef\r\n\r\n"
)
AGREES = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
PING = b"\x82\x84\x00\x00\x00\x00ping"


def serve(listener):
    """Agrees to every handshake, then sends back what comes."""
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ)
    agreed = set()
    while True:
        for key, _ in waiting.select():
            if key.fileobj is listener:
                connection, _ = listener.accept()
                waiting.register(connection, selectors.EVENT_READ)
                continue
            data = key.fileobj.recv(65536)
            if not data:
                waiting.unregister(key.fileobj)
                agreed.discard(key.fileobj)
                key.fileobj.close()
            elif key.fileobj in agreed:
                key.fileobj.sendall(data)
            else:
                agreed.add(key.fileobj)
                key.fileobj.sendall(AGREES)


def resident(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+) kB", status.read()).group(1))


def open_one(port):
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(HANDSHAKE)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += client.recv(4096)
    assert answer == AGREES, answer
    # Used once in each direction, so that nothing is counted that the first message would add.
    client.sendall(PING)
    assert client.recv(64) == PING
    return client


def main():
    binary, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3000
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    server = "127.0.0.1:%d" % listener.getsockname()[1]
    front = subprocess.Popen(
        [binary, "--ignored", "--exact", "memory::hold", "--nocapture"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"SERVER": server, "PATH": "/usr/bin:/bin"},
    )
    for line in front.stdout:
        found = re.search(r"LISTENS (\d+) (\d+)", line)
        if found:
            pid, port = int(found.group(1)), int(found.group(2))
            break
    else:
        sys.exit("the front did not start")
    clients = [open_one(port) for _ in range(50)]
    for client in clients:
        client.close()
    time.sleep(1)
    before = resident(pid)
    clients = [open_one(port) for _ in range(count)]
    time.sleep(2)
    after = resident(pid)
    print(f"{count} idle WebSockets: {before} kB -> {after} kB, {(after - before) / count:.2f} kB each")
    front.stdin.close()
    front.wait(timeout=20)


if __name__ == "__main__":
    main()
