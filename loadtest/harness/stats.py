"""From samples to what may be said of them: medians, ratios pair by pair, and when to say nothing.

Two programs are compared only within a round, where they ran seconds apart; the ratio of a round is ours / theirs. The figure
given is the median of those ratios. It is refused when the middle half of them is spread wider than `NOISY`, since then the
machine, not the programs, made the difference; and it is called even when the rounds do not agree on who was ahead.
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
class Ratio:
    """Ours over theirs. `value` is None when refused, and `why` says so. `verdict`: "ahead", "behind", "even" or None."""

    value: float | None
    spread: float
    pairs: int
    verdict: str | None
    why: str = ""


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


def compare(ours: list[float | None], theirs: list[float | None], better: str | None) -> Ratio:
    """`ours[i]` and `theirs[i]` are of round i, None where a sample is missing. Nothing is divided by 0."""
    ratios = [a / b for a, b in zip(ours, theirs) if a is not None and b]
    if len(ratios) < PAIRS_MIN:
        return Ratio(None, math.nan, len(ratios), None, f"only {len(ratios)} pairs")
    width = spread(ratios)
    if width > NOISY:
        return Ratio(None, width, len(ratios), None, f"too noisy: the middle half of the ratios spans {width:.0%}")
    return Ratio(statistics.median(ratios), width, len(ratios), verdict(ratios, better))


def verdict(ratios: list[float], better: str | None) -> str | None:
    """Who was ahead, if all rounds but one in five agree on it and the difference is one at all."""
    if better is None:
        return None
    middle = statistics.median(ratios)
    against = sum(1 for ratio in ratios if (ratio > 1) != (middle > 1))
    if abs(middle - 1) <= EVEN_WITHIN or against > len(ratios) // 5:
        return "even"
    return "ahead" if (middle > 1) == (better == "higher") else "behind"
