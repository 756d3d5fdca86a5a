"""A plugin of pytest: ``ChannelsLiveServerTestCase`` starts a uWSGI with this server instead of daphne.

It serves the sample project of Channels' tests (``live_site.py``), to which a real browser goes.
"""

import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

from testbed.processes import Process, free_port


class LiveServer:
    """Has the methods and attributes of ``daphne.testing.DaphneProcess`` that the test case uses."""

    def __init__(self, host, get_application, setup=None):
        self.ready = self
        self.port = SimpleNamespace(value=free_port())

    def start(self):
        address = f"127.0.0.1:{self.port.value}"
        command = [str(Path(sys.executable).parent / "uwsgi"), "--http", address, "--http-websockets"]
        command += ["--gevent", "100", "--chdir", os.getcwd(), "--module", "live_site", "--need-app", "--die-on-term"]
        self._process = Process(command, Path("live.log").absolute())

    def is_alive(self):
        return self._process.returncode is None

    def wait(self, timeout):
        """Return whether it accepts connections within ``timeout`` seconds."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port.value)):
                return True
            time.sleep(0.05)
        return False

    def terminate(self):
        self._process.stop(timeout=5)
        print(self._process.log())  # for --verbose

    def join(self):
        pass


def pytest_sessionstart():
    from channels.testing import live
    from selenium import webdriver

    live.ChannelsLiveServerTestCase.ProtocolServerProcess = LiveServer
    options = webdriver.ChromeOptions

    def without_sandbox():  # which root cannot have
        made = options()
        made.add_argument("--no-sandbox")
        return made

    webdriver.ChromeOptions = without_sandbox
