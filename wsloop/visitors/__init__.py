"""The users behind sockets: closing sockets that lose their permission, and presence. It must not know the protocol of
WebSockets."""
