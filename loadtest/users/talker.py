"""The user of WebSockets: connects, talks, goes, comes back, and expects to meet the replica it met before.

It learns the replica's name from the header X-Replica of the handshake and from the first message, which must agree. Where
the deployment is on this machine, each user has a loopback address in a network of its own (127.0.N.1), since a balancer that
goes by the client's network (ip_hash) would otherwise send all of them to one replica.
"""
from __future__ import annotations

import itertools
import json
import os
import random
import socket
import time
from urllib.parse import urlsplit

import websocket
from locust import User, between, task

from .settings import STICKY, THINK_S, TIMEOUT_S, headcount, kind, recorder

MESSAGES = (2, 6)
BINARY_BYTES = 2048
CLOSE_SECONDS = 2
PATH = "/ws/echo/"


class WrongReplica(Exception):
    """Another one than before; the text names both."""


class Talker(User):
    """One connection after the other, each with a few messages."""

    weight = 6
    wait_time = between(*THINK_S)
    serial = itertools.count(1)

    def on_start(self):
        self.number = next(self.serial)
        self.replica = None
        base = urlsplit(self.host)
        scheme = "wss" if base.scheme == "https" else "ws"
        self.url = base._replace(scheme=scheme, path=base.path.rstrip("/") + PATH).geturl()

    def own_network(self):
        """A connected socket from 127.0.N.1, or None where that is not to be had."""
        base = urlsplit(self.host)
        if base.scheme != "http" or base.hostname not in ("127.0.0.1", "localhost"):
            return None
        try:
            address = ("127.0.0.1", base.port or 80)
            return socket.create_connection(address, TIMEOUT_S, source_address=(f"127.0.{self.number % 250 + 1}.1", 0))
        except ConnectionError:
            raise
        except OSError:  # systems whose loopback is one address alone
            return None

    def tell(self, what: str, began: float, error: BaseException | None):
        """Reports to Locust and to the recorder."""
        ms = (time.perf_counter() - began) * 1000
        recorder.websocket(what, ms, None if error is None else kind(error))
        self.environment.events.request.fire(
            request_type="WS", name=f"{PATH} {what}", response_time=ms, response_length=0, exception=error, context={}
        )

    @task
    def visit(self):
        connection = self.connect()
        if connection is None:
            return
        try:
            for number in range(random.randint(*MESSAGES)):
                if not self.talk(connection, number):
                    break
                self.wait()
        finally:
            leave(connection)

    def connect(self):
        """Returns an open connection whose replica is known, or None."""
        began = time.perf_counter()
        try:
            connection = websocket.create_connection(
                self.url, timeout=TIMEOUT_S, socket=self.own_network(), sslopt={"cert_reqs": 0}
            )
            greeted = json.loads(hear(connection))["replica"]
            header = connection.getheaders().get("x-replica", greeted)
        except (OSError, websocket.WebSocketException, ValueError, KeyError) as error:
            self.tell("connects", began, error)
            return None
        self.tell("connects", began, None)
        self.met(header, greeted)
        return connection

    def met(self, header: str, greeted: str):
        """Compares the replica with the one of the last connection."""
        before, self.replica = self.replica, greeted
        recorder.replica(greeted)
        if header == greeted and before in (None, greeted):
            return
        recorder.moved(counts_as_error=STICKY)
        if STICKY:
            self.environment.events.request.fire(
                request_type="WS", name=f"{PATH} stays on its replica", response_time=0, response_length=0,
                exception=WrongReplica(f"header {header}, greeting {greeted}, before {before}"), context={},
            )

    def talk(self, connection, number: int) -> bool:
        """One message there and back, each third one binary. False when the connection is over."""
        began = time.perf_counter()
        try:
            if number % 3 == 2:
                sent = os.urandom(BINARY_BYTES)
                connection.send_binary(sent)
                back = hear(connection)
            else:
                sent = (self.replica, f"{self.number}-{number}-{time.time_ns()}")
                connection.send(sent[1])
                said = json.loads(hear(connection))
                back = (said["replica"], said["echo"])
        except (OSError, websocket.WebSocketException, ValueError, KeyError, TypeError) as error:
            self.tell("echoes", began, error)
            return False
        self.tell("echoes", began, None if back == sent else WrongEcho())
        return True


def hear(connection):
    """The next message. A close frame, which the library gives out as an empty one, is the end of the connection."""
    message = connection.recv()
    if not connection.connected:
        raise websocket.WebSocketConnectionClosedException("closed by the server")
    return message


def leave(connection):
    """Says goodbye and hears the answer. Not by `close`, whose bare `except` swallows the kill by which Locust ends a user:
    it would then wait for this user forever."""
    try:
        connection.send_close()
        connection.settimeout(CLOSE_SECONDS)
        while connection.recv_frame().opcode != websocket.ABNF.OPCODE_CLOSE:
            pass
    except (OSError, websocket.WebSocketException):
        pass
    finally:
        connection.shutdown()


class WrongEcho(Exception):
    """What came back is not what was sent, or came from another replica."""


headcount(Talker, "LOADTEST_WEBSOCKET_USERS")
