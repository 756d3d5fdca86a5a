"""Sockets without code: subscriptions, recovery, and what such sockets send. It must not know consumers."""
