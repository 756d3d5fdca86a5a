"""Sockets end with the session that opened them: in every worker, on every machine, for whatever reason.

Two machines are two sites with two workers each, on one Redis and one database. "In every worker" sockets are opened
one by one while the other workers stand still.
"""

import itertools
import json
import re
import sqlite3
import time
from datetime import datetime, timedelta, timezone
from urllib.parse import urlencode

import pytest

from testbed.clients import cookies_of
from testbed.processes import wait_until

SIGNED_OUT, RIGHTS_CHANGED = 4001, 4003
LISTEN = "subscribe-broadcast&subscribe-user&subscribe-group&subscribe-session"
PASSWORD = "correct horse battery staple"
HASHERS = ["MD5PasswordHasher", "PBKDF2PasswordHasher"]  # the first one, to be quick; the demo accounts have the other
SETTINGS = {"PASSWORD_HASHERS": [f"django.contrib.auth.hashers.{each}" for each in HASHERS]}
numbers = itertools.count(1)


def as_administrator(site, code):
    """Run code in ``manage.py shell``, a process without a server; what it prints as JSON is returned."""
    lines = site.manage("shell", "-v0", "-c", "from django.contrib.auth.models import *\n" + code).splitlines()
    return json.loads(lines[-1]) if lines else None


def make_accounts(site, count):
    """Names of new accounts, members of the group chatters, who may enter the admin and do nothing there."""
    names = [f"user{next(numbers)}" for _ in range(count)]
    as_administrator(
        site,
        f"for name in {names}:\n"
        f"    user = User.objects.create_user(name, password={PASSWORD!r}, is_staff=True)\n"
        "    user.groups.add(Group.objects.get(name='chatters'))\n",
    )
    return names


@pytest.fixture(scope="module")
def machines(shared_serve):
    first = shared_serve(processes=2, settings=SETTINGS)
    database = {"DATABASE_URL": f"sqlite:///{first.directory}/db.sqlite3"}
    return [first, shared_serve(processes=2, settings=SETTINGS, env=database)]


@pytest.fixture(scope="module")
def accounts(machines):
    return iter(make_accounts(machines[0], 16))


@pytest.fixture
def user(accounts):
    """The name of an account that only this test uses."""
    return next(accounts)


def in_every_worker(machines, path, cookies=None):
    """A socket in each worker of each machine."""
    clients = []
    for site in machines:
        for pid in site.workers():
            with site.only(pid):
                clients.append(site.connect(path, cookies=cookies))
    return clients


def post(site, path, cookies, **fields):
    """Send a form as a signed-in browser does; returns its cookies afterwards."""
    jar = dict(pair.split("=", 1) for pair in cookies.split("; "))
    answer = site.request(
        "POST",
        path,
        headers={"Content-Type": "application/x-www-form-urlencoded", "Origin": site.url},
        cookies=cookies,
        body=urlencode({**fields, "csrfmiddlewaretoken": jar["csrftoken"]}),
    )
    assert answer.status == 302, f"{path}: {answer.status}\n{answer.text}"
    jar |= cookies_of(answer)
    if jar["sessionid"] != '""':  # which deletes the cookie, and is in many a line of a log
        site.session_keys.add(jar["sessionid"])
    return "; ".join(f"{name}={value}" for name, value in jar.items())


def session_of(cookies):
    return re.search("sessionid=([a-z0-9]+)", cookies)[1]


def codes(clients):
    return [client.closing() for client in clients]


def all_open(clients):
    """Whether all are open and served: whatever closed them would come before the answer to a ping."""
    return [client.round_trip() for client in clients] == [b"round trip"] * len(clients)


# In every worker of every machine.


def test_logout_closes_the_sockets_of_that_session_within_a_second(machines, facility, user, record_property):
    cookies, elsewhere = (machines[0].login(user, PASSWORD) for _ in range(2))
    mine = in_every_worker(machines, f"{facility}?{LISTEN}", cookies)
    stay = in_every_worker(machines, f"{facility}?{LISTEN}", elsewhere)
    stay += in_every_worker(machines, f"{facility}?subscribe-broadcast&subscribe-session")
    began = time.monotonic()
    post(machines[0], "/accounts/logout/", cookies)
    assert codes(mine) == [SIGNED_OUT] * 4
    took = time.monotonic() - began
    record_property("seconds from the request to the last close frame", round(took, 3))
    print(f"logout: {took:.3f} s from the request to the last of 4 close frames")
    assert all_open(stay)
    assert took < 5  # promised is 1; a busy machine is none of the code's faults


def test_a_change_of_the_password_closes_all_sockets_of_the_user(machines, facility, user):
    cookies, elsewhere = (machines[0].login(user, PASSWORD) for _ in range(2))
    mine = [
        client for each in (cookies, elsewhere) for client in in_every_worker(machines, f"{facility}?{LISTEN}", each)
    ]
    stay = in_every_worker(machines, f"{facility}?subscribe-broadcast")
    form = {"old_password": PASSWORD, "new_password1": "another one, longer", "new_password2": "another one, longer"}
    changed = post(machines[1], "/admin/password_change/", cookies, **form)
    assert codes(mine) == [SIGNED_OUT] * 8
    assert all_open(stay)
    # The browser that changed it is still signed in.
    again = machines[0].connect(f"{facility}?subscribe-user", cookies=changed)
    machines[0].publish(facility, "hello", users=[user])
    assert again.next() == "hello"


@pytest.mark.parametrize(
    "change",
    [
        "user.is_active = False; user.save()",
        "user.set_password('x'); user.save()",
        "user.delete()",
        "User.objects.filter(pk=user.pk).delete()",
        "User.objects.filter(pk=user.pk).update(is_active=False)\nfrom wsloop.signals import recheck\nrecheck(user)",
        "from django.db import transaction\nwith transaction.atomic():\n    user.is_active = False\n    user.save()",
    ],
)
def test_an_administrator_ends_the_sockets_of_a_user(machines, facility, user, change):
    """From a process that is no server."""
    cookies = machines[0].login(user, PASSWORD)
    mine = in_every_worker(machines, f"{facility}?{LISTEN}", cookies)
    stay = in_every_worker(machines, f"{facility}?{LISTEN}", machines[0].login("mary"))
    as_administrator(machines[1], f"user = User.objects.get(username={user!r})\n{change}")
    assert codes(mine) == [SIGNED_OUT] * 4
    assert all_open(stay)


@pytest.mark.parametrize(
    "change",
    [
        "user.groups.remove(Group.objects.get(name='chatters'))",
        "Group.objects.get(name='chatters').user_set.remove(user)",
    ],
)
def test_who_is_removed_from_a_group_no_longer_gets_its_messages(machines, facility, user, change):
    cookies = machines[0].login(user, PASSWORD)
    mine = in_every_worker(machines, f"{facility}?{LISTEN}", cookies)
    member = machines[1].connect(f"{facility}?{LISTEN}", cookies=machines[1].login("mary"))
    machines[0].publish(facility, "before", groups=["chatters"])
    assert [client.next() for client in [*mine, member]] == ["before"] * 5
    as_administrator(machines[0], f"user = User.objects.get(username={user!r})\n{change}")
    assert codes(mine) == [RIGHTS_CHANGED] * 4
    # The same session, which has noted the groups of its login.
    again = in_every_worker(machines, f"{facility}?{LISTEN}", cookies)
    machines[0].publish(facility, "for members", groups=["chatters"], expire=0)
    machines[0].publish(facility, "for all", broadcast=True, expire=0)
    assert member.next() == "for members"
    assert [client.until("for all") for client in again] == [[]] * 4


def test_who_joins_a_group_gets_its_messages_without_signing_in_again(machines, facility, user):
    cookies = machines[0].login(user, PASSWORD)
    mine = machines[0].connect(f"{facility}?{LISTEN}", cookies=cookies)
    as_administrator(
        machines[0],
        f"User.objects.get(username={user!r}).groups.add(Group.objects.create(name='new of {user}'))",
    )
    assert mine.closing() == RIGHTS_CHANGED
    again = machines[0].connect(f"{facility}?{LISTEN}", cookies=cookies)
    machines[0].publish(facility, "for the new group", groups=[f"new of {user}"])
    assert again.next() == "for the new group"


def test_what_is_no_change_closes_nothing(machines, facility, user, accounts):
    """Saving a user, or signing in once more, which saves the time of the login."""
    other = next(accounts)
    cookies = machines[0].login(user, PASSWORD)
    mine = in_every_worker(machines, f"{facility}?{LISTEN}", cookies)
    others = in_every_worker(machines, f"{facility}?{LISTEN}", machines[0].login(other, PASSWORD))
    machines[1].login(user, PASSWORD)
    as_administrator(
        machines[0],
        f"user = User.objects.get(username={user!r})\n"
        "user.first_name = 'New'\nuser.save()\nuser.save()\n"
        "user.groups.add(Group.objects.get(name='chatters'))\n"
        f"other = User.objects.get(username={other!r})\n"
        "other.is_active = False\nother.save()\n",
    )
    assert codes(others) == [SIGNED_OUT] * 4  # all that was told before has been looked at by then
    assert all_open(mine)


def test_sockets_that_need_no_redis_end_too(serve, private_redis):
    """In a worker that has no others."""
    site = serve(redis=private_redis, settings=SETTINGS)
    cookies = site.login("john")
    client = site.connect("/ws/echo/", cookies=cookies)
    assert all_open([client])
    post(site, "/accounts/logout/", cookies)
    assert client.closing() == SIGNED_OUT


# The end of a session.


def ends_in(site, seconds, cookies):
    """Let a session end in so many seconds, in the database."""
    end = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    with sqlite3.connect(site.directory / "db.sqlite3", timeout=20) as database:
        done = database.execute(
            "UPDATE django_session SET expire_date = ? WHERE session_key = ?",
            (end.strftime("%Y-%m-%d %H:%M:%S.%f"), session_of(cookies)),
        )
        assert done.rowcount == 1
    database.close()


def test_sockets_end_with_their_session(machines, facility, user):
    cookies, longer = (machines[0].login(user, PASSWORD) for _ in range(2))
    ends_in(machines[0], 5, cookies)
    mine = in_every_worker(machines, f"{facility}?{LISTEN}", cookies)
    stay = in_every_worker(machines, f"{facility}?{LISTEN}", longer)
    assert codes(mine) == [SIGNED_OUT] * 4
    assert all_open(stay)


def test_the_age_of_sessions_is_that_of_sockets(serve, facility):
    site = serve(settings={**SETTINGS, "SESSION_COOKIE_AGE": 4})
    cookies = site.login("john")
    began = time.monotonic()
    client = site.connect(f"{facility}?{LISTEN}", cookies=cookies)
    assert client.closing() == SIGNED_OUT
    assert time.monotonic() - began > 2


@pytest.mark.parametrize(
    "engine", ["django.contrib.sessions.backends.db", "django.contrib.sessions.backends.cached_db"]
)
def test_a_session_that_is_prolonged_keeps_its_sockets(serve, facility, engine):
    site = serve(processes=1, settings={**SETTINGS, "SESSION_SAVE_EVERY_REQUEST": True, "SESSION_ENGINE": engine})
    prolonged, ending = site.login("john"), site.login("mary")
    ends_in(site, 5, prolonged)
    ends_in(site, 7, ending)
    client = site.connect(f"{facility}?{LISTEN}", cookies=prolonged)
    other = site.connect(f"{facility}?{LISTEN}", cookies=ending)
    assert site.request("GET", "/test/whoami/", cookies=prolonged).json()["user"] == "john"
    assert other.closing() == SIGNED_OUT  # by then the other one has been looked at
    assert all_open([client])
    site.publish(facility, "still here", users=["john"])
    assert client.next() == "still here"


def test_sessions_in_files(serve, facility):
    """A store that cannot be asked for many sessions at once."""
    site = serve(settings={**SETTINGS, "SESSION_ENGINE": "django.contrib.sessions.backends.file"})
    cookies, stays = site.login("john"), site.login("john")
    clients = [site.connect(f"{facility}?{LISTEN}", cookies=each) for each in (cookies, stays)]
    post(site, "/accounts/logout/", cookies)
    assert clients[0].closing() == SIGNED_OUT
    assert all_open(clients[1:])


# Redis is away.


def test_what_happened_while_redis_was_down_is_made_up_for(serve, private_redis, facility):
    site = serve(redis=private_redis, processes=2, settings=SETTINGS)
    leaves, inactive, moved, stays = names = make_accounts(site, 4)
    cookies = {name: site.login(name, PASSWORD) for name in names}
    clients = {name: in_every_worker([site], f"{facility}?{LISTEN}", cookies[name]) for name in names}
    anonymous = in_every_worker([site], f"{facility}?subscribe-broadcast")
    private_redis.kill()
    post(site, "/accounts/logout/", cookies[leaves])  # works all the same
    as_administrator(
        site,
        f"User.objects.filter(username={inactive!r}).first().groups.clear()\n"
        f"user = User.objects.get(username={inactive!r})\nuser.is_active = False\nuser.save()\n"
        f"User.objects.get(username={moved!r}).groups.clear()\n",
    )
    assert all_open([client for each in clients.values() for client in each])
    private_redis.start()
    assert codes(clients[leaves]) == [SIGNED_OUT] * 2
    assert codes(clients[inactive]) == [SIGNED_OUT] * 2
    assert codes(clients[moved]) == [RIGHTS_CHANGED] * 2
    assert all_open(clients[stays] + anonymous)
    assert "Could not notify workers, which check all sockets when they reconnect to Redis" in site.log()


# While a socket is being opened.


@pytest.mark.parametrize("how", ["logout", "password"])
def test_a_change_during_the_handshake(serve, redis_server, facility, how):
    """Authenticated before the change, open after it: the answer to its SUBSCRIBE is held back meanwhile."""
    from threading import Event, Thread

    from tests.integration.harness import RedisProxy

    held, go_on = Event(), Event()

    def wait(data):
        if b"SUBSCRIBE" in data and facility.encode() in data and not go_on.is_set():
            held.set()
            go_on.wait(20)

    proxy = RedisProxy(redis_server.port, question=wait)
    try:
        site = serve(settings=SETTINGS, env={"REDIS_URL": proxy.url})
        cookies = site.login("john")
        site.connect("another?subscribe-broadcast")  # notices are heard from now on
        opened = []
        opening = Thread(target=lambda: opened.append(site.connect(f"{facility}?subscribe-user", cookies=cookies)))
        opening.start()
        assert held.wait(20)
        if how == "logout":
            post(site, "/accounts/logout/", cookies)
        else:
            as_administrator(site, "user = User.objects.get(username='john')\nuser.set_password('x')\nuser.save()")
        go_on.set()
        opening.join(20)
        assert opened[0].closing() == SIGNED_OUT
    finally:
        go_on.set()
        proxy.close()


# Secrets.


def test_session_keys_are_in_no_frame_page_or_log(machines, facility, user):
    cookies = machines[0].login(user, PASSWORD)
    key = session_of(cookies)
    client = machines[1].connect(f"{facility}?{LISTEN}", cookies=cookies)
    answer = machines[0].request("GET", "/", cookies=cookies)
    assert key not in answer.text
    post(machines[0], "/accounts/logout/", cookies)
    opcode, data = wait_until(lambda: _not_heartbeat(client), what="the close frame")
    assert (opcode, int.from_bytes(data[:2], "big")) == (8, SIGNED_OUT)
    assert key.encode() not in data
    assert [key for site in machines if key in site.log()] == []


def _not_heartbeat(client):
    opcode, data = client.recv_data()
    return (opcode, data) if opcode == 8 else None
