"""From samples to what may be said of them: medians, ratios pair by pair, and when to say nothing.

Two programs are compared only within a round, where they ran seconds apart; the ratio of a round is ours / theirs. The figure
given is the median of those ratios. It is refused when the middle half of them is spread wider than `NOISY`, since then the
machine, not the programs, made the difference; and it is called even when the rounds do not agree on who was ahead.
Noise must not hide a loss, though: where every sample of the one was better than every sample of the other, who was ahead is
said without a ratio.

What is counted (errors) may be 0 and then has no ratio. It is judged by how far the medians are apart: ours - theirs.
"""
from __future__ import annotations

import dataclasses
import math
import statistics

# (third quartile - first quartile) / median of the ratios.
NOISY = 0.30
# With fewer pairs a spread says nothing.
PAIRS_MIN = 3
# A difference this small is no difference here, whatever the rounds say.
EVEN_WITHIN = 0.03


@dataclasses.dataclass(frozen=True)
class Summary:
    """Median, smallest and largest of the samples of one figure; `spread` is the interquartile range over the median."""

    median: float
    least: float
    most: float
    spread: float
    count: int


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Us beside one peer in one figure.

    `ratio` is ours / theirs, `difference` ours - theirs for counts and where all was 0; both None when refused, and `why`
    says so in a few words. `spread` is that of the ratios. `verdict`: "ahead", "behind", "even"; None when not judged or
    when nothing can be said. A refused ratio may have one.
    """

    ratio: float | None
    spread: float
    pairs: int
    verdict: str | None
    why: str = ""
    difference: float | None = None


def quartiles(values: list[float]) -> tuple[float, float]:
    """The first and third quartile, by linear interpolation between order statistics (R's type 7)."""
    ordered = sorted(values)

    def at(share: float) -> float:
        place = share * (len(ordered) - 1)
        low = math.floor(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (place - low)

    return at(0.25), at(0.75)


def spread(values: list[float]) -> float:
    """The interquartile range over the median; 0 for a single value, infinite around a median of 0."""
    middle = statistics.median(values)
    first, third = quartiles(values)
    if first == third:
        return 0.0
    return (third - first) / abs(middle) if middle else math.inf


def summarise(values: list[float | None]) -> Summary | None:
    """None when there is no value."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Summary(statistics.median(known), min(known), max(known), spread(known), len(known))


def compare(ours: list[float | None], theirs: list[float | None], better: str | None) -> Comparison:
    """`ours[i]` and `theirs[i]` are of round i, None where a sample is missing. Nothing is divided by 0."""
    pairs = paired(ours, theirs)
    if len(pairs) < PAIRS_MIN:
        return refused(len(pairs), too_few(len(pairs)))
    if not any(a or b for a, b in pairs):
        return Comparison(None, math.nan, len(pairs), better and "even", difference=0)
    if any(a < 0 or b <= 0 for a, b in pairs):
        # What is a difference itself (memory before and after) may be less than nothing.
        return refused(len(pairs), "nothing or less in a round", said=separated(pairs, better))
    ratios = [a / b for a, b in pairs]
    width = spread(ratios)
    if width > NOISY:
        return refused(len(pairs), f"noise {width:.0%}", width, separated(pairs, better))
    return Comparison(statistics.median(ratios), width, len(ratios), verdict(ratios, better))


def compare_counts(ours: list[float | None], theirs: list[float | None], better: str | None) -> Comparison:
    """The same for what is counted and may be 0: 0 errors beside 12 has no ratio, but a verdict.

    The medians of both over all pairs decide: even when they are less than 1 or less than `EVEN_WITHIN` of the larger apart,
    and when more than one round in five went against them (an equal round is for nobody). Noise is no reason to refuse:
    failures are bursts, and the medians with their least and most are shown beside the verdict.
    """
    pairs = paired(ours, theirs)
    if len(pairs) < PAIRS_MIN:
        return refused(len(pairs), too_few(len(pairs)))
    mine = statistics.median(a for a, _ in pairs)
    other = statistics.median(b for _, b in pairs)
    apart = mine - other
    against = sum(1 for a, b in pairs if (a - b) * apart < 0)
    said = None
    if better is not None:
        even = abs(apart) < max(1, EVEN_WITHIN * max(mine, other)) or against > len(pairs) // 5
        said = "even" if even else "ahead" if (apart > 0) == (better == "higher") else "behind"
    return Comparison(None, math.nan, len(pairs), said, difference=apart)


def paired(ours: list[float | None], theirs: list[float | None]) -> list[tuple[float, float]]:
    """The rounds in which both have a value."""
    return [(a, b) for a, b in zip(ours, theirs) if a is not None and b is not None]


def refused(pairs: int, why: str, width: float = math.nan, said: str | None = None) -> Comparison:
    """No ratio is given, and why."""
    return Comparison(None, width, pairs, said, why)


def separated(pairs: list[tuple[float, float]], better: str | None) -> str | None:
    """"ahead" or "behind" when all of ours are on one side of all of theirs, more than `EVEN_WITHIN` apart; else None."""
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    above = min(ours) > max(theirs) + EVEN_WITHIN * abs(max(theirs))
    below = max(ours) < min(theirs) - EVEN_WITHIN * abs(min(theirs))
    if better is None or not (above or below):
        return None
    return "ahead" if above == (better == "higher") else "behind"


def too_few(pairs: int) -> str:
    """Why nothing is said of fewer than PAIRS_MIN rounds."""
    return f"{pairs} pair{'' if pairs == 1 else 's'}"


def verdict(ratios: list[float], better: str | None) -> str | None:
    """Who was ahead, if all rounds but one in five agree on it and the difference is one at all."""
    if better is None:
        return None
    middle = statistics.median(ratios)
    against = sum(1 for ratio in ratios if (ratio > 1) != (middle > 1))
    if abs(middle - 1) <= EVEN_WITHIN or against > len(ratios) // 5:
        return "even"
    return "ahead" if (middle > 1) == (better == "higher") else "behind"
