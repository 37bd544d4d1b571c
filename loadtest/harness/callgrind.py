"""Reads what callgrind writes: how many instructions each function took, and each source file.

With inlining a function's own count says little about where its code was written, so the same instructions are counted
twice: by the function they ended up in, and by the file whose lines they are. The format is chapter "Callgrind Format
Specification" of the Valgrind manual.
"""
from __future__ import annotations

import dataclasses
import re
from collections import Counter

_NAME = re.compile(r"\((\d+)\)(?: (.*))?")
_CRATE = re.compile(r"/registry/src/[^/]+/(?P<crate>.+?)-\d+\.\d+[^/]*/")
_RUST = re.compile(r"^/rustc/|(?:^|/)library/(?:std|core|alloc|compiler-builtins)/|/rust/deps/")
_OURS = re.compile(r"(?:^|/)(?P<file>src/.+\.rs)$")
OURS = "bookend"


@dataclasses.dataclass
class Profile:
    """Instructions of one dump. `inclusive` counts what a function called too; recursion is counted once a level."""

    total: int = 0
    exclusive: Counter = dataclasses.field(default_factory=Counter)
    inclusive: Counter = dataclasses.field(default_factory=Counter)
    calls: Counter = dataclasses.field(default_factory=Counter)
    files: Counter = dataclasses.field(default_factory=Counter)


class _Names:
    """Compressed names: `(7) text` where one occurs first, `(7)` from then on."""

    def __init__(self):
        self.known: dict[str, str] = {}

    def read(self, text: str) -> str:
        match = _NAME.fullmatch(text)
        if not match:
            return text
        number, name = match.groups()
        if name is not None:
            self.known[number] = name
        return self.known.get(number, f"({number})")


def parse(text: str) -> Profile:
    """The profile of one dump file, its first event (instructions) only."""
    profile = Profile()
    names = {"f": _Names(), "fn": _Names(), "ob": _Names()}
    place, function, called, after_calls = "", "", "", False
    for line in text.splitlines():
        first = line[:1]
        if first and first in "0123456789+-*":
            cost = int(line.split()[1])
            if after_calls:
                after_calls = False
                if called != function:
                    profile.inclusive[function] += cost
                continue
            profile.exclusive[function] += cost
            profile.inclusive[function] += cost
            profile.files[place] += cost
            profile.total += cost
            continue
        key, separator, value = line.partition("=")
        if not separator:
            continue
        if key in ("fl", "fi", "fe"):
            place = names["f"].read(value)
        elif key == "fn":
            function = names["fn"].read(value)
        elif key == "cfn":
            called = names["fn"].read(value)
        elif key in ("cfl", "cfi"):
            names["f"].read(value)
        elif key in ("ob", "cob"):
            names["ob"].read(value)
        elif key == "calls":
            profile.calls[called] += int(value.split()[0])
            after_calls = True
    return profile


def crate(path: str) -> str:
    """Whose code a source file is: "bookend", a crate, "rust" (the standard library) or "libc"."""
    if match := _CRATE.search(path):
        return "rust" if match["crate"] == "hashbrown" else match["crate"]
    if _RUST.search(path):
        return "rust"
    return OURS if _OURS.search(path) else "libc"


def by_crate(profile: Profile) -> Counter:
    """Instructions by whose source lines they are."""
    total: Counter = Counter()
    for path, cost in profile.files.items():
        total[crate(path)] += cost
    return total


def own_files(profile: Profile) -> Counter:
    """Instructions of our own source lines, by file below src/, wherever they were inlined."""
    ours = [(path, cost) for path, cost in profile.files.items() if crate(path) == OURS]
    total: Counter = Counter()
    for path, cost in ours:
        total[_OURS.search(path)["file"]] += cost
    return total


def short(function: str) -> str:
    """A symbol as it fits a table: hashes and doubled closures gone, long type parameters cut."""
    function = re.sub(r"::h[0-9a-f]{16}$", "", function)
    function = re.sub(r"(::\{\{closure\}\})+", "::{closure}", function)
    return function if len(function) <= 110 else function[:70] + "…" + function[-39:]


def is_ours(function: str) -> bool:
    """Whether a symbol is ours: a path of our crate, or a method of ours behind somebody's trait."""
    return function.removeprefix("<").startswith(f"{OURS}::")
