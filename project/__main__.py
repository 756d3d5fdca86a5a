"""``python -m project``, which ``make run`` starts: ``project.run``, and until that has a server, a quiet Ctrl-C.

The imports of ``project.run`` take most of a second; a signal during them must not end in a stack trace either.
"""

from __future__ import annotations

import os
import signal
from types import FrameType


def leave(number: int, frame: FrameType | None) -> None:
    """End at once: before there is a server, nothing is left running."""
    os.write(1, b"Stopped\n")
    os._exit(130)  # as a shell has it for a command that was interrupted


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    from project import run

    run.main()


if __name__ == "__main__":
    main()
