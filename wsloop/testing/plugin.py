"""Fixtures for pytest: ``pytest_plugins = ["wsloop.testing.plugin"]`` in ``conftest.py``.

pytest loads this module before Django is set up, so its imports are in the fixtures. It is the only module that knows
pytest.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from wsloop.testing.recorder import Notification, Recorder


@pytest.fixture(autouse=True)
def _wsloop_clean() -> Iterator[None]:
    """Restore the channel layer, even if the test has not disconnected a consumer."""
    yield
    if "wsloop.testing.memory" in sys.modules:
        from wsloop.testing.memory import forget

        forget()


@pytest.fixture
def _wsloop_recorder() -> Iterator[Recorder]:
    from wsloop.testing.recorder import record

    with record() as recorder:
        yield recorder


@pytest.fixture
def notifications(_wsloop_recorder: Recorder) -> list[Notification]:
    """The published messages in order, once for each audience. Nothing is sent to Redis."""
    return _wsloop_recorder.notifications


@pytest.fixture
def assertNotified(_wsloop_recorder: Recorder) -> Callable[..., None]:
    """See :meth:`wsloop.testing.NotificationsMixin.assertNotified`."""
    return _wsloop_recorder.assert_notified


@pytest.fixture
def assertNotNotified(_wsloop_recorder: Recorder) -> Callable[..., None]:
    """See :meth:`wsloop.testing.NotificationsMixin.assertNotNotified`."""
    return _wsloop_recorder.assert_not_notified
