"""The sample's policy, for any list of channels and any kind of user."""

import types

from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.utils.functional import SimpleLazyObject
from hypothesis import given
from hypothesis import strategies as st

from chat.policy import allowed_channels
from wsloop.facilities.subscriptions import Subscriber

POSSIBLE = [*Subscriber.subscription_channels, *Subscriber.publish_channels]
ODD = ["publish-everything", "subscribe-*", "publish-broadcast ", "PUBLISH-USER", "", "echo"]
USERS = {
    "missing": lambda: ...,
    "none": lambda: None,
    "anonymous": AnonymousUser,
    "lazy anonymous": lambda: SimpleLazyObject(AnonymousUser),
    "lazy none": lambda: SimpleLazyObject(lambda: None),
    "john": lambda: User(username="john"),
    "lazy john": lambda: SimpleLazyObject(lambda: User(username="john")),
    "staff": lambda: User(username="admin", is_staff=True),
}


@given(
    kind=st.sampled_from(list(USERS)),
    facility=st.sampled_from(["user", "session"]) | st.text(max_size=20),
    asked=st.lists(st.sampled_from([*POSSIBLE, *ODD]) | st.text(max_size=20), max_size=10),
)
def test_nobody_gets_more_than_was_asked_for_nor_more_than_is_theirs(kind, facility, asked):
    user = USERS[kind]()
    path = f"/ws/{facility}"
    request = types.SimpleNamespace(path_info=path)
    if user is not ...:
        request.user = user
    before = list(asked)
    try:
        allowed = allowed_channels(request, asked)
    except PermissionDenied:
        assert asked, "nothing was asked for"
        allowed = []
    assert asked == before
    assert [name for name in asked if name in allowed] == allowed, "not asked for, or in another order"
    if kind == "staff":
        assert allowed == asked
        return
    assert "publish-broadcast" not in allowed
    assert "publish-group" not in allowed
    assert set(allowed) <= set(POSSIBLE)
    if "john" not in kind:
        assert not [name for name in allowed if name.startswith("publish")]
        assert not [name for name in allowed if name.endswith(("-user", "-group"))]
    everything = {"subscribe-broadcast", "subscribe-session"}
    if "john" in kind:
        everything |= {"subscribe-user", "subscribe-group"}
        if facility in ("user", "session"):  # of the pages; each facility keeps its last messages in Redis
            everything |= {"publish-user", "publish-session"}
    assert set(allowed) == everything & set(asked)
