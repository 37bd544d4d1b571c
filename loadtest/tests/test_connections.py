"""Before, peak and after, and what is made of a source that is missing, down or over the limit."""
import http.server
import json
import threading
import unittest

from connections import Absent, Page, Series, Watch, judge, lines, of_page


class Script:
    """A source that says what it is told to."""

    name = "script"

    def __init__(self, *answers):
        self.answers = list(answers)

    def read(self):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self):
        pass


class PageTest(unittest.TestCase):
    def test_all_databases_count(self):
        page = {
            "connections": {"default": {"total_connections": 20}},
            "databases": {"arena_db": {"total_connections": 20}, "arena_db_read": {"total_connections": 7}},
        }
        self.assertEqual(of_page(page), 27)

    def test_the_shape_without_databases_is_read_too(self):
        self.assertEqual(of_page({"connections": {"default": {"total_connections": 45}}}), 45)

    def test_a_page_without_a_pool_is_absent(self):
        with self.assertRaises(Absent):
            of_page({"connections": {}, "databases": {}})


class SeriesTest(unittest.TestCase):
    def test_the_peak_is_the_largest_and_a_lost_sample_is_counted(self):
        series = Series(Script(3, 12, OSError("restarting"), 7))
        series.before = series.sample()
        for _ in range(2):
            series.sample()
        series.after = series.sample()
        report = series.report()
        self.assertEqual((report["before"], report["peak"], report["after"]), (3, 12, 7))
        self.assertEqual((report["samples"], report["missed"]), (3, 1))

    def test_an_absent_source_is_asked_once(self):
        series = Series(Script(Absent("HTTP 404"), AssertionError("asked again")))
        self.assertEqual((series.sample(), series.sample(), series.missed), (None, None, 0))


class JudgeTest(unittest.TestCase):
    def report(self, *answers):
        series = Series(Script(*answers))
        for _ in answers:
            series.sample()
        return {"script": series.report()}

    def test_the_limit_itself_is_allowed(self):
        self.assertEqual(judge(self.report(50), 50), [])
        self.assertEqual(judge(self.report(50, 51), 50), ["51 database connections by script, allowed are 50"])

    def test_what_never_answered_fails_and_what_does_not_exist_does_not(self):
        self.assertEqual(judge(self.report(OSError()), 50), ["script never answered"])
        absent = self.report(Absent("HTTP 404"))
        self.assertEqual(judge(absent, 50), [])
        self.assertEqual(lines(absent), ["database connections by script: not known (HTTP 404)"])


class WatchTest(unittest.TestCase):
    def test_a_watch_sees_what_comes_and_goes_between_start_and_stop(self):
        totals = iter([2] + [40] * 3)
        seen_peak = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                total = next(totals, None)
                if total is None:
                    seen_peak.set()
                    total = 5
                body = json.dumps({"databases": {"arena_db": {"total_connections": total}}}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        watch = Watch(f"http://127.0.0.1:{server.server_port}", None, interval=0.01)
        watch.start()
        self.assertTrue(seen_peak.wait(10))
        report = watch.stop()[Page.name]
        self.assertEqual((report["before"], report["peak"], report["after"]), (2, 40, 5))


if __name__ == "__main__":
    unittest.main()
