"""The few bytes of WebSocket (RFC 6455) and of chunked bodies (RFC 9112 7.1) that holders and the origin speak. Pure.

Small on purpose: one handshake whose answer is known beforehand, frames that are not split into fragments, and a browser's
headers, since the headers a proxy keeps are part of what an idle connection costs.
"""
from __future__ import annotations

import base64
import hashlib

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
BROWSER = (
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\nAccept: */*\r\n"
    b"Cookie: sessionid=0123456789abcdef0123456789abcdef; csrftoken=0123456789abcdef\r\n"
)
HANDSHAKE = (
    b"GET /ws/ HTTP/1.1\r\nHost: localhost:8080\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: " + KEY + b"\r\nSec-WebSocket-Version: 13\r\n" + BROWSER + b"\r\n"
)
CLOSE, PING = 0x8, 0x9
PING_MASKED = b"\x82\x84\x00\x00\x00\x00ping"  # a binary frame of a client, masked with zeros
PING_ECHOED = b"\x82\x04ping"


def accept(key: bytes) -> bytes:
    """The Sec-WebSocket-Accept that answers a key (RFC 6455 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


ACCEPT = accept(KEY)


def header(head: bytes, name: bytes) -> bytes | None:
    """A header's value in a request or answer, by its lower-case name."""
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip()
    return None


def agrees(head: bytes) -> bool:
    """Whether this is the 101 that HANDSHAKE asks for, with the accept key of its own key."""
    return head.startswith(b"HTTP/1.1 101 ") and header(head, b"sec-websocket-accept") == ACCEPT


def unmasked(mask: bytes, payload: bytes) -> bytes:
    """The payload of a client's frame; one big integer instead of a loop over bytes."""
    size = len(payload)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")


def frame_size(buffer: bytes) -> tuple[int, int] | None:
    """(bytes before the mask, payload bytes) of the frame that the buffer begins with; None until that can be read."""
    if len(buffer) < 2:
        return None
    size = buffer[1] & 0x7F
    if size < 126:
        return 2, size
    longer = 2 if size == 126 else 8
    if len(buffer) < 2 + longer:
        return None
    return 2 + longer, int.from_bytes(buffer[2 : 2 + longer], "big")


def echo(buffer: bytes) -> tuple[bytes, bytes, bool]:
    """What a server sends back for a client's frames: (frames without mask, what is not whole yet, whether it closes)."""
    answers = []
    while (sizes := frame_size(buffer)) is not None:
        before, size = sizes
        end = before + 4 + size
        if len(buffer) < end:
            break
        payload = unmasked(buffer[before : before + 4], buffer[before + 4 : end])
        opcode = buffer[0] & 0x0F
        first = 0x8A if opcode == PING else buffer[0]  # a ping is answered by a pong
        answers.append(bytes([first, buffer[1] & 0x7F]) + buffer[2:before] + payload)
        buffer = buffer[end:]
        if opcode == CLOSE:
            return b"".join(answers), b"", True
    return b"".join(answers), buffer, False


class Chunks:
    """Takes the chunk lines out of a chunked body that arrives in pieces."""

    def __init__(self):
        self.rest = b""
        self.ended = False

    def feed(self, data: bytes) -> bytes:
        """Returns the body's bytes of all chunks that are whole by now. Raises ValueError on what is no chunk."""
        buffer = self.rest + data
        body = []
        while not self.ended:
            line, found, after = buffer.partition(b"\r\n")
            if not found:
                break
            size = int(line.split(b";")[0], 16)
            if len(after) < size + 2:
                break
            if after[size : size + 2] != b"\r\n":
                raise ValueError(f"a chunk of {size} bytes does not end where it should")
            body.append(after[:size])
            buffer = after[size + 2 :]
            self.ended = size == 0
        self.rest = buffer
        return b"".join(body)
