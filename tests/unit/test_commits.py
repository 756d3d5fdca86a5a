"""A message that waits for a commit depends on the transactions that are open, whichever databases they are in."""

import contextlib
import unittest

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connections, transaction
from django.test import TestCase

from wsloop import commits
from wsloop.outbox import delivery
from wsloop.outbox.models import Message
from wsloop.publisher import RedisPublisher


@pytest.fixture
def orders(database, tmp_path):
    """A second database, with the outbox's table."""
    connections.settings["orders"] = {**connections.settings["default"], "NAME": str(tmp_path / "orders.sqlite3")}
    try:
        call_command("migrate", database="orders", verbosity=0)
        yield "orders"
    finally:
        connections["orders"].close()
        del connections["orders"]
        del connections.settings["orders"]


@pytest.fixture
def publish():
    """Register something to be done after the commit; what was done is in ``publish.done``."""

    def publish(name, using=None):
        commits.on_commit(lambda: publish.done.append(name), using)

    publish.done = []
    return publish


class Rollback(Exception):
    pass


@contextlib.contextmanager
def rolled_back(using):
    with contextlib.suppress(Rollback), transaction.atomic(using=using):
        yield
        raise Rollback


def test_without_a_transaction_at_once(orders, publish):
    publish("any")
    publish("named", "orders")
    assert publish.done == ["any", "named"]


@pytest.mark.parametrize("using", ["default", "orders"])
def test_the_transaction_that_is_open_counts_whichever_database_it_is_in(orders, publish, using):
    with transaction.atomic(using=using):
        publish("committed")
        assert publish.done == []
    assert publish.done == ["committed"]
    with rolled_back(using):
        publish("rolled back")
    assert publish.done == ["committed"]


def test_a_savepoint_that_is_rolled_back(orders, publish):
    with transaction.atomic(using="orders"):
        with rolled_back("orders"):
            publish("never")
        publish("committed")
    assert publish.done == ["committed"]


def test_of_several_all_must_be_committed(orders, publish):
    with transaction.atomic():
        with transaction.atomic(using="orders"):
            publish("both")
        assert publish.done == []
    assert publish.done == ["both"]


@pytest.mark.parametrize("outer", ["default", "orders"])
def test_of_several_one_that_is_rolled_back_is_enough(orders, publish, outer):
    inner = {"default": "orders", "orders": "default"}[outer]
    with transaction.atomic(using=outer), rolled_back(inner):
        publish("never")
    with rolled_back(outer), transaction.atomic(using=inner):
        publish("never")
    assert publish.done == []


def test_one_that_is_named_counts_alone(orders, publish):
    with rolled_back("default"), transaction.atomic(using="orders"):
        publish("orders", "orders")
    with transaction.atomic(), rolled_back("orders"):
        publish("never", "orders")
    assert publish.done == ["orders"]


def test_a_database_that_is_not_in_autocommit_mode_is_an_error(orders, publish):
    connection = connections["orders"]
    connection.ensure_connection()
    connection.set_autocommit(False)
    try:
        with pytest.raises(transaction.TransactionManagementError):
            publish("never")
    finally:
        connection.rollback()
        connection.set_autocommit(True)


def test_transactions_of_a_test_case_do_not_count(orders, publish):
    """Django opens one in each database around each test, and none of them is ever committed."""

    class Test(TestCase):
        databases = {"default", "orders"}

        def test(self):
            with self.captureOnCommitCallbacks(execute=True) as callbacks:
                publish("default")
            assert len(callbacks) == 1
            with self.captureOnCommitCallbacks(using="orders", execute=True), transaction.atomic(using="orders"):
                publish("orders")

    result = unittest.TestResult()
    unittest.TestSuite([Test("test")]).run(result)
    assert not result.errors, result.errors[0][1]
    assert not result.failures, result.failures[0][1]
    assert publish.done == ["default", "orders"]


def test_nothing_is_registered_where_one_database_is_not_in_autocommit_mode(orders, publish):
    connection = connections["orders"]
    connection.ensure_connection()
    connection.set_autocommit(False)
    try:
        with transaction.atomic():
            with pytest.raises(transaction.TransactionManagementError, match="'orders' is not in autocommit mode"):
                publish("never")
            assert connections["default"].run_on_commit == []
        with pytest.raises(transaction.TransactionManagementError, match="The outbox needs a transaction"):
            delivery.put(["channel"], b"never", 0, "facility", using="orders")
        assert not Message.objects.using("orders").exists()
    finally:
        connection.rollback()
        connection.set_autocommit(True)


# The publisher, and the outbox.


def test_a_message_is_forgotten_with_the_transaction_it_depends_on(orders, received, facility):
    publisher = RedisPublisher(facility=facility, broadcast=True)
    with rolled_back("orders"):
        publisher.publish_message("never", on_commit=True)
        publisher.publish_message("not either", on_commit="orders")
        publisher.publish_message("of the other database", on_commit="default")
    with transaction.atomic(using="orders"):
        publisher.publish_message("committed", on_commit=True)
        assert received() == ["of the other database"]
    assert received() == ["of the other database", "committed"]


@pytest.mark.parametrize("argument", ["on_commit", "outbox"])
def test_a_database_that_is_none(database, received, facility, argument):
    publisher = RedisPublisher(facility=facility, broadcast=True)
    with pytest.raises(ValueError, match=rf"{argument} names the database 'ordres'; there are \['default'\]"):
        publisher.publish_message("never", **{argument: "ordres"})
    with pytest.raises(TypeError, match=f"{argument} must be True or the alias of a database, not 7"):
        publisher.publish_message("never", **{argument: 7})
    assert received() == []


def test_a_row_that_would_not_depend_on_the_transaction_is_refused(orders, received, facility):
    publisher = RedisPublisher(facility=facility, broadcast=True)
    with (
        transaction.atomic(using="orders"),
        pytest.raises(ImproperlyConfigured, match="in the database 'default', but the open transaction is in"),
    ):
        publisher.publish_message("never", outbox=True)
    assert received() == []
    assert not Message.objects.exists()


def test_a_row_in_the_database_of_the_transaction(orders, received, facility):
    publisher = RedisPublisher(facility=facility, broadcast=True)
    with rolled_back("orders"):
        publisher.publish_message("never", outbox="orders")
    with transaction.atomic(), transaction.atomic(using="orders"):
        publisher.publish_message("both", outbox=True)
        publisher.publish_message("orders", outbox="orders")
        assert received() == []
    assert sorted(received()) == ["both", "orders"]
    assert not Message.objects.exists()
    assert not Message.objects.using("orders").exists()


def test_the_command_publishes_from_the_database_that_is_named(orders, own_redis, receive, facility):
    received = receive(own_redis)
    publisher = RedisPublisher(facility=facility, broadcast=True)
    channel = publisher._publishers[0]
    for using in ("default", "orders"):
        row = Message(channels=[channel], payload=using.encode(), expire=0, facility=facility, key=using)
        row.save(using=using)
    call_command("wsloop_outbox", once=True, database="orders")
    assert received() == ["orders"]
    assert (delivery.waiting().count(), delivery.waiting("orders").count()) == (1, 0)
    call_command("wsloop_outbox", once=True)
    assert received() == ["orders", "default"]
    with pytest.raises(CommandError, match=r"--database must be one of \['default', 'orders'\], not 'ordres'"):
        call_command("wsloop_outbox", once=True, database="ordres")
