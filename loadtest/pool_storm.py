"""What a storm of logins does to running transactions: after a deploy or a failover every worker comes back at once.

    sudo .cache/peers/venv/bin/python loadtest/pool_storm.py --bookend target/release/bookend [--tls] [--rounds 5]

Transactions run at a fixed rate (pgbench -R, one SELECT by key, 16 clients on 20 server connections). In the middle of it a
thousand clients log in by SCRAM, all at once, each asks once and stays. Told apart by the moment at which they ended, the
transactions of the storm are compared with those before it. Every program has its turn in every round, Bookend and
PgBouncer, on a core of its own; PostgreSQL, pgbench and the storm share the other, where the storm gets what the others leave:
what it costs a transaction is what it costs the pooler, and not its own work. loadtest/peers/install comes first. A round
takes some 30 seconds; --rounds bounds it.

Prints one line a sample, and at last the medians: p50 and p99 in ms before and during the storm, what the one is of the
other, logins/s, and the pooler's CPU for each login in µs. --at-most 2 ends with 1 when Bookend's p99 rose more than that.
"""
from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import machine, pg_idle, pg_programs, pg_server, pgbench  # noqa: E402
from harness.case import SampleFailed  # noqa: E402

PROGRAMS = ["bookend", "pgbouncer"]
CLIENTS, POOL_SIZE = 16, 20
# The storm comes so long after the first login of pgbench's clients, and the run goes on as long behind it.
CALM_SECONDS = 4.0
STORM_SECONDS = 8.0
# The first moments of a run are its own storm.
SETTLE_SECONDS = 0.5


class Storm(threading.Thread):
    """Lets `count` clients log in at once, after a while; `said` is what became of them, `error` why not."""

    def __init__(self, clients, count: int, pid: int):
        super().__init__()
        self.clients, self.count, self.pid = clients, count, pid
        self.said, self.error, self.cpu = None, None, 0.0

    def run(self):
        try:
            time.sleep(CALM_SECONDS)
            before = machine.Cpu(self.pid)
            self.clients.go_on()
            self.said = self.clients.expect("all", self.count)
            self.cpu = before.used()
        except SampleFailed as error:
            self.error = error


def sample(bench, pooler, count: int, rate: float) -> dict[str, float]:
    """One run with a storm in its middle."""
    with pg_idle.holder(pooler, count, first=1, at_once=count, meek=True) as clients:
        clients.expect("first", 1)  # and the salt is known: its hashing is no part of the storm
        storm = Storm(clients, count, pooler.pid)
        storm.start()
        try:
            run = pgbench.run(bench, pooler, seconds=CALM_SECONDS + STORM_SECONDS, clients=CLIENTS, threads=1, rate=rate)
        finally:
            storm.join()
        if storm.error:
            raise storm.error
        clients.close()
    begun, ended = storm.said["since"], storm.said["since"] + storm.said["seconds"]
    first = min(one.ended for one in run.transactions) + SETTLE_SECONDS
    calm = sorted(one.took for one in run.transactions if first <= one.ended < begun)
    during = sorted(one.took for one in run.transactions if begun <= one.ended <= ended)
    if len(calm) < 100 or len(during) < 100:
        raise SampleFailed(f"{len(calm)} transactions before the storm, {len(during)} in it")
    took = {f"{which}_p{int(share * 100)}": pgbench.percentile(one, share) / 1000
            for which, one in (("calm", calm), ("storm", during)) for share in (0.5, 0.99)}
    logins = count - 1
    # What the running transactions took meanwhile is taken off by what they take when all is calm.
    each = pgbench.cpu_per_transaction(run.transactions, [r for r in run.readings if r.at < begun]) or 0.0
    cpu = (storm.cpu * 1e6 - each * len(during)) / logins
    return {**took, "rise": took["storm_p99"] / took["calm_p99"], "logins/s": logins / storm.said["seconds"], "cpu": cpu}


def shown(program: str, figures: dict[str, float]) -> str:
    return (
        f"{program:<10} p50 {figures['calm_p50']:.2f} -> {figures['storm_p50']:.2f} ms, p99 {figures['calm_p99']:.2f} -> "
        f"{figures['storm_p99']:.2f} ms ({figures['rise']:.2f} x), {figures['logins/s']:,.0f} logins/s, "
        f"{figures['cpu']:,.0f} µs CPU each"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--bookend", default=str(machine.REPOSITORY / "target/release/bookend"))
    parser.add_argument("--programs", default=",".join(PROGRAMS), help="by comma (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=1000, help="clients of the storm (%(default)s)")
    parser.add_argument("--rate", type=float, default=1000, help="transactions/s (%(default)s)")
    parser.add_argument("--tls", action="store_true", help="all clients come by TLS")
    parser.add_argument("--at-most", type=float, help="how many times Bookend's p99 may be in the storm")
    options = parser.parse_args()
    samples: dict[str, list[dict]] = {program: [] for program in options.programs.split(",")}
    with contextlib.ExitStack() as stack:
        bench = SimpleNamespace(options=options, logs=stack.enter_context(tempfile.TemporaryDirectory()), say=print)
        server = stack.enter_context(pg_server.server(bench))
        for _ in range(options.rounds):
            for program, taken in samples.items():
                how = {"pool_size": POOL_SIZE, "tls": options.tls, "server_tls": False}
                with pg_programs.start(bench, program, server, **how) as pooler:
                    pgbench.run(bench, pooler, count=50, clients=CLIENTS, threads=1)
                    taken.append(sample(bench, pooler, options.count + 1, options.rate))
                print(shown(program, taken[-1]), flush=True)
    print(f"medians of {options.rounds} rounds, {options.count:,} logins{' by TLS' if options.tls else ''}:")
    medians = {}
    for program, taken in samples.items():
        medians[program] = {key: statistics.median(one[key] for one in taken) for key in taken[0]}
        print(shown(program, medians[program]))
    return int(bool(options.at_most and medians["bookend"]["rise"] > options.at_most))


if __name__ == "__main__":
    sys.exit(main())
