"""The WSGI application of a uWSGI whose worker runs tests of a peer, in a greenlet beside those of its requests.

``PEER_ARGUMENTS`` has the arguments of pytest as a JSON list, ``PEER_HOSTING`` names the module with the application of
the server. At the end of the tests uWSGI ends.
"""

from gevent import monkey

monkey.patch_all()

import importlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402

import gevent  # noqa: E402
import pytest  # noqa: E402

application = importlib.import_module(os.environ["PEER_HOSTING"]).application


def run_tests():
    try:
        pytest.main(json.loads(os.environ["PEER_ARGUMENTS"]))
    finally:
        os.kill(os.getpid(), signal.SIGTERM)  # with --die-on-term


gevent.spawn(run_tests)

__all__ = ["application"]
