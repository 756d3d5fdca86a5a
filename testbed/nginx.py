"""nginx in front of a site."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from testbed.processes import Process

CONFIGURATION = """
daemon off; pid {directory}/nginx.pid; error_log {directory}/nginx.log; worker_processes 1; {user}
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; uwsgi_temp_path {directory}/uwsgi;
    fastcgi_temp_path {directory}/fastcgi; scgi_temp_path {directory}/scgi;
    {servers}
}}
"""
SERVER = """
map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
server {{
    listen 127.0.0.1:{listen};
    location / {{ {location} }}
}}
"""
# What a location has that leads to a uWSGI with --http-socket, or with --socket; {socket} is that socket.
PROXY_PASS = """
proxy_pass http://unix:{socket}; proxy_http_version 1.1; proxy_set_header Host $http_host;
proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
"""
UWSGI_PASS = """
uwsgi_pass unix:{socket};
uwsgi_param QUERY_STRING $query_string; uwsgi_param REQUEST_METHOD $request_method;
uwsgi_param CONTENT_TYPE $content_type; uwsgi_param CONTENT_LENGTH $content_length;
uwsgi_param REQUEST_URI $request_uri; uwsgi_param PATH_INFO $document_uri; uwsgi_param DOCUMENT_ROOT $document_root;
uwsgi_param SERVER_PROTOCOL $server_protocol; uwsgi_param REQUEST_SCHEME $scheme;
uwsgi_param REMOTE_ADDR $remote_addr; uwsgi_param REMOTE_PORT $remote_port;
uwsgi_param SERVER_PORT $server_port; uwsgi_param SERVER_NAME $server_name;
"""


def start_nginx(directory: Path, listen: int | str, location: str) -> Process:
    """Start nginx, which keeps its files in ``directory``.

    Args:
        listen: a port of the loopback, and what else may stand behind it in the directive ``listen``.
        location: the directives of its only location.
    """
    return start_servers(directory, SERVER.format(listen=listen, location=location))


def start_servers(directory: Path, servers: str) -> Process:
    """Start nginx with these directives of its block ``http``; it keeps its files in ``directory``."""
    configuration = directory / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    configuration.write_text(CONFIGURATION.format(directory=directory, user=user, servers=servers))
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    command = [program, "-c", str(configuration), "-e", str(directory / "nginx.log")]
    return Process(command, directory / "nginx.out")
