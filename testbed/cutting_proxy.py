"""A network that fails on demand: a TCP proxy that stalls, cuts and resets the lines through it.

It must not know what the lines carry. It lives on an asyncio loop in a thread of its own; its methods return when what
they do is done.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import socket
import struct
import threading
from typing import Any

HIGH_WATER = 256 * 1024  # bytes that may wait on one side before the other is not read any more
RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: closing sends RST


class _End(asyncio.Protocol):
    """One side of a line. ``other`` is the other one; ``is_server`` tells which one this is."""

    def __init__(self, proxy, other=None):
        self.proxy, self.other, self.is_server = proxy, other, other is not None
        self.transport: Any = None
        self.ended = False
        self._held = set()  # why this side is not read

    def connection_made(self, transport):
        self.transport = transport
        transport.set_write_buffer_limits(HIGH_WATER)
        if self.is_server:
            self.other.other = self
            self.other.let("no server yet")
        else:
            self.proxy.opened(self)
        if self.proxy.stalled:
            self.hold("stalled")

    def data_received(self, data):
        data = self.proxy.passing(self, data) if self.is_server else self.proxy.asking(self, data)
        if data and not self.other.transport.is_closing():
            self.other.transport.write(data)

    def eof_received(self):
        self.ended = True
        if self.other is None or self.other.transport.is_closing():
            return False
        self.other.transport.write_eof()
        return not self.other.ended  # the other direction goes on

    def connection_lost(self, exc):
        self.proxy.ends.discard(self)
        if self.other is not None and not self.other.transport.is_closing():
            self.other.reset() if exc is not None else self.other.transport.close()

    def pause_writing(self):
        self.other.hold("full")

    def resume_writing(self):
        self.other.let("full")

    def hold(self, why):
        self._held.add(why)
        self.transport.pause_reading()

    def let(self, why):
        self._held.discard(why)
        if not self._held and not self.transport.is_closing():
            self.transport.resume_reading()

    def reset(self):
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.transport.abort()


class CuttingProxy:
    """A line to ``port`` of the loopback, to be used in a ``with`` block.

    Attributes:
        port: where to connect to.
        stalled: whether nothing passes at present.
        cuts: how many lines it has cut.
    """

    def __init__(self, port):
        self._target = port
        self.stalled = False
        self.cuts = 0
        self.ends = set()
        self._left = None  # bytes from the server until the line that passes them is reset
        self._tasks = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="cutting proxy", daemon=True)
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = listener.getsockname()[1]
        self._listener = listener

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def __enter__(self):
        self._thread.start()
        serving = self._loop.create_server(lambda: _End(self), sock=self._listener)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result(10)
        return self

    def __exit__(self, *_):
        self._call(self._server.close)
        self.cut()
        self._call(lambda: [task.cancel() for task in self._tasks])
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _call(self, function):
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._loop.call_soon_threadsafe(lambda: future.set_result(function()))
        return future.result(10)

    # In the loop's thread.

    def opened(self, client):
        self.ends.add(client)
        client.hold("no server yet")
        task = self._loop.create_task(self._connect(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, client):
        try:
            _, server = await self._loop.create_connection(lambda: _End(self, client), "127.0.0.1", self._target)
        except OSError:
            client.reset()
        else:
            if client.transport.is_closing():
                server.reset()
            else:
                self.ends.add(server)

    def asking(self, client, data):
        """Return what of the client's ``data`` may pass."""
        return data

    def passing(self, server, data):
        """Return what of ``data`` may pass, and reset the line if that is where it ends."""
        if self._left is None:
            return data
        data, self._left = data[: self._left], self._left - len(data)
        if self._left <= 0:
            self._left = None
            self.cuts += 1
            self._loop.call_soon(server.other.reset)  # after the bytes that still pass have been written
            self._loop.call_soon(server.reset)
        return data

    # To make it fail.

    @property
    def lines(self):
        """How many lines there are."""
        return sum(not end.is_server for end in list(self.ends))

    def stall(self):
        """Nothing passes any more, as if packets were lost: lines stay, new ones are taken and carry nothing."""
        self.stalled = True
        self._call(lambda: [end.hold("stalled") for end in self.ends])

    def go(self):
        """What was stalled passes again."""
        self.stalled = False
        self._call(lambda: [end.let("stalled") for end in self.ends])

    def cut(self, choose=lambda number: True):
        """Reset lines, in both directions: those for whose number, from 0 on, ``choose`` returns true."""

        def cut():
            clients = [end for end in self.ends if not end.is_server]
            for number, client in enumerate(clients):
                if choose(number):
                    self.cuts += 1
                    if client.other is not None:
                        client.other.reset()
                    client.reset()

        self._call(cut)

    def cut_after(self, count):
        """Reset the line on which the ``count``-th byte from now on comes from the server, after that byte."""

        def arm():
            self._left = count

        self._call(arm)

    @property
    def armed(self):
        """Whether ``cut_after`` has yet to cut."""
        return self._left is not None
