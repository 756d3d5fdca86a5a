"""The server API over HTTP, for programs that are not Python: ``path("api/", include("wsloop.http_api.urls"))``.

Off without ``WSLOOP["API_KEYS"]``. ``openapi.json`` describes it, and requests are checked against that description.
This package must not know sockets, nor Redis but for its errors.
"""
