"""Clients that are cut off in the middle of a message, in a transaction or not; then the pool must still be right.

usage: half_message.py POOL_DSN COUNT; prints one JSON object.
"""

import json
import os
import socket
import sys

import psycopg

dsn, count = sys.argv[1], int(sys.argv[2])
whole = b"Q" + (4 + 20).to_bytes(4, "big") + b"SELECT 'left over'\x00 "
cut = 0
for number in range(count):
    connection = psycopg.connect(dsn, autocommit=True)
    if number % 2:
        connection.execute("BEGIN")
        connection.execute("SELECT 'in a transaction'")
    raw = socket.socket(fileno=os.dup(connection.pgconn.socket))
    raw.setblocking(True)
    raw.sendall(whole[: 1 + number % (len(whole) - 1)])
    raw.shutdown(socket.SHUT_RDWR)
    raw.close()
    connection.close()
    cut += 1
print(json.dumps({"cut": cut}))
