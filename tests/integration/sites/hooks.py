"""What a site may plug into the loop: policies and ways to find out who is asking."""

from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied

SECRET_REASON = "reason-that-belongs-in-the-log-only"


def everything(request, channels):
    """Whoever asks may publish and listen."""
    return channels


def listen_only(request, channels):
    """Nobody publishes over the socket; who asks for a group is refused, and ``crash=`` is a bug of the site."""
    if "crash" in request.GET:
        raise ZeroDivisionError(SECRET_REASON)
    if "subscribe-group" in channels:
        raise PermissionDenied(SECRET_REASON)
    return [channel for channel in channels if channel.startswith("subscribe-")]


def user_from_header(request):
    """Sign in whom ``X-Test-User`` names, as a site would from a token."""
    request.session = None
    request.user = None
    name = request.META.get("HTTP_X_TEST_USER")
    if name == "nobody":
        raise PermissionDenied(SECRET_REASON)
    if name:
        request.user = get_user_model()(username=name)


def without_presence(request, channels):
    """Nobody is told who is there."""
    return [channel for channel in channels if channel != "subscribe-presence"]
