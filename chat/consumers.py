"""Sockets with code: the consumers of ``/ws/echo/`` and ``/ws/random/``."""

import random
import time

from wsloop.consumers import WebsocketConsumer


class EchoConsumer(WebsocketConsumer):
    """Returns each message to its sender, text as text and binary as binary."""

    def receive(self, text_data=None, bytes_data=None):
        self.send(text_data=text_data, bytes_data=bytes_data)


class RandomConsumer(WebsocketConsumer):
    """Sends a number from 0 to 100 each second, for as long as the client stays."""

    def connect(self):
        self.accept()
        while True:
            self.send(text_data=str(random.randint(0, 100)))
            time.sleep(1)
