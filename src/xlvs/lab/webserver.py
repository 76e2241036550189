"""The real servers' nginx: one a node, with its own page, its own access log, and uploads by PUT."""

from __future__ import annotations

import os
from collections.abc import Sequence

from xlvs.lab.topology import PORT

_CONFIGURATION = """\
# The workers read pages below /run/xlvs, which is root's alone.
user root;
worker_processes 1;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 4096; }}
http {{
    types {{ text/html html; }}
    default_type application/octet-stream;
    log_format lab '$remote_addr:$remote_port "$request" $status $body_bytes_sent';
    access_log access.log lab;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    client_max_body_size 0;
    sendfile on;
    server {{
        listen {port} backlog=4096;
        listen [::]:{port} backlog=4096;
        root html;
        location /upload/ {{ dav_methods PUT; create_full_put_path on; }}
    }}
}}
"""


def write_site(folder: str, page: str, port: int = PORT) -> None:
    """Lay out nginx's prefix folder: configuration and one page, ``html/index.html``."""
    os.makedirs(f"{folder}/html", exist_ok=True)
    with open(f"{folder}/nginx.conf", "w", encoding="ascii") as configuration:
        configuration.write(_CONFIGURATION.format(port=port))
    with open(f"{folder}/html/index.html", "w", encoding="ascii") as index:
        index.write(f"{page}\n")


def start_command(folder: str) -> list[str]:
    """Starts nginx as a daemon; returns when it listens."""
    return ["nginx", "-p", folder, "-c", f"{folder}/nginx.conf", "-e", f"{folder}/error.log"]


def clients_seen(folder: str) -> list[str]:
    """The client address of every request so far, in the order of the access log."""
    return [address for address, _ in peers_seen(folder)]


def peers_seen(folder: str) -> list[tuple[str, int]]:
    """The same with the client's port."""
    ends = [line.partition(" ")[0].rpartition(":") for line in log_lines(folder)]
    return [(address, int(port)) for address, _, port in ends]


def log_lines(folder: str) -> Sequence[str]:
    """The access log's lines."""
    try:
        with open(f"{folder}/access.log", encoding="utf-8", errors="replace") as log:
            return log.read().splitlines()
    except FileNotFoundError:
        return []
