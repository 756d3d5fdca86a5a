"""The sample site's WSGI application, and one URL more: what the worker's memory is compared by must not be garbage."""

from wsgi import application as site  # first: it patches the process

import gc  # isort: skip


def application(environ, start_response):
    if environ["PATH_INFO"] != "/bench/collect":
        return site(environ, start_response)
    while gc.collect():
        pass
    start_response("204 No Content", [])
    return []
