"""The core of the contract with every uWSGI and behind every front: what a router or a proxy could break."""

import json
import threading
from pathlib import Path

import pytest
import websocket
from websockets.sync.client import connect as websockets_connect

from tests.integration.harness import FRONTS, Sites, uwsgi_binaries
from tests.integration.test_refusals import assert_has_headers_only
from tests.requires import need

COMBINATIONS = [(binary, front) for binary in uwsgi_binaries() for front in FRONTS]
LARGE = "ä€😀" + "x" * 60_000


def name_of(combination):
    binary, front = combination
    return f"{front}-{Path(binary).parent.parent.name}"


@pytest.fixture(scope="module", params=COMBINATIONS, ids=map(name_of, COMBINATIONS))
def any_site(request, redis_server, site_files):
    binary, front = request.param
    if front.startswith("nginx"):
        need("nginx")
    with Sites(redis_server, site_files) as serve:
        # A thousand messages at once are no attack here.
        yield serve(binary=binary, front=front, settings={"WSLOOP": {"RATE_LIMIT": None}})


@pytest.fixture(scope="module")
def browser(any_site):
    return any_site.login("john")


def test_notifications_reach_the_signed_in_user(any_site, browser, stock, facility):
    everything = "subscribe-broadcast&subscribe-user&subscribe-group&subscribe-session"
    client = any_site.connect(f"{facility}?{everything}", cookies=browser, origin=any_site.url)
    any_site.publish(facility, {"from": "a view"}, cookies=browser, users="SELF", expire=0)
    assert json.loads(client.next()) == {"from": "a view"}
    stock.publish(facility, "from another process", groups=["chatters"], expire=0)
    assert client.next() == "from another process"


def test_many_sockets_one_worker(any_site, stock, facility):
    clients = [any_site.connect(f"{facility}?subscribe-broadcast") for _ in range(30)]
    stock.publish(facility, "to all", broadcast=True, expire=0)
    assert [client.next() for client in clients] == ["to all"] * 30
    assert any_site.request("GET", "/test/whoami/").status == 200


def test_messages_of_60_kilobytes_both_ways(any_site, facility):
    client = any_site.connect(f"{facility}?subscribe-broadcast&publish-broadcast&echo")
    client.send(LARGE)
    assert client.next() == LARGE


def test_messages_keep_their_order_both_ways(any_site, facility):
    client = any_site.connect(f"{facility}?subscribe-broadcast&publish-broadcast&echo")
    numbers = [str(number) for number in range(1000)]
    sender = threading.Thread(target=lambda: [client.send(number) for number in numbers])
    sender.start()
    assert client.take(1000) == numbers
    sender.join()


def test_two_browsers_hear_each_other(any_site, facility):
    here, there = (any_site.connect(f"{facility}?subscribe-broadcast&publish-broadcast") for _ in range(2))
    here.send("hello there")
    assert there.next() == "hello there"
    there.send("hello back")
    assert here.next() == "hello back"


def test_python_websockets(any_site, facility, stock):
    """It negotiates compression, and wants pongs that carry the payload of its ping."""
    url = any_site.ws_url(f"{facility}?subscribe-broadcast&publish-broadcast&echo")
    with websockets_connect(url) as client:
        for message in ("text", LARGE, b"\xff\x00 not text"):
            client.send(message)
            assert client.recv(timeout=10) == message
        assert client.ping(b"payload").wait(10)
        stock.publish(facility, "from outside", broadcast=True, expire=0)
        assert client.recv(timeout=10) == "from outside"
    assert client.close_code == 1000


@pytest.mark.parametrize("code", [1000, 1001, 4321])
def test_the_close_code_of_the_client_is_echoed(any_site, facility, code):
    client = any_site.connect(f"{facility}?subscribe-broadcast")
    client.send((code).to_bytes(2, "big") + b"bye", opcode=websocket.ABNF.OPCODE_CLOSE)
    assert client.closing() == code


def test_refusals_arrive_as_http(any_site, facility):
    answer = any_site.request("GET", f"/ws/{facility}?subscribe-broadcast")
    assert answer.status == 426
    assert answer.headers["Sec-WebSocket-Version"] == "13"
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
        any_site.connect(f"{facility}?subscribe-broadcast", origin="http://evil.example")
    assert refusal.value.status_code == 403
    assert_has_headers_only(any_site, f"/ws/{facility}", {})
