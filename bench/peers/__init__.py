"""Servers that the engine is compared with. Each does one thing: what is published in Redis goes to all sockets."""
