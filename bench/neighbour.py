"""A well-behaved client of an echo beside the attackers: ``python -m bench.neighbour HOST PORT PATH [VIEW]``.

A process of its own, so that it measures the worker and not the attackers. It sends RATE messages a second, whether or
not their echoes come, and every NEWCOMER seconds opens a WebSocket more, as somebody does who has just opened the page.
If there is a VIEW, the path of a page, it is requested VIEWS times a second. When the process's standard input ends it
prints, as JSON:

``echoes``      pairs: when a message was sent (time.monotonic(), which all processes share) and after how many seconds
                it came back; null if it did not
``newcomers``   the same of the handshakes
``views``       the same of the pages; as often only if they come in time
``foreign``     messages that it got and had not sent
``ended``       when its connection ended, or null
"""

from __future__ import annotations

import http.client
import json
import os
import select
import sys
import threading
import time

from testbed.attacks import OPEN, Attacker, Target, frame

RATE = 50  # messages a second: below RATE_LIMIT
NEWCOMER = 0.5  # seconds
VIEWS = 20  # a second
PATIENCE = 5.0  # seconds for which a newcomer waits


class Neighbour:
    """The client.

    Args:
        target: the echo.
        view: the path of a page of the same server, or None.
    """

    def __init__(self, target: Target, view: str | None = None) -> None:
        self._target, self._view = target, view
        self._token = os.urandom(8).hex()
        self._sent: dict[bytes, float] = {}
        self.echoes: list[tuple[float, float | None]] = []
        self.newcomers: list[tuple[float, float | None]] = []
        self.views: list[tuple[float, float | None]] = []
        self._arriving: float | None = None
        self.foreign: list[str] = []
        self.ended: float | None = None

    def run(self) -> None:
        """Send and receive until standard input ends."""
        client = Attacker(self._target, patience=30)
        threading.Thread(target=self._newcomers, daemon=True).start()
        if self._view is not None:
            threading.Thread(target=self._request, args=[self._view], daemon=True).start()
        print("ready", flush=True)
        poll = select.poll()
        poll.register(sys.stdin, select.POLLIN)
        poll.register(client.socket, select.POLLIN)
        began, number = time.monotonic(), 0
        while True:
            wait = began + number / RATE - time.monotonic()
            if wait <= 0:
                if self.ended is None:
                    self._send(client, number)
                number += 1
                continue
            for descriptor, _ in poll.poll(wait * 1000):
                if descriptor == sys.stdin.fileno():
                    return
                self._receive(client)
                if client.fate != OPEN:
                    self.ended = time.monotonic()
                    poll.unregister(client.socket)

    def _send(self, client: Attacker, number: int) -> None:
        message = f"{self._token} {number:08}".encode()
        self._sent[message] = time.monotonic()
        client.push(frame(message))

    def _receive(self, client: Attacker) -> None:
        client.read()
        now = time.monotonic()
        for message in client.messages:
            sent = self._sent.pop(message, None)
            if sent is None:
                self.foreign.append(repr(message[:200]))
            else:
                self.echoes.append((sent, now - sent))
        client.messages.clear()

    def _newcomers(self) -> None:
        while True:
            self._arriving = began = time.monotonic()
            try:
                newcomer = Attacker(self._target, patience=PATIENCE)
                self.newcomers.append((began, time.monotonic() - began))
                newcomer.push(frame(b"\x03\xe8", opcode=8))
                newcomer.socket.close()
            except OSError:
                self.newcomers.append((began, None))
            self._arriving = None
            time.sleep(max(0.0, began + NEWCOMER - time.monotonic()))

    def _request(self, view: str) -> None:
        while True:
            began = time.monotonic()
            connection = http.client.HTTPConnection(*self._target.address, timeout=PATIENCE)
            try:
                connection.request("GET", view)
                response = connection.getresponse()
                response.read()
                self.views.append((began, time.monotonic() - began if response.status == 200 else None))
            except (OSError, http.client.HTTPException):
                self.views.append((began, None))
            connection.close()
            time.sleep(max(0.0, began + 1 / VIEWS - time.monotonic()))

    def results(self) -> dict[str, object]:
        """Return what is printed."""
        lost = [(sent, None) for sent in self._sent.values()]
        arriving = self._arriving
        late = [(arriving, time.monotonic() - arriving)] if arriving is not None else []
        return {
            "echoes": [*self.echoes, *lost],
            "newcomers": [*self.newcomers, *late],
            "views": self.views,
            "foreign": self.foreign,
            "ended": self.ended,
        }


if __name__ == "__main__":
    host, port, path, *views = sys.argv[1:]
    neighbour = Neighbour(Target((host, int(port)), path), *views)
    neighbour.run()
    print(json.dumps(neighbour.results()), flush=True)
    os._exit(0)  # a newcomer may be waiting
