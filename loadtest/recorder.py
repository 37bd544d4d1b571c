"""What a load test saw, and what may be said of it: counts, times, errors by kind, the longest stall.

In go single outcomes (`page`, `slow`, `websocket`, `sse`), out comes `Recorder.summary()`, the JSON that goes to
LOADTEST_SUMMARY. Two recorders add up (`drain` on a worker, `merge` on the master), so Locust may run in several processes. No Locust in
here: all of it is tested without.

Times count for what succeeded alone (a refusal is quick, and must not better the p95), errors by their kind. Slow endpoints
and streams take as long as they were asked to, so they stand apart from p50 to max. A stall is the longest time in which no
page succeeded anywhere, from the first success to the end of the run.
"""
from __future__ import annotations

import collections
import math

# Successes are remembered by hundredths of a second: fine enough for a stall, small enough for hours.
TICKS = 100


class Times:
    """Durations in milliseconds, kept as a histogram of three significant digits: bounded, mergeable, 0.5 % exact."""

    def __init__(self, counts=()):
        self.counts: collections.Counter[float] = collections.Counter(dict(counts))

    def add(self, ms: float):
        self.counts[float(f"{ms:.3g}")] += 1

    def percentile(self, share: float) -> float | None:
        """The smallest time that at least `share` of all do not exceed (nearest rank); None when there are none."""
        rank = max(1, math.ceil(share * self.counts.total()))
        for ms in sorted(self.counts):
            rank -= self.counts[ms]
            if rank <= 0:
                return ms
        return None

    def most(self) -> float | None:
        return max(self.counts, default=None)


class Recorder:
    """Outcomes since it was made. `error` is a kind, from a short list of ours; None means success."""

    TIMES = ("pages", "slows", "websocket_connects", "websocket_echoes", "sse_first_events")

    def __init__(self):
        self.times = {name: Times() for name in self.TIMES}
        self.counts: collections.Counter[str] = collections.Counter()
        self.errors: collections.Counter[str] = collections.Counter()
        self.ticks: set[int] = set()

    def page(self, ms: float, error: str | None, now: float):
        """An ordinary request that ended at `now` (seconds of any clock the processes share)."""
        self._http("pages", ms, error)
        if error is None:
            self.ticks.add(int(now * TICKS))

    def slow(self, ms: float, error: str | None):
        """A request to an endpoint that was asked to take its time."""
        self._http("slows", ms, error)

    def _http(self, group: str, ms: float, error: str | None):
        self.counts[group] += 1
        if error is None:
            self.times[group].add(ms)
        else:
            self.counts[f"{group}_failed"] += 1
            self.errors[error] += 1

    def websocket(self, what: str, ms: float, error: str | None):
        """A connection opened ("connects") or a message that came back ("echoes"), or did not."""
        self.counts[f"websocket_{what}"] += 1
        if error is None:
            self.times[f"websocket_{what}"].add(ms)
        else:
            self.counts["websocket_failed"] += 1
            self.errors[f"websocket: {error}"] += 1

    def moved(self, counts_as_error: bool):
        """A WebSocket user that met another replica than before."""
        self.counts["websocket_moved"] += 1
        if counts_as_error:
            self.counts["websocket_failed"] += 1
            self.errors["websocket: met another replica"] += 1

    def replica(self, name: str):
        """A WebSocket connection that was answered by this replica."""
        self.counts[f"replica {name}"] += 1

    def sse(self, events: int, first_event_ms: float | None, error: str | None):
        """A stream of events that ended, as it should have or not."""
        self.counts["sse_streams"] += 1
        self.counts["sse_events"] += events
        if first_event_ms is not None:
            self.times["sse_first_events"].add(first_event_ms)
        if error is not None:
            self.counts["sse_failed"] += 1
            self.errors[f"sse: {error}"] += 1

    def drain(self) -> dict:
        """Returns all of it as plain data, for `merge` in another process, and forgets it."""
        data = {
            "times": {name: list(times.counts.items()) for name, times in self.times.items()},
            "counts": dict(self.counts),
            "errors": dict(self.errors),
            "ticks": sorted(self.ticks),
        }
        self.__init__()
        return data

    def merge(self, data: dict):
        for name, counts in data["times"].items():
            self.times[name].counts.update(dict(counts))
        self.counts.update(data["counts"])
        self.errors.update(data["errors"])
        self.ticks.update(data["ticks"])

    def longest_stall(self, end: float) -> float | None:
        """Seconds; None when nothing ever succeeded."""
        ticks = sorted(self.ticks)
        if not ticks:
            return None
        gaps = [later - earlier for earlier, later in zip(ticks, [*ticks[1:], max(ticks[-1], int(end * TICKS))])]
        return max(gaps) / TICKS

    def error_share(self) -> float:
        """The failed part of all that was tried: requests, connections, messages, streams. 1 when nothing was."""
        tried = sum(
            self.counts[name] for name in ("pages", "slows", "websocket_connects", "websocket_echoes", "sse_streams")
        )
        return sum(self.errors.values()) / tried if tried else 1.0

    def summary(self, seconds: float, end: float) -> dict:
        """`seconds`: how long the load ran; `end`: when, by the clock of `page`. Times are milliseconds."""
        counts, pages = self.counts, self.times["pages"]
        requests = counts["pages"] + counts["slows"]
        return {
            "seconds": round(seconds, 1),
            "requests": requests,
            "failures": counts["pages_failed"] + counts["slows_failed"],
            "rps": round(requests / seconds, 1) if seconds else 0.0,
            "p50": pages.percentile(0.50),
            "p95": pages.percentile(0.95),
            "p99": pages.percentile(0.99),
            "max": pages.most(),
            "longest_stall_s": self.longest_stall(end),
            "error_share": self.error_share(),
            "errors_by_kind": dict(self.errors.most_common()),
            "slow": {
                "requests": counts["slows"],
                "failures": counts["slows_failed"],
                "p50": self.times["slows"].percentile(0.50),
                "p95": self.times["slows"].percentile(0.95),
                "max": self.times["slows"].most(),
            },
            "websockets": {
                "connects": counts["websocket_connects"],
                "messages": counts["websocket_echoes"],
                "failures": counts["websocket_failed"],
                "moved": counts["websocket_moved"],
                "connect_p95": self.times["websocket_connects"].percentile(0.95),
                "message_p95": self.times["websocket_echoes"].percentile(0.95),
                "replicas": {
                    name.removeprefix("replica "): count
                    for name, count in sorted(counts.items())
                    if name.startswith("replica ")
                },
            },
            "sse": {
                "streams": counts["sse_streams"],
                "events": counts["sse_events"],
                "failures": counts["sse_failed"],
                "first_event_p95": self.times["sse_first_events"].percentile(0.95),
            },
        }


def judge(summary: dict, *, max_errors: float, max_p95_ms: float) -> list[str]:
    """What did not hold, in words; empty when all did."""
    broken = []
    if summary["p95"] is None:
        broken.append("no request succeeded")
    elif summary["p95"] > max_p95_ms:
        broken.append(f"p95 is {summary['p95']:g} ms, allowed are {max_p95_ms:g} ms")
    if summary["error_share"] > max_errors:
        broken.append(f"{summary['error_share']:.3%} errors, allowed are {max_errors:.3%}")
    return broken
