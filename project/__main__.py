"""``python -m project``, the command of ``make run``: runs ``project.run``, and handles Ctrl-C while that is imported.

The imports of ``project.run`` take most of a second; a signal during them must not cause a traceback either.
"""

from __future__ import annotations

import os
import signal
from types import FrameType


def leave(number: int, frame: FrameType | None) -> None:
    """Exit at once: there is no server yet that would have to be stopped."""
    os.write(1, b"Stopped\n")
    os._exit(130)  # the exit code that shells use for an interrupted command


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    from project import run

    run.main()


if __name__ == "__main__":
    main()
