"""{{ site.name }} on gunicorn, behind nginx or another proxy that ends TLS: `gunicorn`, in this directory.

From the environment: LISTEN (address, default 127.0.0.1:{{ site.port }}), PROCESSES (default 2), and what the
settings read.
"""

import os

wsgi_app = "{{ site.module }}:{{ site.attribute }}"
bind = os.environ.get("LISTEN", "127.0.0.1:{{ site.port }}")
workers = int(os.environ.get("PROCESSES", "2"))
worker_class = "gevent"
# Seconds that a worker which is told to end has to finish its requests and to say goodbye to its sockets.
graceful_timeout = {{site.mercy}}
# Bytes of the first line of a request: the query strings of many subscriptions.
limit_request_line = 8190
# The proxy logs requests, without query strings, which may hold secrets.
accesslog = None
