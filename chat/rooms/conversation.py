"""The chat rooms, as views and sockets use them: write, read on, read back, who has read how far, who is there.

Numbers are given under the lock of the room's row, in the same transaction as the message: without gaps, and in the
order of the commits. What is announced to open pages is announced after the commit, so a page that is told of number n
finds all up to n in the database. This module must not know HTTP or WebSockets.
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
NUMBER = re.compile(r"[0-9]{1,15}")  # no room gets as far, and every database can compare it
NOBODY = "(deleted account)"


def group_of(slug):
    """Return the group of the channel layer that the sockets of a room join."""
    return f"room.{slug}"


def facility_of(slug):
    """Return what the engine calls the sockets of a room: their path behind ``WEBSOCKET_URL``."""
    return f"rooms/{slug}/"


def to_number(text):
    """Return the number of a message that an address names; None if it names none."""
    return int(text) if text and NUMBER.fullmatch(text) else None


def as_data(message):
    """Return a message as it is sent to pages: numbers and texts only."""
    return {
        "number": message.number,
        "author": message.author.get_username() if message.author else NOBODY,
        "text": message.text,
        "sent_at": message.sent_at.isoformat(),
        "key": str(message.key) if message.key else None,
    }


# --- writing ----------------------------------------------------------------------------------------------------------


def write(slug, author, text, key=None):
    """Store a message and announce it to whoever has the room open; the room is made if it is not there.

    Args:
        slug: name of the room, checked before.
        author: a user.
        text: checked before.
        key: UUID; if this author has written the same here with the same key before, that message is returned, and
            nothing is stored or announced.

    Returns:
        the message. It is stored even if Redis, which announces it, does not answer: pages find it when the line
        is back.
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
        return _store(slug, author, text)  # from a form that was sent, gone back to, and written anew


@transaction.atomic
def _store(slug, author, text, key=None):
    if not _count(slug):
        Room.objects.bulk_create([Room(slug=slug)], ignore_conflicts=True)  # unless somebody else does so just now
        _count(slug)
    room = Room.objects.get(slug=slug)
    message = Message.objects.create(room=room, number=room.last_number, author=author, text=text, key=key)
    _move_mark(author, room, room.last_number)
    transaction.on_commit(functools.partial(announce, message))
    return message


def _count(slug):
    """Take the next number of a room, and tell whether there is such a room. The first statement of its transaction.

    It locks the room's row until the commit, so numbers are committed in their order; and in SQLite it waits for its
    turn, where a transaction that has read before it writes fails.
    """
    return Room.objects.filter(slug=slug).update(last_number=F("last_number") + 1)


def announce(message):
    """Tell the sockets of the room of a message that has been committed."""
    tell(message.room.slug, {"type": "room.message", "message": as_data(message)})


def tell(slug, event):
    """Send an event to the sockets of a room. If Redis does not take it, that is logged."""
    try:
        get_channel_layer().group_send(group_of(slug), event)
    except RedisError as error:
        logger.warning("the sockets of the room %s cannot be told: %s", slug, error)


# --- reading ----------------------------------------------------------------------------------------------------------


def after(slug, number, limit=PAGE):
    """Return the messages that follow ``number``, the oldest first, ``limit`` at the most."""
    messages = Message.objects.filter(room__slug=slug, number__gt=number)
    return list(messages.order_by("number").select_related("author")[:limit])


def before(slug, number=None, limit=PAGE):
    """Return the messages that precede ``number``, or the newest ones, and whether there are any before those.

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
    """Return all rooms in which anything is said, those with the newest messages first.

    Returns:
        a QuerySet of rooms with ``last_id``, the key of the newest message, and ``unread``, how many messages
        ``user`` has not read; 0 for who has not signed in. (Messages that were deleted among those count as well.)
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
        room.last_message = messages.get(room.last_id)  # None: it has been deleted just now
    return rooms


# --- who has read how far ---------------------------------------------------------------------------------------------


def read_mark(slug, user):
    """Return the number up to which ``user`` has read; 0: nothing yet."""
    marks = ReadMark.objects.filter(room__slug=slug, user=user)
    return marks.values_list("number", flat=True).first() or 0


def mark_read(slug, user, number):
    """Note that ``user`` has read all up to ``number``. A mark never goes back, nor beyond what was written."""
    room = Room.objects.filter(slug=slug).first()
    if room and number > 0:
        _move_mark(user, room, min(number, room.last_number))


def _move_mark(user, room, number):
    marks = ReadMark.objects.filter(user=user, room=room)
    # Single statements, each of them atomic, instead of a look and a write that depends on it.
    if not marks.filter(number__lt=number).update(number=number) and not marks.exists():
        ReadMark.objects.bulk_create([ReadMark(user=user, room=room, number=number)], ignore_conflicts=True)
        marks.filter(number__lt=number).update(number=number)  # another window may have been first


# --- who is there -----------------------------------------------------------------------------------------------------


def who(slug):
    """Return who has the room open, None if Redis does not answer."""
    try:
        return presence.who(facility_of(slug))
    except RedisError as error:
        logger.warning("who is in the room %s cannot be read: %s", slug, error)
        return None
