"""Answers that take a while, piece by piece. Shapes are documented in arena/urls.py."""
import asyncio
import itertools
import json

from django.conf import settings
from django.http import StreamingHttpResponse

# A multiple of 256, so that every chunk begins where the pattern does.
CHUNK = bytes(range(256)) * 256


async def server_sent_events(request):
    number = int(request.GET.get("n", 10))
    interval = float(request.GET.get("interval", 0.2))

    async def events():
        for k in range(1, number + 1) if number else itertools.count(1):
            if k > 1:
                await asyncio.sleep(interval)
            data = json.dumps({"n": k, "replica": settings.REPLICA_NAME})
            yield f"id: {k}\ndata: {data}\n\n".encode()

    return StreamingHttpResponse(
        events(),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def some_bytes(request):
    size = int(request.GET.get("size", 1 << 20))
    interval = float(request.GET.get("interval", 0))

    async def chunks():
        left = size
        while left > 0:
            yield CHUNK[: min(left, len(CHUNK))]
            left -= len(CHUNK)
            if interval and left > 0:
                await asyncio.sleep(interval)

    response = StreamingHttpResponse(chunks(), content_type="application/octet-stream")
    if request.GET.get("length"):
        response["Content-Length"] = size
    return response
