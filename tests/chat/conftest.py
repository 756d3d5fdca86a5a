"""The sample application inside the test process: Django's test client, a database in memory and a real Redis."""

import contextlib
import os

import pytest

# Before the settings are read, and whatever the developer's environment says.
os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
os.environ["DJANGO_SECRET_KEY"] = "only-for-the-tests-of-the-sample"
os.environ["DATABASE_URL"] = "sqlite://:memory:"
os.environ["DEMO"] = "1"
os.environ.pop("DJANGO_DEBUG", None)

import django

django.setup()

from django.conf import settings  # noqa: E402
from django.contrib.auth import get_user_model  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.test import Client, override_settings  # noqa: E402
from django.test.utils import setup_test_environment, teardown_test_environment  # noqa: E402

from testbed.processes import free_port  # noqa: E402
from wsloop.backend import pool  # noqa: E402
from wsloop.protocol.messages import unwrap  # noqa: E402

QUICK_HASHER = "django.contrib.auth.hashers.MD5PasswordHasher"  # these tests are not about passwords


@pytest.fixture(scope="session")
def django_site(tmp_path_factory):
    """The sample's settings and a migrated database with the demonstration accounts."""
    setup_test_environment()
    with override_settings(PASSWORD_HASHERS=[QUICK_HASHER], STATIC_ROOT=tmp_path_factory.mktemp("static")):
        call_command("migrate", verbosity=0)
        call_command("demo_data", verbosity=0)
        yield
    connection.close()
    teardown_test_environment()


@pytest.fixture
def database(django_site):
    """The database as ``django_site`` left it; what the test changes is undone."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


@pytest.fixture
def client(database):
    """A browser in which nobody has signed in."""
    return Client()


@pytest.fixture
def sign_in(database):
    """Return a browser in which a demonstration account has signed in: ``sign_in("john")``."""

    def sign_in(username):
        client = Client()
        assert client.login(username=username, password={"admin": "admin"}.get(username, "secret"))
        return client

    return sign_in


@pytest.fixture
def john(database):
    return get_user_model().objects.get(username="john")


@pytest.fixture
def mary(database):
    return get_user_model().objects.get(username="mary")


@contextlib.contextmanager
def connected_to(url):
    """Let wsloop use another Redis meanwhile, with a client of its own."""
    pool.forget()
    with override_settings(WSLOOP={**settings.WSLOOP, "REDIS": url}):
        yield
        pool.client().close()
    pool.forget()


@pytest.fixture
def listen(private_redis, django_site):
    """Listen to a channel of the Redis that the views publish to: ``listen("user:john:form")``."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(connected_to(private_redis.url))
        redis_client = stack.enter_context(private_redis.client())
        yield lambda channel: stack.enter_context(contextlib.closing(Listener(redis_client, channel)))


class Listener:
    """A subscription to one channel of the sample."""

    def __init__(self, redis_client, channel):
        self._redis_client = redis_client
        self._channel = f"ws:{channel}"
        self._subscription = redis_client.pubsub()
        self._subscription.subscribe(self._channel)
        assert self._subscription.get_message(timeout=5)["type"] == "subscribe"

    def next(self):
        """Return the next text that was published, without what the history of its facility puts before it."""
        return unwrap(self._subscription.get_message(timeout=5)["data"].encode()).payload.decode()

    def is_silent(self):
        """Tell whether nothing was published so far: what is published now would come after it."""
        self._redis_client.publish(self._channel, "end")
        return self.next() == "end"

    def close(self):
        self._subscription.close()


@pytest.fixture
def no_redis(django_site):
    """Nobody listens where the settings say that Redis is."""
    with connected_to(f"redis://127.0.0.1:{free_port()}/0"):
        yield
