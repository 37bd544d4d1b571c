"""The sample project keeps its promises (arena/urls.py): each endpoint, on a real PostgreSQL.

Tests and load scripts trust these answers, so a failure here explains failures elsewhere.
"""
import concurrent.futures
import hashlib
import json
import time
import unittest

import httpx
import psycopg
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from client import StackClient

THREADS = 4


class Arena(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = StackClient("--replicas", "1")
        cls.addClassCleanup(cls.stack.close)
        cls.address = cls.stack.ready["replicas"][0]["address"]
        cls.http = httpx.Client(base_url=f"http://{cls.address}", timeout=30)
        cls.addClassCleanup(cls.http.close)

    def get(self, path, status=200):
        answer = self.http.get(path)
        self.assertEqual(answer.status_code, status, answer.text)
        self.assertEqual(answer.headers["X-Replica"], "web-1")
        return answer.json()

    def post(self, path, body=None, status=200):
        answer = self.http.post(path, json=body)
        self.assertEqual(answer.status_code, status, answer.text)
        return answer.json()

    def resident_kib(self):
        with open(f"/proc/{self.stack.ready['replicas'][0]['pid']}/status") as text:
            return next(int(line.split()[1]) for line in text if line.startswith("VmRSS"))

    def test_health_asks_the_database(self):
        self.assertEqual(
            self.get("/health/"), {"status": "ok", "database": True, "replica": "web-1"}
        )

    def test_an_item_is_one_known_row(self):
        found = self.get("/api/items/17/")
        self.assertEqual((found["name"], found["price_cents"]), ("item-00017", 100 + 17 * 37))
        self.assertIn("error", self.get("/api/items/999999/", status=404))

    def test_the_list_joins_the_category(self):
        page = self.get("/api/items/?page=2")
        self.assertEqual((page["page"], page["pages"], page["count"]), (2, 100, 5000))
        self.assertEqual([row["id"] for row in page["items"]], list(range(51, 101)))
        self.assertEqual(page["items"][0]["category"], "category-12")

    def test_an_order_is_written_once_and_counted(self):
        sold = self.get("/api/items/4000/")["sold"]
        row = self.post(
            "/api/orders/", {"item": 4000, "quantity": 3, "reference": "once"}, status=201
        )
        self.assertEqual(row["total_cents"], 3 * (100 + 4000 * 37 % 9900))
        self.assertEqual(self.get("/api/orders/?reference=once"), {"count": 1, "orders": [row]})
        self.assertEqual(self.get("/api/items/4000/")["sold"], sold + 3)

    def test_concurrent_increments_lose_nothing(self):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: self.post("/api/counter/c/"), range(40)))
        self.assertEqual(sorted(a["value"] for a in answers), list(range(1, 41)))
        self.assertEqual(self.get("/api/counter/c/"), {"name": "c", "value": 40})
        self.assertEqual(self.get("/api/counter/never/")["value"], 0)

    def test_slow_sleeps_either_way(self):
        for query in ("seconds=0.2", "seconds=0.2&idle=1"):
            began = time.monotonic()
            self.assertEqual(self.get(f"/api/slow/?{query}")["slept"], 0.2)
            self.assertGreaterEqual(time.monotonic() - began, 0.2)

    def test_the_orm_checks_pass(self):
        answer = self.get("/api/orm/")
        self.assertTrue(answer["ok"], answer)
        self.assertGreater(len(answer["checks"]), 10)

    def test_connections_persist_and_are_as_many_as_threads(self):
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: self.get("/api/pid/"), range(200)))
        self.assertLessEqual(len({a["pid"] for a in answers}), THREADS)
        self.assertEqual(
            {(a["alias"], a["role"], a["statement_timeout"], a["application_name"]) for a in answers},
            {("default", "primary", "30s", "web-1")},
        )

    def test_echo_shows_what_arrived(self):
        answer = self.http.post(
            "/echo/?a=1&b=%20", content=b"hello", headers={"X-Some": "thing"}
        ).json()
        self.assertEqual(answer["method"], "POST")
        self.assertEqual(answer["query"], "a=1&b=%20")
        self.assertEqual(answer["headers"]["X-Some"], "thing")
        self.assertIn(["x-some", "thing"], answer["raw_headers"])
        self.assertEqual((answer["body"], answer["body_bytes"]), ("hello", 5))
        self.assertEqual((answer["remote_addr"], answer["host"]), ("127.0.0.1", self.address))

    def test_status_and_nodb(self):
        self.assertEqual(self.get("/status/503/", status=503)["status"], 503)
        self.assertEqual(self.http.get("/status/204/").content, b"")
        self.assertTrue(self.get("/nodb/")["ok"])
        self.assertEqual(self.http.get("/no/such/path/").status_code, 404)

    def test_an_upload_is_hashed_in_flat_memory(self):
        block, blocks = bytes(range(256)) * 4096, 200
        digest = hashlib.sha256()
        for _ in range(blocks):
            digest.update(block)
        self.http.post("/upload/", content=b"warm")
        before = self.resident_kib()
        declared = {"Content-Length": str(len(block) * blocks)}
        for headers in (declared, {}):  # {}: chunked
            answer = self.http.post(
                "/upload/", content=(block for _ in range(blocks)), headers=headers
            ).json()
            self.assertEqual(answer, {"sha256": digest.hexdigest(), "bytes": blocks << 20})
        self.assertLess(self.resident_kib() - before, 20 * 1024)

    def test_events_arrive_one_by_one(self):
        arrived = []
        with self.http.stream("GET", "/stream/sse/?n=4&interval=0.2") as answer:
            self.assertEqual(answer.headers["content-type"], "text/event-stream")
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    arrived.append((time.monotonic(), json.loads(line[6:])["n"]))
        self.assertEqual([n for _, n in arrived], [1, 2, 3, 4])
        self.assertGreater(arrived[-1][0] - arrived[0][0], 0.5)

    def test_bytes_are_the_pattern(self):
        body = self.http.get("/stream/bytes/?size=200001").content
        self.assertEqual(body, (bytes(range(256)) * 800)[:200001])
        declared = self.http.get("/stream/bytes/?size=1000&length=1").headers
        self.assertEqual(declared["content-length"], "1000")

    def test_websocket_echo_names_the_replica(self):
        with connect(f"ws://{self.address}/ws/echo/") as ws:
            self.assertEqual(ws.response.headers["X-Replica"], "web-1")
            self.assertEqual(json.loads(ws.recv()), {"replica": "web-1"})
            ws.send("hi")
            self.assertEqual(json.loads(ws.recv()), {"replica": "web-1", "echo": "hi"})
            ws.send(b"\x00\xff")
            self.assertEqual(ws.recv(), b"\x00\xff")
            ws.send("close:4001")
            with self.assertRaises(ConnectionClosed) as closed:
                ws.recv()
            self.assertEqual(closed.exception.rcvd.code, 4001)

    def test_websocket_feed_pushes(self):
        with connect(f"ws://{self.address}/ws/feed/?interval=0.05&n=3") as ws:
            self.assertEqual([json.loads(m)["n"] for m in ws], [1, 2, 3])

    def test_an_unknown_websocket_is_refused(self):
        with self.assertRaises(InvalidStatus) as refused:
            connect(f"ws://{self.address}/ws/nothing/")
        self.assertEqual(refused.exception.response.status_code, 403)


class ReadDatabase(unittest.TestCase):
    """With DB_READ_HOST set, reads go there and writes do not."""

    @classmethod
    def setUpClass(cls):
        cls.stack = StackClient("--pg-only")
        cls.addClassCleanup(cls.stack.close)
        postgres = cls.stack.postgres
        with psycopg.connect(
            host=postgres["socket_dir"], port=postgres["port"], user=postgres["superuser"],
            dbname="postgres", autocommit=True,
        ) as connection:  # a second name for the data, as the pool gives it
            connection.execute("CREATE DATABASE arena_db_read TEMPLATE arena_db OWNER arena_user")
        env = {"DB_READ_HOST": "127.0.0.1", "DB_READ_PORT": postgres["port"]}
        (replica,) = cls.stack.send("start_replicas", count=1, env=env)["replicas"]
        cls.http = httpx.Client(base_url=f"http://{replica['address']}", timeout=30)
        cls.addClassCleanup(cls.http.close)

    def test_reads_and_writes_part_ways(self):
        read, write = self.http.get("/api/pid/").json(), self.http.get("/api/pid/?write=1").json()
        self.assertEqual((read["alias"], read["database"]), ("read", "arena_db_read"))
        self.assertEqual((write["alias"], write["database"]), ("default", "arena_db"))

    def test_what_is_written_is_on_the_primary_alone(self):
        self.assertEqual(self.http.post("/api/counter/w/").json()["value"], 1)
        self.assertEqual(self.http.post("/api/counter/w/").json()["value"], 2)
        self.assertEqual(self.http.get("/api/counter/w/").json()["value"], 0)

    def test_a_transaction_reads_what_it_wrote(self):
        body = {"item": 5, "reference": "mine"}
        self.assertEqual(self.http.post("/api/orders/", json=body).status_code, 201)
        answer = self.http.get("/api/orm/")
        self.assertEqual(answer.status_code, 200, answer.text)


if __name__ == "__main__":
    unittest.main()
