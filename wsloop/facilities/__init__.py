"""Sockets without code of a site: subscriptions, recovery, and messages of clients. It must not know consumers."""
