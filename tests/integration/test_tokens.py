"""Signing in with a token instead of a cookie: in the query or as a subprotocol, and never shown anywhere."""

import json
import time

import pytest
import websocket

from testbed.clients import Client
from tests.integration.test_browser import Browser

SIGNED_OUT = 4001
HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
WHAT = "subscribe-broadcast&subscribe-user&subscribe-group&subscribe-session"
INVALID = "The token is not valid, has expired, or is not for this address. Get a new one.\n"


def as_administrator(site, code):
    """Run code in ``manage.py shell``; what it prints as JSON is returned."""
    setup = "import json\nfrom django.contrib.auth.models import User\nfrom wsloop import tokens\n"
    lines = site.manage("shell", "-v0", "-c", setup + code).splitlines()
    return json.loads(lines[-1]) if lines else None


def make_token(site, user, **options):
    return as_administrator(site, f"print(json.dumps(tokens.make(User.objects.get(username={user!r}), **{options!r})))")


@pytest.fixture(scope="module")
def token(site):
    """A token of john for the shared site."""
    return make_token(site, "john")


@pytest.fixture
def shown(site):
    """Look for secrets in all that the test got and the site logged: ``shown(token)``."""
    yield lambda secret: secret in site.log()


class Keeping(Client):
    """A client that keeps the raw bytes that it gets, the answer to its handshake included."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.got = b""

    def recv_data_frame(self, control_frame=False):
        opcode, frame = super().recv_data_frame(control_frame)
        self.got += bytes(frame.data)
        return opcode, frame


def bearer(token):
    return {"Authorization": f"Bearer wsloop.token.{token}"}


def connect(site, facility, token, how="query", **options):
    if how == "query":
        return site.connect(f"{facility}?{WHAT}&token={token}", **options)
    if how == "header":
        return site.connect(f"{facility}?{WHAT}", header=bearer(token), **options)
    return site.connect(f"{facility}?{WHAT}", subprotocols=["ws4redis", f"wsloop.token.{token}"], **options)


def refusal(site, facility, token, how="query", **options):
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        connect(site, facility, token, how, **options)
    return refused.value


WAYS = ["query", "subprotocol", "header"]
EACH = pytest.mark.parametrize("how", WAYS)


@EACH
@pytest.mark.parametrize("origin", [False, True], ids=["script", "browser"])
def test_a_token_signs_in(site, stock, facility, token, how, origin):
    client = connect(site, facility, token, how, origin=site.url if origin else None)
    assert client.getsubprotocol() == ("ws4redis" if how == "subprotocol" else None)
    stock.publish(facility, "to mary", users=["mary"])
    stock.publish(facility, "to john", users=["john"])
    stock.publish(facility, "to the group", groups=["chatters"])
    stock.publish(facility, "to all", broadcast=True)
    assert client.take(3) == ["to john", "to the group", "to all"]


def test_a_token_is_not_answered_with(site, facility, token):
    """Clients that offer nothing else miss an answer; but it would show the token."""
    headers = {**HANDSHAKE, "Sec-WebSocket-Protocol": f"wsloop.token.{token}"}
    answer = site.request("GET", f"/ws/{facility}", headers=headers)
    assert answer.status == 101
    assert "Sec-WebSocket-Protocol" not in answer.headers
    assert token not in str(answer.headers)


@EACH
def test_a_token_wins_over_a_cookie(site, stock, facility, token, mary, how):
    client = connect(site, facility, token, how, cookies=mary)
    session = dict(pair.split("=") for pair in mary.split("; "))["sessionid"]
    stock.publish(facility, "to mary", users=["mary"], sessions=[session])
    stock.publish(facility, "to john", users=["john"])
    assert client.next() == "to john"


@EACH
def test_a_token_that_is_not_valid_is_refused_in_spite_of_a_cookie(site, facility, token, john, how, shown):
    secrets = [token[:-1], f"{token}x", token.replace(".", "-"), "no-token-at-all", token.split(".")[0]]
    for secret in secrets:
        refused = refusal(site, facility, secret, how, cookies=john)
        assert refused.status_code == 403
        assert refused.resp_body.decode() == INVALID
        assert secret not in str(refused.resp_headers)
        assert not shown(secret)


@EACH
def test_an_expired_token_is_refused(site, facility, how):
    expired = make_token(site, "john", max_age=0.001)
    assert refusal(site, facility, expired, how).resp_body.decode() == INVALID


@EACH
def test_a_token_for_one_facility(site, stock, facility, how):
    token = make_token(site, "john", facility=f"{facility}/mine")
    client = connect(site, f"{facility}/mine", token, how)
    stock.publish(f"{facility}/mine", "hello", users=["john"])
    assert client.next() == "hello"
    for other in (facility, f"{facility}/other", f"{facility}/mine/"):
        assert refusal(site, other, token, how).resp_body.decode() == INVALID


@EACH
def test_a_socket_ends_with_its_token(site, facility, how):
    began = time.time()
    client = connect(site, facility, make_token(site, "john", max_age=6), how)
    client.round_trip()
    assert client.closing() == SIGNED_OUT
    assert time.time() - began >= 6


@EACH
def test_a_change_of_the_password_ends_tokens_and_their_sockets(serve, facility, how):
    site = serve(processes=2)
    token = make_token(site, "john")
    clients = [connect(site, facility, token, how), connect(site, facility, make_token(site, "mary"), how)]
    as_administrator(site, "user = User.objects.get(username='john')\nuser.set_password('other')\nuser.save()")
    assert clients[0].closing() == SIGNED_OUT
    clients[1].round_trip()
    assert refusal(site, facility, token, how).resp_body.decode() == INVALID


def test_the_logout_of_a_browser_leaves_sockets_of_tokens_alone(site, facility, token):
    """They belong to no session."""
    client = connect(site, facility, token)
    cookies = site.login("john")
    browser = site.connect(f"{facility}?{WHAT}", cookies=cookies)
    jar = dict(pair.split("=", 1) for pair in cookies.split("; "))
    site.request(
        "POST",
        "/accounts/logout/",
        headers={"Content-Type": "application/x-www-form-urlencoded", "Origin": site.url},
        cookies=cookies,
        body=f"csrfmiddlewaretoken={jar['csrftoken']}",
    )
    assert browser.closing() == SIGNED_OUT
    client.round_trip()


@pytest.mark.parametrize("front", ["http", "http-socket"])
def test_tokens_are_in_no_log_frame_or_body(serve, facility, front):
    """Those of sockets that open, of sockets that are refused for whatever reason, and of errors of the site."""
    site = serve(front=front, settings={"WS4REDIS_ALLOWED_CHANNELS": "tests.integration.sites.hooks.listen_only"})
    token = make_token(site, "john")
    for how in WAYS:
        query = f"&token={token}" if how == "query" else ""
        offered = {"Sec-WebSocket-Protocol": f"ws4redis, wsloop.token.{token}"} if how == "subprotocol" else {}
        header = bearer(token) if how == "header" else {}
        offers = ["ws4redis", f"wsloop.token.{token}"] if how == "subprotocol" else None
        client = site.connect(
            f"{facility}/{how}?subscribe-user{query}", class_=Keeping, subprotocols=offers, header=header
        )
        site.publish(f"{facility}/{how}", "hello", users=["john"])
        assert client.next() == "hello"
        assert token not in str(client.getheaders())
        assert token.encode() not in client.got
        for asked, headers, status in (
            ("subscribe-group", HANDSHAKE, 403),  # the policy
            ("crash", HANDSHAKE, 500),  # an error of the site
            ("subscribe-user", {}, 426),
            ("subscribe-user", {**HANDSHAKE, "Host": "elsewhere.example.org"}, 400),
        ):
            answer = site.request("GET", f"/ws/{facility}?{asked}{query}", headers={**headers, **offered, **header})
            assert answer.status == status
            assert token not in f"{answer.text} {answer.headers}"
    log = site.log()
    assert "reason-that-belongs-in-the-log-only" in log  # the error is there, with its trace
    assert token not in log
    assert token.split(".")[1] not in log


OPEN = """
const [protocols, done] = arguments;
const socket = new WebSocket(location.href.replace("http", "ws") + "ws/FACILITY?subscribe-user", protocols);
socket.onmessage = (event) => event.data !== "--heartbeat--" && done([socket.protocol, event.data]);
socket.onclose = (event) => done(["closed", event.code]);
"""


def test_a_browser_signs_in_with_a_subprotocol(site, stock, facility, token, tmp_path):
    """And needs a second one, which the server can answer with."""
    browser = Browser(tmp_path)
    try:
        browser.reset(site)
        browser.open("/")
        stock.publish(facility, "kept", users=["john"])
        script = OPEN.replace("FACILITY", facility)
        both = ["ws4redis", f"wsloop.token.{token}"]
        assert browser.driver.execute_async_script(script, both) == ["ws4redis", "kept"]
        assert browser.console() == []
        assert browser.driver.execute_async_script(script, both[1:]) == ["closed", 1006]
    finally:
        browser.driver.quit()
