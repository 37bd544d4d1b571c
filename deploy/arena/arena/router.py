"""Sends reads to the read database, when there is one, and everything else to the primary.

A read that belongs to a transaction opened on the primary stays there: it must see what the
transaction wrote. `select_for_update()` needs no rule here, Django itself asks `db_for_write`
for it.
"""
from django.db import DEFAULT_DB_ALIAS, connections

READ_ALIAS = "read"


class ReadRouter:
    """The router named in DATABASE_ROUTERS."""

    def db_for_read(self, model, **hints):
        if READ_ALIAS not in connections.settings:
            return DEFAULT_DB_ALIAS
        if connections[DEFAULT_DB_ALIAS].in_atomic_block:
            return DEFAULT_DB_ALIAS
        return READ_ALIAS

    def db_for_write(self, model, **hints):
        return DEFAULT_DB_ALIAS

    def allow_relation(self, first, second, **hints):
        return True  # both aliases hold the same rows

    def allow_migrate(self, alias, app_label, **hints):
        return alias == DEFAULT_DB_ALIAS
