"""An object in a process of its own, which does what it is told to and returns what came of it.

So the sockets of each server have their own file descriptors, of which a process may have too few for all of them.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from bench.clients import Stalled

FORK = multiprocessing.get_context("fork")
ENDED_WITHIN = 10.0  # seconds


class Apart:
    """Args:
    make: returns the object, in its process.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._line, end = FORK.Pipe()
        self._process = FORK.Process(target=_serve, args=(end, make), daemon=True)
        self._process.start()
        end.close()

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._line.send(None)
        self._process.join(ENDED_WITHIN)
        self._process.kill()

    def __call__(self, method: str, *arguments: Any) -> Any:
        """Call a method of the object and return its result.

        Raises:
            Stalled, OSError, RuntimeError: what the method has raised, with its text.
        """
        self._line.send((method, arguments))
        try:
            result = self._line.recv()
        except EOFError:
            raise RuntimeError("the process of the sockets has ended") from None
        if isinstance(result, Exception):
            raise result
        return result


def _serve(line: Connection, make: Callable[[], Any]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    served = make()
    while (order := line.recv()) is not None:
        method, arguments = order
        try:
            line.send(getattr(served, method)(*arguments))
        except (Stalled, OSError, RuntimeError) as exc:
            line.send(exc)
