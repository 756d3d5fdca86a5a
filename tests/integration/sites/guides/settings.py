"""A project that uses Channels: what a site of the tests has, and Channels' own settings."""

import os
from pathlib import Path

from tests.integration.sites.settings import *  # noqa: F403

INSTALLED_APPS = ["channels", *INSTALLED_APPS]  # noqa: F405
ROOT_URLCONF = "tests.integration.sites.guides.urls"
ASGI_APPLICATION = "tests.integration.sites.guides.asgi.application"
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        # Without this, redis-py gives up after 5 s from version 8 on, as long as channels_redis waits for an event, and
        # ends with an error what no event has reached in this time: on every server.
        "CONFIG": {"hosts": [{"address": os.environ["REDIS_URL"], "socket_timeout": None}]},
    },
    "wsloop": {"BACKEND": "wsloop.layers.RedisChannelLayer"},  # for Channels' consumers, too
}
TEMPLATES = [{**TEMPLATES[0], "DIRS": [Path(__file__).parent / "templates", *TEMPLATES[0]["DIRS"]]}]  # noqa: F405
MIDDLEWARE = [each for each in MIDDLEWARE if "csp" not in each]  # noqa: F405 - the pages have their scripts in them
