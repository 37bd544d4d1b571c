"""/api/orm/: what Django's ORM asks of a database connection, each claim checked by itself.

Meant to be run through a transaction pool, beside many neighbours: a check fails when a statement
of one transaction reached another server connection, when a setting leaked, or a lock did not hold.
"""
import threading
import uuid

from django.db import DatabaseError, IntegrityError, connection, connections, transaction
from django.db.models import F, Sum
from django.http import JsonResponse

from shop.models import Item, Note

BULK_ROWS = 2000
CHECKS = []


class Undo(Exception):
    """Raised to leave an atomic block by rollback."""


def check(function):
    CHECKS.append(function)
    return function


def expect(actual, wanted):
    if actual != wanted:
        raise AssertionError(f"expected {wanted!r}, got {actual!r}")


def one(sql: str):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def notes(tag: str):
    """Reads where the writes went, whatever the router says about reads."""
    return Note.objects.using("default").filter(tag=tag)


@check
def transaction_commits_on_one_connection(tag):
    with transaction.atomic():
        pid = one("SELECT pg_backend_pid()")
        Note.objects.create(tag=tag, number=1)
        Note.objects.create(tag=tag, number=2)
        expect(one("SELECT pg_backend_pid()"), pid)
        # Through the router: in a transaction it must not send reads elsewhere.
        expect(Note.objects.filter(tag=tag).count(), 2)
    expect(notes(tag).count(), 2)


@check
def rollback_leaves_nothing(tag):
    try:
        with transaction.atomic():
            Note.objects.create(tag=tag, number=1)
            expect(notes(tag).count(), 1)
            raise Undo
    except Undo:
        pass
    expect(notes(tag).count(), 0)


@check
def savepoints_roll_back_alone(tag):
    with transaction.atomic():
        Note.objects.create(tag=tag, number=1)
        try:
            with transaction.atomic():
                Note.objects.create(tag=tag, number=2)
                with transaction.atomic():
                    Note.objects.create(tag=tag, number=3)
                raise Undo
        except Undo:
            pass
        with transaction.atomic():
            Note.objects.create(tag=tag, number=4)
    expect(list(notes(tag).order_by("number").values_list("number", flat=True)), [1, 4])


@check
def transaction_goes_on_after_an_error_in_a_savepoint(tag):
    with transaction.atomic():
        Note.objects.create(tag=tag, number=1)
        try:
            with transaction.atomic():
                Note.objects.create(tag=tag, number=1)
            raise AssertionError("the unique constraint let a second row in")
        except IntegrityError:
            pass
        Note.objects.create(tag=tag, number=2)
    expect(notes(tag).count(), 2)


@check
def bulk_create_writes_every_row(tag):
    rows = [Note(tag=tag, number=n, text="x" * 40) for n in range(BULK_ROWS)]
    created = Note.objects.bulk_create(rows, batch_size=500)
    expect(len({row.pk for row in created}), BULK_ROWS)
    expect(notes(tag).aggregate(total=Sum("number"))["total"], sum(range(BULK_ROWS)))


@check
def iterator_reads_without_a_held_cursor(tag):
    Note.objects.bulk_create([Note(tag=tag, number=n) for n in range(BULK_ROWS)])
    read = [row.number for row in notes(tag).order_by("number").iterator(chunk_size=100)]
    expect(read, list(range(BULK_ROWS)))


@check
def select_for_update_locks_out_a_second_connection(tag):
    Note.objects.create(tag=tag, number=1)
    seen = []

    def second_connection():
        try:
            with transaction.atomic():
                Note.objects.select_for_update(nowait=True).get(tag=tag, number=1)
            seen.append("got the lock")
        except DatabaseError as error:
            seen.append(getattr(error.__cause__, "sqlstate", str(error)))
        finally:
            connections.close_all()

    with transaction.atomic():
        Note.objects.select_for_update().get(tag=tag, number=1)
        thread = threading.Thread(target=second_connection)
        thread.start()
        thread.join()
    expect(seen, ["55P03"])  # lock_not_available


@check
def update_counts_rows_and_uses_their_values(tag):
    Note.objects.bulk_create([Note(tag=tag, number=n) for n in range(10)])
    expect(notes(tag).update(number=F("number") + 100), 10)
    expect(notes(tag).filter(number__gte=100).count(), 10)


@check
def on_commit_runs_after_commit_only(tag):
    ran = []
    try:
        with transaction.atomic():
            transaction.on_commit(lambda: ran.append("rolled back"))
            raise Undo
    except Undo:
        pass
    with transaction.atomic():
        transaction.on_commit(lambda: ran.append("committed"))
        expect(ran, [])
    expect(ran, ["committed"])


@check
def set_local_ends_with_its_transaction(tag):
    before = one("SHOW work_mem")
    with transaction.atomic():
        one("SELECT set_config('work_mem', '7MB', true)")
        expect(one("SHOW work_mem"), "7MB")
    expect(one("SHOW work_mem"), before)


@check
def connection_settings_hold_between_statements(tag):
    for _ in range(20):
        expect(one("SHOW timezone"), "UTC")
        expect(one("SHOW client_encoding"), "UTF8")
    options = connection.settings_dict["OPTIONS"].get("options", "")
    if "statement_timeout=30000" in options:
        expect(one("SHOW statement_timeout"), "30s")


@check
def joins_and_aggregates_agree(tag):
    rows = Item.objects.select_related("category").filter(pk__lte=100)
    expect([row.price_cents for row in rows], [100 + n * 37 % 9900 for n in range(1, 101)])
    expect(rows.aggregate(total=Sum("price_cents"))["total"], sum(r.price_cents for r in rows))


def run(function) -> dict:
    """Runs one check with rows of its own, and takes them away again."""
    tag = uuid.uuid4().hex
    try:
        function(tag)
        return {"name": function.__name__, "ok": True, "error": None}
    except (AssertionError, DatabaseError) as error:
        return {"name": function.__name__, "ok": False, "error": f"{type(error).__name__}: {error}"}
    finally:
        notes(tag).delete()


def view(request):
    results = [run(function) for function in CHECKS]
    ok = all(result["ok"] for result in results)
    return JsonResponse({"ok": ok, "checks": results}, status=200 if ok else 500)
