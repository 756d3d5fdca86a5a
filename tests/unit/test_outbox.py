"""The outbox as a view uses it: ``publish_message(…, outbox=True)``."""

import subprocess
import sys

import pytest
from django.db import transaction

from testbed.processes import ROOT
from wsloop.outbox.models import Message
from wsloop.publisher import RedisPublisher


@pytest.fixture
def publish(facility):
    publisher = RedisPublisher(facility=facility, broadcast=True)
    return lambda text, **options: publisher.publish_message(text, outbox=True, expire=0, **options)


def test_committed_is_published(shared_redis, database, received, publish):
    with transaction.atomic():
        publish("one")
        publish("two")
        assert received() == []
        assert Message.objects.count() == 2
    assert received() == ["one", "two"]
    assert not Message.objects.exists()


def test_rolled_back_is_forgotten(shared_redis, database, received, publish):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        publish("never")
        raise ZeroDivisionError
    assert received() == []
    assert not Message.objects.exists()


def test_the_key_of_the_caller_counts(shared_redis, database, received, publish):
    publish("paid", key="order-7-paid")
    publish("paid", key="order-7-paid")
    publish("sent", key="order-7-sent")
    assert received() == ["paid", "sent"]


def test_the_package_is_imported_without_settings():
    """Django imports it to find its models, before there are any."""
    script = "import sys, wsloop.outbox.apps; assert 'wsloop.outbox.models' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)
