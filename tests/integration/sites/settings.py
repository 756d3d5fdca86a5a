"""The sample site as the integration tests run it: the settings of the testbed, and what sites may plug in.

Settings that JSON cannot hold (callables) have modules of their own beside this one.
"""

from pathlib import Path

from testbed.sample.settings import *  # noqa: F403
from testbed.sample.settings import WSLOOP, overrides

ROOT_URLCONF = "tests.integration.sites.urls"
WSLOOP = {**WSLOOP, "POLICY": "tests.integration.sites.hooks.everything"}  # the sample's rules are tested by name
SILENCED_SYSTEM_CHECKS = ["wsloop.W002"]  # which each command would print for this policy
# Without ws4redis, as after a move; the sample has both.
INSTALLED_APPS = [*(app for app in INSTALLED_APPS if app != "ws4redis"), "wsloop.outbox"]  # noqa: F405
TEMPLATES = [
    {**TEMPLATES[0], "DIRS": [*TEMPLATES[0]["DIRS"], Path(__file__).parent / "ws4redis_pages/templates"]}  # noqa: F405
]

globals().update(overrides(WSLOOP))
