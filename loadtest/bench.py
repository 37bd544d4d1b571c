"""Measures Bookend beside the programs it replaces, on this machine: `make bench`, or

    .cache/peers/venv/bin/python loadtest/bench.py --cases http-small-64,pg-select
    .cache/peers/venv/bin/python loadtest/bench.py --list

A word that is no case's name selects every case that begins with it. Wants root (the peers run in a chroot) and two cores:
the proxy under test has one for itself, generator and upstream share the other.

A whole run (all cases, with their own rounds and seconds) becomes loadtest/results/DATE-MACHINE.json with its table and
plots, and the README's section. Anything less stays in loadtest/results/tmp, which git ignores. Table and plots are made of
the JSON file alone; `--report FILE` makes them again.
"""
import argparse
import datetime
import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import machine, progress, report, runner  # noqa: E402
from harness.registry import all_cases, select  # noqa: E402
from harness.versions import versions  # noqa: E402

RESULTS = machine.REPOSITORY / "loadtest/results"
SECONDS = 1.4


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--cases", default=os.environ.get("CASES", ""), help="names or beginnings, by comma; default: all")
    parser.add_argument("--list", action="store_true", help="the names, and nothing is run")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="load per sample; default: %(default)s")
    parser.add_argument("--rounds", type=int, help="instead of the cases' own number (5)")
    parser.add_argument("--programs", default="", help="only these, by comma")
    parser.add_argument("--bookend", default=str(machine.REPOSITORY / "target/release/bookend"))
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the results go instead; the README is left alone")
    parser.add_argument("--report", type=Path, metavar="FILE", help="make tables and plots of a results file, run nothing")
    parser.add_argument("--publish", action="store_true", help="with --report: write the README's section too")
    return parser.parse_args()


def say(text: str):
    print(text, flush=True)


def run(options) -> Path:
    """Runs the chosen cases. Returns the results file; what is done so far is in it after every case."""
    cases = select(all_cases(), options.cases)
    described = machine.description()
    whole = not (options.cases or options.programs or options.rounds) and options.seconds == SECONDS
    began = datetime.datetime.now(datetime.timezone.utc)
    result = {
        "began": began.isoformat(timespec="seconds"),
        "seconds": 0,
        "whole": whole,
        "machine": described,
        "cores": machine.CORES,
        "versions": versions(options.bookend),
        "seconds_per_sample": options.seconds,
        "cases": [],
    }
    out = options.out or RESULTS / "tmp" / f"{began:%Y-%m-%d-%H%M%S}-{described['name']}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    settings = runner.Options(
        seconds=options.seconds,
        rounds=options.rounds,
        programs=[name for name in options.programs.split(",") if name] or None,
        bookend=str(Path(options.bookend).resolve()),
    )
    took = progress.last_time(RESULTS, described["name"]) if whole else {}
    forecast = progress.Forecast(took, [case.name for case in cases])
    with tempfile.TemporaryDirectory(prefix="bookend-bench-") as logs:
        clock = time.monotonic()
        for number, case in enumerate(cases, 1):
            ahead = forecast.in_words(number - 1)
            say(f"[{number}/{len(cases)} {time.monotonic() - clock:5.0f} s{ahead}] {case.name}: {case.title}")
            result["cases"].append(runner.run_case(case, settings, Path(logs), say))
            result["seconds"] = round(time.monotonic() - clock)
            out.write_text(as_json(result))
    if whole and not options.out:
        # Only now: a run that was cut off leaves the last whole one of the day as it was.
        out = out.rename(RESULTS / f"{began:%Y-%m-%d}-{described['name']}.json")
    say(f"raw numbers: {out}")
    return out


def as_json(result: dict) -> str:
    """The results file. What failed names files in its reasons: they are published without the place of this checkout."""
    return json.dumps(result, indent=1, allow_nan=False).replace(f"{machine.REPOSITORY}/", "") + "\n"


def main() -> int:
    options = arguments()
    if options.list:
        for case in all_cases():
            say(f"{case.name:<28} {case.title}")
        return 0
    if options.report:
        out, publish = options.report, options.publish
    else:
        if os.geteuid() != 0:
            print("bench: the peers run in a chroot, which wants root", file=sys.stderr)
            return 2
        out = run(options)
        publish = out.parent == RESULTS and not options.out
    result = json.loads(out.read_text())
    report.write(result, out, publish=publish, say=say)
    return 1 if any(case["error"] for case in result["cases"]) else 0


if __name__ == "__main__":
    sys.exit(main())
