"""``manage.py demo_data``."""

from io import StringIO

import pytest
from django.contrib.auth import authenticate, get_user_model
from django.contrib.auth.models import Group
from django.core.management import CommandError, call_command
from django.test import override_settings

from chat.models import Room


def run():
    output = StringIO()
    call_command("demo_data", stdout=output)
    return output.getvalue()


@pytest.fixture
def empty(database):
    """A database without accounts."""
    get_user_model().objects.all().delete()
    Group.objects.all().delete()


def accounts():
    users = get_user_model().objects.order_by("username")
    return [(u.username, u.password, u.is_staff, u.is_superuser, list(u.groups.values_list("name"))) for u in users]


def test_it_creates_the_accounts(empty):
    assert run() == "john: created\nmary: created\nadmin: created\n"
    for name in ("john", "mary"):
        user = authenticate(username=name, password="secret")
        assert (user.is_staff, user.is_superuser) == (False, False)
        assert [group.name for group in user.groups.all()] == ["chatters"]
    admin = authenticate(username="admin", password="admin")
    assert (admin.is_staff, admin.is_superuser) == (True, True)


def test_running_it_again_changes_nothing(empty):
    run()
    before = accounts()
    assert "admin: exists, unchanged" in run()
    assert accounts() == before


def test_what_was_changed_since_stays_changed_but_missing_memberships_return(empty):
    run()
    john = get_user_model().objects.get(username="john")
    john.set_password("changed")
    john.save()
    john.groups.clear()
    run()
    assert authenticate(username="john", password="changed").groups.get().name == "chatters"


def test_debug_allows_it_too(empty):
    with override_settings(DEMO=False, DEBUG=True):
        assert "john: created" in run()


def test_it_refuses_elsewhere_and_says_what_to_set(empty):
    with override_settings(DEMO=False, DEBUG=False), pytest.raises(CommandError, match="set DEMO=1 or DJANGO_DEBUG=1"):
        run()
    assert accounts() == []


def test_there_is_a_room_in_which_something_was_said(empty):
    Room.objects.all().delete()
    for _ in range(2):
        run()
        (room,) = Room.objects.all()
        said = [(message.number, message.author.get_username()) for message in room.messages.all()]
        assert (room.slug, room.last_number) == ("lobby", 4)
        assert said == [(1, "john"), (2, "mary"), (3, "john"), (4, "mary")]
    room.messages.all().delete()
    run()
    assert not room.messages.exists()
