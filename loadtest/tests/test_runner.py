"""Who is measured when, and what is kept when something goes wrong."""
import contextlib
import json
import math
import subprocess
import unittest

from harness.case import Case, Figure, NotOffered, SampleFailed
from harness.runner import Options, in_turn, run_case


class Fake(Case):
    """Notes what is done to it; `measured[program]` are its samples in turn, an exception is raised."""

    name = "fake"
    group = "http"
    title = "nothing"
    figures = [Figure("rate", "requests/s", "higher")]
    programs = ["bookend", "nginx", "haproxy"]
    rounds = 3

    def __init__(self, measured=None, refuses=None, fresh=False):
        self.measured = measured or {}
        self.refuses = refuses or {}
        self.fresh = fresh
        self.done = []

    def offered(self, program):
        if program in self.refuses and isinstance(self.refuses[program], NotOffered):
            raise self.refuses[program]

    @contextlib.contextmanager
    def start(self, bench, program):
        if program in self.refuses:
            raise self.refuses[program]
        self.done.append(f"start {program}")
        try:
            yield f"running {program}"
        finally:
            self.done.append(f"end {program}")

    def warm_up(self, bench, program, running):
        self.done.append(f"warm {program}")

    def measure(self, bench, program, running):
        assert running == f"running {program}"
        self.done.append(program)
        answer = self.measured.get(program, [1.0]).pop(0) if self.measured.get(program) else 1.0
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, dict) else {"rate": answer}


def run(case, **options):
    """Runs a case; returns (its result, what was said)."""
    said = []
    return run_case(case, Options(**options), None, said.append), said


class Turns(unittest.TestCase):
    def test_the_order_turns_by_one_each_round(self):
        orders = ["".join(in_turn(["A", "B", "C"], turn)) for turn in range(4)]
        self.assertEqual(orders, ["ABC", "BCA", "CAB", "ABC"])
        self.assertEqual(in_turn([], 1), [])

    def test_every_program_starts_once_and_is_measured_once_a_round(self):
        case = Fake()
        run(case, rounds=2)
        self.assertEqual(
            case.done,
            ["start bookend", "warm bookend", "start nginx", "warm nginx", "start haproxy", "warm haproxy"]
            + ["bookend", "nginx", "haproxy"]
            + ["nginx", "haproxy", "bookend"]
            + ["end haproxy", "end nginx", "end bookend"],
        )

    def test_the_cases_own_rounds_hold_without_others(self):
        result, _ = run(Fake())
        self.assertEqual([len(samples) for samples in result["samples"].values()], [3, 3, 3])

    def test_programs_can_be_chosen(self):
        result, _ = run(Fake(), programs=["nginx", "envoy"])
        self.assertEqual((result["programs"], list(result["samples"])), (["nginx"], ["nginx"]))

    def test_a_fresh_program_lives_for_one_sample(self):
        case = Fake(fresh=True)
        run(case, rounds=2, programs=["bookend", "nginx"])
        self.assertEqual(
            case.done,
            ["start bookend", "bookend", "end bookend", "start nginx", "nginx", "end nginx"]
            + ["start nginx", "nginx", "end nginx", "start bookend", "bookend", "end bookend"],
        )


class WhatGoesWrong(unittest.TestCase):
    def test_what_is_not_offered_is_kept_and_not_measured(self):
        case = Fake(refuses={"bookend": NotOffered("no TLS")})
        result, _ = run(case)
        self.assertEqual(result["not_offered"], {"bookend": "no TLS"})
        self.assertEqual([len(samples) for samples in result["samples"].values()], [0, 3, 3])
        self.assertNotIn("start bookend", case.done)

    def test_a_fresh_program_may_say_so_when_it_is_measured(self):
        result, _ = run(Fake({"nginx": [NotOffered("no WebSockets")]}, fresh=True))
        self.assertEqual((result["not_offered"], result["error"]), ({"nginx": "no WebSockets"}, None))
        self.assertEqual([len(samples) for samples in result["samples"].values()], [3, 0, 3])

    def test_a_program_that_does_not_start_is_no_reason_to_stop(self):
        result, _ = run(Fake(refuses={"nginx": RuntimeError("no such file")}))
        self.assertEqual(result["failed"], {"nginx": ["start: no such file"]})
        self.assertEqual([len(samples) for samples in result["samples"].values()], [3, 0, 3])

    def test_a_failed_sample_keeps_its_place_and_its_reason(self):
        result, said = run(Fake({"nginx": [5.0, SampleFailed("3 answers were not 2xx"), 6.0]}))
        self.assertEqual([sample["rate"] for sample in result["samples"]["nginx"]], [5.0, None, 6.0])
        self.assertEqual(result["failed"], {"nginx": ["round 2: 3 answers were not 2xx"]})
        self.assertTrue(any("failed: 3 answers" in line for line in said))

    def test_a_tool_that_fails_or_hangs_costs_a_sample(self):
        errors = [subprocess.CalledProcessError(1, "wrk"), subprocess.TimeoutExpired("wrk", 9), OSError("gone")]
        result, _ = run(Fake({"nginx": errors}))
        self.assertEqual([sample["rate"] for sample in result["samples"]["nginx"]], [None, None, None])
        self.assertEqual((len(result["failed"]["nginx"]), result["error"]), (3, None))

    def test_a_mistake_ends_the_case_and_closes_what_it_opened(self):
        case = Fake({"nginx": [KeyError("p99")]})
        result, said = run(case)
        self.assertEqual(result["error"], "KeyError: 'p99'")
        self.assertEqual([len(samples) for samples in result["samples"].values()], [1, 0, 0])
        self.assertEqual(case.done[-3:], ["end haproxy", "end nginx", "end bookend"])
        self.assertTrue(any("Traceback" in line for line in said))

    def test_ctrl_c_ends_the_run_and_closes_what_was_opened(self):
        case = Fake({"nginx": [KeyboardInterrupt()]})
        with self.assertRaises(KeyboardInterrupt):
            run(case)
        self.assertEqual(case.done[-3:], ["end haproxy", "end nginx", "end bookend"])


class Samples(unittest.TestCase):
    def test_what_json_has_no_word_for_is_a_failed_sample(self):
        result, _ = run(Fake({"nginx": [math.nan, math.inf, {"rate": 1.0, "kinds": {1, 2}}]}))
        self.assertEqual([sample["rate"] for sample in result["samples"]["nginx"]], [None, None, None])
        self.assertEqual(len(result["failed"]["nginx"]), 3)
        json.dumps(result, allow_nan=False)

    def test_a_figure_that_was_forgotten_is_said(self):
        result, _ = run(Fake({"nginx": [{"raet": 1.0}]}))
        self.assertIn("did not measure rate", result["failed"]["nginx"][0])

    def test_a_figure_may_be_none_and_more_may_be_kept(self):
        result, _ = run(Fake({"nginx": [{"rate": None, "kinds": {"502": 3}}]}))
        self.assertEqual(result["samples"]["nginx"][0], {"rate": None, "kinds": {"502": 3}})
        self.assertEqual(result["failed"], {})

    def test_the_result_says_what_the_case_is(self):
        case = Fake()
        case.plot, case.x = "rate", 5000
        result, _ = run(case)
        self.assertEqual(
            {key: result[key] for key in ("name", "group", "title", "plot", "x", "error")},
            {"name": "fake", "group": "http", "title": "nothing", "plot": "rate", "x": 5000, "error": None},
        )
        self.assertEqual(result["figures"], [{"name": "rate", "unit": "requests/s", "better": "higher", "count": False}])


if __name__ == "__main__":
    unittest.main()
