"""The socket of the page: pushes the numbers, every two seconds, for as long as its user is of the staff.

A user who is that no longer loses the socket as any other (:mod:`wsloop.visitors.session_watch`), or within
:data:`AGAIN` seconds if no signal has told of the change.
"""

from __future__ import annotations

import time

from wsloop.consumers import JsonWebsocketConsumer
from wsloop.db import close_databases
from wsloop.ops.access import is_included, is_staff, is_still_staff
from wsloop.ops.feed import FEED
from wsloop.protocol.close_codes import RIGHTS_CHANGED

EVERY = 2.0  # seconds
AGAIN = 10.0  # seconds, after which the database is asked again who the user is
PATH = "wsloop/ops/"  # below WSLOOP["URL"]


class OpsConsumer(JsonWebsocketConsumer):
    """Serves one page."""

    channel_layer_alias = None

    def connect(self) -> None:
        if not (is_included() and is_staff(self.user)):
            self.close()
            return
        self.accept()
        asked = time.monotonic()
        while True:
            if time.monotonic() - asked >= AGAIN:
                if not is_still_staff(self.user):
                    break
                asked = time.monotonic()
            self.send_json(FEED.read())
            close_databases()
            time.sleep(EVERY)
        self.close(RIGHTS_CHANGED, "no longer of the staff")
