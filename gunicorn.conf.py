"""The whole site on gunicorn instead of uWSGI: ``.venv/bin/gunicorn wsgi``, which reads this file where it is started.

From the environment: HTTP (address, default 127.0.0.1:8000), PROCESSES (default 1), and the settings of the site. TLS
must end in a proxy in front: gunicorn keeps the encryption to itself, and cannot hand such connections over.
"""

import os

bind = os.environ.get("HTTP", "127.0.0.1:8000")
workers = int(os.environ.get("PROCESSES", "1"))
# The embedded Redis lives as long as this process (project/startup.py).
os.environ["SITE_MASTER"] = str(os.getpid())

# The only kind of worker that WebSockets can be taken over from.
worker_class = "gevent"
# Requests that one worker answers at the same time. WebSockets do not count: they leave gunicorn after the handshake.
worker_connections = 100
# Each worker loads the site itself, so that SIGHUP loads new code.
preload_app = False

# Seconds that a worker which ends, or is replaced, may take to finish its requests, handshakes of up to 10 s among
# them, and to say goodbye to its sockets: 200 a second and 4 s at most, so that their clients do not all come back at
# once, and 2 s for consumers.
graceful_timeout = 20
# Seconds after which a worker is killed whose event loop does not go on; slow requests do not hold it up.
timeout = 30
# No max_requests: it ends workers while they hold sockets, which do not count as requests.

# Connections waiting to be accepted: a restart brings all clients back at once (no more than net.core.somaxconn).
backlog = 2048
# Bytes of the request line, and of one header: the query strings of many subscriptions, and large cookies.
limit_request_line = 8190
limit_request_field_size = 16384
# Seconds that a connection may wait for its next request; each holds one of worker_connections meanwhile.
keepalive = 5

# No socket in the home directory through which gunicornc would control the server, from 25.1 on.
control_socket_disable = True

# One line per request: method and path as wsgi.py has them, without the query string, which may hold secrets.
# gunicorn's own variables are what the client sent.
accesslog = "-"
access_log_format = "%(h)s %(t)s %({request_line}e)s %(s)s %(B)s bytes in %(M)s ms"
