"""ws4redis's ``RedisStore`` with its broken methods fixed: the base of publishers, and of a site's own subscribers.

This module must not know gevent or sockets.
"""

from __future__ import annotations

from typing import Any

from wsloop import addressees, conf
from wsloop.backend.publishing import OutgoingMessage, check, encode, publish
from wsloop.stock import SELF, RedisMessage, RedisStore


class Store(RedisStore):  # type: ignore[misc]
    """Overrides the broken methods of ws4redis's ``RedisStore``; subclasses of both inherit the fixed ones."""

    _facility = ""

    def _get_message_channels(
        self,
        request: Any = None,
        facility: Any = None,
        broadcast: bool = False,
        groups: Any = (),
        users: Any = (),
        sessions: Any = (),
    ) -> list[str]:
        """Return the channels of a message, see :func:`wsloop.addressees.channels`.

        ws4redis crashes on a single name (``basestring``). For a visitor without session it makes a channel of the
        object SELF or of the key ``None``, which all such visitors would share.
        """
        return addressees.channels(
            request, facility=facility, broadcast=broadcast, groups=groups, users=users, sessions=sessions
        )

    def publish_message(self, message: Any, expire: int | None = None) -> int | None:
        """Publish ``message`` on all channels of this store, in one transaction and one round trip.

        Args:
            message: text, bytes, or an object that can be encoded as JSON.
            expire: seconds for which it is also retained as each channel's last message; 0 retains nothing; None takes
                ``WSLOOP["EXPIRE"]``.

        Returns:
            how many connections to Redis have got it; see :meth:`wsloop.publisher.RedisPublisher.publish_message`.

        Raises:
            redis.exceptions.RedisError: if Redis did not accept it.
        """
        return self._send(self._outgoing(message, expire))

    def pipeline_publish_message(self, message: Any, expire: int | None = None, transaction: bool = True) -> int | None:
        """Publish ``message`` as :meth:`publish_message` of this class does, in one round trip (as in ws4redis).

        Args:
            message: see there.
            expire: see there.
            transaction: whether it is published on all channels or none. Otherwise a channel on which Redis does not
                accept it, because an ACL forbids it for example, does not keep it from the others.

        Returns:
            see there.

        Raises:
            redis.exceptions.RedisError: if Redis did not accept it, or not on all channels.
        """
        return self._send(self._outgoing(message, expire)._replace(one_by_one=not transaction))

    def _send(self, item: OutgoingMessage) -> int | None:
        return publish(self._connection, [item])[0]

    def _outgoing(self, message: Any, expire: int | None, key: str = "") -> OutgoingMessage:
        retained = conf.expire() if expire is None else expire
        check(retained, key)
        return OutgoingMessage(list(self._publishers), encode(message), retained, conf.facility(self._facility), key)


__all__ = ["SELF", "RedisMessage", "RedisStore", "Store"]
