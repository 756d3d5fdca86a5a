"""Consumers on the real server: code per socket, the channel layer between them, and what becomes of handlers."""

import contextlib
import json
import os
import re
import signal
import time

import pytest
import websocket

from testbed.processes import ROOT, wait_until
from testbed.topologies import ClusterSetup
from tests.requires import need

LAYER = "from wsloop.layers import get_channel_layer; layer = get_channel_layer();"
MODULE = ["--module", "tests.integration.sites.consumers_wsgi"]


@pytest.fixture(scope="module")
def consumers(shared_serve):
    """A site with consumers: two workers behind uWSGI's http router."""
    return shared_serve(processes=2, options=MODULE)


@pytest.fixture(scope="module")
def direct_consumers(shared_serve):
    """One worker that clients reach without a router."""
    return shared_serve(front="http-socket", options=MODULE)


@pytest.fixture
def name(request):
    """A name of the test's own."""
    return re.sub(r"\W+", "-", request.node.name).strip("-")[:80]


def trace(site, name):
    """What the consumers with this name have done so far."""
    return re.findall(rf"^trace {name} (.*)$", site.log(), re.MULTILINE)


def wait_for_trace(site, name, *lines, timeout=20):
    def complete():
        return trace(site, name)[-len(lines) :] == list(lines)

    try:
        wait_until(complete, timeout)
    except AssertionError:
        assert trace(site, name)[-len(lines) :] == list(lines)


def refusal(site, path, **options):
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        site.connect(path, **options)
    return refused.value.status_code, (refused.value.resp_body or b"").decode()


def closed(client):
    """The close code that the server sends, and its reason; messages before it are thrown away."""
    client.settimeout(20)
    while True:
        opcode, data = client.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return int.from_bytes(data[:2], "big"), data[2:].decode()


# --- the chat of Channels' tutorial -----------------------------------------------------------------------------------


def test_a_chat_room_reaches_everybody_in_it_in_order(consumers):
    everybody = [consumers.connect("chat/lobby/") for _ in range(6)]  # on both workers, most likely
    elsewhere = consumers.connect("chat/other/")
    for number in range(50):
        everybody[number % 2].send(f"message {number}")
        assert all(client.next() == f"message {number}" for client in everybody)
    elsewhere.send("only here")
    assert elsewhere.next() == "only here"


def test_a_path_that_matches_no_pattern_is_a_facility(consumers, facility):
    listener = consumers.connect(f"{facility}?subscribe-broadcast")
    consumers.publish(facility, "hello", broadcast=True)
    assert listener.next() == "hello"


def test_json_and_the_lower_consumer(consumers):
    client = consumers.connect("json/")
    client.send('{"a": [1, "ä"]}')
    answer = json.loads(client.next())
    assert (answer["was"], answer["path"]) == ({"a": [1, "ä"]}, "/ws/json/")
    assert answer["name"].startswith("specific.")
    low = consumers.connect("low/")
    low.send("text")
    assert low.next() == "TEXT"


HOSTILE = ['{"text": NaN}', '{"text": 1e999}', '{"text": "\\ud800"}', str(2**64), "[" * 50_000]


@pytest.mark.parametrize("text", HOSTILE, ids=["NaN", "1e999", "surrogate", "64 bits", "deep"])
def test_what_is_no_json_reaches_nobody_else_and_is_told_to_its_sender(consumers, text):
    consumers.mark_log()
    sender, other = consumers.connect("json/"), consumers.connect("json/")
    sender.send(text)
    code, reason = closed(sender)
    assert code == 1007
    assert reason.startswith("JSON is expected: ")
    other.send('{"still": "here"}')
    assert json.loads(other.next())["was"] == {"still": "here"}
    assert "Traceback" not in consumers.log_since_mark()


# --- the handshake ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "status", "words"),
    [
        ("deny", 403, "does not allow"),
        ("close", 403, "members only"),
        ("nothing", 500, "has failed"),
        ("crash", 500, "has failed"),
    ],
)
def test_a_consumer_that_does_not_accept_refuses_the_handshake(consumers, name, what, status, words):
    got, body = refusal(consumers, f"trace/{name}/?what={what}")
    assert got == status
    assert words in body
    assert "ZeroDivisionError" not in body
    code = 1006 if status == 403 else 1011
    wait_for_trace(consumers, name, "connect nobody", f"disconnect {code}")


def test_accepting_by_an_exception(consumers, name):
    client = consumers.connect(f"trace/{name}/?what=accept")
    client.send("hello")
    assert client.next() == "hello"


def test_a_consumer_knows_who_has_signed_in(consumers, name):
    consumers.connect(f"trace/{name}/", cookies=consumers.login("mary")).close()
    wait_until(lambda: trace(consumers, name)[:2] == ["connect mary", "open"], 20)


def test_the_subprotocol_is_the_consumer_s_choice(consumers, name):
    client = consumers.connect(f"trace/{name}/?subprotocol=chat", subprotocols=["soap", "chat"])
    assert client.subprotocol == "chat"
    assert refusal(consumers, f"trace/{name}/?subprotocol=chat", subprotocols=["soap"])[0] == 500
    assert "has not offered the subprotocol 'chat'" in consumers.log()


# --- the end ----------------------------------------------------------------------------------------------------------


def test_what_a_client_sent_before_it_left_is_handled(consumers, name):
    client = consumers.connect(f"trace/{name}/")
    client.send("sleep 0.5")
    for number in range(5):
        client.send(f"message {number}")
    client.close(1000)
    wait_until(lambda: trace(consumers, name)[-1:] == ["disconnect 1000"], 20)
    received = [line for line in trace(consumers, name) if line.startswith("receive")]
    assert received == ["receive sleep 0.5", *(f"receive message {number}" for number in range(5))]


@pytest.mark.parametrize("what", ["loop", "ticker", "flood"])
@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_loop_in_connect_ends_when_the_client_leaves(consumers, name, what, how):
    client = consumers.connect(f"trace/{name}/?what={what}")
    wait_until(lambda: "open" in trace(consumers, name), 20)
    if how == "close":
        client.close(4321, timeout=0.1)
    else:
        client.sock.close()
    wait_until(lambda: trace(consumers, name)[-1:] and "disconnect" in trace(consumers, name)[-1], 20)
    assert trace(consumers, name)[2:] in (["disconnect 1006"], ["disconnect 4321"])


def test_a_client_that_fills_the_inbox_and_leaves_is_noticed(consumers, name):
    client = consumers.connect(f"trace/{name}/?what=loop")
    for number in range(150):
        client.send(f"message {number}")
    client.sock.close()
    wait_until(lambda: trace(consumers, name)[-1:] and "disconnect" in trace(consumers, name)[-1], 20)
    received = [line for line in trace(consumers, name) if line.startswith("receive")]
    assert received == [f"receive message {number}" for number in range(150)]


def test_what_a_client_left_behind_is_handled_for_so_long_only(serve, name):
    site = serve(options=MODULE, settings={"WSLOOP": {"HANDLER_TIMEOUT": 1}})
    client = site.connect(f"trace/{name}/")
    for _ in range(40):
        client.send("work")
    client.sock.close()
    wait_until(lambda: "disconnect" in trace(site, name)[-1], 30, "the end of its handlers")
    received = [line for line in trace(site, name) if line.startswith("receive")]
    assert 1 <= len(received) < 40
    assert "that went on for too long without its client" in site.log()


def test_an_exception_closes_its_own_socket_with_1011(consumers, name):
    client, neighbour = (consumers.connect(f"trace/{name}-{number}/") for number in range(2))
    consumers.mark_log()
    client.send("crash")
    assert closed(client) == (1011, "internal error")
    wait_for_trace(consumers, f"{name}-0", "receive crash", "disconnect 1011")
    neighbour.send("hello")
    assert neighbour.next() == "hello"
    log = consumers.log_since_mark()
    assert f"Trace at '/ws/trace/{name}-0/' for AnonymousUser None failed to handle an event websocket.receive" in log
    assert log.count("ZeroDivisionError: a bug of the site") == 1


def test_the_consumer_closes(consumers, name):
    client = consumers.connect(f"trace/{name}/")
    client.send("close 4321 Grüße")
    assert closed(client) == (4321, "Grüße")
    wait_for_trace(consumers, name, "receive close 4321 Grüße", "disconnect 4321")
    client = consumers.connect(f"trace/{name}/")
    client.send("close 1005 never on the line")
    assert closed(client) == (1011, "internal error")


def test_a_handler_that_blocks_delays_its_own_socket_only(consumers, name):
    slow, quick = (consumers.connect(f"trace/{name}-{number}/") for number in range(2))
    slow.send("sleep 3")
    slow.send("after")
    wait_until(lambda: "receive sleep 3" in trace(consumers, f"{name}-0"), 20)
    for number in range(20):
        quick.send(f"message {number}")
        assert quick.next() == f"message {number}"
    assert "receive after" not in trace(consumers, f"{name}-0")
    assert slow.take(2) == ["sleep 3", "after"]


def test_idle_sockets_have_no_greenlet(direct_consumers, name):
    asker = direct_consumers.connect("greenlets/")

    def greenlets():
        asker.send("how many?")
        return int(asker.next())

    before = greenlets()
    idle = [direct_consumers.connect(f"chat/{re.sub('-', '_', name)}/") for _ in range(50)]
    idle[0].send("everybody has had a handler run")
    assert {client.next() for client in idle} == {"everybody has had a handler run"}
    wait_until(lambda: greenlets() <= before, 20, "no greenlet for an idle socket")
    rest = min(greenlets() for _ in range(20))  # some end of the tests before
    busy = [direct_consumers.connect(f"trace/{name}/?what=loop") for _ in range(10)]
    wait_until(lambda: greenlets() >= rest + len(busy), 20, "and one for each that runs")
    for client in busy:
        client.close()
    wait_until(lambda: greenlets() <= before, 20, "none after that")


def test_a_worker_that_reloads_says_goodbye_and_ends_its_handlers(serve, name):
    site = serve(options=MODULE)
    client, loop = site.connect(f"trace/{name}/"), site.connect(f"trace/{name}-loop/?what=loop")
    busy = site.connect(f"trace/{name}-busy/")
    for _ in range(5):
        busy.send("work")
    wait_until(lambda: trace(site, f"{name}-loop")[-1:] == ["open"], 20)
    wait_until(lambda: trace(site, f"{name}-busy")[-1:] == ["receive work"], 20)
    os.kill(site.workers()[0], signal.SIGHUP)
    assert closed(client)[0] == closed(loop)[0] == 1012
    for each in (name, f"{name}-loop", f"{name}-busy"):
        wait_until(lambda each=each: trace(site, each)[-1:] == ["disconnect 1012"], 20, each)


def test_signing_out_closes_the_sockets_of_consumers(serve, name):
    site = serve(options=MODULE)
    cookies = site.login("john")
    client, loop = (site.connect(f"trace/{name}/{query}", cookies=cookies) for query in ("", "?what=loop"))
    token = dict(pair.split("=") for pair in cookies.split("; "))["csrftoken"]
    answer = site.request(
        "POST",
        "/accounts/logout/",
        headers={"Content-Type": "application/x-www-form-urlencoded", "Origin": site.url},
        cookies=cookies,
        body=f"csrfmiddlewaretoken={token}",
    )
    assert answer.status == 302
    assert closed(client) == closed(loop) == (4001, "signed out")
    wait_until(lambda: trace(site, name)[-2:] == ["disconnect 4001"] * 2, 20)


def test_a_consumer_that_does_not_decide_in_time_is_refused(serve, name):
    site = serve(options=MODULE, settings={"WSLOOP": {"HANDSHAKE_TIMEOUT": 1}})
    status, body = refusal(site, f"trace/{name}/?what=late")
    assert (status, "in time" in body) == (503, True)
    wait_for_trace(site, name, "connect nobody", "disconnect 1006")


def test_database_connections_are_given_back_after_each_handler(serve, name):
    site = serve(options=MODULE)
    (worker,) = site.workers()

    def open_databases():
        files = []
        for each in os.listdir(f"/proc/{worker}/fd"):
            with contextlib.suppress(FileNotFoundError):  # it has been closed meanwhile
                files.append(os.readlink(f"/proc/{worker}/fd/{each}"))
        return sum(each.endswith("db.sqlite3") for each in files)

    clients = [site.connect(f"room/{name}/") for _ in range(5)]
    for client in clients:
        client.send("1")
        client.take(2)
    wait_until(lambda: not open_databases(), 20, "no connection to the database left open")


# --- the channel layer ------------------------------------------------------------------------------------------------


def test_a_group_costs_one_publish_and_leaves_nothing_behind(serve, private_redis, name):
    site = serve(options=MODULE, processes=2, redis=private_redis)
    clients = [site.connect(f"chat/{name.replace('-', '_')}/") for _ in range(10)]
    with private_redis.client() as client:
        before = client.info("commandstats").get("cmdstat_publish", {"calls": 0})["calls"]
        clients[0].send("hello")
        assert all(each.next() == "hello" for each in clients)
        assert client.info("commandstats")["cmdstat_publish"]["calls"] == before + 1
        channel = f"ws:wsloop:group:chat_{name.replace('-', '_')}"
        assert client.pubsub_numsub(channel)[0][1] in (1, 2)
        for pid in site.workers():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: client.pubsub_numsub(channel)[0][1] == 0, 20)
        assert not client.keys("*group*")


def test_groups_reach_over_machines(serve, private_redis, name):
    sites = [serve(options=MODULE, redis=private_redis) for _ in range(2)]
    here, there = (site.connect(f"chat/{name.replace('-', '_')}/") for site in sites)
    for number in range(20):
        (here, there)[number % 2].send(str(number))
        assert here.next() == there.next() == str(number)


def test_groups_and_channels_in_a_redis_cluster(serve, name):
    need("redis-server")
    with contextlib.closing(ClusterSetup().start()) as cluster:
        site = serve(options=MODULE, processes=2, settings={"WS4REDIS_CONNECTION": cluster.connection()})
        everybody = [site.connect("chat/lobby/") for _ in range(4)]
        for number in range(20):
            everybody[number % 4].send(str(number))
            assert [client.next() for client in everybody] == [str(number)] * 4
        named = [site.connect("json/") for _ in range(6)]  # channels in several slots
        for number, client in enumerate(named):
            client.send("1")
            channel = json.loads(client.next())["name"]
            add = f"layer.group_add('a shell', {channel!r}); layer.send({channel!r}, {{'type': 'sent', 'n': {number}}})"
            site.manage("shell", "-c", LAYER + add)
            assert json.loads(client.next()) == {"type": "sent", "n": number}
        site.manage("shell", "-c", LAYER + "layer.group_send('a shell', {'type': 'sent', 'n': 'all'})")
        assert [json.loads(client.next())["n"] for client in named] == ["all"] * 6
        site.manage("shell", "-c", LAYER + "layer.group_add('nobody', 'specific.0123456789abcdef!1')")


def test_who_is_there_is_told_to_consumers(serve, name):
    site = serve(options=MODULE, processes=2, settings={"WSLOOP": {"FACILITIES": {"room/*": {"presence": True}}}})
    first = site.connect(f"room/{name}/", cookies=site.login("john"))
    assert json.loads(first.next())["here"] in ([], ["john"])
    joined = {"type": "presence.changed", "event": "join"}
    assert json.loads(first.next()) == {**joined, "user": "john"}
    second = site.connect(f"room/{name}/", cookies=site.login("mary"))
    assert json.loads(first.next()) == {**joined, "user": "mary"}
    assert "john" in json.loads(second.next())["here"]
    second.close()
    assert json.loads(first.next(timeout=30)) == {"type": "presence.changed", "event": "leave", "user": "mary"}


def test_consumers_are_told_when_the_line_to_redis_stands_again(serve, private_redis, name):
    site = serve(options=MODULE, redis=private_redis)
    room, chat = site.connect(f"room/{name}/"), site.connect(f"chat/{name.replace('-', '_')}/")
    room.next()
    with private_redis.client() as client:
        client.client_kill_filter(_type="pubsub")
    assert json.loads(room.next(timeout=30)) == {"type": "channel_layer.resumed"}
    site.manage("shell", "-c", LAYER + "layer.group_send('room', {'type': 'said', 'word': 'again'})")
    assert json.loads(room.next()) == {"type": "said", "word": "again"}
    chat.send("hello")
    assert chat.next() == "hello"


def test_the_inside_of_a_shell(consumers):
    client = consumers.connect("json/")
    client.send("1")
    channel = json.loads(client.next())["name"]
    script = (
        f"{LAYER}"
        f"layer.group_add('from a shell', {channel!r});"
        "layer.group_send('from a shell', {'type': 'sent', 'number': 1});"
        f"layer.group_discard('from a shell', {channel!r});"
        "layer.group_send('from a shell', {'type': 'sent', 'number': 2});"
        f"layer.send({channel!r}, {{'type': 'sent', 'number': 3}})"
    )
    consumers.manage("shell", "-c", script)
    assert [json.loads(each)["number"] for each in client.take(2)] == [1, 3]


def test_consumers_without_groups_need_no_redis(serve, private_redis, name):
    site = serve(options=MODULE, redis=private_redis)
    private_redis.close()
    client = site.connect("low/")
    client.send("text")
    assert client.next() == "TEXT"
    assert refusal(site, f"chat/{name.replace('-', '_')}/")[0] == 503


# --- what holds up an event loop --------------------------------------------------------------------------------------


@pytest.fixture
def metrics(direct_consumers):
    """The counter of one loop: ``metrics("asyncio")``."""

    def value(loop):
        text = direct_consumers.request("GET", "/test/metrics/").text
        found = re.search(rf'^wsloop_blocked_total\{{loop="{loop}"\}} (\S+)', text, re.MULTILINE)
        return float(found[1]) if found else 0

    return value


def named(site, loop):
    """The code of the line that the log names for a loop."""
    found = re.search(rf": {loop} blocked for \d+ ms, in ([^:\n]+):(\d+)$", site.log_since_mark(), re.MULTILINE)
    return (ROOT / found[1]).read_text().splitlines()[int(found[2]) - 1].strip() if found else None


def test_a_coroutine_that_blocks_holds_up_coroutines_alone_and_is_named(direct_consumers, facility, metrics, tmp_path):
    before = metrics("asyncio")
    blocks, waits = direct_consumers.connect("blocks/sleeping/"), direct_consumers.connect("blocks/not/")
    listener, chat = direct_consumers.connect(f"{facility}?subscribe-broadcast"), direct_consumers.connect("low/")
    go_on = tmp_path / "go-on"
    blocks.send(str(go_on))
    waits.send("a coroutine")
    direct_consumers.publish(facility, "hello", broadcast=True)
    assert listener.next() == "hello"
    chat.send("text")
    assert chat.next() == "TEXT"
    assert direct_consumers.request("GET", "/accounts/login/").status == 200
    time.sleep(1)  # on a slow machine the page holds up gevent's loop, and that is named meanwhile
    go_on.touch()
    assert blocks.next() == str(go_on)
    assert waits.next() == "a coroutine"
    wait_until(lambda: named(direct_consumers, "asyncio's event loop"), what="the line in the log")
    assert named(direct_consumers, "asyncio's event loop") == "time.sleep(0.5)"
    assert metrics("asyncio") > before


def test_what_computes_is_named(direct_consumers, metrics):
    before = metrics("gevent")
    client = direct_consumers.connect("blocks/computing/")
    client.send("1.5")
    assert client.next() == "1.5"
    lines = ("sum(range(1000))", "while time.monotonic() < end:")
    wait_until(lambda: named(direct_consumers, "event loop") in lines, what="the line in the log")
    assert metrics("gevent") > before
