"""What only the integration tests need, beside the servers and clients of ``testbed``.

Nothing here patches or imports gevent: the tests are clients, as a browser or a script is.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from testbed.sites import Site


class PublishingSite(Site):
    """The sample site with the views, policies and outbox of ``sites/``."""

    settings_module = "tests.integration.sites.settings"
    warm = True

    def publish(self, facility, *messages, cookies=None, publisher="wsloop", how="plain", **more: Any) -> None:
        """Publish from inside the server, through a view (``tests/integration/sites/views.py`` explains the values)."""
        order: dict[str, Any] = {name: more.pop(name) for name in ("expire", "key") if name in more}
        order |= {"facility": facility, "messages": messages, "publisher": publisher, "how": how, "audience": more}
        answer = self.request("POST", "/test/publish/", cookies=cookies, body=json.dumps(order))
        assert answer.status == 200, f"publishing: {answer.status}\n{answer.text}\n{self.log()[-4000:]}"


class RedisProxy:
    """A slow line to a Redis: ``question`` and ``answer`` get bytes before they are passed on, and may wait."""

    def __init__(self, port, question=lambda data: None, answer=lambda data: None):
        self._port = port
        self._question, self._answer = question, answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                self._sockets += [client, server]
                for ends in ((client, server, self._question), (server, client, self._answer)):
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    @staticmethod
    def _pass_on(source, target, wait):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 20):
                wait(data)
                target.sendall(data)
        with contextlib.suppress(OSError):  # after a reset too, or the other side would wait for an end for ever
            target.shutdown(socket.SHUT_WR)

    def close(self):
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class StockPublisher:
    """ws4redis's own publisher in a process of its own, where wsloop cannot be imported."""

    def __init__(self, connection, prefix="ws", **settings):
        settings = {"WS4REDIS_CONNECTION": connection, "WS4REDIS_PREFIX": prefix, **settings}
        script = Path(__file__).parent / "sites" / "stock_publisher.py"
        self._lock = threading.Lock()
        self._popen = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(script), json.dumps(settings)],
            cwd=script.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._popen.stdin and self._popen.stdout
        self._orders, self._answers = self._popen.stdin, self._popen.stdout
        assert self._answers.readline() == "ready\n"

    def publish(self, facility, *messages, expire=None, **audience):
        """Returns when Redis has all ``messages``."""
        options = {} if expire is None else {"expire": expire}
        order = {"facility": facility, "messages": messages, "audience": audience, "options": options}
        with self._lock:
            self._orders.write(json.dumps(order) + "\n")
            self._orders.flush()
            assert self._answers.readline() == "published\n"

    def close(self):
        self._orders.close()
        self._popen.wait(10)
        self._answers.close()
