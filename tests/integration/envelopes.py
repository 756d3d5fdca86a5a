"""A client of wsloop.v1 for tests that look at single frames; ``swarm`` has the one that comes back by itself."""

import json
from urllib.parse import quote

from testbed.clients import Client


def V1(site, path, resume=None, **options):
    """Open a connection: ``V1(site, "news?subscribe-broadcast", resume=earlier.resume)``."""
    if resume is not None:
        path += f"&resume={quote(resume)}"
    client = site.connect(path, subprotocols=["wsloop.v1"], class_=Connection, **options)
    assert client.getsubprotocol() == "wsloop.v1"
    return client


class Connection(Client):
    """A websocket-client connection that keeps what it needs to come back.

    Attributes:
        resume: what to send as ``resume``, as docs/reference/wsloop-v1.rst says.
        positions: by what is before their first dot.
    """

    token = ""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.positions = {}

    @property
    def resume(self):
        return "~".join([self.token, *self.positions.values()])

    def frame(self, kind=None, timeout=10.0):
        """The next frame that is no ping; of other types than ``kind``, if one is given, presence and positions alone
        are passed over."""
        while True:
            frame = json.loads(self.next(timeout))
            if frame["type"] == "welcome":
                self.token, self.positions = frame.get("token", ""), {}
            if "position" in frame:
                self.positions[frame["position"].partition(".")[0]] = frame["position"]
            if frame["type"] == kind or (kind is None and frame["type"] != "ping"):
                return frame
            assert frame["type"] in ("ping", "presence", "position"), f"{frame} instead of {kind}"

    def until(self, kind, timeout=10.0, **values):
        """The frames up to the first of a ``kind`` that has these values."""
        frames = []
        while not frames or frames[-1]["type"] != kind or any(frames[-1].get(k) != v for k, v in values.items()):
            frames.append(self.frame(timeout=timeout))
        return frames

    def publish(self, data, **more):
        self.send(json.dumps({"type": "publish", "data": data, **more}))
