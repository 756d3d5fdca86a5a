"""The sample site as the integration tests run it: the settings of the testbed, and what sites may plug in.

Settings that JSON cannot hold (callables) have modules of their own beside this one.
"""

from testbed.sample.settings import *  # noqa: F403
from testbed.sample.settings import overrides

ROOT_URLCONF = "tests.integration.sites.urls"
WS4REDIS_ALLOWED_CHANNELS = "tests.integration.sites.hooks.everything"  # the sample's rules are tested by name
INSTALLED_APPS = [*INSTALLED_APPS, "wsloop.outbox"]  # noqa: F405

globals().update(overrides())
