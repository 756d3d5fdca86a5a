"""The sample's policy, ``WSLOOP["POLICY"]``: decides who may subscribe and publish over a socket.

Responsible for the permissions of one handshake. It does not concern views, which check their own forms.
"""

from django.core.exceptions import PermissionDenied

from wsloop import conf

# The facilities to which visitors may publish over a socket. A client may use any name for a facility, and Redis
# retains the last messages of each: a client that could publish to any name could fill Redis.
OPEN_TO_PUBLISH = frozenset({"user", "session"})

ANONYMOUS = frozenset({"subscribe-broadcast", "subscribe-session", "subscribe-presence"})
# Publishing to one's own windows harms nobody. Messages to others go through a view, which checks the text.
SIGNED_IN = ANONYMOUS | {"subscribe-user", "subscribe-group", "publish-user", "publish-session"}


def allowed_channels(request, channels):
    """Return those of the requested channels that the user of this request may have.

    Anonymous visitors may subscribe to broadcast, to their own session and to presence. Signed-in users may also
    subscribe to their user and groups, and may publish to themselves, in the facilities of the pages for that. Staff
    may do everything.

    Args:
        request: the request of the handshake. Its ``user`` may be missing, None, anonymous or not yet loaded: a socket
            without a session cookie has none.
        channels: names such as ``subscribe-user`` and ``publish-broadcast``, as the client requested them.

    Returns:
        list of names, in the order of ``channels``.

    Raises:
        PermissionDenied: if the client requested channels and none of them is allowed. A socket that can never receive
            anything is useless; a refusal says what is wrong.
    """
    user = getattr(request, "user", None)
    if getattr(user, "is_authenticated", False):
        allowed = [name for name in channels if user.is_staff or name in SIGNED_IN]
        if not user.is_staff and _facility(request) not in OPEN_TO_PUBLISH:
            allowed = [name for name in allowed if not name.startswith("publish-")]
    else:
        allowed = [name for name in channels if name in ANONYMOUS]
    if channels and not allowed:
        raise PermissionDenied(f"not allowed for {user or 'somebody who is not signed in'}: {', '.join(channels)}")
    return allowed


def _facility(request):
    return request.path_info.removeprefix(conf.websocket_url())
