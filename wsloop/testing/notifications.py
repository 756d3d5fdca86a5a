"""``NotificationsMixin``: assertions of test cases on what the site has published.

This module must not know sockets or gevent.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from unittest import TestCase, TestResult

from wsloop.testing.recorder import Notification, Recorder, record

__unittest = __tracebackhide__ = True  # for unittest and pytest: what they show of a failure ends in the test

if TYPE_CHECKING:
    Base = TestCase
else:
    Base = object


class NotificationsMixin(Base):
    """For test cases: records what the site publishes, and replaces Redis for it and for the channel layer.

    ::

        class OrderTests(NotificationsMixin, TestCase):
            def test_the_customer_is_told(self):
                self.client.post("/orders/7/pay/")
                self.assertNotified(user="john", facility="orders", message="Paid")
    """

    _recorder: Recorder

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.run is TestCase.run:
            raise TypeError(
                f"NotificationsMixin must be the first base: class {cls.__name__}(NotificationsMixin, TestCase)"
            )

    @classmethod
    def setUpClass(cls) -> None:
        recording = contextlib.ExitStack()  # for setUpTestData()
        cls.addClassCleanup(recording.close)
        recording.enter_context(record())
        super().setUpClass()

    def run(self, result: TestResult | None = None) -> TestResult | None:
        """Run the test with a recorder of its own."""
        with record() as self._recorder:
            return super().run(result)

    @property
    def notifications(self) -> list[Notification]:
        """The messages that this test has published, in order, once for each audience."""
        return self._recorder.notifications

    def assertNotified(self, **expected: Any) -> None:
        """Fail unless a message has been published that matches all arguments.

        Args:
            user, group: name or object. With several audiences, one message must have been sent to all of them.
            session: key of a session, or a session.
            broadcast: True: to all.
            facility: its name.
            message: text or bytes, or the value of the message as JSON.
            count: the number of matching messages; None: at least one. A message to several audiences is one.
        """
        self._recorder.assert_notified(**expected)

    def assertNotNotified(self, **expected: Any) -> None:
        """Fail if a message has been published that matches, to any of the audiences.

        Takes the arguments of :meth:`assertNotified` except ``count``.
        """
        self._recorder.assert_not_notified(**expected)


__all__ = ["NotificationsMixin"]
