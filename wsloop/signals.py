"""Notifies all workers of the site about changed users and ended sessions, in whichever process they changed.

Views, the admin, shells, management commands and task queues save users, change their groups and sign them out.
Django's signals report that here, and after the commit of the change a notice is published, upon which
:mod:`wsloop.visitors.session_watch` checks the sockets concerned. A notice names users, not changes: workers read those
from the database, so a superfluous notice does no harm. A notice that is lost, because Redis is down, is made up for
when the workers reach Redis again.

This module must not know gevent or sockets.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.core.exceptions import ValidationError
from django.db import router, transaction
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete
from django.dispatch import Signal
from redis.exceptions import RedisError

from wsloop import addressees
from wsloop.backend import keys, pool

logger = logging.getLogger("wsloop.signals")

#: The first socket of a user on facilities with the option ``presence`` has opened. Sent once over all workers, with
#: the name of the user as ``user``.
user_online = Signal()
#: The last one has been closed for some seconds. Sent in the same way.
user_offline = Signal()

MOST = 1000  # users in one notice

# Fields without influence on the rights of a user. Django saves them at each login.
IRRELEVANT = {"last_login"}


def recheck(*users: Any) -> None:
    """Have all workers check whether the open sockets of these users may stay open.

    For changes without a signal of Django: ``QuerySet.update()``, ``bulk_update()``, SQL. Inside of a transaction it
    takes effect with the commit.

    Args:
        users: user objects, or their primary keys.

    Raises:
        TypeError: if an argument is neither.
        ValueError: if a user is not saved, or has not signed in.
    """
    model = get_user_model()
    _notify_users([_primary_key(user) for user in users], router.db_for_write(model))


def _primary_key(user: Any) -> Any:
    model = get_user_model()
    if isinstance(user, model):
        key = user.pk
    elif hasattr(user, "is_authenticated") or user is None:
        key = None
    else:
        try:
            if isinstance(user, (bool, float, bytes)):
                raise TypeError
            key = model._meta.pk.to_python(user)
        except (TypeError, ValueError, ValidationError):
            shown = addressees.shown(user)
            raise TypeError(f"recheck() takes user objects and their primary keys, not {shown}") from None
    if key is None:
        raise ValueError(f"recheck() takes users who are in the database, not {addressees.shown(user)}")
    return key


def connect() -> None:
    """Connect to Django's signals. Called when all models are loaded."""
    model = get_user_model()
    # By sender: receiving all deletions would make each of them slower. Proxies send signals of their own.
    for each in apps.get_models():
        if issubclass(each, model):
            post_save.connect(_user_saved, sender=each, dispatch_uid="wsloop")
            post_delete.connect(_user_deleted, sender=each, dispatch_uid="wsloop")
    user_logged_in.connect(_logged_in, dispatch_uid="wsloop")
    user_logged_out.connect(_logged_out, dispatch_uid="wsloop")
    field = addressees.groups_field(model)
    if field is not None:
        m2m_changed.connect(_groups_changed, sender=field.remote_field.through, dispatch_uid="wsloop")
        post_save.connect(_group_saved, sender=field.related_model, dispatch_uid="wsloop")
        pre_delete.connect(_note_members, sender=field.related_model, dispatch_uid="wsloop")
        post_delete.connect(_notify_noted, sender=field.related_model, dispatch_uid="wsloop")


# Users.


def _user_saved(
    instance: Any, created: bool, using: str, update_fields: frozenset[str] | None = None, **kwargs: Any
) -> None:
    if not (created or (update_fields and IRRELEVANT.issuperset(update_fields))):
        _notify_users([instance.pk], using)


def _user_deleted(instance: Any, using: str, **kwargs: Any) -> None:
    _notify_users([instance.pk], using)


# Groups.


def _groups_changed(
    instance: Any, action: str, reverse: bool, pk_set: set[Any] | None, using: str, **kwargs: Any
) -> None:
    """Handle ``user.groups.add(…)`` and its like, or in reverse ``group.user_set.add(…)``."""
    if action in ("post_add", "post_remove") and pk_set:
        _notify_users(pk_set if reverse else [instance.pk], using)
    elif action == "post_clear" and not reverse:
        _notify_users([instance.pk], using)
    elif action == "pre_clear" and reverse:
        _note_members(instance, using)
    elif action == "post_clear":
        _notify_noted(instance, using)


def _group_saved(instance: Any, using: str, **kwargs: Any) -> None:
    """Handle a saved group, which may have another name, and with it other channels."""
    _note_members(instance, using)
    _notify_noted(instance, using)


def _note_members(instance: Any, using: str, **kwargs: Any) -> None:
    """Note the members of a group before a deletion, after which they cannot be read any more."""
    members = get_user_model()._default_manager.using(using).filter(groups=instance.pk)
    instance._wsloop_members = list(members.values_list("pk", flat=True))


def _notify_noted(instance: Any, using: str, **kwargs: Any) -> None:
    _notify_users(instance.__dict__.pop("_wsloop_members", ()), using)


# Sessions.


def _logged_out(request: Any, **kwargs: Any) -> None:
    """Handle a logout. Django sends the signal just before it ends the session; workers check twice for that reason."""
    _session_ended(getattr(getattr(request, "session", None), "session_key", None))


def _logged_in(request: Any, **kwargs: Any) -> None:
    """Handle a login. Another user may have been signed in in this browser: that session has ended without a signal."""
    before = getattr(request, "COOKIES", {}).get(settings.SESSION_COOKIE_NAME)
    session = getattr(request, "session", None)
    if before and session is not None and before != session.session_key:
        _session_ended(before)


def _session_ended(key: str | None) -> None:
    if key:
        # The key is a secret, but it is in Redis already: in the names of channels.
        _notify({"session": key}, router.db_for_write(get_user_model()))


# Notices.


def _notify_users(pks: Iterable[Any], using: str) -> None:
    texts = [str(pk) for pk in pks]
    for start in range(0, len(texts), MOST):
        _notify({"users": texts[start : start + MOST]}, using)


def _notify(notice: dict[str, Any], using: str) -> None:
    """Publish a notice after the commit: a worker that read the database earlier would not see the change."""

    def publish() -> None:
        _publish(json.dumps(notice))

    try:
        transaction.on_commit(publish, using=using, robust=True)
    except transaction.TransactionManagementError:  # autocommit is off: the site's own commits are not known
        publish()


def _publish(notice: str) -> None:
    try:
        pool.client().publish(keys.control_channel(), notice)
    except (RedisError, OSError) as exc:
        logger.warning("Could not notify workers, which check all sockets when they reconnect to Redis: %s", exc)


__all__ = ["recheck", "user_offline", "user_online"]
