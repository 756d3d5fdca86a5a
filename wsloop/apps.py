"""The Django application: add ``"wsloop"`` to ``INSTALLED_APPS``, before ``"django.contrib.staticfiles"``."""

from typing import Any

from django.apps import AppConfig, apps

from wsloop.backend import redis_options


class WsloopConfig(AppConfig):
    name = "wsloop"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # Before any application's models: they may import ws4redis.publisher, which reads the setting while importing.
        redis_options.adapt_ws4redis()

    def ready(self) -> None:
        # Its signal handler notes a user's groups in the session at login: sites may read them there, as with ws4redis.
        import ws4redis.models  # noqa: F401

        from wsloop import checks

        checks.register()
        if apps.is_installed("django.contrib.auth"):
            from wsloop import signals

            signals.connect()
