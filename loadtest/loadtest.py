"""`make loadtest`: the demo's stack on free ports, loaded by Locust and by k6, one after the other.

    temporary PostgreSQL <- bookend (lb.yaml, pool.yaml) <- three Django replicas;  Locust, k6 -> bookend

Prints one line per load with what it saw and the database connections before, at the peak and after, and one line per
promise. The exit code is 0 if every promise held. Whatever was started is gone when it ends, however it ends.

    --seconds N, LOADTEST_SECONDS    the load in all, short profile (75)
    --profile long, PROFILE=long     500 users, 25 more each second, for 10 minutes; then k6 for a minute each
    --bookend FILE                   the program (target/release/bookend)

The limits are those of locustfile.py and k6/common.js (LOADTEST_MAX_ERRORS, LOADTEST_MAX_P95_MS, LOADTEST_MAX_CONNECTIONS).
"""
from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import connections

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "deploy/stack"))

import demo  # noqa: E402  (the stack runner's)
from client import StackClient, StackError  # noqa: E402
from processes import free_port, spawn, tail  # noqa: E402

LOADTEST = REPOSITORY / "loadtest"
TOOLS = REPOSITORY / ".cache/loadtest/bin"
# Django may open 60 connections then: more than the 50 that PostgreSQL may see.
REPLICA_ENV = {"WEB_THREADS": "20"}
# Starting, ending and reporting take a while on top of the load itself.
SLACK_SECONDS = 60
K6_SCRIPTS = ("http", "websocket", "stream")
# So that WebSockets, which go by the client's network, meet several replicas.
NETWORKS = ",".join(f"127.0.{network}.1" for network in range(1, 21))


@dataclasses.dataclass(frozen=True)
class Profile:
    """How much load. The p95 that is asked for depends on it: everything shares this machine."""

    users: int
    spawn_rate: int
    seconds: float
    k6_users: int
    k6_seconds: float
    max_p95_ms: float

    @staticmethod
    def named(name: str, seconds: float) -> Profile:
        if name == "long":
            return Profile(500, 25, 600, k6_users=50, k6_seconds=60, max_p95_ms=1000)
        users = min(120, round(seconds * 3))  # a run of seconds is not to be a ramp alone
        return Profile(users, 25, seconds * 0.55, k6_users=20, k6_seconds=seconds * 0.15, max_p95_ms=500)


@dataclasses.dataclass
class Outcome:
    """One load: its summary, or why there is none."""

    title: str
    users: int
    summary: dict
    reports: dict
    broken: list[str]


def say(text: str = ""):
    print(text, flush=True)


def elsewhere(folder: Path) -> demo.Place:
    """Copies of the repository's two files with free ports in them, so that a running demo is not in the way."""
    ports = free_ports(3 + len(demo.REPLICA_PORTS))
    front, admin, pool, *replicas = ports
    lb = replace_once(demo.Place.lb.read_text(), {
        f"0.0.0.0:{demo.FRONT}": f"127.0.0.1:{front}",
        f"127.0.0.1:{demo.ADMIN}": f"127.0.0.1:{admin}",
        **{f"127.0.0.1:{old}": f"127.0.0.1:{new}" for old, new in zip(demo.REPLICA_PORTS, replicas)},
    })
    pool_yaml = replace_once(demo.Place.pool.read_text(), {f"listen_port: {demo.POOL}": f"listen_port: {pool}"})
    (folder / "lb.yaml").write_text(lb)
    (folder / "pool.yaml").write_text(pool_yaml)
    return demo.Place(folder / "lb.yaml", folder / "pool.yaml", front, admin, pool, tuple(replicas))


def free_ports(count: int) -> list[int]:
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return list(found)


def replace_once(text: str, changes: dict[str, str]) -> str:
    """Comments may repeat what a setting says; a setting that is not there is an error of ours."""
    lines = text.splitlines(keepends=True)
    for old, new in changes.items():
        at = [i for i, line in enumerate(lines) if old in line.split("#")[0]]
        assert len(at) == 1, f"{old} stands in {len(at)} lines"
        lines[at[0]] = lines[at[0]].replace(old, new)
    return "".join(lines)


class Load:
    """Runs the tools against one deployment, each with its log and its summary in `folder`."""

    def __init__(self, base: str, dsn: str, profile: Profile, folder: Path):
        self.base, self.dsn, self.profile, self.folder = base, dsn, profile, folder
        self.limit = connections.limit_of_environment()
        self.max_p95_ms = float(os.environ.get("LOADTEST_MAX_P95_MS") or profile.max_p95_ms)

    def locust(self) -> Outcome:
        profile = self.profile
        argv = [TOOLS / "locust", "-f", LOADTEST / "locustfile.py", "--headless", "--only-summary", "--host", self.base]
        argv += ["-u", profile.users, "-r", profile.spawn_rate, "-t", f"{profile.seconds:.0f}s"]
        summary, code, log = self.run("locust", argv, profile.seconds, {"DATABASE_URL": self.dsn})
        return self.outcome("Locust", profile.users, summary, summary.get("connections") or {}, code, log)

    def k6(self, script: str) -> Outcome:
        profile = self.profile
        argv = [TOOLS / "k6", "run", "--quiet", "--no-color", "--no-usage-report", "--address", ""]
        argv += ["--local-ips", NETWORKS] if script == "websocket" else []
        watch = connections.Watch(self.base, self.dsn)
        watch.start()
        summary, code, log = self.run(
            f"k6-{script}", [*argv, LOADTEST / "k6" / f"{script}.js"], profile.k6_seconds,
            {"LOADTEST_VUS": str(profile.k6_users), "LOADTEST_DURATION": f"{profile.k6_seconds:.0f}s"},
        )
        return self.outcome(f"k6 {script}", profile.k6_users, summary, watch.stop(), code, log)

    def run(self, name: str, argv: list, seconds: float, env: dict) -> tuple[dict, int, Path]:
        """Returns (summary, exit code, log); an empty summary when the tool left none."""
        summary, log = self.folder / f"{name}.json", self.folder / f"{name}.log"
        env = os.environ | {
            "BASE_URL": self.base, "LOADTEST_SUMMARY": str(summary), "LOADTEST_MAX_P95_MS": f"{self.max_p95_ms:g}", **env,
        }
        process = spawn(argv, log=log, env=env, cwd=self.folder)
        try:
            code = process.wait(seconds + SLACK_SECONDS)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return json.loads(summary.read_text()) if summary.exists() else {}, code, log

    def outcome(self, title: str, users: int, summary: dict, reports: dict, code: int, log: Path) -> Outcome:
        """Adds to what the tool found broken what only we know: whether it ran at all, and PostgreSQL's own count."""
        broken = list(summary.get("broken", []))
        for text in connections.judge(reports, self.limit):
            if text not in broken:
                broken.append(text)
        broken += [f"{name} is not known" for name in (connections.Page.name, connections.Activity.name)
                   if name not in reports or reports[name]["absent"]]
        if not summary or (code != 0 and not broken):
            broken.append(f"{title} ended with code {code}:\n{tail(log)}")
        return Outcome(title, users, summary, reports, broken)


def number(value, form: str = ".0f") -> str:
    return "?" if value is None else format(value, form)


def of_connections(report: dict | None) -> str:
    return " / ".join(number((report or {}).get(at), "d") for at in ("before", "peak", "after"))


HEADINGS = ("load", "users", "seconds", "requests", "per s", "p50", "p95", "p99", "max ms", "failed", "stall s",
            "/db/connections/", "pg_stat_activity")


def row(outcome: Outcome) -> tuple[str, ...]:
    get = outcome.summary.get
    return (
        outcome.title, str(outcome.users), number(get("seconds")), number(get("requests")), number(get("rps"), ".1f"),
        *(number(get(name), ".1f") for name in ("p50", "p95", "p99", "max")),
        number(get("error_share"), ".2%"), number(get("longest_stall_s"), ".2f") if outcome.title == "Locust" else "",
        of_connections(outcome.reports.get(connections.Page.name)),
        of_connections(outcome.reports.get(connections.Activity.name)),
    )


def table(outcomes: list[Outcome]) -> str:
    """One line per load; database connections are before / peak / after."""
    rows = [HEADINGS, *map(row, outcomes)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  " + "  ".join(
        cell.ljust(width) if not at else cell.rjust(width) for at, (cell, width) in enumerate(zip(line, widths))
    ) for line in rows)


def tell(outcomes: list[Outcome], load: Load) -> bool:
    """Prints the table and a line per load with what was asked of it. True when all held."""
    share = float(os.environ.get("LOADTEST_MAX_ERRORS") or 0.001)
    say(f"\n{table(outcomes)}\n")
    say(f"  Asked of each: at most {share:.2%} failed, p95 at most {load.max_p95_ms:g} ms, at most {load.limit} database")
    say("  connections by both counts (before / peak / after).")
    for outcome in outcomes:
        say(f"  {'FAIL' if outcome.broken else 'ok  '}  {outcome.title:<14} {details(outcome)}")
        for text in outcome.broken:
            say(f"          {text}")
        for kind, count in list(outcome.summary.get("errors_by_kind", {}).items())[:10]:
            say(f"          {count} x {'' if outcome.title == 'Locust' else 'not: '}{kind}")
    return not any(outcome.broken for outcome in outcomes)


def details(outcome: Outcome) -> str:
    """What is particular to a load."""
    if not (sockets := outcome.summary.get("websockets")):
        return ""
    sse = outcome.summary["sse"]
    met = ", ".join(f"{name} {count}" for name, count in sockets["replicas"].items())
    return (
        f"{sockets['connects']} WebSockets ({met}; {sockets['moved']} moved), {sockets['messages']} messages; "
        f"{sse['streams']} event streams, {sse['events']} events"
    )


class Ending(contextlib.ExitStack):
    """Closes what was opened, undisturbed by another Ctrl-C."""

    def __exit__(self, *why):
        for signal_number in demo.ENDINGS:
            signal.signal(signal_number, signal.SIG_IGN)
        return super().__exit__(*why)


def run(options) -> bool:
    """Everything between the first and the last process."""
    profile = Profile.named(options.profile, options.seconds)
    began = time.monotonic()
    with Ending() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="bookend-loadtest-")))
        place = elsewhere(folder)
        stack = None
        for part in demo.start(options.bookend.resolve(), place, REPLICA_ENV):
            ending.callback(part.close if isinstance(part, StackClient) else part.stop)
            stack = part if isinstance(part, StackClient) else stack
        postgres = stack.postgres
        dsn = f"host={postgres['socket_dir']} port={postgres['port']} user={postgres['superuser']} dbname=postgres"
        base = f"http://127.0.0.1:{place.front_port}"
        say(f"up after {time.monotonic() - began:.0f} s: {base}/, admin page http://127.0.0.1:{place.admin_port}/")
        load = Load(base, dsn, profile, folder)
        say(f"Locust: {profile.users} users, {profile.spawn_rate} more each second, {profile.seconds:.0f} s ...")
        outcomes = [load.locust()]
        for script in K6_SCRIPTS:
            say(f"k6 {script}: {profile.k6_users} users, {profile.k6_seconds:.0f} s ...")
            outcomes.append(load.k6(script))
        return tell(outcomes, load)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--bookend", type=Path, default=REPOSITORY / "target/release/bookend")
    parser.add_argument("--profile", choices=("short", "long"), default=os.environ.get("PROFILE") or "short")
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("LOADTEST_SECONDS") or 75))
    options = parser.parse_args()
    for signal_number in demo.ENDINGS:
        signal.signal(signal_number, demo.stop_on_signal)
    try:
        return 0 if run(options) else 1
    except demo.Stop:
        return 130
    except (demo.DemoError, StackError, OSError) as error:
        print(f"loadtest: {error}", file=sys.stderr, flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
