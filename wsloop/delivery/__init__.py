"""What comes from Redis to this process, in order and without a gap, and what its sockets publish. It must not know
WebSockets."""
