"""``make bench-fanout`` in little."""

import subprocess
import sys

from testbed.processes import ROOT

CODE = """
from bench.fanout import Fanout, rows
for count, took, share in rows((1, 20), rounds=1):
    assert took > 0 and 0 < share < 1, (took, share)
    print(count)
fanout = Fanout(2)
from wsloop.protocol.messages import Message
fanout.deliver(Message(b"to both"))
print([client.recv(100) for client in fanout._clients])
fanout.close()
"""


def test_the_fan_out_is_measured_with_messages_that_arrive():
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["1", "20", r"[b'\x81\x07to both', b'\x81\x07to both']"], done.stderr
