"""What workers are told of, when, and what happens if they cannot be: real Redis, real database."""

import json
import logging
import types

import pytest
from django.contrib.auth import login, logout, update_session_auth_hash, user_logged_out
from django.contrib.auth.models import AnonymousUser, Group, User
from django.contrib.sessions.backends.db import SessionStore
from django.db import transaction
from django.test import RequestFactory

from tests.unit.peer import WAIT
from wsloop import signals
from wsloop.backend import keys, pool

CHANNEL = keys.control_channel()


@pytest.fixture
def told(shared_redis, database):
    """What workers have been told since the last time: a list of notices."""
    with shared_redis.client() as client, client.pubsub() as listener:
        listener.subscribe(CHANNEL)
        assert listener.get_message(timeout=WAIT)["type"] == "subscribe"

        def since():
            pool.client().publish(CHANNEL, "end")
            messages = iter(lambda: listener.get_message(timeout=WAIT)["data"], "end")
            return [json.loads(message) for message in messages]

        yield since


@pytest.fixture
def john(told):
    john = User.objects.create_user("john", password="secret")
    assert told() == []  # nobody has a socket yet
    return john


@pytest.fixture
def mary(told):
    return User.objects.create_user("mary")


@pytest.fixture
def chatters(told, john, mary):
    group = Group.objects.create(name="chatters")
    group.user_set.set([john, mary])
    told()
    return group


def users(*those):
    return [{"users": sorted(str(user.pk) for user in those)}] if those else []


def browser(user=None, key=None):
    """A request as the middleware of sessions and users leave it."""
    made = RequestFactory().get("/")
    made.session, made.user = SessionStore(key), user or AnonymousUser()
    if key:
        made.COOKIES["sessionid"] = key
    return made


# Users.


@pytest.mark.parametrize(
    "act",
    [
        lambda user: user.save(),
        lambda user: (user.set_password("other"), user.save()),
        lambda user: user.save(update_fields=["password"]),
        lambda user: user.save(update_fields=["last_login", "is_active"]),
        lambda user: User.objects.update_or_create(username="john", defaults={"is_active": False}),
    ],
)
def test_a_saved_user(told, john, act):
    act(john)
    assert told() == users(john)


def test_a_login_is_no_change(told, john):
    john.save(update_fields=["last_login"])
    assert told() == []


@pytest.mark.parametrize("how", [lambda user: user.delete(), lambda user: User.objects.filter(pk=user.pk).delete()])
def test_a_deleted_user(told, john, how):
    expected = users(john)
    how(john)
    assert told() == expected


class Proxy(User):
    """Django sends the signals of a proxy with the proxy as their sender."""

    class Meta:
        proxy = True
        app_label = "auth"


def test_a_proxy_of_the_user_model(told, john):
    signals.connect()  # as at the start, when all models are there
    Proxy.objects.get(pk=john.pk).save()
    assert told() == users(john)
    expected = users(john)
    Proxy.objects.get(pk=john.pk).delete()
    assert told() == expected


def test_other_models_are_not_listened_to():
    """A listener without a sender would make Django load all rows that it deletes."""
    from django.contrib.sessions.models import Session
    from django.db.models.signals import post_delete, post_save, pre_delete

    assert not any(signal.has_listeners(Session) for signal in (post_delete, post_save, pre_delete))


def test_what_sends_no_signal_is_told_by_hand(told, john, mary):
    User.objects.update(is_active=False)
    assert told() == []
    signals.recheck(john, mary.pk)
    assert told() == users(john, mary)
    signals.recheck()
    assert told() == []


def test_many_users_are_told_in_portions(told, monkeypatch):
    monkeypatch.setattr(signals, "MOST", 2)
    signals.recheck(1, 2, 3, 4, 5)
    assert told() == [{"users": ["1", "2"]}, {"users": ["3", "4"]}, {"users": ["5"]}]


# Groups.


@pytest.mark.parametrize(
    ("act", "both"),
    [
        (lambda john, group: john.groups.remove(group), False),
        (lambda john, group: john.groups.clear(), False),
        (lambda john, group: john.groups.set([]), False),
        (lambda john, group: john.groups.add(Group.objects.create(name="another")), False),
        (lambda john, group: group.user_set.remove(john), False),
        (lambda john, group: group.user_set.clear(), True),
        (lambda john, group: group.user_set.set([]), True),
        (lambda john, group: group.delete(), True),
        (lambda john, group: Group.objects.all().delete(), True),
        (lambda john, group: (setattr(group, "name", "talkers"), group.save()), True),
    ],
)
def test_a_change_of_groups(told, john, mary, chatters, act, both):
    act(john, chatters)
    (notice,) = told()
    assert sorted(notice["users"]) == users(john, *[mary] * both)[0]["users"]


def test_what_changes_no_membership_is_not_told(told, john, chatters):
    Group.objects.create(name="new")
    john.groups.add(chatters)
    assert told() == []


# Sessions.


def test_a_logout(told, john):
    request = browser()
    login(request, john)
    key = request.session.session_key
    told()
    logout(request)
    assert told() == [{"session": key}]


def test_a_login_in_the_place_of_somebody_else(told, john, mary):
    """Django flushes the session without the signal of a logout."""
    first = browser()
    login(first, john)
    first.session.save()
    key = first.session.session_key
    told()
    login(browser(key=key), mary)
    assert told() == [{"session": key}]


def test_a_login_as_the_same_user_again(told, john):
    first = browser()
    login(first, john)
    first.session.save()
    told()
    login(browser(key=first.session.session_key), john)
    assert told() == []


def test_a_change_of_the_password_as_djangos_view_makes_it(told, john):
    request = browser()
    login(request, john)
    told()
    john.set_password("other")
    john.save()
    update_session_auth_hash(request, john)
    assert told() == users(john)


@pytest.mark.parametrize(
    "request_", [None, types.SimpleNamespace(), types.SimpleNamespace(session=None), browser()], ids=str
)
def test_a_logout_without_a_session(told, request_):
    user_logged_out.send(None, request=request_, user=None)
    assert told() == []


# When, and if Redis is down.


def test_workers_are_told_once_it_is_committed(told, john):
    with transaction.atomic():
        john.save()
        with transaction.atomic():
            signals.recheck(john)
        assert told() == []
    assert told() == users(john) * 2


def test_what_is_rolled_back_is_not_told(told, john):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        john.save()
        1 / 0  # noqa: B018
    assert told() == []


def test_a_site_that_commits_by_hand(told, john):
    transaction.set_autocommit(False)
    try:
        john.save()
        assert told() == users(john)
        transaction.commit()
    finally:
        transaction.set_autocommit(True)


def test_without_redis_users_are_saved_and_it_is_logged(own_redis, database, caplog):
    john = User.objects.create_user("john")
    own_redis.kill()
    request = browser()
    login(request, john)
    key = request.session.session_key
    with caplog.at_level(logging.DEBUG):
        john.save()
        with transaction.atomic():
            john.save()
        logout(request)
    assert [record.getMessage().partition(":")[0] for record in caplog.records if record.name.startswith("wsloop")] == [
        "Could not notify workers, which check all sockets when they reconnect to Redis"
    ] * 3
    assert key not in caplog.text


def test_no_other_error_hinders_saving_a_user(database, with_settings, use_redis, caplog):
    john = User.objects.create_user("john")
    pool.forget()
    with_settings(WS4REDIS_CONNECTION=7)
    john.save()
    with transaction.atomic():
        john.save()
    assert caplog.text.count("WS4REDIS_CONNECTION must be a dictionary or a URL") >= 2


def test_it_needs_no_gevent():
    """A process that only saves users need not load it."""
    import subprocess
    import sys

    from testbed.processes import ROOT

    code = "import sys, django; django.setup(); print(sorted({'gevent', 'wsloop.sockets.hub'} & set(sys.modules)))"
    environment = {"DJANGO_SETTINGS_MODULE": "tests.unit.settings", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
