"""Measures Bookend beside the programs it replaces, on this machine: `make bench`, or

    .cache/peers/venv/bin/python loadtest/bench.py --cases http-small-64,pg-select
    .cache/peers/venv/bin/python loadtest/bench.py --list

A name selects every case that begins with it. Wants root (the peers run in a chroot) and two cores: the proxy under test has
one for itself, generator and upstream share the other. Raw samples go to loadtest/results/DATE-MACHINE.json, and tables and
plots are made of that file alone (`--report FILE` makes them again).
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

from harness import machine, report, runner  # noqa: E402
from harness.registry import all_cases, select  # noqa: E402
from harness.versions import versions  # noqa: E402

RESULTS = machine.REPOSITORY / "loadtest/results"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--cases", default=os.environ.get("CASES", ""), help="names or beginnings, by comma; default: all")
    parser.add_argument("--list", action="store_true", help="the names, and nothing is run")
    parser.add_argument("--seconds", type=float, default=2.0, help="load per sample")
    parser.add_argument("--rounds", type=int, help="instead of the cases' own number (5, fewer in the slow ones)")
    parser.add_argument("--programs", default="", help="only these, by comma")
    parser.add_argument("--bookend", default=str(machine.REPOSITORY / "target/release/bookend"))
    parser.add_argument("--out", type=Path, help="the results file; default: loadtest/results/DATE-MACHINE.json")
    parser.add_argument("--report", type=Path, metavar="FILE", help="make tables and plots of a results file, run nothing")
    parser.add_argument("--publish", action="store_true", help="write the table into the README too")
    return parser.parse_args()


def say(text: str):
    print(text, flush=True)


def run(options) -> dict:
    """Runs the chosen cases; what is done so far is on disk after every case."""
    cases = select(all_cases(), options.cases)
    described = machine.description()
    result = {
        "began": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": described,
        "versions": versions(options.bookend),
        "seconds_per_sample": options.seconds,
        "cases": [],
    }
    out = options.out or RESULTS / f"{result['began'][:10]}-{described['name']}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    settings = runner.Options(
        seconds=options.seconds,
        rounds=options.rounds,
        programs=[name for name in options.programs.split(",") if name] or None,
        bookend=str(Path(options.bookend).resolve()),
    )
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bookend-bench-") as logs:
        for number, case in enumerate(cases, 1):
            say(f"[{number}/{len(cases)} {time.monotonic() - began:5.0f} s] {case.name}: {case.title}")
            result["cases"].append(runner.run_case(case, settings, Path(logs), say))
            result["seconds"] = round(time.monotonic() - began)
            out.write_text(json.dumps(result, indent=1) + "\n")
    say(f"raw numbers: {out}")
    options.out = out
    return result


def main() -> int:
    options = arguments()
    if options.list:
        for case in all_cases():
            say(f"{case.name:<28} {case.title}")
        return 0
    if options.report:
        options.out = options.report
        result = json.loads(options.report.read_text())
    else:
        if os.geteuid() != 0:
            print("bench: the peers run in a chroot, which wants root", file=sys.stderr)
            return 2
        result = run(options)
    report.write(result, options.out, publish=options.publish, say=say)
    return 1 if any(case["error"] for case in result["cases"]) else 0


if __name__ == "__main__":
    sys.exit(main())
