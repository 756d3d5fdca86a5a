"""Settings given as callables rather than as dotted paths."""

from tests.integration.sites import hooks
from tests.integration.sites.settings import *  # noqa: F403
from tests.integration.sites.settings import WSLOOP


def allowed_channels(request, channels):
    return hooks.listen_only(request, channels)


def process_request(request):
    return hooks.user_from_header(request)


WSLOOP = {**WSLOOP, "POLICY": allowed_channels, "PROCESS_REQUEST": process_request}
