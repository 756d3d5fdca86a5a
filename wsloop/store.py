"""The names of Redis channels and the one way to publish: ws4redis's ``RedisStore``, made right.

Publisher (views) and subscriptions (sockets) share this module. Keys and channels are those of ws4redis,
``{prefix}user:{name}:{facility}`` and so on, and the key of a channel holds its last message. This module must not know
gevent, WebSockets or HTTP beyond ``request.user`` and ``request.session``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, Group
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import prefetch_related_objects
from django.utils.functional import Promise  # what gettext_lazy() returns
from redis import Redis
from redis.client import Pipeline
from redis.exceptions import RedisError
from ws4redis.redis_store import SELF, RedisMessage, RedisStore

from wsloop import conf


def control_channel() -> bytes:
    """Return the name of the channel on which all workers of the site are told about users; see ``access``."""
    return f"{conf.prefix()}wsloop:control".encode()


def encode(message: Any) -> bytes:
    """Return what is published for ``message``: bytes as they are, text as UTF-8, all else as JSON.

    Raises:
        TypeError: if the message is neither of these nor can be written as JSON.
    """
    if isinstance(message, (bytes, bytearray, memoryview)):  # RedisMessage is a subclass of bytes
        return bytes(message)
    if isinstance(message, (str, Promise)):
        return str(message).encode()
    return json.dumps(message, cls=DjangoJSONEncoder, ensure_ascii=False).encode()


def queue_publish(pipeline: Pipeline, channels: Iterable[bytes | str], payload: bytes, expire: int) -> None:
    """Add the commands to ``pipeline`` that publish ``payload`` and keep it as the last message of each channel.

    In one transaction the kept message and the published one change together, so a client that connects meanwhile
    gets exactly one of them. (ws4redis publishes first and stores afterwards.)
    """
    for channel in channels:
        if expire > 0:
            pipeline.set(channel, payload, ex=expire)
        pipeline.publish(channel, payload)


def publish(connection: Redis, channels: Iterable[bytes | str], messages: Iterable[tuple[bytes, int]]) -> None:
    """Publish pairs of payload and expiry (seconds) to all ``channels``, in one transaction and one round trip."""
    pipeline = connection.pipeline(transaction=True)
    for payload, expire in messages:
        queue_publish(pipeline, channels, payload, expire)
    execute(pipeline)


def execute(pipeline: Pipeline) -> None:
    """Execute ``pipeline``; an error of it has the words of Redis and nothing else.

    redis-py puts the whole command into the text: the payload, and a channel whose name may have the key of a session,
    which would stand in every log and report of the error.

    Raises:
        redis.exceptions.RedisError: if Redis did not take it.
    """
    try:
        pipeline.execute()
    except RedisError as exc:
        words = str(exc).rpartition(" of pipeline caused error: ")[2]
        # Redis itself quotes arguments of commands that it does not know, or that are renamed.
        exc.args = (words.partition(", with args beginning with")[0], *exc.args[1:])
        raise


def _names(value: Any, default_attribute: str) -> list[Any]:
    """Return ``value`` as a list: one name, object or SELF, or any iterable of them."""
    if value is None or value is False:
        return []
    if value is True:
        return [SELF]
    if isinstance(value, (str, AbstractBaseUser, Group)) or value is SELF:
        return [value]
    try:
        return list(value)
    except TypeError:
        raise ValueError(f"`{default_attribute}` must be a name, SELF, or a list of them, not {value!r}") from None


def _own_user(request: Any) -> list[str]:
    user = getattr(request, "user", None)
    return [user.get_username()] if user and user.is_authenticated else []


def _own_groups(request: Any) -> list[str]:
    if not _own_user(request):
        return []
    groups = user_groups(request.user)
    if groups is not None:
        return [group.name for group in groups]
    # No user of the database: what ws4redis.models noted at login, or the site itself.
    session = getattr(request, "session", None)
    return list(session.get("ws4redis:memberof", [])) if session else []


def user_groups(user: Any) -> list[Any] | None:
    """Return a user's groups as the database has them, asked once for each user object.

    (ws4redis goes by the groups that the session has noted at login: who is removed from one would listen on.)

    Returns:
        None if the user is not in the database, or its model has no groups.
    """
    if getattr(user, "pk", None) is None or groups_field(user) is None:
        return None
    prefetch_related_objects([user], "groups")
    return list(user.groups.all())


def groups_field(user: Any) -> Any:
    """Return the field ``groups`` of a user, or of a user model; None if there is none that leads to many groups."""
    meta = getattr(user, "_meta", None)
    return next((field for field in getattr(meta, "many_to_many", ()) if field.name == "groups"), None)


def _own_session(request: Any) -> list[str]:
    session = getattr(request, "session", None)
    return [session.session_key] if session and session.session_key else []


class Store(RedisStore):  # type: ignore[misc]
    """Overrides the broken methods of ws4redis's ``RedisStore``; subclasses of both inherit the mended ones."""

    def _get_message_channels(
        self,
        request: Any = None,
        facility: str = "{facility}",
        broadcast: bool = False,
        groups: Any = (),
        users: Any = (),
        sessions: Any = (),
    ) -> list[str]:
        """Return the channels of a message, each once, in a fixed order.

        ws4redis crashes on a single name (``basestring``) and makes a channel of the object SELF or of the session key
        ``None`` for a visitor who has none, which all such visitors would share.
        """
        own = {"user": _own_user, "group": _own_groups, "session": _own_session}
        channels = [f"{conf.prefix()}broadcast:{facility}"] if broadcast else []
        for audience, value in (("group", groups), ("user", users), ("session", sessions)):
            for name in _names(value, f"{audience}s"):
                if name is SELF:
                    names = own[audience](request)
                elif isinstance(name, AbstractBaseUser):
                    names = [name.get_username()]
                elif isinstance(name, Group):
                    names = [name.name]
                else:
                    names = [name]
                channels.extend(f"{conf.prefix()}{audience}:{each}:{facility}" for each in names)
        return list(dict.fromkeys(channels))

    def publish_message(self, message: Any, expire: int | None = None) -> None:
        """Publish ``message`` on all channels of this store, in one transaction and one round trip.

        Args:
            message: text, bytes, or what can be written as JSON.
            expire: seconds for which it is also kept as each channel's last message; 0 keeps nothing; None takes
                ``WS4REDIS_EXPIRE``.

        Raises:
            redis.exceptions.RedisError: if Redis did not take it.
        """
        publish(self._connection, self._publishers, [(encode(message), conf.expire() if expire is None else expire)])


__all__ = ["SELF", "RedisMessage", "Store", "encode", "execute", "publish", "queue_publish"]
