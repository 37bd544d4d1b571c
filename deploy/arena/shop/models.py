"""A small shop: enough tables to join, lock and write, nothing more."""
from django.db import models


class Category(models.Model):
    name = models.CharField(max_length=60, unique=True)


class Item(models.Model):
    category = models.ForeignKey(Category, on_delete=models.PROTECT, related_name="items")
    name = models.CharField(max_length=80, unique=True)
    price_cents = models.PositiveIntegerField()
    sold = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]


class Order(models.Model):
    item = models.ForeignKey(Item, on_delete=models.PROTECT, related_name="orders")
    quantity = models.PositiveIntegerField()
    total_cents = models.PositiveBigIntegerField()
    # What the client calls it: tests find out with it whether a request was executed twice.
    reference = models.CharField(max_length=80, blank=True, db_index=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]


class Counter(models.Model):
    name = models.CharField(max_length=80, unique=True)
    value = models.BigIntegerField(default=0)


class Note(models.Model):
    """Scratch rows of /api/orm/; each run has its own tag and removes its rows."""

    tag = models.CharField(max_length=40)
    number = models.IntegerField()
    text = models.TextField(blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tag", "number"], name="note_once")]
