"""{{ site.name }} on gunicorn, behind nginx or another proxy that ends TLS: `gunicorn`, in this directory.

From the environment: LISTEN (address, default 127.0.0.1:{{ site.port }}), PROCESSES (default 2), and what the
settings read.
"""

import os

wsgi_app = "{{ site.module }}:{{ site.attribute }}"
bind = os.environ.get("LISTEN", "127.0.0.1:{{ site.port }}")
workers = int(os.environ.get("PROCESSES", "2"))

# The only kind of worker that WebSockets can be taken over from.
worker_class = "gevent"
# Requests that one worker answers at the same time. WebSockets do not count: they leave gunicorn after the handshake.
worker_connections = 100
# Each worker loads the site itself, so that SIGHUP loads new code.
preload_app = False
# No socket for gunicornc: nobody has asked for one.
control_socket_disable = True
# Where workers show that they are alive: memory, as the file system of a container may be read-only.
worker_tmp_dir = "/dev/shm"

# Seconds that a worker which ends, or is replaced, may take to finish its requests and to say goodbye to its sockets.
graceful_timeout = {{ site.mercy }}
# Seconds after which a worker is killed whose event loop does not go on; slow requests do not hold it up.
timeout = 30
# No max_requests: it ends workers while they hold sockets, which do not count as requests.

# Connections waiting to be accepted: a restart brings all clients back at once (no more than net.core.somaxconn).
backlog = 2048
# Bytes of the request line, and of one header: the query strings of many subscriptions, and large cookies.
limit_request_line = 8190
limit_request_field_size = 16384

# The proxy logs requests, without query strings, which may hold secrets.
accesslog = None
