"""The Django application: add ``"wsloop"`` to ``INSTALLED_APPS``, before ``"django.contrib.staticfiles"``."""

import contextlib
import logging
from typing import Any

from django.apps import AppConfig, apps
from django.contrib.auth.signals import user_logged_in
from django.core.signals import request_started

from wsloop import conf
from wsloop.backend import redis_options
from wsloop.refusals import refusals, shown


def note_groups(user: Any, request: Any = None, **details: Any) -> None:
    """Note a user's groups in the session at login: sites may read them there, as with ws4redis.

    ``channels.auth.login()`` sends the signal without a request, which ws4redis's handler does not expect.
    """
    if getattr(request, "session", None) is not None and hasattr(user, "groups"):
        request.session["ws4redis:memberof"] = [group.name for group in user.groups.all()]


def tell_of_handshake(environ: Any = None, **details: Any) -> None:
    """Log a handshake that reaches Django itself: ``wsgi.py`` has not handed it to wsloop, so it ends with 404.

    Args:
        environ: of the request (PEP 3333); None of one that came by ASGI.
        details: of the signal ``request_started``.
    """
    if environ is None or environ.get("HTTP_UPGRADE", "").lower() != "websocket":
        return
    url = conf.websocket_url()
    path = environ.get("PATH_INFO", "")
    if path.startswith(url):
        refusals.log(
            logging.WARNING,
            "wsgi.py",
            "the handshake of a WebSocket, %s, has reached Django itself: let the application in wsgi.py hand requests "
            "below %s to wsloop.server.WebsocketServer(), as the README of wsloop shows",
            shown(path),
            url,
        )


class WsloopConfig(AppConfig):
    name = "wsloop"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # Before any application's models: they may import ws4redis.publisher, which reads the setting while importing.
        redis_options.adapt_ws4redis()

    def ready(self) -> None:
        from wsloop import checks

        with contextlib.suppress(ImportError):  # it is not installed
            # Imported here because modules with models cannot be imported before.
            from ws4redis.models import store_groups_in_session

            user_logged_in.disconnect(store_groups_in_session)
        user_logged_in.connect(note_groups)

        checks.register()
        request_started.connect(tell_of_handshake, dispatch_uid="wsloop")
        if apps.is_installed("django.contrib.auth"):
            from wsloop import signals

            signals.connect()
