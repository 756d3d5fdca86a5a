"""A plugin of pytest: the sockets in the tests of ws4redis are opened on this server, instead of Django's live server.

The tests run in a greenlet of the worker of a uWSGI (``worker.py``), with the settings of their example site, moved as
the guide says: "wsloop" in ``INSTALLED_APPS`` instead of "ws4redis", and wsloop's server. Publishers, messages and
settings are imported from ws4redis, of the same checkout. Two packages that the site names do not work with supported
versions of Django and Python: sessions are in the database instead of redis_sessions, and django_nose, which only runs
tests, is left out.
"""

import os
import sys
import types
import warnings

warnings.simplefilter("ignore")  # of names that the settings import, and naive dates in the fixtures
redis_sessions = types.ModuleType("redis_sessions")
redis_sessions.session = types.ModuleType("redis_sessions.session")
sys.modules |= {"redis_sessions": redis_sessions, "redis_sessions.session": redis_sessions.session}
os.environ["DJANGO_SETTINGS_MODULE"] = "chatserver.tests.settings"

from django.conf import settings  # noqa: E402

apps = [each for each in settings.INSTALLED_APPS if each not in ("django_nose", "ws4redis")]
settings.INSTALLED_APPS = ["wsloop", *apps]
settings.ALLOWED_HOSTS = ["*"]
settings.USE_TZ = True
settings.WS4REDIS_CONNECTION = os.environ["PEER_REDIS"]
# Several tests wait for a message that an earlier one has left, which they do for 10 s only.
settings.WS4REDIS_EXPIRE = 3600
settings.SESSION_ENGINE = "django.contrib.sessions.backends.db"
# A file, which requests in other greenlets see, too.
settings.DATABASES["default"] |= {"NAME": os.path.abspath("site.sqlite"), "TEST": {"NAME": os.path.abspath("t.sqlite")}}

from django.core.wsgi import get_wsgi_application  # noqa: E402

pages = get_wsgi_application()

from django.contrib.sessions.backends.db import SessionStore  # noqa: E402
from django.test import LiveServerTestCase  # noqa: E402

from wsloop.server import WebsocketServer  # noqa: E402

redis_sessions.session.SessionStore = SessionStore
LiveServerTestCase.live_server_url = f"http://{os.environ['PEER_ADDRESS']}"  # Django's own is started, and not used
sockets = WebsocketServer()


def application(environ, start_response):
    return (sockets if environ["PATH_INFO"].startswith("/ws/") else pages)(environ, start_response)
