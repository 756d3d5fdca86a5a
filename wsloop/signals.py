"""Tells all workers of the site about users and sessions that have changed, from wherever they were changed.

Views, the admin, shells, management commands and task queues save users, change their groups and sign them out.
Django's signals tell of it here, and once the change is committed a notice is published, on which
:mod:`wsloop.visitors.session_watch` looks at the sockets concerned. A notice says who has changed, not what: the
database is asked for that, so one too many does no harm. One that is lost, because Redis is down, is made up for when
the workers reach Redis again.

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

# Sent by wsloop.presence, once over all workers, with the name of the user as ``user``: the first socket of a user on
# facilities with the option ``presence`` has opened, the last one has been closed for some seconds.
user_online = Signal()
user_offline = Signal()

MOST = 1000  # users in one notice

# What a save of these fields alone does not change: who may listen. Django writes them at each login.
IRRELEVANT = {"last_login"}


def recheck(*users: Any) -> None:
    """Have all workers look whether the open sockets of these users may stay as they are.

    For changes of which Django sends no signal: ``QuerySet.update()``, ``bulk_update()``, SQL. Inside of a transaction
    it takes effect with the commit.

    Args:
        users: user objects, or their primary keys.

    Raises:
        TypeError: if one of them is neither.
        ValueError: if one of them is not saved, or nobody.
    """
    model = get_user_model()
    _tell_users([_primary_key(user) for user in users], router.db_for_write(model))


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
    """Listen to Django's signals. Called once all models are there."""
    model = get_user_model()
    # By sender: listening to all deletions would make each of them slower. Proxies send signals of their own.
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
        post_delete.connect(_tell_noted, sender=field.related_model, dispatch_uid="wsloop")


# Users.


def _user_saved(
    instance: Any, created: bool, using: str, update_fields: frozenset[str] | None = None, **kwargs: Any
) -> None:
    if not (created or (update_fields and IRRELEVANT.issuperset(update_fields))):
        _tell_users([instance.pk], using)


def _user_deleted(instance: Any, using: str, **kwargs: Any) -> None:
    _tell_users([instance.pk], using)


# Groups.


def _groups_changed(
    instance: Any, action: str, reverse: bool, pk_set: set[Any] | None, using: str, **kwargs: Any
) -> None:
    """``user.groups.add(…)`` and its like, or in reverse ``group.user_set.add(…)``."""
    if action in ("post_add", "post_remove") and pk_set:
        _tell_users(pk_set if reverse else [instance.pk], using)
    elif action == "post_clear" and not reverse:
        _tell_users([instance.pk], using)
    elif action == "pre_clear" and reverse:
        _note_members(instance, using)
    elif action == "post_clear":
        _tell_noted(instance, using)


def _group_saved(instance: Any, using: str, **kwargs: Any) -> None:
    """It may have another name, and with it other channels."""
    _note_members(instance, using)
    _tell_noted(instance, using)


def _note_members(instance: Any, using: str, **kwargs: Any) -> None:
    """Afterwards nobody knows who they were."""
    members = get_user_model()._default_manager.using(using).filter(groups=instance.pk)
    instance._wsloop_members = list(members.values_list("pk", flat=True))


def _tell_noted(instance: Any, using: str, **kwargs: Any) -> None:
    _tell_users(instance.__dict__.pop("_wsloop_members", ()), using)


# Sessions.


def _logged_out(request: Any, **kwargs: Any) -> None:
    """Django sends this signal just before it ends the session; workers look twice for that reason."""
    _session_ended(getattr(getattr(request, "session", None), "session_key", None))


def _logged_in(request: Any, **kwargs: Any) -> None:
    """Somebody else may have been signed in in this browser before: that session has ended without a signal."""
    before = getattr(request, "COOKIES", {}).get(settings.SESSION_COOKIE_NAME)
    session = getattr(request, "session", None)
    if before and session is not None and before != session.session_key:
        _session_ended(before)


def _session_ended(key: str | None) -> None:
    if key:
        # Its key is a secret, and in Redis already: in the names of channels.
        _tell({"session": key}, router.db_for_write(get_user_model()))


# Notices.


def _tell_users(pks: Iterable[Any], using: str) -> None:
    texts = [str(pk) for pk in pks]
    for start in range(0, len(texts), MOST):
        _tell({"users": texts[start : start + MOST]}, using)


def _tell(notice: dict[str, Any], using: str) -> None:
    """Publish once the change is committed: a worker that asked the database before would see what was before."""

    def publish() -> None:
        _publish(json.dumps(notice))

    try:
        transaction.on_commit(publish, using=using, robust=True)
    except transaction.TransactionManagementError:  # autocommit is off, and the site commits as it likes
        publish()


def _publish(notice: str) -> None:
    try:
        pool.client().publish(keys.control_channel(), notice)
    except (RedisError, OSError) as exc:
        logger.warning("a change takes no effect on open sockets before workers connect to Redis anew: %s", exc)


__all__ = ["recheck", "user_offline", "user_online"]
