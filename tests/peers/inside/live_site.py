"""The ``wsgi.py`` of the sample project in Channels' tests: Django serves its pages, and Channels its sockets."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import sys  # noqa: E402

sys.path.insert(0, os.getcwd())  # before this checkout, which has a package named `tests`, too
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.sample_project.config.settings"

import hosting  # noqa: E402
from django.conf import settings  # noqa: E402

hosting.adapt(settings)
settings.DATABASES["default"]["NAME"] = settings.DATABASES["default"]["TEST"]["NAME"]

from django.contrib.staticfiles.handlers import StaticFilesHandler  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402

pages = StaticFilesHandler(get_wsgi_application())

from channels.routing import get_default_application  # noqa: E402

from wsloop.server import WebsocketServer  # noqa: E402

sockets = WebsocketServer(asgi=get_default_application())


def application(environ, start_response):
    return (sockets if environ["PATH_INFO"].startswith("/ws/") else pages)(environ, start_response)
