"""Who may listen and publish over a socket."""

from types import SimpleNamespace

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.utils.functional import SimpleLazyObject

from chat.policy import allowed_channels

AUDIENCES = ("broadcast", "user", "group", "session")
EVERYTHING = [f"{verb}-{audience}" for verb in ("subscribe", "publish") for audience in AUDIENCES]


def user(staff=False):
    return get_user_model()(username="somebody", is_staff=staff)


NOBODY = {
    "no user": None,
    "an anonymous user": AnonymousUser(),
    "an anonymous user not yet loaded": SimpleLazyObject(AnonymousUser),
    "a user that turns out to be none": SimpleLazyObject(lambda: None),
}


@pytest.mark.parametrize("nobody", NOBODY.values(), ids=NOBODY)
def test_a_visitor_listens_to_broadcast_and_the_own_session(nobody):
    request = SimpleNamespace(user=nobody)
    assert allowed_channels(request, EVERYTHING) == ["subscribe-broadcast", "subscribe-session"]


def test_a_request_without_a_user_is_a_visitors():
    assert allowed_channels(SimpleNamespace(), ["publish-user", "subscribe-broadcast"]) == ["subscribe-broadcast"]


@pytest.mark.parametrize("lazy", [False, True], ids=["loaded", "not yet loaded"])
def test_a_user_listens_to_everything_and_publishes_to_the_own_windows(lazy):
    request = SimpleNamespace(user=SimpleLazyObject(user) if lazy else user(), path_info="/ws/user")
    assert allowed_channels(request, EVERYTHING) == [
        "subscribe-broadcast",
        "subscribe-user",
        "subscribe-group",
        "subscribe-session",
        "publish-user",
        "publish-session",
    ]


@pytest.mark.parametrize("facility", ["", "users", "user/", "user/1", "form", "x" * 200])
def test_a_user_publishes_to_the_facilities_of_pages_only(facility):
    """Each facility keeps its last messages in Redis."""
    request = SimpleNamespace(user=user(), path_info=f"/ws/{facility}")
    assert allowed_channels(request, ["subscribe-user", "publish-user", "publish-session"]) == ["subscribe-user"]


def test_staff_may_do_everything():
    request = SimpleNamespace(user=user(staff=True), path_info="/ws/anything")
    assert allowed_channels(request, EVERYTHING) == EVERYTHING


def test_what_was_not_asked_for_is_not_given():
    request = SimpleNamespace(user=user(), path_info="/ws/user")
    assert allowed_channels(request, ["subscribe-group"]) == ["subscribe-group"]
    assert allowed_channels(request, []) == []
    assert allowed_channels(SimpleNamespace(user=None), []) == []


@pytest.mark.parametrize(
    ("who", "asked"),
    [(None, ["subscribe-user"]), (None, ["publish-broadcast", "publish-session"]), (user(), ["publish-group"])],
)
def test_a_socket_that_could_do_nothing_is_refused(who, asked):
    with pytest.raises(PermissionDenied, match=asked[0]):
        allowed_channels(SimpleNamespace(user=who, path_info="/ws/user"), asked)
