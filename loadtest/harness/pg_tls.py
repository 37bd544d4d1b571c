"""TLS between clients and the pooler; none to the server, so that only one thing is measured.

The certificate is RSA of 2,048 bits and the protocol TLS 1.3 with what OpenSSL chooses. Who speaks no TLS is found out by trying
(pg_programs.start), and measured the day it does.
"""
from __future__ import annotations

from . import pg_programs
from .case import Case
from .pg_cases import POOL_SIZE, Login, Pgbench


class OverTls(Pgbench):
    """A case of pgbench's with sslmode=require."""


    def start(self, bench, program):
        return pg_programs.start(bench, program, self.server, pool_size=POOL_SIZE, tls=True, server_tls=False)


class LoginOverTls(OverTls, Login):
    """A handshake and a login for each transaction: the key's signature is most of it."""


CASES: list[Case] = [
    OverTls("pg-tls-select-32", "TLS from clients, one SELECT by key, 32 clients on 20 server connections", clients=32),
    LoginOverTls("pg-tls-login", "a TLS handshake and a login by SCRAM for each transaction, 8 clients", clients=8, threads=8,
                 connect=True),
]
