"""The socket of an ASGI application under test, such as the consumers and routers of Channels with their middleware.

The rules are those of :mod:`wsloop.runtime.applications`; the application is one task of the event loop of the test.
This module must not know gevent.
"""

from __future__ import annotations

import contextvars
from typing import Any

from wsloop.protocol.consumer_events import Event
from wsloop.refusals import Denied
from wsloop.runtime.applications import ApplicationCore, Begun, Hosted
from wsloop.runtime.inbox import CONNECT
from wsloop.testing.handler import place_in_coroutine
from wsloop.testing.task_sockets import TaskSocket


class ApplicationSocket(ApplicationCore, TaskSocket):
    """A socket in real time. Arguments are those of :class:`TaskSocket`, with :class:`Hosted` as consumer."""

    def __init__(self, *arguments: Any) -> None:
        self._begun = Begun()
        super().__init__(*arguments)

    @property
    def idle(self) -> bool:
        return self.ended or (bool(self._begun.receivers) and not self._inbox.entries)

    def doing(self) -> str:
        task = self._task
        if task is None:
            return f"the application has ended, with close code {self._code}"
        if self.idle:
            return "the application waits in receive()"
        return f"the application waits at {place_in_coroutine(task.get_coro())}"

    def _wake(self) -> None:
        if self._begun.receivers:
            self._soon(self._deliver)
        else:
            super()._wake()

    def _start(self) -> None:
        self._starting = False
        if self._task is None and not self.ended:
            contextvars.Context().run(self._start_task, self._call())

    async def _call(self) -> None:
        """Call the application, and act on its end."""
        consumer = self._consumer
        assert isinstance(consumer, Hosted)
        error: BaseException | None = None
        self._handling = CONNECT
        try:
            await consumer.application(consumer.scope, self._receive, self._perform)
        except BaseException as exc:
            error = exc
        if isinstance(error, KeyboardInterrupt):  # the test raises it: here it would stop the event loop
            self._memory.report(error)
        self._returned(error)
        self._task = None
        self._memory.changed()

    def _taken(self) -> None:
        self._memory.changed()

    def _may_interrupt(self, task: Any) -> bool:
        return False  # it has been told, and may have more to do

    def _refuse(self, error: BaseException, code: int) -> None:
        super()._refuse(error, int(error.status) if isinstance(error, Denied) else code)

    def _report(self, event: Event, error: BaseException) -> None:
        self._memory.report(error)


__all__ = ["ApplicationSocket"]
