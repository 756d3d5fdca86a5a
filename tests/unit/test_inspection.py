"""What workers tell about themselves, when somebody asks over Redis; here all of it is one process."""

import json
import os
import platform
import time

import gevent
import pytest
from django.contrib.auth.models import User

from testbed.processes import wait_until
from tests.unit.peer import WAIT
from wsloop import blocked, engine, metrics, snapshots
from wsloop.backend import asking, keys
from wsloop.publisher import RedisPublisher
from wsloop.server import WebsocketServer
from wsloop.visitors import inspection


@pytest.fixture
def here(front, shared_redis):
    """The one worker: its snapshot."""
    engine.engine().broker.ready()

    def snapshot():
        (worker,), missing = snapshots.snapshots()
        assert missing == 0
        return worker

    return snapshot


def numbers(before, after, *names):
    return [after[name] - before[name] for name in names]


def test_a_worker_says_which_one_it_is(here):
    worker = here()
    assert (worker["machine"], worker["pid"], worker["worker"]) == (platform.node(), os.getpid(), os.getpid())
    assert worker["started"] <= worker["time"] == pytest.approx(time.time(), abs=WAIT)
    assert worker["memory"] > 1_000_000
    assert worker["cpu"] > 0
    assert worker["redis_up"] == 1
    assert 0 < worker["redis_seconds"] < WAIT


def test_sockets_are_counted_by_dialect_facility_and_audiences_while_they_are_open(
    here, front, facility, with_settings
):
    with_settings(WSLOOP={"FACILITIES": {"test-*": {"size": 5}}})
    bare = front.connect(f"{facility}?subscribe-broadcast")
    v1 = front.connect(f"{facility}?subscribe-broadcast&subscribe-session", HTTP_SEC_WEBSOCKET_PROTOCOL="wsloop.v1")
    front.connect("elsewhere?subscribe-broadcast")
    page = front.connect("", HTTP_SEC_WEBSOCKET_PROTOCOL="wsloop.v1")
    worker = here()
    assert sorted(worker["sockets"]) == [
        ["ws4redis", "other", "broadcast", 1],
        ["ws4redis", "test-*", "broadcast", 1],
        ["wsloop.v1", "(page)", "none", 1],
        ["wsloop.v1", "test-*", "broadcast", 1],
    ]
    assert ["wsloop.v1", "test-*", "broadcast", 1] in worker["subscriptions"]
    page.frame()
    page.text(json.dumps([{"type": "subscribe", "id": 1, "facility": facility, "audiences": ["broadcast"]}]))
    wait_until(lambda: ["wsloop.v1", "test-*", "broadcast", 2] in here()["subscriptions"], what="the page's")
    for peer in (bare, v1, page):
        peer.close()
    wait_until(lambda: here()["sockets"] == [["ws4redis", "other", "broadcast", 1]], what="the others leaving")
    assert here()["subscriptions"] == [["ws4redis", "other", "broadcast", 1]]


def test_messages_and_bytes_are_counted_both_ways(here, front, facility, with_settings):
    with_settings(WSLOOP={"CLIENTS_MAY_PUBLISH": True})
    sender = front.connect(f"{facility}?publish-broadcast")
    receivers = [front.connect(f"{facility}?subscribe-broadcast") for _ in range(3)]
    before = here()
    sender.text("x" * 100)
    for peer in receivers:
        assert peer.message() == "x" * 100
    after = here()
    assert numbers(before, after, "messages_in", "messages_out") == [1, 3]
    assert numbers(before, after, "bytes_in", "bytes_out") == [106, 3 * 102]  # with the headers of the frames
    assert after["busiest"][0] == [facility, 1, 3]


def test_the_way_from_redis_to_sockets_is_measured_where_a_message_has_its_time(here, front, facility, with_settings):
    with_settings(WSLOOP={"FACILITIES": {"test-*": {"size": 5}}})
    peer = front.connect(f"{facility}?subscribe-broadcast")
    front.connect("bare?subscribe-broadcast")
    before = here()["delivery"]
    RedisPublisher(facility=facility, broadcast=True).publish_message("with a time")
    RedisPublisher(facility="bare", broadcast=True).publish_message("bare")
    assert peer.message() == "with a time"
    after = here()["delivery"]
    assert sum(after[:-1]) == sum(before[:-1]) + 1
    assert 0 <= after[-1] - before[-1] < WAIT


def test_clocks_that_differ_are_taken_into_account(here, front, facility, with_settings, monkeypatch):
    with_settings(WSLOOP={"FACILITIES": {"test-*": {"size": 5}}})
    now = time.time
    monkeypatch.setattr("wsloop.visitors.inspection.time.time", lambda: now() - 1000)
    peer = front.connect(f"{facility}?subscribe-broadcast")
    here()  # measures it
    assert engine.engine().hub.clock_offset == pytest.approx(1000, abs=WAIT)
    before = here()["delivery"][-1]
    RedisPublisher(facility=facility, broadcast=True).publish_message("hello")
    assert peer.message() == "hello"
    assert 0 <= here()["delivery"][-1] - before < WAIT


def test_handshakes_and_ends_are_counted(here, front, facility, with_settings):
    with_settings(WSLOOP={"MAX_FACILITY_SIZE": 50})

    def counted(worker):
        opened, refused = (sum(worker["handshakes"].get(each, [0])[:-1]) for each in ("opened", "414"))
        return opened, refused, worker["closes"].get("1000", 0)

    before = counted(here())
    peer = front.connect(f"{facility}?subscribe-broadcast")
    assert front.call("x" * 51).status == 414
    peer.send(b"\x88\x82\0\0\0\0\x03\xe8")
    assert peer.closing() == 1000
    peer.close()
    wait_until(lambda: not len(engine.engine().hub), what="the end")
    assert counted(here()) == tuple(number + 1 for number in before)


def test_clients_that_do_not_read_are_named_slowest_first(here, front, facility, signed_in):
    stuck = front.connect(f"{facility}?subscribe-broadcast&subscribe-user", HTTP_COOKIE=signed_in.cookie)
    publisher = RedisPublisher(facility=facility, broadcast=True)
    for _ in range(20):
        publisher.publish_message("x" * 30_000)
    engine.engine().broker.sync()
    wait_until(lambda: here()["slow_sockets"], what="the kernel being full")
    worker = here()
    (slow,) = worker["slowest"]
    assert slow["queued_bytes"] == worker["queued_bytes"] > 0
    assert (slow["user"], slow["dialect"], slow["facilities"]) == (str(User.objects.get().pk), "ws4redis", [facility])
    assert slow["audiences"] == ["broadcast", "user"]
    assert signed_in.session_key not in json.dumps(worker)
    stuck.close()


def test_the_sockets_of_a_user_are_described_without_the_key_of_the_session(here, front, facility, signed_in):
    front.connect(f"{facility}?subscribe-session", HTTP_COOKIE=signed_in.cookie)
    front.connect(f"{facility}?subscribe-broadcast")
    (answer,), _ = asking.ask("sockets", {"user": str(User.objects.get().pk)})
    assert answer["sockets"] == 1
    assert answer["shown"][0]["audiences"] == ["session"]
    assert signed_in.session_key not in json.dumps(answer)
    (everybody,), _ = asking.ask("sockets", {"facility": facility})
    assert everybody["sockets"] == 2


def test_a_loop_that_is_held_up_is_late(front, shared_redis):
    engine.engine()
    late = sum(metrics.LOOP_DELAY.counts[7:])  # of more than 0.1 s
    gevent.sleep(inspection.TICK * 1.2)
    blocked.sleep(1)  # that of the operating system: all greenlets wait
    wait_until(lambda: sum(metrics.LOOP_DELAY.counts[7:]) > late, what="a tick that was late")


def test_redis_that_is_away_is_down(front, own_redis):
    made = engine.engine()
    made.broker.ready()
    assert made.inspection.gauges()["redis_up"] == 1
    own_redis.kill()
    wait_until(lambda: made.inspection.gauges()["redis_up"] == 0, what="the worker noticing")
    made.inspection._probe()
    assert "redis_seconds" not in made.inspection.gauges()


def test_a_look_at_redis_under_way_ends_with_the_inspection(front, own_redis):
    made = engine.engine()
    made.broker.ready()
    wait_until(lambda: made.inspection._probing.dead, what="the first one")
    own_redis.pause()
    made.inspection._begin_probe()
    gevent.sleep(0.05)
    assert not made.inspection._probing.dead
    made.inspection.stop()
    assert made.inspection._probing.dead


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'{"id": "a"}', b'{"id": "a b", "do": "snapshot"}', b"\xff"])
def test_what_is_no_request_is_ignored(here, redis_client, payload):
    redis_client.publish(keys.requests_channel().decode(), payload)
    assert here()["redis_up"] == 1


def test_a_route_is_the_place_of_a_consumer(here, front):
    from django.urls import path

    from wsloop.consumers import WebsocketConsumer

    app = WebsocketServer(urlpatterns=[path("ws/rooms/<slug:room>/", WebsocketConsumer.as_websocket())])
    assert front.call("rooms/lobby/", app=app).status == 101
    assert here()["sockets"] == [["consumer", "ws/rooms/<slug:room>/", "none", 1]]
