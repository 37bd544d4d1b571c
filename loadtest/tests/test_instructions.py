"""The reader of callgrind's files, on pieces of a real one; totals are what the lines add up to."""
import unittest
from collections import Counter

from harness import callgrind

REGISTRY = "/cargo/registry/src/index.crates.io-1949cf8c6b5b557f"
# Cut from a dump of callgrind 3.19 after 2,000 requests: names are written out where they occur first.
DUMP = f"""\
# callgrind format
version: 1
creator: callgrind-3.19.0
pid: 22700
cmd:  target/release/bookend run --lb lb.yaml
part: 3

desc: Trigger: dump b

positions: line
events: Ir
summary: 214586219


ob=(7) /build/bookend/target/release/bookend
fl=(849) /build/bookend/src/proxy/forward.rs
fn=(9234) bookend::proxy::forward::address_value
120 20000
fi=(243) /rustc/4d91de4e48198da2e33413efdcd9cd2cc0c46688/library/alloc/src/raw_vec/mod.rs
-69 12000
cob=(7)
cfi=(174) {REGISTRY}/libmimalloc-sys-0.1.49/c_src/mimalloc/v3/src/alloc-aligned.c
cfn=(1296) mi_malloc_aligned
calls=4000 409
* 161526
fe=(849)
123 12000
cfi=(787) {REGISTRY}/bytes-1.12.2/src/bytes.rs
cfn=(8288) bytes::bytes::Bytes::copy_from_slice
calls=4000 347
* 348324
jump=4 12
fi=(234) {REGISTRY}/http-1.5.0/src/header/value.rs
805 4000

fl=(174)
fn=(1296)
409 88000
* 12000

fl=(787)
fn=(8288)
347 60000
cfi=(174)
cfn=(1296)
calls=10 409
* 500
cfn=(8288)
calls=2 347
+4 700
"""


class Parse(unittest.TestCase):
    def setUp(self):
        self.profile = callgrind.parse(DUMP)

    def test_own_counts_are_the_plain_lines(self):
        expected = Counter({
            "bookend::proxy::forward::address_value": 20000 + 12000 + 12000 + 4000,
            "mi_malloc_aligned": 88000 + 12000,
            "bytes::bytes::Bytes::copy_from_slice": 60000,
        })
        self.assertEqual(self.profile.exclusive, expected)
        self.assertEqual(self.profile.total, sum(expected.values()))

    def test_what_was_called_is_in_the_callers_inclusive_count_alone(self):
        inclusive = self.profile.inclusive
        self.assertEqual(inclusive["bookend::proxy::forward::address_value"], 48000 + 161526 + 348324)
        self.assertEqual(inclusive["mi_malloc_aligned"], 100000)
        self.assertEqual(self.profile.calls["mi_malloc_aligned"], 4010)

    def test_a_function_that_calls_itself_is_not_counted_twice(self):
        self.assertEqual(self.profile.inclusive["bytes::bytes::Bytes::copy_from_slice"], 60000 + 500)

    def test_inlined_lines_count_for_the_file_they_stand_in(self):
        self.assertEqual(callgrind.own_files(self.profile), Counter({"src/proxy/forward.rs": 20000 + 12000}))
        self.assertEqual(
            callgrind.by_crate(self.profile),
            Counter({"bookend": 32000, "rust": 12000, "http": 4000, "libmimalloc-sys": 100000, "bytes": 60000}),
        )


class Names(unittest.TestCase):
    def test_a_source_file_belongs_to_somebody(self):
        for path, whose in [
            ("src/pool/relay/drive.rs", "bookend"),
            ("/build/bookend/src/proxy/gateway.rs", "bookend"),
            (f"{REGISTRY}/pingora-core-0.9.1/src/protocols/l4/stream.rs", "pingora-core"),
            (f"{REGISTRY}/md-5-0.11.0/src/lib.rs", "md-5"),
            (f"{REGISTRY}/hashbrown-0.16.1/src/raw.rs", "rust"),
            ("/rustc/4d91de4e48198da2e33413efdcd9cd2cc0c46688/library/core/src/ptr/mod.rs", "rust"),
            ("./string/../sysdeps/x86_64/multiarch/memmove-vec-unaligned-erms.S", "libc"),
            ("???", "libc"),
        ]:
            self.assertEqual(callgrind.crate(path), whose, path)

    def test_methods_behind_a_trait_are_ours_too(self):
        self.assertTrue(callgrind.is_ours("<bookend::proxy::gateway::Gateway as pingora_proxy::ProxyHttp>::logging"))
        self.assertTrue(callgrind.is_ours("bookend::proxy::route::decoded"))
        self.assertFalse(callgrind.is_ours("tokio::runtime::task::raw::poll"))

    def test_symbols_are_cut_for_a_table(self):
        self.assertEqual(callgrind.short("a::b::{{closure}}::{{closure}}::h0123456789abcdef"), "a::b::{closure}")
        self.assertEqual(callgrind.short("x" * 200), "x" * 70 + "…" + "x" * 39)


if __name__ == "__main__":
    unittest.main()
