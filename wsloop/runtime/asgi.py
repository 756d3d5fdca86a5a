"""Runs an ASGI application on a connection: one task, which lives as long as its socket.

The rules are in :mod:`wsloop.runtime.applications`. This module must not know the meaning of events.
"""

from __future__ import annotations

import contextvars
import logging
from typing import Any

from wsloop.aio.lines import Line
from wsloop.aio.worker import worker_loop
from wsloop.protocol.consumer_events import Event
from wsloop.runtime.applications import ApplicationCore, Begun, Hosted
from wsloop.runtime.inbox import CONNECT
from wsloop.runtime.tasks import TaskRunner

logger = logging.getLogger("wsloop.runner")


class AsgiRunner(ApplicationCore, TaskRunner):
    """One application and its connection. Arguments are those of :class:`Runner`, with :class:`Hosted` as consumer."""

    __slots__ = ("_begun",)

    def __init__(self, *arguments: Any) -> None:
        self._begun = Begun()
        super().__init__(*arguments)

    def _wake(self) -> None:
        if self._begun.over:
            self._end()
        elif self._begun.receivers:
            worker_loop().call_soon_threadsafe(self._deliver)
        else:
            super()._wake()

    def _start(self) -> None:
        contextvars.Context().run(self._call_soon)

    def _call_soon(self) -> None:
        self._starting = False
        self._run_in_line(self._call)

    async def _call(self, line: Line) -> None:
        """Call the application, and act on its end."""
        consumer = self._consumer
        error: BaseException | None = None
        self._handling = CONNECT
        try:
            if isinstance(consumer, Hosted):
                await consumer.application(consumer.scope, self._receive, self._perform)
        except BaseException as exc:
            error = exc
            if isinstance(exc, KeyboardInterrupt):
                raise
        finally:
            self._stop_checking()
            line.close()
            self._returned(error)
            self.task = None
            self._runtime.running.discard(self)

    def _end(self) -> None:
        super()._end()
        self._interrupt()  # it may not have been told: its client has left before its handshake began

    def _handler_sleeps(self) -> bool:
        return False  # it has been told, and may have more to do

    def give_up(self) -> None:
        super().give_up()
        self._interrupt()

    def _report(self, event: Event, error: BaseException) -> None:
        name = self._name()
        logger.error("%s has failed", name[0].upper() + name[1:], exc_info=error)

    def _name(self) -> str:
        consumer = self._consumer
        return "an application" if consumer is None else f"the application at {consumer.scope['path']!r}"

    def _taken(self) -> None:
        self._after_event()

    def _close_reason(self) -> str:
        return "" if self._connection is None else self._connection.close_reason


__all__ = ["AsgiRunner"]
