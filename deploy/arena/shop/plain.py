"""The endpoints that touch no database. Shapes are documented in arena/urls.py."""
import hashlib
import time

from django.conf import settings
from django.http import HttpResponse, JsonResponse

CHUNK_BYTES = 64 * 1024
# Statuses that have no body (RFC 9110 6.4.1).
BODYLESS = (204, 205, 304)


def nodb(request):
    return JsonResponse({"ok": True, "replica": settings.REPLICA_NAME})


def echo(request):
    body = request.body
    raw = request.environ["asgi.scope"]["headers"]
    return JsonResponse(
        {
            "replica": settings.REPLICA_NAME,
            "method": request.method,
            "path": request.path,
            "query": request.META["QUERY_STRING"],
            "headers": dict(request.headers),
            "raw_headers": [[k.decode("latin-1"), v.decode("latin-1")] for k, v in raw],
            "remote_addr": request.META.get("REMOTE_ADDR"),
            "host": request.get_host(),
            "scheme": request.scheme,
            "body_bytes": len(body),
            "body": body[:CHUNK_BYTES].decode("utf-8", "replace"),
        }
    )


def status(request, code):
    if not 200 <= code <= 599:
        return JsonResponse({"error": "a status is 200 to 599"}, status=400)
    time.sleep(float(request.GET.get("delay", 0)))
    if code in BODYLESS:
        return HttpResponse(status=code)
    return JsonResponse({"status": code, "replica": settings.REPLICA_NAME}, status=code)


def upload(request):
    """Hashes the body as it arrives; nothing of it is kept, so memory stays flat."""
    digest, received = hashlib.sha256(), 0
    while chunk := request.read(CHUNK_BYTES):
        digest.update(chunk)
        received += len(chunk)
    declared = request.META.get("CONTENT_LENGTH")
    if declared and received < int(declared):
        return JsonResponse({"error": "body ended early", "bytes": received}, status=400)
    return JsonResponse({"sha256": digest.hexdigest(), "bytes": received})
