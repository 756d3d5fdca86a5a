"""Redis: clients, names of keys, scripts, publishing, history. It must not know WebSockets, and works without
gevent."""
