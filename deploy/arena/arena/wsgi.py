"""The WSGI application: every request that is neither a WebSocket nor a stream.

Django trusts Content-Length alone and would read a chunked body as empty. a2wsgi's input ends by
itself, so for such a request it is handed to Django as it is.
"""
import os

from django import setup
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "arena.settings")


class Request(WSGIRequest):
    """A WSGIRequest that can also read a chunked body."""

    def __init__(self, environ):
        super().__init__(environ)
        chunked = "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()
        if chunked and not environ.get("CONTENT_LENGTH"):
            self._stream = environ["wsgi.input"]


class Handler(WSGIHandler):
    """Django's handler with the request class above."""

    request_class = Request


setup(set_prefix=False)
application = Handler()
