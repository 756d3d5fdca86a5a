"""The outbox's table. A row is there as long as its message is not known to be published.

This module must not know Redis.
"""

from __future__ import annotations

from datetime import datetime

from django.db import models


class Message(models.Model):
    """A message that waits for Redis.

    Attributes:
        channels: names of Redis channels; one of a session has the session's key, which is a secret.
        payload: what is published.
        expire: seconds for which it is kept as the last message of each channel; 0 keeps nothing.
        facility: whose options apply.
        key: idempotency key, by which Redis drops what it has taken already.
        created: when it was written, which is before the commit.
        refused: the words with which Redis refused this message while it took others; empty for all that wait.
    """

    # The order in which messages are published. No database gives an id again that a deleted row had.
    id: models.BigAutoField[int, int] = models.BigAutoField(primary_key=True)
    channels: models.JSONField[list[str], list[str]] = models.JSONField()
    payload: models.BinaryField[bytes, bytes | memoryview] = models.BinaryField()
    expire: models.IntegerField[int, int] = models.IntegerField()
    facility: models.TextField[str, str] = models.TextField()
    key: models.TextField[str, str] = models.TextField()
    created: models.DateTimeField[datetime, datetime] = models.DateTimeField(auto_now_add=True)
    refused: models.TextField[str, str] = models.TextField(default="")

    def __str__(self) -> str:
        return f"message {self.pk} to {self.facility}"
