"""Publishing with wsloop's publisher and with ws4redis's, from views and from processes without wsloop."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from testbed.processes import wait_until
from tests.integration.harness import RedisProxy

LISTEN = "subscribe-broadcast&subscribe-user&subscribe-group&subscribe-session"


def session_of(cookies):
    return dict(pair.split("=") for pair in cookies.split("; "))["sessionid"]


@pytest.fixture
def listeners(site, facility, john, mary):
    """What john and mary hear, each with one socket that listens to everything."""
    return {
        "john": site.connect(f"{facility}?{LISTEN}", cookies=john),
        "mary": site.connect(f"{facility}?{LISTEN}", cookies=mary),
    }


def heard(listeners, stock, facility):
    """Everything that each of them heard so far."""
    stock.publish(facility, "end", broadcast=True, expire=0)
    return {who: client.until("end") for who, client in listeners.items()}


@pytest.mark.parametrize("publisher", ["stock", "wsloop"])
@pytest.mark.parametrize(
    ("audience", "hear"),
    [
        ({"broadcast": True}, "john mary"),
        ({"users": ["john"]}, "john"),
        ({"users": ["john", "mary"]}, "john mary"),
        ({"users": ["SELF"]}, "john"),
        ({"users": ["SELF", "mary"]}, "john mary"),
        ({"users": True}, "john"),
        ({"groups": ["chatters"]}, "john mary"),
        ({"groups": ["SELF"]}, "john mary"),
        ({"groups": True}, "john mary"),
        ({"sessions": ["SELF"]}, "john"),
        ({"sessions": True}, "john"),
        ({"users": ["nobody"], "groups": ["none"], "sessions": ["no"]}, ""),
    ],
    ids=str,
)
def test_arguments_of_ws4redis(site, stock, facility, john, listeners, publisher, audience, hear):
    site.publish(facility, "hello", cookies=john, publisher=publisher, **audience)
    expected = {who: ["hello"] if who in hear.split() else [] for who in listeners}
    assert heard(listeners, stock, facility) == expected


@pytest.mark.parametrize(
    ("audience", "hear"),
    [
        ({"users": "john"}, "john"),
        ({"users": "SELF"}, "john"),
        ({"users": {"account": "mary"}}, "mary"),
        ({"users": [{"account": "john"}, "mary"]}, "john mary"),
        ({"groups": "chatters"}, "john mary"),
        ({"groups": "SELF"}, "john mary"),
        ({"sessions": "SELF"}, "john"),
    ],
    ids=str,
)
def test_single_values_and_objects(site, stock, facility, john, listeners, audience, hear):
    site.publish(facility, "hello", cookies=john, **audience)
    expected = {who: ["hello"] if who in hear.split() else [] for who in listeners}
    assert heard(listeners, stock, facility) == expected


def test_a_single_session_key(site, stock, facility, mary, listeners):
    site.publish(facility, "hello", sessions=session_of(mary))
    assert heard(listeners, stock, facility) == {"john": [], "mary": ["hello"]}


def test_self_of_an_anonymous_request_is_nobody(site, stock, facility, listeners):
    site.publish(facility, "hello", users="SELF", groups="SELF", sessions="SELF")
    assert heard(listeners, stock, facility) == {"john": [], "mary": []}


@pytest.mark.parametrize(
    "message", [{"a": [1, None, "ä"]}, ["list", 2], 17, 1.5, True, {"nested": {"x": "\u2028</script>"}}], ids=str
)
def test_what_json_can_hold_arrives_as_json_text(site, facility, message):
    client = site.connect(f"{facility}?subscribe-broadcast")
    site.publish(facility, message, broadcast=True)
    text = client.next()
    assert isinstance(text, str)
    assert json.loads(text) == message


def test_text_is_not_encoded_again(site, facility):
    client = site.connect(f"{facility}?subscribe-broadcast")
    site.publish(facility, '{"already": "json"}', "plain ä€😀", broadcast=True)
    assert client.take(2) == ['{"already": "json"}', "plain ä€😀"]


def test_bytes(site, facility):
    client = site.connect(f"{facility}?subscribe-broadcast")
    site.publish(facility, {"base64": "/wD+"}, {"base64": "dGV4dA=="}, broadcast=True)
    assert client.take(2) == [b"\xff\x00\xfe", "text"]


@pytest.mark.parametrize("how", ["plain", "context", "pipeline", "on_commit"])
def test_ways_to_publish_keep_the_order(site, stock, facility, john, listeners, how):
    messages = [str(number) for number in range(100)]
    site.publish(facility, *messages, cookies=john, how=how, users="SELF", groups=["nobody"])
    assert heard(listeners, stock, facility) == {"john": messages, "mary": []}


def test_a_rolled_back_transaction_publishes_nothing(site, stock, redis_client, facility, listeners):
    site.publish(facility, "never", how="rolled-back", broadcast=True)
    assert redis_client.keys(f"*{facility}") == []
    assert heard(listeners, stock, facility) == {"john": [], "mary": []}


@pytest.mark.parametrize("publisher", ["stock", "wsloop"])
@pytest.mark.parametrize(("expire", "kept"), [(None, (3500, 3600)), (60, (50, 60)), (0, (-2, -2))])
def test_expire(site, redis_client, facility, publisher, expire, kept):
    """Seconds for which the message is kept; ``WS4REDIS_EXPIRE`` of the sample is an hour, 0 keeps nothing."""
    site.publish(facility, "keep me", publisher=publisher, expire=expire, broadcast=True)
    assert kept[0] <= redis_client.ttl(f"ws:broadcast:{facility}") <= kept[1]


@pytest.mark.parametrize("package", ["ws4redis", "wsloop"])
def test_both_publishers_in_a_shell_of_the_site(site, facility, john, package):
    """Also in processes without a server, gevent or a request: cron jobs, task queues, ``manage.py shell``."""
    client = site.connect(f"{facility}?subscribe-user", cookies=john)
    site.manage(
        "shell",
        "-c",
        f"from {package}.publisher import RedisPublisher\n"
        "from ws4redis.redis_store import RedisMessage\n"
        f"RedisPublisher(facility={facility!r}, users=['john']).publish_message(RedisMessage('from a shell'))",
    )
    assert client.next() == "from a shell"


def test_fetch_message(site, stock, facility, john, mary):
    def fetch(cookies, audience="any"):
        path = f"/test/fetch/?facility={facility}&audience={audience}"
        return site.request("GET", path, cookies=cookies).json()["message"]

    assert fetch(john) is None
    stock.publish(facility, "to all", broadcast=True)
    assert [fetch(john), fetch(mary), fetch(None)] == ["to all"] * 3
    stock.publish(facility, "to chatters", groups=["chatters"])
    assert [fetch(john), fetch(None)] == ["to chatters", "to all"]
    stock.publish(facility, "to john", users=["john"])
    assert [fetch(john), fetch(mary)] == ["to john", "to chatters"]
    stock.publish(facility, "to the session", sessions=[session_of(john)])
    assert [fetch(john), fetch(john, "user"), fetch(john, "group"), fetch(john, "broadcast")] == [
        "to the session",
        "to john",
        "to chatters",
        "to all",
    ]
    assert fetch(mary, "user") is None


def test_one_round_trip_however_many_channels(serve, redis_server, redis_client, facility):
    """No answer comes before the last question has been asked: who waits for one in between waits for ever."""
    seen, expected, complete = bytearray(), [], threading.Event()

    def note(data):
        seen.extend(data)
        if all(question in seen for question in expected):
            complete.set()

    def expect(questions):
        seen.clear()
        expected[:] = [question.encode() for question in questions]
        complete.clear()

    proxy = RedisProxy(redis_server.port, question=note, answer=lambda data: complete.wait())
    try:
        site = serve(redis=proxy)
        users = [f"user{number}" for number in range(50)]
        channels = [f"ws:user:{user}:{facility}" for user in users]
        site.publish(facility, "the first one connects", users=users)
        expect([f"{channel}\r\n" for channel in channels])
        site.publish(facility, "hello", users=users)
        assert redis_client.mget(channels) == ["hello"] * 50
        messages = [f"message {number};" for number in range(20)]
        expect(messages)
        site.publish(facility, *messages, how="context", users=users)
        assert redis_client.mget(channels) == ["message 19;"] * 50
    finally:
        complete.set()
        proxy.close()


def test_threads_of_the_operating_system_publish_beside_ordinary_requests(direct, facility):
    """As gevent's pool of threads, which the documentation recommends for asyncio, in one worker."""
    listener = direct.connect(f"{facility}?subscribe-broadcast")
    expected = {f"{how} {number}" for how in ("thread", "plain") for number in range(20)}
    with ThreadPoolExecutor(10) as requests:
        done = [
            requests.submit(direct.publish, facility, text, broadcast=True, how=text.split()[0]) for text in expected
        ]
        for each in done:
            each.result()
    assert set(listener.take(len(expected))) == expected


@pytest.mark.parametrize(
    ("audience", "words"),
    [
        ({"users": ["VISITOR"]}, "ValueError: users contains the user object of a visitor who has not signed in"),
        ({"users": [1]}, "TypeError: users must be user names, user objects or SELF, not 1"),
        ({"groups": [""]}, "ValueError: groups must be"),
    ],
)
def test_nobody_in_particular_is_no_addressee(site, facility, audience, words):
    site.mark_log()
    order = {"facility": facility, "messages": ["secret"], "audience": audience}
    answer = site.request("POST", "/test/publish/", body=json.dumps(order))
    assert answer.status == 500
    wait_until(lambda: words in site.log_since_mark(), what="the error in the log")
