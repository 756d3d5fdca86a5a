"""A publisher of numbered messages, in a process of its own."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping

from testbed.processes import ROOT, wait_until
from testbed.sites import Site
from testbed.warm_python import warm_python


class Publisher:
    """Publishes numbered messages from a process of the site, until it is stopped: ``sample/steady_publisher.py``.

    Args:
        site: whose settings and Redis it has.
        streams: names to keyword arguments of ``RedisPublisher``.
        rate: messages a second, all streams together.
        size: bytes of a message, at least.
        env: further environment, such as another ``REDIS_URL``.

    Attributes:
        published: stream to the last number that Redis has taken.
        began: stream to the times at which its messages were first tried, on the monotonic clock.
        failures: why tries have failed.
    """

    def __init__(
        self,
        site: Site,
        streams: Mapping[str, Mapping[str, object]],
        rate: int = 20,
        size: int = 0,
        env: Mapping[str, str] | None = None,
    ) -> None:
        order = json.dumps({"streams": streams, "rate": rate, "size": size})
        self.published = dict.fromkeys(streams, 0)
        self.began: dict[str, list[float]] = {name: [] for name in streams}
        self.failures: list[str] = []
        self._stopped = False
        command = [str(ROOT / "testbed/sample/steady_publisher.py"), order]
        env = {**site.env, **(env or {}), "PYTHONPATH": str(ROOT)}
        (read, written), (answers, told) = os.pipe(), os.pipe()
        self._stdin, self._stdout = open(written, "w"), open(answers)  # noqa: SIM115 - closed at its end
        with open(read) as stdin, open(told, "w") as stdout:
            self._popen = warm_python(patched=False).start(command, env, stdin=stdin, stdout=stdout)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._stdout:
            if line.startswith("!"):
                self.failures.append(line[2:].rstrip("\n"))
            else:
                name, number, began = line.split()
                self.began[name].append(float(began))
                self.published[name] = int(number)

    def high(self) -> dict[str, int]:
        """Return the last number of each stream that Redis has taken."""
        return dict(self.published)

    def wait(self, more: int, timeout: float = 60.0) -> None:
        """Wait until ``more`` further messages of each stream have been taken by Redis."""
        before = self.high()

        def taken() -> bool:
            assert self._popen.poll() is None, "the publisher has ended"
            return all(self.published[name] >= number + more for name, number in before.items())

        wait_until(taken, timeout, what=f"{more} more published messages after {before}; {self.failures[-3:]}")

    def stop(self, timeout: float = 60.0) -> dict[str, int]:
        """End it when Redis has taken what it is about to publish, and return the last number of each stream."""
        if not self._stopped:
            self._stopped = True
            self._stdin.close()
            try:
                code = self._popen.wait(timeout)
            finally:
                self._popen.kill()
                self._popen.wait()
                self._reader.join(10)
                self._stdout.close()
            assert code == 0, f"the publisher ended with {code}; {self.failures[-3:]}"
        return self.published

    def __enter__(self):
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.stop()
        elif not self._stopped:
            self._stopped = True
            self._popen.kill()
            self._popen.wait()
            self._stdin.close()
            self._reader.join(10)
            self._stdout.close()
