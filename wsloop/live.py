"""``publish_template``: HTML over the wire, rendered once for everybody who gets it.

Open pages swap it in by the ids of its elements, with the template tag ``live`` or with htmx: see
``docs/how-to/htmx.rst``. This module must not know gevent or sockets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.template.loader import render_to_string

from wsloop.publisher import RedisPublisher


def publish_template(
    template: str | Sequence[str],
    context: Mapping[str, Any] | None = None,
    *,
    facility: str,
    broadcast: bool = False,
    users: Any = (),
    groups: Any = (),
    sessions: Any = (),
    request: Any = None,
    expire: int = 0,
    on_commit: bool | str = True,
    key: str = "",
    outbox: bool | str = False,
) -> int | None:
    """Render a template once, and publish the HTML.

    ::

        publish_template("orders/_row.html", {"order": order}, facility="orders", users=[order.customer])

    The template is rendered at once, in the active language and time zone, and without a request: no context processor
    runs, so that ``request``, ``user``, ``messages`` and ``csrf_token`` are empty. Everybody whom the message is
    addressed to gets the same HTML, so give the context nothing that belongs to one of them, the request least of all.

    Args:
        template: name of the template, or names, of which the first that exists is rendered.
        context: for the template, which escapes it as in any page.
        facility, broadcast, users, groups, sessions: see :class:`~wsloop.publisher.RedisPublisher`.
        request: the one that SELF in an audience refers to; the template does not get it.
        expire: seconds for which the HTML is also retained as the last message. A page that opens later shows it
            already, so that by default it is not retained.
        on_commit: publish after the commit of the open transaction, and not at all if it is rolled back. Unlike that of
            ``publish_message`` it is True by default: a page that is rendered between the message and the commit would
            show neither the old message nor the new data.
        key, outbox: see :meth:`~wsloop.publisher.RedisPublisher.publish_message`.

    Returns:
        as ``publish_message`` does.

    Raises:
        django.template.TemplateDoesNotExist: if there is no such template.
        TypeError, ValueError, ImproperlyConfigured, redis.exceptions.RedisError: as ``publish_message`` does.
    """
    html = render_to_string(template, dict(context or {}))
    publisher = RedisPublisher(
        facility=facility, broadcast=broadcast, users=users, groups=groups, sessions=sessions, request=request
    )
    return publisher.publish_message(html, expire=expire, on_commit=on_commit, key=key, outbox=outbox)


__all__ = ["publish_template"]
