"""Views that let a test act inside the server: publish as a view of the site would, and show what there is."""

import asyncio
import base64
import json
import sys

import gevent
from django.contrib.auth import get_user_model
from django.db import transaction
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.template import engines
from django.views.decorators.csrf import csrf_exempt
from prometheus_client import generate_latest


def metrics(request):
    """The counters of the worker that answers, as Prometheus reads them."""
    return HttpResponse(generate_latest(), content_type="text/plain")


@csrf_exempt
def session(request):
    """Write the posted JSON object into the session."""
    request.session.update(json.loads(request.body))
    return HttpResponse("stored\n")


async def parts(request):
    """JSON, in parts that come one after the other."""

    async def iterate():
        for part in ("[1", ", 2", "]"):
            await asyncio.sleep(0.01)
            yield part

    return StreamingHttpResponse(iterate(), content_type="application/json")


def leave(request):
    sys.exit(3)


class _RolledBack(Exception):
    pass


@csrf_exempt
def publish(request):
    """Publish what the posted JSON object says.

    ``publisher``: ``wsloop`` or ``stock``; ``facility``; ``audience``: keyword arguments of the publisher, where
    ``"SELF"``, ``"VISITOR"`` and ``{"account": name}`` stand for the marker, ``request.user`` and a user object;
    ``messages``: what to publish, where ``{"base64": …}`` stands for bytes; ``expire``; ``key``; ``how``: ``plain``,
    ``context``, ``pipeline``, ``on_commit``, ``rolled-back``, ``outbox``, or ``thread``, one of the operating system.
    """
    order = json.loads(request.body)
    if order.get("publisher", "wsloop") == "stock":
        from ws4redis.publisher import RedisPublisher
        from ws4redis.redis_store import SELF, RedisMessage
    else:
        from wsloop.publisher import SELF, RedisMessage, RedisPublisher

    def argument(value):
        if value == "SELF":
            return SELF
        if value == "VISITOR":
            return request.user
        if isinstance(value, dict):
            return get_user_model().objects.get(username=value["account"])
        return [argument(item) for item in value] if isinstance(value, list) else value

    def message(value):
        if isinstance(value, dict) and "base64" in value:
            value = base64.b64decode(value["base64"])
        return RedisMessage(value) if order.get("publisher") == "stock" else value

    audience = {name: argument(value) for name, value in order["audience"].items()}
    options = {name: order[name] for name in ("expire", "key") if name in order}
    how = order.get("how", "plain")
    messages = [message(value) for value in order["messages"]]
    make = {"request": request, "facility": order["facility"], **audience}
    if how == "context":
        with RedisPublisher(**make) as publisher:
            for item in messages:
                publisher.publish_message(item, **options)
    elif how == "pipeline":
        publisher = RedisPublisher(**make)
        for item in messages:
            publisher.pipeline_publish_message(item, **options)
    elif how in ("on_commit", "rolled-back"):
        try:
            with transaction.atomic():
                publisher = RedisPublisher(**make)
                for item in messages:
                    publisher.publish_message(item, on_commit=True, **options)
                if how == "rolled-back":
                    raise _RolledBack
        except _RolledBack:
            pass
    elif how == "outbox":
        with transaction.atomic():
            publisher = RedisPublisher(**make)
            for item in messages:
                publisher.publish_message(item, outbox=True, **options)
    else:

        def work():
            publisher = RedisPublisher(**make)
            for item in messages:
                publisher.publish_message(item, **options)

        if how == "thread":
            gevent.get_hub().threadpool.apply(work)
        else:
            work()
    return JsonResponse({"published": len(messages)})


def fetch(request):
    """What ``fetch_message`` finds for whoever asks."""
    from wsloop.publisher import RedisPublisher

    found = RedisPublisher(request=request, facility=request.GET["facility"], broadcast=True).fetch_message(
        request, request.GET["facility"], request.GET.get("audience", "any")
    )
    return JsonResponse({"message": None if found is None else found.decode() if isinstance(found, bytes) else found})


def page(request):
    """The token that a page of this visitor would bring its socket."""
    text = '{% load wsloop %}{% websocket_token request.GET.facility "broadcast" "user" %}'
    return HttpResponse(engines["django"].from_string(text).render(request=request))


def history(request):
    """What is kept of what this visitor, or everybody, was sent."""
    from wsloop.publisher import SELF, RedisPublisher

    publisher = RedisPublisher(request=request, facility=request.GET["facility"], broadcast=True, users=[SELF])
    entries = publisher.history(int(request.GET.get("limit", 100)))
    return JsonResponse([{"data": e.message.payload.decode(), "time": e.time} for e in entries], safe=False)


def who(request):
    """Who is on a facility."""
    from wsloop.presence import who

    return JsonResponse(who(request.GET["facility"])._asdict())
