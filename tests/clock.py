"""Another clock for the tests of this process: ``TEST_CLOCK="2028-02-29T23:59:58 America/St_Johns"``.

It begins at this time of the zone, by default UTC, and goes on from there. The zone becomes the process's and Django's
``TIME_ZONE``, as on a site whose settings name it.

What tells the date changes: ``time.time()``, ``datetime.now()``, ``timezone.now()`` and so on, whoever has imported
them before (``time.ctime()`` alone is forgotten by time-machine). What measures does not: ``time.monotonic()``, timers,
the loop of gevent. Nor does the clock of anybody else: Redis, OpenSSL, other processes and the kernel, which dates
files, have the real one. A test that compares one of theirs with that of this process has the mark ``real_clock``.
"""

import contextlib
import os
from datetime import datetime
from zoneinfo import ZoneInfo

import time_machine
from django.conf import settings
from django.test import override_settings

VARIABLE = "TEST_CLOCK"
MOMENT, _, _zone = os.environ.get(VARIABLE, "").partition(" ")
ZONE = ZoneInfo(_zone or "UTC")


def travel():
    """Set the clock that the environment asks for, if any, until the process ends."""
    if MOMENT:
        time_machine.travel(datetime.fromisoformat(MOMENT).replace(tzinfo=ZONE), tick=True).start()


@contextlib.contextmanager
def time_zone():
    """Put the zone into Django's settings, if there are any: reading them has set the process to theirs."""
    if MOMENT and settings.configured:
        with override_settings(TIME_ZONE=ZONE.key):
            yield
    else:
        yield


@contextlib.contextmanager
def real():
    """Have the real clock meanwhile."""
    if MOMENT:
        with time_machine.travel(time_machine.escape_hatch.time.time(), tick=True):
            yield
    else:
        yield


def shown():
    """Return what the clock shows, for the head of a report."""
    return f"{datetime.now(ZONE):%Y-%m-%dT%H:%M:%S} {ZONE.key}"
