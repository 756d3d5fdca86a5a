"""Who may listen and publish over a socket: the sample's ``WS4REDIS_ALLOWED_CHANNELS``.

Responsible for the rights of one handshake. What a view publishes is not its business: a view checks its own forms.
"""

from django.conf import settings
from django.core.exceptions import PermissionDenied

# What visitors may publish to over a socket. Names of facilities are free, and each keeps its last messages in Redis:
# whoever could publish to any name could fill it.
OPEN_TO_PUBLISH = frozenset({"user", "session"})

ANONYMOUS = frozenset({"subscribe-broadcast", "subscribe-session"})
# Publishing to one's own windows harms nobody; who wants to reach others goes through a view, which checks the text.
SIGNED_IN = ANONYMOUS | {"subscribe-user", "subscribe-group", "publish-user", "publish-session"}


def allowed_channels(request, channels):
    """Return those of the requested channels that whoever makes this request may have.

    Anonymous visitors listen to broadcast and to their own session. Signed-in users listen to all that is theirs, and
    publish to themselves, in the facilities of the pages for that. Staff may do everything.

    Args:
        request: the request of the handshake. Its ``user`` may be missing, None, anonymous or not yet loaded: a socket
            without a session cookie has none.
        channels: names such as ``subscribe-user`` and ``publish-broadcast``, as the client asked for them.

    Returns:
        list of names, in the order of ``channels``.

    Raises:
        PermissionDenied: if channels were asked for and none of them is allowed. A socket on which nothing can ever
            arrive helps nobody; a refusal tells what is wrong.
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
    return request.path_info.removeprefix(settings.WEBSOCKET_URL)
