"""What the streaming cases' origin and holders do with bytes, and what the cases make of a holder's or k6's report."""
import asyncio
import unittest

from harness import hold, websocket
from harness.case import SampleFailed
from harness.http_streams import check_events, echoed, events_due


def masked(first: int, payload: bytes, mask: bytes = b"\x01\x02\x03\x04") -> bytes:
    """A client's frame, built byte by byte as RFC 6455 5.3 has it."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + size.to_bytes(2, "big")
    return bytes([first]) + length + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


class WebSocketBytes(unittest.TestCase):
    def test_the_accept_key_is_that_of_rfc_6455_section_1_3(self):
        self.assertEqual(websocket.ACCEPT, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")

    def test_frames_come_back_without_their_mask(self):
        for payload in (b"", b"a", b"hello", b"x" * 125, b"y" * 126, b"z" * 3000):
            answer, rest, closes = websocket.echo(masked(0x81, payload))
            length = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2, "big")
            self.assertEqual((answer, rest, closes), (b"\x81" + length + payload, b"", False))

    def test_a_frame_that_is_cut_anywhere_is_waited_for(self):
        whole = masked(0x82, b"q" * 200) + masked(0x81, b"second")
        expected, _, _ = websocket.echo(whole)
        for cut in range(len(whole)):
            first, rest, _ = websocket.echo(whole[:cut])
            second, rest, _ = websocket.echo(rest + whole[cut:])
            self.assertEqual((first + second, rest), (expected, b""), f"cut at {cut}")

    def test_a_ping_is_answered_by_a_pong_and_a_close_ends_it(self):
        answer, _, closes = websocket.echo(masked(0x89, b"?") + masked(0x88, b"\x03\xe8") + masked(0x81, b"late"))
        self.assertEqual((answer, closes), (b"\x8a\x01?\x88\x02\x03\xe8", True))

    def test_the_holders_own_message_is_echoed_as_it_expects(self):
        self.assertEqual(websocket.echo(websocket.PING_MASKED)[0], websocket.PING_ECHOED)

    def test_only_the_right_101_agrees(self):
        good = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSEC-WebSocket-Accept: " + websocket.ACCEPT
        self.assertTrue(websocket.agrees(good))
        self.assertFalse(websocket.agrees(good.replace(b"s3pP", b"xxxx")))
        self.assertFalse(websocket.agrees(good.replace(b"101", b"200")))


class ChunkedBodies(unittest.TestCase):
    BODY = b"1a\r\ndata: 7 1234567890123456\n\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n"

    def test_a_body_may_be_cut_anywhere(self):
        for cut in range(len(self.BODY)):
            chunks = websocket.Chunks()
            body = chunks.feed(self.BODY[:cut]) + chunks.feed(self.BODY[cut:])
            self.assertEqual(body, b"data: 7 1234567890123456\n\nabc", f"cut at {cut}")
            self.assertTrue(chunks.ended)

    def test_what_is_no_chunk_is_an_error(self):
        for wrong in (b"data: 1\r\n", b"2\r\nabcd\r\n"):
            with self.assertRaises(ValueError):
                websocket.Chunks().feed(wrong)


class Events(unittest.TestCase):
    def test_percentiles_are_of_the_nearest_rank(self):
        ordered = [float(number) for number in range(1, 101)]
        self.assertEqual([hold.percentile(ordered, share) for share in (0.5, 0.99, 1.0)], [50.0, 99.0, 100.0])
        self.assertEqual(hold.percentile([7.0], 0.99), 7.0)
        self.assertIsNone(hold.percentile([], 0.5))

    def read(self, *events: bytes) -> dict:
        """What a stream that brings these events is reported as."""

        async def run():
            holder = hold.Holder(hold.Stream, 0, 1)
            stream = hold.Stream(holder)
            stream.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for event in events:
                stream.data_received(b"%x\r\n%s\r\n" % (len(event), event))
            return holder.report() | {"is open": stream.opened.done()}

        return asyncio.run(run())

    def test_events_in_order_are_counted(self):
        told = self.read(b"data: 1 5\n\n", b"data: 2 6\n\ndata: 3 7\n\n")
        self.assertEqual((told["events"], told["lost"], told["streams"], told["least"]), (3, 0, 1, 3))
        self.assertTrue(told["is open"])

    def test_an_event_in_two_chunks_is_one(self):
        self.assertEqual(self.read(b"data: 1 5\n", b"\ndata: 2 6\n\n")["events"], 2)

    def test_gaps_repetitions_and_damage_are_losses(self):
        for events in ([b"data: 1 5\n\n", b"data: 3 6\n\n"], [b"data: 1 5\n\n", b"data: 1 6\n\n"], [b"data: x\n\n"]):
            self.assertEqual(self.read(*events)["lost"], 1, events)

    def test_a_sample_with_a_loss_or_a_silent_stream_is_refused(self):
        good = {"lost": 0, "streams": 1000, "least": 8}
        check_events(good, 1000, events_due(2.0, 0.2))
        for wrong in ({"lost": 1}, {"streams": 999}, {"least": 4}):
            with self.assertRaises(SampleFailed):
                check_events(good | wrong, 1000, events_due(2.0, 0.2))


class Echoes(unittest.TestCase):
    # Captured from k6 v1.1.0.
    LINE = '{"sockets":64,"messages":19091,"wrong":0,"errors":0,"seconds":2.001}'

    def test_the_line_is_found_among_k6s_others(self):
        self.assertEqual(echoed(f"something else\n{self.LINE}\n", 64)["messages"], 19091)

    def test_errors_and_too_few_sockets_are_refused(self):
        for wrong in (self.LINE.replace('"wrong":0', '"wrong":1'), self.LINE.replace(":64", ":63"), "GoError: no"):
            with self.assertRaises(SampleFailed):
                echoed(wrong, 64)


if __name__ == "__main__":
    unittest.main()
