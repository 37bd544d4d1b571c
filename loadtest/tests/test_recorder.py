"""What a load test says of what it saw."""
import json
import unittest

from recorder import Recorder, Times, judge


class TimesTest(unittest.TestCase):
    def test_percentiles_are_of_the_nearest_rank(self):
        times = Times()
        for ms in range(1, 101):
            times.add(ms)
        self.assertEqual([times.percentile(share) for share in (0.5, 0.95, 0.99, 1)], [50, 95, 99, 100])

    def test_a_single_time_is_every_percentile(self):
        times = Times()
        times.add(12.34)
        self.assertEqual((times.percentile(0.5), times.percentile(0.99), times.most()), (12.3, 12.3, 12.3))

    def test_without_times_there_is_no_percentile(self):
        self.assertIsNone(Times().percentile(0.5))
        self.assertIsNone(Times().most())


class RecorderTest(unittest.TestCase):
    def test_failed_and_slow_requests_do_not_touch_the_p95(self):
        recorder = Recorder()
        for _ in range(99):
            recorder.page(10, None, now=1.0)
        recorder.page(0.1, "HTTP 503", now=1.0)
        recorder.slow(200, None)
        summary = recorder.summary(seconds=10, end=2.0)
        self.assertEqual((summary["p50"], summary["p95"], summary["max"]), (10, 10, 10))
        self.assertEqual((summary["requests"], summary["failures"], summary["rps"]), (101, 1, 10.1))
        self.assertEqual(summary["slow"]["p95"], 200)
        self.assertEqual(summary["errors_by_kind"], {"HTTP 503": 1})

    def test_a_stall_is_a_time_without_a_successful_page(self):
        recorder = Recorder()
        for now in (100.0, 100.5, 103.25, 103.5):
            recorder.page(1, None, now)
        recorder.page(1, "timeout", now=102.0)
        recorder.slow(1, None)
        recorder.websocket("echoes", 1, None)
        self.assertEqual(recorder.longest_stall(end=104.0), 2.75)

    def test_a_stall_that_lasts_to_the_end_counts(self):
        recorder = Recorder()
        recorder.page(1, None, now=100.0)
        self.assertEqual(recorder.longest_stall(end=107.0), 7.0)

    def test_without_any_success_there_is_no_stall_but_a_failure(self):
        recorder = Recorder()
        recorder.page(1, "connection refused", now=1.0)
        summary = recorder.summary(seconds=1, end=2.0)
        self.assertIsNone(summary["longest_stall_s"])
        self.assertEqual(
            judge(summary, max_errors=0.5, max_p95_ms=1), ["no request succeeded", "100.000% errors, allowed are 50.000%"]
        )

    def test_a_websocket_that_moved_is_an_error_only_when_asked(self):
        recorder = Recorder()
        recorder.websocket("connects", 3, None)
        recorder.moved(counts_as_error=False)
        self.assertEqual(recorder.error_share(), 0)
        recorder.moved(counts_as_error=True)
        websockets = recorder.summary(1, 1)["websockets"]
        self.assertEqual((websockets["moved"], websockets["failures"]), (2, 1))
        self.assertEqual(recorder.error_share(), 1)

    def test_workers_add_up_over_json(self):
        one, other, both = Recorder(), Recorder(), Recorder()
        one.page(10, None, now=1.0)
        one.sse(10, 5, None)
        other.page(20, None, now=1.5)
        other.page(20, "timeout", now=1.5)
        other.replica("web-2")
        for worker in (one, other):
            both.merge(json.loads(json.dumps(worker.drain())))
            self.assertEqual(worker.error_share(), 1, "drained, so nothing is counted twice")
        summary = both.summary(seconds=1, end=1.5)
        self.assertEqual((summary["requests"], summary["max"], summary["longest_stall_s"]), (3, 20, 0.5))
        self.assertEqual((summary["sse"]["events"], summary["websockets"]["replicas"]), (10, {"web-2": 1}))
        self.assertEqual(both.error_share(), 0.25)


class JudgeTest(unittest.TestCase):
    def test_limits_are_inclusive(self):
        summary = {"p95": 500.0, "error_share": 0.001}
        self.assertEqual(judge(summary, max_errors=0.001, max_p95_ms=500), [])
        self.assertEqual(len(judge(summary, max_errors=0.0009, max_p95_ms=499)), 2)


if __name__ == "__main__":
    unittest.main()
