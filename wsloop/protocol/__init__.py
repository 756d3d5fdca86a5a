"""The formats on the wire, of WebSockets and in Redis: frames, messages, tokens. It does no I/O, and must not know
Redis, sockets or gevent."""
