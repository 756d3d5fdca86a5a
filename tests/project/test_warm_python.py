"""What a script that starts in a warm Python has of its own, and what it has of that (``testbed/warm_python.py``)."""

import json
import os
import signal
import subprocess
import sys

import pytest

from testbed.warm_python import MODULES, Script, WarmPython, can_be_warm, warm_python

SCRIPT = """
import json, os, socket, sys
print(json.dumps({
    "arguments": sys.argv, "path": sys.path[:2], "env": dict(os.environ), "read": sys.stdin.read(),
    "leads": os.getsid(0) == os.getpid(), "name": __name__, "modules": list(sys.modules),
    "patched": socket.socket.__module__.startswith("gevent"),
}))
print("told", file=sys.stderr)
sum(range(3_000_000))
sys.exit(3)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


@pytest.mark.parametrize("patched", [False, True])
def test_a_script_is_on_its_own(script, tmp_path, patched):
    (tmp_path / "in").write_text("input")
    env = {"ONLY": "this", "PYTHONPATH": "/somewhere"}
    cpu = Script.cpu
    with (tmp_path / "in").open() as stdin, (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        running = warm_python(patched).start([str(script), "a", "b"], env, stdout=out, stderr=err, stdin=stdin)
    assert running.wait(30) == running.poll() == 3
    told = json.loads((tmp_path / "out").read_text())
    assert (tmp_path / "err").read_text() == "told\n"
    assert (told["arguments"], told["name"]) == ([str(script), "a", "b"], "__main__")
    assert told["path"] == [str(tmp_path), "/somewhere"]
    assert (told["env"], told["read"], told["leads"], told["patched"]) == (env, "input", True, patched)
    assert set(MODULES) <= set(told["modules"])
    assert not {"project.settings", "django.contrib.auth.models"} & set(told["modules"]), "they need the settings"
    assert Script.cpu > cpu, "what it has taken is counted"


def test_one_that_is_killed_tells_by_which_signal(script, tmp_path):
    reads, writes = os.pipe()
    with os.fdopen(reads) as stdin, os.fdopen(writes, "w"), (tmp_path / "out").open("w") as out:
        running = warm_python(False).start([str(script)], {}, stdout=out, stdin=stdin)
        assert running.poll() is None  # it reads
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.01)
        running.kill()
        assert running.wait(30) == -signal.SIGKILL


def test_it_ends_with_the_process_that_has_started_it():
    warm = WarmPython(patched=False)
    warm._line.close()
    assert warm._popen.wait(30) == 0


@pytest.mark.parametrize(("name", "warm"), [("PYTHONPATH", True), ("DJANGO_DEBUG", True), ("PYTHONDEVMODE", False)])
def test_what_python_reads_when_it_starts_needs_a_cold_one(name, warm):
    assert can_be_warm({name: "1", "PATH": sys.prefix}) is warm
