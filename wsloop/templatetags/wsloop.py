"""``{% live %}``, a part of a page that shows what is published, and ``{% websocket_token %}``.

The token is that with which a page's socket misses no message since the page was rendered.
"""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote

from django import template
from django.core.exceptions import ImproperlyConfigured
from django.template.base import FilterExpression, NodeList, Parser, Token, token_kwargs
from django.utils.html import format_html
from django.utils.safestring import mark_safe
from redis.exceptions import RedisError

from wsloop import addressees, conf
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
    return _token(_request(context, "websocket_token"), facility, _known("websocket_token", audiences))


def _request(context: Any, tag: str) -> Any:
    if "request" not in context:
        raise ImproperlyConfigured(f"{tag} needs the context processor django.template.context_processors.request")
    return context["request"]


def _known(tag: str, audiences: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [each for each in audiences if each not in AUDIENCES]
    if unknown or not audiences:
        raise ImproperlyConfigured(f"{tag} takes a facility and some of {list(AUDIENCES)}, not {unknown}")
    return audiences


def _token(request: Any, facility: str, audiences: tuple[str, ...]) -> str:
    addressed = {key: value for each in audiences for key, value in AUDIENCES[each].items()}
    publisher = RedisPublisher(facility=facility, request=request, **addressed)
    try:
        return publisher.token()
    except RedisError as exc:
        logger.warning("Rendered a page without the token of its WebSocket: %s", exc)
        return ""


@register.tag("live")
def live(parser: Parser, token: Token) -> LiveNode:
    """Put a part of a page together with the socket that keeps it up to date.

    ::

        {% live "orders" "user" %}
          <ul id="orders">{% for order in orders %}{% include "orders/_row.html" %}{% endfor %}</ul>
        {% endlive %}

    The part becomes the content of an element ``wsloop-live``, in which the script ``wsloop/live.js`` swaps what
    :func:`wsloop.live.publish_template` publishes. The token is made before the content is rendered, so that nothing is
    missed in between; a view that has read the database already passes ``token=`` (see :func:`websocket_token`).

    Arguments, in quotes or from variables: the facility; the audiences; ``id=``, the id of the element, where a page
    has several parts of the same facility and audiences; ``token=``. Of a visitor who has not signed in, or has no
    session, only the other audiences are subscribed to; without any the part is not live.

    Raises:
        ImproperlyConfigured: when it is rendered, if there is no such audience, no request in the context, or
            ``CLIENTS_MAY_PUBLISH`` and no policy: every visitor could publish HTML into the pages of others.
    """
    name, *words = token.split_contents()
    positional: list[FilterExpression] = []
    options: dict[str, FilterExpression] = {}
    for word in words:
        found = token_kwargs([word], parser)
        options |= found
        if not found:
            positional.append(parser.compile_filter(word))
    if not positional or not options.keys() <= {"id", "token"}:
        raise template.TemplateSyntaxError(
            f'{{% {name} %}} takes a facility, audiences, and perhaps id= and token=, such as "orders" "user"'
        )
    content = parser.parse(("endlive",))
    parser.delete_first_token()
    return LiveNode(positional, options, content)


class LiveNode(template.Node):
    """The tag in a template, see :func:`live`.

    Args:
        positional: facility and audiences.
        options: ``id`` and ``token``, if given.
        nodelist: the content.
    """

    def __init__(
        self, positional: list[FilterExpression], options: dict[str, FilterExpression], nodelist: NodeList
    ) -> None:
        self.positional = positional
        self.options = options
        self.nodelist = nodelist

    def render(self, context: template.Context) -> str:
        given, *audiences = (each.resolve(context) for each in self.positional)
        facility = addressees.facility_name(given)
        request = _request(context, "live")
        if conf.option("POLICY") is None and conf.option("CLIENTS_MAY_PUBLISH"):
            raise ImproperlyConfigured(
                "live shows HTML that arrives over a socket, and with CLIENTS_MAY_PUBLISH and without "
                "a POLICY every visitor may publish there: set WSLOOP['POLICY'], see docs/how-to/policy.rst"
            )
        mine = tuple(each for each in _known("live", tuple(audiences)) if _has(request, each))
        options = {name: value.resolve(context) for name, value in self.options.items()}
        id_ = options.get("id") or "-".join(["live", quote(facility, safe=""), *audiences])
        url = f"{conf.websocket_url()}{quote(facility)}?{'&'.join(f'subscribe-{each}' for each in mine)}"
        # Before the content: what is published from here on arrives over the socket.
        positions = options["token"] if "token" in options else _token(request, facility, mine) if mine else ""
        content = mark_safe(self.nodelist.render(context))
        attributes = format_html(' data-url="{}" data-token="{}"', url, positions) if mine else ""
        return format_html('<wsloop-live id="{}"{}>{}</wsloop-live>', id_, attributes, content)


def _has(request: Any, audience: str) -> bool:
    """Return whether a request can have this audience; the groups of a user may come later."""
    if audience == "session":
        return bool(addressees.own_session(request))
    return audience == "broadcast" or bool(addressees.own_user(request))
