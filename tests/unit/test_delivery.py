"""From the outbox's table to Redis: order, once, at least once, and what does not hold up the others."""

import logging
import unittest

import gevent
import pytest
import redis.exceptions
from django.db import DatabaseError, connection, transaction
from django.test import TestCase

from tests.unit.peer import WAIT
from wsloop.backend import keys, pool
from wsloop.outbox import delivery
from wsloop.outbox.models import Message

pytestmark = pytest.mark.usefixtures("database")
ALL = 1_000_000


@pytest.fixture
def put(facility):
    """Write a message into the outbox, to everybody who listens to the test's facility."""

    def put(text, channels=None, expire=0, key="", facility=facility):
        delivery.put(channels or [f"unit:broadcast:{facility}"], text.encode(), expire, facility, key)

    return put


@pytest.fixture
def wait(put):
    """Write messages that wait: as if their process had ended between the commit and what comes after it."""

    def wait(*texts, **options):
        with transaction.atomic():
            for text in texts:
                put(text, **options)
            connection.run_on_commit.clear()

    return wait


def rows():
    return [bytes(payload).decode() for payload in Message.objects.order_by("pk").values_list("payload", flat=True)]


# Transactions.


def test_outside_of_a_transaction_it_is_published_at_once(shared_redis, received, put):
    put("now")
    assert received() == ["now"]
    assert rows() == []


def test_a_savepoint_that_is_rolled_back_takes_its_message_with_it(shared_redis, received, put):
    with transaction.atomic():
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            put("never")
            raise ZeroDivisionError
        put("kept")
    assert received() == ["kept"]


def test_a_later_savepoint_that_is_rolled_back_does_not_keep_the_others_waiting(shared_redis, received, put):
    with transaction.atomic():
        put("kept")
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            put("never")
            raise ZeroDivisionError
    assert received() == ["kept"]
    assert rows() == []


def test_one_look_into_the_outbox_for_a_transaction(shared_redis, put, monkeypatch):
    looks = []
    monkeypatch.setattr(delivery, "drain", lambda limit, using: looks.append(limit))
    with transaction.atomic():
        put("one")
        with transaction.atomic():
            put("two")
        put("three")
    assert looks == [delivery.AFTER_COMMIT]


def test_callbacks_that_a_test_case_of_django_captures(shared_redis, received, put):
    """Nothing is committed in it, so what comes after a commit piles up."""

    class Case(TestCase):
        def test(self):
            put("one")
            with transaction.atomic():
                put("two")
            with self.captureOnCommitCallbacks(execute=True):
                put("three")
            with self.captureOnCommitCallbacks(execute=True), transaction.atomic():
                put("four")

    result = unittest.TestResult()
    unittest.TestSuite([Case("test")]).run(result)
    assert result.wasSuccessful(), result.errors
    assert received() == ["one", "two", "three", "four"]
    assert rows() == []


def test_what_is_not_committed_is_not_published(shared_redis, received, put):
    with transaction.atomic():
        put("perhaps")
        with pytest.raises(RuntimeError, match="durable"):
            delivery.drain(ALL)
    assert received() == ["perhaps"]


def test_an_audience_of_nobody_needs_no_row(shared_redis):
    delivery.put([], b"lost", 0, "news")
    assert rows() == []


# Redis away.


def test_redis_away_at_the_commit(own_redis, put, caplog, receive):
    own_redis.kill()
    with transaction.atomic():
        put("one")
        put("two")
    with transaction.atomic():
        put("three")
    assert rows() == ["one", "two", "three"]
    assert [record.levelname for record in caplog.records if record.name == "wsloop.outbox"] == ["WARNING"] * 2
    assert "Could not publish the outbox; its messages wait: ConnectionError: " in caplog.text

    own_redis.start()
    received = receive(own_redis)
    put("four")
    assert received() == ["one", "two", "three", "four"]
    assert rows() == []


def test_redis_away_is_told_to_who_drains(own_redis, wait):
    wait("one")
    own_redis.kill()
    with pytest.raises(redis.exceptions.ConnectionError):
        delivery.drain(ALL)
    assert rows() == ["one"]


def test_a_full_redis_refuses_nothing_for_good(own_redis, wait, receive):
    with own_redis.client() as client:
        client.config_set("maxmemory", "1")
        wait("one", "two", expire=60)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            delivery.drain(ALL)
        client.config_set("maxmemory", "0")
    received = receive(own_redis)
    assert delivery.drain(ALL) == 2
    assert received() == ["one", "two"]


# Once.


class Crash(Exception):
    pass


def test_a_crash_between_publishing_and_deleting(shared_redis, received, wait, monkeypatch):
    wait("one", "two")

    def crash(rows):
        delivery_publish(rows)
        raise Crash

    delivery_publish = delivery._publish
    monkeypatch.setattr(delivery, "_publish", crash)
    with pytest.raises(Crash):
        delivery.drain(ALL)
    monkeypatch.undo()
    assert rows() == ["one", "two"]
    wait("three")
    assert delivery.drain(ALL) == 3
    assert received() == ["one", "two", "three"]


def test_an_answer_that_is_lost(gate, private_redis, wait, receive):
    received = receive(private_redis)
    delivery.put(["unit:broadcast:first"], b"loads the script", 0, "first")
    wait("one", "two")
    gate.lose_next_answer()
    with pytest.raises(redis.exceptions.ConnectionError):
        delivery.drain(ALL)
    assert received() == ["one", "two"]
    assert rows() == ["one", "two"]
    assert delivery.drain(ALL) == 2
    assert received() == ["one", "two"]


def test_concurrent_drainers(shared_redis, received, wait, monkeypatch):
    """All look before any of them publishes, batch after batch, and all publish what they saw."""
    texts = [f"message {number}" for number in range(250)]
    wait(*texts)
    looked, oldest = [], delivery._oldest

    def look(count, using):
        found = oldest(count, using)
        looked.append(len(found))
        gevent.sleep(0)  # lets the others look
        return found

    monkeypatch.setattr(delivery, "_oldest", look)
    gevent.joinall([gevent.spawn(delivery.drain, ALL) for _ in range(4)], raise_error=True, timeout=WAIT)
    assert looked[:4] == [delivery.BATCH] * 4
    assert received() == texts
    assert rows() == []


def test_a_slow_drainer_that_saw_the_same_rows_changes_nothing(shared_redis, received, wait):
    wait("one", "two")
    seen = delivery._oldest(10, None)
    assert delivery.drain(ALL) == 2
    wait("three")
    assert delivery.drain(ALL) == 1
    delivery._publish(seen)
    assert received() == ["one", "two", "three"]


# Batches.


def test_more_than_a_batch_keeps_its_order(shared_redis, received, wait):
    texts = [f"message {number}" for number in range(2 * delivery.BATCH + 1)]
    wait(*texts)
    assert delivery.drain(ALL) == len(texts)
    assert received() == texts


def test_no_more_than_the_limit(shared_redis, received, wait):
    wait("one", "two", "three")
    assert delivery.drain(2) == 2
    assert received() == ["one", "two"]
    assert rows() == ["three"]
    assert delivery.drain(2) == 1


def test_a_batch_is_one_round_trip(gate, wait):
    pool.client().ping()
    wait("one", "two", "three")
    gate.hold("MULTI", "EVALSHA", "EXEC")
    draining = gevent.spawn(delivery.drain, ALL)
    gate.wait_for(5)
    assert [command[0] for command in gate.commands()] == [b"MULTI", b"EVALSHA", b"EVALSHA", b"EVALSHA", b"EXEC"]
    gate.hold()
    gate.let_through(5)
    assert draining.get(timeout=WAIT) == 3


def test_what_was_written_arrives_as_it_was(shared_redis, redis_client, facility):
    delivery.put([f"unit:user:john:{facility}"], b"\0\xff bytes", 60, facility)
    assert redis_client.ttl(f"unit:user:john:{facility}") in range(50, 61)
    assert pool.client().get(f"unit:user:john:{facility}") == b"\0\xff bytes"


def test_the_options_of_the_facility_apply(shared_redis, wait, facility, with_settings):
    with_settings(WSLOOP={"FACILITIES": {facility: {"size": 2}}})
    wait("one", "two", "three")
    delivery.drain(ALL)
    _, history = keys.history_keys(f"unit:broadcast:{facility}")
    assert [fields[b"d"] for _, fields in pool.client().xrange(history)] == [b"two", b"three"]


# A message that Redis refuses.


@pytest.fixture
def broken(shared_redis, redis_client, facility, with_settings):
    """A facility with a history; in the place of the history of user john there is something else."""
    with_settings(WSLOOP={"FACILITIES": {facility: {"size": 10}}})
    channel = f"unit:user:john:{facility}"
    names = [key.decode() for key in keys.history_keys(channel)]
    for key in names:
        redis_client.set(key, "no hash and no stream")
    return channel, lambda: redis_client.delete(*names)


def test_a_message_that_redis_refuses_does_not_hold_up_the_others(broken, received, wait, caplog):
    channel, repair = broken
    wait("one")
    wait("refused", channels=[channel])
    wait("two")
    assert delivery.drain(ALL) == 3
    assert received() == ["one", "two"]
    (row,) = Message.objects.all()
    assert bytes(row.payload) == b"refused"
    assert "wrong kind of value" in row.refused
    (record,) = [record for record in caplog.records if record.name == "wsloop.outbox"]
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith(f"Set aside message {row.pk} of the outbox, which Redis refuses: ")
    assert channel not in record.getMessage()

    wait("three")  # it is not tried again by itself
    assert delivery.drain(ALL) == 1
    repair()
    Message.objects.update(refused="")  # as docs/how-to/outbox.rst says
    assert delivery.drain(ALL) == 1
    assert received(f"unit:user:john:{row.facility}") == ["refused"]
    assert rows() == []


def test_a_batch_of_nothing_else_does_not_hold_up_the_others(broken, received, wait):
    channel, _ = broken
    wait(*["refused"] * (delivery.BATCH + 1), channels=[channel])
    wait("one")
    delivery.drain(ALL)
    assert received() == ["one"]
    assert rows() == ["refused"] * (delivery.BATCH + 1)


def test_a_read_only_redis_refuses_nothing_for_good(own_redis, wait):
    with own_redis.client() as client:
        client.replicaof("127.0.0.1", 1)
        wait("one", "two", expire=60)
        with pytest.raises(redis.exceptions.ResponseError):
            delivery.drain(ALL)
        assert rows() == ["one", "two"]
        client.replicaof("NO", "ONE")
    assert delivery.drain(ALL) == 2


# The database away.


def test_a_row_that_cannot_be_written_is_told_to_the_caller(shared_redis, put):
    with pytest.raises(DatabaseError), connection.execute_wrapper(_fail), transaction.atomic():
        put("never")


def _fail(execute, sql, params, many, context):
    raise DatabaseError("the database is away")


def test_errors_of_the_database_after_the_commit_are_logged(shared_redis, put, caplog, monkeypatch, received):
    def drain(limit, using):
        raise DatabaseError("the database is\naway")

    with monkeypatch.context() as patched:
        patched.setattr(delivery, "drain", drain)
        put("waits")
    assert "Could not publish the outbox; its messages wait: DatabaseError: the database is away" in caplog.text
    assert delivery.drain(ALL) == 1
    assert received() == ["waits"]
