"""What pgbench measures of the poolers: 1, 32 and 500 clients on a pool of 20 server connections, in all three protocols.

pgbench and PostgreSQL share a core and the pooler has the other. At saturation it is their core that is full, not the
pooler's, so transactions/s are much alike and the CPU per transaction is what tells the poolers apart; with a single client
nothing is full, and the rate is nothing but the latency of the whole way.
"""
from __future__ import annotations

from . import pg_programs, pgbench
from .case import P50, P99, RSS, Case, Figure, SampleFailed
from .pg_server import server

RATE = Figure("rate", "transactions/s", "higher")
CPU = Figure("cpu", "µs CPU/transaction", "lower")
POOLERS = ["bookend", "pgbouncer", "odyssey"]
POOL_SIZE = 20
MODES = {
    "simple": "simple protocol",
    "extended": "extended protocol, unnamed statements",
    "prepared": "named prepared statements",
}
BUILTINS = {
    "select": ("select-only", "one SELECT by key"),
    "tpcb": ("tpcb-like", "TPC-B, seven statements in a transaction"),
}
# Server connections that are no client's: Bookend looks at the database by one of its own.
PROBES = {"bookend": 1}
WARM_UP_COUNT = 50


class Pgbench(Case):
    """A pgbench run in each round. The subclasses say which figures are made of it.

    `share` is how much of the bench's seconds a sample takes, unless it is `count` transactions of each client. What is
    asked of pgbench stands in `asked` (see pgbench.run).
    """

    group = "pg"
    programs = POOLERS
    figures = [CPU, RATE, P50, P99, RSS]
    share = 1.0
    count: int | None = None
    place = "proxy"
    load_place = "load"
    threads = 1

    def __init__(self, name: str, title: str, **asked):
        self.name = name
        self.title = title
        self.asked = asked

    def open(self, bench) -> None:
        self.server = bench.enter(server(bench, place=self.load_place))

    def start(self, bench, program: str):
        return pg_programs.start(bench, program, self.server, place=self.place, pool_size=POOL_SIZE, **self.cores(program))

    def cores(self, program: str) -> dict:
        """How the program is told to use `threads` cores."""
        return {"threads": self.threads}

    def offered(self, program: str) -> None:
        pg_programs.offered(program, **self.cores(program))

    def warm_up(self, bench, program: str, running) -> None:
        """Opens the server connections and fills caches. A few clients do that as well as many."""
        clients = min(self.asked["clients"], 32)
        threads = min(self.asked.get("threads", 1), clients)
        first = {**self.asked, "clients": clients, "threads": threads, "rate": None, "connect": False}
        self.run(bench, running, count=WARM_UP_COUNT, **first)
        if self.asked.get("mode") == "prepared":
            self.kept(running)

    def kept(self, running) -> None:
        """That named statements reached the server as such, and were used again: else the case measures something else."""
        sql = "select count(*), coalesce(sum(generic_plans + custom_plans), 0) from pg_prepared_statements"
        # Whose server connection answers is the pooler's choice, and one of the pool may have served nobody yet.
        for _ in range(POOL_SIZE):
            kept, used = map(int, running.query(sql)[0])
            if kept and used > kept:
                return
        raise SampleFailed(f"prepared statements are not kept on the server: {kept}, used {used} times")

    def measure(self, bench, program: str, running) -> dict[str, float | None]:
        length = {"count": self.count} if self.count else {"seconds": self.share * bench.seconds}
        return self.made_of(self.run(bench, running, **length, **self.asked))

    def run(self, bench, running, **asked) -> pgbench.Run:
        """One run, and the check that the pooler kept to its pool."""
        run = pgbench.run(bench, running, place=self.load_place, **asked)
        open_now = running.server_connections(self.server) - PROBES.get(running.name, 0)
        if open_now > POOL_SIZE:
            raise SampleFailed(f"{open_now} server connections are open, {POOL_SIZE} were asked for")
        return run

    def made_of(self, run: pgbench.Run) -> dict[str, float | None]:
        """Every figure that any case shows; a case shows its own."""
        p50, p99, served = run.percentile(0.5), run.percentile(0.99), run.served()
        return {
            "rate": run.rate(),
            "cpu": run.cpu_per_transaction(),
            "p50": p50,
            "p99": p99,
            "longest": run.percentile(1.0),
            "rss": run.rss / 2**20 if run.rss else None,
            "p99/p50": p99 / p50 if p50 else None,
            "least/most": served[0] / served[-1],
            "login": run.summary.connecting,
        }


class Few(Pgbench):
    """One client: the way there and back. Half the time is enough, since nothing queues."""

    figures = [RATE, CPU, P50, P99, RSS]
    share = 0.5


class Many(Pgbench):
    """500 clients on 20 server connections, most of them waiting at any time."""

    share = 0.5


class Fair(Pgbench):
    """How evenly 500 waiting clients are served."""

    figures = [
        Figure("p99/p50", "p99/p50", "lower"), Figure("least/most", "least/most served client", "higher"), P50, P99,
        Figure("longest", "ms, longest", "lower"), RATE, CPU,
    ]


class Login(Pgbench):
    """A login by SCRAM for every transaction. Most of its time is the client's own hashing, on the generator's core."""

    figures = [CPU, RATE, Figure("login", "ms/login", "lower"), RSS]
    share = 0.5


class TwoCores(Pgbench):
    """Each pooler as it uses two cores, which it shares with everything else."""

    place = load_place = "both"
    threads = 2

    def cores(self, program: str) -> dict:
        return {"processes": 2} if program == "pgbouncer" else {"threads": 2}


class AtRate(Pgbench):
    """As many transactions/s as asked, at random times; latency counts from when a transaction was due."""

    # What was done is what was asked, but for chance: shown, not judged.
    figures = [P50, P99, CPU, Figure("rate", RATE.unit, None)]
    plot = "rate"

    def __init__(self, name: str, title: str, **asked):
        super().__init__(name, title, **asked)
        self.x = float(asked["rate"])


def generator_threads(short: str, mode: str, clients: int) -> int:
    """How many threads pgbench gets, all on one core. It prepares a statement by a call that blocks the thread: were there
    but one, it would stand still as soon as a client beyond the pool waits in that call, and nobody ends the transactions of
    the others. So it stood with every pooler."""
    return clients if (short, mode) == ("tpcb", "prepared") else 1


def cells() -> list[Case]:
    """pg-select-* and pg-tpcb-*: each script in each protocol with each number of clients."""
    found = []
    for short, (builtin, words) in BUILTINS.items():
        for mode, protocol in MODES.items():
            for clients, kind in ((1, Few), (32, Pgbench), (500, Many)):
                who = "1 client" if clients == 1 else f"{clients} clients on 20 server connections"
                case = kind(f"pg-{short}-{mode}-{clients}", f"{words}, {protocol}, {who}", builtin=builtin, mode=mode,
                            clients=clients, threads=generator_threads(short, mode, clients))
                if short == "tpcb":
                    # The database has most of the work here: two programs, and half the time, are enough to see that.
                    case.programs = ["bookend", "pgbouncer"]
                    case.share = 0.5
                if generator_threads(short, mode, clients) > 32:
                    # So many threads log in at once that nobody can tell from outside when they are done.
                    case.count = 6
                found.append(case)
    return found


CASES: list[Case] = [
    *cells(),
    Fair("pg-fair-500", "how evenly 500 clients are served, 20 server connections, one SELECT by key", clients=500),
    Login("pg-connect-c", "a login by SCRAM for each transaction (pgbench -C), one SELECT by key, 8 clients", clients=8,
          threads=8, connect=True),
    Login("pg-logins", "logins by SCRAM alone, nothing is asked, 8 clients", clients=8, threads=8, connect=True,
          script="\\set nothing 0\n"),
    TwoCores("pg-two-threads-32", "two threads (PgBouncer: two processes), all on both cores, one SELECT by key, 32 clients",
             clients=32, threads=2),
    *(AtRate(f"pg-rate-{rate}", f"{rate:,} transactions/s as asked, one SELECT by key, 32 clients", clients=32, rate=rate)
      for rate in (1000, 3000, 6000)),
]
