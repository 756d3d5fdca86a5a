"""The chat rooms for views and sockets: write, read forward and back, read marks, presence.

A message gets its number under the lock of the room's row, in its own transaction: without gaps, and in the order of
the commits. It is announced to open pages after the commit, so a page that gets the announcement of number n finds all
messages up to n in the database. This module must not know HTTP or WebSockets.
"""

import functools
import logging
import re

from django.db import IntegrityError, transaction
from django.db.models import BigIntegerField, ExpressionWrapper, F, OuterRef, Subquery, Value
from django.db.models.functions import Coalesce
from redis.exceptions import RedisError

from chat.models import Message, ReadMark, Room
from wsloop import presence
from wsloop.layers import get_channel_layer

logger = logging.getLogger(__name__)

PAGE = 50  # messages that are read at a time
NUMBER = re.compile(r"[0-9]{1,15}")  # more than any room reaches, and every database can compare it
NOBODY = "(deleted account)"


def group_of(slug):
    """Return the group of the channel layer that the sockets of a room join."""
    return f"room.{slug}"


def facility_of(slug):
    """Return the facility of the sockets of a room: their path after ``WSLOOP["URL"]``."""
    return f"rooms/{slug}/"


def to_number(text):
    """Return the number in a URL's parameter; None if it is missing or invalid."""
    return int(text) if text and NUMBER.fullmatch(text) else None


def as_data(message):
    """Return a message in the form in which pages get it: numbers and texts only."""
    return {
        "number": message.number,
        "author": message.author.get_username() if message.author else NOBODY,
        "text": message.text,
        "sent_at": message.sent_at.isoformat(),
        "key": str(message.key) if message.key else None,
    }


# --- writing ----------------------------------------------------------------------------------------------------------


def write(slug, author, text, key=None):
    """Store a message and announce it to the sockets of the room; create the room if it does not exist.

    Args:
        slug: name of the room, checked before.
        author: a user.
        text: checked before.
        key: UUID; if this author has written the same here with the same key before, that message is returned, and
            nothing is stored or announced.

    Returns:
        the message. It is stored even if Redis does not answer and the announcement is lost: pages find it when
        Redis is back.
    """
    try:
        return _store(slug, author, text, key)
    except IntegrityError:
        messages = Message.objects.filter(room__slug=slug, author=author, key=key).select_related("author")
        before = messages.first() if key else None
        if before is None:
            raise
        if before.text == text:
            return before
        return _store(slug, author, text)  # the user went back to a form that was sent, and changed its text


@transaction.atomic
def _store(slug, author, text, key=None):
    if not _count(slug):
        Room.objects.bulk_create([Room(slug=slug)], ignore_conflicts=True)  # unless another transaction creates it now
        _count(slug)
    room = Room.objects.get(slug=slug)
    message = Message.objects.create(room=room, number=room.last_number, author=author, text=text, key=key)
    _move_mark(author, room, room.last_number)
    transaction.on_commit(functools.partial(announce, message))
    return message


def _count(slug):
    """Take the next number of a room, and return whether the room exists. The first statement of its transaction.

    It locks the room's row until the commit, so numbers are committed in their order. In SQLite it waits for the lock,
    whereas a transaction that reads before it writes would fail.
    """
    return Room.objects.filter(slug=slug).update(last_number=F("last_number") + 1)


def announce(message):
    """Announce a committed message to the sockets of the room."""
    tell(message.room.slug, {"type": "room.message", "message": as_data(message)})


def tell(slug, event):
    """Send an event to the sockets of a room. If Redis does not take it, log that."""
    try:
        get_channel_layer().group_send(group_of(slug), event)
    except RedisError as error:
        logger.warning("could not notify the sockets of the room %s: %s", slug, error)


# --- reading ----------------------------------------------------------------------------------------------------------


def after(slug, number, limit=PAGE):
    """Return the messages that follow ``number``, the oldest first, at most ``limit``."""
    messages = Message.objects.filter(room__slug=slug, number__gt=number)
    return list(messages.order_by("number").select_related("author")[:limit])


def before(slug, number=None, limit=PAGE):
    """Return the messages that precede ``number``, or the newest ones, and whether there are earlier ones.

    Returns:
        ``(messages, earlier)``, the messages with the oldest first.
    """
    messages = Message.objects.filter(room__slug=slug)
    if number is not None:
        messages = messages.filter(number__lt=number)
    page = list(messages.order_by("-number").select_related("author")[: limit + 1])
    return page[:limit][::-1], len(page) > limit


def last_number(slug):
    """Return the number of the newest message, 0 if there is no such room."""
    return Room.objects.filter(slug=slug).values_list("last_number", flat=True).first() or 0


def listed(user):
    """Return all rooms with messages, those with the newest messages first.

    Returns:
        a QuerySet of rooms with ``last_id``, the key of the newest message, and ``unread``, the number of
        messages that ``user`` has not read; 0 for visitors who have not signed in. (Deleted messages count as well.)
    """
    newest = Message.objects.filter(room=OuterRef("pk")).order_by("-number")
    unread = Value(0)
    if user.is_authenticated:
        read = ReadMark.objects.filter(room=OuterRef("pk"), user=user)
        unread = Subquery(newest.values("number")[:1]) - Coalesce(Subquery(read.values("number")), Value(0))
    rooms = Room.objects.annotate(
        last_id=Subquery(newest.values("pk")[:1]),
        last_at=Subquery(newest.values("sent_at")[:1]),
        unread=ExpressionWrapper(unread, BigIntegerField()),
    )
    return rooms.filter(last_id__isnull=False).order_by("-last_at", "slug")


def with_last_messages(rooms):
    """Give each room of a page of :func:`listed` its newest message as ``last_message``."""
    rooms = list(rooms)
    messages = Message.objects.select_related("author").in_bulk([room.last_id for room in rooms])
    for room in rooms:
        room.last_message = messages.get(room.last_id)  # None: it was deleted in the meantime
    return rooms


# --- read marks ------------------------------------------------------------------------------------------------------


def read_mark(slug, user):
    """Return the number up to which ``user`` has read; 0: nothing yet."""
    marks = ReadMark.objects.filter(room__slug=slug, user=user)
    return marks.values_list("number", flat=True).first() or 0


def mark_read(slug, user, number):
    """Store that ``user`` has read all up to ``number``. A mark never goes back, nor beyond the newest message."""
    room = Room.objects.filter(slug=slug).first()
    if room and number > 0:
        _move_mark(user, room, min(number, room.last_number))


def _move_mark(user, room, number):
    marks = ReadMark.objects.filter(user=user, room=room)
    # Single statements, each of them atomic, instead of a read and a dependent write.
    if not marks.filter(number__lt=number).update(number=number) and not marks.exists():
        ReadMark.objects.bulk_create([ReadMark(user=user, room=room, number=number)], ignore_conflicts=True)
        marks.filter(number__lt=number).update(number=number)  # another window may have been first


# --- presence ---------------------------------------------------------------------------------------------------------


def who(slug):
    """Return the users who have the room open, None if Redis does not answer."""
    try:
        return presence.who(facility_of(slug))
    except RedisError as error:
        logger.warning("could not read who is in the room %s: %s", slug, error)
        return None
