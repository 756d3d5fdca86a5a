"""A plugin of pytest: coroutines of tests run in this package's event loop. A loop that a test makes is as usual."""

from wsloop.aio import worker
from wsloop.aio.loop import HubEventLoop


def pytest_configure():
    worker.install()


def pytest_asyncio_loop_factories():
    return {"wsloop": HubEventLoop}
