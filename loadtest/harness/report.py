"""Writes what a run says: the complete Markdown beside the results file, plots, the README's section, last lines to read.

Everything is made of the results file alone and comes out the same to the byte, so that a test can tell a generated table
from a typed one. Partial runs get their table and plots beside their file too, but the README shows whole runs only.
"""
from __future__ import annotations

from pathlib import Path

from . import plots
from .case import US
from .judge import Row, other_losses, rows, tally
from .machine import REPOSITORY
from .stats import EVEN_WITHIN, NOISY, PAIRS_MIN
from .table import figure_name, measured, compared, number, program_cell, reason, strong, table

README = REPOSITORY / "README.md"
# Beside what explains them: where the time and the memory of each loss go.
LOSSES_PAGE = REPOSITORY / "loadtest/README.md"
BEGIN = "<!-- Written by `make bench`, whole: what is typed here is lost. -->"
END = "<!-- The end of what `make bench` writes. -->"
HEADINGS = {
    "behind": "Behind",
    "even": "Even",
    "ahead": "Ahead",
    "unjudged": "No verdict",
    "not offered": "Not offered by Bookend, which counts as behind",
}
MINUTES_MAX = 45


def write(result: dict, path: Path, publish: bool, say) -> None:
    """Writes table and plots beside `path`, the results file; with `publish` the README's section too. Says the outcome."""
    pictures = plots.pictures(result)
    for picture in pictures:
        plots.draw(picture, path.with_name(plots.file_name(path.stem, picture)))
    complete = path.with_suffix(".md")
    complete.write_text(document(result, path.stem, pictures))
    if publish:
        README.write_text(published(README.read_text(), section(result, path.stem, pictures)))
        LOSSES_PAGE.write_text(published(LOSSES_PAGE.read_text(), losses_section(result, path.stem)))
    for text in closing(result):
        say(text)
    say(f"table: {complete}" + (f", and in {README}" if publish else ""))


# --- the complete document ---


def document(result: dict, stem: str, pictures: list) -> str:
    """The complete Markdown: what ran where, how to read it, the overview, losses beside the headlines, every figure."""
    judged = rows(result)
    text = [f"# Bookend beside its peers, {result['began'][:10]}, {result['machine']['name']}", ""]
    text += [in_one_sentence(judged), "", *where(result), "", *how(result), ""]
    text += ["## Overview, losses first", "", *overview(judged)]
    text += ["## Behind in other figures", "", *losses(judged)]
    for picture in pictures:
        text += [f"![{picture.title}]({plots.file_name(stem, picture)})", ""]
    text += ["## Every case, every figure", ""]
    for row in judged:
        text += every_figure(row)
    return "\n".join(text).rstrip() + "\n"


def in_one_sentence(judged: list[Row]) -> str:
    """How many cases stand where."""
    count = tally(judged)
    return (
        f"{len(judged)} cases, by their headline figure: **behind** a peer in **{count['behind']}**, not offered by Bookend "
        f"in **{count['not offered']}** (which counts as behind), even in {count['even']}, ahead of every peer in "
        f"{count['ahead']}, no verdict in {count['unjudged']}."
    )


def where(result: dict) -> list[str]:
    """The machine, the versions, when and how long."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    part = "" if result["whole"] else " **A part of the cases, or other rounds or seconds than the whole run's.**"
    return [
        f"- Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, Linux {machine['kernel']}",
        f"- Versions: {versions}",
        f"- Began {result['began']}, took {minutes(result['seconds'])}.{part}",
    ]


def minutes(seconds: float) -> str:
    """34 min 5 s."""
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def how(result: dict) -> list[str]:
    """How it was measured and how a cell is read."""
    counts = sorted({len(samples) for case in result["cases"] for samples in case["samples"].values() if samples})
    turns = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}" if counts else "no"
    cores = {place: " and ".join(map(str, on)) for place, on in result["cores"].items()}
    text = f"""
The program under test is bound to core {cores["proxy"]}; load generator and what stands behind the program share the
other, core {cores["load"]}, so that none of them takes time from it. Cases with two threads have both cores for
everything, and whole deployments (`whole-…`) are not bound at all. In every round each program is measured once, one
after the other, in an order that turns from round to round; a case has {turns} rounds, and a sample lasts
{number(result["seconds_per_sample"])} s where it is a load over time. CPU time is that of the program's whole process
tree, as the kernel counts it. A sample in which anything went wrong (an answer other than 2xx, a failed transaction, a
connection missing) gives no figure, except where errors are what is asked about.

**A ratio is Bookend's figure divided by the peer's**, taken within each round, where both ran one after the other;
shown is the median of these pairs. ↑ marks figures of which more is better: a ratio above 1 is good. ↓ marks those of
which less is better: a ratio below 1 is good. Counts that may be 0 (errors) have a difference instead, Bookend's median
minus the peer's.

*Behind* and *ahead* are said when the ratio differs from 1 by more than {EVEN_WITHIN:.0%} (a count: by 1 and by that
share) and all rounds but at most one in five agree; anything else is *even*. *No ratio* is given for fewer than
{PAIRS_MIN} pairs, or when the middle half of the ratios spans more than {NOISY:.0%} of their median ("noise"): then the
machine made the difference. If even then every sample of the one was better than every sample of the other, that is
said without a ratio. A case behind one peer stands under *Behind*, whoever else it beats. What runs without a proxy
(`direct`) is there to compare with and gives no verdict.

The command in a row repeats that row alone, on Debian or Ubuntu as root; it installs what it needs into `.cache/`.
"""
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    return ["## How to read it", *(line for paragraph in paragraphs for line in ("", paragraph))]


def overview(judged: list[Row]) -> list[str]:
    """The headline of every case: a table for each standing."""
    text = []
    for standing, heading in HEADINGS.items():
        of_this = [row for row in judged if row.standing == standing]
        if of_this:
            text += [f"### {heading} ({len(of_this)})", "", *headline_table(of_this), ""]
    return text


def headline_table(judged: list[Row]) -> list[str]:
    """One row a case: what we measured, what is usually there in our place, and the other peers."""
    head = ["what is asked, and the command", "figure", "Bookend", "what it replaces", "other peers"]
    body = []
    for row in judged:
        cells = [f"{peer} {program_cell(row, row.headline, peer)}" for peer in row.peers]
        ours = program_cell(row, row.headline, US) if US in row.case["programs"] else "–"
        if row.case["error"]:
            ours += f" (the case ended early: {reason(row.case['error'])})"
        asked = f"{reason(row.case['title'])}<br>`{command(row)}`"
        body.append([asked, figure_name(row.headline.figure), ours, "".join(cells[:1]), "<br>".join(cells[1:])])
    return table(head, body)


def command(row: Row) -> str:
    """What repeats the row."""
    return f"make bench CASES={row.case['name']}"


def losses(judged: list[Row]) -> list[str]:
    """Where a peer is better in a figure that is not the headline."""
    found = other_losses(judged)
    if not found:
        return ["None.", ""]
    body = [
        [
            f"{reason(loss.row.case['title'])}<br>`{command(loss.row)}`",
            figure_name(loss.line.figure),
            measured(loss.line.figure, loss.line.summaries[US]),
            f"{loss.peer} {program_cell(loss.row, loss.line, loss.peer)}",
        ]
        for loss in found
    ]
    return [*table(["what is asked, and the command", "figure", "Bookend", "peer"], body), ""]


def every_figure(row: Row) -> list[str]:
    """A case with all its figures and programs, and why anything is missing."""
    text = [f"### {row.case['name']}", "", f"{reason(row.case['title'])}: `{command(row)}`", ""]
    body = []
    for line in row.lines:
        for program, summary in line.summaries.items():
            if summary is None:
                continue
            beside = line.beside.get(program)
            extent = " – ".join(number(value, line.figure["count"]) for value in (summary.least, summary.most))
            spread = f"{beside.spread:.0%}" if beside and beside.ratio is not None else ""
            pairs = str(beside.pairs) if beside else ""
            name, value = figure_name(line.figure), measured(line.figure, summary)
            body.append([name, program, value, extent, str(summary.count), compared(beside), spread, pairs])
    if body:
        head = ["figure", "program", "median", "least – most", "samples", "Bookend beside it", "spread of ratios", "pairs"]
        text += [*table(head, body), ""]
    text += [f"- {program} does not offer it: {reason(why)}" for program, why in row.case["not_offered"].items()]
    text += [f"- {program} failed: {reason(why)}" for program, all_of in row.case["failed"].items() for why in all_of]
    if row.case["error"]:
        text.append(f"- the case ended early: {reason(row.case['error'])}")
    return text + [""] if text[-1] else text


# --- the README's section and the terminal ---


def section(result: dict, stem: str, pictures: list) -> str:
    """What stands in the README between the markers."""
    judged = rows(result)
    folder = "loadtest/results"
    text = [BEGIN, f"### Beside the programs it replaces, {result['began'][:10]}", "", in_one_sentence(judged)]
    text += [
        "A cell gives the median and Bookend's figure divided by that peer's; ↑ more is better, ↓ less is better. "
        f"[Every figure, its spread, and how it was measured]({folder}/{stem}.md); the command in a row repeats it.",
        "",
        *where(result),
        "",
    ]
    text += [line.replace("### ", "#### ", 1) if line.startswith("### ") else line for line in overview(judged)]
    for picture in pictures:
        text += [f"![{picture.title}]({folder}/{plots.file_name(stem, picture)})", ""]
    return "\n".join([*text, END])


def losses_section(result: dict, stem: str) -> str:
    """What stands in loadtest/README.md between the markers: only where a peer is better, the most lost first."""
    judged = rows(result)
    text = [BEGIN, in_one_sentence(judged), ""]
    text += [f"[Everything that was measured, and how](results/{stem}.md).", "", *where(result), ""]
    for standing in ("behind", "not offered"):
        of_this = [row for row in judged if row.standing == standing]
        if of_this:
            text += [f"### {HEADINGS[standing]} ({len(of_this)})", "", *headline_table(of_this), ""]
    text += ["### Behind in figures beside the headline", "", *losses(judged)]
    return "\n".join([*text, END])


def published(readme: str, new: str) -> str:
    """The README with its section replaced. Raises ValueError when the markers are not there exactly once each."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise ValueError("the README does not have the markers of the generated section exactly once")
    before, rest = readme.split(BEGIN)
    return before + new + rest.split(END)[1]


def closing(result: dict) -> list[str]:
    """The last lines of a run: each case with its verdict, worst first, and how long it took."""
    judged = rows(result)
    text = []
    for row in judged:
        beside = "; ".join(
            f"{peer} {compared(one).replace(strong('behind'), 'behind')}" for peer, one in row.headline.beside.items()
        )
        text.append(f"{row.standing:<12}{row.case['name']:<30} {figure_name(row.headline.figure)}: {beside or 'no peer'}")
        text += [f"{'':<12}{program} failed: {reason(all_of[0])}" for program, all_of in row.case["failed"].items()]
    text.append(f"{len(judged)} cases in {minutes(result['seconds'])}")
    if result["whole"] and result["seconds"] > MINUTES_MAX * 60:
        text.append(f"warning: a whole run should take less than {MINUTES_MAX} minutes")
    return text
