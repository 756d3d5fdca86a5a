"""What each process counts, as Prometheus counters: any exporter of the site shows them with its own.

This module must not know anything else of wsloop.
"""

from prometheus_client import Counter

_reached = Counter(
    "wsloop_bounds_reached",
    "Handshakes refused and WebSockets closed because a bound was reached, by the setting that holds it",
    ["setting"],
)


def reached(setting: str) -> None:
    """Count that a handshake was refused, or a socket closed, because of the bound in ``WSLOOP[setting]``."""
    _reached.labels(setting).inc()
