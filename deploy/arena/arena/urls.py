"""What the sample project answers. Names and shapes are stable: tests and load scripts use them.

Every answer carries `X-Replica: NAME` (the environment's REPLICA_NAME), WebSocket handshakes too.
All bodies are JSON unless said otherwise. An exception in a view is a 500 with {"error": TEXT}.

Database
    GET  /health/              SELECT 1 on the primary: 200 {"status":"ok",...} or 503
                               (always 200 with HEALTH_IGNORES_DATABASE=1)
    GET  /api/items/<id>/      one row; ids 1..=5000, price_cents = 100 + id*37 % 9900; or 404
    GET  /api/items/?page=     50 rows with their category (a join), {"page","pages","count","items"}
    GET  /api/orders/?reference=   {"count","orders"} of one reference, or the newest 50 of all
    POST /api/orders/          {"item","quantity","reference"} (all optional): writes two tables in
                               a transaction, 201 with the row
    GET  /api/counter/<name>/  {"name","value"}; 0 for one that was never incremented
    POST /api/counter/<name>/  increments under SELECT FOR UPDATE (?by=N), same answer
    GET  /api/slow/?seconds=   sleeps in a transaction: in PostgreSQL (pg_sleep), or, with ?idle=1,
                               in Python with the transaction open. {"slept","pid"}
    GET  /api/orm/             transactions, savepoints, bulk_create, locks, rollback, each checked:
                               {"ok","checks":[{"name","ok","error"}]}, 500 when one fails
    GET  /api/pid/             {"pid","alias","role","database","user","statement_timeout",
                               "application_name"} of the connection a read gets; ?write=1: the one a write gets.
                               role is "primary" or "replica" (pg_is_in_recovery)
No database
    GET  /nodb/                {"ok":true,"replica"}
    any  /echo/                {"method","path","query","headers","raw_headers","remote_addr",
                               "host","scheme","body_bytes","body"}: headers as Django sees them,
                               raw_headers as [name, value] pairs as they came in
    any  /status/<code>/       answers with that status (200-599); ?delay=SECONDS before it
    POST /upload/              reads the body in chunks of 64 KiB: {"sha256","bytes"}; 400 when it
                               ended before its Content-Length. Chunked bodies too
Streams (async, each piece flushed)
    GET  /stream/sse/?n=&interval=    n events (default 10; 0 = without end), every interval seconds
                               (default 0.2): `id: K`, `data: {"n":K,"replica":NAME}`
    GET  /stream/bytes/?size=&interval=   size bytes (default 1 MiB) in chunks of 64 KiB, byte i is
                               i % 256; ?length=1 declares Content-Length, else chunked
WebSockets
    /ws/echo/                  sends {"replica":NAME}, then answers a text message with
                               {"replica":NAME,"echo":TEXT} and a binary one with itself;
                               the text "close:CODE" closes with that code
    /ws/feed/?interval=&n=     {"replica":NAME,"n":K}, K = 1.., every interval seconds (default
                               0.2); after n of them (default: never) closes with 1000
"""
from django.urls import path

from shop import orm_checks, plain, rows, streams

urlpatterns = [
    path("health/", rows.health),
    path("api/items/", rows.items),
    path("api/items/<int:item_id>/", rows.item),
    path("api/orders/", rows.orders),
    path("api/counter/<str:name>/", rows.counter),
    path("api/slow/", rows.slow),
    path("api/pid/", rows.backend_pid),
    path("api/orm/", orm_checks.view),
    path("nodb/", plain.nodb),
    path("echo/", plain.echo),
    path("status/<int:code>/", plain.status),
    path("upload/", plain.upload),
    path("stream/sse/", streams.server_sent_events),
    path("stream/bytes/", streams.some_bytes),
]
