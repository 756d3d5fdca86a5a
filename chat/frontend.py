"""The page that React makes, and where its scripts come from: Vite's development server, or files that it has built.

Responsible for finding out which of the two it is. ``frontend/vite.config.ts`` writes the file that says where the
development server listens; that server may start and stop while the site runs. Without ``DEBUG`` nobody looks.
"""

import json
import logging
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from csp.constants import NONCE, SELF
from django.conf import settings
from django.http import JsonResponse
from django.middleware.csrf import REASON_BAD_ORIGIN
from django.templatetags.static import static
from django.views.csrf import csrf_failure as django_csrf_failure
from django.views.generic import TemplateView

from chat.views import ensure_session, wants_json

logger = logging.getLogger(__name__)

LOOK_AGAIN = 1.0  # seconds after which it is found out again whether the development server is there
PATIENCE = 2.0  # seconds that it may take to answer
FILE = "vite.json"  # in VAR_DIR


@dataclass(frozen=True)
class DevelopmentServer:
    """Vite's development server.

    Attributes:
        origin: such as ``http://localhost:5173``.
        base: the beginning of all paths that are its own.
    """

    origin: str
    base: str

    def answers(self):
        """Return whether it is really there: it may have ended without removing its file."""
        try:
            with urllib.request.urlopen(f"{self.origin}{self.base}@vite/client", timeout=PATIENCE) as response:
                return response.status == HTTPStatus.OK
        except (OSError, ValueError):
            return False


class Lookout:
    """Knows which of the two is used, and logs it: at first, and with each change."""

    def __init__(self):
        self._looked_at = None
        self._found = None

    def server(self):
        """Return the development server if it is there, None for the built files."""
        now = time.monotonic()
        if self._looked_at is not None and (not settings.DEBUG or now - self._looked_at < LOOK_AGAIN):
            return self._found
        found = announced() if settings.DEBUG else None
        if found is not None and not found.answers():
            found = None
        if self._looked_at is None or found != self._found:
            if found:
                logger.info("/react/ uses the development server of Vite at %s", found.origin)
            else:
                logger.info("/react/ uses the built files in static/react; without Vite they need no Node")
        self._looked_at, self._found = now, found
        return found


def announced():
    """Return the development server that has said that it runs."""
    try:
        answer = json.loads((settings.VAR_DIR / FILE).read_text())
        return DevelopmentServer(str(answer["origin"]), str(answer["base"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


lookout = Lookout()


class React(TemplateView):
    """The page. Its template names the visitor and the views for the script."""

    template_name = "chat/react.html"

    def get(self, request, *args, **kwargs):
        ensure_session(request)
        server = lookout.server()
        response = super().get(request, *args, server=server, **kwargs)
        if server:
            # Vite adds the styles with its script, and speaks over a WebSocket.
            response._csp_update = {
                "script-src": [SELF, server.origin],
                "style-src": [SELF, NONCE],
                "connect-src": [server.origin, server.origin.replace("http", "ws", 1)],
            }
        return response

    def get_context_data(self, server, **kwargs):
        if server is None:
            scripts, styles = [static("react/main.js")], [static("react/main.css")]
        else:
            # A page that comes through Vite's proxy has the same origin as the scripts.
            is_proxied = urlsplit(server.origin).netloc == self.request.get_host()
            place = f"{'' if is_proxied else server.origin}{server.base}"
            scripts, styles = [f"{place}@vite/client", f"{place}src/development.ts"], []
        return super().get_context_data(scripts=scripts, styles=styles, server=server, **kwargs)


def csrf_failure(request, reason=""):
    """Refuse a POST without a valid CSRF token: Django's own page, and for scripts a sentence that says what to do."""
    origin = request.META.get("HTTP_ORIGIN", "")
    if reason == REASON_BAD_ORIGIN % origin:
        advice = (
            f"The page is of {origin}, the request for the host {request.get_host()}. If a proxy has replaced the host "
            "(Vite does so with changeOrigin), let it keep the host; otherwise add the origin of the page to "
            "CSRF_TRUSTED_ORIGINS, and to ALLOWED_ORIGINS of WSLOOP for its sockets."
        )
        logger.warning("%s", advice)
        if not settings.DEBUG:
            advice = "Pages of another site may not post here; see CSRF_TRUSTED_ORIGINS."
    else:
        advice = "The page is out of date: reload it, and send it again."
    if wants_json(request):
        return JsonResponse({"ok": False, "errors": {"__all__": [advice]}}, status=HTTPStatus.FORBIDDEN)
    return django_csrf_failure(request, reason)
