"""ws4redis's names: its own where it is installed, and stand-ins in a process in which it cannot be imported."""

import subprocess
import sys

from ws4redis import redis_store, subscriber
from ws4redis.publisher import RedisPublisher as StockPublisher
from ws4redis.wsgi_server import WebsocketWSGIServer

from testbed.processes import ROOT
from wsloop import stock
from wsloop.facilities.subscriptions import Subscriber
from wsloop.publisher import RedisPublisher
from wsloop.server import WebsocketServer

NOT_INSTALLED = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ws4redis", "six"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
from gevent import monkey
monkey.patch_all()
from django.conf import settings
auth = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
settings.configure(
    INSTALLED_APPS=["wsloop", *auth, "django.contrib.staticfiles"],
    USE_TZ=True,
    WSLOOP={"HEARTBEAT": "--heartbeat--", "PREFIX": "mysite", "CLIENTS_MAY_PUBLISH": True},
)
"""


def run(code):
    code = f"{NOT_INSTALLED}{code}\nassert not [name for name in sys.modules if name.partition('.')[0] == 'ws4redis']"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_where_it_is_installed_its_objects_are_used():
    """Sites compare with SELF, and derive classes from these, or ask whether something is one of them."""
    assert (stock.SELF, stock.RedisMessage) == (redis_store.SELF, redis_store.RedisMessage)
    assert (stock.RedisStore, stock.RedisSubscriber) == (redis_store.RedisStore, subscriber.RedisSubscriber)
    assert issubclass(Subscriber, subscriber.RedisSubscriber)
    assert issubclass(RedisPublisher, StockPublisher)
    assert issubclass(WebsocketServer, WebsocketWSGIServer)


def test_without_it_every_module_can_be_imported():
    run("""
import importlib, pkgutil
from wsloop.server import WebsocketServer  # sets Django up, if wsgi.py does not call get_wsgi_application()
import wsloop
for module in pkgutil.walk_packages(wsloop.__path__, "wsloop."):
    if "migrations" not in module.name and module.name not in ("wsloop.testing.plugin", "wsloop.outbox.models"):
        if not module.name.startswith("wsloop.outbox"):
            importlib.import_module(module.name)
from django.core.management import call_command
call_command("check")
WebsocketServer()
""")


def test_without_it_a_site_has_publishers_messages_and_subscribers():
    run("""
import types
from wsloop.server import WebsocketServer
from django.contrib.auth.models import AnonymousUser
from django.test import RequestFactory
from wsloop.facilities import subscriptions
from wsloop.facilities.recording import RecordingClient
from wsloop.publisher import SELF, RedisMessage, RedisPublisher

assert RedisMessage("--heartbeat--") is RedisMessage(b"--heartbeat--") is None
assert RedisMessage("hello") == RedisMessage(b"hello") == b"hello"
request = RequestFactory().get("/ws/news?subscribe-broadcast&publish-user&echo")
request.user, request.session = AnonymousUser(), None
assert RedisPublisher(facility="news", users=["john", SELF], request=request)._publishers == ["mysite:user:john:news"]

released = []

class Own(subscriptions.Subscriber):
    def release(self):
        super().release()
        released.append(self.get_prefix())

sys.modules["own"] = types.SimpleNamespace(Own=Own)
assert subscriptions.subscriber_class("ws4redis.subscriber.RedisSubscriber") is subscriptions.Subscriber
assert subscriptions.subscriber_class("own.Own") is Own
server = WebsocketServer()
assert server.process_subscriptions(request) == (["subscribe-broadcast", "publish-user"], True)
server.process_request(request)
assert (request.session, request.user) == (None, None)
request.COOKIES["sessionid"] = "unknown-key"
server.process_request(request)
assert request.session.session_key == "unknown-key"

subscriber = subscriptions.work_out(Own, request, "news", ["subscribe-broadcast"])
assert list(subscriber._subscription.channels) == [b"mysite:broadcast:news"]
subscriptions.release(subscriber)
assert released == ["mysite:"]
assert subscriber.releases_itself and not subscriber.publishes_itself

user = types.SimpleNamespace(groups=types.SimpleNamespace(all=lambda: [types.SimpleNamespace(name="chatters")]))
session = {}
from wsloop.apps import note_groups
note_groups(user, types.SimpleNamespace(session=session))
assert session == {"ws4redis:memberof": ["chatters"]}
note_groups(object(), types.SimpleNamespace(session=session))
""")


def test_a_subscriber_that_is_not_there_is_reported():
    run("""
import django
django.setup()
from django.core.exceptions import ImproperlyConfigured
from wsloop.facilities import subscriptions
try:
    subscriptions.subscriber_class("ws4redis.subscriber.Other")
except ImproperlyConfigured as exc:
    assert "No module named 'ws4redis'" in str(exc), exc
else:
    raise AssertionError
""")


def test_what_a_site_has_derived_from_its_server_comes_before_it_and_not_its_loop():
    class Mixin(WebsocketWSGIServer):
        def process_request(self, request):
            super().process_request(request)
            request.seen = True

    class Server(Mixin, WebsocketServer):
        pass

    assert Server.__call__ is WebsocketServer.__call__
