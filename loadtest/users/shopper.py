"""The user of the shop: reads, lists, writes in transactions, now and then something slow. Every answer is compared with
what it must be, so a quick answer that belongs to somebody else is an error and not a success."""
from __future__ import annotations

import itertools
import os
import random
import time

from locust import FastHttpUser, between, task

from .settings import SLOW_S, THINK_S, TIMEOUT_S, headcount, kind, recorder

ITEMS = 5000
PAGES = 100
# Few enough that two increments meet in the same row now and then, as orders of one product do.
COUNTERS = 50


class WrongAnswer(Exception):
    """What Locust shows of an answer that was not as it must be; the text is its kind."""


class Shopper(FastHttpUser):
    """Thinks, then asks for one page."""

    weight = 90
    wait_time = between(*THINK_S)
    network_timeout = connection_timeout = TIMEOUT_S
    serial = itertools.count(1)

    def on_start(self):
        # Nobody else writes orders of this name: neither another user, nor another process or run.
        self.name = f"load-{os.getpid()}-{time.time_ns()}-{next(self.serial)}"
        self.orders = 0

    def ask(self, method: str, path: str, name: str, right, *, status: int = 200, slow: bool = False, **request):
        """One request; `right(answer as JSON)` tells whether it is the right one. Returns it, or None."""
        with self.client.request(method, path, name=name, catch_response=True, **request) as response:
            error, said = judge(response, status, right)
            ms = response.request_meta["response_time"]
            if slow:
                recorder.slow(ms, error)
            else:
                recorder.page(ms, error, time.time())
            if error is None:
                response.success()
            else:
                response.failure(WrongAnswer(error))
            return said

    @task(50)
    def read_item(self):
        item = random.randint(1, ITEMS)
        price = 100 + item * 37 % 9900
        self.ask("GET", f"/api/items/{item}/", "/api/items/ID/", lambda it: (it["id"], it["price_cents"]) == (item, price))

    @task(20)
    def list_items(self):
        page = random.randint(1, PAGES)
        rows = list(range(page * 50 - 49, page * 50 + 1))
        self.ask(
            "GET", f"/api/items/?page={page}", "/api/items/?page=",
            lambda it: it["page"] == page and [row["id"] for row in it["items"]] == rows,
        )

    @task(15)
    def order(self):
        item, quantity = random.randint(1, ITEMS), random.randint(1, 9)
        self.orders += 1
        reference = f"{self.name}-{self.orders}"
        wanted = {"item": item, "quantity": quantity, "reference": reference}
        self.ask(
            "POST", "/api/orders/", "/api/orders/",
            lambda it: {key: it[key] for key in wanted} == wanted, status=201, json=wanted,
        )

    @task(10)
    def count(self):
        name = f"load-{random.randrange(COUNTERS)}"
        self.ask("POST", f"/api/counter/{name}/", "/api/counter/NAME/", lambda it: it["name"] == name and it["value"] > 0)

    @task(5)
    def wait_for_the_database(self):
        path = f"/api/slow/?seconds={SLOW_S:g}"
        self.ask("GET", path, "/api/slow/", lambda it: it["slept"] == SLOW_S, slow=True)


def judge(response, status: int, right):
    """Returns (kind of error or None, the answer's JSON or None)."""
    if response.status_code == 0:
        return kind(response.error), None
    if response.status_code != status:
        return f"HTTP {response.status_code}", None
    if cut_off := response.request_meta["exception"]:
        return kind(cut_off), None
    try:
        said = response.json()
        return (None, said) if right(said) else ("wrong answer", None)
    except (ValueError, KeyError, TypeError):
        return "wrong answer", None


headcount(Shopper, "LOADTEST_HTTP_USERS")
