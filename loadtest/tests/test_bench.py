"""What becomes of a run: a whole one is published, a part touches nothing, one that is cut off replaces nothing."""
import contextlib
import io
import json
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import bench
from harness import report
from harness.case import Case, Figure


class Fake(Case):
    group = "http"
    title = "nothing"
    figures = [Figure("rate", "requests/s", "higher")]
    programs = ["bookend", "nginx"]

    def __init__(self, name, broken=None):
        self.name = name
        self.broken = broken

    def start(self, bench, program):
        return contextlib.nullcontext(program)

    def measure(self, bench, program, running):
        if self.broken:
            raise self.broken
        return {"rate": 1.0}


class Run(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.readme = self.folder / "README.md"
        self.page = self.folder / "loadtest.md"
        self.page.write_text(f"{report.BEGIN}\n{report.END}\n")
        self.readme.write_text(f"{report.BEGIN}\n{report.END}\n")
        self.cases = [Fake("http-a"), Fake("http-b")]
        for patched in (
            mock.patch.object(bench, "RESULTS", self.folder / "results"),
            mock.patch.object(bench, "all_cases", lambda: self.cases),
            mock.patch.object(bench, "versions", lambda program: {"bookend": "1"}),
            mock.patch.object(bench.os, "geteuid", lambda: 0),
            mock.patch.object(report, "README", self.readme),
            mock.patch.object(report, "LOSSES_PAGE", self.page),
            mock.patch.dict("os.environ", {"BENCH_MACHINE": "here"}),
        ):
            patched.start()
            self.addCleanup(patched.stop)

    def run_with(self, *words):
        """The exit code; what was said is kept in `said`."""
        said = io.StringIO()
        argv = mock.patch("sys.argv", ["bench.py", *words])
        with argv, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                return bench.main()
            finally:
                self.said = said.getvalue()

    def files(self, folder="results"):
        return sorted(path.suffix for path in (self.folder / folder).glob("*here.*"))

    def test_a_whole_run_is_published(self):
        self.assertEqual(self.run_with(), 0)
        self.assertEqual((self.files(), self.files("results/tmp")), ([".json", ".md"], []))
        self.assertIn("make bench CASES=http-a", self.readme.read_text())
        [file] = (self.folder / "results").glob("*.json")
        result = json.loads(file.read_text())
        self.assertRegex(file.name, rf"^{result['began'][:10]}-here\.json$")
        self.assertEqual((result["whole"], [case["name"] for case in result["cases"]]), (True, ["http-a", "http-b"]))

    def test_less_than_a_whole_run_stays_in_tmp(self):
        for words in (["--cases", "http-a"], ["--rounds", "3"], ["--seconds", "1"], ["--programs", "bookend,nginx"]):
            with self.subTest(words):
                before = self.readme.read_text()
                self.assertEqual(self.run_with(*words), 0)
                self.assertEqual((self.files(), self.readme.read_text()), ([], before))
                self.assertIn(".json", self.files("results/tmp"))

    def test_a_run_that_is_cut_off_leaves_the_last_one_and_its_own_beginning(self):
        self.run_with()
        [file] = (self.folder / "results").glob("*.json")
        before = file.read_text()
        self.cases[1].broken = KeyboardInterrupt()
        with self.assertRaises(KeyboardInterrupt):
            self.run_with()
        self.assertEqual(file.read_text(), before)
        [rest] = (self.folder / "results/tmp").glob("*.json")
        self.assertEqual([case["name"] for case in json.loads(rest.read_text())["cases"]], ["http-a"])

    def test_a_case_that_cannot_run_is_shown_and_fails_the_run(self):
        self.cases[0].broken = KeyError("x")
        self.assertEqual(self.run_with(), 1)
        self.assertIn("the case ended early: KeyError: 'x'", self.readme.read_text())

    def test_nothing_says_where_the_checkout_lies(self):
        place = str(bench.machine.REPOSITORY)
        self.cases[0].broken = RuntimeError(f"{place}/target/release/bookend: not there")
        self.run_with()
        texts = [path.read_text() for path in [self.readme, *(self.folder / "results").glob("*.*")]]
        self.assertFalse([text for text in texts if place in text])
        self.assertTrue(any("round 1: target/release/bookend: not there" in text for text in texts))

    def test_an_own_file_is_not_published(self):
        out = self.folder / "own/x.json"
        self.assertEqual(self.run_with("--out", str(out)), 0)
        self.assertEqual((out.exists(), out.with_suffix(".md").exists(), self.files()), (True, True, []))
        self.assertNotIn("http-a", self.readme.read_text())

    def test_tables_are_made_again_of_a_file(self):
        self.run_with()
        [file] = (self.folder / "results").glob("*.json")
        shown = (file.with_suffix(".md").read_text(), self.readme.read_text())
        file.with_suffix(".md").unlink()
        self.readme.write_text(f"{report.BEGIN}\n{report.END}\n")
        self.assertEqual(self.run_with("--report", str(file), "--publish"), 0)
        self.assertEqual((file.with_suffix(".md").read_text(), self.readme.read_text()), shown)

    def test_whoever_is_not_root_is_told(self):
        with mock.patch.object(bench.os, "geteuid", lambda: 1000):
            self.assertEqual(self.run_with(), 2)
        self.assertIn("wants root", self.said)


if __name__ == "__main__":
    unittest.main()
