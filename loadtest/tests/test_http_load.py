"""What wrk, h2load and oha print is read back right, and a run with errors is refused. The texts were printed by them."""
import tempfile
import unittest
from pathlib import Path

from harness import http_load
from harness.case import SampleFailed
from harness.http_programs import filled_in

WRK = """Running 2s test @ http://127.0.0.1:20989/small
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.22ms    1.02ms  15.95ms   93.00%
    Req/Sec    44.05k     4.72k   53.10k    60.00%
  Latency Distribution
     50%    0.96ms
     75%    1.27ms
     90%    1.89ms
     99%    5.63ms
  87908 requests in 2.00s, 20.88MB read
Requests/sec:  43907.63
Transfer/sec:     10.43MB
"""
WRK_CLOSED = """Running 1s test @ http://127.0.0.1:19999/small
  1 threads and 4 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     0.00us    0.00us   0.00us    -nan%
    Req/Sec     0.00      0.00     0.00      -nan%
  Latency Distribution
     50%    0.00us
     75%    0.00us
     90%    0.00us
     99%    0.00us
  0 requests in 1.02s, 0.00B read
  Socket errors: connect 0, read 2619, write 0, timeout 0
Requests/sec:      0.00
Transfer/sec:       0.00B
"""
WRK_NOT_FOUND = """Running 1s test @ http://127.0.0.1:28248/nope
  1 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.12ms    2.57ms  16.15ms   85.68%
    Req/Sec     5.87k     2.35k   10.36k    70.00%
  Latency Distribution
     50%    0.92ms
     75%    3.18ms
     90%    5.70ms
     99%   11.49ms
  5854 requests in 1.00s, 1.72MB read
  Non-2xx or 3xx responses: 5854
Requests/sec:   5830.56
Transfer/sec:      1.71MB
"""
H2LOAD = """starting benchmark...
spawning thread #0: 8 total client(s). Timing-based test with 0.2s of warm-up time and 1s of main duration for measurements.
TLS Protocol: TLSv1.3
Cipher: TLS_AES_128_GCM_SHA256
Negotiated Group: x25519
Resumption: no
Application protocol: h2
Main benchmark duration is over for thread #0. Stopping all clients.

finished in 1.21s, 9475.00 req/s, 1.83MB/s
requests: 9475 total, 9475 started, 9475 done, 9475 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 9475 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 1.83MB (1922900) total, 970.56KB (993858) headers (space savings 41.01%), 1.12MB (1170000) data
                 min         max         median      p95         p99         mean        sd         +/- sd
request     :     8.85ms     54.86ms     26.25ms     39.62ms     47.51ms     26.13ms      8.50ms    66.59%
connect     :        0us         0us         0us         0us         0us         0us         0us     0.00%
"""
H2LOAD_NOT_FOUND = """Application protocol: h2c
finished in 506.80ms, 1958.00 req/s, 422.77KB/s
requests: 979 total, 987 started, 979 done, 0 succeeded, 979 failed, 0 errored, 0 timeout
status codes: 0 2xx, 0 3xx, 979 4xx, 0 5xx
request     :      134us     12.05ms      4.19ms      8.10ms     11.58ms      4.04ms      2.54ms    62.41%
"""
# A server that does not know HTTP/2.
H2LOAD_SILENT = """Application protocol: h2c
finished in 507.68ms, 0.00 req/s, 1.61KB/s
requests: 0 total, 8 started, 0 done, 0 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 0 2xx, 0 3xx, 0 4xx, 0 5xx
request     :        0us         0us         0us         0us         0us         0us         0us     0.00%
"""
OHA = """{
  "summary": {
    "successRate": 1.0,
    "total": 2.006971059,
    "slowest": 0.118222071,
    "requestsPerSec": 2490.3199164667176
  },
  "latencyPercentiles": {
    "p10": 0.002059124,
    "p50": 0.016522855,
    "p99": 0.110115477,
    "p99.9": 0.117172003,
    "p99.99": 0.118222071
  },
  "statusCodeDistribution": {
    "200": 4998
  },
  "errorDistribution": {}
}"""
OHA_REFUSED = """{
  "summary": { "successRate": 0.0, "total": 0.01, "requestsPerSec": 300.0 },
  "latencyPercentiles": { "p50": null, "p99": null, "p99.9": null },
  "statusCodeDistribution": {},
  "errorDistribution": { "Connection refused (os error 111)": 3 }
}"""
OHA_NOT_FOUND = """{
  "summary": { "successRate": 1.0, "total": 0.024566796, "requestsPerSec": 203.5267439840344 },
  "latencyPercentiles": { "p50": 0.002208846, "p99": 0.007678679, "p99.9": 0.007678679 },
  "statusCodeDistribution": { "404": 5 },
  "errorDistribution": {}
}"""


class Wrk(unittest.TestCase):
    def test_reads_requests_time_and_percentiles(self):
        seen = http_load.parse_wrk(WRK)
        self.assertEqual((seen.requests, seen.seconds, seen.p50, seen.p99), (87908, 2.0, 0.96, 5.63))
        self.assertEqual(seen.rate, 43954)

    def test_refuses_broken_connections(self):
        with self.assertRaisesRegex(SampleFailed, "read 2619"):
            http_load.parse_wrk(WRK_CLOSED)

    def test_refuses_other_answers_than_2xx(self):
        with self.assertRaisesRegex(SampleFailed, "5854"):
            http_load.parse_wrk(WRK_NOT_FOUND)

    def test_refuses_text_that_is_cut_off(self):
        with self.assertRaisesRegex(SampleFailed, "did not say"):
            http_load.parse_wrk(WRK[: WRK.index("87908")])


class H2load(unittest.TestCase):
    def test_reads_requests_time_and_percentiles(self):
        seen = http_load.parse_h2load(H2LOAD, "h2")
        self.assertEqual((seen.requests, seen.seconds, seen.p50, seen.p99), (9475, 1.21, 26.25, 47.51))

    def test_refuses_another_protocol_than_asked_for(self):
        with self.assertRaisesRegex(SampleFailed, "spoke h2, not http/1.1"):
            http_load.parse_h2load(H2LOAD, "http/1.1")

    def test_refuses_other_answers_than_2xx(self):
        with self.assertRaisesRegex(SampleFailed, "979 failed"):
            http_load.parse_h2load(H2LOAD_NOT_FOUND, "h2c")

    def test_refuses_a_run_without_answers(self):
        with self.assertRaisesRegex(SampleFailed, "no request was answered"):
            http_load.parse_h2load(H2LOAD_SILENT, "h2c")


class Oha(unittest.TestCase):
    def test_reads_requests_time_and_percentiles_in_ms(self):
        seen = http_load.parse_oha(OHA, 2500)
        self.assertEqual((seen.requests, round(seen.p50, 3), round(seen.p99, 3)), (4998, 16.523, 110.115))
        self.assertEqual(round(seen.p999, 3), 117.172)

    def test_refuses_a_rate_that_was_not_reached(self):
        with self.assertRaisesRegex(SampleFailed, "2,490 requests/s of 5,000"):
            http_load.parse_oha(OHA, 5000)

    def test_refuses_errors(self):
        with self.assertRaisesRegex(SampleFailed, "Connection refused"):
            http_load.parse_oha(OHA_REFUSED)

    def test_refuses_other_answers_than_2xx(self):
        with self.assertRaisesRegex(SampleFailed, "404"):
            http_load.parse_oha(OHA_NOT_FOUND)

    def test_refuses_what_is_no_json(self):
        with self.assertRaisesRegex(SampleFailed, "oha"):
            http_load.parse_oha("Error: no such file")


class Durations(unittest.TestCase):
    def test_every_unit_becomes_milliseconds(self):
        self.assertEqual([http_load.milliseconds(text) for text in ("870us", "1.22ms", "1.02s", "2m")],
                         [0.87, 1.22, 1020.0, 120000.0])


class Templates(unittest.TestCase):
    def test_marked_lines_stay_where_they_apply_and_names_get_their_values(self):
        with tempfile.TemporaryDirectory() as folder:
            template = Path(folder) / "some.in"
            template.write_text("# @PORT@ is filled in\nlisten @PORT@;\n@tls@listen @TLS@;\n@nolog@quiet;\n@log@loud;\n")
            values = {"PORT": 80, "TLS": 443}
            plain = filled_in(template, values, {"nolog"})
            both = filled_in(template, values, {"log", "tls"})
        self.assertEqual(plain, "# @PORT@ is filled in\nlisten 80;\nquiet;\n")
        self.assertEqual(both, "# @PORT@ is filled in\nlisten 80;\nlisten 443;\nloud;\n")

    def test_a_name_without_a_value_is_an_error(self):
        with tempfile.TemporaryDirectory() as folder:
            template = Path(folder) / "some.in"
            template.write_text("listen @PORT@;\n")
            with self.assertRaisesRegex(ValueError, "some.in.*@PORT@"):
                filled_in(template, {}, set())


if __name__ == "__main__":
    unittest.main()
