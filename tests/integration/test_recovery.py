"""wsloop.v1 end to end: who comes back gets what was missed, once and in order, or is told; on every Redis there is."""

import base64
import json
import socket

import pytest

from testbed.processes import wait_until
from testbed.redis_servers import RedisServer, redis_binaries
from testbed.topologies import ClusterSetup
from tests.integration.envelopes import V1
from tests.requires import need

SIZE = 2000
SETTINGS = {
    "WSLOOP": {
        "FACILITIES": {
            "test-few-*": {"size": 5},
            "test-hidden-*": {"size": 100, "recover": False},
            "test-latest-*": {"size": 5, "latest_only": True},
            "test-none-*": {},
            "test-*": {"size": SIZE, "ttl": 600},
        },
        "CLOSE_TIMEOUT": 60,  # a slow client reads what it is closed with when the machine gets to it
    }
}


@pytest.fixture(scope="module")
def kept(shared_serve):
    """A site of two workers whose facilities keep a history."""
    return shared_serve(front="http-socket", processes=2, settings=SETTINGS)


def everything(client, last):
    """The data of the messages up to ``last``."""
    return [frame["data"] for frame in client.until("message", data=last) if frame["type"] == "message"]


def test_who_comes_back_gets_what_was_missed_and_then_what_comes(kept, facility):
    client = V1(kept, f"{facility}?subscribe-broadcast")
    welcome = client.frame("welcome")
    assert welcome["subscribed"] == ["broadcast"]
    assert welcome["recovered"] is None
    assert welcome["ping"] == 30
    kept.publish(facility, "1", "2", "3", broadcast=True)
    assert [client.frame("message")["data"] for _ in range(3)] == ["1", "2", "3"]
    client.close()

    kept.publish(facility, "4", "5", broadcast=True)
    again = V1(kept, f"{facility}?subscribe-broadcast", resume=client.resume)
    assert again.frame("welcome")["recovered"] is True
    kept.publish(facility, "6", broadcast=True)
    assert [again.frame("message")["data"] for _ in range(3)] == ["4", "5", "6"]
    again.close()

    # with nothing missed nothing comes; and a line that is cut in mid-recovery goes on where it was cut
    third = V1(kept, f"{facility}?subscribe-broadcast", resume=again.resume)
    assert third.frame("welcome")["recovered"] is True
    kept.publish(facility, "7", "8", "9", broadcast=True)
    assert everything(third, "9") == ["7", "8", "9"]
    cut = V1(kept, f"{facility}?subscribe-broadcast", resume=again.resume)
    assert [cut.frame(kind)["type"] for kind in ("welcome", "message")] == ["welcome", "message"]
    cut.shutdown()
    assert everything(V1(kept, f"{facility}?subscribe-broadcast", resume=cut.resume), "9") == ["8", "9"]


def test_one_token_covers_all_channels(kept, facility):
    john = kept.login("john")
    query = f"{facility}?subscribe-broadcast&subscribe-user&subscribe-group&subscribe-session"
    client = V1(kept, query, cookies=john)
    assert client.frame("welcome")["subscribed"] == ["broadcast", "group:chatters", "user", "session"]
    kept.publish(facility, "seen", users="john")
    assert client.frame("message")["audience"] == "user"
    client.close()
    kept.publish(facility, "to all", broadcast=True)
    kept.publish(facility, "to john", users="john")
    kept.publish(facility, "to the chatters", groups="chatters")
    kept.publish(facility, "to the session", sessions="SELF", cookies=john)
    kept.publish(facility, "to mary", users="mary")
    kept.publish(facility, "to all again", broadcast=True)
    again = V1(kept, query, cookies=john, resume=client.resume)
    assert again.frame("welcome")["recovered"] is True
    got = [again.frame("message") for _ in range(5)]
    assert [(frame["audience"], frame["data"]) for frame in got] == [
        ("broadcast", "to all"),
        ("user", "to john"),
        ("group", "to the chatters"),
        ("session", "to the session"),
        ("broadcast", "to all again"),
    ]
    assert got[2]["name"] == "chatters"


@pytest.mark.parametrize("whose", ["another user", "another facility", "damaged", "fewer channels", "made up", "empty"])
def test_a_token_for_other_channels_recovers_nothing(kept, facility, whose):
    john, mary = kept.login("john"), kept.login("mary")
    query = f"{facility}?subscribe-broadcast&subscribe-user"
    client = V1(kept, query, cookies=john)
    client.frame("welcome")
    client.close()
    kept.publish(facility, "missed", broadcast=True)
    kept.publish(facility, "secret", users="john")
    kept.publish(facility, "not hers", users="mary")
    resume = client.resume
    if whose == "another facility":
        other = V1(kept, f"{facility}-2?subscribe-broadcast&subscribe-user", cookies=john)
        other.frame("welcome")
        resume = other.resume
    elif whose == "damaged":
        resume = ("A" if resume[0] != "A" else "B") + resume[1:]
    elif whose == "fewer channels":
        other = V1(kept, f"{facility}?subscribe-broadcast", cookies=john)
        other.frame("welcome")
        resume = other.resume
    elif whose == "made up":
        resume += "~" + resume.partition(":")[0][:8] + ".1.AAAAAAAAAAAA~x.y.z"
    elif whose == "empty":
        resume = ""
    again = V1(kept, query, cookies=mary if whose == "another user" else john, resume=resume)
    welcome = again.frame("welcome")
    assert welcome["recovered"] is False
    kept.publish(facility, "live", broadcast=True)
    assert everything(again, "live") == ["live"]  # no partial replay
    assert again.resume != resume


def test_a_history_that_does_not_reach_back_far_enough(kept, facility):
    facility = facility.replace("test-", "test-few-")
    client = V1(kept, f"{facility}?subscribe-broadcast")
    client.frame("welcome")
    client.close()
    kept.publish(facility, *map(str, range(5)), broadcast=True)
    enough = V1(kept, f"{facility}?subscribe-broadcast", resume=client.resume)
    assert enough.frame("welcome")["recovered"] is True
    assert everything(enough, "4") == list("01234")
    kept.publish(facility, "5", broadcast=True)
    late = V1(kept, f"{facility}?subscribe-broadcast", resume=client.resume)
    assert late.frame("welcome")["recovered"] is False
    kept.publish(facility, "6", broadcast=True)
    # A worker that was subscribed already may have delivered "5" only now: it is none of the history, then.
    assert everything(late, "6") in (["6"], ["5", "6"])


def test_a_long_recovery_comes_in_pages_between_live_messages(kept, facility):
    client = V1(kept, f"{facility}?subscribe-broadcast&subscribe-user", cookies=(john := kept.login("john")))
    client.frame("welcome")
    client.close()
    padding = "x" * 3000  # four times what may wait for one socket
    for start in range(0, 1400, 200):
        messages = [f"{number} {padding}" for number in range(start, start + 200)]
        kept.publish(facility, *messages, how="context", broadcast=True)
    kept.publish(facility, "to john", users="john")
    again = V1(kept, f"{facility}?subscribe-broadcast&subscribe-user", cookies=john, resume=client.resume)
    assert again.frame("welcome")["recovered"] is True
    seen = [again.frame("message")["data"] for _ in range(50)]
    kept.publish(facility, "live", broadcast=True)  # while it is recovering: it has read a part of the first page
    kept.publish(facility, "live to john", users="john")
    seen += [again.frame("message")["data"] for _ in range(1400 + 3 - 50)]
    assert [text for text in seen if " x" in text] == [f"{number} {padding}" for number in range(1400)]
    assert sorted(text for text in seen if " x" not in text) == ["live", "live to john", "to john"]
    kept.publish(facility, "after", broadcast=True)
    assert again.frame("message")["data"] == "after"


def test_a_message_to_several_audiences_comes_once(kept, facility):
    john = kept.login("john")
    query = f"{facility}?subscribe-broadcast&subscribe-user&subscribe-group"
    client = V1(kept, query, cookies=john)
    bare = kept.connect(query, cookies=john)
    only = V1(kept, f"{facility}?subscribe-user", cookies=john)
    client.frame("welcome")
    only.frame("welcome")
    kept.publish(facility, "1", broadcast=True, users="john", groups="chatters")
    kept.publish(facility, "1", broadcast=True)  # another one that looks the same
    assert [client.frame()["type"] for _ in range(4)] == ["message", "position", "position", "message"]
    assert bare.take(2) == ["1", "1"]
    assert only.frame("message")["data"] == "1"
    client.close()
    kept.publish(facility, "2", broadcast=True, users="john", groups="chatters")
    again = V1(kept, query, cookies=john, resume=client.resume)
    kept.publish(facility, "end", broadcast=True)
    assert everything(again, "end") == ["2", "end"]
    assert bare.until("end") == ["2"]
    # and over the break: it came by way of one channel, the line was cut, and the others still have it
    cut = dict(again.positions)
    kept.publish(facility, "3", broadcast=True, users="john")
    frame = again.frame("message")
    again.positions = {**cut, frame["position"].partition(".")[0]: frame["position"]}
    last = V1(kept, query, cookies=john, resume=again.resume)
    kept.publish(facility, "end", broadcast=True)
    assert everything(last, "end") == ["end"]


def test_what_is_published_between_rendering_and_connecting_is_not_missed(kept, facility):
    john = kept.login("john")
    path = f"/test/page/?facility={facility}"
    token = kept.request("GET", path, cookies=john).text.strip()
    kept.publish(facility, "meanwhile", broadcast=True)
    kept.publish(facility, "to john", users="john")
    client = V1(kept, f"{facility}?subscribe-broadcast&subscribe-user", cookies=john, resume=token)
    assert client.frame("welcome")["recovered"] is True
    assert [client.frame("message")["data"] for _ in range(2)] == ["meanwhile", "to john"]
    assert kept.request("GET", f"/test/page/?facility=test-none-{facility}", cookies=john).text.strip() == ""


def test_publishing_with_and_without_acknowledgement(kept, facility):
    john = kept.login("john")
    query = f"{facility}?subscribe-user&publish-user"
    client, other = V1(kept, query, cookies=john), V1(kept, query, cookies=john)
    bare = kept.connect(query, cookies=john)
    for each in (client, other):
        each.frame("welcome")
    client.publish("Grüße", id=7)
    answers = sorted((client.frame() for _ in range(2)), key=lambda frame: frame["type"])  # on two lines from Redis
    assert answers[0] == {"type": "ack", "id": 7}
    assert (answers[1]["data"], answers[1]["own"]) == ("Grüße", True)
    theirs = other.frame("message")
    assert (theirs["data"], "own" in theirs) == ("Grüße", False)
    assert bare.next() == "Grüße"
    client.send_binary(b"\xff\x00")
    assert base64.b64decode(client.frame("message")["base64"]) == b"\xff\x00"
    assert bare.next() == b"\xff\x00"
    client.send(json.dumps({"type": "publish", "base64": "/wA="}))
    assert client.frame("message")["base64"] == "/wA="
    for wrong in ("hello", "[]", "{}", '{"type": "publish"}', '{"type": "publish", "data": 1, "id": "x"}', "[" * 60000):
        client.send(wrong)
        error = client.frame("error")
        assert error["code"] == "frame"
    assert client.connected
    listener = V1(kept, f"{facility}?subscribe-user", cookies=john)
    listener.until("message", kept=True)
    listener.publish("hello", id="a")
    assert listener.frame("error") == {
        "type": "error",
        "code": "refused",
        "reason": "This socket may not publish.",
        "id": "a",
    }


def test_without_a_history_there_is_no_token_and_the_kept_message_comes(kept, facility):
    facility = facility.replace("test-", "test-none-")
    kept.publish(facility, "kept", broadcast=True)
    client = V1(kept, f"{facility}?subscribe-broadcast")
    assert "token" not in client.frame("welcome")
    frame = client.frame("message")
    assert (frame["data"], frame["kept"], "position" in frame) == ("kept", True, False)
    kept.publish(facility, "live", broadcast=True)
    assert "position" not in client.frame("message")


def test_a_history_may_be_for_views_alone(kept, facility):
    facility = facility.replace("test-", "test-hidden-")
    kept.publish(facility, "1", broadcast=True)
    client = V1(kept, f"{facility}?subscribe-broadcast")
    assert "token" not in client.frame("welcome")
    kept.publish(facility, "2", broadcast=True)
    found = kept.request("GET", f"/test/history/?facility={facility}").json()
    assert [entry["data"] for entry in found] == ["1", "2"]


def test_a_view_reads_the_history_of_its_visitor(kept, facility):
    john = kept.login("john")
    for number in range(3):
        kept.publish(facility, f"{number} to all", broadcast=True)
        kept.publish(facility, f"{number} to john", users="john")
    kept.publish(facility, "to both", broadcast=True, users="john")
    kept.publish(facility, "to mary", users="mary")
    found = kept.request("GET", f"/test/history/?facility={facility}&limit=4", cookies=john).json()
    assert [entry["data"] for entry in found] == ["1 to john", "2 to all", "2 to john", "to both"]
    assert found == sorted(found, key=lambda entry: entry["time"])


def test_a_client_that_does_not_read_gets_the_newest_of_a_latest_only_facility(kept, facility):
    facility = facility.replace("test-", "test-latest-")
    # With a small buffer fewer messages fill the line, before a ping would have to be answered.
    slow = V1(kept, f"{facility}?subscribe-broadcast", sockopt=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)])
    slow.frame("welcome")
    other = V1(kept, f"{facility}?subscribe-broadcast")
    other.frame("welcome")
    padding = "x" * 60000
    for start in range(0, 120, 20):  # 7 MB: more than the kernel and MAX_QUEUED_BYTES hold
        kept.publish(facility, *(f"{number} {padding}" for number in range(start, start + 20)), broadcast=True)
        other.until("message", data=f"{start + 19} {padding}")
    frames = slow.until("message", data=f"119 {padding}")
    numbers = [int(frame["data"].split()[0]) for frame in frames if frame["type"] == "message"]
    assert numbers == sorted(set(numbers))
    assert len(numbers) < 120
    kept.publish(facility, "on it goes", broadcast=True)
    assert slow.frame("message")["data"] == "on it goes"


def test_a_slow_client_is_closed_and_resumes(kept, facility):
    # With a small buffer fewer messages fill the line.
    slow = V1(kept, f"{facility}?subscribe-broadcast", sockopt=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)])
    slow.frame("welcome")
    other = V1(kept, f"{facility}?subscribe-broadcast")
    padding = "x" * 60000
    for start in range(0, 120, 20):
        kept.publish(facility, *(f"{number} {padding}" for number in range(start, start + 20)), broadcast=True)
        other.until("message", data=f"{start + 19} {padding}")
    seen = []
    with pytest.raises(AssertionError, match="4008"):
        while True:
            seen.append(slow.frame("message")["data"])
    again = V1(kept, f"{facility}?subscribe-broadcast", resume=slow.resume)
    assert again.frame("welcome")["recovered"] is True
    seen += [again.frame("message")["data"] for _ in range(120 - len(seen))]
    assert seen == [f"{number} {padding}" for number in range(120)]


def test_a_key_publishes_once(kept, facility):
    client = V1(kept, f"{facility}?subscribe-broadcast")
    client.frame("welcome")
    for text in ("once", "not again"):
        kept.publish(facility, text, broadcast=True, key="order-7")
    kept.publish(facility, "end", broadcast=True)
    assert everything(client, "end") == ["once", "end"]


def test_the_bare_dialect_is_as_it_was(kept, facility):
    """No envelope, no position, also where there is a history."""
    kept.publish(facility, "kept", broadcast=True)
    client = kept.connect(f"{facility}?subscribe-broadcast&publish-broadcast&echo", cookies=kept.login("admin"))
    assert client.next() == "kept"
    client.send("mine")
    client.send_binary(b"\0\xff")
    assert client.take(2) == ["mine", b"\0\xff"]
    kept.publish(facility, {"base64": base64.b64encode(b"\0w1 1 a b -\nforged").decode()}, broadcast=True)
    assert client.next() == "\0w1 1 a b -\nforged"


@pytest.mark.parametrize("binary", redis_binaries().values(), ids=list(redis_binaries()))
def test_every_redis_there_is(serve, facility, binary):
    need("redis-server")
    server = RedisServer(binary=binary).start()
    try:
        site = serve(
            front="http-socket",
            settings={**SETTINGS, "WS4REDIS_CONNECTION": {"host": "127.0.0.1", "port": server.port}},
        )
        recover(site, facility)
        with server.client() as client:
            client.execute_command("CONFIG", "SET", "maxmemory", "1")
            answer = site.request("POST", "/test/publish/", body=order(facility, "too much"))
            assert answer.status == 500
            wait_until(lambda: "command not allowed when used memory > 'maxmemory'" in site.log(), what="the reason")
            assert "too much" not in site.log()
    finally:
        server.close()


def test_a_cluster(serve, facility):
    need("redis-server")
    cluster = ClusterSetup().start()
    try:
        site = serve(
            front="http-socket", processes=2, settings={**SETTINGS, "WS4REDIS_CONNECTION": cluster.connection()}
        )
        recover(site, facility)
        # a message to several audiences is in several slots
        john = site.login("john")
        client = V1(site, f"{facility}?subscribe-broadcast&subscribe-user&subscribe-session&publish-user", cookies=john)
        client.frame("welcome")
        client.until("message", kept=True)
        site.publish(facility, "to both", broadcast=True, users="john")
        client.publish("mine", id=1)
        assert {frame.get("data") for frame in client.until("message", own=True)} >= {"to both", "mine"}
    finally:
        cluster.close()


def order(facility, *messages, **audience):
    return json.dumps({"facility": facility, "messages": messages, "audience": audience or {"broadcast": True}})


def recover(site, facility):
    client = V1(site, f"{facility}?subscribe-broadcast")
    client.frame("welcome")
    site.publish(facility, "1", broadcast=True)
    assert client.frame("message")["data"] == "1"
    client.close()
    site.publish(facility, "2", "3", broadcast=True)
    again = V1(site, f"{facility}?subscribe-broadcast", resume=client.resume)
    assert again.frame("welcome")["recovered"] is True
    site.publish(facility, "4", broadcast=True)
    assert everything(again, "4") == ["2", "3", "4"]


def test_an_error_of_redis_reaches_the_caller_with_its_words(serve, private_redis, facility):
    site = serve(front="http-socket", redis=private_redis, settings=SETTINGS)
    with private_redis.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        answer = site.request("POST", "/test/publish/", body=order(facility, "payload"))
        assert answer.status == 500
        wait_until(lambda: "You can't write against a read only replica" in site.log(), what="the reason in the log")
        assert "payload" not in site.log()
        client.execute_command("REPLICAOF", "NO", "ONE")
    site.publish(facility, "again", broadcast=True)
