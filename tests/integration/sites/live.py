"""Pages that show what is published as HTML: with the tag ``live``, and with htmx. The items are in Redis.

Not in a database, so that each test has items of its own: the key ``test:live:<facility>``, a list of texts.
"""

import json
from pathlib import Path

from django.http import Http404, HttpResponse
from django.template import engines
from django.urls import path
from django.views.static import serve

from wsloop.backend import pool
from wsloop.publisher import RedisPublisher

NODE_MODULES = Path(__file__).resolve().parents[3] / "node_modules"

LIST = """<ul id="list" data-count="{{ items|length }}">{% for item in items %}
<li id="item-{{ item }}"><b>{{ item }}</b></li>{% endfor %}
</ul>"""
LIVE = (
    """{% load static wsloop %}<!doctype html><html lang="en"><head><title>Live</title>
<script type="module" src="{% static 'wsloop/live.js' %}"></script></head><body>
{% if not gone %}{% live facility "broadcast" %}{{ during }}"""
    + LIST
    + """<label>Note <input id="note" name="note" value="{{ items.0 }}"></label><p id="aside"></p>{% endlive %}
{% live other "broadcast" "session" id="second" %}<p id="elsewhere">nothing</p>{% endlive %}{% endif %}
<table><tbody id="rows"><tr id="row-1"><td>one</td></tr></tbody></table></body></html>"""
)
HTMX = (
    """<!doctype html><html lang="en"><head><title>htmx</title>
<meta name="htmx-config" content='{"includeIndicatorStyles": false, "includeIndicatorCSS": false}'>
{% for script in scripts %}<script src="/test/live/node/{{ script }}"></script>{% endfor %}</head>
<body><div hx-ext="ws" {{ attribute }}="/ws/{{ facility }}?subscribe-broadcast" hx-swap="none">
<i hx-get="/test/live/items/{{ facility }}/" hx-trigger="{{ opened }} from:body" hx-target="#list" hx-swap="outerHTML">
</i>"""
    + LIST
    + "</div></body></html>"
)
VERSIONS = {
    "2": {
        "scripts": ["htmx-ext-ws/node_modules/htmx.org/dist/htmx.min.js", "htmx-ext-ws/dist/ws.min.js"],
        "attribute": "ws-connect",
        "opened": "htmx:wsOpen",
    },
    "4": {
        "scripts": ["htmx.org/dist/htmx.min.js", "htmx.org/dist/ext/hx-ws.min.js"],
        "attribute": "hx-ws:connect",
        "opened": "htmx:ws:after:connection",
    },
}


def render(request, template, facility, **context):
    items = json.loads(pool.client().get(f"test:live:{facility}") or "[]")
    context |= {"facility": facility, "items": items}
    return HttpResponse(engines["django"].from_string(template).render(context, request))


def live(request, facility):
    """The page with two live parts. ``?during=`` is published while the page is rendered."""

    def during():
        if text := request.GET.get("during"):
            RedisPublisher(facility=facility, broadcast=True).publish_message(text)
        return ""

    if status := pool.client().get(f"test:live:{facility}:status"):
        return HttpResponse("not now", status=int(status))
    gone = pool.client().exists(f"test:live:{facility}:gone")
    return render(request, LIVE, facility, during=during, other=f"{facility}-no", gone=gone)


def items(request, facility):
    return render(request, LIST, facility)


def htmx(request, version, facility):
    if version not in VERSIONS:
        raise Http404
    return render(request, HTMX, facility, **VERSIONS[version])


urlpatterns = [
    path("items/<slug:facility>/", items),
    path("htmx/<str:version>/<slug:facility>/", htmx),
    path("node/<path:path>", serve, {"document_root": NODE_MODULES}),
    path("<slug:facility>/", live),
]
