"""The test site with asynchronous views, between middleware of all kinds."""

from tests.integration.sites.settings import *  # noqa: F403
from tests.integration.sites.settings import WSLOOP, overrides

ROOT_URLCONF = "tests.integration.sites.async_views"
_here = "tests.integration.sites.async_middleware"
MIDDLEWARE = [f"{_here}.Outer", *MIDDLEWARE, *(f"{_here}.{name}" for name in ("asynchronous", "Plain", "both"))]  # noqa: F405
CONN_MAX_AGE = 0

globals().update(overrides(WSLOOP))
