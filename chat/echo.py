"""``/ws/echo/``: returns each message to its sender, text as text and binary as binary, without Redis in between."""

from wsloop.server import Listener


class Echo(Listener):
    """The handler of all sockets of ``/ws/echo/``; ``project/routing.py`` names it."""

    def received(self, connection, payload, text):
        connection.reply(payload, text)
