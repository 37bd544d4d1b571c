"""The versions of everything that runs, asked of the programs' own packages and of Bookend itself."""
from __future__ import annotations

import subprocess

from .machine import REPOSITORY


def versions(bookend: str) -> dict[str, str]:
    """{program: version}; Bookend with its commit."""
    said = subprocess.run(
        [REPOSITORY / "loadtest/peers/install", "--print"], check=True, capture_output=True, text=True
    ).stdout
    found = dict(line.split(" ", 1) for line in said.splitlines() if " " in line)
    own = subprocess.run([bookend, "--version"], check=True, capture_output=True, text=True).stdout.strip()
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {"bookend": f"{own.removeprefix('bookend ')} ({commit or 'no git'})", **found}
