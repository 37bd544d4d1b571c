"""Which cases a word names, and what all of them must be."""
import types
import unittest

from harness.case import US
from harness.plots import GROUPS
from harness.registry import all_cases, select

CASES = [types.SimpleNamespace(name=name) for name in ("http-small-8", "http-small-64", "pg-idle-1000", "pg-idle-10000")]


def names(wanted: str) -> list[str]:
    return [case.name for case in select(CASES, wanted)]


class Select(unittest.TestCase):
    def test_nothing_is_all(self):
        self.assertEqual(len(names("")), 4)
        self.assertEqual(len(names(" , ")), 4)

    def test_a_word_is_the_beginning_of_names(self):
        self.assertEqual(names("http-small"), ["http-small-8", "http-small-64"])

    def test_a_name_is_that_case_alone(self):
        self.assertEqual(names("pg-idle-1000"), ["pg-idle-1000"])

    def test_the_order_is_that_of_the_cases_and_none_is_twice(self):
        self.assertEqual(names("pg-idle-1000, http,http-small-8"), ["http-small-8", "http-small-64", "pg-idle-1000"])

    def test_an_unknown_word_is_an_error_that_names_the_known(self):
        with self.assertRaisesRegex(SystemExit, "'htpp'.*http-small-8"):
            select(CASES, "pg,htpp")


class AllCases(unittest.TestCase):
    def test_each_can_be_reported(self):
        cases = all_cases()
        self.assertEqual(len({case.name for case in cases}), len(cases), "a name stands for one case")
        for case in cases:
            with self.subTest(case.name):
                self.assertRegex(case.name, r"^[a-z0-9]+(-[a-z0-9]+)+$")
                self.assertTrue(case.name.startswith(f"{case.group}-"))
                self.assertIn(case.group, GROUPS)
                self.assertTrue(case.title)
                self.assertEqual(case.programs[0], US)
                self.assertEqual(len(set(case.programs)), len(case.programs))
                self.assertGreaterEqual(case.rounds, 3, "fewer pairs get no ratio")
                self.assertTrue(case.figures[0].better, "the headline orders the table")
                self.assertEqual(len({figure.name for figure in case.figures}), len(case.figures))
                for figure in case.figures:
                    self.assertIn(figure.better, ("higher", "lower", None))
                self.assertEqual(case.plot is None, case.x is None)


if __name__ == "__main__":
    unittest.main()
