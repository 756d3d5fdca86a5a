"""The Django application: add ``"wsloop"`` to ``INSTALLED_APPS``, before ``"django.contrib.staticfiles"``."""

from typing import Any

from django.apps import AppConfig, apps
from django.contrib.auth.signals import user_logged_in

from wsloop.backend import redis_options


def note_groups(request: Any = None, **details: Any) -> None:
    """Note a user's groups in the session at login: sites may read them there, as with ws4redis.

    ``channels.auth.login()`` sends the signal without a request, which ws4redis's handler does not expect.
    """
    from ws4redis.models import store_groups_in_session

    if getattr(request, "session", None) is not None:
        store_groups_in_session(request=request, **details)


class WsloopConfig(AppConfig):
    name = "wsloop"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # Before any application's models: they may import ws4redis.publisher, which reads the setting while importing.
        redis_options.adapt_ws4redis()

    def ready(self) -> None:
        # Imported here because modules with models cannot be imported before.
        from ws4redis.models import store_groups_in_session

        from wsloop import checks

        user_logged_in.disconnect(store_groups_in_session)
        user_logged_in.connect(note_groups)

        checks.register()
        if apps.is_installed("django.contrib.auth"):
            from wsloop import signals

            signals.connect()
