"""The sample site's settings, plus what one run wants to be different.

``SITE_SETTINGS`` (JSON object) overrides any setting. ``SITE_VAR`` is the directory that stands in for ``var/``.
"""

import json
import os
from pathlib import Path

from project.settings import *  # noqa: F403

VAR_DIR = Path(os.environ["SITE_VAR"])
STATIC_ROOT = Path(os.environ["SITE_STATIC"])
PASSWORD_HASHERS = ["testbed.sample.hashers.Quick"]
ROOT_URLCONF = "testbed.sample.urls"


def overrides() -> dict[str, object]:
    """Return what this run wants to be different."""
    return dict(json.loads(os.environ.get("SITE_SETTINGS", "{}")))


globals().update(overrides())
