"""A consumer that does what a test gives it, and keeps what it is called with."""

from wsloop.consumers import WebsocketConsumer


class Recorded(WebsocketConsumer):
    """Calls a function of the test for each handler, ``Recorded(receive=…)``, and records the calls."""

    def __init__(self, **handlers):
        self.handlers = handlers
        self.calls = []

    def call(self, name, *arguments):
        self.calls.append((name, *arguments))
        return self.handlers.get(name, lambda *_: None)(self, *arguments)

    def connect(self):
        self.call("connect")

    def receive(self, text_data=None, bytes_data=None):
        self.call("receive", text_data if bytes_data is None else bytes_data)

    def happened(self, event):
        self.call("happened", event["number"])

    def disconnect(self, close_code):
        self.call("disconnect", close_code)
