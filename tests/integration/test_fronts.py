"""The core of the contract with every uWSGI and behind every front: what a router or a proxy could break."""

import http.client
import json
import re
import threading

import pytest
import websocket
from websockets.sync.client import connect as websockets_connect

from testbed.clients import Client, next_of
from testbed.nginx import UWSGI_PASS as OURS
from testbed.nginx import start_nginx
from testbed.processes import ROOT, free_port, wait_until
from testbed.python_servers import PYTHON_SERVERS
from testbed.sites import FRONTS, Sites
from testbed.uwsgi import environment_of, uwsgi_binaries
from tests.docs.test_docs import code_blocks
from tests.integration.harness import PublishingSite
from tests.integration.test_refusals import assert_has_headers_only
from tests.requires import need

COMBINATIONS = [(binary, front) for binary in uwsgi_binaries() for front in FRONTS]
SERVERS = [*COMBINATIONS, *((None, server) for server in PYTHON_SERVERS)]
LARGE = "ä€😀" + "x" * 60_000


def name_of(combination):
    binary, front = combination
    return f"{front}-{environment_of(binary)}" if binary else front


@pytest.fixture(scope="module", params=SERVERS, ids=map(name_of, SERVERS))
def any_site(request, redis_server, site_files):
    binary, front = request.param
    if front.startswith("nginx"):
        need("nginx")
    with Sites(redis_server, site_files, PublishingSite) as serve:
        # A thousand messages at once are no attack here.
        options = {"RATE_LIMIT": None, "FACILITIES": {"kept-*": {"size": 100}}, "CALL_PATHS": ["/test/*"]}
        yield serve(binary=binary, front=front, settings={"WSLOOP": options}, warm=False)


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
            assert next_of(client) == message
        assert client.ping(b"payload").wait(10)
        stock.publish(facility, "from outside", broadcast=True, expire=0)
        assert next_of(client) == "from outside"
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


def test_a_client_of_v1_is_told_why_it_is_refused(any_site, facility):
    """Also if it sends something at once, as pages do: what a server or proxy has not read may reset a connection."""
    url = f"{facility}?subscribe-broadcast"
    for _ in range(5):
        client = any_site.connect(url, origin="http://evil.example", subprotocols=["wsloop.v1"])
        for _ in range(20):
            client.send('{"type": "subscribe", "facility": "a", "audiences": ["user"]}')
        goodbye = json.loads(client.next())
        assert (goodbye["code"], goodbye["reconnect"]) == (4030, False)
        assert goodbye["reason"].startswith("Pages of this Origin may not open a WebSocket here")
        assert client.closing() == 4030
        client.settimeout(10)
        assert client.sock.recv(1) == b"", "the server, or the proxy, ends the connection"


class Stream:
    """A client without WebSockets: http.client reads a response with and without chunks."""

    def __init__(self, site, path, version="HTTP/1.1", **headers):
        self._connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
        self._connection._http_vsn, self._connection._http_vsn_str = int(version[-1]) + 10, version
        self._connection.request(
            "GET", f"/ws/{path}", headers={"Accept": "text/event-stream", "Host": f"127.0.0.1:{site.port}", **headers}
        )
        self.response = self._connection.getresponse()
        self.last_id = ""

    def next(self):
        """The data of the next event."""
        lines = []
        while True:
            line = self.response.readline()
            assert line, "the stream has ended"
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "data":
                lines.append(value)
            elif name == "id":
                self.last_id = value
            elif not name and lines:
                return "\n".join(lines)

    def close(self):
        self.response.close()
        self._connection.close()


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_streams_of_events(any_site, facility, stock, version):
    name = f"kept-{facility}"
    stream = Stream(any_site, f"{name}?subscribe-broadcast", version)
    assert stream.response.status == 200
    assert stream.response.headers["Content-Type"] == "text/event-stream"
    any_site.publish(name, "1", broadcast=True)
    assert stream.next() == "1"
    any_site.publish(name, LARGE + "\nbehind", broadcast=True)
    assert stream.next() == LARGE + "\nbehind"
    any_site.publish(name, "3", broadcast=True)
    assert stream.next() == "3"
    known = stream.last_id
    stream.close()
    any_site.publish(name, "4", "5", broadcast=True)
    again = Stream(any_site, f"{name}?subscribe-broadcast", version, **{"Last-Event-ID": known})
    found = [again.next()]
    while found[-1] != "5":
        found.append(again.next())
    assert found == ["3", "4", "5"][-len(found) :], "the id behind the last message may have been on its way"
    assert len(found) > 1
    again.close()
    assert any_site.request("GET", "/test/whoami/").status == 200


def test_commands_that_are_posted(any_site, facility):
    stream = Stream(any_site, f"{facility}?subscribe-broadcast")
    frame = json.dumps({"type": "publish", "id": 7, "data": "Grüße"}).encode()
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    answer = any_site.request("POST", f"/ws/{facility}?publish-broadcast", headers, frame)
    assert (answer.status, json.loads(answer.content)) == (200, {"type": "ack", "id": 7})
    assert stream.next() == "Grüße"
    stream.close()


def frame_of(client):
    """The next frame of wsloop.v1 that is no ping."""
    frame = json.loads(client.next())
    return frame_of(client) if frame["type"] == "ping" else frame


def test_the_socket_of_a_page(any_site, facility):
    client = any_site.connect("", subprotocols=["wsloop.v1"])
    assert frame_of(client)["facility"] == ""
    names = [f"{facility}-{number}" for number in range(3)]
    client.send(json.dumps([{"type": "subscribe", "facility": name, "audiences": ["broadcast"]} for name in names]))
    assert [frame_of(client)["facility"] for _ in names] == names
    for name in names:
        any_site.publish(name, "hello", broadcast=True)
    assert [frame_of(client)["facility"] for _ in names] == names


def test_calls(any_site, facility, browser):
    """Also of views that need what uWSGI knows of a request, or would end the process."""
    client = any_site.connect("", subprotocols=["wsloop.v1"], cookies=browser)
    client.next()
    process = None
    for path, code, data in (("whoami", 200, "john"), ("parts", 200, [1, 2]), ("exit", "internal", None)) * 2:
        client.send(json.dumps({"type": "call", "path": f"/test/{path}/"}))
        frame = frame_of(client)
        assert frame.get("status", frame.get("code")) == code
        if path == "whoami":
            assert frame["data"]["user"] == data
            assert process in (None, frame["data"]["pid"])
            process = frame["data"]["pid"]
        else:
            assert frame.get("data") == data


def test_calls_that_are_posted(any_site, facility, browser):
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    frame = json.dumps({"type": "call", "id": 1, "path": "/test/parts/"}).encode()
    answer = any_site.request("POST", "/ws/", headers, frame, cookies=browser)
    assert json.loads(answer.content) == {"type": "answer", "id": 1, "status": 200, "data": [1, 2]}


# --- what nginx may be told ------------------------------------------------------------------------------------------

PRODUCTION = ROOT / "docs/how-to/run-in-production.rst"
# As Debian's packages have them since the $http_host in them is thought to be unsafe.
DEBIANS_PARAMS = f"{OURS.partition(';')[2]} uwsgi_param HTTP_HOST $host;"
UWSGI_PASS = "include uwsgi_params; {} uwsgi_pass unix:/run/site/uwsgi.sock;"
# As ws4redis documents it, with a name instead of a unix socket in proxy_pass, which is what the Host is then.
WS4REDIS = """
proxy_pass http://127.0.0.1:8000; proxy_http_version 1.1;
proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; {}
"""
PROXY_LINE, UWSGI_LINE = "`proxy_set_header Host $http_host;`", "`uwsgi_param HTTP_HOST $http_host;`"
# The location, the status of a page's socket, the line that the refusal names, and the host that the log names.
NGINX_LOCATIONS = {
    "nginx-uwsgi": [
        (UWSGI_PASS.format(""), 403, UWSGI_LINE, '"127.0.0.1" (Host)'),
        (UWSGI_PASS.format("uwsgi_param HTTP_HOST upstream.internal;"), 400, UWSGI_LINE, '"upstream.internal" (Host)'),
        (UWSGI_PASS.format(UWSGI_LINE.strip("`")), 101, None, None),
    ],
    "nginx-http": [
        (WS4REDIS.format(""), 403, PROXY_LINE, '"localhost" (Host)'),
        (WS4REDIS.format("proxy_set_header Host upstream.internal;"), 400, PROXY_LINE, '"upstream.internal" (Host)'),
        (WS4REDIS.format("proxy_set_header Host $host;"), 403, PROXY_LINE, '"127.0.0.1" (Host)'),
        (WS4REDIS.format(PROXY_LINE.strip("`")), 101, None, None),
    ],
}


def documented(front):
    """The block of the page about production that is for this front."""
    word = {"nginx-uwsgi": "uwsgi_pass", "nginx-http": "proxy_pass"}[front]
    (block,) = [each for each in code_blocks(PRODUCTION, "nginx") if word in each and each.startswith("location")]
    return re.fullmatch(r"location / \{(.*)\}", block.strip(), re.DOTALL)[1]


@pytest.mark.parametrize(
    "any_site",
    [combination for combination in COMBINATIONS if combination[1] in NGINX_LOCATIONS],
    ids=name_of,
    indirect=True,
)
def test_pages_are_let_in_behind_the_documented_nginx_and_others_say_what_to_set(any_site, facility, tmp_path):
    locations = [*NGINX_LOCATIONS[any_site.front], (documented(any_site.front), 101, None, None)]
    ports = set()
    while len(ports) < len(locations):
        ports.add(free_port())
    (tmp_path / "uwsgi_params").write_text(DEBIANS_PARAMS)
    ours = f"unix:{any_site.directory}/uwsgi.sock"
    text = "".join(
        f" }} }} server {{ listen 127.0.0.1:{port}; location / {{ {location}"
        for port, (location, *_) in zip(ports, locations, strict=True)
    )
    text = text.replace("unix:/run/site/uwsgi.sock", ours).replace("http://127.0.0.1:8000", f"http://{ours}")
    need("nginx")
    nginx = start_nginx(tmp_path, free_port(), text)
    try:
        for port, (location, status, line, host) in zip(ports, locations, strict=True):
            page = f"http://127.0.0.1:{port}"
            wait_until(lambda port=port: nginx.listens(port), what="nginx listening")
            any_site.mark_log()
            url = f"ws://127.0.0.1:{port}/ws/{facility}?subscribe-broadcast"
            try:
                client = websocket.create_connection(url, origin=page, timeout=10, class_=Client)
            except websocket.WebSocketBadStatusException as refusal:
                assert refusal.status_code == status, (location, text)
                told = refusal.resp_body.decode()
            else:
                any_site.clients.append(client)
                assert status == 101, location
                assert client.round_trip() == b"round trip"
                assert "refused" not in any_site.log_since_mark()
                continue
            assert line in told
            assert "internal" not in told
            log = any_site.log_since_mark()
            assert host in log
            assert line in log
            assert f'"{page}"' in log or status == 400
    finally:
        nginx.stop()
