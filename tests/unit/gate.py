"""A line to Redis on which commands can be held back and let through one by one; all else passes as it is."""

import socket

import gevent
import hiredis
from gevent.server import StreamServer

from testbed.processes import wait_until


class Gate:
    """Listens on a unix socket in front of a ``RedisServer``; to wsloop it looks like one.

    Attributes:
        socket_path: where wsloop connects to.
        held: the commands that wait, as lists of bytes, in order.
    """

    def __init__(self, server, directory):
        self.socket_path = str(directory / "gate.sock")
        self.held = []
        self._names = frozenset()
        self._losing = False
        self._server = server
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.socket_path)
        self._listener.listen()
        self._stream_server = StreamServer(self._listener, self._serve)
        self._stream_server.start()

    def hold(self, *names):
        """Hold back the commands of these names from now on: ``hold("SUBSCRIBE")``; without names, none."""
        self._names = frozenset(name.encode() for name in names)

    def wait_for(self, count):
        wait_until(lambda: len(self.held) >= count, what=f"{count} held commands")

    def let_through(self, count=1):
        """Hand the oldest held commands on to Redis."""
        for _ in range(count):
            upstream, command = self.held.pop(0)
            upstream.sendall(hiredis.pack_command(tuple(command)))

    def commands(self):
        return [command for _, command in self.held]

    def lose_next_answer(self):
        """Break the connection on which Redis answers next; the answer does not arrive."""
        self._losing = True

    def _serve(self, client, _):
        with client, socket.socket(socket.AF_UNIX) as upstream:
            upstream.connect(self._server.socket_path)
            answers = gevent.spawn(self._copy, upstream, client)
            reader = hiredis.Reader()
            try:
                while data := client.recv(65536):
                    reader.feed(data)
                    while (command := reader.gets()) is not False:
                        if command[0] in self._names:
                            self.held.append((upstream, command))
                        else:
                            upstream.sendall(hiredis.pack_command(tuple(command)))
            except OSError:
                pass  # one of the two has gone
            finally:
                answers.kill()

    def _copy(self, upstream, client):
        try:
            while (data := upstream.recv(65536)) and not self._losing:
                client.sendall(data)
            self._losing = False
            client.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self):
        self._stream_server.stop()
        self._listener.close()
