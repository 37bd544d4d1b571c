"""What the demo looks at: one function per line of its table, each returning what it saw.

A check measures and judges; it never waits for luck. Every answer is compared with a value the
check knows beforehand, so "fast but somebody else's row" would show.
"""
import collections
import contextlib
import http.client
import json
import threading
import time
from dataclasses import dataclass

import psycopg
from websockets.sync.client import connect

SPREAD_REQUESTS = 300
SPREAD_TOLERANCE = 0.05  # of the mean
POOL_CLIENTS = 200
POOL_ROUNDS = 20
POOL_SERVERS_MAX = 50
LOAD_CLIENTS = 24
RETURN_SECONDS = 30
CONSOLE_COLUMNS = {"database", "user", "cl_active", "cl_waiting", "sv_active", "sv_idle", "maxwait"}


@dataclass
class Row:
    """One line of the table."""

    ok: bool
    seen: str


class Demo:
    """Where everything is, and the one WebSocket that stays open throughout."""

    def __init__(self, stack, *, front: int, admin: int, pool: int):
        self.stack = stack
        self.front, self.admin, self.pool = front, admin, pool
        self.kept = None
        self.kept_on = None

    def close(self):
        if self.kept:
            with contextlib.suppress(Exception):
                self.kept.close()

    def http(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.front, timeout=30)

    def get(self, path: str, port=None):
        """Returns (status, headers, body) on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.front, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def websocket(self, source: str = "127.0.0.1"):
        """Returns an open WebSocket and the replica that greeted it."""
        socket = connect(
            f"ws://127.0.0.1:{self.front}/ws/echo/", source_address=(source, 0), proxy=None
        )
        return socket, json.loads(socket.recv(timeout=10))["replica"]

    def database(self, name: str = "arena_db"):
        """Returns a connection through the pool, as Django would have it."""
        postgres = self.stack.postgres
        return psycopg.connect(
            host="127.0.0.1", port=self.pool, dbname=name, user=postgres["user"],
            password=postgres["password"], autocommit=True, connect_timeout=30,
        )

    def superuser(self):
        """Returns a connection straight to PostgreSQL, past the pool."""
        postgres = self.stack.postgres
        return psycopg.connect(
            host=postgres["socket_dir"], port=postgres["port"], dbname="postgres",
            user=postgres["superuser"], autocommit=True,
        )


def replicas(demo: Demo) -> list:
    return [replica["name"] for replica in demo.stack.send("status")["replicas"]]


def requests_spread_evenly(demo: Demo) -> Row:
    counts = collections.Counter()
    with contextlib.closing(demo.http()) as connection:
        for _ in range(SPREAD_REQUESTS):
            connection.request("GET", "/nodb/")
            answer = connection.getresponse()
            answer.read()
            counts[answer.headers["X-Replica"] if answer.status == 200 else answer.status] += 1
    names = replicas(demo)
    mean = SPREAD_REQUESTS / len(names)
    even = all(abs(counts[name] - mean) <= mean * SPREAD_TOLERANCE for name in names)
    return Row(even, ", ".join(f"{name}: {counts[name]}" for name in sorted(counts, key=str)))


def websocket_stays_on_one_replica(demo: Demo) -> Row:
    """The same address meets the same replica; many networks (ip_hash: three octets) meet several."""
    demo.kept, demo.kept_on = demo.websocket()
    again = []
    for _ in range(10):
        socket, name = demo.websocket()
        socket.close()
        again.append(name)
    elsewhere, steady = set(), True
    for network in range(1, 13):
        names = set()
        for host in (1, 1, 2):
            socket, name = demo.websocket(f"127.0.{network}.{host}")
            socket.close()
            names.add(name)
        steady &= len(names) == 1
        elsewhere |= names
    ok = set(again) == {demo.kept_on} and steady and len(elsewhere) > 1
    return Row(ok, f"10 of 10 reconnects met {demo.kept_on}; 12 other networks, each on its own of "
                   f"{len(elsewhere)} replicas" if ok else f"{again}, elsewhere {elsewhere}")


def pool_client(demo: Demo, number: int, all_connected: threading.Barrier, wrong: list):
    """Asks for its own values, alone, in transactions and prepared (psycopg: from the 6th on)."""
    try:
        with demo.database() as connection:
            all_connected.wait(60)
            for turn in range(POOL_ROUNDS):
                want = (number * 1000 + turn, f"client {number}")
                got = connection.execute("SELECT %s::int, %s::text", want).fetchone()
                with connection.transaction():
                    connection.execute("SELECT set_config('demo.me', %s, true)", (want[1],))
                    connection.execute("SELECT pg_sleep(0.002)")
                    query = "SELECT %s::int, current_setting('demo.me')"
                    mine = connection.execute(query, (want[0],)).fetchone()
                if got != want or mine != want:
                    wrong.append(f"client {number} got {got} and {mine}")
    except (psycopg.Error, threading.BrokenBarrierError) as error:
        all_connected.abort()
        wrong.append(f"client {number}: {type(error).__name__} {error}".splitlines()[0])


def many_clients_share_few_connections(demo: Demo) -> Row:
    wrong, most = [], 0
    all_connected = threading.Barrier(POOL_CLIENTS)
    clients = [
        threading.Thread(
            target=pool_client, args=(demo, number, all_connected, wrong), daemon=True
        )
        for number in range(POOL_CLIENTS)
    ]
    count = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'arena_user'"
    with demo.superuser() as superuser:
        for client in clients:
            client.start()
        while any(client.is_alive() for client in clients):
            most = max(most, superuser.execute(count).fetchone()[0])
            time.sleep(0.02)
    answers = POOL_CLIENTS * POOL_ROUNDS * 2
    if wrong:
        return Row(False, f"{len(wrong)} wrong, first: {wrong[0]}")
    ok = 0 < most <= POOL_SERVERS_MAX
    return Row(ok, f"{POOL_CLIENTS} at once, {answers} answers right, "
                   f"at most {most} connections in pg_stat_activity")


def orm_works_through_the_pool(demo: Demo) -> Row:
    status, _, body = demo.get("/api/orm/")
    checks = json.loads(body)["checks"] if status in (200, 500) else []
    bad = [check["name"] for check in checks if not check["ok"]]
    return Row(status == 200 and not bad, f"{len(checks) - len(bad)} of {len(checks)} checks "
               + (f"failed: {', '.join(bad)}" if bad else "(savepoints, locks, bulk_create, ...)"))


class Load:
    """Clients that keep asking until told to stop, and remember all that was not as it should be."""

    def __init__(self, demo: Demo):
        self.demo = demo
        self.stopped = threading.Event()
        self.done = collections.Counter()
        self.last_seen = {}
        self.failures = []
        self.threads = [
            threading.Thread(target=self.client, args=(number,), daemon=True)
            for number in range(LOAD_CLIENTS)
        ]

    def client(self, number: int):
        connection, item = self.demo.http(), number
        while not self.stopped.is_set():
            item = 1 + (item * 7 + 13) % 5000
            path = f"/api/items/{item}/" if item % 3 else "/nodb/"
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                body = json.loads(answer.read())
                right = body.get("id") == item if item % 3 else body.get("ok")
                if answer.status != 200 or not right:
                    self.failures.append(f"{path}: {answer.status} {body}")
                name = answer.headers["X-Replica"]
                self.done[name] += 1
                self.last_seen[name] = time.monotonic()
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failures.append(f"{path}: {type(error).__name__} {error}")
                connection.close()
        connection.close()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for thread in self.threads:
            thread.join()


def killed_replica_costs_nothing(demo: Demo) -> Row:
    victim = next(name for name in replicas(demo) if name != demo.kept_on)
    with Load(demo) as load:
        time.sleep(1.5)
        demo.stack.send("kill", replica=victim, signal="KILL")
        time.sleep(3)
        demo.stack.send("start", replica=victim)
        started = time.monotonic()
        while load.last_seen.get(victim, 0) < started:
            if time.monotonic() - started > RETURN_SECONDS:
                load.failures.append(f"{victim} got no request {RETURN_SECONDS}s after its restart")
                break
            time.sleep(0.05)
        back = time.monotonic() - started
        time.sleep(1)
    total = sum(load.done.values())
    seen = f"{victim} SIGKILLed and restarted under {LOAD_CLIENTS} clients: {total} requests, "
    seen += f"{len(load.failures)} failed"
    if load.failures:
        return Row(False, f"{seen}, first: {load.failures[0][:200]}")
    return Row(total > 0, f"{seen}; back in use after {back:.1f} s")


def websocket_outlived_all_that(demo: Demo) -> Row:
    demo.kept.send("still there?")
    answer = json.loads(demo.kept.recv(timeout=10))
    ok = answer == {"replica": demo.kept_on, "echo": "still there?"}
    return Row(ok, f"opened before the load, still answered by {answer.get('replica')}")


def connections_are_reported(demo: Demo) -> Row:
    status, _, body = demo.get("/db/connections/")
    report = json.loads(body)
    default, pool = report["connections"]["default"], report["pgbouncer"]
    counts = [default[f"{kind}_connections"] for kind in ("total", "active", "idle", "max")]
    ok = (
        status == 200
        and default["using_pgbouncer"] is True
        and default["waiting_clients"] >= 0
        and counts[1] + counts[2] <= counts[0] <= counts[3]
        and pool["enabled"] is True
        and pool["implementation"] == "bookend"
        and all(report["clients"][name]["total_connections"] > 0 for name in replicas(demo))
        and isinstance(report["recommendations"], list)
    )
    return Row(ok, f"{counts[0]} connections ({counts[1]} active, {counts[2]} idle) of {counts[3]},"
                   f" pool_mode {pool['pool_mode']}, "
                   f"replicas {', '.join(sorted(report['clients']))}")


def console_answers(demo: Demo) -> Row:
    with demo.database("pgbouncer") as console:
        cursor = console.execute("SHOW POOLS")
        columns = [column.name for column in cursor.description]
        rows = [dict(zip(columns, row)) for row in cursor]
    mine = [row for row in rows if row["database"] == "arena_db" and row["user"] == "arena_user"]
    ok = CONSOLE_COLUMNS <= set(columns) and len(mine) == 1
    shown = {name: mine[0][name] for name in ("cl_active", "sv_active", "sv_idle")} if mine else {}
    return Row(ok, " ".join(f"{name}={value}" for name, value in shown.items()) or str(columns))


def metrics_answer(demo: Demo) -> Row:
    status, _, body = demo.get("/metrics", port=demo.admin)
    families = {
        line.split()[2] for line in body.decode().splitlines() if line.startswith("# TYPE bookend_")
    }
    return Row(status == 200 and bool(families), f"{len(families)} metrics begin with bookend_")


CHECKS = [
    ("requests spread over the replicas", requests_spread_evenly),
    ("a WebSocket keeps its replica", websocket_stays_on_one_replica),
    ("200 clients on the pool", many_clients_share_few_connections),
    ("Django's ORM through the pool", orm_works_through_the_pool),
    ("a replica killed and restarted", killed_replica_costs_nothing),
    ("the first WebSocket, afterwards", websocket_outlived_all_that),
    ("GET /db/connections/", connections_are_reported),
    ("SHOW POOLS", console_answers),
    ("GET /metrics", metrics_answer),
]
