"""The sample site's WSGI application, and two URLs more.

``/bench/collect``: what the worker's memory is compared by must not be garbage. ``/ws/consumer``: a consumer in one
group, as that of the peer ``channels_app``.
"""

from wsgi import application as site  # first: it patches the process

import gc  # isort: skip

from django.urls import path

from wsloop.consumers import WebsocketConsumer
from wsloop.server import WebsocketServer


class Consumer(WebsocketConsumer):
    groups = ["bench"]

    def bench_message(self, event):
        self.send(text_data=event["text"])


consumers = WebsocketServer(urlpatterns=[path("ws/consumer", Consumer.as_websocket())])


def application(environ, start_response):
    if environ["PATH_INFO"] == "/ws/consumer":
        return consumers(environ, start_response)
    if environ["PATH_INFO"] != "/bench/collect":
        return site(environ, start_response)
    while gc.collect():
        pass
    start_response("204 No Content", [])
    return []
