"""Numbers and cells as Markdown: three significant digits, a ratio with its verdict, nothing that breaks a table."""
from __future__ import annotations

import math

from .case import US
from .judge import Line, Row
from .stats import Comparison, Summary

# Which way a figure is good, beside its unit.
ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}
REASON_LENGTH = 200


def number(value: float, count: bool = False) -> str:
    """Three significant digits, thousands by comma, never an exponent: 41,200 9.87 0.0123 0. Whole counts as they are."""
    if value == 0 or (count and value == int(value)):
        return f"{value:,.0f}"
    rounded = round(value, 2 - magnitude(value))
    # Rounding may have carried into one more digit: 9.999 is 10.0, not 10.00.
    return f"{rounded:,.{max(0, 2 - magnitude(rounded))}f}"


def ratio(value: float) -> str:
    """Two decimals near 1, two significant digits far from it: 0.92 1.08 0.073 12."""
    return f"{value:.2f}" if 0.1 <= value < 9.995 else f"{value:,.0f}" if value >= 1 else f"{value:.2g}"


def magnitude(value: float) -> int:
    """The power of ten of the first digit."""
    return math.floor(math.log10(abs(value)))


def figure_name(figure: dict) -> str:
    """The unit, and the way that is good; the name only where the unit does not say it."""
    name, unit = figure["name"], figure["unit"]
    of_name, of_unit = set(name.lower().split("_")), set(unit.lower().replace("/", " ").split())
    said = unit if name == "rate" or of_name & of_unit else f"{name}, {unit}"
    return said + ARROWS[figure["better"]]


def measured(figure: dict, summary: Summary | None) -> str:
    """The median, or a dash."""
    return number(summary.median, figure["count"]) if summary else "–"


def compared(one: Comparison | None) -> str:
    """A comparison in few words: "0.92 **behind**", "+12 **behind**", "no ratio (…)", "no ratio (…), **behind**"."""
    if one is None:
        return ""
    if one.ratio is None and one.difference is None:
        return ", ".join(filter(None, [f"no ratio ({one.why})", strong(one.verdict)]))
    value = ratio(one.ratio) if one.ratio is not None else signed(one.difference)
    return f"{value} {strong(one.verdict)}".rstrip()


def signed(value: float) -> str:
    """A difference, its sign always shown."""
    return ("+" if value > 0 else "−" if value < 0 else "±") + number(abs(value), count=True)


def strong(verdict: str | None) -> str:
    """Losses stand out."""
    return f"**{verdict}**" if verdict == "behind" else verdict or ""


def program_cell(row: Row, line: Line, program: str) -> str:
    """One program in one figure: its median and, for a peer, us beside it; or why there is nothing."""
    if program in row.case["not_offered"]:
        return "not offered" if program != US else f"**not offered**: {reason(row.case['not_offered'][program])}"
    summary = line.summaries.get(program)
    if summary is None:
        return "failed" if program != US else "**failed**"
    beside = compared(line.beside.get(program))
    taken = len(row.case["samples"][program])
    lost = f"{taken - summary.count} of {taken} failed" if summary.count < taken and program in row.case["failed"] else ""
    return " · ".join(filter(None, [measured(line.figure, summary), beside, lost]))


def reason(text: str) -> str:
    """What a program or the harness said, as one short line of a table."""
    words = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    return words if len(words) <= REASON_LENGTH else words[: REASON_LENGTH - 1] + "…"


def table(head: list[str], body: list[list[str]], right: int = 0) -> list[str]:
    """Lines of a Markdown table; the last `right` columns stand at the right."""
    bars = ["---"] * (len(head) - right) + ["---:"] * right
    return [f"| {' | '.join(cells)} |" for cells in [head, bars, *body]]
