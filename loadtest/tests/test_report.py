"""What is written of a results file: the order, each kind of cell, the same bytes every time, and what is committed."""
import json
import tempfile
import unittest
from pathlib import Path

from harness import plots, progress, report
from harness.judge import other_losses, row, rows
from harness.machine import REPOSITORY
from harness.table import compared, figure_name, number, program_cell, ratio, reason, signed

RATE = {"name": "rate", "unit": "requests/s", "better": "higher", "count": False}
CPU = {"name": "cpu", "unit": "µs CPU/request", "better": "lower", "count": False}
ERRORS = {"name": "errors", "unit": "errors", "better": "lower", "count": True}
P99 = {"name": "p99", "unit": "ms", "better": "lower", "count": False}


def case(name, values, figures=(RATE,), **more):
    """A case in which every round gave the same; `values` is program → one value for each figure, None for a failed one."""
    samples = {
        program: [dict(zip([figure["name"] for figure in figures], each))] * 3 if each else []
        for program, each in values.items()
    }
    return {
        "name": name, "group": name.split("-")[0], "title": f"title of {name}", "figures": list(figures),
        "programs": list(values), "plot": None, "x": None, "not_offered": {}, "failed": {}, "samples": samples,
        "error": None, "seconds": 30.0,
    } | more


def results(*cases, **more):
    return {
        "began": "2026-11-23T17:00:00+00:00",
        "seconds": 125,
        "whole": True,
        "machine": {"name": "2-core", "cpu": "A | CPU", "cores": 2, "memory_gib": 24.0, "kernel": "6.1", "python": "3.11"},
        "cores": {"proxy": [0], "load": [1], "both": [0, 1]},
        "versions": {"bookend": "0.1 (abc)", "nginx": "1.30"},
        "seconds_per_sample": 2.0,
        "cases": list(cases),
    } | more


AHEAD = case("http-ahead", {"bookend": [200], "nginx": [100]})
FAR_BEHIND = case("http-far-behind", {"bookend": [100], "nginx": [150], "haproxy": [400]})
BEHIND = case("http-behind", {"bookend": [90, 50], "nginx": [100, 60], "haproxy": [60, 25]}, (RATE, CPU))
EVEN = case("pg-even", {"bookend": [100], "pgbouncer": [101]})
NO_TLS = case("http-tls", {"bookend": None, "nginx": [100]}, not_offered={"bookend": "no TLS yet"})
NO_ERRORS = case("whole-kill", {"bookend": [0], "nginx+pgbouncer": [12]}, (ERRORS,))
FAILED = case("http-failed", {"bookend": [None], "nginx": [100]}, failed={"bookend": ["round 1: 3 | 4\nand more"] * 3})
FEW = case("pg-few", {"bookend": [100], "pgbouncer": [100]}, error="KeyError: 'x'")
FEW["samples"] = {program: samples[:1] for program, samples in FEW["samples"].items()}


class Order(unittest.TestCase):
    def test_losses_come_first_by_how_much_and_what_is_not_offered_last(self):
        found = rows(results(AHEAD, NO_TLS, EVEN, BEHIND, FEW, FAR_BEHIND, NO_ERRORS, FAILED))
        self.assertEqual(
            [(one.case["name"], one.standing) for one in found],
            [
                ("http-failed", "behind"),  # a peer had a figure and we had none
                ("http-far-behind", "behind"),
                ("http-behind", "behind"),
                ("pg-even", "even"),
                ("http-ahead", "ahead"),
                ("whole-kill", "ahead"),
                ("pg-few", "unjudged"),
                ("http-tls", "not offered"),
            ],
        )

    def test_behind_one_peer_is_behind_whoever_was_beaten(self):
        one = row(case("http-x", {"bookend": [100], "nginx": [50], "haproxy": [110]}))
        self.assertEqual(one.standing, "behind")
        self.assertAlmostEqual(one.factor, 1.1)

    def test_nobody_is_behind_what_runs_without_a_proxy(self):
        one = row(case("pg-x", {"bookend": [100], "direct": [300], "pgbouncer": [50]}))
        self.assertEqual((one.standing, one.peers), ("ahead", ["pgbouncer", "direct"]))
        self.assertIsNone(one.headline.beside["direct"].verdict)
        self.assertEqual(row(case("pg-x", {"bookend": [None], "direct": [300]})).standing, "unjudged")

    def test_a_factor_says_the_same_for_both_ways_of_being_good(self):
        slow = row(case("http-x", {"bookend": [50], "nginx": [100]}))
        fat = row(case("http-x", {"bookend": [100], "nginx": [50]}, (CPU,)))
        self.assertEqual((slow.factor, fat.factor), (2, 2))

    def test_a_loss_without_a_ratio_is_ordered_by_the_medians(self):
        noisy = case("http-x", {"bookend": [1], "nginx": [1]})
        for program, rates in (("bookend", [10, 39, 12]), ("nginx", [100, 41, 60])):
            noisy["samples"][program] = [{"rate": rate} for rate in rates]
        one = row(noisy)
        self.assertEqual((one.standing, one.factor), ("behind", 5))
        self.assertEqual(compared(one.headline.beside["nginx"]), "no ratio (noise 213%), **behind**")

    def test_losses_beside_the_headline_are_found(self):
        found = other_losses(rows(results(BEHIND)))
        self.assertEqual([(loss.peer, loss.line.figure["name"], loss.factor) for loss in found], [("haproxy", "cpu", 2.0)])


class Cells(unittest.TestCase):
    def test_numbers_have_three_significant_digits(self):
        shown = {41234: "41,200", 999.6: "1,000", 987.4: "987", 12.345: "12.3", 9.999: "10.0", 0.012345: "0.0123", 0: "0",
                 5: "5.00", -274.2: "-274"}
        self.assertEqual({value: number(value) for value in shown}, shown)
        self.assertEqual((number(12, count=True), number(12.5, count=True)), ("12", "12.5"))

    def test_ratios_are_fine_near_one(self):
        shown = {0.918: "0.92", 1.0: "1.00", 0.0731: "0.073", 9.99: "9.99", 9.999: "10", 12.4: "12", 0.0999: "0.1"}
        self.assertEqual({value: ratio(value) for value in shown}, shown)

    def test_differences_have_a_sign(self):
        self.assertEqual([signed(value) for value in (12, -12, 0)], ["+12", "−12", "±0"])

    def test_a_figure_is_named_once_with_its_direction(self):
        self.assertEqual([figure_name(figure) for figure in (RATE, CPU, P99)],
                         ["requests/s ↑", "µs CPU/request ↓", "p99, ms ↓"])

    def test_samples_that_failed_are_told_beside_the_median_of_the_others(self):
        shaky = case("http-x", {"bookend": [100], "nginx": [100]}, failed={"bookend": ["round 2: errors"]})
        shaky["samples"]["bookend"] = [{"rate": 100}, {"rate": None}, {"rate": 100}]
        one = row(shaky)
        self.assertEqual(program_cell(one, one.headline, "bookend"), "100 · 1 of 3 failed")
        self.assertEqual(program_cell(one, one.headline, "nginx"), "100 · no ratio (2 pairs)")

    def test_no_reason_breaks_a_table(self):
        self.assertEqual(reason("a | b\n  <br>"), "a \\| b &lt;br>")
        self.assertEqual(len(reason("x" * 500)), 200)


class Document(unittest.TestCase):
    maxDiff = None

    def test_the_headlines_are_these(self):
        self.assertEqual(
            "\n".join(report.overview(rows(results(BEHIND, NO_TLS, NO_ERRORS)))),
            """\
### Behind (1)

| what is asked, and the command | figure | Bookend | what it replaces | other peers |
| --- | --- | --- | --- | --- |
| title of http-behind<br>`make bench CASES=http-behind` | requests/s ↑ | 90.0 | nginx 100 · 0.90 **behind** \
| haproxy 60.0 · 1.50 ahead |

### Ahead (1)

| what is asked, and the command | figure | Bookend | what it replaces | other peers |
| --- | --- | --- | --- | --- |
| title of whole-kill<br>`make bench CASES=whole-kill` | errors ↓ | 0 | nginx+pgbouncer 12 · −12 ahead |  |

### Not offered by Bookend, which counts as behind (1)

| what is asked, and the command | figure | Bookend | what it replaces | other peers |
| --- | --- | --- | --- | --- |
| title of http-tls<br>`make bench CASES=http-tls` | requests/s ↑ | **not offered**: no TLS yet | nginx 100 |  |
""",
        )

    def test_a_case_has_every_figure_of_every_program(self):
        self.assertEqual(
            "\n".join(report.every_figure(row(BEHIND))),
            """\
### http-behind

title of http-behind: `make bench CASES=http-behind`

| figure | program | median | least – most | samples | Bookend beside it | spread of ratios | pairs |
| --- | --- | --- | --- | --- | --- | --- | --- |
| requests/s ↑ | bookend | 90.0 | 90.0 – 90.0 | 3 |  |  |  |
| requests/s ↑ | nginx | 100 | 100 – 100 | 3 | 0.90 **behind** | 0% | 3 |
| requests/s ↑ | haproxy | 60.0 | 60.0 – 60.0 | 3 | 1.50 ahead | 0% | 3 |
| µs CPU/request ↓ | bookend | 50.0 | 50.0 – 50.0 | 3 |  |  |  |
| µs CPU/request ↓ | nginx | 60.0 | 60.0 – 60.0 | 3 | 0.83 ahead | 0% | 3 |
| µs CPU/request ↓ | haproxy | 25.0 | 25.0 – 25.0 | 3 | 2.00 **behind** | 0% | 3 |
""",
        )

    def test_what_failed_or_is_missing_says_why(self):
        text = report.document(results(FAILED, FEW, NO_TLS), "x", [])
        for line in (
            "- bookend failed: round 1: 3 \\| 4 and more",
            "- the case ended early: KeyError: 'x'",
            "- bookend does not offer it: no TLS yet",
        ):
            self.assertIn(f"\n{line}\n", text)
        self.assertIn("pgbouncer 100 · no ratio (1 pair)", text)

    def test_a_reader_learns_where_and_how(self):
        text = report.document(results(AHEAD), "x", [])
        for words in (
            "A | CPU, 2 cores, 24.0 GiB, Linux 6.1", "bookend 0.1 (abc), nginx 1.30", "2026-11-23", "took 2 min 5 s",
            "bound to core 0", "a case has 3 rounds", "Bookend's figure divided by the peer's",
        ):
            self.assertIn(words, text)
        self.assertNotIn("A part of the cases", text)
        self.assertIn("A part of the cases", report.document(results(AHEAD, whole=False), "x", []))

    def test_the_same_results_are_the_same_bytes(self):
        made = [report.document(results(BEHIND, NO_TLS, FAILED), "x", []) for _ in range(2)]
        self.assertEqual(*made)


class Readme(unittest.TestCase):
    def test_only_the_section_is_replaced(self):
        new = report.section(results(BEHIND), "2026-11-23-2-core", [])
        old = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
        self.assertEqual(report.published(old, new), f"before\n{new}\nafter\n")
        self.assertEqual(report.published(report.published(old, new), new), f"before\n{new}\nafter\n")
        self.assertIn("(loadtest/results/2026-11-23-2-core.md)", new)

    def test_a_readme_without_the_section_is_an_error(self):
        for readme in ("", report.BEGIN, f"{report.BEGIN}{report.END}" * 2):
            with self.assertRaises(ValueError):
                report.published(readme, "new")

    def test_nobody_typed_what_is_committed(self):
        """After a change of what makes the tables, `bench.py --report FILE --publish` makes them anew."""
        readme = (REPOSITORY / "README.md").read_text()
        files = sorted((REPOSITORY / "loadtest/results").glob("*.json"))
        for file in files:
            result = json.loads(file.read_text())
            self.assertTrue(result["whole"])
            document = report.document(result, file.stem, plots.pictures(result))
            self.assertTrue(file.with_suffix(".md").read_text() == document, f"{file.stem}.md is not what its JSON gives")
        if files:
            section = report.section(result, file.stem, plots.pictures(result))
            self.assertTrue(report.published(readme, section) == readme, f"README.md does not show {file.name}")
            page = report.LOSSES_PAGE.read_text()
            losses = report.losses_section(result, file.stem)
            self.assertTrue(report.published(page, losses) == page, f"loadtest/README.md does not show {file.name}")
        else:
            self.assertEqual((readme.count(report.BEGIN), readme.count(report.END)), (1, 1))


class Closing(unittest.TestCase):
    def test_a_whole_run_that_took_too_long_is_told(self):
        def last(**more):
            return report.closing(results(AHEAD, **more))[-1]

        self.assertEqual(last(seconds=45 * 60 + 1), "warning: a whole run should take less than 45 minutes")
        self.assertEqual(last(seconds=45 * 60), "1 cases in 45 min 0 s")
        self.assertEqual(last(seconds=9000, whole=False), "1 cases in 150 min 0 s")

    def test_every_case_has_a_line_losses_first(self):
        lines = report.closing(results(AHEAD, BEHIND))
        self.assertRegex(lines[0], r"^behind +http-behind +requests/s ↑: nginx 0.90 behind; haproxy 1.50 ahead$")
        self.assertRegex(lines[1], r"^ahead +http-ahead ")


class Plots(unittest.TestCase):
    def test_cases_that_differ_in_their_number_share_a_panel_in_order(self):
        cases = [
            case(f"http-rate-{x}", {"bookend": [x / 10, 1], "nginx": [2, 1]}, (P99, RATE), plot="rate", x=x)
            for x in (9000, 500)
        ]
        [picture] = plots.pictures(results(*cases, AHEAD))
        self.assertEqual(picture.title, "HTTP: latency over rate")
        self.assertEqual(plots.file_name("stem", picture), "stem-http-rate.svg")
        [panel] = picture.panels
        self.assertEqual([(line.program, line.figure) for line in panel.series], [("bookend", "p99"), ("nginx", "p99")])
        self.assertEqual([(x, summary.median) for x, summary in panel.series[0].points], [(500, 50), (9000, 900)])

    def test_memory_is_the_share_of_a_connection_and_a_failed_program_has_no_line(self):
        each = {"name": "pss_client", "unit": "KiB PSS/client", "better": "lower", "count": False}
        idle = case("pg-idle-10", {"bookend": [9, 2], "odyssey": [None, None]}, (CPU, each), plot="memory", x=10)
        [picture] = plots.pictures(results(idle))
        [panel] = picture.panels
        self.assertEqual((panel.title, panel.unit), ("pg-idle", "KiB PSS/client"))
        self.assertEqual([(line.program, line.figure) for line in panel.series], [("bookend", "pss_client")])

    def test_ticks_have_plain_numbers(self):
        self.assertEqual([plots.plain(value, 0) for value in (0.1, 0.2, 0.3, 1, 5, 20, 70, 1000)],
                         ["0.1", "0.2", "", "1", "5", "20", "", "1000"])

    def test_nothing_to_draw_is_no_picture(self):
        self.assertEqual(plots.pictures(results(AHEAD)), [])


class Forecasts(unittest.TestCase):
    def test_the_newest_whole_run_of_this_machine_counts(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for file, seconds, more in (
                ("2026-01-01-2-core", 10.0, {}),
                ("2026-02-01-2-core", 20.0, {}),
                ("2026-03-01-2-core", 30.0, {"whole": False}),
                ("2026-04-01-other", 40.0, {"machine": {"name": "other"}}),
            ):
                (folder / f"{file}.json").write_text(json.dumps(results(AHEAD | {"seconds": seconds}, **more)))
            self.assertEqual(progress.last_time(folder, "2-core"), {"http-ahead": 20.0})
            self.assertEqual(progress.last_time(folder, "third"), {})

    def test_what_is_left_is_the_sum_of_what_it_took(self):
        forecast = progress.Forecast({"a": 600.0, "b": 300.0, "c": 300.0}, ["a", "b", "c"])
        self.assertEqual([forecast.in_words(done) for done in (0, 1)], [", about 20 min left", ", about 10 min left"])

    def test_a_new_case_is_taken_as_the_others_and_too_many_of_them_as_unknown(self):
        self.assertEqual(progress.Forecast({"a": 600.0, "b": 600.0}, ["a", "b", "new"]).in_words(0), ", about 30 min left")
        self.assertEqual(progress.Forecast({"a": 600.0}, ["a", "new"]).in_words(0), "")
        self.assertEqual(progress.Forecast({}, []).in_words(0), "")


if __name__ == "__main__":
    unittest.main()
