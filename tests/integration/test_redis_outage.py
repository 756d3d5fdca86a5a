"""Redis goes away and comes back: the site serves on, sockets stay open, and everything works again by itself."""

import contextlib

import pytest
import websocket

from testbed.processes import wait_until

BOTH = "subscribe-broadcast&publish-broadcast"


@pytest.fixture(params=["http", "http-socket"])
def fragile(request, serve, private_redis):
    return serve(redis=private_redis, front=request.param)


def test_redis_goes_and_comes_back(fragile, private_redis, facility):
    john = fragile.login("john")
    listener = fragile.connect(f"{facility}?{BOTH}&subscribe-user&echo", cookies=john)
    fragile.publish(facility, "before", broadcast=True)
    assert listener.next() == "before"

    private_redis.kill()
    for path in ("/", "/accounts/login/", "/test/whoami/"):
        assert fragile.request("GET", path, cookies=john).status == 200
    with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
        fragile.connect(f"{facility}?subscribe-broadcast")
    assert refusal.value.status_code == 503
    assert int(refusal.value.resp_headers["retry-after"]) >= 1
    listener.round_trip()  # open, and served
    with contextlib.suppress(OSError):
        listener.send("into the outage")
    listener.round_trip()

    private_redis.start()
    with private_redis.client() as client:
        for channel in (f"ws:broadcast:{facility}", f"ws:user:john:{facility}"):
            wait_until(lambda channel=channel: client.publish(channel, "again"), 20, f"subscribing to {channel} again")
    heard = listener.until("again")
    assert set(heard) <= {"into the outage"}
    newcomer = wait_until(lambda: connected(fragile, facility), 20, "new sockets")
    listener.send("from the old socket")
    assert newcomer.until("from the old socket", 10) == []
    fragile.publish(facility, "from a view", broadcast=True)
    assert newcomer.next() == "from a view"
    assert "from a view" in listener.take(3)


def connected(site, facility):
    with contextlib.suppress(websocket.WebSocketBadStatusException):
        return site.connect(f"{facility}?subscribe-broadcast")


def test_redis_is_not_there_when_the_site_starts(serve, private_redis, facility):
    private_redis.kill()
    site = serve(redis=private_redis)
    assert site.request("GET", "/").status == 200
    assert connected(site, facility) is None
    assert site.request("GET", "/healthz").status == 200
    assert (site.request("GET", "/readyz").status, site.request("HEAD", "/readyz").status) == (503, 503)
    private_redis.start()
    wait_until(lambda: site.request("GET", "/readyz").status == 200, 20, "being ready")
    client = wait_until(lambda: connected(site, facility), 20, "sockets")
    site.publish(facility, "hello", broadcast=True)
    assert client.next() == "hello"


def test_a_redis_that_hangs_is_like_one_that_is_down(serve, private_redis, facility):
    """Stopped, not dead: connections are accepted and nothing is answered."""
    site = serve(redis=private_redis, front="http-socket", settings={"WSLOOP": {"REDIS_TIMEOUT": 1}})
    listener = site.connect(f"{facility}?{BOTH}&echo")
    private_redis.pause()
    try:
        with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
            site.connect(f"{facility}/new?subscribe-broadcast", timeout=15)
        assert refusal.value.status_code == 503
        assert site.request("GET", "/readyz").json() == {"ready": False, "failing": ["redis"]}
        assert site.request("GET", "/").status == 200
        listener.round_trip()
    finally:
        private_redis.resume()
    client = wait_until(lambda: connected(site, facility), 20, "new sockets")
    with private_redis.client() as redis:
        wait_until(lambda: redis.publish(f"ws:broadcast:{facility}", "again") >= 1, 20, "subscribers")
    assert client.next() == "again"
    assert listener.next(20) == "again"


def test_killed_connections_are_made_again(serve, private_redis, facility):
    """CLIENT KILL, a failover or a firewall: the server is there, only the connections are gone."""
    site = serve(redis=private_redis)
    listener = site.connect(f"{facility}?{BOTH}&echo")
    with private_redis.client() as redis:
        for kind in ("pubsub", "normal"):
            redis.client_kill_filter(_type=kind, skipme=True)
        wait_until(lambda: redis.publish(f"ws:broadcast:{facility}", "again"), 20, "subscribing again")
    assert listener.next() == "again"
    wait_until(lambda: _echoes(listener), 20, "publishing again")


def _echoes(client):
    client.send("echo")
    with contextlib.suppress(websocket.WebSocketTimeoutException):
        return client.next(1) == "echo"
