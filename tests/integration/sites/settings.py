"""The sample site as the integration tests run it: its own settings, plus what one test wants to be different.

``SITE_SETTINGS`` (JSON object) overrides any setting; settings that JSON cannot hold (callables) have modules of their
own beside this one. ``SITE_VAR`` is the directory that stands in for ``var/``.
"""

import json
import os
from pathlib import Path

from project.settings import *  # noqa: F403

VAR_DIR = Path(os.environ["SITE_VAR"])
STATIC_ROOT = Path(os.environ["SITE_STATIC"])
PASSWORD_HASHERS = ["tests.integration.sites.hashers.Quick"]
ROOT_URLCONF = "tests.integration.sites.urls"
WS4REDIS_ALLOWED_CHANNELS = "tests.integration.sites.hooks.everything"  # the sample's rules are tested by name

INSTALLED_APPS = [*INSTALLED_APPS, "wsloop.outbox"]  # noqa: F405

globals().update(json.loads(os.environ.get("SITE_SETTINGS", "{}")))
