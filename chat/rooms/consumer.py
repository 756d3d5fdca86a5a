"""``/ws/rooms/<room>/``: the socket of a room's page.

What the page says, as JSON objects with a ``type``:

=========== ======================== ==================================================================================
message     ``text``, ``key``        a message; answered by ``ack`` or ``error`` with the same key. Sent again with the
                                     same key, after a break that left open what became of it, it is stored once
typing                               somebody is typing
read        ``number``               all up to this number has been seen
ping                                 answered by ``pong``: the line is alive
=========== ======================== ==================================================================================

What it is told:

=========== ======================== ==================================================================================
messages    ``messages``             in the order of their numbers, each once, beginning behind the number that the URL
                                     names as ``?after=``; without it behind the newest one
ack         ``key``, ``number``      the message is stored
error       ``key``, ``errors``      lists of sentences by field, ``__all__`` for what concerns none: as from the view
who         ``users``, ``anonymous`` who is there
presence    ``event`` …              who comes and goes, as ``presence_changed`` is told
typing      ``user``
pong
=========== ======================== ==================================================================================

A page that names its user as ``?as=`` is closed with 4001 when somebody else has signed in meanwhile, or nobody has.

Order and completeness are made here, not in the page: an announcement whose number is not the next one is answered by a
look into the database. Redis may therefore lose some, or bring those of two writers the other way round.
"""

import logging
import time

from redis.exceptions import RedisError

from chat.rooms import conversation
from chat.rooms.forms import MAX_SLUG_LENGTH, RoomMessageForm
from wsloop.consumers import JsonWebsocketConsumer
from wsloop.protocol.close_codes import SIGNED_OUT  # as when the session ends

logger = logging.getLogger(__name__)

TYPING_INTERVAL = 2.0  # seconds between two messages to all that somebody is typing; more are dropped
GENERAL = "__all__"  # Django's name for what concerns no single field
TRY_AGAIN = 1013  # close code


class RoomConsumer(JsonWebsocketConsumer):
    """One visitor in one room.

    Attributes:
        sent: the number up to which this socket has been sent all there is.
        marked: the number up to which its user was noted to have read.
    """

    def connect(self):
        self.slug = self.kwargs["room"]
        if len(self.slug) > MAX_SLUG_LENGTH:
            self.close(reason="There is no such room: its name is too long.")
            return
        if self.slug != self.slug.lower():  # not lowered here: who is there is known by the path of the socket
            self.close(reason="There is no such room: its name has capital letters.")
            return
        # A page may outlive its sign-in, kept by the browser for example: nothing is written under another name.
        if self.query.get("as") and self.query["as"] != self.user.get_username():
            self.accept()
            self.close(SIGNED_OUT, "this page is another user's")
            return
        self.sent = self.marked = 0
        self.typed_at = float("-inf")
        try:
            # First join, then read: what is written in between is announced as well, and known by its number.
            self.channel_layer.group_add(conversation.group_of(self.slug), self.channel_name)
        except RedisError as error:
            logger.warning("a socket cannot join the room %s: %s", self.slug, error)
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
            self.refuse("This is no JSON.")
        else:
            self.receive_json(content)

    def receive_json(self, content):
        known = {"message": self.take, "typing": self.typing, "read": self.read, "ping": self.ping}
        kind = content.get("type") if isinstance(content, dict) else None
        if isinstance(kind, str) and kind in known:
            known[kind](content)
        else:
            self.refuse(f"An object with a type is expected, which is one of {', '.join(known)}.")

    def take(self, content):
        text, key = content.get("text"), content.get("key")
        if not isinstance(text, str) or not isinstance(key, str | None):
            self.refuse("A message has a text, and perhaps a key, which is text as well.")
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
        self.typed_at = float("-inf")  # who writes on has begun anew
        # Its author need not wait until it has come around.
        self.room_message({"message": conversation.as_data(message)})

    def typing(self, content):
        if not self.user.is_authenticated or time.monotonic() - self.typed_at < TYPING_INTERVAL:
            return
        self.typed_at = time.monotonic()
        conversation.tell(self.slug, {"type": "room.typing", "user": self.user.get_username()})

    def read(self, content):
        number = content.get("number")
        if type(number) is not int or not 0 < number <= self.sent:
            self.refuse("Nothing with this number was sent.")
        elif self.user.is_authenticated and number > self.marked:
            self.marked = number
            conversation.mark_read(self.slug, self.user, number)

    def ping(self, content):
        self.catch_up()  # a moment as good as any to notice an announcement that was lost
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
        """Send what the database has behind the last number sent."""
        while messages := conversation.after(self.slug, self.sent):
            self.send_messages([conversation.as_data(message) for message in messages])

    def send_messages(self, messages):
        self.send_json({"type": "messages", "messages": messages})
        self.sent = messages[-1]["number"]

    def tell_who(self):
        who = conversation.who(self.slug)
        if who:
            self.send_json({"type": "who", "users": who.users, "anonymous": who.anonymous})
