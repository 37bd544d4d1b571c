"""TLS towards clients, and HTTP/2 with and without it. The upstream is plain HTTP/1.1 everywhere.

Certificate: EC P-256. Every client offers TLS 1.3 with X25519 and AES-128-GCM alone, so that all programs do the same work;
left to themselves they would choose differently (a post-quantum exchange here, AES-256 there).
"""
from __future__ import annotations

from . import http_load as load
from .case import CPU, RATE, Case, NotOffered, SampleFailed
from .http_cases import BUSY, WARM_UP_SECONDS, Http
from .http_programs import Proxy, certificate, start
from .machine import root_folder

# OpenSSL reads it on behalf of wrk, which has no options for this.
CLIENT = """openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = client
[client]
MinProtocol = TLSv1.3
Groups = X25519
Ciphersuites = TLS_AES_128_GCM_SHA256
"""
SAME_CHOICE = ["--groups=X25519", "--tls13-ciphers=TLS_AES_128_GCM_SHA256"]
# New connections per sample, all begun at once.
HANDSHAKES = 1000


class Tls(Http):
    """Programs with a TLS listener. Bookend raises NotOffered from `start` for as long as its configuration has none."""

    def open(self, bench) -> None:
        super().open(bench)
        self.certificate = bench.enter(certificate())
        outside, inside = bench.enter(root_folder("client"))
        (outside / "openssl.cnf").write_text(CLIENT)
        self.client = {"OPENSSL_CONF": str(inside / "openssl.cnf")}

    def start(self, bench, program: str):
        return start(bench, program, self.upstream, certificate=self.certificate, connections=self.held)


class KeepAlive(Tls):
    name = "http-tls-64"
    title = "100-byte answers over TLS 1.3, 64 keep-alive connections"

    def send(self, proxy: Proxy, seconds: float) -> load.Load:
        return load.wrk(f"https://127.0.0.1:{proxy.tls_port}/small", self.connections, seconds, env=self.client)


class Handshakes(Tls):
    """By h2load: wrk and oha resume their sessions. CPU stands first: the client's half of a handshake costs more than the
    server's, so the generator is what is busy."""

    name = "http-tls-handshakes"
    title = f"{HANDSHAKES:,} clients at once, each a full TLS 1.3 handshake and one request over HTTP/1.1"
    figures = [CPU, RATE, BUSY]
    connections = HANDSHAKES
    held = 4 * HANDSHAKES

    def send(self, proxy: Proxy, seconds: float) -> load.Load:
        url = f"https://127.0.0.1:{proxy.tls_port}/small"
        options = ["--h1", "-n", HANDSHAKES, "-c", HANDSHAKES, *SAME_CHOICE]
        return load.h2load(url, "http/1.1", options, seconds)


class Http2(Tls):
    name = "http-h2"
    title = "100-byte answers over HTTP/2 and TLS 1.3, 8 connections of 32 streams"
    connections = 8
    streams = 32

    def send(self, proxy: Proxy, seconds: float) -> load.Load:
        url = f"https://127.0.0.1:{proxy.tls_port}/small"
        options = ["-D", f"{round(seconds * 1000)}ms", "-c", self.connections, "-m", self.streams, *SAME_CHOICE]
        return load.h2load(url, "h2", options, seconds)


class PriorKnowledge(Http):
    name = "http-h2c"
    title = "100-byte answers over HTTP/2 without TLS (prior knowledge), 8 connections of 32 streams"
    connections = 8
    streams = 32

    def send(self, proxy: Proxy, seconds: float) -> load.Load:
        options = ["-D", f"{round(seconds * 1000)}ms", "-c", self.connections, "-m", self.streams]
        return load.h2load(f"http://127.0.0.1:{proxy.port}/small", "h2c", options, seconds)

    def warm_up(self, bench, program: str, running: Proxy) -> None:
        """A program that does not answer the first requests in HTTP/2 does not know it here."""
        url = f"http://127.0.0.1:{running.port}/small"
        options = ["-n", 4 * self.streams, "-c", self.connections, "-m", self.streams, "-N", "5s"]
        try:
            load.h2load(url, "h2c", options, WARM_UP_SECONDS)
        except SampleFailed as failed:
            raise NotOffered(f"HTTP/2 by prior knowledge is not answered ({failed})") from failed


CASES: list[Case] = [KeepAlive(), Handshakes(), Http2(), PriorKnowledge()]
