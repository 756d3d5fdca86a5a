"""Sockets taken over from the server, the connections on them, and the fan-out. It must not know Redis or the
database."""
