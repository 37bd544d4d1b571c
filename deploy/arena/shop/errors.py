"""An exception in a view becomes JSON, so that a failing test shows why and not a page."""
import logging

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import Http404, JsonResponse

log = logging.getLogger(__name__)


class JsonErrors:
    """Middleware for both handlers: it only looks at exceptions, so it adapts nothing."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response):
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request):
        return self.get_response(request)

    def process_exception(self, request, exception):
        if isinstance(exception, Http404):
            return JsonResponse({"error": str(exception)}, status=404)
        log.error("%s %s", request.method, request.path, exc_info=exception)
        return JsonResponse({"error": f"{type(exception).__name__}: {exception}"}, status=500)
