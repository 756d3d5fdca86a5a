"""A plugin of pytest: coroutines of tests run in the event loop of the worker, as its applications do.

So they are where the code of a site would be: ``async_to_sync()`` in a view leads to the same loop. A loop that a test
makes is as usual.
"""

import asyncio

from gevent.event import Event

from wsloop.aio import worker


class InWorker(asyncio.AbstractEventLoop):
    """What ``asyncio.Runner`` needs of a loop; tasks are those of the worker's, which runs in another greenlet."""

    def create_task(self, coroutine, **options):
        loop = worker.worker_loop()
        task = loop.create_task(coroutine, **options)
        loop.call_soon_threadsafe(task.get_loop)  # wakes it
        return task

    def run_until_complete(self, future):
        task = self.create_task(future) if asyncio.iscoroutine(future) else future
        ended = Event()
        worker.worker_loop().call_soon_threadsafe(task.add_done_callback, lambda _: ended.set())
        ended.wait()
        return task.result()

    async def shutdown_asyncgens(self):
        pass

    async def shutdown_default_executor(self, timeout=None):
        pass

    def is_running(self):
        return False

    def is_closed(self):
        return False

    def get_debug(self):
        return False

    def set_debug(self, enabled):
        pass

    def close(self):
        pass


def pytest_configure():
    worker.install()


def pytest_asyncio_loop_factories():
    return {"wsloop": InWorker}
