"""Django's ORM with persistent connections: server-side cursors, atomic, savepoints, locks, schema changes, both kinds of binding.

`DISABLE_SERVER_SIDE_CURSORS` is left as it is by default: `iterator()` reads through a cursor WITH HOLD.
"""
import os

import django
from django.conf import settings

DATABASE = {
    "ENGINE": "django.db.backends.postgresql",
    "HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"], "NAME": os.environ["PGDATABASE"],
    "USER": os.environ["PGUSER"], "PASSWORD": os.environ["PGPASSWORD"],
    "CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True, "TIME_ZONE": "Europe/Berlin",
}
settings.configure(
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={
        "default": DATABASE,
        "bound": {**DATABASE, "OPTIONS": {"server_side_binding": True, "prepare_threshold": 1}},
    },
)
django.setup()

from django.db import DatabaseError, IntegrityError, close_old_connections, connections, models, transaction  # noqa: E402
from django.db.models import F, Sum  # noqa: E402
from django.utils import timezone  # noqa: E402

from cases import case, run  # noqa: E402

ALIASES = ["default", "bound"]


class Author(models.Model):
    name = models.CharField(max_length=100)
    tags = models.JSONField(default=dict)
    born = models.DateTimeField(null=True)

    class Meta:
        app_label = "drivers"
        db_table = "django_author"


class Book(models.Model):
    author = models.ForeignKey(Author, models.CASCADE, related_name="books")
    title = models.CharField(max_length=100)
    pages = models.IntegerField(default=0)

    class Meta:
        app_label = "drivers"
        db_table = "django_book"
        constraints = [models.UniqueConstraint(fields=["author", "title"], name="django_book_once")]


class Connections:
    """A worker's connections: Django keeps them for each thread."""

    def close(self):
        connections.close_all()


def author(alias, me, books=0):
    made = Author.objects.using(alias).create(name=f"{me}", tags={"who": me}, born=timezone.now())
    Book.objects.using(alias).bulk_create([Book(author=made, title=f"{me}.{n}", pages=n) for n in range(books)], batch_size=100)
    return made


@case
def requests_one_after_the_other(_, me):
    for turn in range(20):
        close_old_connections()
        for alias in ALIASES:
            made = author(alias, me)
            found = Author.objects.using(alias).get(pk=made.pk)
            assert found.name == f"{me}" and found.tags == {"who": me} and found.born == made.born
            found.delete()


@case
def iterators_read_through_a_server_side_cursor(_, me):
    for alias in ALIASES:
        made = author(alias, me, books=700)
        books = Book.objects.using(alias).filter(author=made).order_by("pages")
        seen = []
        for book in books.iterator(chunk_size=100):
            assert book.title.startswith(f"{me}.")
            if book.pages % 100 == 50:
                # Another query in between, as templates make.
                assert Author.objects.using(alias).get(pk=made.pk).name == f"{me}"
            seen.append(book.pages)
        assert seen == list(range(700))
        # Left early.
        assert next(books.iterator(chunk_size=10)).pages == 0
        with transaction.atomic(using=alias):
            assert len(list(books.prefetch_related("author").iterator(chunk_size=50))) == 700


@case
def atomic_and_savepoints(_, me):
    for alias in ALIASES:
        with transaction.atomic(using=alias):
            made = author(alias, me, books=3)
            try:
                with transaction.atomic(using=alias):
                    Book.objects.using(alias).create(author=made, title=f"{me}.0")
                raise AssertionError("no error")
            except IntegrityError:
                pass
            Book.objects.using(alias).filter(author=made).update(pages=F("pages") + me)
            assert Book.objects.using(alias).filter(author=made).aggregate(Sum("pages"))["pages__sum"] == 3 + 3 * me
        try:
            with transaction.atomic(using=alias):
                Book.objects.using(alias).filter(author=made).delete()
                raise RuntimeError("undone")
        except RuntimeError:
            pass
        assert Book.objects.using(alias).filter(author=made, author__name=f"{me}", pages=me).exists()


@case
def rows_are_locked(_, me):
    for alias in ALIASES:
        made = author(alias, me, books=1)
        for _ in range(5):
            with transaction.atomic(using=alias):
                book = Book.objects.using(alias).select_for_update(skip_locked=False).get(author=made)
                book.pages += 1
                book.save()
        assert Book.objects.using(alias).get(author=made).pages == 5


@case
def an_error_outside_a_transaction(_, me):
    for alias in ALIASES:
        try:
            list(Author.objects.using(alias).raw("SELECT 1 / 0 AS id"))
            raise AssertionError("no error")
        except DatabaseError:
            pass
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT %s, current_setting('TimeZone')", [me])
            assert cursor.fetchone() == (me, "Europe/Berlin") or cursor.db.alias == "default"


@case
def the_time_zone_is_the_connections_own(_, me):
    with connections["default"].cursor() as cursor:
        for _ in range(10):
            cursor.execute("SHOW TimeZone")
            assert cursor.fetchone() == ("Europe/Berlin",)


@case
def schema_changes(_, me):
    class Changing(models.Model):
        name = models.CharField(max_length=10, db_index=True)

        class Meta:
            app_label = f"changing{me}"
            db_table = f"django_changing_{me}"

    connection = connections["default"]
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS django_changing_{me}")
    with connection.schema_editor() as editor:
        editor.create_model(Changing)
    Changing.objects.create(name=f"{me}")
    field = models.IntegerField(default=me)
    field.set_attributes_from_name("added")
    with connection.schema_editor() as editor:
        editor.add_field(Changing, field)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT name, added FROM django_changing_{me}")
        assert cursor.fetchall() == [(f"{me}", me)]
        assert "added" in {column.name for column in connection.introspection.get_table_description(cursor, f"django_changing_{me}")}
    with connection.schema_editor() as editor:
        editor.delete_model(Changing)


with connections["default"].cursor() as cursor:
    cursor.execute("DROP TABLE IF EXISTS django_author, django_book CASCADE")
with connections["default"].schema_editor() as editor:
    editor.create_model(Author)
    editor.create_model(Book)
run(Connections)
