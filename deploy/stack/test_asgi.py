"""The sample project's entry point holds an answer's head until there is something to follow it.

Driven message by message, without a server: how close two writes come is not for a test to time.
"""
import asyncio
import os
import sys
import unittest

from template import ARENA

sys.path.insert(0, str(ARENA))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "arena.settings")

from arena.asgi import whole  # noqa: E402

START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"x", "more_body": True}
END = {"type": "http.response.body", "body": b""}


def sent_after_each(messages):
    """Returns what has gone out in all after each of the messages came in."""
    out, steps = [], []

    async def run():
        async def send(message):
            out.append(message)

        wrapped = whole(send)
        for message in messages:
            await wrapped(message)
            steps.append(list(out))

    asyncio.run(run())
    return steps


class Whole(unittest.TestCase):
    def test_the_head_goes_out_with_the_first_of_the_body(self):
        self.assertEqual(
            sent_after_each([START, BODY, END]), [[], [START, BODY], [START, BODY, END]]
        )

    def test_an_answer_without_a_body_still_gets_its_head(self):
        self.assertEqual(sent_after_each([START, END]), [[], [START, END]])


if __name__ == "__main__":
    unittest.main()
