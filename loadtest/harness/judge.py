"""What a results file says of us: each case with its comparisons, and the order in which a reader should see them.

In: the results as they were written down. Out: rows, losses first. Nothing here formats or draws, so that table, README and
the last lines on the terminal cannot disagree.
"""
from __future__ import annotations

import dataclasses
import math

from .case import US
from .stats import Comparison, Summary, compare, compare_counts, summarise

# Where a case puts us, in the order of the tables. "unjudged": no ratio could be given beside any peer.
STANDINGS = ("behind", "even", "ahead", "unjudged", "not offered")
# What runs without any proxy shows what one costs: nobody can be ahead of it, so it gets a ratio and no verdict.
BASELINES = frozenset({"direct"})


@dataclasses.dataclass(frozen=True)
class Line:
    """One figure of a case: what was measured of each program, and us beside each peer."""

    figure: dict
    summaries: dict[str, Summary | None]
    beside: dict[str, Comparison]

    def factor(self, peer: str) -> float:
        """How far behind the peer we are: 2 is half as good, 0.5 twice as good. Counts (may be 0) are taken one higher."""
        one = self.beside[peer]
        if one.difference is not None:
            ours = (self.summaries[US].median + 1) / (self.summaries[peer].median + 1)
        elif one.ratio is not None:
            ours = one.ratio
        elif self.summaries[US].median <= 0 or self.summaries[peer].median <= 0:
            return math.inf if one.verdict == "behind" else 0.0
        else:  # refused, but the order of the rows needs something
            ours = self.summaries[US].median / self.summaries[peer].median
        return ours if self.figure["better"] == "lower" else 1 / ours if ours else math.inf


@dataclasses.dataclass(frozen=True)
class Row:
    """One case. The first line is the headline; `factor` is where we stand worst in it, by which rows are ordered."""

    case: dict
    lines: list[Line]
    standing: str
    factor: float

    @property
    def headline(self) -> Line:
        return self.lines[0]

    @property
    def peers(self) -> list[str]:
        """Everybody else, baselines last; the first is what is usually there in our place."""
        return sorted((program for program in self.case["programs"] if program != US), key=lambda one: one in BASELINES)


@dataclasses.dataclass(frozen=True)
class Loss:
    """A figure other than the headline in which we are behind a peer."""

    row: Row
    line: Line
    peer: str

    @property
    def factor(self) -> float:
        return self.line.factor(self.peer)


def rows(result: dict) -> list[Row]:
    """The cases, losses first: behind by how much, even, ahead, unjudged, not offered."""
    found = [row(case) for case in result["cases"]]
    return sorted(found, key=lambda one: (STANDINGS.index(one.standing), -one.factor))


def row(case: dict) -> Row:
    """One case judged by its headline figure. Behind one peer is behind, whoever else was beaten."""
    lines = [line(case, figure) for figure in case["figures"]]
    headline = lines[0]
    if US in case["not_offered"]:
        return Row(case, lines, "not offered", 0.0)
    if headline.summaries.get(US) is None and US in case["programs"]:
        # A peer did what we could not: no figure can be further behind.
        lost = any(summary for program, summary in headline.summaries.items() if program not in BASELINES)
        return Row(case, lines, "behind" if lost else "unjudged", math.inf if lost else 0.0)
    said = {peer: one.verdict for peer, one in headline.beside.items() if one.verdict}
    standing = next((each for each in ("behind", "even", "ahead") if each in said.values()), "unjudged")
    factor = max((headline.factor(peer) for peer, verdict in said.items() if verdict == standing), default=0.0)
    return Row(case, lines, standing, factor)


def line(case: dict, figure: dict) -> Line:
    """One figure: summaries of all programs, comparisons with the peers that were measured at all."""
    values = {program: [sample.get(figure["name"]) for sample in samples] for program, samples in case["samples"].items()}
    against = compare_counts if figure["count"] else compare
    ours = values.get(US, [])
    return Line(
        figure,
        {program: summarise(values.get(program, [])) for program in case["programs"]},
        {
            peer: against(ours, theirs, None if peer in BASELINES else figure["better"])
            for peer, theirs in values.items()
            if peer != US and any(value is not None for value in theirs) and any(value is not None for value in ours)
        },
    )


def other_losses(judged: list[Row]) -> list[Loss]:
    """Where we are behind beside the headlines, the furthest first: a case that is won on rate may be lost on memory."""
    found = [
        Loss(one, each, peer)
        for one in judged
        for each in one.lines[1:]
        for peer, comparison in each.beside.items()
        if comparison.verdict == "behind"
    ]
    return sorted(found, key=lambda loss: -loss.factor)


def tally(judged: list[Row]) -> dict[str, int]:
    """{standing: how many cases}, in the order of the tables."""
    return {standing: sum(one.standing == standing for one in judged) for standing in STANDINGS}
