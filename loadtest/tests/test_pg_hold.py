"""The holder's SCRAM against RFC 7677's own example, and its message splitter."""
import unittest

from harness import pg_hold
from harness.pg_hold import Refused, Scram

SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


class ScramOfRfc7677(unittest.TestCase):
    """Section 3 of the RFC: user "user", password "pencil"."""

    def setUp(self):
        self.exchange = Scram(b"pencil", nonce=b"rOprNGfwEbeRWgbNEkqO", user=b"user")

    def test_both_messages_are_the_rfcs(self):
        self.assertEqual(self.exchange.first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
        self.assertEqual(
            self.exchange.final(SERVER_FIRST),
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        )
        self.exchange.check(SERVER_FINAL)

    def test_a_server_that_does_not_know_the_password_is_refused(self):
        self.exchange.final(SERVER_FIRST)
        with self.assertRaises(Refused):
            self.exchange.check(b"v=" + b"A" * 43 + b"=")

    def test_a_nonce_that_is_not_ours_continued_is_refused(self):
        for nonce in (b"rOprNGfwEbeRWgbNEkqO", b"somethingElse"):
            with self.assertRaises(Refused):
                self.exchange.final(SERVER_FIRST.replace(b"rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", nonce))


class Frames(unittest.TestCase):
    def test_whole_messages_are_taken_and_the_rest_is_kept(self):
        ready = pg_hold.frame(b"Z", b"I")
        row = pg_hold.frame(b"D", b"\0\1\0\0\0\1" + b"1")
        for cut in range(len(ready), len(ready) + len(row)):
            found, left = pg_hold.frames((ready + row)[:cut])
            self.assertEqual(found, [(b"Z", b"I")])
            self.assertEqual(left, row[:cut - len(ready)])
        self.assertEqual(pg_hold.frames(ready + row), ([(b"Z", b"I"), (b"D", row[5:])], b""))

    def test_the_startup_packet_is_that_of_protocol_3(self):
        packet = pg_hold.startup("u", "d")
        self.assertEqual(int.from_bytes(packet[:4], "big"), len(packet))
        self.assertEqual(packet[4:], b"\0\3\0\0user\0u\0database\0d\0\0")


if __name__ == "__main__":
    unittest.main()
