"""Settings given as callables rather than as dotted paths."""

from tests.integration.sites import hooks
from tests.integration.sites.settings import *  # noqa: F403


def WS4REDIS_ALLOWED_CHANNELS(request, channels):
    return hooks.listen_only(request, channels)


def WS4REDIS_PROCESS_REQUEST(request):
    return hooks.user_from_header(request)
