"""The outbox's table. A row exists until its message is known to be published.

This module must not know Redis.
"""

from __future__ import annotations

from datetime import datetime

from django.db import models


class Message(models.Model):
    """A message that waits for Redis.

    Attributes:
        channels: names of Redis channels; that of a session contains its key, which is a secret.
        payload: the message.
        expire: seconds for which it is retained as the last message of each channel; 0 retains nothing.
        facility: the facility whose options apply.
        key: idempotency key, by which Redis drops a message that it has accepted already.
        created: time of writing, which is before the commit.
        refused: the error with which Redis refused this message while it accepted others; empty while it waits.
    """

    # The order in which messages are published. No database assigns the id of a deleted row again.
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
