"""``manage.py wsloop_outbox``: once, and until it is asked to end."""

import io
import os
import re
import signal

import gevent
import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from gevent.event import Event

from testbed.processes import wait_until
from wsloop.outbox import delivery
from wsloop.outbox.management.commands import wsloop_outbox
from wsloop.outbox.models import Message

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def wait(facility):
    """Write messages that wait in the outbox."""

    def wait(*texts):
        with transaction.atomic():
            for text in texts:
                delivery.put([f"unit:broadcast:{facility}"], text.encode(), 0, facility)
            connection.run_on_commit.clear()

    return wait


@pytest.fixture
def attempts(monkeypatch):
    """The command's calls of ``drain``: how each of them ended."""
    ended, drain = [], wsloop_outbox.drain

    def attempt(limit, using):
        try:
            ended.append(drain(limit, using))
        except Exception as exc:
            ended.append(exc)
            raise
        return ended[-1]

    monkeypatch.setattr(wsloop_outbox, "drain", attempt)
    return ended


def run_until(condition, number=signal.SIGTERM, interval=0.01):
    """Run the command, end it by a signal once the condition holds, and return its lines without their times."""
    output = io.StringIO()

    def end():
        try:
            condition()
        finally:
            os.kill(os.getpid(), number)

    ending = gevent.spawn(end)
    call_command("wsloop_outbox", interval=interval, stdout=output)
    ending.get()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in output.getvalue().splitlines())
    return [line[20:] for line in output.getvalue().splitlines()]


FIRST, LAST = "Publishing the outbox", "Stopped publishing the outbox"


# Once.


def test_once(received, wait, capsys):
    texts = [f"message {number}" for number in range(delivery.BATCH + 1)]
    wait(*texts)
    call_command("wsloop_outbox", once=True)
    assert received() == texts
    assert not Message.objects.exists()
    assert capsys.readouterr().out == ""


def test_once_leaves_what_comes_meanwhile_to_the_next_run(received, wait, monkeypatch):
    """It would never end on a busy site."""
    drain = wsloop_outbox.drain

    def drain_while_others_write(limit, using):
        done = drain(limit, using)
        wait("new")
        return done

    monkeypatch.setattr(wsloop_outbox, "drain", drain_while_others_write)
    wait(*["old"] * (delivery.BATCH + 1))
    with pytest.raises(CommandError, match=r"^Messages that remain in the outbox: 2; refused by Redis: 0$"):
        call_command("wsloop_outbox", once=True)
    assert received() == ["old"] * (delivery.BATCH + 1)


def test_once_with_refused_messages(received, wait):
    wait("refused")
    Message.objects.update(refused="WRONGTYPE")
    wait("one")
    with pytest.raises(CommandError, match=r"^Messages that remain in the outbox: 1; refused by Redis: 1$"):
        call_command("wsloop_outbox", once=True)
    assert received() == ["one"]


def test_once_without_redis(own_redis, wait):
    wait("one")
    own_redis.kill()
    with pytest.raises(CommandError, match=r"^Could not publish the outbox; its messages wait: ConnectionError: "):
        call_command("wsloop_outbox", once=True)
    assert Message.objects.count() == 1


# Until it is asked to end.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(received, wait, attempts, number):
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    wait("one")

    def publish_another():
        wait_until(lambda: 0 in attempts, what="an empty outbox")
        wait("two")
        wait_until(lambda: received() == ["one", "two"])

    assert run_until(publish_another, number) == [FIRST, LAST]
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers


def test_a_signal_ends_the_longest_pause_at_once(shared_redis, attempts):
    with gevent.Timeout(10):
        run_until(lambda: wait_until(lambda: attempts), interval=1000)


def test_a_signal_ends_it_between_two_batches(shared_redis, wait, attempts):
    wait(*["message"] * (3 * delivery.BATCH))
    run_until(lambda: wait_until(lambda: attempts))
    assert attempts[0] == delivery.BATCH
    assert Message.objects.count() == 3 * delivery.BATCH - sum(attempts)


def test_redis_lost_and_back(own_redis, receive, wait, attempts, monkeypatch):
    wait("one", "two")
    own_redis.kill()
    received, listening = None, Event()
    attempt = wsloop_outbox.drain

    def attempt_later(limit, using):
        if len(attempts) >= 4:
            listening.wait()  # or it is published before anybody hears it
        return attempt(limit, using)

    monkeypatch.setattr(wsloop_outbox, "drain", attempt_later)

    def start_again():
        nonlocal received
        wait_until(lambda: len(attempts) >= 4, what="the fourth attempt")
        own_redis.start()
        received = receive(own_redis)
        listening.set()
        wait_until(lambda: received() == ["one", "two"])

    lines = run_until(start_again)
    assert len(lines) == 4
    assert lines[0] == FIRST
    assert lines[1].startswith("Could not publish the outbox; its messages wait: ConnectionError: ")
    assert lines[2:] == ["Publishing the outbox again", LAST]


def test_a_connection_to_the_database_that_broke_is_replaced(received, wait, monkeypatch):
    broken, drain = [], wsloop_outbox.drain

    def drain_and_break(limit, using):
        done = drain(limit, using)
        if not broken:
            connection.connection.close()
            broken.append(connection.connection)
        return done

    monkeypatch.setattr(wsloop_outbox, "drain", drain_and_break)

    def publish():
        wait_until(lambda: broken)
        wait("one")
        wait_until(lambda: received() == ["one"])

    assert run_until(publish) == [FIRST, LAST]


def test_pauses_grow_to_half_a_minute_and_shrink_again(shared_redis, wait, monkeypatch):
    answers = [DatabaseError("away")] * 8 + [0]
    pauses = []

    def drain(limit, using):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def pause(self, seconds):
        pauses.append(seconds)
        return not answers

    monkeypatch.setattr(wsloop_outbox, "drain", drain)
    monkeypatch.setattr(wsloop_outbox.Ending, "wait", pause)
    call_command("wsloop_outbox", interval=1.0, stdout=io.StringIO())
    assert pauses == [2, 4, 8, 16, 30, 30, 30, 30, 1]


def test_a_backlog_is_published_without_pauses_and_told_as_it_shrinks(received, wait, attempts, monkeypatch):
    monkeypatch.setattr(wsloop_outbox, "PROGRESS", 0)
    wait(*["message"] * (2 * delivery.BATCH + 1))
    lines = run_until(lambda: wait_until(lambda: len(attempts) == 3), interval=1000)
    left = [f"Messages that wait in the outbox: {count}" for count in (delivery.BATCH + 1, 1)]
    assert lines == [FIRST, *left, LAST]
    assert attempts == [delivery.BATCH, delivery.BATCH, 1]


@pytest.mark.parametrize("interval", [0, -1, float("inf"), float("nan")])
def test_an_interval_that_is_none_is_refused(interval):
    with pytest.raises(CommandError, match="--interval must be a positive number of seconds, not "):
        call_command("wsloop_outbox", interval=interval)
