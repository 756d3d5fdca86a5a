"""Who is behind a socket, may they stay, and who is there. It must not know the protocol of WebSockets."""
