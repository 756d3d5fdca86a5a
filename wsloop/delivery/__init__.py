"""The process's subscription to Redis: messages in order and without a gap, and publishing for sockets. It must not
know WebSockets."""
