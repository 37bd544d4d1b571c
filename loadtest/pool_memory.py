"""Measures what idle database clients cost: resident memory of a running bookend before and after many logins.

    make setup && cargo build --release
    .venv/bin/python loadtest/pool_memory.py target/release/bookend --count 4000 [--tls]

The clients are psycopg's, each logged in by SCRAM and idle after one query; the server is a real PostgreSQL, started and
removed here (deploy/stack/stack.py). Only bookend's VmRSS is measured. Two hundred clients come first, so that the pool,
its servers and the allocator's first pages are not counted.
"""

import argparse
import json
import resource
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg

ROOT = Path(__file__).resolve().parent.parent
POOL = """
pool: {{ listen_addr: 127.0.0.1, listen_port: {port}, default_pool_size: 20, max_client_conn: {clients}{tls} }}
databases: {{ arena_db: {{ host: 127.0.0.1, port: {server} }} }}
users: {{ arena_user: {{ password: "{password}" }} }}
admin: false
"""
TLS = ", client_tls_sslmode: require, client_tls_key_file: {home}/tls.key, client_tls_cert_file: {home}/tls.crt"
FIRST = 200


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def resident_kb(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def connect(dsn):
    """Logs in, asks once, and stays; tries for five seconds while bookend starts."""
    deadline = time.monotonic() + 5
    while True:
        try:
            client = psycopg.connect(dsn, autocommit=True)
            break
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    assert client.execute("SELECT 1").fetchone() == (1,)
    return client


def certificate(home):
    """Makes tls.key and tls.crt in `home`: RSA of 2,048 bits, as most servers have."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-keyout", f"{home}/tls.key", "-out", f"{home}/tls.crt"],
        check=True, capture_output=True,
    )


def measure(bookend, count, postgres, tls):
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        if tls:
            certificate(home)
        pool = Path(home, "pool.yaml")
        text = POOL.format(
            port=port, clients=count + FIRST + 10, server=postgres["port"], password=postgres["password"],
            tls=TLS.format(home=home) if tls else "",
        )
        pool.write_text(text)
        process = subprocess.Popen([bookend, "run", "--pool", str(pool)], stderr=subprocess.DEVNULL)
        try:
            dsn = f"host=127.0.0.1 port={port} user=arena_user password={postgres['password']} dbname=arena_db"
            dsn += " sslmode=require" if tls else " sslmode=disable"
            clients = [connect(dsn) for _ in range(FIRST)]
            time.sleep(1)
            before = resident_kb(process.pid)
            clients += [connect(dsn) for _ in range(count)]
            time.sleep(1)
            return before, resident_kb(process.pid)
        finally:
            process.terminate()
            process.wait(40)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("bookend")
    arguments.add_argument("--count", type=int, default=4000)
    arguments.add_argument("--tls", action="store_true", help="clients come by TLS")
    arguments.add_argument("--at-most", type=int, help="bytes per client; more is a failure")
    asked = arguments.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    stack = subprocess.Popen(
        [sys.executable, str(ROOT / "deploy/stack/stack.py"), "--no-replicas"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    try:
        postgres = json.loads(stack.stdout.readline())["postgres"]
        before, after = measure(asked.bookend, asked.count, postgres, asked.tls)
    finally:
        stack.stdin.close()
        stack.wait(30)
    each = (after - before) * 1024 // asked.count
    print(f"{asked.count} idle clients{' by TLS' if asked.tls else ''}: {before} kB -> {after} kB, {each} bytes each")
    if asked.at_most and each > asked.at_most:
        raise SystemExit(f"more than {asked.at_most} bytes each")


if __name__ == "__main__":
    main()
