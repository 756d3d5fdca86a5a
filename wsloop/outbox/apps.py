"""The Django application of the outbox: add ``"wsloop.outbox"`` to ``INSTALLED_APPS`` and migrate."""

from django.apps import AppConfig


class OutboxConfig(AppConfig):
    name = "wsloop.outbox"
    label = "wsloop_outbox"
    verbose_name = "Outbox of WebSocket messages"
    default_auto_field = "django.db.models.BigAutoField"
