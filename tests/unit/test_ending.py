"""What is called when a process ends: in processes that end."""

import os
import signal
import subprocess
import sys

import pytest

from testbed.processes import ROOT
from wsloop.sockets import ending as module

PROGRAM = """
from gevent import monkey; monkey.patch_all()
import os, signal, sys
import gevent
from wsloop.sockets.ending import ending

def say(word):
    return lambda: print(word, flush=True)

def close():
    print("closes", flush=True)
    gevent.sleep(0.05)
    print("closed", flush=True)

def signalled():
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    close()

ending().add(say("tasks"), last=True)
ending().add(say("site"), last=False)
ending().add({first}, last=False)
{rest}
"""


def run(first="say('sockets')", rest=""):
    program = PROGRAM.format(first=first, rest=rest)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_the_latest_comes_first_and_the_last_ones_behind():
    assert run() == ["sockets", "site", "tasks"]


def test_what_has_begun_while_requests_run_is_waited_for_and_runs_once_more():
    rest = "ending().begin()\nending().begin()\ngevent.sleep(0.001)\nprint('ends', flush=True)"
    once = ["closes", "closed", "site"]
    assert run(first="close", rest=rest) == ["closes", "ends", *once[1:], *once, "tasks"]


def test_signals_do_not_interrupt_it():
    assert run(first="signalled") == ["closes", "closed", "site", "tasks"]


def test_a_process_that_was_forked_calls_nothing(monkeypatch):
    unwanted = module.Ending()
    unwanted.add(pytest.fail, last=False)
    monkeypatch.setattr(os, "getpid", lambda: 0)
    unwanted.run()
    assert signal.getsignal(signal.SIGTERM) != signal.SIG_IGN
