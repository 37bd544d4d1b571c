"""Runs cases in turns and keeps every sample.

One round measures each program once; the order turns by one from round to round. What is kept is the raw sample, also of a
round that failed (with the error), so that nothing in the tables cannot be checked.
"""
from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import time
import traceback

from .case import Case, NotOffered, SampleFailed

# What ends a sample and not the case: the load went wrong, a program did not start, a tool failed or ran out of time.
NO_SAMPLE = (SampleFailed, RuntimeError, OSError, subprocess.SubprocessError)


@dataclasses.dataclass
class Options:
    """`seconds` is how long one sample loads a program; `rounds` overrides the cases' own number."""

    seconds: float = 1.4
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
        "plot": case.plot,
        "x": case.x,
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
    alive = start_all(case, bench, wanted, result)
    for turn in range(bench.options.rounds or case.rounds):
        for program in in_turn(list(alive), turn):
            if program in result["not_offered"]:
                continue
            try:
                sample = checked(case, one_sample(case, bench, program, alive[program]))
                said = in_words(case, sample)
            except NotOffered as missing:  # a fresh program may say so only when it is asked
                not_offered(result, program, missing, bench.say)
                continue
            except NO_SAMPLE as error:
                result["failed"].setdefault(program, []).append(f"round {turn + 1}: {error}")
                sample, said = dict.fromkeys(figure.name for figure in case.figures), f"failed: {error}"
            result["samples"][program].append(sample)
            bench.say(f"    round {turn + 1} {program:<10} {said}")


def start_all(case: Case, bench: Bench, wanted: list[str], result: dict) -> dict:
    """{program: what `start` gave, None for a fresh one} of those that can be measured; `result` says why of the others."""
    alive = {}
    for program in wanted:
        try:
            case.offered(program)
            running = None
            if not case.fresh:
                running = bench.enter(case.start(bench, program))
                case.warm_up(bench, program, running)
            alive[program] = running
        except NotOffered as missing:
            not_offered(result, program, missing, bench.say)
        except NO_SAMPLE as error:
            result["failed"].setdefault(program, []).append(f"start: {error}")
            bench.say(f"    {program:<10} did not start: {error}")
    return alive


def not_offered(result: dict, program: str, missing: NotOffered, say):
    """Puts down what a program cannot do, and says it."""
    result["not_offered"][program] = str(missing)
    say(f"    {program:<10} not offered: {missing}")


def one_sample(case: Case, bench: Bench, program: str, running) -> dict[str, float | None]:
    """One sample, of the program that runs or of one that is started for it."""
    if not case.fresh:
        return case.measure(bench, program, running)
    with case.start(bench, program) as running:
        return case.measure(bench, program, running)


def checked(case: Case, sample: dict) -> dict:
    """The sample, if each figure of the case has a number or None in it. What else is in it is kept too, if JSON can."""
    missing = [figure.name for figure in case.figures if figure.name not in sample]
    if missing:
        raise RuntimeError(f"{case.name} did not measure {', '.join(missing)}, which it has as figures")
    try:
        json.dumps(sample, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SampleFailed(f"not for a results file: {error}") from error
    return sample


def in_words(case: Case, sample: dict) -> str:
    """A sample as a line of progress."""
    known = [(figure, sample.get(figure.name)) for figure in case.figures]
    return "  ".join(f"{figure.name} {value:,.4g} {figure.unit}" for figure, value in known if value is not None)
