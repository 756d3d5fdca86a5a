"""The interface between the rules for a consumer and the code that runs its handlers: on a connection, or in a test.

This module must not know the rules.
"""

from __future__ import annotations

import abc
from typing import Any, Protocol

from wsloop.protocol.consumer_events import Event, Headers


class Registry(Protocol):
    """The consumers of this process, or of a test."""

    def enter(self, consumer: Any) -> str:
        """Add a consumer, and return the name of its channel."""

    def leave(self, channel: str) -> None:
        """Remove the consumer with this channel."""

    def check_thread(self) -> None:
        """Raise RuntimeError in a thread that must not use the consumers."""


class Driver(abc.ABC):
    """Runs the handlers of one consumer; :class:`wsloop.runtime.core.ConsumerCore` calls it.

    None of the methods blocks, but for those that end ``accept()`` and ``send()``. What these two return is returned to
    the consumer, so it may be something to wait for.

    Attributes:
        ended_by: the exception that ends a handler from outside.
    """

    __slots__ = ()

    ended_by: type[BaseException] | tuple[type[BaseException], ...]

    @abc.abstractmethod
    def _wake(self) -> None:
        """The inbox has an entry: take it soon, unless a handler runs."""

    @abc.abstractmethod
    def _now(self) -> float:
        """Return the time of its clock in seconds."""

    @abc.abstractmethod
    def _open(self, subprotocol: str | None, headers: Headers) -> Any:
        """Answer the handshake, call :meth:`_opened` when the 101 is out, and end ``accept()`` then.

        Args:
            subprotocol: for the 101.
            headers: that the 101 has besides those of the handshake, checked.

        Raises:
            Disconnected: if the client leaves before.
        """

    @abc.abstractmethod
    def _refuse(self, error: BaseException, code: int) -> None:
        """Refuse the handshake, with the response for ``error``; ``code`` would close a socket that is open."""

    @abc.abstractmethod
    def _transmit(self, payload: bytes, text: bool) -> Any:
        """Send a message, and end ``send()`` when there is room for another one."""

    @abc.abstractmethod
    def _stop_caller(self) -> Any:
        """Raise Disconnected because the client has left, unless the caller is a handler of another consumer."""

    @abc.abstractmethod
    def _close_connection(self, code: int, reason: str) -> None:
        """Close the open socket, and call :meth:`_leave`."""

    @abc.abstractmethod
    def _end_handler(self) -> None:
        """Raise Disconnected in the running handler when it sleeps, or in any place at ``_ends_at``.

        A running ``disconnect`` may sleep.
        """

    @abc.abstractmethod
    def _report(self, event: Event, error: BaseException) -> None:
        """Report an error of a handler to the site."""

    @abc.abstractmethod
    def _release(self) -> None:
        """Release everything: the consumer has ended, and has left the registry."""


__all__ = ["Driver", "Registry"]
