"""Records notifications under test: stands in for Redis, where all ways of publishing meet.

That is behind checks and encoding, for plain messages, batches, messages that wait for a commit, and those of the
outbox. This module must not know sockets or gevent.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from django.contrib.auth.models import AbstractBaseUser, Group

from wsloop import conf, publisher, signals
from wsloop.backend import publishing
from wsloop.backend.history import Entry
from wsloop.protocol.messages import Message, Position, new_id
from wsloop.testing.handler import uncommitted
from wsloop.testing.memory import own

ANY: Any = object()
MAX_SHOWN = 200  # characters of a message
MAX_LISTED = 20  # messages

__unittest = __tracebackhide__ = True  # for unittest and pytest: what they show of a failure ends in the test


@dataclass(frozen=True)
class Notification:
    """A message to one audience.

    Attributes:
        facility: to which it was published.
        audience: "broadcast", "user", "group" or "session".
        name: of the user or group; the key of the session; empty for a broadcast.
        payload: the message in bytes.
        number: the same for all audiences of a message.
    """

    facility: str
    audience: str
    name: str = field(repr=False)
    payload: bytes
    number: int = field(repr=False, default=0)

    @property
    def message(self) -> Any:
        """The value of JSON; otherwise text; otherwise bytes."""
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
    """Replaces Redis, as far as publishing needs it.

    Attributes:
        notifications: the published messages in order, once for each audience.
    """

    def __init__(self) -> None:
        self.notifications: list[Notification] = []
        self._number = 0
        self._once: set[tuple[str, str]] = set()
        self._last: dict[str, bytes] = {}
        self._histories: dict[str, list[Entry]] = {}

    # Called instead of the functions that publish and read.

    def publish(self, client: Any, messages: Iterable[publishing.OutgoingMessage]) -> list[int | None]:
        """See :func:`wsloop.backend.publishing.publish`; nobody knows who would have got it."""
        reached: list[int | None] = []
        for message in messages:
            self._number += 1
            reached.append(None)
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
        return reached

    def last_messages(self, client: Any, channels: Sequence[str]) -> list[bytes | None]:
        """See :func:`wsloop.backend.publishing.last_messages`."""
        return [self._last.get(channel) for channel in channels]

    def latest(self, client: Any, channel: str, limit: int) -> list[Entry]:
        """See :func:`wsloop.backend.history.latest`."""
        return self._histories.get(channel, [])[-limit:]

    def tops(self, client: Any, channels: Sequence[bytes]) -> list[Position]:
        """See :func:`wsloop.backend.history.tops`."""
        histories = [self._histories.get(channel.decode()) for channel in channels]
        return [entries[-1].message.position if entries else Position(0, new_id()) for entries in histories]

    def _keep(self, channel: str, message: publishing.OutgoingMessage) -> None:
        entries = self._histories.setdefault(channel, [])
        offset, previous = entries[-1].message.position if entries else (0, "")
        kept = Message(message.payload, f"test-{self._number}", offset + 1, previous, len(message.channels) > 1)
        entries.append(Entry(kept, int(time.time() * 1_000_000)))
        del entries[: -message.options.size]

    # Called by tests.

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
            text = f"{_messages(found)} published {wanted} instead of {count}."
        raise AssertionError(text + self._instead())

    def assert_not_notified(self, *, facility: str | None = None, message: Any = ANY, **whom: Any) -> None:
        """See :meth:`NotificationsMixin.assertNotNotified`."""
        audiences = _audiences(**whom)
        found = self._found(facility, message, lambda sent: not audiences or bool(audiences & sent))
        if found:
            text = f"{_messages(len(found))} published {_wanted(audiences, facility, message, 'or')}."
            raise AssertionError(text + self._instead())

    def _found(self, facility: str | None, message: Any, addressed: Callable[[set[tuple[str, str]]], bool]) -> set[int]:
        """Return the numbers of the messages that match."""
        audiences: dict[int, set[tuple[str, str]]] = {}
        for each in self.notifications:
            if facility in (None, each.facility) and (message is ANY or _equal(each.payload, message)):
                audiences.setdefault(each.number, set()).add((each.audience, each.name))
        return {number for number, sent in audiences.items() if addressed(sent)}

    def _instead(self) -> str:
        """Return a list of the published messages, for a failure."""
        shown = [str(each) for each in self.notifications[-MAX_LISTED:]]
        if not shown:
            text = " Nothing was published."
        elif len(shown) < len(self.notifications):
            text = f" {len(self.notifications)} messages were published, the last of them:"
        else:
            text = " Published messages:"
        hint = uncommitted()
        return "\n  ".join([text, *shown, *([hint] if hint else [])])


@contextlib.contextmanager
def record() -> Iterator[Recorder]:
    """Record published messages, and replace the channel layer by one in memory."""
    recorder = Recorder()
    with contextlib.ExitStack() as stack:
        stack.enter_context(own())
        stack.enter_context(patch.object(publishing, "publish", recorder.publish))
        for name in ("publish", "last_messages", "latest", "tops"):
            stack.enter_context(patch.object(publisher, name, getattr(recorder, name)))
        # There are no workers, which would need notices of users who have changed.
        stack.enter_context(patch.object(signals, "_publish", lambda notice: None))
        yield recorder


def _parse(channel: str) -> tuple[str, str, str]:
    """Return facility, audience and name of a channel."""
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
        words.append(f"with the content {_shown(publishing.encode(message))}")
    return " ".join(words) or "at all"


def _messages(number: int) -> str:
    return "1 message was" if number == 1 else f"{number} messages were"


def _shown(payload: bytes) -> str:
    try:
        text = payload.decode()
    except ValueError:
        text = repr(payload)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


__all__ = ["Notification", "Recorder", "record"]
