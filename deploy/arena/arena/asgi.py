"""The entry point for uvicorn: one port, three kinds of traffic.

    websocket      -> channels consumers
    /stream/...    -> Django's ASGI handler, async views
    all the rest   -> Django's WSGI handler on a fixed pool of WEB_THREADS threads

Why not all of it on the ASGI handler: there each synchronous request may run on a thread of its
own, and Django keeps database connections per thread, so CONN_MAX_AGE would keep nothing. With a
fixed pool a replica holds exactly WEB_THREADS connections per database and reuses them, which is
what a production replica under gunicorn does.
"""
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "arena.settings")

from arena.wsgi import application as wsgi_application  # noqa: E402  (runs django.setup)

from a2wsgi import WSGIMiddleware  # noqa: E402
from channels.routing import URLRouter  # noqa: E402
from django.conf import settings  # noqa: E402
from django.core.handlers.asgi import ASGIHandler  # noqa: E402
from django.urls import path, re_path  # noqa: E402

from shop import sockets  # noqa: E402

websockets = URLRouter(
    [
        path("ws/echo/", sockets.Echo.as_asgi()),
        path("ws/feed/", sockets.Feed.as_asgi()),
        re_path(r"", sockets.Refuse.as_asgi()),
    ]
)
streams = ASGIHandler()
pages = WSGIMiddleware(wsgi_application, workers=settings.WEB_THREADS)

REPLICA_HEADER = (b"x-replica", settings.REPLICA_NAME.encode("latin-1"))
ANSWER_STARTS = ("http.response.start", "websocket.accept")


def whole(send):
    """Wraps `send` so that an answer's head waits for the first of its body.

    a2wsgi hands over head and body with a change of threads between them, up to milliseconds. A
    process killed in there leaves a head without a body, which no balancer may repeat: something of
    the answer was seen. This brings the two as close as in any uvicorn application, microseconds;
    they remain two writes, so a kill can still fall between them.
    Not for streams, whose head is news by itself.
    """
    head = None

    async def send_whole(message):
        nonlocal head
        if message["type"] == "http.response.start":
            head = message
            return
        if head is not None:
            start, head = head, None
            await send(start)
        await send(message)

    return send_whole


async def application(scope, receive, send):
    """Routes one connection and names this replica on its answer, whoever makes that answer."""

    async def send_named(message):
        if message["type"] in ANSWER_STARTS:
            message["headers"] = [*message.get("headers", ()), REPLICA_HEADER]
        await send(message)

    if scope["type"] == "lifespan":
        await pages(scope, receive, send)
    elif scope["type"] == "websocket":
        await websockets(scope, receive, send_named)
    elif scope["path"].startswith("/stream/"):
        await streams(scope, receive, send_named)
    else:
        await pages(scope, receive, whole(send_named))
