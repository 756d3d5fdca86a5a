"""Pages that show what is published: as HTML, with the tag ``live`` and with htmx, or in an application of scripts.

Their items are in Redis, so that each test has its own: the key ``test:live:<facility>``, a list of texts.
"""

import itertools
import json
import textwrap
from pathlib import Path

from django.http import Http404, HttpResponse, JsonResponse
from django.template import engines
from django.template.loader import get_template
from django.templatetags.static import static
from django.urls import path
from django.views.static import serve

from wsloop.backend import pool
from wsloop.publisher import SELF, RedisPublisher

ROOT = Path(__file__).resolve().parents[3]

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
HTMX = """<!doctype html><html lang="en"><head><title>htmx</title>
<meta name="htmx-config" content='{"includeIndicatorStyles": false, "includeIndicatorCSS": false}'>
{% for script in scripts %}<script src="/test/live/node/{{ script }}"></script>{% endfor %}</head>
<body>{% include guide %}</body></html>"""
SCRIPTS = {
    "2": ["htmx-ext-ws/node_modules/htmx.org/dist/htmx.min.js", "htmx-ext-ws/dist/ws.min.js"],
    "4": ["htmx.org/dist/htmx.min.js", "htmx.org/dist/ext/hx-ws.min.js"],
    "sse-2": ["htmx-ext-sse/node_modules/htmx.org/dist/htmx.min.js", "htmx-ext-sse/dist/sse.min.js"],
    "sse-4": ["htmx.org/dist/htmx.min.js", "htmx.org/dist/ext/hx-sse.min.js"],
}


def read_items(facility):
    return json.loads(pool.client().get(f"test:live:{facility}") or "[]")


def render(request, template, facility, **context):
    context |= {"facility": facility, "items": read_items(facility)}
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


def orders(state="new"):
    """What the pages of the documentation show."""
    return [{"pk": item, "number": item, "state": state} for item in read_items("orders")]


def guide(request):
    """The page of docs/how-to/htmx.rst; the test puts the templates of that where this site finds them."""
    return HttpResponse(get_template("guide.html").render({"orders": orders()}, request))


def order_list(request):
    row = get_template("orders/_row.html")
    return HttpResponse("".join(row.render({"order": order}) for order in orders("listed")))


def htmx(request, version):
    if version not in SCRIPTS:
        raise Http404
    context = {"scripts": SCRIPTS[version], "guide": f"guide-{version}.html", "orders": orders()}
    return HttpResponse(engines["django"].from_string(HTMX).render(context, request))


def script(request, name):
    """A script of docs/how-to/single-page.rst, with the address of the client here."""
    text = (ROOT / "docs/how-to/single-page.rst").read_text().partition(f":name: {name}\n\n")[2]
    code = "\n".join(itertools.takewhile(lambda line: not line.strip() or line.startswith("   "), text.splitlines()))
    code = textwrap.dedent(code).replace('from "wsloop"', f'from "{static("wsloop/wsloop.js")}"')
    return HttpResponse(code, content_type="text/javascript")


def api(request):
    """The orders of the single-page application. One of them is paid just after they were read."""
    found = [{"id": item, "state": "new"} for item in read_items("orders")]
    if found:
        order = found[0] | {"state": "paid"}
        RedisPublisher(facility="orders", users=[SELF], request=request).publish_message(order)
    return JsonResponse(found, safe=False)


urlpatterns = [
    path("items/<slug:facility>/", items),
    path("guide/", guide),
    path("order_list/", order_list, name="order_list"),
    path("htmx/<str:version>/", htmx),
    path("script/<slug:name>.js", script),
    path("node/<path:path>", serve, {"document_root": ROOT / "node_modules"}),
    path("<slug:facility>/", live),
]
