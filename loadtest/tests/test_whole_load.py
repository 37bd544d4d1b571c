"""What Locust's summary is made into, and the templates of the whole deployments: filled in, and alike on both sides."""
import re
import tempfile
import unittest
from pathlib import Path

from harness.case import SampleFailed
from harness.whole_cases import CASES
from harness.whole_load import Seen, command, parse_summary, whole
from harness.whole_stack import TEMPLATES, Files

# Three seconds behind nginx and PgBouncer in which a replica was killed.
SUMMARY = """{
 "seconds": 3.0, "requests": 513, "failures": 3, "rps": 170.2,
 "p50": 61.1, "p95": 392.0, "p99": 502.0, "max": 546.0,
 "longest_stall_s": 0.05, "error_share": 0.008787346221441126,
 "errors_by_kind": {"HTTP 502": 3, "sse: connection closed": 1, "websocket: connection closed": 1},
 "slow": {"requests": 25, "failures": 0, "p50": 341.0, "p95": 702.0, "max": 741.0},
 "websockets": {"connects": 12, "messages": 41, "failures": 1, "moved": 2, "connect_p95": 149.0, "message_p95": 31.3,
                "replicas": {"web-1": 6, "web-2": 2, "web-3": 4}},
 "sse": {"streams": 3, "events": 25, "failures": 1, "first_event_p95": 151.0},
 "users": 80, "connections": null,
 "limits": {"max_errors": 0.001, "max_p95_ms": 500.0, "max_connections": 50},
 "broken": ["0.879% errors, allowed are 0.100%"], "ok": false
}
"""
VALUES = {
    "front_port": 20001, "pool_port": 20002, "postgres_port": 20003, "admin_port": 20004, "threads": 2, "folder": "/run/it",
    "servers": "- { name: web-1, address: 127.0.0.1:20005 }",
}
NAMES = ("nginx-django.conf.in", "pgbouncer-django.ini.in", "bookend-django-lb.yaml.in", "bookend-django-pool.yaml.in")


class SummaryTest(unittest.TestCase):
    def test_errors_are_those_of_requests_websockets_and_streams(self):
        seen = parse_summary(SUMMARY)
        self.assertEqual((seen.requests, seen.errors, seen.stall), (513, 5, 0.05))
        self.assertEqual((seen.rps, seen.p50, seen.p95, seen.p99), (170.2, 61.1, 392.0, 502.0))
        self.assertAlmostEqual(seen.error_share, 0.8787, 4)
        self.assertEqual(seen.errors_by_kind["HTTP 502"], 3)

    def test_where_nothing_succeeded_there_are_no_times(self):
        text = SUMMARY.replace("61.1", "null").replace("392.0", "null").replace("502.0", "null").replace("0.05,", "null,")
        self.assertEqual(parse_summary(text), Seen(
            requests=513, rps=170.2, p50=None, p95=None, p99=None, stall=None, errors=5, error_share=0.8787346221441126,
            errors_by_kind={"HTTP 502": 3, "sse: connection closed": 1, "websocket: connection closed": 1},
        ))

    def test_a_summary_that_is_cut_off_or_empty_makes_no_sample(self):
        for text in ("", SUMMARY[:200], "{}", SUMMARY.replace('"requests": 513', '"requests": 0')):
            with self.subTest(text[:40]), self.assertRaises(SampleFailed):
                parse_summary(text)

    def test_a_file_is_whole_when_it_can_be_read_to_its_end(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "summary.json"
            with self.assertRaises(OSError):
                whole(path)
            path.write_text(SUMMARY[:-3])
            self.assertFalse(whole(path))
            path.write_text(SUMMARY)
            self.assertTrue(whole(path))

    def test_locust_is_told_host_and_users(self):
        argv = command("http://127.0.0.1:20001", 80)
        self.assertEqual(argv[argv.index("--host") + 1], "http://127.0.0.1:20001")
        self.assertEqual((argv[argv.index("-u") + 1], argv[argv.index("-r") + 1]), ("80", "80"))


class TemplatesTest(unittest.TestCase):
    def fill(self, folder: str) -> Files:
        return Files(Path(folder), {name: name for name in NAMES}, VALUES)

    def test_nothing_is_left_to_fill_in(self):
        with tempfile.TemporaryDirectory() as folder:
            self.fill(folder)
            for name in NAMES:
                self.assertNotRegex((Path(folder) / name).read_text(), "@[{a-z]", name)

    def test_a_reload_finds_both_sides_changed(self):
        with tempfile.TemporaryDirectory() as folder:
            files = self.fill(folder)
            before = [(Path(folder) / name).read_text() for name in NAMES]
            files.write()
            after = [(Path(folder) / name).read_text() for name in NAMES]
            self.assertTrue(all(a != b for a, b in zip(before, after)))
            files.write()
            self.assertEqual(before, [(Path(folder) / name).read_text() for name in NAMES])

    def test_both_pools_have_the_same_sizes(self):
        theirs = dict(re.findall(r"^(\w+) = (\d+)$", (TEMPLATES / NAMES[1]).read_text(), re.MULTILINE))
        ours = dict(re.findall(r"^  (\w+): (\d+)$", (TEMPLATES / NAMES[3]).read_text(), re.MULTILINE))
        for size in ("default_pool_size", "reserve_pool_size", "max_db_connections", "max_client_conn"):
            self.assertEqual(ours[size], theirs[size], size)


class CasesTest(unittest.TestCase):
    def test_their_names_say_whole(self):
        names = [case.name for case in CASES]
        self.assertEqual(len(set(names)), len(names))
        self.assertTrue(all(name.startswith("whole-") for name in names), names)
