"""Runs cases in turns and keeps every sample.

One round measures each program once; the order turns by one from round to round. What is kept is the raw sample, also of a
round that failed (with the error), so that nothing in the tables cannot be checked.
"""
from __future__ import annotations

import contextlib
import dataclasses
import time
import traceback

from .case import Case, NotOffered, SampleFailed
from .stats import summarise


@dataclasses.dataclass
class Options:
    """`seconds` is how long one sample loads a program; `rounds` overrides the cases' own number."""

    seconds: float = 2.0
    rounds: int | None = None
    programs: list[str] | None = None
    bookend: str = "target/release/bookend"


class Bench:
    """What a case is handed: the options, a place for logs, and a stack that closes what it opened."""

    def __init__(self, options: Options, logs, say):
        self.options = options
        self.logs = logs
        self.say = say
        self.stack = contextlib.ExitStack()

    @property
    def seconds(self) -> float:
        return self.options.seconds

    def enter(self, manager):
        """Opens a context manager until the case ends."""
        return self.stack.enter_context(manager)


def in_turn(programs: list[str], turn: int) -> list[str]:
    """The order of one round: A B C, B C A, C A B, ..."""
    turn %= len(programs) or 1
    return programs[turn:] + programs[:turn]


def run_case(case: Case, options: Options, logs, say) -> dict:
    """Returns the case as it goes into the results file. An error ends this case, not the run."""
    bench = Bench(options, logs, say)
    wanted = [name for name in case.programs if not options.programs or name in options.programs]
    result = {
        "name": case.name,
        "group": case.group,
        "title": case.title,
        "figures": [dataclasses.asdict(figure) for figure in case.figures],
        "programs": wanted,
        "not_offered": {},
        "failed": {},
        "samples": {name: [] for name in wanted},
        "error": None,
        "seconds": 0.0,
    }
    began = time.monotonic()
    try:
        with bench.stack:
            case.open(bench)
            rounds(case, bench, wanted, result)
    except Exception as error:  # a case that cannot run is a line of the report, not the end of it
        result["error"] = f"{type(error).__name__}: {error}"
        say(traceback.format_exc())
    result["seconds"] = round(time.monotonic() - began, 1)
    return result


def rounds(case: Case, bench: Bench, wanted: list[str], result: dict):
    """Starts the programs and measures them in turns; fills in `result`."""
    alive = {}
    present = []
    for program in wanted:
        try:
            case.offered(program)
            if not case.fresh:
                alive[program] = bench.enter(case.start(bench, program))
                case.warm_up(bench, program, alive[program])
            present.append(program)
        except NotOffered as missing:
            result["not_offered"][program] = str(missing)
            bench.say(f"    {program:<10} not offered: {missing}")
        except (SampleFailed, RuntimeError, OSError) as error:
            result["failed"].setdefault(program, []).append(f"start: {error}")
            bench.say(f"    {program:<10} did not start: {error}")
    for turn in range(bench.options.rounds or case.rounds):
        for program in in_turn(present, turn):
            sample = one_sample(case, bench, program, alive, result)
            result["samples"][program].append(sample)
            bench.say(f"    round {turn + 1} {program:<10} {in_words(case, sample)}")


def one_sample(case: Case, bench: Bench, program: str, alive: dict, result: dict) -> dict[str, float | None]:
    """One sample; all None when it failed, and the reason is kept."""
    try:
        if not case.fresh:
            return case.measure(bench, program, alive[program])
        with case.start(bench, program) as running:
            return case.measure(bench, program, running)
    except (SampleFailed, RuntimeError, OSError) as error:
        result["failed"].setdefault(program, []).append(str(error))
        return {figure.name: None for figure in case.figures}


def in_words(case: Case, sample: dict) -> str:
    """A sample as a line of progress."""
    known = [(figure, sample.get(figure.name)) for figure in case.figures]
    return "  ".join(f"{figure.name} {value:,.4g} {figure.unit}" for figure, value in known if value is not None)


def medians(result: dict) -> dict[str, dict[str, float | None]]:
    """{program: {figure: median or None}} of a finished case."""
    table = {}
    for program, samples in result["samples"].items():
        table[program] = {}
        for figure in result["figures"]:
            summary = summarise([sample.get(figure["name"]) for sample in samples])
            table[program][figure["name"]] = summary.median if summary else None
    return table
