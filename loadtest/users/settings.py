"""What the environment says about the users; documented in the locustfile."""
from __future__ import annotations

import os

from recorder import Recorder

# Each process has one; the locustfile sends a worker's to the master.
recorder = Recorder()


def number(name: str, default: float) -> float:
    return float(os.environ.get(name) or default)


def flag(name: str, default: bool) -> bool:
    return (os.environ.get(name) or str(int(default))) not in ("0", "no", "false", "off")


def pair(name: str, default: str) -> tuple[float, float]:
    """`"1,3"`: from 1 to 3."""
    low, _, high = (os.environ.get(name) or default).partition(",")
    return float(low), float(high or low)


THINK_S = pair("LOADTEST_THINK_S", "1,3")
TIMEOUT_S = number("LOADTEST_TIMEOUT_S", 30)
SLOW_S = number("LOADTEST_SLOW_S", 0.2)
SSE_EVENTS = int(number("LOADTEST_SSE_EVENTS", 10))
SSE_INTERVAL_S = number("LOADTEST_SSE_INTERVAL_S", 0.2)
STICKY = flag("LOADTEST_STICKY", True)


def headcount(cls, name: str):
    """Gives a class of users a fixed number from the environment, or leaves its weight; 0 takes it out."""
    wanted = os.environ.get(name)
    if wanted:
        cls.fixed_count = int(wanted)
        cls.abstract = int(wanted) == 0
    return cls


def kind(error: BaseException) -> str:
    """The kind an exception of a client counts as."""
    text = f"{type(error).__name__} {error}".lower()
    if isinstance(error, TimeoutError) or "timeout" in text or "timed out" in text:
        return "timeout"
    if isinstance(error, ConnectionRefusedError) or "refused" in text:
        return "connection refused"
    if isinstance(error, (ConnectionResetError, BrokenPipeError)) or "reset" in text:
        return "connection reset"
    if "closed" in text or "incomplete" in text:
        return "connection closed"
    return type(error).__name__
