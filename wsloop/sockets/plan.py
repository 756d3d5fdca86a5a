"""The plan of one socket, decided before the 101: plain data, which another process could carry out as well.

This module must not know the stages that decide, nor the code that carries the plan out.
"""

from __future__ import annotations

from typing import NamedTuple

from wsloop import conf
from wsloop.sockets.limits import Bounds
from wsloop.sockets.visitor import Visitor


class SubscriptionPlan(NamedTuple):
    """One subscription of a socket: to the channels of a facility.

    Attributes:
        facility: its name, the part of the path after ``WSLOOP["URL"]``.
        options: of the facility.
        channels: of the facility, to which the socket is subscribed.
        watches_presence: whether it is subscribed to the facility's presence, and first gets the list of users.
        publishes: the channels to which its messages are published; none: it may not publish.
        echo: whether it gets its own messages back.
        resume: the client's positions; None if it sent none.
        recovers_groups: whether it listens to the user's groups, including those that the user joins later.
        presence_scope: the facility and the user's name, None for nobody; None where presence is not counted.
    """

    facility: str
    options: conf.Facility
    channels: tuple[bytes, ...] = ()
    watches_presence: bool = False
    publishes: tuple[bytes, ...] = ()
    echo: bool = False
    resume: str | None = None
    recovers_groups: bool = False
    presence_scope: tuple[str, str | None] | None = None


class Plan(NamedTuple):
    """The stages of a handshake pass it on; a stage returns a new one with its own part filled in.

    Attributes:
        status: of the response.
        answer: headers of the response.
        deflate: with permessage-deflate, the window bits of the client's and of the server's messages; None without it.
        dialect: its name, see :data:`wsloop.protocol.dialects.DIALECTS`, or :data:`EVENT_DIALECTS` of a stream.
        bounds: the limits of the client.
        visitor: the person behind it.
        generation: of :meth:`wsloop.visitors.session_watch.SessionWatch.generation`, before the visitor was looked up.
        presence_scope: the facility and the user's name, None for nobody; None where presence is not counted.
        place: by which the socket is counted: the pattern of its facility or its route, and its audiences.
    """

    status: str
    answer: tuple[tuple[str, str], ...]
    deflate: tuple[int, int] | None
    dialect: str
    bounds: Bounds
    visitor: Visitor
    generation: int
    presence_scope: tuple[str, str | None] | None = None
    place: tuple[str, str] = ("", "")

    def answering(self, subprotocol: str | None, headers: tuple[tuple[str, str], ...] = ()) -> Plan:
        """Return the plan with a subprotocol in the 101, unless it is None, and with more headers."""
        answer = self.answer
        if subprotocol is not None:
            others = [each for each in answer if each[0] != "Sec-WebSocket-Protocol"]
            answer = (*others, ("Sec-WebSocket-Protocol", subprotocol))
        return self._replace(answer=(*answer, *headers))
