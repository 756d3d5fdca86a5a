"""``{% websocket_token %}``: the token with which a page's socket misses no message since the page was rendered."""

from __future__ import annotations

import logging
from typing import Any

from django import template
from django.core.exceptions import ImproperlyConfigured
from redis.exceptions import RedisError

from wsloop.publisher import SELF, RedisPublisher

logger = logging.getLogger("wsloop.templatetags")

register = template.Library()

AUDIENCES: dict[str, dict[str, Any]] = {
    "broadcast": {"broadcast": True},
    "user": {"users": [SELF]},
    "group": {"groups": [SELF]},
    "session": {"sessions": [SELF]},
}


@register.simple_tag(takes_context=True)
def websocket_token(context: dict[str, Any], facility: str, *audiences: str) -> str:
    """Return the token with which a socket of this page receives all messages from now on; see ``resume`` in the URL.

    Needs the context processor ``django.template.context_processors.request``. A message published after the view has
    read the database, and before the tag is rendered, may be missing from both: such a view makes the token first
    (``RedisPublisher.token``), and reads afterwards.

    Args:
        facility: of the socket.
        audiences: to which the socket subscribes: "broadcast", "user", "group", "session".

    Returns:
        empty if the facility has no recovery, or Redis does not answer: the page is rendered all the same.

    Raises:
        ImproperlyConfigured: if there is no such audience, or no request in the context.
    """
    if "request" not in context:
        raise ImproperlyConfigured(
            "websocket_token needs the context processor django.template.context_processors.request"
        )
    unknown = [each for each in audiences if each not in AUDIENCES]
    if unknown or not audiences:
        raise ImproperlyConfigured(f"websocket_token takes a facility and some of {list(AUDIENCES)}, not {unknown}")
    addressed = {key: value for each in audiences for key, value in AUDIENCES[each].items()}
    publisher = RedisPublisher(facility=facility, request=context["request"], **addressed)
    try:
        return publisher.token()
    except RedisError as exc:
        logger.warning("Rendered a page without the token of its WebSocket: %s", exc)
        return ""
