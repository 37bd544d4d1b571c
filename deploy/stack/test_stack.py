"""The runner does as told, and leaves nothing behind however it ends."""
import contextlib
import os
import signal
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg

from client import StackClient, StackError

GONE_SECONDS = 20


def direct(stack):
    postgres = stack.postgres
    return psycopg.connect(
        host="127.0.0.1", port=postgres["port"], user=postgres["user"],
        password=postgres["password"], dbname=postgres["database"], connect_timeout=5,
    )


def process_exists(pid: int) -> bool:
    """A zombie counts as gone: whoever inherits it will reap it."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


class Commands(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = StackClient("--replicas", "2")
        cls.addClassCleanup(cls.stack.close)

    def test_a_killed_replica_comes_back_on_its_port(self):
        before = self.stack.ready["replicas"][0]
        killed = self.stack.send("kill", replica="web-1", signal="KILL")["replica"]
        self.assertFalse(killed["alive"])
        with self.assertRaises(httpx.ConnectError):
            httpx.get(f"http://{before['address']}/nodb/")
        after = self.stack.send("start", replica="web-1", env={"HEALTH_IGNORES_DATABASE": 1})
        self.assertEqual(after["replica"]["address"], before["address"])
        health = httpx.get(f"http://{before['address']}/health/").json()
        self.assertEqual(health, {"status": "ok", "replica": "web-1"})

    def test_postgres_restarts_on_its_port_and_health_says_so(self):
        address = self.stack.ready["replicas"][1]["address"]
        for mode in ("fast", "immediate"):
            self.stack.send("stop_postgres", mode=mode)
            self.assertEqual(httpx.get(f"http://{address}/health/").status_code, 503)
            self.stack.send("start_postgres")
            self.assertEqual(httpx.get(f"http://{address}/health/").status_code, 200)
        self.assertTrue(self.stack.send("restart_postgres")["postgres"]["running"])
        with direct(self.stack) as connection:
            self.assertEqual(
                connection.execute("SELECT count(*) FROM shop_item").fetchone(), (5000,)
            )

    def test_a_bad_command_is_answered_and_survived(self):
        for cmd, fields in (
            ("kill", {"replica": "web-9"}),
            ("kill", {"replica": "web-2", "signal": "NONE"}),
            ("start", {"replica": "web-2"}),
            ("stop_postgres", {"mode": "slowly"}),
            ("dance", {}),
        ):
            with self.assertRaises(StackError):
                self.stack.send(cmd, **fields)
        self.stack.process.stdin.write("not json\n[]\n")
        self.stack.process.stdin.flush()
        for _ in range(2):
            with self.assertRaises(StackError):
                self.stack._read()
        self.assertEqual(len(self.stack.send("status")["replicas"]), 2)

    def test_a_port_in_use_is_named(self):
        taken = self.stack.ready["replicas"][1]["port"]
        with self.assertRaisesRegex(StackError, str(taken)):
            self.stack.send("start_replicas", count=1, ports=[taken])
        self.assertEqual(len(self.stack.send("status")["replicas"]), 2)


class Endings(unittest.TestCase):
    def ends(self, how):
        stack = StackClient("--replicas", "1", new_session=True)
        with stack:
            home = Path(stack.ready["home"])
            pids = [stack.postgres["pid"], stack.ready["replicas"][0]["pid"]]
            self.assertTrue(all(process_exists(pid) for pid in pids))
            how(stack.process)
            stack.process.wait(GONE_SECONDS)
        deadline = time.monotonic() + GONE_SECONDS
        while any(process_exists(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertFalse(any(process_exists(pid) for pid in pids))
        return home

    def test_nothing_is_left_after_end_of_input(self):
        self.assertFalse(self.ends(lambda process: process.stdin.close()).exists())

    def test_nothing_is_left_after_sigterm(self):
        self.assertFalse(self.ends(lambda process: process.terminate()).exists())

    def test_nothing_is_left_after_sigint(self):
        home = self.ends(lambda process: process.send_signal(signal.SIGINT))
        self.assertFalse(home.exists())

    def test_a_killed_runner_takes_its_children_along_and_the_next_run_its_folder(self):
        home = self.ends(lambda process: process.kill())
        self.assertTrue(home.exists())
        with StackClient("--pg-only"):
            self.assertFalse(home.exists())


class Logins(unittest.TestCase):
    def test_each_way_to_log_in(self):
        for auth, prefix in (("md5", "md5"), ("scram-sha-256", "SCRAM-SHA-256$")):
            with self.subTest(auth), StackClient("--pg-only", "--auth", auth) as stack:
                postgres = stack.postgres
                with direct(stack) as connection:
                    connection.execute("SELECT 1")
                with self.assertRaises(psycopg.OperationalError):
                    postgres["password"] = "wrong"
                    direct(stack)
                with psycopg.connect(
                    host=postgres["socket_dir"], port=postgres["port"], dbname="postgres",
                    user=postgres["superuser"],
                ) as superuser:
                    (stored,) = superuser.execute(
                        "SELECT rolpassword FROM pg_authid WHERE rolname = 'arena_user'"
                    ).fetchone()
                self.assertTrue(stored.startswith(prefix))
        with StackClient("--pg-only", "--auth", "trust", "--max-connections", "33") as stack:
            stack.postgres["password"] = ""
            with direct(stack) as connection:
                self.assertEqual(connection.execute("SHOW max_connections").fetchone(), ("33",))

    def test_a_given_password_is_used(self):
        with StackClient("--pg-only", env={**os.environ, "DB_PASSWORD": "sëcret 'x"}) as stack:
            self.assertEqual(stack.postgres["password"], "sëcret 'x")
            direct(stack).close()

    def test_runs_at_once_each_get_their_own(self):
        with contextlib.ExitStack() as running, ThreadPoolExecutor(4) as pool:
            stacks = list(pool.map(lambda _: StackClient("--pg-only"), range(4)))
            for stack in stacks:
                running.enter_context(stack)
            for stack in stacks:
                with direct(stack) as connection:
                    rows = connection.execute("SELECT count(*) FROM shop_item").fetchone()
                    self.assertEqual(rows, (5000,))
            self.assertEqual(len({stack.postgres["port"] for stack in stacks}), 4)


if __name__ == "__main__":
    unittest.main()
