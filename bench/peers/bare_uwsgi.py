"""A bare echo on uWSGI's own WebSocket API, as its documentation shows it; for contrast in ``make bench-attacks``.

The wheel pyuwsgi cannot do the handshake: it needs a uWSGI with OpenSSL.
"""

import uwsgi


def application(environ, start_response):
    uwsgi.websocket_handshake()
    while True:
        uwsgi.websocket_send(uwsgi.websocket_recv())
