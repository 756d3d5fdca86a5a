"""Who is there, end to end: frames, views and signals, over two workers of which one is killed."""

import os
import signal

import pytest

from testbed.processes import wait_until
from tests.integration.envelopes import V1

SETTINGS = {
    "WSLOOP": {"FACILITIES": {"test-none-*": {}, "test-*": {"presence": True}}},
    "WS4REDIS_ALLOWED_CHANNELS": None,
}
WATCH = "subscribe-broadcast&subscribe-presence"


@pytest.fixture
def place(serve, private_redis):
    return serve(redis=private_redis, front="http-socket", processes=2, settings=SETTINGS)


def who(site, facility):
    return site.request("GET", f"/test/who/?facility={facility}").json()


def event(client, name, timeout=10.0):
    """The user of the next event of that name."""
    return client.until("presence", event=name, timeout=timeout)[-1]["user"]


def test_who_comes_and_goes_is_told_over_all_workers(place, facility):
    john, mary = place.login("john"), place.login("mary")
    first, second = place.workers()
    with place.only(first):
        watcher = V1(place, f"{facility}?{WATCH}", cookies=mary)
        welcome = watcher.frame("welcome")
    assert welcome["subscribed"] == ["broadcast", "presence"]
    assert event(watcher, "join") == "mary"
    with place.only(second):
        tabs = [V1(place, f"{facility}?subscribe-broadcast", cookies=john)]
    with place.only(first):
        tabs.append(place.connect(f"{facility}?subscribe-broadcast", cookies=john))  # the dialect does not matter
    assert event(watcher, "join") == "john"
    late = V1(place, f"{facility}?{WATCH}")
    assert late.frame("welcome")["presence"]["users"] == ["john", "mary"]
    assert watcher.until("presence", event="anonymous")[-1]["count"] == 1
    wait_until(lambda: who(place, facility) == {"users": ["john", "mary"], "anonymous": 1}, what="all of them")
    tabs[0].close()
    tabs[1].close()
    frames = watcher.until("presence", event="leave", timeout=20)
    assert frames[-1]["user"] == "john"
    assert not [frame for frame in frames[:-1] if frame.get("user")]  # one join, one leave, however many tabs
    assert who(place, facility)["users"] == ["mary"]
    wait_until(lambda: place.log().split("\n").count("online john") == 1, what="the signal, once over all workers")
    wait_until(lambda: place.log().split("\n").count("offline john") == 1, what="the other signal")


def test_members_of_a_worker_that_is_killed_leave_in_time(place, facility):
    john, mary = place.login("john"), place.login("mary")
    first, second = place.workers()
    with place.only(first):
        watcher = V1(place, f"{facility}?{WATCH}", cookies=mary)
        assert event(watcher, "join") == "mary"
    with place.only(second):
        V1(place, f"{facility}?subscribe-broadcast", cookies=john)
    assert event(watcher, "join") == "john"
    os.kill(second, signal.SIGKILL)
    assert event(watcher, "leave", timeout=40) == "john"
    assert who(place, facility)["users"] == ["mary"]


def test_who_is_there_is_shown_where_it_is_switched_on_and_allowed(serve, place, facility):
    john = place.login("john")
    off = V1(place, f"test-none-{facility}?{WATCH}", cookies=john)
    assert off.frame("welcome")["subscribed"] == ["broadcast"]
    bare = place.connect(f"{facility}?{WATCH}", cookies=john)
    place.publish(facility, "end", broadcast=True)
    assert bare.until("end") == []
    without = {"WS4REDIS_ALLOWED_CHANNELS": "tests.integration.sites.hooks.without_presence"}
    strict = serve(front="http-socket", settings={"WSLOOP": SETTINGS["WSLOOP"], **without})
    welcome = V1(strict, f"{facility}?{WATCH}", cookies=strict.login("john")).frame("welcome")
    assert (welcome["subscribed"], "presence" in welcome) == (["broadcast"], False)
