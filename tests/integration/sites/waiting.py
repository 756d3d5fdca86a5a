"""A policy that never answers, as one that asks a service which is down."""

from gevent.event import Event


def whoever_asks_to_wait(request, channels):
    """Wait for ever if the query has ``wait``; everything is allowed to others."""
    if "wait" in request.GET:
        Event().wait()
    return channels
