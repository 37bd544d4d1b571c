"""What a case is: one thing measured on several programs under the same load.

A case is opened once (its upstream or database starts), its programs start once, and then rounds follow: in every round each
program is measured once, in an order that turns from round to round, so that a machine that drifts drifts for all of them.
Where starting is part of what is measured (memory after 10,000 logins) a case sets `fresh`, and a program lives for one sample.
"""
from __future__ import annotations

import dataclasses
from typing import ClassVar

US = "bookend"


class NotOffered(Exception):
    """This program cannot do what the case asks; the text says what is missing. Shown in the table, never dropped."""


class SampleFailed(Exception):
    """The load did not run as it should have (errors, a program that ended): no figure may be made of it."""


@dataclasses.dataclass(frozen=True)
class Figure:
    """One number of a sample. `better` is "lower" or "higher"; None for what is shown but never judged.

    `count` is for what may well be 0 on either side: it is judged by the difference, not by a ratio (`stats.compare_counts`).
    What has the unit "errors" is always one.
    """

    name: str
    unit: str
    better: str | None
    count: bool = False

    def __post_init__(self):
        object.__setattr__(self, "count", self.count or self.unit == "errors")


# Names that mean the same in every case.
RATE = Figure("rate", "requests/s", "higher")
CPU = Figure("cpu", "µs CPU/request", "lower")
P50 = Figure("p50", "ms", "lower")
P99 = Figure("p99", "ms", "lower")
RSS = Figure("rss", "MiB RSS", "lower")
PSS = Figure("pss", "MiB PSS", "lower")


class Case:
    """Subclass, set the class attributes, implement `start` and `measure`.

    name       what CASES= takes: group and subject in kebab-case ("http-small-64")
    group      "http", "pg" or "whole"
    title      one line for the table: what is asked of the programs
    figures    the figures a sample carries; the first is the headline, whose ratio orders the table
    programs   whom it is measured on; US first
    plot, x    "rate" or "memory" puts the case into that plot, at this place of its x axis (requests/s, connections)
    """

    name: str
    group: str
    title: str
    figures: ClassVar[list[Figure]]
    programs: ClassVar[list[str]]
    rounds: int = 5
    fresh: bool = False
    plot: str | None = None
    x: float | None = None

    def open(self, bench) -> None:
        """Starts what all programs share. `bench.enter(context_manager)` closes it after the case."""

    def offered(self, program: str) -> None:
        """Raises NotOffered when this program cannot do what the case asks."""

    def start(self, bench, program: str):
        """Returns a context manager whose value is the running program."""
        raise NotImplementedError

    def warm_up(self, bench, program: str, running) -> None:
        """Once per program, before the first round; what it measures is thrown away."""

    def measure(self, bench, program: str, running) -> dict[str, float | None]:
        """One sample: a number for each figure, None where there is none. Raises SampleFailed."""
        raise NotImplementedError
