"""Asks the admin console what monitoring tools ask; prints columns and rows as one JSON object."""

import json
import sys

import psycopg

answers = {}
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    # The console speaks the simple protocol only, as PgBouncer's does: no parameters, a client cursor.
    for show in ["POOLS", "STATS", "CLIENTS", "SERVERS", "DATABASES", "LISTS", "CONFIG", "VERSION"]:
        cursor = psycopg.ClientCursor(connection)
        cursor.execute(f"SHOW {show}")
        answers[show] = {
            "columns": [column.name for column in cursor.description],
            "rows": [[str(value) for value in row] for row in cursor.fetchall()],
        }
print(json.dumps(answers))
