"""No WebSocket server, no Redis, no event loop: how fast one Python process can write the same bytes to all sockets.

Told what to do on standard input: ``accept COUNT`` sockets; send the messages FIRST up to END, ``each FIRST END`` with
one write per message and socket, ``joined FIRST END`` with one write per socket. Started with the port.
"""

import socket
import sys

from bench.clients import frame, messages

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=100)
listener.accept()[0].close()  # who asked whether somebody listens
sends = []
frames = [frame(message) for message in messages(1000)]
for line in sys.stdin:
    word, *numbers = line.split()
    if word == "accept":
        for _ in range(int(numbers[0])):
            connection = listener.accept()[0]
            while not connection.recv(65536).endswith(b"\r\n\r\n"):
                pass
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            sends.append(connection.sendall)
        continue
    first, end = map(int, numbers)
    for data in [b"".join(frames[first:end])] if word == "joined" else frames[first:end]:
        for send in sends:
            send(data)
