"""Blocking code of coroutines runs in a line of their own, in asgiref's thread-sensitive mode."""

import asyncio
import contextvars
import gc
import weakref

import gevent
from asgiref.sync import SyncToAsync, sync_to_async

from wsloop.aio import context, worker
from wsloop.aio.lines import Line


def in_context(coroutine, line):
    """Run a coroutine in the loop of the process, in a new context that has entered ``line``."""
    ended = gevent.event.AsyncResult()

    async def main():
        try:
            ended.set(await coroutine)
        except BaseException as exc:
            ended.set_exception(exc)

    def start():
        context.enter(line)
        worker.worker_loop().create_task(main())

    worker.install()
    worker.worker_loop().call_soon_threadsafe(contextvars.Context().run, start)
    return ended


async def where():
    return await sync_to_async(gevent.getcurrent)()


def test_coroutines_of_a_context_share_a_greenlet_and_others_have_theirs():
    async def main():
        return await asyncio.gather(where(), asyncio.create_task(where()), where())

    first, second = Line(), Line()
    one, two = in_context(main(), first), in_context(main(), second)
    (greenlet,) = set(one.get())
    (other,) = set(two.get())
    assert greenlet is not other
    first.close()
    second.close()


def test_two_contexts_run_their_blocking_code_side_by_side():
    gate = gevent.event.Event()

    async def waits():
        return await sync_to_async(gate.wait)()

    async def opens():
        await sync_to_async(gate.set)()

    lines = Line(), Line()
    waiting = in_context(waits(), lines[0])
    in_context(opens(), lines[1]).get()
    assert waiting.get()
    for line in lines:
        line.close()


def test_nothing_is_kept_of_a_context_that_has_ended():
    line = Line()
    dead = weakref.ref(line)
    in_context(where(), line).get()
    line.close()
    del line
    gevent.sleep(0.01)
    gc.collect()
    assert dead() is None
    assert not [each for each in SyncToAsync.context_to_thread_executor.values() if each is dead()]
