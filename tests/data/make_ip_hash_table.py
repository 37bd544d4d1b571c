#!/usr/bin/env python3
"""Asks a real nginx which server its ip_hash gives to whom, and writes ip_hash_nginx.tsv beside this file.

    apt-get install nginx-light
    python3 tests/data/make_ip_hash_table.py [/usr/sbin/nginx]

nginx runs with one worker on free ports of 127.0.0.1 and is stopped at the end. The clients' addresses reach ip_hash the
way they do behind another proxy: through the realip module. Addresses are asked in the order of the table, because where
twenty hashes find nobody, round robin decides, and that has a memory.
"""

import http.client
import ipaddress
import pathlib
import random
import socket
import subprocess
import sys
import tempfile
import time

NGINX = sys.argv[1] if len(sys.argv) > 1 else "/usr/sbin/nginx"
TABLE = pathlib.Path(__file__).with_name("ip_hash_nginx.tsv")

# (server, weight, down)
SETS = {
    "equal": [("a", 1, False), ("b", 1, False), ("c", 1, False)],
    "weights": [("a", 5, False), ("b", 1, False), ("c", 2, False)],
    "one_down": [("a", 1, False), ("b", 3, True), ("c", 1, False), ("d", 2, False)],
    "two": [("a", 1, False), ("b", 1, True)],
    "most_down": [("a", 50, True), ("b", 1, False), ("c", 2, False), ("d", 50, True), ("e", 40, True)],
    "single": [("a", 7, False)],
    "heavy": [("a", 65535, False), ("b", 32768, False), ("c", 1, False), ("d", 4096, False)],
}


def addresses():
    # Not 255.255.255.255: nginx reads it as "no address" (INADDR_NONE) and keeps the peer's.
    rng = random.Random(20261123)
    chosen = ["0.0.0.1", "255.255.255.254", "127.0.0.1", "10.0.0.1", "10.0.0.254", "10.0.1.1", "192.168.1.7"]
    chosen += ["::", "::1", "2001:db8::1", "2001:db8::2", "fe80::1", "::ffff:10.0.0.1", "::ffff:10.0.0.2", "::10.0.0.1"]
    chosen += [str(ipaddress.IPv4Address(rng.getrandbits(32))) for _ in range(60)]
    chosen += [str(ipaddress.IPv6Address(rng.getrandbits(128))) for _ in range(40)]
    chosen += [f"::ffff:{ipaddress.IPv4Address(rng.getrandbits(32))}" for _ in range(15)]
    return chosen


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def configuration(directory, ports, fronts):
    names = sorted({server for servers in SETS.values() for server, _, _ in servers})
    port_of = dict(zip(names, ports))
    blocks = [f'server {{ listen 127.0.0.1:{port_of[name]}; return 200 "{name}"; }}' for name in names]
    for set_name, servers in SETS.items():
        lines = "".join(
            f"server 127.0.0.1:{port_of[name]} weight={weight}{' down' if down else ''}; "
            for name, weight, down in servers
        )
        blocks.append(f"upstream {set_name} {{ ip_hash; {lines}}}")
        blocks.append(
            f"server {{ listen 127.0.0.1:{fronts[set_name]}; set_real_ip_from 127.0.0.1; "
            f"real_ip_header X-Forwarded-For; location / {{ proxy_pass http://{set_name}; }} }}"
        )
    temps = "".join(
        f"{kind}_temp_path {directory}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        f"daemon off; worker_processes 1; pid {directory}/pid; error_log {directory}/error.log;"
        f"events {{ worker_connections 512; }} http {{ access_log off; {temps}\n" + "\n".join(blocks) + "\n}\n"
    )


def ask(port, address):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/", headers={"X-Forwarded-For": address})
    response = connection.getresponse()
    assert response.status == 200, (port, address, response.status)
    return response.read().decode()


def wait_for(port):
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("nginx did not start")


def main():
    version = subprocess.run([NGINX, "-v"], capture_output=True, text=True, check=True).stderr.split(": ")[1].strip()
    ports = free_ports(5 + len(SETS))
    fronts = dict(zip(SETS, ports[5:]))
    with tempfile.TemporaryDirectory() as directory:
        config = pathlib.Path(directory, "nginx.conf")
        config.write_text(configuration(directory, ports[:5], fronts))
        nginx = subprocess.Popen([NGINX, "-p", directory, "-c", config, "-e", f"{directory}/error.log"])
        try:
            wait_for(fronts["equal"])
            rows = [f"# answered by {version}, see make_ip_hash_table.py"]
            for name, servers in SETS.items():
                listed = " ".join(f"{server}:{weight}{':down' if down else ''}" for server, weight, down in servers)
                rows.append(f"set\t{name}\t{listed}")
                rows += [f"{name}\t{address}\t{ask(fronts[name], address)}" for address in addresses()]
        finally:
            nginx.terminate()
            nginx.wait()
    TABLE.write_text("\n".join(rows) + "\n")


main()
