"""A migrated and seeded data directory, kept in the git-ignored `.cache/` and copied per run.

initdb, migrate and seed take some five seconds; a copy takes a tenth of one. The key is all that
went in: the server's version, who owns the files, and the sample project's code. A template is
published by rename and never changed after, and a lock keeps one run from pruning what another
copies, so any number of runs may do this at once.
"""
import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from postgres import DATABASE, ROLE, Cluster, PostgresError

REPOSITORY = Path(__file__).resolve().parents[2]
ARENA = REPOSITORY / "deploy" / "arena"
TEMPLATES = REPOSITORY / ".cache" / "stack"
# What decides the rows of a fresh database.
SOURCES = (
    "deploy/arena/requirements.txt",
    "deploy/arena/shop/models.py",
    "deploy/arena/shop/migrations/*.py",
    "deploy/arena/shop/management/commands/seed.py",
    "deploy/stack/postgres.py",
    "deploy/stack/template.py",
)


def key(cluster: Cluster) -> str:
    """Returns the name of the template this run could use."""
    version = subprocess.run(
        [cluster.bin / "postgres", "--version"], capture_output=True, text=True, check=True
    ).stdout
    owner = cluster.account.pw_uid if cluster.account else os.getuid()
    digest = hashlib.sha256(f"{version}{owner}".encode())
    for pattern in SOURCES:
        for path in sorted(REPOSITORY.glob(pattern)):
            digest.update(path.read_bytes())
    return f"pg{version.split()[2].split('.')[0]}-{digest.hexdigest()[:20]}"


def fill(cluster: Cluster, use_template: bool):
    """Gives the cluster its data directory: role, database, tables and rows. It is not running."""
    if not use_template:
        build(cluster)
        return
    TEMPLATES.mkdir(parents=True, exist_ok=True)
    template = TEMPLATES / key(cluster)
    with lock(fcntl.LOCK_SH):
        if template.is_dir():
            copy(template, cluster.data)
            return
    with lock(fcntl.LOCK_EX):
        if template.is_dir():  # someone built it while we waited
            copy(template, cluster.data)
            return
        build(cluster)
        publish(cluster.data, template)


@contextlib.contextmanager
def lock(kind):
    with open(TEMPLATES / "lock", "w") as handle:
        fcntl.flock(handle, kind)
        yield


def copy(source: Path, target: Path):
    """Copies with owners and modes; a file system that can share blocks does."""
    subprocess.run(["cp", "-a", "--reflink=auto", source, target], check=True)


def publish(data: Path, template: Path):
    for old in TEMPLATES.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
    unfinished = template.with_suffix(".new")
    copy(data, unfinished)
    unfinished.rename(template)


def build(cluster: Cluster):
    """Does it the long way: initdb, role and database, migrate, seed."""
    cluster.create()
    cluster.configure()
    cluster.start()
    cluster.create_database()
    manage(cluster, "migrate", "--verbosity=0")
    manage(cluster, "seed")
    with cluster.superuser() as connection:
        connection.execute("VACUUM ANALYZE")
    cluster.stop("fast")


def manage(cluster: Cluster, *command: str):
    """Runs manage.py against the cluster itself, never through a pool."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("DB_")}
    env = kept | {
        "DB_HOST": str(cluster.socket_dir),
        "DB_PORT": str(cluster.port),
        "DB_USER": ROLE,
        "DB_NAME": DATABASE,
    }
    done = subprocess.run(
        [sys.executable, "manage.py", *command], cwd=ARENA, env=env, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise PostgresError(f"manage.py {command[0]} failed:\n{done.stdout}{done.stderr}")
