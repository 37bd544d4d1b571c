"""How long is left, by what each case took in the last whole run on this machine; nothing is said when that is not known."""
from __future__ import annotations

import json
from pathlib import Path


def last_time(folder: Path, machine: str) -> dict[str, float]:
    """{case: seconds} of the newest whole run on the machine, by the date in the file's name; empty when there is none."""
    for file in sorted(folder.glob("*.json"), reverse=True):
        result = json.loads(file.read_text())
        if result["whole"] and result["machine"]["name"] == machine:
            return {case["name"]: case["seconds"] for case in result["cases"]}
    return {}


class Forecast:
    """What is left of a run; says nothing when half or more of the remaining cases were never timed."""

    def __init__(self, took: dict[str, float], names: list[str]):
        self.took = took
        self.names = names

    def in_words(self, done: int) -> str:
        """After `done` cases: ", about 12 min left", or nothing."""
        left = self.names[done:]
        known = [self.took[name] for name in left if name in self.took]
        if len(known) * 2 <= len(left):
            return ""
        return f", about {sum(known) / len(known) * len(left) / 60:.0f} min left"
