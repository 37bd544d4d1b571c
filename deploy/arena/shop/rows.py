"""The endpoints that use the database. Shapes are documented in arena/urls.py."""
import json
import math
import time

from django.conf import settings
from django.db import DatabaseError, connection, connections, router, transaction
from django.db.models import F
from django.http import Http404, JsonResponse
from django.views.decorators.http import require_GET, require_http_methods

from shop.models import Counter, Item, Order

PAGE_SIZE = 50


@require_GET
def health(request):
    answer = {"status": "ok", "replica": settings.REPLICA_NAME}
    if settings.HEALTH_IGNORES_DATABASE:
        return JsonResponse(answer)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            answer["database"] = cursor.fetchone() == (1,)
    except DatabaseError as error:
        connection.close()
        answer.update(status="error", database=False, error=type(error).__name__)
    return JsonResponse(answer, status=200 if answer["database"] else 503)


def item_json(item: Item) -> dict:
    return {
        "id": item.id,
        "name": item.name,
        "price_cents": item.price_cents,
        "sold": item.sold,
        "category_id": item.category_id,
    }


@require_GET
def item(request, item_id):
    try:
        return JsonResponse(item_json(Item.objects.get(pk=item_id)))
    except Item.DoesNotExist:
        raise Http404(f"no item {item_id}")


@require_GET
def items(request):
    count = Item.objects.count()
    pages = max(1, math.ceil(count / PAGE_SIZE))
    page = min(max(1, int(request.GET.get("page", 1))), pages)
    start = (page - 1) * PAGE_SIZE
    rows = Item.objects.select_related("category")[start : start + PAGE_SIZE]
    listed = [item_json(row) | {"category": row.category.name} for row in rows]
    return JsonResponse({"page": page, "pages": pages, "count": count, "items": listed})


def order_json(order: Order) -> dict:
    return {
        "id": order.id,
        "item": order.item_id,
        "quantity": order.quantity,
        "total_cents": order.total_cents,
        "reference": order.reference,
    }


@require_http_methods(["GET", "POST"])
def orders(request):
    if request.method == "POST":
        return JsonResponse(order_json(place_order(json.loads(request.body or b"{}"))), status=201)
    found = Order.objects.all()
    if "reference" in request.GET:
        found = found.filter(reference=request.GET["reference"])
    listed = [order_json(row) for row in found[:PAGE_SIZE]]
    return JsonResponse({"count": found.count(), "orders": listed})


def place_order(wanted: dict) -> Order:
    """Writes the order and the item's count of sales, both or neither."""
    quantity = int(wanted.get("quantity", 1))
    with transaction.atomic():
        item = Item.objects.get(pk=int(wanted.get("item", 1)))
        order = Order.objects.create(
            item=item,
            quantity=quantity,
            total_cents=item.price_cents * quantity,
            reference=str(wanted.get("reference", "")),
        )
        Item.objects.filter(pk=item.pk).update(sold=F("sold") + quantity)
    return order


@require_http_methods(["GET", "POST"])
def counter(request, name):
    if request.method == "POST":
        value = increment(name, int(request.GET.get("by", 1)))
    else:
        value = Counter.objects.filter(name=name).values_list("value", flat=True).first() or 0
    return JsonResponse({"name": name, "value": value})


def increment(name: str, by: int) -> int:
    """Reads, adds in Python and writes back: only the row lock keeps two of these apart."""
    with transaction.atomic():
        Counter.objects.bulk_create([Counter(name=name)], ignore_conflicts=True)
        row = Counter.objects.select_for_update().get(name=name)
        row.value += by
        row.save(update_fields=["value"])
    return row.value


@require_GET
def slow(request):
    seconds = float(request.GET.get("seconds", 1))
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
        if request.GET.get("idle"):
            time.sleep(seconds)
        else:
            cursor.execute("SELECT pg_sleep(%s)", [seconds])
        cursor.execute("SELECT pg_backend_pid()")
        if cursor.fetchone() != (pid,):
            raise RuntimeError("the transaction changed its server connection")
    return JsonResponse({"slept": seconds, "pid": pid, "replica": settings.REPLICA_NAME})


@require_GET
def backend_pid(request):
    choose = router.db_for_write if request.GET.get("write") else router.db_for_read
    alias = choose(Item)
    with connections[alias].cursor() as cursor:
        cursor.execute(
            "SELECT pg_backend_pid(), pg_is_in_recovery(), current_database(), current_user,"
            " current_setting('statement_timeout'), current_setting('application_name')"
        )
        pid, in_recovery, database, user, timeout, application = cursor.fetchone()
    return JsonResponse(
        {
            "pid": pid,
            "alias": alias,
            "role": "replica" if in_recovery else "primary",
            "database": database,
            "user": user,
            "statement_timeout": timeout,
            "application_name": application,
            "replica": settings.REPLICA_NAME,
        }
    )
