"""The sample site's settings, plus what one run wants to be different.

``SITE_SETTINGS`` (JSON object) overrides any setting. ``SITE_VAR`` is the directory that stands in for ``var/``.
"""

import json
import os
from pathlib import Path

from project.settings import *  # noqa: F403
from project.settings import WSLOOP
from wsloop.options import ALIASES

VAR_DIR = Path(os.environ["SITE_VAR"])
STATIC_ROOT = Path(os.environ["SITE_STATIC"])
PASSWORD_HASHERS = ["testbed.sample.hashers.Quick"]
ROOT_URLCONF = "testbed.sample.urls"


def overrides(site: dict[str, object]) -> dict[str, object]:
    """Return what this run wants to be different.

    A run's ``WSLOOP`` replaces limits and facilities. Where Redis is, and who may what, stays as the site has it,
    unless the run names it, there or by its name of ws4redis.

    Args:
        site: ``WSLOOP`` of the site.
    """
    found = dict(json.loads(os.environ.get("SITE_SETTINGS", "{}")))
    kept = {name for name in site if ALIASES.get(name) not in found}
    if "WSLOOP" in found:
        kept &= ALIASES.keys()
    return {**found, "WSLOOP": {name: site[name] for name in site if name in kept} | found.get("WSLOOP", {})}


globals().update(overrides(WSLOOP))
