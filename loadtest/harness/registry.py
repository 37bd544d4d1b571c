"""All cases, in the order they run and are shown."""
from __future__ import annotations

import importlib

from .case import Case

MODULES = ("http_cases", "http_tls", "http_streams", "pg_cases", "pg_idle", "pg_bulk", "pg_tls", "whole_cases")


def all_cases() -> list[Case]:
    return [case for name in MODULES for case in importlib.import_module(f"{__package__}.{name}").CASES]


def select(cases: list[Case], wanted: str) -> list[Case]:
    """The cases that the comma-separated words name; all for none. An unknown word is an error.

    A word is a case's name, or else the beginning of names: "pg-idle-1000" is that one case and not pg-idle-10000 too.
    """
    words = [word.strip() for word in wanted.split(",") if word.strip()]
    chosen = set()
    for word in words:
        names = [case.name for case in cases if case.name.startswith(word)]
        found = {word} if word in names else set(names)
        if not found:
            known = ", ".join(case.name for case in cases)
            raise SystemExit(f"bench: no case begins with {word!r}; there are: {known}")
        chosen |= found
    return [case for case in cases if not words or case.name in chosen]
