"""All cases, in the order they run and are shown."""
from __future__ import annotations

import importlib
import importlib.util

from .case import Case

MODULES = ("http_cases", "http_tls", "http_streams", "pg_cases", "pg_idle", "pg_bulk", "whole_cases")


def all_cases() -> list[Case]:
    present = [name for name in MODULES if importlib.util.find_spec(f"{__package__}.{name}")]
    return [case for name in present for case in importlib.import_module(f"{__package__}.{name}").CASES]


def select(cases: list[Case], wanted: str) -> list[Case]:
    """The cases whose name begins with one of the comma-separated words; all for none. An unknown word is an error."""
    words = [word.strip() for word in wanted.split(",") if word.strip()]
    for word in words:
        if not any(case.name.startswith(word) for case in cases):
            known = ", ".join(case.name for case in cases)
            raise SystemExit(f"bench: no case begins with {word!r}; there are: {known}")
    return [case for case in cases if not words or any(case.name.startswith(word) for word in words)]
