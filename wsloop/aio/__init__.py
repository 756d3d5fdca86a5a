"""Asyncio under gevent: coroutines run in one event loop per worker, beside greenlets, in the same thread.

All greenlets of a worker are one thread of the operating system, and asyncio keeps its state per thread.
:mod:`wsloop.aio.travel` makes that state follow its greenlet, :mod:`wsloop.aio.loop` is an event loop that waits in
gevent's hub, :mod:`wsloop.aio.lines` runs blocking code for coroutines, and :mod:`wsloop.aio.worker` has the loop of
the process.
"""
