"""What arrives, how often, in which order: echo, the persisted message, bursts, and that open means subscribed."""

import contextlib
import itertools
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import websocket
from websockets.sync.client import connect as websockets_connect

from testbed.clients import HEARTBEAT, next_of
from testbed.processes import wait_until
from tests.integration.harness import RedisProxy

BOTH = "subscribe-broadcast&publish-broadcast"


@contextlib.contextmanager
def background(work):
    """Call ``work(stop)`` in a thread while the block runs; ``stop`` is an event. Its errors are raised at the end."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        running = executor.submit(work, stop)
        try:
            yield
        finally:
            stop.set()
        running.result(30)


# --- echo -------------------------------------------------------------------------------------------------------------


def test_without_echo_the_sender_does_not_hear_itself(site, stock, facility):
    sender, other = (site.connect(f"{facility}?{BOTH}") for _ in range(2))
    sender.send("mine")
    assert other.next() == "mine"
    stock.publish(facility, "end", broadcast=True)
    assert sender.until("end") == []


def test_with_echo_the_sender_hears_itself_exactly_once(site, stock, facility):
    sender = site.connect(f"{facility}?{BOTH}&echo")
    for text in ("a", "a", "b"):
        sender.send(text)
    assert sender.take(3) == ["a", "a", "b"]
    stock.publish(facility, "end", broadcast=True)
    assert sender.until("end") == []


def test_own_messages_on_several_channels_are_suppressed_on_all_of_them(site, stock, facility, john, mary):
    audiences = ("broadcast", "user", "group", "session")
    query = "&".join(f"subscribe-{audience}&publish-{audience}" for audience in audiences)
    sender = site.connect(f"{facility}?{query}", cookies=john)
    witness = site.connect(f"{facility}?subscribe-broadcast", cookies=mary)
    for text in ("one", "two", "one"):
        sender.send(text)
    assert witness.take(3) == ["one", "two", "one"]
    stock.publish(facility, "end", groups=["chatters"])
    assert sender.until("end") == []


def test_an_identical_message_from_somebody_else_arrives(site, stock, facility):
    sender, other = (site.connect(f"{facility}?{BOTH}") for _ in range(2))
    sender.send("same words")
    assert other.next() == "same words"
    other.send("same words")
    assert sender.next() == "same words"
    stock.publish(facility, "same words", broadcast=True)
    assert sender.next() == "same words"
    assert other.next() == "same words"
    stock.publish(facility, "end", broadcast=True)
    assert sender.until("end") == []
    assert other.until("end") == []


@pytest.mark.parametrize("workers", ["the same worker", "another worker"])
def test_both_send_the_same_words_at_the_same_time(site, stock, facility, workers):
    """Each hears the other exactly once in every round, whichever of the two was first."""
    first, second = site.workers() if workers == "another worker" else [site.workers()[0]] * 2
    with site.only(first):
        here = site.connect(f"{facility}?{BOTH}")
    with site.only(second):
        there = site.connect(f"{facility}?{BOTH}")
    rounds = 200
    start = threading.Barrier(2)

    def send(client):
        start.wait()
        for number in range(rounds):
            client.send(f"round {number // 2}")  # every text twice in a row

    with ThreadPoolExecutor(2) as executor:
        list(executor.map(send, (here, there)))
    expected = [f"round {number // 2}" for number in range(rounds)]
    assert here.take(rounds) == expected
    assert there.take(rounds) == expected
    stock.publish(facility, "end", broadcast=True)
    assert here.until("end") == []
    assert there.until("end") == []


def test_the_same_words_from_the_publisher_at_the_same_time(site, stock, facility):
    sender = site.connect(f"{facility}?{BOTH}")
    rounds = 100
    with ThreadPoolExecutor(1) as executor:
        published = executor.submit(stock.publish, facility, *["same words"] * rounds, broadcast=True, expire=0)
        for _ in range(rounds):
            sender.send("same words")
        published.result()
    assert sender.take(rounds) == ["same words"] * rounds
    stock.publish(facility, "end", broadcast=True)
    assert sender.until("end") == []


# --- text and binary --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["plain", "äöü € 😀", " ", "0", "null", '{"json": true}', "a\x00b", "\r\n\r\n", "x" * 60_000]
)
def test_text_stays_text(site, stock, facility, text):
    client = site.connect(f"{facility}?{BOTH}&echo")
    client.send(text)
    assert client.next() == text
    stock.publish(facility, text, broadcast=True)
    assert client.next() == text


@pytest.mark.parametrize("data", [b"\xff\xfe", b"\xc3\x28 cut", b"\xed\xa0\x80 surrogate", b"\x00\xff" * 30_000])
def test_what_is_not_utf8_is_binary(site, redis_client, facility, data):
    client = site.connect(f"{facility}?{BOTH}&echo")
    client.send_binary(data)
    assert client.next() == data
    redis_client.publish(f"ws:broadcast:{facility}", data)
    assert client.next() == data


def test_a_message_in_fragments_is_one_message(site, facility):
    with websockets_connect(site.ws_url(f"{facility}?{BOTH}&echo"), compression=None) as client:
        client.send(["Hel", "lo", "", " wörld"])
        assert next_of(client) == "Hello wörld"
        client.send([b"\xff", b"\x00", b"\xfe"])
        assert next_of(client) == b"\xff\x00\xfe"


def test_fragments_of_two_sockets_do_not_mix(direct, facility):
    """The worker survives a stray continuation, too: uWSGI's own API would have mixed them up or crashed."""
    one, other = (direct.connect(f"{facility}?{BOTH}&echo") for _ in range(2))
    stray = direct.connect(f"{facility}?{BOTH}")
    continuation, text = websocket.ABNF.OPCODE_CONT, websocket.ABNF.OPCODE_TEXT
    (worker,) = direct.workers()
    one.send_frame(websocket.ABNF.create_frame("secret of one", text, 0))
    one.round_trip()  # control frames may come between fragments
    stray.send_frame(websocket.ABNF.create_frame("tail", continuation, 1))
    assert stray.closing() == 1002
    other.send_frame(websocket.ABNF.create_frame("of the other ", text, 0))
    other.send_frame(websocket.ABNF.create_frame("whole", continuation, 1))
    assert [one.next(), other.next()] == ["of the other whole"] * 2
    one.send_frame(websocket.ABNF.create_frame(", whole", continuation, 1))
    assert [one.next(), other.next()] == ["secret of one, whole"] * 2
    assert direct.workers() == [worker]


# --- the persisted message --------------------------------------------------------------------------------------------


def test_the_last_message_is_sent_on_connect(site, stock, redis_client, facility):
    stock.publish(facility, "first", "last", broadcast=True)
    client = site.connect(f"{facility}?subscribe-broadcast")
    stock.publish(facility, "end", broadcast=True)
    assert client.until("end") == ["last"]
    assert 3500 < redis_client.ttl(f"ws:broadcast:{facility}") <= 3600  # WS4REDIS_EXPIRE of the sample


def test_the_last_message_of_every_audience_is_sent(site, stock, facility, john):
    stock.publish(facility, "to all", broadcast=True)
    stock.publish(facility, "to john", users=["john"])
    stock.publish(facility, "to chatters", groups=["chatters"])
    client = site.connect(f"{facility}?subscribe-broadcast&subscribe-user&subscribe-group&echo", cookies=john)
    assert sorted(client.take(3)) == ["to all", "to chatters", "to john"]
    only = site.connect(f"{facility}?subscribe-user", cookies=john)
    stock.publish(facility, "end", users=["john"])
    assert only.until("end") == ["to john"]


def test_a_message_that_expires_at_once_is_not_kept(site, stock, redis_client, facility):
    stock.publish(facility, "for those who are here", broadcast=True, expire=0)
    site.publish(facility, "for those who are here", broadcast=True, expire=0)
    assert redis_client.keys(f"*{facility}") == []
    client = site.connect(f"{facility}?subscribe-broadcast")
    stock.publish(facility, "end", broadcast=True)
    assert client.until("end") == []


def test_an_expired_message_is_not_sent(site, stock, redis_client, facility):
    stock.publish(facility, "short-lived", broadcast=True, expire=1)
    wait_until(lambda: redis_client.ttl(f"ws:broadcast:{facility}") == -2, timeout=3)
    client = site.connect(f"{facility}?subscribe-broadcast")
    stock.publish(facility, "end", broadcast=True)
    assert client.until("end") == []


def test_what_a_client_sends_is_kept_too(site, stock, facility):
    sender, witness = (site.connect(f"{facility}?{BOTH}") for _ in range(2))
    sender.send("remember me")
    assert witness.next() == "remember me"
    late = site.connect(f"{facility}?{BOTH}")
    stock.publish(facility, "end", broadcast=True)
    assert late.until("end") == ["remember me"]


def test_a_kept_message_that_is_not_text_is_sent_as_binary(site, redis_client, facility):
    redis_client.set(f"ws:broadcast:{facility}", b"\xff\x00", ex=60)
    assert site.connect(f"{facility}?subscribe-broadcast").next() == b"\xff\x00"


@pytest.mark.parametrize("publisher", ["stock", "atomic"])
def test_connecting_while_messages_are_published(site, stock, redis_client, facility, publisher):
    """The kept message once, then every message once, in order, without a gap.

    The stock publisher publishes first and keeps afterwards, in two commands. Who subscribes between the two finds the
    message before kept and the message after live: there, and only there, one number is missing.
    """
    channel = f"ws:broadcast:{facility}"

    def publish_numbers(stop):
        number = 0
        while not stop.is_set():
            if publisher == "stock":
                stock.publish(facility, *[str(n) for n in range(number, number + 20)], broadcast=True)
                number += 20
            else:
                with redis_client.pipeline(transaction=True) as pipeline:
                    pipeline.publish(channel, number).set(channel, number, ex=60).execute()
                number += 1

    def connect_and_check(_):
        client = site.connect(f"{facility}?subscribe-broadcast")
        numbers = [int(text) for text in client.take(8)]
        client.close()
        return numbers

    with background(publish_numbers):
        wait_until(lambda: redis_client.exists(channel))
        with ThreadPoolExecutor(4) as executor:
            received = list(executor.map(connect_and_check, range(300)))
    missed = 1 if publisher == "stock" else 0
    for numbers in received:
        steps = [after - before for before, after in itertools.pairwise(numbers)]
        assert 1 <= steps[0] <= 1 + missed, numbers
        assert steps[1:] == [1] * 6, numbers
    assert len({numbers[0] for numbers in received}) > 100  # they did connect at different times


# --- open means subscribed --------------------------------------------------------------------------------------------


def test_nothing_published_after_open_is_lost(site, redis_client, facility):
    """Published by another process the moment the client has seen the 101, on new channels and on shared ones."""
    for number in range(400):
        name = facility if number % 2 else f"{facility}/{number}"
        client = site.connect(f"{name}?subscribe-broadcast")
        heard_by = redis_client.publish(f"ws:broadcast:{name}", number)
        assert heard_by >= 1
        assert client.next() == str(number)
        client.close()


def test_open_waits_for_redis_to_acknowledge_the_subscription(serve, redis_server, redis_client, facility):
    """Over a line on which SUBSCRIBE takes 0.2 s longer than everything else; publishers are nearer to Redis."""

    def delay(data):
        if b"\r\nSUBSCRIBE\r\n" in data.upper():
            time.sleep(0.2)

    proxy = RedisProxy(redis_server.port, question=delay)
    try:
        site = serve(redis=proxy)
        for number in range(10):
            client = site.connect(f"{facility}/{number}?subscribe-broadcast")
            assert redis_client.publish(f"ws:broadcast:{facility}/{number}", "at once") == 1
            assert client.next() == "at once"
    finally:
        proxy.close()


def test_nothing_published_after_open_is_lost_in_a_crowd(site, facility, redis_server):
    def connect_and_publish(number):
        rng = random.Random(number)
        name = f"{facility}/{rng.randrange(5)}"
        with redis_server.client() as publisher:
            for turn in range(20):
                client = site.connect(f"{name}?subscribe-broadcast")
                mine = f"{number}-{turn}"
                publisher.publish(f"ws:broadcast:{name}", mine)
                deadline = time.monotonic() + 10
                while client.next(max(deadline - time.monotonic(), 0.001)) != mine:
                    pass
                client.close()
        return number

    with ThreadPoolExecutor(16) as executor:
        assert list(executor.map(connect_and_publish, range(16))) == list(range(16))


# --- bursts and workers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["the stock publisher", "one pipeline"])
def test_a_burst_over_three_channels_is_complete_and_in_order(site, stock, redis_client, facility, john, by):
    client = site.connect(f"{facility}?subscribe-broadcast&subscribe-user&subscribe-group", cookies=john)
    audiences = [{"broadcast": True}, {"users": ["john"]}, {"groups": ["chatters"]}]
    channels = [f"ws:broadcast:{facility}", f"ws:user:john:{facility}", f"ws:group:chatters:{facility}"]
    messages = [f"message {number} " + "x" * 80 for number in range(5000)]
    with ThreadPoolExecutor(1) as executor:
        received = executor.submit(client.take, 5000, 60)
        if by == "one pipeline":
            with redis_client.pipeline(transaction=False) as pipeline:
                for number, message in enumerate(messages):
                    pipeline.publish(channels[number % 3], message)
                pipeline.execute()
        else:
            for number, message in enumerate(messages):
                stock.publish(facility, message, **audiences[number % 3], expire=0)
        assert received.result() == messages


def test_a_burst_from_a_view(site, facility):
    client = site.connect(f"{facility}?subscribe-broadcast")
    messages = [str(number) for number in range(2000)]
    site.publish(facility, *messages, broadcast=True, expire=0)
    assert client.take(2000) == messages


def test_a_burst_that_waits_for_its_reader(site, redis_client, facility):
    """Half a megabyte before the client reads the first byte: within the bound, so nothing is lost."""
    client = site.connect(f"{facility}?subscribe-broadcast")
    messages = [f"{number:04} " + "x" * 95 for number in range(5000)]
    with redis_client.pipeline(transaction=False) as pipeline:
        for message in messages:
            pipeline.publish(f"ws:broadcast:{facility}", message)
        pipeline.execute()
    assert client.take(5000) == messages


def test_every_worker_delivers(site, stock, facility, john):
    first, second = site.workers()
    with site.only(first):
        here = site.connect(f"{facility}?subscribe-user&publish-user", cookies=john)
    with site.only(second):
        there = site.connect(f"{facility}?subscribe-user&publish-user", cookies=john)
    stock.publish(facility, "from outside", users=["john"], expire=0)
    site.publish(facility, "from a view", users="SELF", cookies=john, expire=0)
    assert here.take(2) == there.take(2) == ["from outside", "from a view"]
    here.send("from here")
    assert there.next() == "from here"
    there.send("from there")
    assert here.next() == "from there"


# --- heartbeat --------------------------------------------------------------------------------------------------------


def test_every_socket_hears_the_heartbeat_every_four_seconds(site, facility, redis_client):
    """Three quiet sockets and one that is never quiet: messages do not delay it, nor does it come with each of them."""
    sockets = [site.connect(f"{facility}?subscribe-broadcast&echo") for _ in range(2)]
    sockets += [site.connect(facility), site.connect(f"{facility}/busy?subscribe-broadcast")]

    def beats(client):
        times = []
        client.settimeout(10)
        while len(times) < 3:
            if client.recv() == HEARTBEAT:
                times.append(time.monotonic())
        return times

    def chatter(stop):
        while not stop.wait(0.05):
            redis_client.publish(f"ws:broadcast:{facility}/busy", "chatter")

    start = time.monotonic()
    with background(chatter), ThreadPoolExecutor(len(sockets)) as executor:
        for times in executor.map(beats, sockets):
            intervals = [after - before for before, after in itertools.pairwise(times)]
            assert all(3.4 <= interval <= 4.6 for interval in intervals), intervals
            assert times[0] - start <= 4.6


def test_the_heartbeat_of_a_client_is_swallowed(site, redis_client, facility):
    with redis_client.pubsub() as witness:
        witness.subscribe(f"ws:broadcast:{facility}")
        assert witness.get_message(timeout=5)["type"] == "subscribe"
        client = site.connect(f"{facility}?publish-broadcast")
        client.send(HEARTBEAT)
        client.send("after it")
        assert witness.get_message(timeout=5)["data"] == "after it"
    assert redis_client.get(f"ws:broadcast:{facility}") == "after it"
