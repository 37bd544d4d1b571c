"""The user of server-sent events: reads a stream to its end and counts what it was sent."""
from __future__ import annotations

import json
import time

from locust import FastHttpUser, between, task
from locust.contrib.fasthttp import FAILURE_EXCEPTIONS

from .settings import SSE_EVENTS, SSE_INTERVAL_S, THINK_S, TIMEOUT_S, headcount, kind, recorder

PATH = f"/stream/sse/?n={SSE_EVENTS}&interval={SSE_INTERVAL_S:g}"


class Broken(Exception):
    """A stream that was not as it must be; the text is its kind."""


class Listener(FastHttpUser):
    """Opens a stream, reads it to its end, opens the next. Locust's time for it is that of the whole stream."""

    weight = 4
    wait_time = between(*THINK_S)
    network_timeout = connection_timeout = TIMEOUT_S

    @task
    def listen(self):
        began = time.perf_counter()
        with self.client.get(PATH, name="/stream/sse/", stream=True, catch_response=True) as response:
            events = Events(began)
            try:
                if response.status_code == 0:
                    raise response.error
                if response.status_code != 200:
                    raise Broken(f"HTTP {response.status_code}")
                events.read(response.stream)
                error = None
            except Broken as broken:
                error = str(broken)
            except (*FAILURE_EXCEPTIONS, ValueError, KeyError) as failure:
                error = kind(failure)
            recorder.sse(events.count, events.first_ms, error)
            response.request_meta["response_time"] = (time.perf_counter() - began) * 1000
            response.request_meta["response_length"] = events.bytes
            if error is None:
                response.success()
            else:
                response.failure(Broken(error))


class Events:
    """The events of one stream, as they come: numbered from 1 without a gap, all of one replica."""

    def __init__(self, began: float):
        self.began = began
        self.count = self.bytes = 0
        self.first_ms = self.replica = None

    def read(self, stream):
        """Reads `stream` to its end, which must not come early."""
        while line := stream.readline(b"\n"):
            self.bytes += len(line)
            if line.startswith(b"data: "):
                self.event(json.loads(line.removeprefix(b"data: ")))
        if self.count != SSE_EVENTS:
            raise Broken("ended early" if self.count < SSE_EVENTS else "too many events")

    def event(self, data: dict):
        if self.first_ms is None:
            self.first_ms = (time.perf_counter() - self.began) * 1000
            self.replica = data["replica"]
        self.count += 1
        if (data["n"], data["replica"]) != (self.count, self.replica):
            raise Broken("wrong event")


headcount(Listener, "LOADTEST_SSE_USERS")
