"""A small site that uses wsloop: the settings of the unit tests."""

import atexit
import tempfile

_directory = tempfile.TemporaryDirectory(prefix="unit-")
atexit.register(_directory.cleanup)

SECRET_KEY = "only-for-the-unit-tests"
ALLOWED_HOSTS = ["testserver", "localhost", "[::1]", "127.0.0.1"]
INSTALLED_APPS = [
    "wsloop",
    "wsloop.outbox",
    "ws4redis",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{_directory.name}/db.sqlite3"}}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # these tests are not about passwords
USE_TZ = True
# Under the names of ws4redis, because tests set WSLOOP as a whole.
WEBSOCKET_URL = "/ws/"
WS4REDIS_PREFIX = "unit"
WS4REDIS_HEARTBEAT = "--heartbeat--"


def WS4REDIS_ALLOWED_CHANNELS(request, channels):
    """Whoever asks may publish and listen: the default of wsloop is tested by name."""
    return channels
