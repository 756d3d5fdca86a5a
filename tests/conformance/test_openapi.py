"""The server API over HTTP answers as ``openapi.json`` says, whatever schemathesis makes of that."""

import os
import subprocess
import sys
from pathlib import Path

from testbed.processes import ROOT
from tests.conformance import tools

SCRIPT = Path(__file__).with_name("openapi.py")
OPERATIONS = ["publish", "history", "presence", "counts", "listeners", "disconnect"]


def test_the_server_api_keeps_to_its_description(redis_server):
    path = os.pathsep.join([str(ROOT), str(tools.schemathesis())])
    env = {**os.environ, "PYTHONPATH": path}
    env.pop("DJANGO_SETTINGS_MODULE", None)
    command = [sys.executable, "-W", "ignore", SCRIPT, redis_server.url]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    statuses = {name: codes.split() for name, _, codes in (line.partition(": ") for line in done.stdout.splitlines())}
    assert set(statuses) == {f"/{name} {mode}" for name in OPERATIONS for mode in ("positive", "negative")}
    for name, codes in statuses.items():
        assert ("200" if name.endswith("positive") else "400") in codes, name
