"""A site of coroutines: views, a streaming response, a consumer, and an ASGI application for all other sockets."""

from gevent import monkey

monkey.patch_all()

import asyncio  # noqa: E402

from asgiref.sync import sync_to_async  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import JsonResponse, StreamingHttpResponse  # noqa: E402
from django.urls import include, path  # noqa: E402

django_application = get_wsgi_application()

from django.contrib.auth.models import User  # noqa: E402

from wsloop.consumers import AsyncWebsocketConsumer  # noqa: E402
from wsloop.server import WebsocketServer  # noqa: E402


def meddle(loop):
    """What only the loop's own greenlet may do; return what asyncio says."""
    try:
        loop.call_soon(print)
    except RuntimeError as exc:
        return str(exc)


async def work():
    """What coroutines do in sites: wait, ask the database, hand code to threads. Return what came of it."""
    loop = asyncio.get_running_loop()
    await asyncio.gather(asyncio.sleep(0.01), asyncio.sleep(0.02))
    return {
        "debug": loop.get_debug(),
        "users": await User.objects.acount(),
        "first": (await User.objects.order_by("username").afirst()).username,
        "names": [user.username async for user in User.objects.order_by("username")],
        "thread": await asyncio.to_thread(User.objects.count),
        "meddled": await asyncio.to_thread(meddle, loop),
        "executor": await loop.run_in_executor(None, User.objects.count),
        "sync": await sync_to_async(User.objects.count)(),
        "beside": await sync_to_async(User.objects.count, thread_sensitive=False)(),
    }


async def page(request):
    return JsonResponse(await work())


async def stream(request):
    async def parts():
        for _ in range(3):
            yield f"{(await work())['users']} "

    return StreamingHttpResponse(parts())


class Works(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send(str((await work())["users"]))


async def application_of_sockets(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": str((await work())["users"])})


urlpatterns = [
    path("test/coroutines/", page),
    path("test/stream/", stream),
    path("", include("tests.integration.sites.urls")),
]
websocket_application = WebsocketServer(
    urlpatterns=[path("ws/works/", Works.as_websocket())], asgi=application_of_sockets
)


def application(environ, start_response):
    if environ["PATH_INFO"].startswith("/ws/"):
        return websocket_application(environ, start_response)
    return django_application(environ, start_response)
