"""``make dev``: the site and Vite start together, and end together."""

import json
import os
import signal
import sys
import urllib.request
from pathlib import Path

import pytest

from project import development
from testbed.processes import Process, free_port, wait_until
from testbed.site_files import site_environment

STARTED = "Quit the server with"


@pytest.fixture
def start(redis_server, site_files, tmp_path):
    """Start it, on a free port, with all that it writes in a folder of the test."""

    def start(path=os.environ["PATH"]):
        port = free_port()
        env = site_environment(tmp_path, site_files, redis_server.url, "testbed.sample.settings")
        env |= {"HTTP": f"127.0.0.1:{port}", "VITE_FILE": str(tmp_path / "vite.json"), "PATH": path}
        process = Process([sys.executable, "-m", "project.development"], tmp_path / "log", env)
        return process, f"http://127.0.0.1:{port}"

    return start


def answer(url):
    with urllib.request.urlopen(url, timeout=20) as response:
        return response.read().decode()


def test_it_starts_both_and_ctrl_c_ends_both(node_modules, start, tmp_path):
    process, url = start()
    with process:
        wait_until(lambda: STARTED in process.log() and (tmp_path / "vite.json").exists(), 60, "both have started")
        vite = json.loads((tmp_path / "vite.json").read_text())["origin"]
        wait_until(lambda: "@vite/client" in answer(f"{url}/react/"), what="the site uses Vite")
        assert "import" in answer(f"{vite}/vite/src/main.tsx")
        assert "wsloop" in answer(f"{vite}/echo/")  # through the proxy
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0, process.log()
        for gone in (f"{url}/", f"{vite}/vite/"):
            with pytest.raises(OSError, match="refused"):
                answer(gone)
        assert process.log().endswith("Stopped\n")
        assert "Traceback" not in process.log()
        assert not (tmp_path / "vite.json").exists()


def test_it_ends_with_a_server_that_ends(start):
    process, _ = start(path="/nowhere")  # without Node
    with process:
        wait_until(lambda: STARTED in process.log(), 60, "the site has started")
        assert "/react/ uses the built files" in process.log()
        (site,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(site), signal.SIGKILL)
        assert process.wait() == 1


def test_where_vite_finds_the_site():
    for address, target in (
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        (":9000", "http://127.0.0.1:9000"),
        ("0.0.0.0:9000", "http://127.0.0.1:9000"),
        ("[::1]:9000", "http://[::1]:9000"),
    ):
        assert development.target(address) == target
