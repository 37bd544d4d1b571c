"""Load for a deployment of the sample project, or of one with the same endpoints (deploy/arena/arena/urls.py):

    .cache/loadtest/bin/locust -f loadtest/locustfile.py --headless --host http://127.0.0.1:8080

is 500 users, 25 more each second, for 10 minutes (`-u`, `-r`, `-t` say otherwise; without --headless there is Locust's web
page). Of 100 users 90 shop (reads, lists, orders and counters in transactions, now and then a slow endpoint), 6 hold
WebSockets, come back and expect the replica they had, and 4 read streams of events. The exit code is 1 when a limit does not
hold. All of it from the environment, with its defaults:

    LOADTEST_MAX_ERRORS=0.001        share of all requests, connections, messages and streams that may fail
    LOADTEST_MAX_P95_MS=500          of requests that are not slow by design
    LOADTEST_MAX_CONNECTIONS=50      database connections by /db/connections/ and by pg_stat_activity
    DATABASE_URL                     PostgreSQL itself, for pg_stat_activity (or --dsn); without it the page alone is asked
    LOADTEST_SUMMARY                 a file for the summary as JSON
    LOADTEST_HTTP_USERS, LOADTEST_WEBSOCKET_USERS, LOADTEST_SSE_USERS    so many instead of their share; 0 = none
    LOADTEST_THINK_S=1,3             pause between two actions of a user, from,to
    LOADTEST_TIMEOUT_S=30            of a request
    LOADTEST_SLOW_S=0.2              what the slow endpoint is asked for
    LOADTEST_SSE_EVENTS=10, LOADTEST_SSE_INTERVAL_S=0.2
    LOADTEST_STICKY=1                0: a WebSocket user may meet another replica (counted as `moved` all the same)

The summary: {"requests", "failures", "rps", "p50", "p95", "p99", "max", "longest_stall_s", "error_share", "errors_by_kind",
"slow", "websockets", "sse", "connections", "limits", "broken", "ok", ...}, times in milliseconds; recorder.py says what counts.
Certificates are not verified. Several processes (`--processes`) add up; the master counts the connections.
"""
import json
import logging
import os
import time
from pathlib import Path

import connections
import recorder as recording
from locust import events
from locust.runners import WorkerRunner
from users.listener import Listener
from users.settings import number, recorder
from users.shopper import Shopper
from users.talker import Talker

__all__ = ["Listener", "Shopper", "Talker"]

USERS, SPAWN_RATE, RUN_TIME = 500, 25, "10m"
MAX_ERRORS = number("LOADTEST_MAX_ERRORS", 0.001)
MAX_P95_MS = number("LOADTEST_MAX_P95_MS", 500)
MAX_CONNECTIONS = connections.limit_of_environment()

log = logging.getLogger("loadtest")


class Run:
    """What is known of the run while it runs; the master's, or that of the only process."""

    watch = began = ended = reports = None


@events.init_command_line_parser.add_listener
def defaults(parser):
    parser.set_defaults(num_users=USERS, spawn_rate=SPAWN_RATE, run_time=RUN_TIME)
    parser.add_argument("--dsn", env_var="DATABASE_URL", include_in_web_ui=False, help="PostgreSQL itself, not the pool")


@events.test_start.add_listener
def begin(environment, **_):
    if isinstance(environment.runner, WorkerRunner):
        return
    recorder.drain()
    Run.watch = connections.Watch(environment.host, environment.parsed_options.dsn)
    Run.watch.start()
    Run.began = time.time()


@events.test_stopping.add_listener
def stop_the_clock(environment, **_):
    Run.ended = time.time()


@events.test_stop.add_listener
def end(environment, **_):
    if Run.watch is not None:
        Run.reports, Run.watch = Run.watch.stop(), None


@events.report_to_master.add_listener
def send(client_id, data, **_):
    data["loadtest"] = recorder.drain()


@events.worker_report.add_listener
def receive(client_id, data, **_):
    if "loadtest" in data:
        recorder.merge(data["loadtest"])


@events.quitting.add_listener
def conclude(environment, **_):
    """Judges, tells, and sets the exit code."""
    if Run.began is None:  # a worker, or a web page that was never used
        return
    ended = Run.ended or time.time()
    summary = recorder.summary(ended - Run.began, ended)
    broken = recording.judge(summary, max_errors=MAX_ERRORS, max_p95_ms=MAX_P95_MS)
    broken += connections.judge(Run.reports or {}, MAX_CONNECTIONS)
    summary |= {
        "users": environment.parsed_options.num_users,
        "connections": Run.reports,
        "limits": {"max_errors": MAX_ERRORS, "max_p95_ms": MAX_P95_MS, "max_connections": MAX_CONNECTIONS},
        "broken": broken,
        "ok": not broken,
    }
    if path := os.environ.get("LOADTEST_SUMMARY"):
        Path(path).write_text(json.dumps(summary, indent=1) + "\n")
    for line in [*connections.lines(Run.reports or {}), *(f"FAIL {text}" for text in broken)]:
        log.info(line)
    log.info(f"limits: {MAX_ERRORS:.3%} errors, p95 {MAX_P95_MS:g} ms, {MAX_CONNECTIONS} database connections: "
             f"{'do not hold' if broken else 'hold'}")
    environment.process_exit_code = 1 if broken else 0
