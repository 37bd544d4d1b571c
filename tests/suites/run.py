#!/usr/bin/env python3
"""Runs drivers' and frameworks' own tests without the pool and through it, and tells which come out otherwise.

    run.py --bookend PATH [--suite NAME ...] [--way transaction|session ...]

Each run has a PostgreSQL and a pool of its own. The tests come from the source archives that PyPI has beside the packages of
requirements.txt. What is known to differ, and why, stands in differences.json; anything else makes the run fail, and so does a
known difference that is gone.
"""
import argparse
import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = ROOT / ".cache" / "suites-sources"
sys.path.insert(0, str(ROOT / "deploy" / "stack"))

from postgres import Cluster  # noqa: E402
from processes import free_port, spawn, tail  # noqa: E402

USER, PASSWORD = "postgres", "of-the-suites"
# SQLAlchemy's tests are for a user of this name in places.
OTHER_USER = "scott"
SERVER_SETTINGS = {"max_prepared_transactions": "20", "wal_level": "logical"}
# One test may take so long, and one suite.
TEST_SECONDS, SUITE_SECONDS = 60, 1800
# Less than most suites open connections, so that servers change hands; a session needs one for each.
POOL_SIZE = {"transaction": 5, "session": 60}

DJANGO = """
    backends bulk_create constraints db_functions expressions inspectdb introspection postgres_tests raw_query schema
    select_for_update transaction_hooks transactions
""".split()
SQLALCHEMY = [f"test/dialect/postgresql/test_{part}.py" for part in ("async_pg", "dialect", "on_conflict", "query", "types")]
SQLALCHEMY += ["test/engine/test_transaction.py"]

POOL = """\
pool:
  listen_addr: 127.0.0.1
  listen_port: {port}
  pool_mode: {mode}
  default_pool_size: {size}
  query_wait_timeout: 20s
admin: false
databases:
  "*": {{ host: 127.0.0.1, port: {server} }}
users:
  {user}: {{ password: "{password}" }}
  {other}: {{ password: "{password}" }}
"""


def pytest(tests, junit, *more):
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", f"--timeout={TEST_SECONDS}",
            f"--junitxml={junit}", "-o", "junit_family=xunit1", *more, *tests]


def psycopg2(folder, outcomes, place):
    more = {f"PSYCOPG2_TESTDB_{key}": value for key, value in {"": "suite", **place}.items()}
    more["PSYCOPG2_TESTDB"] = more.pop("PSYCOPG2_TESTDB_")
    # It asks a package that was built with the libpq of this machine.
    without = "--deselect=tests/test_connection.py::ConnectionTests::test_pgconn_ptr"
    return folder, pytest(["tests"], outcomes, without), more


def asyncpg(folder, outcomes, _):
    # Away from the sources, which would be imported in place of the package. Left out: those that look at the sources, and
    # those that make a cluster with a standby, where they would meet themselves alone.
    alone = outcomes.parent / "asyncpg"
    shutil.copytree(folder / "tests", alone / "tests")
    without = ["--deselect=tests/test__sourcecode.py", "--deselect=tests/test_connect.py::TestConnectionAttributes"]
    return alone, pytest(["tests"], outcomes, *without), {}


def sqlalchemy(folder, outcomes, place):
    uri = f"postgresql+psycopg://{OTHER_USER}:{PASSWORD}@{place['HOST']}:{place['PORT']}/test"
    # Neither those that only compile nor the hundreds of one kind of range each: slow, and they ask the server little.
    return folder, pytest(SQLALCHEMY, outcomes, "-k", "not Compil and not Range", "--dburi", uri), {}


def django(folder, outcomes, _):
    # --keepdb: nobody can drop a database while a pool has connections to it, short of PAUSE.
    argv = [sys.executable, "runtests.py", "--settings=django_settings", "--parallel=1", "--keepdb", "--noinput", *DJANGO]
    return folder / "tests", argv, {"SUITE_OUTCOMES": str(outcomes), "PYTHONPATH": str(HERE)}


# The name PyPI knows, in lower case, and how the tests are called.
SUITES = {"psycopg2": psycopg2, "asyncpg": asyncpg, "sqlalchemy": sqlalchemy, "django": django}


def sources(name):
    """Returns the folder of a package's sources in the version of requirements.txt, fetched when it is not there."""
    wanted = re.search(rf"(?mi)^{name}(?:-binary)?==(.+)$", (HERE / "requirements.txt").read_text())[1]
    folder = CACHE / f"{name}-{wanted}"
    if not folder.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:", "--dest", scratch]
            subprocess.run([*pip, f"{name}=={wanted}"], check=True)
            (archive,) = Path(scratch).glob("*.tar.gz")
            shutil.unpack_archive(archive, scratch, filter="data")
            os.rename(Path(scratch) / archive.name.removesuffix(".tar.gz"), folder)
    return folder


def start_server(home):
    cluster = Cluster(home / "pg", home, auth="scram-sha-256", max_connections=200, settings=SERVER_SETTINGS)
    cluster.create()
    cluster.configure()
    cluster.start()
    with cluster.superuser("postgres") as connection:
        connection.execute(f"CREATE ROLE {OTHER_USER} LOGIN SUPERUSER")
        for database in ("suite", "test"):
            connection.execute(f"CREATE DATABASE {database}")
        connection.execute("ALTER DATABASE test SET default_text_search_config = 'pg_catalog.english'")
    with cluster.superuser("suite") as connection:
        connection.execute("CREATE EXTENSION hstore")
    with cluster.superuser("test") as connection:
        for statement in ("SCHEMA test_schema", "SCHEMA test_schema_2", "EXTENSION hstore", "EXTENSION citext"):
            connection.execute(f"CREATE {statement}")
    cluster.set_passwords({USER: PASSWORD, OTHER_USER: PASSWORD})
    return cluster


def start_pool(bookend, home, mode, server):
    port = free_port()
    text = POOL.format(port=port, mode=mode, size=POOL_SIZE[mode], server=server, user=USER, other=OTHER_USER, password=PASSWORD)
    (home / "pool.yaml").write_text(text)
    process = spawn([bookend, "run", "--pool", home / "pool.yaml"], log=home / "bookend.log", cwd=home)
    deadline = time.monotonic() + 20
    ready = [shutil.which("pg_isready") or "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port), "-U", USER]
    while subprocess.run(ready).returncode:
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"suites: the pool did not start:\n{tail(home / 'bookend.log')}")
        time.sleep(0.05)
    return process, port


def outcomes_of(file):
    """Returns what became of each test, by its name."""
    if file.suffix == ".json":
        return json.loads(file.read_text())
    found = {}
    for case in xml.parse(file).iter("testcase"):
        kinds = {child.tag for child in case}
        bad = kinds & {"failure", "error"}
        outcome = "failed" if bad else "skipped" if "skipped" in kinds else "passed"
        name = f"{case.get('classname')}.{case.get('name')}"
        # A test may be there twice: once for itself and once for what comes after it.
        if found.get(name) != "failed":
            found[name] = outcome
    return found


def run(name, way, bookend, logs):
    """Runs a suite one way; its outcomes. `way` is "direct" or a mode of the pool."""
    suite, folder = SUITES[name], sources(name)
    with tempfile.TemporaryDirectory(prefix="bookend-suite-") as scratch:
        home = Path(scratch)
        home.chmod(0o711)
        cluster, pool = start_server(home), None
        try:
            port = cluster.port
            if way != "direct":
                pool, port = start_pool(bookend, home, way, cluster.port)
            place = {"HOST": "127.0.0.1", "PORT": str(port), "USER": USER, "PASSWORD": PASSWORD}
            file = home / ("outcomes.json" if name == "django" else "outcomes.xml")
            folder, argv, more = suite(folder, file, place)
            environment = {f"PG{key}": value for key, value in place.items()} | {"PGDATABASE": "postgres"}
            with open(logs / f"{name}-{way}.log", "w") as log:
                began = time.monotonic()
                subprocess.run(argv, cwd=folder, env=os.environ | environment | more, stdin=subprocess.DEVNULL, stdout=log,
                               stderr=subprocess.STDOUT, timeout=SUITE_SECONDS)
            if not file.exists():
                sys.exit(f"suites: {name} did not run, see {log.name}")
            found = outcomes_of(file)
            counts = {kind: list(found.values()).count(kind) for kind in ("passed", "failed", "skipped")}
            print(f"{name:<12}{way:<12}{time.monotonic() - began:6.0f} s  {counts}", flush=True)
            return found
        finally:
            if pool is not None:
                shutil.copy(home / "bookend.log", logs / f"{name}-{way}.bookend.log")
                pool.kill()
                pool.wait()
            cluster.stop("immediate")


def judge(name, way, direct, through):
    """Prints what differs; returns how much of it nobody has explained, or is explained and gone."""
    differing = {test for test in direct | through if direct.get(test) != through.get(test)}
    known = [each for each in json.loads((HERE / "differences.json").read_text()) if each["suite"] == name and way in each["ways"]]
    surprises = 0
    for each in known:
        met = {test for test in differing if any(fnmatch.fnmatchcase(test, pattern) for pattern in each["tests"])}
        differing -= met
        if met:
            print(f"  known       {len(met)}: {each['why']}")
        elif not each.get("not_always"):
            print(f"  GONE        {each['tests']}: {each['why']}")
            surprises += 1
    for test in sorted(differing):
        print(f"  DIFFERENT   {test}: {direct.get(test)} directly, {through.get(test)} through the pool")
    return surprises + len(differing)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--bookend", required=True, type=Path)
    arguments.add_argument("--suite", action="append", choices=SUITES)
    arguments.add_argument("--way", action="append", choices=POOL_SIZE)
    chosen = arguments.parse_args()
    logs = ROOT / ".cache" / "suites-logs"
    logs.mkdir(parents=True, exist_ok=True)
    surprises = 0
    for name in chosen.suite or SUITES:
        direct = run(name, "direct", None, logs)
        for way in chosen.way or POOL_SIZE:
            surprises += judge(name, way, direct, run(name, way, chosen.bookend.resolve(), logs))
    print(f"suites: {surprises} unexplained differences; what the suites said is in {logs.relative_to(ROOT)}/")
    sys.exit(surprises > 0)


if __name__ == "__main__":
    main()
