"""``/ws/rooms/<room>/``: the socket of a room's page.

The page sends JSON objects with a ``type``:

=========== ======================== ==================================================================================
message     ``text``, ``key``        a message; answered by ``ack`` or ``error`` with the same key. If the page sends it
                                     again with the same key, after a break without an answer, it is stored once
typing                               the user is typing
read        ``number``               the user has seen all messages up to this number
ping                                 answered by ``pong``: the connection is alive
=========== ======================== ==================================================================================

The page receives:

=========== ======================== ==================================================================================
messages    ``messages``             in the order of their numbers, each once, starting after the number of ``?after=``
                                     in the URL; without it after the newest one
ack         ``key``, ``number``      the message is stored
error       ``key``, ``errors``      lists of sentences by field, with ``__all__`` for those that concern no field
who         ``users``, ``anonymous`` the users present
presence    ``event`` …              a change of presence, as in ``presence_changed``
typing      ``user``
pong
=========== ======================== ==================================================================================

If a page names its user as ``?as=`` and another user, or none, is signed in now, its socket is closed with 4001.

This module, not the page, ensures order and completeness: when an announcement does not have the next number, the
consumer reads the database. So Redis may lose announcements, or deliver those of two writers in another order.
"""

import logging
import time

from redis.exceptions import RedisError

from chat.rooms import conversation
from chat.rooms.forms import MAX_SLUG_LENGTH, RoomMessageForm
from wsloop.consumers import JsonWebsocketConsumer
from wsloop.protocol.close_codes import SIGNED_OUT  # as when the session ends

logger = logging.getLogger(__name__)

TYPING_INTERVAL = 2.0  # seconds between two typing notices of a user to the room; more are dropped
GENERAL = "__all__"  # Django's name for errors that concern no single field
TRY_AGAIN = 1013  # close code


class RoomConsumer(JsonWebsocketConsumer):
    """One visitor in one room.

    Attributes:
        sent: the number up to which this socket has been sent all messages.
        marked: the number up to which the read mark of its user is stored.
    """

    def connect(self):
        self.slug = self.kwargs["room"]
        if len(self.slug) > MAX_SLUG_LENGTH:
            self.close(reason="There is no such room: its name is too long.")
            return
        if self.slug != self.slug.lower():  # not lowered here: presence depends on the path of the socket
            self.close(reason="There is no such room: its name has capital letters.")
            return
        # A page may outlive its sign-in, for example in the browser's cache: it must not write under another name.
        if self.query.get("as") and self.query["as"] != self.user.get_username():
            self.accept()
            self.close(SIGNED_OUT, "this page is another user's")
            return
        self.sent = self.marked = 0
        self.typed_at = float("-inf")
        try:
            # First join, then read: a message in between is announced as well, and recognised by its number.
            self.channel_layer.group_add(conversation.group_of(self.slug), self.channel_name)
        except RedisError as error:
            logger.warning("could not join the room %s: %s", self.slug, error)
            self.accept()
            self.close(TRY_AGAIN, "live updates are not available")
            return
        after = conversation.to_number(self.query.get("after"))
        self.sent = conversation.last_number(self.slug) if after is None else after
        self.accept()
        self.catch_up()
        self.tell_who()

    # --- from the page

    def receive(self, text_data=None, bytes_data=None):
        try:
            content = self.decode_json(text_data or "")
        except (ValueError, RecursionError):
            self.refuse("This is not valid JSON.")
        else:
            self.receive_json(content)

    def receive_json(self, content):
        known = {"message": self.take, "typing": self.typing, "read": self.read, "ping": self.ping}
        kind = content.get("type") if isinstance(content, dict) else None
        if isinstance(kind, str) and kind in known:
            known[kind](content)
        else:
            self.refuse(f"Send an object with one of these types: {', '.join(known)}.")

    def take(self, content):
        text, key = content.get("text"), content.get("key")
        if not isinstance(text, str) or not isinstance(key, str | None):
            self.refuse("A message must have a text, and may have a key, which is text as well.")
            return
        if not self.user.is_authenticated:
            self.refuse("Sign in to write.", key)
            return
        form = RoomMessageForm({"message": text, "key": key})
        if not form.is_valid():
            self.send_json({"type": "error", "key": key, "errors": form.errors})
            return
        message = conversation.write(self.slug, self.user, form.cleaned_data["message"], form.cleaned_data["key"])
        self.send_json({"type": "ack", "key": key, "number": message.number})
        self.typed_at = float("-inf")  # further typing is reported at once
        # The author need not wait for the announcement.
        self.room_message({"message": conversation.as_data(message)})

    def typing(self, content):
        if not self.user.is_authenticated or time.monotonic() - self.typed_at < TYPING_INTERVAL:
            return
        self.typed_at = time.monotonic()
        conversation.tell(self.slug, {"type": "room.typing", "user": self.user.get_username()})

    def read(self, content):
        number = content.get("number")
        if type(number) is not int or not 0 < number <= self.sent:
            self.refuse("No message with this number was sent.")
        elif self.user.is_authenticated and number > self.marked:
            self.marked = number
            conversation.mark_read(self.slug, self.user, number)

    def ping(self, content):
        self.catch_up()  # an opportunity to notice a lost announcement
        self.send_json({"type": "pong"})

    def refuse(self, reason, key=None):
        self.send_json({"type": "error", "key": key, "errors": {GENERAL: [reason]}})

    # --- from the room

    def room_message(self, event):
        number = event["message"]["number"]
        if number == self.sent + 1:
            self.send_messages([event["message"]])
        elif number > self.sent:
            self.catch_up()

    def room_typing(self, event):
        if event["user"] != self.user.get_username():
            self.send_json({"type": "typing", "user": event["user"]})

    def presence_changed(self, event):
        self.send_json({**event, "type": "presence"})

    def channel_layer_resumed(self, event):
        self.catch_up()
        self.tell_who()

    def catch_up(self):
        """Send the messages in the database after the last number sent."""
        while messages := conversation.after(self.slug, self.sent):
            self.send_messages([conversation.as_data(message) for message in messages])

    def send_messages(self, messages):
        self.send_json({"type": "messages", "messages": messages})
        self.sent = messages[-1]["number"]

    def tell_who(self):
        who = conversation.who(self.slug)
        if who:
            self.send_json({"type": "who", "users": who.users, "anonymous": who.anonymous})
