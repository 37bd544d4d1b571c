"""Database connections before, at the peak of and after a load, from both who counts them:

* `GET {base}/db/connections/`, the page of the deployment (`.databases.*.total_connections`, or `.connections.default`),
* `pg_stat_activity`, which is PostgreSQL's own word. It needs a DSN of PostgreSQL itself, not of the pool before it.

`Watch` samples in the background of a Locust or k6 run. As a program it does so around any command:

    .cache/loadtest/bin/python loadtest/connections.py --host http://127.0.0.1:8080 --dsn "$DATABASE_URL" \\
        -- .cache/loadtest/bin/k6 run loadtest/k6/http.js

and ends with the command's exit code, or 1 when there were more than LOADTEST_MAX_CONNECTIONS (50), or --max.
"""
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

MAX_CONNECTIONS = 50
INTERVAL_SECONDS = 0.5
TIMEOUT_SECONDS = 5
# Sessions end a moment after who had them.
AFTER_SECONDS = 1.0

# Clients of any database but ourselves. A role that may not see more than its own sessions gets rows without backend_type.
ACTIVITY = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname IS NOT NULL AND usesysid IS NOT NULL AND pid <> pg_backend_pid()
      AND coalesce(backend_type, 'client backend') = 'client backend'
"""


class Absent(Exception):
    """This deployment has no such source; asking again will not help."""


def of_page(page: dict) -> int:
    """The connections to PostgreSQL a /db/connections/ page tells of, all databases together."""
    databases = [entry["total_connections"] for entry in page.get("databases", {}).values()]
    if databases:
        return sum(databases)
    try:
        return page["connections"]["default"]["total_connections"]
    except KeyError:
        raise Absent("the page tells of no database") from None


class Page:
    """The deployment's own count."""

    name = "/db/connections/"

    def __init__(self, base: str):
        self.url = base.rstrip("/") + self.name

    def read(self) -> int:
        try:
            with urllib.request.urlopen(self.url, timeout=TIMEOUT_SECONDS) as answer:
                return of_page(json.load(answer))
        except urllib.error.HTTPError as error:
            if error.code in (403, 404):
                raise Absent(f"HTTP {error.code}") from None
            raise

    def close(self):
        pass


class Activity:
    """PostgreSQL's count, over one connection that is opened again when it was lost."""

    name = "pg_stat_activity"

    def __init__(self, dsn: str):
        self.dsn = dsn
        self.connection = None

    def read(self) -> int:
        import psycopg  # whoever has no DSN need not have it

        if self.connection is None or self.connection.closed:
            self.connection = psycopg.connect(self.dsn, autocommit=True, connect_timeout=TIMEOUT_SECONDS)
        try:
            return self.connection.execute(ACTIVITY).fetchone()[0]
        except psycopg.Error:
            self.close()
            raise

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class Series:
    """What one source said: before, peak, after; `missed` counts the times it did not answer."""

    def __init__(self, source):
        self.source = source
        self.before = self.peak = self.after = self.absent = None
        self.samples = self.missed = 0

    def sample(self) -> int | None:
        if self.absent:
            return None
        try:
            value = self.source.read()
        except Absent as why:
            self.absent = str(why)
            return None
        except Exception:  # restarting, refusing, answering nonsense: a load test goes on, and says how often
            self.missed += 1
            return None
        self.samples += 1
        self.peak = max(value, self.peak or 0)
        return value

    def report(self) -> dict:
        return {
            "before": self.before, "peak": self.peak, "after": self.after,
            "samples": self.samples, "missed": self.missed, "absent": self.absent,
        }


class Watch:
    """Samples all sources from `start` to `stop`. With gevent's patches (Locust) its thread is a greenlet."""

    def __init__(self, base: str, dsn: str | None, interval: float = INTERVAL_SECONDS):
        sources = [Page(base), *([Activity(dsn)] if dsn else [])]
        self.series = [Series(source) for source in sources]
        self.interval = interval
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)

    def start(self):
        for one in self.series:
            one.before = one.sample()
        self.thread.start()

    def _sample(self):
        while not self.ended.wait(self.interval):
            for one in self.series:
                one.sample()

    def stop(self) -> dict:
        """Ends the sampling; returns {source: report}."""
        self.ended.set()
        self.thread.join()
        time.sleep(AFTER_SECONDS)
        for one in self.series:
            one.after = one.sample()
            one.source.close()
        return {one.source.name: one.report() for one in self.series}


def lines(reports: dict) -> list[str]:
    """The reports for people."""
    said = []
    for name, report in reports.items():
        if report["absent"] or report["peak"] is None:
            said.append(f"database connections by {name}: not known ({report['absent'] or 'it never answered'})")
            continue
        before, after = ("?" if report[at] is None else report[at] for at in ("before", "after"))
        missed = f", {report['missed']} samples missed" if report["missed"] else ""
        said.append(
            f"database connections by {name}: {before} before, {report['peak']} at the peak, {after} after "
            f"({report['samples']} samples{missed})"
        )
    return said


def judge(reports: dict, limit: int) -> list[str]:
    """What did not hold, in words. A source that this deployment lacks does not count, one that never answered does."""
    broken = []
    for name, report in reports.items():
        if report["absent"]:
            continue
        if report["peak"] is None:
            broken.append(f"{name} never answered")
        elif report["peak"] > limit:
            broken.append(f"{report['peak']} database connections by {name}, allowed are {limit}")
    return broken


def limit_of_environment() -> int:
    return int(os.environ.get("LOADTEST_MAX_CONNECTIONS") or MAX_CONNECTIONS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0], usage="%(prog)s --host URL [options] -- COMMAND")
    parser.add_argument("--host", default=os.environ.get("BASE_URL"), help="the base URL; default: $BASE_URL")
    parser.add_argument("--dsn", default=os.environ.get("DATABASE_URL"), help="PostgreSQL itself; default: $DATABASE_URL")
    parser.add_argument("--max", type=int, default=limit_of_environment())
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    if not options.host:
        parser.error("say --host, or set BASE_URL")
    watch = Watch(options.host, options.dsn)
    watch.start()
    code = subprocess.run(options.command, env=os.environ | {"BASE_URL": options.host}).returncode
    reports = watch.stop()
    broken = judge(reports, options.max)
    print("\n".join([*lines(reports), *(f"FAIL {text}" for text in broken)]))
    return code or bool(broken)


if __name__ == "__main__":
    sys.exit(main())
