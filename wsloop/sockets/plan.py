"""How one socket is to be served, decided before the 101: plain data, which another process could carry out as well.

This module must not know who decides, nor who carries it out.
"""

from __future__ import annotations

from typing import NamedTuple

from wsloop import conf
from wsloop.sockets.limits import Bounds
from wsloop.sockets.visitor import Visitor


class Plan(NamedTuple):
    """The stages of a handshake hand it on; none changes it, each returns one with its own part filled in.

    Attributes:
        facility: what comes behind ``WEBSOCKET_URL`` in the path.
        options: of the facility.
        answer: headers of the 101.
        deflate: with permessage-deflate, the window bits of the client's and of the server's messages; None without it.
        dialect: name of what is spoken, see :data:`wsloop.protocol.dialects.DIALECTS`.
        bounds: what the client may do.
        visitor: the person behind it.
        generation: of :meth:`wsloop.visitors.session_watch.SessionWatch.generation`, before the visitor was looked up.
        presence_scope: the facility and the user's name, None for nobody; None where presence is not counted.
        channels: of the facility, that it is subscribed to.
        watches_presence: whether it is subscribed to the facility's presence, and begins with who is there.
        publishes: the channels to which its messages are published; none: it may not publish.
        echo: whether it gets its own messages back.
        resume: where the client stands, as it has sent it; None: it has sent nothing.
        recovers_groups: whether it listens to the user's groups, those that the user may join later too.
    """

    facility: str
    options: conf.Facility
    answer: tuple[tuple[str, str], ...]
    deflate: tuple[int, int] | None
    dialect: str
    bounds: Bounds
    visitor: Visitor
    generation: int
    presence_scope: tuple[str, str | None] | None = None
    channels: tuple[bytes, ...] = ()
    watches_presence: bool = False
    publishes: tuple[bytes, ...] = ()
    echo: bool = False
    resume: str | None = None
    recovers_groups: bool = False

    def answering(self, subprotocol: str) -> Plan:
        """Return the plan with a subprotocol named in the 101."""
        others = [each for each in self.answer if each[0] != "Sec-WebSocket-Protocol"]
        return self._replace(answer=(*others, ("Sec-WebSocket-Protocol", subprotocol)))
