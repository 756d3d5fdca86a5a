"""The server API: what a view, a cron job or a task of a queue asks of the sockets of all workers, on all machines.

Each function works in any process that has Django's settings and can reach Redis, with or without gevent, and whether
or not a worker runs. ``wsloop.http_api`` offers the same to programs that are not Python. This module must not know
sockets.
"""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

from django.contrib.auth import get_user_model
from django.utils.functional import Promise  # returned by gettext_lazy()

from wsloop import addressees
from wsloop import presence as attendance
from wsloop.backend import asking
from wsloop.backend.history import Entry
from wsloop.kinds import is_utf8
from wsloop.presence import Who
from wsloop.protocol.close_codes import DISCONNECTED, MOST_REASON
from wsloop.publisher import RedisPublisher


class Counts(NamedTuple):
    """How many sockets there are.

    Attributes:
        sockets: open ones, over all workers.
        signed_in: those of them whose users have signed in.
        workers: number of workers that were counted.
        missing: number of workers that did not answer within ``REDIS_TIMEOUT``, whose sockets are not counted.
    """

    sockets: int
    signed_in: int
    workers: int
    missing: int


def publish(
    message: Any,
    *,
    facility: str,
    broadcast: bool = False,
    users: Any = (),
    groups: Any = (),
    sessions: Any = (),
    expire: int | None = None,
    key: str = "",
    on_commit: bool | str = False,
    outbox: bool | str = False,
) -> int | None:
    """Publish a message: :class:`wsloop.publisher.RedisPublisher` in one call.

    Args:
        message: text, bytes, or an object that can be encoded as JSON.
        facility, broadcast, users, groups, sessions: see :class:`wsloop.publisher.RedisPublisher`.
        expire, key, on_commit, outbox: see :meth:`wsloop.publisher.RedisPublisher.publish_message`.

    Returns:
        how many connections to Redis have got it, or None; see ``publish_message``.

    Raises:
        TypeError, ValueError: if an argument is wrong, or nobody is addressed.
        redis.exceptions.RedisError: if Redis did not accept the message.
    """
    publisher = RedisPublisher(facility=facility, broadcast=broadcast, users=users, groups=groups, sessions=sessions)
    if not publisher._publishers:
        raise ValueError("nobody is addressed: give broadcast=True, users, groups or sessions")
    return publisher.publish_message(message, expire=expire, key=key, on_commit=on_commit, outbox=outbox)


def history(
    *,
    facility: str,
    broadcast: bool = False,
    users: Any = (),
    groups: Any = (),
    sessions: Any = (),
    limit: int = 100,
) -> list[Entry]:
    """Return the newest messages from the histories of audiences, the oldest of them first.

    Args:
        facility, broadcast, users, groups, sessions: see :class:`wsloop.publisher.RedisPublisher`.
        limit: maximum number of messages.

    Returns:
        entries with ``message.payload`` (bytes), ``message.offset`` and ``time`` (microseconds since the epoch); empty
        in facilities without the option ``size``.

    Raises:
        TypeError, ValueError: if an argument is wrong, or no audience is named.
        redis.exceptions.RedisError: if Redis does not answer.
    """
    publisher = RedisPublisher(facility=facility, broadcast=broadcast, users=users, groups=groups, sessions=sessions)
    if not publisher._publishers:
        raise ValueError("no audience is named: give broadcast=True, users, groups or sessions")
    return publisher.history(limit)


def presence(facility: str | None = None) -> Who:
    """Return who is present.

    Args:
        facility: with the option ``presence``; None: the whole site, all facilities with that option.

    Returns:
        ``users``, their names in order, and ``anonymous``, the number of sockets of visitors who have not signed in; of
        the whole site these are not counted, and it is 0.

    Raises:
        TypeError, ValueError: if the name of the facility is invalid.
        redis.exceptions.RedisError: if Redis did not answer.
    """
    return Who(attendance.online(), 0) if facility is None else attendance.who(facility)


def counts(*, user: Any = None, session: Any = None, facility: str | None = None) -> Counts:
    """Return how many sockets are open, over all workers: all, or those of a user, a session and a facility.

    Args:
        user: a user object, or a name, which is looked up in the database; None: of anybody.
        session: ``request.session`` or a key; None: any.
        facility: counts the sockets that listen to it, or are present there; None: any, and those of consumers.

    Raises:
        ObjectDoesNotExist: if there is no user of this name.
        TypeError, ValueError: if an argument is wrong.
        redis.exceptions.RedisError, OSError: if Redis cannot be reached.
    """
    given, missing = asking.ask("count", _whose(user, session, facility))
    sockets, signed_in = (sum(answer[name] for answer in given) for name in ("sockets", "signed_in"))
    return Counts(sockets, signed_in, len(given), missing)


def listeners(*, facility: str, broadcast: bool = False, users: Any = (), groups: Any = (), sessions: Any = ()) -> int:
    """Return how many sockets would get a message that :func:`publish` publishes with the same arguments.

    ``PUBSUB NUMSUB`` of Redis, and the answer to PUBLISH, count workers instead.

    Args:
        facility, broadcast, users, groups, sessions: see :class:`wsloop.publisher.RedisPublisher`.

    Raises:
        TypeError, ValueError: if an argument is wrong.
        redis.exceptions.RedisError, OSError: if Redis cannot be reached.
    """
    channels = addressees.channels(
        facility=facility, broadcast=broadcast, users=users, groups=groups, sessions=sessions
    )
    return sum(answer["sockets"] for answer in asking.ask("listeners", {"channels": channels}).given)


def disconnect(
    *,
    user: Any = None,
    session: Any = None,
    facility: str | None = None,
    everybody: bool = False,
    code: int = DISCONNECTED,
    reason: str = "disconnected",
) -> int:
    """Close open sockets, over all workers: those of a user, of a session, or that listen to a facility.

    Several arguments narrow it down: ``user="john", facility="orders"`` closes those of john that listen to orders. The
    socket of a whole page with a subscription to the facility is closed as a whole. Sockets that are opened later are
    not concerned: to keep somebody out, end the session, deactivate the user, or let the policy refuse.

    Args:
        user: a user object, or a name, which is looked up in the database.
        session: ``request.session`` or a key.
        facility: its name.
        everybody: True closes all sockets of the site, and needs no other argument.
        code: close code, 4000 to 4999. From 4500, the default, on, and after 4001, wsloop's clients do not come back;
            after any other they reconnect, after a random pause. See ``docs/reference/websockets.rst``.
        reason: for the client, up to 123 bytes of UTF-8.

    Returns:
        the number of sockets that are being closed. Workers that did not answer within ``REDIS_TIMEOUT``, which is
        logged, close theirs, too, but these are not counted.

    Raises:
        ObjectDoesNotExist: if there is no user of this name.
        TypeError: if nothing says whose sockets are meant, or an argument is of another type.
        ValueError: if code, reason or a name is invalid.
        redis.exceptions.RedisError, OSError: if Redis cannot be reached.
    """
    whose = _whose(user, session, facility)
    if not whose and everybody is not True:
        raise TypeError("disconnect() needs a user, a session or a facility; everybody=True closes all sockets")
    if type(code) is not int or not 4000 <= code <= 4999:
        raise ValueError(f"code must be a whole number from 4000 to 4999 (RFC 6455, section 7.4.2), not {code!r}")
    if not isinstance(reason, str):
        raise TypeError(f"reason must be text, not {addressees.shown(reason)}")
    if len(reason.encode(errors="replace")) > MOST_REASON or not is_utf8(reason):
        raise ValueError(f"reason must be text of up to {MOST_REASON} bytes in UTF-8, not {addressees.shown(reason)}")
    answers = asking.ask("disconnect", {**whose, "code": code, "reason": reason})
    return sum(answer["sockets"] for answer in answers.given)


def _whose(user: Any, session: Any, facility: Any) -> dict[str, str]:
    """Return what a request to the workers says about whose sockets are meant."""
    whose = {}
    if user is not None:
        whose["user"] = _primary_key(user)
    if session is not None:
        whose["session"] = addressees.session_key(session)
    if facility is not None:
        whose["facility"] = addressees.facility_name(facility)
    return whose


def _primary_key(user: Any) -> str:
    if isinstance(user, (str, Promise, enum.Enum)):
        model: Any = get_user_model()
        name = addressees.user_name(user)
        try:
            return str(model._default_manager.get(**{model.USERNAME_FIELD: name}).pk)
        except model.DoesNotExist:
            raise model.DoesNotExist(f"there is no user with the name {addressees.shown(name)}") from None
    addressees.user_name(user)  # refuses what is no user
    if user.pk is None:
        raise ValueError(f"the user {addressees.shown(user)} is not saved, so it has no sockets")
    return str(user.pk)


__all__ = ["Counts", "counts", "disconnect", "history", "listeners", "presence", "publish"]
