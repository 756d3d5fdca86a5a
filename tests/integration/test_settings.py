"""Each WS4REDIS setting, as a site that moves over from ws4redis has it."""

import time

import pytest
import websocket

from testbed.processes import wait_until
from tests.integration.harness import StockPublisher
from tests.integration.sites.hooks import SECRET_REASON
from tests.requires import need


def check(site, facility, connection, prefix="ws"):
    """Sockets, both publishers in the site and the stock one outside of it meet on the same Redis."""
    client = site.connect(f"{facility}?subscribe-broadcast&publish-broadcast&echo")
    site.publish(facility, "wsloop's publisher", broadcast=True)
    site.publish(facility, "the stock publisher in the site", publisher="stock", broadcast=True)
    outside = StockPublisher(connection, prefix)
    outside.publish(facility, "the stock publisher outside", broadcast=True)
    outside.close()
    client.send("the socket")
    assert client.take(4) == [
        "wsloop's publisher",
        "the stock publisher in the site",
        "the stock publisher outside",
        "the socket",
    ]
    late = site.connect(f"{facility}?subscribe-broadcast")
    assert late.next() == "the socket"


# --- WS4REDIS_CONNECTION ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form", ["url", "unix url", "unix dictionary", "dictionary", "dictionary as in ws4redis's docs"]
)
def test_forms_of_the_connection(serve, private_redis, facility, form):
    dictionary = private_redis.connection()
    forms = {
        "url": private_redis.url,
        "unix url": f"unix://{private_redis.socket_path}",
        "unix dictionary": {"unix_socket_path": private_redis.socket_path},
        "dictionary": {"host": "127.0.0.1", "port": private_redis.port},
        "dictionary as in ws4redis's docs": {
            "host": "localhost",
            "port": private_redis.port,
            "db": 0,
            "password": None,
        },
    }
    # REDIS_URL names another server that is not there: only the setting counts
    site = serve(settings={"WS4REDIS_CONNECTION": forms[form]}, env={"REDIS_URL": "redis://127.0.0.1:1/0"})
    check(site, facility, dictionary)


@pytest.mark.parametrize("form", ["url", "dictionary"])
def test_database_and_password(serve, start_redis, facility, form):
    server = start_redis(password="pass word:@/?")
    connection = server.connection(db=3)
    setting = connection if form == "dictionary" else server.url.replace("/0", "/3")
    site = serve(settings={"WS4REDIS_CONNECTION": setting}, redis=server)
    check(site, facility, connection)
    with server.client() as database_0:
        assert database_0.info("keyspace").keys() == {"db3"}


@pytest.mark.parametrize("form", ["url", "dictionary"])
def test_tls(serve, start_redis, facility, form):
    need("openssl")
    server = start_redis(tls=True, password="secret")
    setting = server.connection() if form == "dictionary" else server.url
    site = serve(settings={"WS4REDIS_CONNECTION": setting}, redis=server)
    client = site.connect(f"{facility}?subscribe-broadcast&publish-broadcast&echo")
    site.publish(facility, "over TLS", broadcast=True)
    client.send("both ways")
    assert client.take(2) == ["over TLS", "both ways"]


def test_a_certificate_that_is_not_trusted_is_refused(serve, start_redis, facility):
    need("openssl")
    server = start_redis(tls=True)
    site = serve(
        settings={"WS4REDIS_CONNECTION": {"host": "127.0.0.1", "port": server.port, "ssl": True}}, redis=server
    )
    with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
        site.connect(f"{facility}?subscribe-broadcast")
    assert refusal.value.status_code == 503


def test_the_password_of_redis_is_in_no_log_and_no_answer(serve, private_redis, facility):
    url = f"redis://:do-not-tell@127.0.0.1:{private_redis.port}/0"  # the server wants none: every connection fails
    site = serve(settings={"WS4REDIS_CONNECTION": url}, redis=private_redis)
    private_redis.kill()
    with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
        site.connect(f"{facility}?subscribe-broadcast")
    assert b"do-not-tell" not in refusal.value.resp_body
    assert "do-not-tell" not in site.log()


# --- names and times --------------------------------------------------------------------------------------------------


def test_websocket_url(serve, stock, facility):
    site = serve(settings={"WEBSOCKET_URL": "/live/sockets/"})
    client = site.connect(f"/live/sockets/{facility}/x?subscribe-broadcast")
    stock.publish(f"{facility}/x", "hello", broadcast=True)
    assert client.next() == "hello"
    with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
        site.connect(f"/ws/{facility}?subscribe-broadcast")
    assert refusal.value.status_code == 404  # Django's


@pytest.mark.parametrize(("prefix", "begins"), [(None, ""), ("", ""), ("another", "another:")])
def test_prefix(serve, private_redis, facility, prefix, begins):
    site = serve(settings={"WS4REDIS_PREFIX": prefix}, redis=private_redis)
    check(site, facility, private_redis.connection(), prefix)
    with private_redis.client() as client:
        assert client.keys(f"*{facility}") == [f"{begins}broadcast:{facility}"]
        assert client.pubsub_channels(f"*{facility}") == [f"{begins}broadcast:{facility}"]


@pytest.mark.parametrize(("expire", "kept"), [(7, range(5, 8)), (0, [-2])])
def test_expire(serve, redis_client, facility, expire, kept):
    site = serve(settings={"WS4REDIS_EXPIRE": expire})
    witness = site.connect(f"{facility}/socket?subscribe-broadcast")
    site.connect(f"{facility}/socket?publish-broadcast").send("from a socket")
    site.publish(f"{facility}/wsloop", "from a view", broadcast=True)
    site.publish(f"{facility}/stock", "from a view", broadcast=True, publisher="stock")
    assert witness.next() == "from a socket"
    for name in ("socket", "wsloop", "stock"):
        wait_until(lambda name=name: redis_client.ttl(f"ws:broadcast:{facility}/{name}") in kept, what=name)


def test_another_heartbeat(serve, facility, redis_client):
    site = serve(settings={"WS4REDIS_HEARTBEAT": "♥ bump"})
    client = site.connect(f"{facility}?subscribe-broadcast&publish-broadcast&echo")
    client.send("♥ bump")
    client.send("--heartbeat--")
    client.settimeout(8)
    assert client.recv() == "--heartbeat--"  # an ordinary text now; the other one was swallowed
    assert client.recv() == "♥ bump"
    assert redis_client.get(f"ws:broadcast:{facility}") == "--heartbeat--"


def test_no_heartbeat(serve, facility):
    site = serve(settings={"WS4REDIS_HEARTBEAT": None, "WSLOOP": {"PING_INTERVAL": 1}})
    client = site.connect(f"{facility}?subscribe-broadcast")
    deadline = time.monotonic() + 4.5  # the pings are the clock: longer than a heartbeat would take
    while time.monotonic() < deadline:
        client.settimeout(5)
        opcode, _ = client.recv_data(control_frame=True)
        assert opcode == websocket.ABNF.OPCODE_PING


# --- WS4REDIS_SUBSCRIBER ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def extra_channels(shared_serve):
    return shared_serve(settings={"WS4REDIS_SUBSCRIBER": "tests.integration.sites.subscribers.ExtraChannels"})


def test_a_subscriber_that_adds_channels(extra_channels, stock, redis_client, facility):
    quiet = extra_channels.connect(f"{facility}?echo")
    client = extra_channels.connect(f"{facility}?subscribe-broadcast")
    stock.publish(facility, "own", broadcast=True, expire=0)
    stock.publish("announcements", facility, broadcast=True, expire=60)
    assert client.take(2) == ["own", facility]
    assert quiet.next() == facility
    late = extra_channels.connect(f"{facility}?subscribe-broadcast")
    assert late.next() == facility  # kept messages of added channels count, too
    for socket in (quiet, client, late):
        socket.close()
    wait_until(lambda: redis_client.pubsub_channels("ws:broadcast:announcements") == [], what="unsubscribing")


def test_nothing_is_lost_on_an_added_channel(extra_channels, redis_client, facility):
    for number in range(100):
        client = extra_channels.connect(facility)
        assert redis_client.publish("ws:broadcast:announcements", f"{facility} {number}") == 1
        while client.next() != f"{facility} {number}":
            pass
        client.close()


def test_a_subscriber_with_its_own_history(serve, facility):
    site = serve(settings={"WS4REDIS_SUBSCRIBER": "tests.integration.sites.subscribers.LastThree"})
    sender = site.connect(f"{facility}?subscribe-broadcast&publish-broadcast&echo")
    for number in range(5):
        sender.send(f"message {number}")
    assert sender.take(5) == [f"message {number}" for number in range(5)]
    # echo means published; the subscriber keeps it right after that
    late = wait_until(lambda: _last_three(site, facility), what="the last three messages")
    assert late == ["message 2", "message 3", "message 4"]


def _last_three(site, facility):
    client = site.connect(f"{facility}?subscribe-broadcast")
    site.publish(facility, "end", broadcast=True, expire=0)
    kept = client.until("end")
    client.close()
    return kept if kept[-1:] == ["message 4"] else None


# --- who may do what --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["dotted", "callable"])
def guarded(request, shared_serve):
    """A site with a policy and its own way to find out who is asking, named by dotted paths or given as callables."""
    if request.param == "callable":
        return shared_serve(settings_module="tests.integration.sites.callable_settings")
    hooks = "tests.integration.sites.hooks"
    return shared_serve(
        settings={
            "WS4REDIS_ALLOWED_CHANNELS": f"{hooks}.listen_only",
            "WS4REDIS_PROCESS_REQUEST": f"{hooks}.user_from_header",
        }
    )


def test_process_request_says_who_is_asking(guarded, stock, facility):
    cookies = guarded.login("mary")  # signed in, but this site does not ask its sessions
    client = guarded.connect(f"{facility}?subscribe-user", cookies=cookies, header=["X-Test-User: ida"])
    stock.publish(facility, "for mary", users=["mary"])
    stock.publish(facility, "for ida", users=["ida"])
    assert client.next() == "for ida"


def test_process_request_may_leave_it_open(guarded, stock, facility):
    client = guarded.connect(f"{facility}?subscribe-user&subscribe-session&subscribe-broadcast")
    stock.publish(facility, "for a user", users=["mary", "None", ""], sessions=["None"])
    stock.publish(facility, "for all", broadcast=True)
    assert client.next() == "for all"


def test_allowed_channels_takes_rights_away(guarded, stock, facility):
    listener = guarded.connect(f"{facility}?subscribe-broadcast")
    sender = guarded.connect(f"{facility}?subscribe-broadcast&publish-broadcast&echo")
    sender.send("not allowed")
    sender.round_trip()
    stock.publish(facility, "end", broadcast=True)
    assert listener.until("end") == sender.until("end") == []


@pytest.mark.parametrize(
    ("query", "header", "status"),
    [("subscribe-group", [], 403), ("subscribe-user", ["X-Test-User: nobody"], 403), ("crash=1", [], 500)],
)
def test_hooks_that_raise(guarded, facility, query, header, status):
    with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
        guarded.connect(f"{facility}?{query}", header=header)
    assert refusal.value.status_code == status
    assert SECRET_REASON.encode() not in refusal.value.resp_body
    assert b"Traceback" not in refusal.value.resp_body
    if status == 500:
        wait_until(lambda: "ZeroDivisionError" in guarded.log(), what="the crash in the log")
    assert guarded.connect(f"{facility}?subscribe-broadcast").connected
