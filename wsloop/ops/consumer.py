"""The socket of the page: pushes the numbers, every two seconds, for as long as its user is of the staff.

A user who is that no longer loses the socket as any other (:mod:`wsloop.visitors.session_watch`).
"""

from __future__ import annotations

import time

from wsloop.consumers import JsonWebsocketConsumer
from wsloop.db import close_databases
from wsloop.ops.access import is_included, is_staff
from wsloop.ops.feed import FEED

EVERY = 2.0  # seconds
PATH = "wsloop/ops/"  # below WSLOOP["URL"]


class OpsConsumer(JsonWebsocketConsumer):
    """Serves one page."""

    channel_layer_alias = None

    def connect(self) -> None:
        if not (is_included() and is_staff(self.user)):
            self.close()
            return
        self.accept()
        while True:
            self.send_json(FEED.read())
            close_databases()
            time.sleep(EVERY)
