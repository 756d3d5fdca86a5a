"""Who hears what: the forms of the URL, the four audiences to listen to and to publish to, and the sample's policy."""

import secrets
from urllib.parse import quote

import pytest
import websocket

LISTEN = "subscribe-broadcast&subscribe-user&subscribe-group&subscribe-session"


def session_of(cookies):
    return dict(pair.split("=") for pair in cookies.split("; "))["sessionid"]


# --- the URL ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form", ["{}", "{}/with/slashes", "{}/", "{}-a.b_c~d", "{} with space", "{}/café", "{}%41", "{}:x"]
)
def test_facility_is_what_follows_the_websocket_url(site, stock, facility, form):
    facility = form.format(facility)
    client = site.connect(f"{quote(facility)}?subscribe-broadcast")
    stock.publish(facility, "hello", broadcast=True)
    assert client.next() == "hello"


def test_facilities_do_not_mix(site, stock, facility):
    client = site.connect(f"{facility}/a?subscribe-broadcast")
    for other in (facility, f"{facility}/", f"{facility}/a/", f"{facility}/a/b", f"{facility}/A"):
        stock.publish(other, f"for {other}", broadcast=True)
    stock.publish(f"{facility}/a", "for me", broadcast=True)
    assert client.next() == "for me"


@pytest.mark.parametrize(
    "query",
    [
        "subscribe-broadcast&subscribe-everything&foo=bar&utm_source=x&foo",
        "foo=subscribe-user&subscribe-broadcast",
        "subscribe-broadcast=1",
        "subscribe-broadcast&subscribe-broadcast",
        "Subscribe-Broadcast",
        "&&subscribe-broadcast&",
        "subscribe-broadcast&%FF=%FE",
    ],
)
def test_parameters_are_names_and_unknown_ones_are_ignored(site, stock, facility, query):
    client = site.connect(f"{facility}?{query}")
    stock.publish(facility, "once", broadcast=True)
    stock.publish(facility, "last", broadcast=True)
    assert client.take(2) == ["once", "last"]


@pytest.mark.parametrize("query", ["", "?", "?echo", "?foo=subscribe-broadcast", "?publish-broadcast"])
def test_without_a_subscription_the_socket_is_open_and_hears_nothing(site, redis_client, facility, query):
    client = site.connect(f"{facility}{query}")
    assert redis_client.publish(f"ws:broadcast:{facility}", "nobody hears this") == 0
    assert redis_client.pubsub_channels(f"*{facility}") == []
    client.round_trip()


# --- listening --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("audience", ["broadcast", "user", "group", "session"])
def test_each_audience_hears_its_messages_and_no_others(site, stock, facility, john, mary, audience):
    client = site.connect(f"{facility}?subscribe-{audience}", cookies=john, origin=site.url)
    mine = {
        "broadcast": {"broadcast": True},
        "user": {"users": ["john"]},
        "group": {"groups": ["chatters"]},
        "session": {"sessions": [session_of(john)]},
    }
    for other, addressed in mine.items():
        if other != audience:
            stock.publish(facility, f"not for {audience}", **addressed)
    stock.publish(facility, "not mine", users=["mary", "joh", "John"], groups=["chatter"], sessions=[session_of(mary)])
    stock.publish(facility, "mine", **mine[audience])
    assert client.next() == "mine"


def test_one_socket_hears_all_of_its_audiences(site, stock, facility, john):
    client = site.connect(f"{facility}?{LISTEN}", cookies=john)
    stock.publish(facility, "1", broadcast=True)
    stock.publish(facility, "2", users=["john"])
    stock.publish(facility, "3", groups=["chatters"])
    stock.publish(facility, "4", sessions=[session_of(john)])
    assert client.take(4) == ["1", "2", "3", "4"]


def test_a_message_to_a_group_reaches_every_member_but_not_others(site, stock, facility, john, mary):
    admin = site.login("admin")
    members = [site.connect(f"{facility}?subscribe-group", cookies=who) for who in (john, mary)]
    outsider = site.connect(f"{facility}?subscribe-group&subscribe-broadcast", cookies=admin)
    stock.publish(facility, "chatters only", groups=["chatters"])
    stock.publish(facility, "everybody", broadcast=True)
    assert [member.next() for member in members] == ["chatters only"] * 2
    assert outsider.next() == "everybody"


def test_groups_are_those_of_the_user_now_and_not_those_that_the_session_noted_at_the_login(site, stock, facility):
    """Unlike ws4redis: who was removed from a group would go on listening to it until the next login."""
    cookies = site.login("john")
    site.request("POST", "/test/session/", cookies=cookies, body='{"ws4redis:memberof": ["from the session"]}')
    client = site.connect(f"{facility}?subscribe-group", cookies=cookies)
    stock.publish(facility, "of the session", groups=["from the session"])
    stock.publish(facility, "of the database", groups=["chatters"])
    assert client.next() == "of the database"


@pytest.mark.parametrize(
    "cookies", [None, "sessionid=nosuchsession0123456789", "sessionid=", "sessionid=%00%FF; other"]
)
def test_anonymous_sockets_hear_broadcasts_only(site, redis_client, stock, facility, cookies):
    client = site.connect(f"{facility}?{LISTEN}", cookies=cookies)
    assert redis_client.pubsub_channels(f"ws:user:*:{facility}") == []
    assert redis_client.pubsub_channels(f"ws:group:*:{facility}") == []
    stock.publish(facility, "to users", users=["john", "", "None", "AnonymousUser"], groups=["chatters", "", "None"])
    stock.publish(facility, "to no session", sessions=["None", ""])
    stock.publish(facility, "to everybody", broadcast=True)
    assert client.next() == "to everybody"


def test_two_browsers_of_one_user(site, stock, facility, john):
    """Both hear what is for the user, each what is for its own session."""
    other = site.login("john")
    first, second = (
        site.connect(f"{facility}?subscribe-user&subscribe-session", cookies=cookies) for cookies in (john, other)
    )
    stock.publish(facility, "first", sessions=[session_of(john)])
    stock.publish(facility, "second", sessions=[session_of(other)])
    stock.publish(facility, "both", users=["john"])
    assert first.take(2) == ["first", "both"]
    assert second.take(2) == ["second", "both"]


# --- publishing over the socket ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("audience", "hears"),
    [
        ("broadcast", {"john": True, "other john": True, "mary": True, "admin": True}),
        ("user", {"john": True, "other john": True, "mary": False, "admin": False}),
        ("group", {"john": True, "other john": True, "mary": True, "admin": False}),
        ("session", {"john": True, "other john": False, "mary": False, "admin": False}),
    ],
)
def test_a_socket_publishes_to_the_audiences_it_names(site, stock, facility, john, mary, audience, hears):
    cookies = {"john": john, "other john": site.login("john"), "mary": mary, "admin": site.login("admin")}
    listeners = {who: site.connect(f"{facility}?{LISTEN}", cookies=cookies[who]) for who in hears}
    sender = site.connect(f"{facility}?publish-{audience}", cookies=john)
    sender.send("from john")
    assert listeners["john"].next() == "from john"  # has passed Redis: others hear it before what is published now
    stock.publish(facility, "end", broadcast=True)
    heard = {who: listener.until("end") == ["from john"] for who, listener in listeners.items() if who != "john"}
    assert {"john": True, **heard} == hears


def test_a_socket_that_may_not_publish_does_not(site, redis_client, stock, facility, john):
    listener = site.connect(f"{facility}?{LISTEN}", cookies=john)
    sender = site.connect(f"{facility}?{LISTEN}&echo", cookies=john)
    sender.send("into the void")
    sender.round_trip()
    stock.publish(facility, "end", broadcast=True)
    assert listener.until("end") == []
    assert redis_client.keys(f"ws:*{facility}") == [f"ws:broadcast:{facility}"]


def test_publishing_to_two_audiences_at_once(site, stock, facility, john, mary):
    listener = site.connect(f"{facility}?subscribe-group", cookies=mary)
    same_user = site.connect(f"{facility}?subscribe-user", cookies=john)
    sender = site.connect(f"{facility}?publish-user&publish-group", cookies=john)
    sender.send("to both")
    assert listener.next() == "to both"
    assert same_user.next() == "to both"


# --- the sample's policy ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sample(shared_serve):
    """The site with the policy that it ships."""
    return shared_serve(settings={"WS4REDIS_ALLOWED_CHANNELS": "chat.policy.allowed_channels"})


@pytest.mark.parametrize(
    ("account", "audience", "allowed"),
    [
        (None, "broadcast", False),
        (None, "user", False),
        ("john", "broadcast", False),
        ("john", "group", False),
        ("john", "user", True),
        ("john", "session", True),
        ("admin", "broadcast", True),
        ("admin", "user", True),
    ],
)
def test_the_sample_policy_decides_who_publishes(sample, stock, account, audience, allowed):
    facility = "user"  # one that visitors may publish to; other tests' messages may be kept there
    message, end = secrets.token_hex(8), secrets.token_hex(8)
    cookies = account and sample.login(account)
    listen = "subscribe-broadcast&subscribe-session" if account is None else LISTEN
    listener = sample.connect(f"{facility}?{listen}", cookies=cookies)
    try:
        sender = sample.connect(f"{facility}?subscribe-session&publish-{audience}&echo", cookies=cookies)
    except websocket.WebSocketBadStatusException as refusal:
        assert not allowed  # refusing the socket is as good as taking the right away
        assert refusal.status_code == 403
        return
    sender.send(message)
    if allowed:
        listener.until(message)
    else:
        sender.round_trip()
        stock.publish(facility, end, broadcast=True)
        assert message not in listener.until(end)


def test_the_sample_policy_lets_everybody_listen_to_what_is_theirs(sample, stock, facility):
    anonymous = sample.connect(f"{facility}?subscribe-broadcast&subscribe-session")
    john = sample.connect(f"{facility}?{LISTEN}", cookies=sample.login("john"))
    stock.publish(facility, "user", users=["john"])
    stock.publish(facility, "group", groups=["chatters"])
    stock.publish(facility, "broadcast", broadcast=True)
    assert anonymous.next() == "broadcast"
    assert john.take(3) == ["user", "group", "broadcast"]
