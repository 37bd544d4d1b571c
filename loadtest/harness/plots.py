"""Plots of a results file as SVG: latency over rate, memory over connections.

Colours are Okabe and Ito's, told apart with any colour vision; besides, each program has a marker of its own and Bookend the
thick black line. The files come out the same to the byte for the same numbers: no date, no random identifiers.
"""
from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

from .case import US
from .stats import Summary, summarise

GROUPS = {"http": "HTTP", "pg": "PostgreSQL", "whole": "the whole"}
# A colour and a marker for each peer in the order of first appearance; https://jfly.uni-koeln.de/color/.
LOOKS = (("#D55E00", "s"), ("#0072B2", "^"), ("#009E73", "D"), ("#CC79A7", "v"), ("#E69F00", "P"), ("#56B4E9", "X"))
OURS = ("#000000", "o")
STYLES = {"p50": "-", "p99": "--"}
X_LABELS = {("rate", "http"): "requests/s, as asked", ("rate", "pg"): "transactions/s, as asked"}


@dataclasses.dataclass(frozen=True)
class Series:
    """A line of a panel: one program in one figure, x and what was measured there."""

    program: str
    figure: str
    points: list[tuple[float, Summary]]


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pair of axes. Cases whose names differ in the trailing number alone share one."""

    title: str
    unit: str
    series: list[Series]


@dataclasses.dataclass(frozen=True)
class Picture:
    """One file: `kind` is "rate" or "memory", `group` that of its cases."""

    kind: str
    group: str
    panels: list[Panel]

    @property
    def title(self) -> str:
        return f"{GROUPS[self.group]}: " + ("latency over rate" if self.kind == "rate" else "memory over connections")


def file_name(stem: str, picture: Picture) -> str:
    """Beside the results file, beginning with its name."""
    return f"{stem}-{picture.group}-{picture.kind}.svg"


def pictures(result: dict) -> list[Picture]:
    """What there is to draw, by group; without matplotlib."""
    found = []
    for kind in ("rate", "memory"):
        for group in GROUPS:
            cases = [case for case in result["cases"] if (case["plot"], case["group"]) == (kind, group)]
            panels = [panel(kind, family, members) for family, members in families(cases).items()]
            panels = [one for one in panels if one.series]
            if panels:
                found.append(Picture(kind, group, panels))
    return found


def families(cases: list[dict]) -> dict[str, list[dict]]:
    """Cases by name without the trailing number, in order of x."""
    found: dict[str, list[dict]] = {}
    for case in cases:
        found.setdefault(re.sub(r"-?\d+$", "", case["name"]), []).append(case)
    return {family: sorted(members, key=lambda case: case["x"]) for family, members in found.items()}


def panel(kind: str, family: str, cases: list[dict]) -> Panel:
    """The lines of a family: p50 and p99 for rate; for memory the proportional set size, which counts shared pages once."""
    names = [figure["name"] for figure in cases[0]["figures"]]
    drawn = [name for name in names if name in STYLES] if kind == "rate" else memory_figure(names)
    unit = next((figure["unit"] for figure in cases[0]["figures"] if figure["name"] in drawn), "")
    programs = list(dict.fromkeys(program for case in cases for program in case["programs"]))
    lines = [Series(program, name, points(cases, program, name)) for program in programs for name in drawn]
    return Panel(family, unit, [line for line in lines if line.points])


def memory_figure(names: list[str]) -> list[str]:
    """The figure of memory that is drawn: the first pss, else the first rss."""
    return [name for prefix in ("pss", "rss") for name in names if name.startswith(prefix)][:1]


def points(cases: list[dict], program: str, figure: str) -> list[tuple[float, Summary]]:
    """Where the program has values, over x."""
    found = [(case["x"], summarise([sample.get(figure) for sample in case["samples"].get(program, [])])) for case in cases]
    return [(x, summary) for x, summary in found if summary]


def draw(picture: Picture, path: Path) -> None:
    """Writes the SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "bookend", "svg.fonttype": "none", "font.size": 10})
    from matplotlib import pyplot

    programs = list(dict.fromkeys(line.program for one in picture.panels for line in one.series))
    looks = {US: OURS, **dict(zip([program for program in programs if program != US], LOOKS))}
    columns = min(2, len(picture.panels))
    rows = -(-len(picture.panels) // columns)
    size = (4.6 * columns + 1.4, 3.6 * rows)
    figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    figure.suptitle(picture.title)
    for place, one in zip(axes.flat, picture.panels):
        draw_panel(place, picture, one, looks)
    for place in list(axes.flat)[len(picture.panels):]:
        place.set_axis_off()
    figure.legend(handles=legend(picture.kind, programs, looks), loc="outside right upper", frameon=False)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def legend(kind: str, programs: list[str], looks: dict) -> list:
    """One entry a program; which line is which percentile."""
    from matplotlib.lines import Line2D

    entries = [Line2D([], [], color=looks[each][0], marker=looks[each][1], label=each) for each in programs]
    if kind == "rate":
        entries += [Line2D([], [], color="#666666", linestyle=style, label=name) for name, style in STYLES.items()]
    return entries


def draw_panel(place, picture: Picture, one: Panel, looks: dict) -> None:
    """One pair of axes: medians as a line, least and most as a bar."""
    for line in one.series:
        colour, marker = looks[line.program]
        summaries = [summary for _, summary in line.points]
        place.errorbar(
            [x for x, _ in line.points],
            [each.median for each in summaries],
            yerr=[[each.median - each.least for each in summaries], [each.most - each.median for each in summaries]],
            color=colour,
            marker=marker,
            markersize=5,
            linestyle=STYLES.get(line.figure, "-"),
            linewidth=2.2 if line.program == US else 1.2,
            elinewidth=0.8,
            capsize=2,
            zorder=3 if line.program == US else 2,
        )
    place.set_title(one.title, fontsize=10)
    place.set_xlabel(X_LABELS.get((picture.kind, picture.group), "connections"))
    place.set_ylabel(one.unit)
    place.set_xlim(left=0)
    if picture.kind == "rate":
        place.set_yscale("log")
        place.yaxis.set_major_formatter(plain)
        place.yaxis.set_minor_formatter(plain)
    else:
        place.set_ylim(bottom=0)
    place.grid(True, linewidth=0.4, color="#cccccc")


def plain(value: float, _place) -> str:
    """The label of a tick of a logarithmic axis: 1, 2 and 5 in each decade, without exponents."""
    digit = value / 10 ** math.floor(math.log10(value))
    return f"{value:g}" if round(digit, 6) in (1, 2, 5) else ""
