"""What a client sees of the bounds of ``WSLOOP``, and who may open sockets: statuses, extensions, close codes.

What hostile clients do to a neighbour is ``test_attacks.py``.
"""

import base64
import contextlib
import itertools
import json
import os
import re
import socket
import threading

import pytest
import websocket
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import DATA_OPCODES
from websockets.sync.client import connect

from testbed.certificates import make_certificate
from testbed.clients import HEARTBEAT, Client, next_of
from testbed.nginx import start_nginx
from testbed.processes import free_port, wait_until
from testbed.sites import DEMO_ACCOUNTS
from tests.integration.harness import RedisProxy
from tests.integration.test_browser import Browser
from tests.integration.test_refusals import UPGRADE, assert_actionable, handshake
from tests.requires import need


def refusal(site, path, **options):
    """The response to a handshake that must be refused; ``options`` are those of ``Site.connect``."""
    with pytest.raises(websocket.WebSocketBadStatusException) as caught:
        site.connect(path, **options)
    return caught.value


def assert_try_again(refused, status):
    """The refusal is for now only, and says when to come back."""
    assert refused.status_code == status
    assert int(refused.resp_headers["retry-after"]) > 0
    assert b"Try again" in refused.resp_body


def counted(site, setting):
    """How often the bound of a setting was reached, of the one worker that ``site`` must have."""
    text = site.request("GET", "/test/metrics/").text
    found = re.search(rf'^wsloop_bounds_reached_total{{setting="{setting}"}} (\S+)', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def open_soon(site, path, **options):
    """Connect, as soon as there is room again: the server may not have noticed yet that somebody left."""

    def attempt():
        try:
            return site.connect(path, **options)
        except websocket.WebSocketBadStatusException:
            return None

    return wait_until(attempt, what="room for a connection")


# --- ALLOWED_ORIGINS --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strict(shared_serve):
    """One worker with small bounds, behind what it takes for a proxy."""
    options = {
        "ALLOWED_ORIGINS": ["https://*.example.com", "http://other.example:8080"],
        "FACILITIES": {"test-plain-*": {"compression": False}},
        "MAX_CONNECTIONS_PER_ADDRESS": 2,
        "MAX_CONNECTIONS_PER_USER": 2,
        "MAX_FACILITY_SIZE": 30,
        "MAX_HEADER_SIZE": 300,
        "RATE_LIMIT": [1, 10],
        "TRUSTED_PROXIES": ["127.0.0.0/8"],
    }
    return shared_serve(front="http-socket", settings={"WSLOOP": options})


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.com",
        "https://a.b-c.example.com",
        "https://APP.Example.com",
        "https://app.example.com:443",
        "http://other.example:8080",
        "{url}",
        None,
    ],
)
def test_origins_that_are_let_in(strict, facility, origin):
    assert strict.connect(f"{facility}?subscribe-broadcast", origin=origin and origin.format(url=strict.url)).connected


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil-example.com",
        "https://evilexample.com",
        "https://example.com.evil.org",
        "https://app.example.com.evil.org",
        "https://example.com",  # the wildcard stands for subdomains
        "https://.example.com",
        "https://*.example.com",
        "https://app..example.com",
        "http://app.example.com",
        "wss://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com.",
        "https://app.example.com/",
        "https://user@app.example.com",
        "https://user:password@app.example.com",
        "https://evil.org/.example.com",
        "https://evil.org?.example.com",
        "https://evil.org#.example.com",
        "https://evil.org\\.example.com",
        "https://evil.org:.example.com",
        "https://app.example.com https://evil.org",
        "https://evil.org https://app.example.com",
        "http://other.example",
        "http://sub.other.example:8080",
        "http://other.example:80800",
        "//app.example.com",
        "app.example.com",
        "null",
        "",
    ],
)
def test_origins_that_look_alike_are_refused(strict, facility, origin):
    answer = strict.request("GET", f"/ws/{facility}?subscribe-broadcast", headers={**UPGRADE, "Origin": origin})
    assert_actionable(answer, 403, "ALLOWED_ORIGINS")


@pytest.mark.parametrize("origin", ["https://anywhere.example", "null"])
def test_a_star_lets_everybody_in(loose, facility, origin):
    assert loose.connect(f"{facility}?subscribe-broadcast", origin=origin).connected


# --- a proxy that ends TLS --------------------------------------------------------------------------------------------

PUBLIC = "site.example"
TLS_PROXY = """
proxy_pass http://127.0.0.1:{port}; proxy_http_version 1.1;
proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
proxy_set_header X-Forwarded-Host $http_host; proxy_set_header X-Forwarded-Proto $scheme;
proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
"""


@pytest.fixture(scope="module")
def tls_front(tmp_path_factory):
    """Start an nginx that speaks TLS in front of a site; returns a function to connect through it."""
    need("openssl")
    need("nginx")
    with contextlib.ExitStack() as stack:

        def start(site):
            directory = tmp_path_factory.mktemp("nginx")
            certificate, key, port = directory / "certificate.pem", directory / "key.pem", free_port()
            make_certificate(certificate, key)
            listen = f"{port} ssl; ssl_certificate {certificate}; ssl_certificate_key {key}"
            process = start_nginx(directory, listen, TLS_PROXY.format(port=site.port))
            stack.callback(process.stop)

            def answers():
                assert process.returncode is None, process.log()
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    return True

            wait_until(answers, what="nginx answering")

            def connect_through(path, origin=None, **options):
                client = websocket.create_connection(
                    f"wss://127.0.0.1:{port}/ws/{path}",
                    timeout=10,
                    host=PUBLIC,
                    origin=origin,
                    suppress_origin=origin is None,
                    sslopt={"ca_certs": str(certificate)},
                    class_=Client,
                    **options,
                )
                site.clients.append(client)
                return client

            return connect_through

        yield start


@pytest.fixture(scope="module")
def behind_tls(shared_serve, tls_front):
    """A site that knows of its proxy, and how to connect to it."""
    site = shared_serve(
        front="http-socket",
        env={"DJANGO_ALLOWED_HOSTS": f"127.0.0.1,{PUBLIC}"},
        settings={
            "SECURE_PROXY_SSL_HEADER": ["HTTP_X_FORWARDED_PROTO", "https"],
            "USE_X_FORWARDED_HOST": True,
            "WSLOOP": {"TRUSTED_PROXIES": ["127.0.0.1"], "MAX_CONNECTIONS_PER_ADDRESS": 1},
        },
    )
    return site, tls_front(site)


@pytest.mark.parametrize("origin", [f"https://{PUBLIC}", f"https://{PUBLIC}:443"])
def test_pages_of_the_site_are_let_in_through_a_tls_proxy(behind_tls, facility, origin):
    site, connect_through = behind_tls
    client = connect_through(f"{facility}?subscribe-broadcast", origin=origin)
    site.publish(facility, "over TLS", broadcast=True)
    assert client.next() == "over TLS"


@pytest.mark.parametrize("origin", [f"http://{PUBLIC}", "https://127.0.0.1", f"https://{PUBLIC}:8443", "null"])
def test_pages_without_encryption_are_foreign_to_an_encrypted_site(behind_tls, facility, origin):
    _, connect_through = behind_tls
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        connect_through(f"{facility}?subscribe-broadcast", origin=origin)
    assert refused.value.status_code == 403


def test_a_site_that_does_not_know_of_its_tls_proxy_refuses_its_own_pages(direct, tls_front, facility):
    """Safe, and the refusal says what to set."""
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        tls_front(direct)(f"{facility}?subscribe-broadcast", origin=f"https://{PUBLIC}")
    assert refused.value.status_code == 403
    assert b"proxy_set_header Host" in refused.value.resp_body


def test_the_address_is_the_one_that_nginx_was_told(behind_tls, facility):
    """nginx appends who connects to it, here a proxy of its own, whose word for its client counts."""
    site, connect_through = behind_tls
    header = ["X-Forwarded-For: 8.8.4.4"]
    assert connect_through(facility, header=header).connected
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        connect_through(facility, header=header)
    assert refused.value.status_code == 429
    assert connect_through(facility, header=["X-Forwarded-For: 8.8.8.8"]).connected
    assert counted(site, "MAX_CONNECTIONS_PER_ADDRESS") == 1


# --- how many ---------------------------------------------------------------------------------------------------------


def test_a_full_worker_refuses_and_its_pages_go_on(serve, facility):
    site = serve(front="http-socket", settings={"WSLOOP": {"MAX_CONNECTIONS": 2}})
    open_ones = [site.connect(f"{facility}?subscribe-broadcast") for _ in range(2)]
    assert_try_again(refusal(site, f"{facility}?subscribe-broadcast"), 503)
    assert_try_again(refusal(site, "/ws/echo/"), 503)
    assert counted(site, "MAX_CONNECTIONS") == 2
    site.publish(facility, "for those inside", broadcast=True)
    assert [client.next() for client in open_ones] == ["for those inside"] * 2
    open_ones.pop().close()
    assert open_soon(site, facility).connected


def test_a_user_has_a_number_of_sockets_in_all_sessions(strict, facility):
    john, elsewhere, mary = strict.login("john"), strict.login("john"), strict.login("mary")
    first = strict.connect(facility, cookies=john)
    strict.connect(facility, cookies=elsewhere)
    for cookies in (john, elsewhere):
        assert_try_again(refusal(strict, facility, cookies=cookies), 429)
    assert counted(strict, "MAX_CONNECTIONS_PER_USER") == 2
    assert strict.connect(facility, cookies=mary).connected
    assert strict.connect(facility).connected  # nobody in particular: only the address counts
    first.close()
    assert open_soon(strict, facility, cookies=elsewhere).connected


@pytest.mark.parametrize(
    ("addresses", "other"),
    [
        (["8.8.4.4", "8.8.4.4", "8.8.4.4"], "8.8.4.5"),
        (["2001:4860::1", "2001:4860::2", "2001:4860:0:0:ffff::"], "2001:4860:0:1::1"),  # an IPv6 client has a /64
    ],
)
def test_an_address_has_a_number_of_sockets(strict, facility, addresses, other):
    def header(address):
        return [f"X-Forwarded-For: {address}"]

    first, second, third = addresses
    open_one = strict.connect(facility, header=header(first))
    strict.connect(facility, header=header(second))
    assert_try_again(refusal(strict, facility, header=header(third)), 429)
    assert strict.connect(facility, header=header(other)).connected
    open_one.close()
    assert open_soon(strict, facility, header=header(third)).connected


def test_private_addresses_are_not_counted(strict, facility):
    for _ in range(4):
        assert strict.connect(facility, header=["X-Forwarded-For: 10.1.2.3"]).connected


def test_x_forwarded_for_of_others_than_trusted_proxies_is_not_believed(loose, facility):
    """Or a client could use up somebody else's number, and none of its own."""
    for _ in range(3):
        assert loose.connect(facility, header=["X-Forwarded-For: 8.8.4.4"]).connected


@pytest.mark.parametrize("front", ["nginx-http", "nginx-uwsgi"])
def test_a_proxy_at_a_unix_socket_is_believed_where_proxies_are(serve, facility, front):
    """It has no address that could be named; whoever may write to the socket's file is a proxy of this machine."""
    need("nginx")
    options = {"TRUSTED_PROXIES": ["127.0.0.1"], "MAX_CONNECTIONS_PER_ADDRESS": 1}
    site = serve(front=front, settings={"WSLOOP": options})
    header = ["X-Forwarded-For: 8.8.4.4"]
    assert site.connect(facility, header=header).connected
    assert_try_again(refusal(site, facility, header=header), 429)
    assert site.connect(facility, header=["X-Forwarded-For: 8.8.8.8"]).connected


# --- how large --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Origin", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Host"])
def test_a_header_of_the_handshake_has_a_size(strict, facility, name):
    before = counted(strict, "MAX_HEADER_SIZE")
    answer = strict.request("GET", f"/ws/{facility}", headers={**UPGRADE, name: "x" * 301})
    assert_actionable(answer, 431, "300 bytes")
    assert counted(strict, "MAX_HEADER_SIZE") == before + 1


def test_a_query_string_has_a_size(strict, facility):
    most = "x" * 300
    assert strict.connect(f"{facility}?{most}").connected
    assert refusal(strict, f"{facility}?{most}x").status_code == 431


def test_other_headers_may_be_larger(strict, facility):
    """Cookies of a whole domain, for one; they are the business of uWSGI's ``buffer-size``."""
    assert strict.connect(facility, cookies=f"tracker={'x' * 1000}", header=["User-Agent: " + "x" * 500]).connected


@pytest.mark.parametrize("letters", ["x" * 30, "%C3%BC" * 15])
def test_a_facility_has_a_size_in_bytes(strict, letters):
    assert strict.connect(f"{letters}?subscribe-broadcast").connected
    before = counted(strict, "MAX_FACILITY_SIZE")
    answer = strict.request("GET", f"/ws/{letters}x?subscribe-broadcast", headers=UPGRADE)
    assert_actionable(answer, 414, "30 bytes")
    assert counted(strict, "MAX_FACILITY_SIZE") == before + 1


# --- how long ---------------------------------------------------------------------------------------------------------


def test_a_handshake_whose_policy_never_answers_is_refused(serve, facility):
    site = serve(
        front="http-socket",
        settings={
            "WS4REDIS_ALLOWED_CHANNELS": "tests.integration.sites.waiting.whoever_asks_to_wait",
            "WSLOOP": {"HANDSHAKE_TIMEOUT": 2},
        },
    )
    neighbour = site.connect(f"{facility}?subscribe-broadcast")
    waiting = []
    thread = threading.Thread(target=lambda: waiting.append(handshake(site, f"/ws/{facility}?wait")))
    thread.start()
    site.publish(facility, "meanwhile", broadcast=True)
    assert neighbour.next() == "meanwhile"
    thread.join()
    ((status, headers),) = waiting
    assert status == 503
    assert int(headers["Retry-After"]) > 0
    assert counted(site, "HANDSHAKE_TIMEOUT") == 1
    site.publish(facility, "afterwards", broadcast=True)
    assert neighbour.next() == "afterwards"


def test_a_handshake_that_waits_for_redis_is_refused(serve, redis_server, facility):
    """Redis is there but does not answer: the handshake ends before ``REDIS_TIMEOUT``, and others come in later."""
    answering = threading.Event()
    answering.set()
    proxy = RedisProxy(redis_server.port, answer=lambda data: answering.wait())
    try:
        settings = {"WS4REDIS_CONNECTION": proxy.url, "WSLOOP": {"HANDSHAKE_TIMEOUT": 2, "REDIS_TIMEOUT": 60}}
        site = serve(front="http-socket", settings=settings)
        site.connect(f"{facility}?subscribe-broadcast")
        answering.clear()
        assert_try_again(refusal(site, f"{facility}/other?subscribe-broadcast"), 503)
        assert counted(site, "HANDSHAKE_TIMEOUT") == 1
        answering.set()
        client = open_soon(site, f"{facility}/other?subscribe-broadcast")
        site.publish(f"{facility}/other", "open means subscribed", broadcast=True)
        assert client.next() == "open means subscribed"
    finally:
        answering.set()
        proxy.close()


# --- RATE_LIMIT -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loose(shared_serve):
    """One worker on which bounds are switched off."""
    options = {
        "ALLOWED_ORIGINS": ["*"],
        "COMPRESS_FROM": None,
        "MAX_CONNECTIONS_PER_ADDRESS": 1,
        "RATE_LIMIT": None,
        "TRUSTED_PROXIES": ["10.0.0.0/8"],  # none of the clients
    }
    return shared_serve(front="http-socket", settings={"WSLOOP": options})


def test_without_a_rate_limit_any_number_of_frames_is_taken(loose):
    client = loose.connect("/ws/echo/")
    messages = [str(number) for number in range(2000)]  # ten times the burst of the default
    sender = threading.Thread(target=lambda: [client.send(message) for message in messages])
    sender.start()
    assert client.take(len(messages)) == messages
    sender.join()


LARGE = 4 * 1024 * 1024


def in_fragments(client, message, size):
    """Send a message in fragments of ``size`` bytes, the first without a byte."""
    opcodes = itertools.chain([websocket.ABNF.OPCODE_TEXT], itertools.repeat(websocket.ABNF.OPCODE_CONT))
    parts = ["", *(message[start : start + size] for start in range(0, len(message), size))]
    frames = [
        websocket.ABNF(int(number == len(parts) - 1), opcode=opcode, mask_value=1, data=part.encode()).format()
        for number, (part, opcode) in enumerate(zip(parts, opcodes, strict=False))
    ]
    client.sock.sendall(b"".join(frames))


def in_segments(client, message):
    """Send a message in one frame, the beginning of it in segments of 50 bytes."""
    data = websocket.ABNF(1, opcode=websocket.ABNF.OPCODE_TEXT, mask_value=1, data=message.encode()).format()
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for start in range(0, 5000, 50):
        client.sock.sendall(data[start : start + 50])
    client.sock.sendall(data[5000:])


def test_an_allowed_message_of_4_mib_is_never_too_much_however_it_is_sent(serve, facility):
    """With the default ``RATE_LIMIT``: to a facility, over the socket of a page, to a consumer, and posted."""
    options = {"MAX_MESSAGE_SIZE": LARGE, "MAX_QUEUED_BYTES": 4 * LARGE, "PING_INTERVAL": 600, "PING_TIMEOUT": 600}
    site = serve(front="http-socket", settings={"WSLOOP": options})
    large = "x" * (LARGE - 200)
    bare = site.connect(f"{facility}?subscribe-broadcast&publish-broadcast&echo", timeout=60)
    page = site.connect("", subprotocols=["wsloop.v1"], timeout=60)
    subscribe = {"type": "subscribe", "id": 1, "facility": facility, "publish": ["broadcast"]}
    page.send(json.dumps(subscribe))

    def answer_to(id):
        while (frame := json.loads(page.next(60))).get("id") != id:
            assert frame["type"] in ("welcome", "ping"), frame
        return frame["type"]

    assert answer_to(1) == "welcome"
    publish = json.dumps({"type": "publish", "id": 2, "facility": facility, "data": large})
    consumer = site.connect("/ws/echo/", timeout=60)
    for client in (bare, page, consumer):  # its check of UTF-8 takes seconds
        client.frame_buffer.skip_utf8_validation = client.cont_frame.skip_utf8_validation = True
    bare.send(large)
    assert bare.next(60) == large
    in_fragments(bare, large, 1000)
    assert bare.next(60) == large
    in_fragments(consumer, large, 4082)  # as Go's gorilla does by default
    assert consumer.next(60) == large
    in_segments(page, publish)
    assert answer_to(2) == "ack"
    assert bare.next(60) == large
    answer = site.request(
        "POST",
        f"/ws/{facility}?publish-broadcast",
        headers={"Content-Type": "application/json"},
        body=json.dumps({"type": "publish", "id": 3, "data": large}),
        timeout=60,
    )
    assert answer.status == 200, answer.text
    assert bare.next(60) == large
    assert counted(site, "RATE_LIMIT") == 0
    for client in (bare, page, consumer):
        client.round_trip()


def test_more_frames_than_the_burst_close_with_4029(strict):
    client = strict.connect("/ws/echo/")
    for number in range(10):
        client.send(str(number))
    assert client.take(10) == [str(number) for number in range(10)]
    before = counted(strict, "RATE_LIMIT")
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for number in range(20):  # one a second becomes free; more than enough
            client.send(str(number))
    assert client.closing() == 4029
    assert counted(strict, "RATE_LIMIT") == before + 1


# --- compression ------------------------------------------------------------------------------------------------------


class Watching(ClientPerMessageDeflateFactory):
    """Offers permessage-deflate and notes of each data frame whether it was compressed, and its size on the wire."""

    def __init__(self, **parameters):
        super().__init__(**parameters)
        self.frames = []

    def process_response_params(self, params, accepted_extensions):
        extension = super().process_response_params(params, accepted_extensions)
        decode = extension.decode

        def watch(frame, **options):
            if frame.opcode in DATA_OPCODES and frame.data != HEARTBEAT.encode():
                self.frames.append((frame.rsv1, len(frame.data)))
            return decode(frame, **options)

        extension.decode = watch
        return extension


@contextlib.contextmanager
def compressing(site, path, **parameters):
    """A client of another library that offers compression; ``parameters`` are those of its extension."""
    watching = Watching(**parameters)
    # websockets would offer its own extension, too
    with connect(site.ws_url(path), extensions=[watching], compression=None, open_timeout=20) as client:
        yield client, watching.frames


def negotiated(client):
    return client.response.headers.get("Sec-WebSocket-Extensions")


@pytest.mark.parametrize("where", ["COMPRESS_FROM is None", "off for the facility"])
def test_compression_that_is_off_is_not_negotiated(loose, strict, facility, where):
    site = loose if where == "COMPRESS_FROM is None" else strict
    name = facility if where == "COMPRESS_FROM is None" else facility.replace("test-", "test-plain-")
    with compressing(site, f"{name}?subscribe-broadcast") as (client, _):
        assert negotiated(client) is None
        site.publish(name, "x" * 5000, broadcast=True)
        assert next_of(client) == "x" * 5000


def test_compression_of_other_facilities_stays(strict, facility):
    with compressing(strict, f"{facility}?subscribe-broadcast") as (client, frames):
        assert "permessage-deflate" in negotiated(client)
        strict.publish(facility, "x" * 5000, broadcast=True)
        assert next_of(client) == "x" * 5000
    assert frames[0][0]


def test_a_broadcast_reaches_clients_with_and_without_compression(direct, facility):
    """Each gets what it has negotiated. What is small or does not shrink goes as it is, as all to small windows."""
    path = f"{facility}?subscribe-broadcast"
    text = json.dumps([{"order": number, "state": "paid"} for number in range(100)])
    noise = os.urandom(2000)
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(compressing(direct, path, **parameters))
            for parameters in ({}, {}, {"server_max_window_bits": 12}, {"client_max_window_bits": 10})
        ]
        small_window, its_frames = stack.enter_context(compressing(direct, path, server_max_window_bits=9))
        plain = direct.connect(path)
        direct.publish(facility, "small", text, {"base64": base64.b64encode(noise).decode()}, broadcast=True)
        for client, frames in clients:
            assert [next_of(client) for _ in range(3)] == ["small", text, noise]
            assert [compressed for compressed, _ in frames] == [False, True, False]
            assert frames[1][1] < len(text) / 4
        assert [next_of(small_window) for _ in range(3)] == ["small", text, noise]
        assert [compressed for compressed, _ in its_frames] == [False, False, False], "a window too small to pay"
        assert plain.take(3) == ["small", text, noise]


# --- the page of somebody who is signed out ---------------------------------------------------------------------------


def test_a_page_says_that_its_lines_have_ended_and_what_to_do(direct, tmp_path):
    """Signing out in another window ends the lines of this one for good; its link leads back to the same page."""
    browser = Browser(tmp_path)
    try:
        browser.reset(direct)
        browser.sign_in("mary")
        browser.open("/inbox/")
        browser.connected()
        assert not browser.find("[data-signed-out]").is_displayed()
        page = browser.driver.current_window_handle
        browser.driver.switch_to.new_window("tab")
        browser.open("/")
        browser.press(".account button")
        browser.until(lambda: "Sign in" in browser.text(".account"), "signing out")
        browser.driver.switch_to.window(page)
        browser.until(lambda: browser.find("[data-signed-out]").is_displayed(), "the page says so")
        browser.until(lambda: {line.get_attribute("data-state") for line in browser.lines()} == {"offline"}, "the end")
        assert "signed out" in browser.text("[data-socket]")
        browser.press("[data-signed-out] a")
        browser.write("username", "mary")
        browser.write("password", DEMO_ACCOUNTS["mary"])
        browser.press("main form button")
        browser.connected()
        assert browser.driver.current_url == f"{direct.url}/inbox/"
    finally:
        browser.driver.quit()
