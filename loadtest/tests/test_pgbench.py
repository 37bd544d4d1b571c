"""What pgbench 18.6 prints and logs is read right, and what it does not print is an error. The texts are real ones."""
import unittest

from harness import pgbench
from harness.case import SampleFailed

SATURATED = """\
pgbench (18.6 (Debian 18.6-3))
transaction type: <builtin: select only>
scaling factor: 10
query mode: simple
number of clients: 2
number of threads: 1
maximum number of tries: 1
number of transactions per client: 5
number of transactions actually processed: 10/10
number of failed transactions: 0 (0.000%)
latency average = 6.027 ms
initial connection time = 20.848 ms
tps = 331.829042 (without initial connection time)
"""
AT_RATE = """\
pgbench (18.6 (Debian 18.6-3))
transaction type: <builtin: select only>
scaling factor: 10
query mode: simple
number of clients: 4
number of threads: 1
maximum number of tries: 1
duration: 3600 s
number of transactions actually processed: 82
number of failed transactions: 0 (0.000%)
latency average = 2.902 ms
latency stddev = 4.596 ms
rate limit schedule lag: avg 0.287 (max 3.205) ms
initial connection time = 38.274 ms
tps = 77.624685 (without initial connection time)
"""
CONNECTING = """\
pgbench (18.6 (Debian 18.6-3))
transaction type: <builtin: select only>
scaling factor: 10
query mode: simple
number of clients: 2
number of threads: 1
maximum number of tries: 1
duration: 3600 s
number of transactions actually processed: 78
number of failed transactions: 0 (0.000%)
latency average = 23.777 ms
average connection time = 11.790 ms
tps = 84.113540 (including reconnection times)
"""
NOTHING_DONE = """\
pgbench (18.6 (Debian 18.6-3))
transaction type: <builtin: select only>
scaling factor: 10
query mode: prepared
number of clients: 500
number of threads: 1
maximum number of tries: 1
duration: 12 s
number of transactions actually processed: 0
"""
ABORTED = """\
pgbench (18.6 (Debian 18.6-3))
pgbench: error: client 0 script 0 aborted in command 0 query 0: ERROR:  division by zero
pgbench: error: client 1 script 0 aborted in command 0 query 0: ERROR:  division by zero
transaction type: script.sql
scaling factor: 1
query mode: simple
number of clients: 2
number of threads: 1
maximum number of tries: 1
number of transactions per client: 3
number of transactions actually processed: 0/6
pgbench: error: Run was aborted; the above results are incomplete.
"""
REFUSED = """\
pgbench: error: connection to server at "127.0.0.1", port 23829 failed: FATAL:  SASL authentication failed
pgbench: error: could not create connection for setup
"""
LOG = """\
0 1 2641 0 1795456491 569711
1 1 5721 0 1795456491 572830
0 2 3685 0 1795456491 573418
1 2 820 0 1795456491 573665
0 3 1034 0 1795456491 574458
"""
# With --rate there is one more column: how late the transaction began.
LOG_AT_RATE = """\
0 1 6342 0 1795456491 730904 98
1 1 994 0 1795456491 764451 105
"""


def transactions(*ended: float, took: int = 1000) -> list[pgbench.Transaction]:
    return [pgbench.Transaction(0, at, took) for at in ended]


class Summaries(unittest.TestCase):
    def test_a_saturated_run(self):
        found = pgbench.parse_summary(SATURATED)
        self.assertEqual(found, pgbench.Summary(10, 0, 331.829042, 6.027, None, None))

    def test_a_run_at_a_rate_has_a_lag(self):
        self.assertEqual(pgbench.parse_summary(AT_RATE), pgbench.Summary(82, 0, 77.624685, 2.902, None, 0.287))

    def test_a_login_for_each_transaction_has_a_time(self):
        self.assertEqual(pgbench.parse_summary(CONNECTING), pgbench.Summary(78, 0, 84.11354, 23.777, 11.79, None))

    def test_failed_transactions_are_counted(self):
        said = SATURATED.replace("failed transactions: 0 (0.000%)", "failed transactions: 3 (23.077%)")
        self.assertEqual(pgbench.parse_summary(said).failed, 3)

    def test_no_transaction_is_no_result(self):
        with self.assertRaisesRegex(SampleFailed, "no result"):
            pgbench.parse_summary(NOTHING_DONE)


class Ends(unittest.TestCase):
    def test_a_whole_run_passes(self):
        pgbench.check(0, SATURATED, log="")

    def test_aborted_clients_fail_the_sample_with_the_reason_and_the_log(self):
        with self.assertRaisesRegex(SampleFailed, r"(?s)code 2: .*division by zero.*what the pooler wrote"):
            pgbench.check(2, ABORTED, log="what the pooler wrote")

    def test_an_aborted_client_fails_the_sample_whatever_the_code(self):
        with self.assertRaisesRegex(SampleFailed, "division by zero"):
            pgbench.check(0, ABORTED, log="")

    def test_a_refused_login_fails_the_sample(self):
        with self.assertRaisesRegex(SampleFailed, "SASL authentication failed"):
            pgbench.check(1, REFUSED, log="")

    def test_a_death_without_a_word_fails_the_sample(self):
        with self.assertRaisesRegex(SampleFailed, "code -9"):
            pgbench.check(-9, "", log="")


class Logs(unittest.TestCase):
    def test_who_when_and_how_long(self):
        found = pgbench.parse_log(LOG)
        self.assertEqual([(one.client, one.took) for one in found], [(0, 2641), (1, 5721), (0, 3685), (1, 820), (0, 1034)])
        self.assertAlmostEqual(found[0].ended, 1795456491.569711, places=6)

    def test_the_lag_of_a_run_at_a_rate_is_not_the_latency(self):
        self.assertEqual([one.took for one in pgbench.parse_log(LOG_AT_RATE)], [6342, 994])

    def test_a_skipped_transaction_fails_the_sample(self):
        with self.assertRaisesRegex(SampleFailed, "skipped"):
            pgbench.parse_log("0 1 skipped 0 1795456491 730904 98\n")

    def test_a_client_that_was_never_served_is_counted(self):
        run = pgbench.Run(pgbench.parse_summary(SATURATED), pgbench.parse_log(LOG), [], None, clients=3)
        self.assertEqual(run.served(), [0, 2, 3])


class Figures(unittest.TestCase):
    def test_percentiles_are_values_that_were_measured(self):
        values = list(range(1, 101))
        self.assertEqual([pgbench.percentile(values, share) for share in (0.5, 0.99, 1.0)], [50, 99, 100])
        self.assertEqual(pgbench.percentile([7], 0.99), 7)

    def test_the_rate_counts_from_the_first_begin_to_the_last_end(self):
        # The first began 1 ms before it ended.
        self.assertAlmostEqual(pgbench.rate(transactions(10.001, 10.5, 11.0)), 3.0)

    def test_cpu_of_logging_in_and_leaving_is_not_the_transactions(self):
        run = transactions(10.1, 10.2, 10.3, 10.4, 10.5)
        readings = [
            pgbench.Reading(9.0, 0.0),  # clients log in until 10
            pgbench.Reading(10.15, 5.0),
            pgbench.Reading(10.45, 5.0003),  # three transactions later
            pgbench.Reading(10.6, 7.0),  # they have left
        ]
        self.assertAlmostEqual(pgbench.cpu_per_transaction(run, readings), 100.0)

    def test_there_is_no_cpu_figure_from_a_single_reading(self):
        self.assertIsNone(pgbench.cpu_per_transaction(transactions(10.1, 10.5), [pgbench.Reading(10.3, 5.0)]))

    def test_without_a_pooler_there_is_no_cpu_figure(self):
        self.assertIsNone(pgbench.cpu_per_transaction(transactions(10.1, 10.5), []))


if __name__ == "__main__":
    unittest.main()
