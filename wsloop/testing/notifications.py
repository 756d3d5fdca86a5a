"""What a test finds out about notifications: those of ``RedisPublisher`` are recorded instead of going to Redis.

They are recorded where all ways of publishing meet, behind checks and encoding: plain messages, batches, those that
wait for a commit, and those of the outbox. This module must not know sockets or gevent.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import TestCase, TestResult
from unittest.mock import patch

from django.contrib.auth.models import AbstractBaseUser, Group

from wsloop import conf, publisher, signals
from wsloop.backend import publishing
from wsloop.backend.history import Entry, Page
from wsloop.protocol.messages import Message, Position, new_id
from wsloop.testing.memory import own
from wsloop.testing.scheduler import uncommitted

ANY: Any = object()
MOST_SHOWN = 200  # characters of a message
MOST_LISTED = 20  # messages

__unittest = __tracebackhide__ = True  # for unittest and pytest: what they show of a failure ends in the test


@dataclass(frozen=True)
class Notification:
    """A message, as one audience was sent it.

    Attributes:
        facility: that it was published to.
        audience: "broadcast", "user", "group" or "session".
        name: of the user or the group; the key of the session; empty for everybody.
        payload: what was published.
        number: the same for all audiences of a message.
    """

    facility: str
    audience: str
    name: str = field(repr=False)
    payload: bytes
    number: int = field(repr=False, default=0)

    @property
    def message(self) -> Any:
        """What JSON says, or text, or bytes if it is neither."""
        try:
            return json.loads(self.payload)
        except ValueError:
            pass
        try:
            return self.payload.decode()
        except ValueError:
            return self.payload

    def __str__(self) -> str:
        name = self.name if self.audience != "session" else "…"  # a secret, and logs of tests are published
        return f"{self.facility}, {f'{self.audience} {name}'.strip()}: {_shown(self.payload)}"

    __repr__ = __str__


class Recorder:
    """Stands in for Redis, as far as publishing needs it.

    Attributes:
        notifications: what has been published, in order, once for each audience.
    """

    def __init__(self) -> None:
        self.notifications: list[Notification] = []
        self._number = 0
        self._once: set[tuple[str, str]] = set()
        self._last: dict[str, bytes] = {}
        self._histories: dict[str, list[Entry]] = {}

    # What publishing and reading call.

    def publish(self, client: Any, messages: Iterable[publishing.OutgoingMessage]) -> None:
        """See :func:`wsloop.backend.publishing.publish`."""
        for message in messages:
            self._number += 1
            for name in message.channels:
                channel = name.decode() if isinstance(name, bytes) else name
                if message.key and (channel, message.key) in self._once:
                    continue
                self._once.add((channel, message.key))
                facility, audience, whom = _parse(channel)
                self.notifications.append(Notification(facility, audience, whom, message.payload, self._number))
                if message.expire > 0:
                    self._last[channel] = message.payload
                if message.options.size:
                    self._keep(channel, message)

    def last_messages(self, client: Any, channels: Sequence[str]) -> list[bytes | None]:
        """See :func:`wsloop.backend.publishing.last_messages`."""
        return [self._last.get(channel) for channel in channels]

    def latest(self, client: Any, channel: str, limit: int) -> list[Entry]:
        """See :func:`wsloop.backend.history.latest`."""
        return self._histories.get(channel, [])[-limit:]

    def read(self, client: Any, questions: Sequence[tuple[bytes, Position | None]]) -> list[Page]:
        """See :func:`wsloop.backend.history.read`; only where histories stand."""
        tops = [self._histories.get(channel.decode()) for channel, _ in questions]
        return [Page([], entries[-1].message.position if entries else Position(0, new_id()), True) for entries in tops]

    def _keep(self, channel: str, message: publishing.OutgoingMessage) -> None:
        entries = self._histories.setdefault(channel, [])
        offset, previous = entries[-1].message.position if entries else (0, "")
        kept = Message(message.payload, f"test-{self._number}", offset + 1, previous, len(message.channels) > 1)
        entries.append(Entry(kept, int(time.time() * 1_000_000)))
        del entries[: -message.options.size]

    # What tests call.

    def assert_notified(
        self, *, facility: str | None = None, message: Any = ANY, count: int | None = None, **whom: Any
    ) -> None:
        """See :meth:`NotificationsMixin.assertNotified`."""
        audiences = _audiences(**whom)
        found = len(self._found(facility, message, lambda sent: audiences <= sent))
        if (found > 0) if count is None else (found == count):
            return
        wanted = _wanted(audiences, facility, message)
        if count is None or not found:
            text = f"No message was published {wanted}."
        else:
            text = f"{_messages(found)} published {wanted}, and not {count}."
        raise AssertionError(text + self._instead())

    def assert_not_notified(self, *, facility: str | None = None, message: Any = ANY, **whom: Any) -> None:
        """See :meth:`NotificationsMixin.assertNotNotified`."""
        audiences = _audiences(**whom)
        found = self._found(facility, message, lambda sent: not audiences or bool(audiences & sent))
        if found:
            text = f"{_messages(len(found))} published {_wanted(audiences, facility, message, 'or')}."
            raise AssertionError(text + self._instead())

    def _found(self, facility: str | None, message: Any, addressed: Callable[[set[tuple[str, str]]], bool]) -> set[int]:
        """Return the numbers of the messages that are meant."""
        audiences: dict[int, set[tuple[str, str]]] = {}
        for each in self.notifications:
            if facility in (None, each.facility) and (message is ANY or _equal(each.payload, message)):
                audiences.setdefault(each.number, set()).add((each.audience, each.name))
        return {number for number, sent in audiences.items() if addressed(sent)}

    def _instead(self) -> str:
        """Return what to say of what was published."""
        shown = [str(each) for each in self.notifications[-MOST_LISTED:]]
        if not shown:
            text = " Nothing was published."
        elif len(shown) < len(self.notifications):
            text = f" Published were, {len(self.notifications)} in all, these at last:"
        else:
            text = " Published were:"
        hint = uncommitted()
        return "\n  ".join([text, *shown, *([hint] if hint else [])])


if TYPE_CHECKING:
    Base = TestCase
else:
    Base = object


class NotificationsMixin(Base):
    """For test cases: what the site publishes is recorded, and the channel layer needs no Redis.

    ::

        class OrderTests(NotificationsMixin, TestCase):
            def test_the_customer_is_told(self):
                self.client.post("/orders/7/pay/")
                self.assertNotified(user="john", facility="orders", message="Paid")
    """

    _recorder: Recorder

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.run is TestCase.run:
            raise TypeError(f"NotificationsMixin comes first: class {cls.__name__}(NotificationsMixin, TestCase)")

    @classmethod
    def setUpClass(cls) -> None:
        recording = contextlib.ExitStack()  # of what setUpTestData() publishes
        cls.addClassCleanup(recording.close)
        recording.enter_context(record())
        super().setUpClass()

    def run(self, result: TestResult | None = None) -> TestResult | None:
        """Run the test with a record of its own."""
        with record() as self._recorder:
            return super().run(result)

    @property
    def notifications(self) -> list[Notification]:
        """What this test has published, in order, once for each audience."""
        return self._recorder.notifications

    def assertNotified(self, **expected: Any) -> None:
        """Fail unless a message has been published as described; what is left out may be anything.

        Args:
            user, group: name or object. Of several audiences one message must have gone to all.
            session: key of a session, or a session.
            broadcast: True: to everybody.
            facility: its name.
            message: text or bytes, or what the message says as JSON.
            count: how many messages there must be; None: any number. One to several audiences is one.
        """
        self._recorder.assert_notified(**expected)

    def assertNotNotified(self, **expected: Any) -> None:
        """Fail if a message has been published as described, to any of the audiences.

        Takes what :meth:`assertNotified` does, but ``count``.
        """
        self._recorder.assert_not_notified(**expected)


@contextlib.contextmanager
def record() -> Iterator[Recorder]:
    """Record what is published, and let the channel layer be one in memory."""
    recorder = Recorder()
    with contextlib.ExitStack() as stack:
        stack.enter_context(own())
        stack.enter_context(patch.object(publishing, "publish", recorder.publish))
        for name in ("publish", "last_messages", "latest", "read"):
            stack.enter_context(patch.object(publisher, name, getattr(recorder, name)))
        # There is no worker that would have to be told of users who have changed.
        stack.enter_context(patch.object(signals, "_publish", lambda notice: None))
        yield recorder


def _parse(channel: str) -> tuple[str, str, str]:
    """Return facility, audience, and the name of whom a channel is for."""
    audience, _, rest = channel.removeprefix(conf.prefix()).partition(":")
    name, _, facility = ("", "", rest) if audience == "broadcast" else rest.rpartition(":")
    return facility, audience, name


def _audiences(
    *, user: Any = None, group: Any = None, session: Any = None, broadcast: bool = False
) -> set[tuple[str, str]]:
    audiences = set()
    if user is not None:
        audiences.add(("user", user.get_username() if isinstance(user, AbstractBaseUser) else user))
    if group is not None:
        audiences.add(("group", group.name if isinstance(group, Group) else group))
    if session is not None:
        audiences.add(("session", getattr(session, "session_key", session)))
    if broadcast:
        audiences.add(("broadcast", ""))
    return audiences


def _equal(payload: bytes, message: Any) -> bool:
    expected = publishing.encode(message)
    if payload == expected:
        return True
    if isinstance(message, (str, bytes, bytearray, memoryview)):
        return False
    try:
        return bool(json.loads(payload) == json.loads(expected))
    except ValueError:
        return False


def _wanted(audiences: Iterable[tuple[str, str]], facility: str | None, message: Any, word: str = "and") -> str:
    whom = [
        "everybody" if audience == "broadcast" else f"{audience} {'…' if audience == 'session' else name}"
        for audience, name in sorted(audiences)
    ]
    words = [f"to {f' {word} '.join(whom)}"] if whom else []
    if facility is not None:
        words.append(f"on {facility}")
    if message is not ANY:
        words.append(f"that says {_shown(publishing.encode(message))}")
    return " ".join(words) or "at all"


def _messages(number: int) -> str:
    return "1 message was" if number == 1 else f"{number} messages were"


def _shown(payload: bytes) -> str:
    try:
        text = payload.decode()
    except ValueError:
        text = repr(payload)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


__all__ = ["Notification", "NotificationsMixin", "Recorder", "record"]
