"""The database of the sample: chat rooms, their messages, and how far each user has read; and the list of tasks.

Messages are numbered in each room, in the order in which they were committed. So a page that has shown number n has
shown all messages before it, and requests those after n; :mod:`chat.rooms.conversation` assigns the numbers.
"""

from functools import partial

from django.conf import settings
from django.db import models, transaction
from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver
from django.urls import reverse
from django.utils import timezone

from wsloop.live import publish_template


class Room(models.Model):
    """A room, which is created with its first message.

    Attributes:
        last_number: number of the newest message ever written here; it stays when that message is deleted.
    """

    slug = models.SlugField("name", unique=True)
    created_at = models.DateTimeField("opened", default=timezone.now, editable=False)
    last_number = models.PositiveBigIntegerField("messages written", default=0, editable=False)

    class Meta:
        ordering = ["slug"]

    def __str__(self):
        return self.slug

    def get_absolute_url(self):
        return reverse("room", args=[self.slug])


class Message(models.Model):
    """A message in a room.

    Attributes:
        number: 1, 2, 3 … in its room. Only a deleted message leaves a gap.
        author: None if the account was deleted.
        key: identifies the message on the author's page, so that a message that is sent twice is stored once.
    """

    room = models.ForeignKey(Room, models.CASCADE, related_name="messages")
    number = models.PositiveBigIntegerField(editable=False)
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="room_messages"
    )
    text = models.TextField()
    sent_at = models.DateTimeField("sent", default=timezone.now, db_index=True)
    key = models.UUIDField(null=True, editable=False)

    class Meta:
        ordering = ["room", "number"]
        constraints = [
            models.UniqueConstraint(fields=["room", "number"], name="unique_number_in_room"),
            models.UniqueConstraint(fields=["room", "author", "key"], name="unique_key_of_author"),
        ]

    def __str__(self):
        return f"{self.room} {self.number}"


class ReadMark(models.Model):
    """How far a user has read in a room: all up to and including ``number``."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="read_marks")
    room = models.ForeignKey(Room, models.CASCADE, related_name="read_marks")
    number = models.PositiveBigIntegerField()

    class Meta:
        ordering = ["room", "user"]
        constraints = [models.UniqueConstraint(fields=["user", "room"], name="one_read_mark_in_room")]

    def __str__(self):
        return f"{self.user} in {self.room}: {self.number}"


class Task(models.Model):
    """A line of the list of tasks, which all users share.

    Attributes:
        author: None if the account was deleted.
    """

    text = models.CharField(max_length=200)
    done = models.BooleanField(default=False)
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="tasks")

    class Meta:
        ordering = ["pk"]

    def __str__(self):
        return self.text


@receiver(post_save, sender=Task)
def show_task(sender, instance, created, **kwargs):
    """Show a task in all open pages, whether a view, the admin or a shell has saved it."""
    publish_task("chat/task_added.html" if created else "chat/task.html", instance)


@receiver(post_delete, sender=Task)
def hide_task(sender, instance, **kwargs):
    publish_task("chat/task_removed.html", instance)


def publish_task(template, task):
    publish = partial(publish_template, template, {"task": task, "id": task.pk}, facility="tasks", broadcast=True)
    # The task is saved also while Redis is down; then the error is logged, and pages show it when they are reloaded.
    transaction.on_commit(publish, robust=True)
