"""An event loop of asyncio that waits in gevent's hub: other greenlets run while it has nothing to do.

The standard library's loops work in a patched process, too. This one, which a worker has for its whole life, wakes
without a pipe, hands blocking code to greenlets, and gives the hub its turn while coroutines are busy. This module must
not know Django.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from typing import Any

import gevent
from gevent import monkey
from greenlet import getcurrent

from wsloop.aio.lines import Line, Pool
from wsloop.fair_scheduler import BREATH

SLICE = 0.002  # seconds that coroutines run before greenlets, sockets and timers get their turn

thread_id = monkey.get_original("_thread", "get_ident")  # of the operating system's thread; gevent's are greenlets

_READ, _WRITE = 1, 2  # of gevent's watchers


class HubSelector(selectors.BaseSelector):
    """Waits for files with watchers of gevent's hub; in the thread that has made it.

    A watcher that fires is stopped until the next :meth:`select`: it would fire again and again while a coroutine
    blocks elsewhere.

    Attributes:
        busy_since: when coroutines last began to run (``monotonic()``), after others had their turn; None while others
            have it.
    """

    def __init__(self) -> None:
        self._hub = gevent.get_hub()
        self._keys: dict[int, selectors.SelectorKey] = {}
        self._watchers: dict[int, Any] = {}
        self._stopped: set[int] = set()  # files whose watchers do not watch
        self._fired: dict[int, int] = {}
        self._waiting: Any = None  # the greenlet that waits
        self._woken = False
        self._slice_ends_at = 0.0
        self.busy_since: float | None = None

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, _descriptor(fileobj), events, data)
        if key.fd in self._keys:
            raise KeyError(f"{fileobj!r} (descriptor {key.fd}) is registered already")
        flags = (_READ if events & selectors.EVENT_READ else 0) | (_WRITE if events & selectors.EVENT_WRITE else 0)
        if not flags:
            raise ValueError(f"invalid events: {events!r}")
        self._watchers[key.fd] = self._hub.loop.io(key.fd, flags)
        self._keys[key.fd] = key
        self._stopped.add(key.fd)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        key = self._keys.pop(self.get_key(fileobj).fd)
        descriptor = key.fd
        watcher = self._watchers.pop(descriptor)
        watcher.stop()
        watcher.close()
        self._stopped.discard(descriptor)
        self._fired.pop(descriptor, None)
        return key

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return _Files(self._keys)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return _Files(self._keys)[fileobj]

    def close(self) -> None:
        for watcher in self._watchers.values():
            watcher.stop()
            watcher.close()
        for kept in (self._keys, self._watchers, self._stopped, self._fired):
            kept.clear()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return the files that are ready. Blocks, in gevent's hub, until there are some, :meth:`wake`, or the timeout.

        Args:
            timeout: seconds; 0: coroutines are busy, and go on until their slice has ended.
        """
        for descriptor in self._stopped:
            self._watchers[descriptor].start(self._fire, descriptor, pass_events=True)
        self._stopped.clear()
        if timeout is None or timeout > 0:
            if not (self._fired or self._woken):
                self._wait(timeout)
            elif monotonic() >= self._slice_ends_at:
                self._pause()
        elif monotonic() >= self._slice_ends_at:
            self._pause()
        self._woken = False
        if not self._fired:
            return []
        fired, self._fired = self._fired, {}
        return [
            (self._keys[descriptor], events & self._keys[descriptor].events) for descriptor, events in fired.items()
        ]

    def wake(self) -> None:
        """End the wait. From any greenlet of the thread; never blocks."""
        if not self._woken:
            self._woken = True
            if self._waiting is not None:
                self._hub.loop.run_callback(self._go_on)

    def _pause(self) -> None:
        self.busy_since = None
        gevent.sleep(BREATH)
        self._begin_slice()

    def _begin_slice(self) -> None:
        self.busy_since = monotonic()
        self._slice_ends_at = self.busy_since + SLICE

    def _wait(self, timeout: float | None) -> None:
        self._waiting, self.busy_since = getcurrent(), None
        timer = None
        try:
            if timeout is not None:
                timer = self._hub.loop.timer(timeout)
                timer.start(self._go_on)
            self._hub.switch()
        finally:
            self._waiting = None
            if timer is not None:
                timer.stop()
                timer.close()
            self._begin_slice()

    def _go_on(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.switch()

    def _fire(self, events: int, descriptor: int) -> None:
        watcher = self._watchers.get(descriptor)
        if watcher is None:
            return
        watcher.stop()
        self._stopped.add(descriptor)
        known = self._fired.get(descriptor, 0)
        known |= (selectors.EVENT_READ if events & _READ else 0) | (selectors.EVENT_WRITE if events & _WRITE else 0)
        self._fired[descriptor] = known
        self._go_on()


class _Files(Mapping[Any, selectors.SelectorKey]):
    """The files of a selector, by their descriptors; asyncio looks them up by the file objects as well."""

    def __init__(self, keys: dict[int, selectors.SelectorKey]) -> None:
        self._keys = keys

    def __getitem__(self, fileobj: Any) -> selectors.SelectorKey:
        try:
            return self._keys[_descriptor(fileobj)]
        except ValueError:  # it is closed
            for key in self._keys.values():
                if key.fileobj is fileobj:
                    return key
            raise KeyError(fileobj) from None

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[int]:
        return iter(self._keys)


def _descriptor(fileobj: Any) -> int:
    descriptor = fileobj if isinstance(fileobj, int) else fileobj.fileno()
    if descriptor < 0:
        raise ValueError(f"invalid file descriptor: {descriptor}")
    return int(descriptor)


class _Answer:
    """Tells a future of the event loop how a call in a greenlet has ended."""

    __slots__ = ("_loop", "future")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()

    def begin(self) -> bool:
        return not self.future.cancelled()

    def succeed(self, result: Any) -> None:
        self._loop.call_soon_threadsafe(set_result, self.future, result)

    def fail(self, error: BaseException) -> None:
        if isinstance(error, StopIteration):  # no future takes it (PEP 479)
            error = RuntimeError("a function that was called for a coroutine has raised StopIteration")
        self._loop.call_soon_threadsafe(_set_error, self.future, error)


def set_result(future: asyncio.Future[Any], result: Any) -> None:
    """Set the result of a future, unless it has one; in its event loop."""
    if not future.done():  # it may have been cancelled meanwhile
        future.set_result(result)


def _set_error(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


class HubEventLoop(asyncio.SelectorEventLoop):
    """An event loop for the greenlet that runs it, in the thread that has made it.

    Blocking code that coroutines hand to an executor (``asyncio.to_thread()``, asgiref's ``sync_to_async()``) runs in
    greenlets of this thread.
    """

    def __init__(self) -> None:
        self._waits = HubSelector()
        self._thread = thread_id()
        self._pool = Pool()
        super().__init__(self._waits)

    @property
    def busy_since(self) -> float | None:
        """When coroutines last began to run (``monotonic()``); None while the loop waits, or lets others run."""
        return self._waits.busy_since

    def _write_to_self(self) -> None:
        """Wake the loop; asyncio calls this from ``call_soon_threadsafe()``, in any thread or greenlet."""
        if thread_id() == self._thread:
            self._waits.wake()
        else:
            super()._write_to_self()  # type: ignore[misc]

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        """Call ``func`` in a greenlet, unless an executor of the site's own is given or set as the default."""
        if executor is None and self._default_executor is None:  # type: ignore[attr-defined]
            executor = self._pool
        if isinstance(executor, (Pool, Line)):
            self._check_closed()  # type: ignore[attr-defined]
            answer = _Answer(self)
            executor.call(answer, func, args)
            return answer.future
        return super().run_in_executor(executor, func, *args)


__all__ = ["HubEventLoop", "HubSelector", "set_result", "thread_id"]
