"""`manage.py seed`: the rows the endpoints promise. Running it again changes nothing."""
from django.core.management.base import BaseCommand
from django.core.management.color import no_style
from django.db import connection, transaction

from shop.models import Category, Item, Order

CATEGORIES = 20
ITEMS = 5000
ORDERS = 3000


def price_cents(item_id: int) -> int:
    """A price that a test can compute for itself."""
    return 100 + item_id * 37 % 9900


class Command(BaseCommand):
    help = "Fills the shop with rows (idempotent)."

    @transaction.atomic
    def handle(self, *args, **options):
        if Item.objects.count() >= ITEMS:
            self.stdout.write("seeded already")
            return
        Category.objects.bulk_create(
            [Category(id=n, name=f"category-{n:02}") for n in range(1, CATEGORIES + 1)],
            ignore_conflicts=True,
        )
        Item.objects.bulk_create(
            [
                Item(
                    id=n,
                    name=f"item-{n:05}",
                    price_cents=price_cents(n),
                    category_id=1 + n % CATEGORIES,
                )
                for n in range(1, ITEMS + 1)
            ],
            batch_size=1000,
            ignore_conflicts=True,
        )
        if not Order.objects.exists():
            Order.objects.bulk_create(
                [
                    Order(item_id=n, quantity=1, total_cents=price_cents(n), reference="seed")
                    for n in range(1, ORDERS + 1)
                ],
                batch_size=1000,
            )
        # Rows with explicit ids do not move the sequences; the next insert would collide.
        with connection.cursor() as cursor:
            for sql in connection.ops.sequence_reset_sql(no_style(), [Category, Item, Order]):
                cursor.execute(sql)
        self.stdout.write(f"seeded {CATEGORIES} categories, {ITEMS} items, {ORDERS} orders")
