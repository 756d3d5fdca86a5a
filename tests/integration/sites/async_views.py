"""Asynchronous and plain views that use all there is, and views by which a test looks into the worker."""

import asyncio
import gc
import os
import resource

import gevent
import httpx
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections, transaction
from django.http import JsonResponse, StreamingHttpResponse
from django.urls import include, path

from tests.unit.watcher import Watcher
from wsloop.aio.worker import worker_loop
from wsloop.engine import engine

watcher = None
gates, ended = {}, []


def users(request):
    return User.objects.using(request.GET.get("db", "default"))


async def answered(reader, writer, target):
    """Speak HTTP over streams of asyncio."""
    writer.write(f"GET {target} HTTP/1.0\r\n\r\n".encode())
    body = (await reader.read()).partition(b"\r\n\r\n")[2]
    writer.close()
    await writer.wait_closed()
    return int(body)


async def everything(request, number):
    """Return the number as often as there are ways to wait for it."""
    await asyncio.sleep(0.01)
    host, port = settings.OTHER
    found = [number]
    count = await users(request).acount()
    names = [user.username async for user in users(request).order_by("pk")]
    assert len(names) == count
    john = await users(request).aget(username="john")
    assert john.username == (await request.auser()).username == "john"
    # A thread has a connection of its own. From a pool, whose other ones are held by views that wait for a second one
    # as well, it might never get it.
    pooled = request.GET.get("db") == "pooled"
    found.append(await asyncio.to_thread(lambda: (pooled or users(request).filter(username="john").count()) * number))
    found += await asyncio.gather(
        asyncio.sleep(0.01, number),
        sync_to_async(lambda: users(request).filter(username="john").count() * number)(),
        sync_to_async(lambda: gevent.sleep(0.001) or number, thread_sensitive=False)(),
    )
    async with httpx.AsyncClient(trust_env=False, verify=False) as client:
        found.append((await client.get(f"http://{host}:{port}/{number}")).json())
    found.append(await answered(*await asyncio.open_connection(host, port), f"/{number}"))
    return JsonResponse(found, safe=False)


def plain(request, number):
    """A transaction that is rolled back, with a pause in the middle where the database allows it."""
    database = connections[request.GET.get("db", "default")]
    before = users(request).filter(username="john").count()
    try:
        with transaction.atomic(using=database.alias):
            users(request).create(username=f"only here {number}")
            if database.vendor != "sqlite":  # whose other writers would block the whole process meanwhile
                gevent.sleep(0.01)
            inside = users(request).filter(username__startswith="only here").count()
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    gevent.sleep(0.01)
    after = users(request).filter(username__startswith="only here").count()
    return JsonResponse([number * before, number * inside, number * (1 + after)], safe=False)


async def wrong(request):
    """What an asynchronous view gets that calls the ORM without ``await``."""
    try:
        users(request).count()
    except SynchronousOnlyOperation as exc:
        return JsonResponse(str(exc), safe=False)
    return JsonResponse("nothing", safe=False)


async def waits(request):
    await asyncio.sleep(60)


def watch(request):
    """Begin to look for a running loop, or tell what was seen."""
    global watcher
    if watcher is None:
        watcher = Watcher()
        watcher.__enter__()
    return JsonResponse({"looks": watcher.looks, "leaks": watcher.leaks, "longest": watcher.longest})


# Streams.


def stream(request, name):
    """Parts that come when the test opens a gate, and then what ``?then`` says."""
    gate = gates[name] = asyncio.Event()

    async def parts():
        try:
            for number in range(3):
                yield f"{number} {await sync_to_async(users(request).filter(username='john').count)()} "
                if number < 2:
                    await gate.wait()
                    gate.clear()
            if request.GET.get("then") == "fail":
                raise ZeroDivisionError("in the middle of a stream")
            if request.GET.get("then") == "sleep":
                await asyncio.sleep(60)
            while request.GET.get("then") == "flood":
                made[name] = made.get(name, 0) + 1
                yield bytes(100_000)
        finally:
            await asyncio.sleep(0.01)
            ended.append(name)

    response = StreamingHttpResponse(parts(), content_type="text/plain")
    response["X-Accel-Buffering"] = "no"  # nginx passes on what it gets
    return response


made = {}


def go_on(request, name):
    worker_loop().call_soon_threadsafe(gates[name].set)
    return JsonResponse("opened", safe=False)


def streams(request):
    return JsonResponse({"ended": ended, "made": made})


# What a worker holds.


async def held(request):
    """Count what is there, besides this request."""
    gc.collect()
    runtime = engine().consumer_runtime
    return JsonResponse(
        {
            "tasks": len(asyncio.all_tasks()),
            # Not isinstance(), which wakes lazy objects up.
            "greenlets": sum(issubclass(type(each), gevent.Greenlet) and bool(each) for each in gc.get_objects()),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "connections": len(engine().hub.connections),
            "running": len(runtime.running) + len(runtime.full),
            "consumers": len(runtime.local_consumers._consumers) + len(runtime.local_consumers._subscribed),
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,  # KiB
        }
    )


urlpatterns = [
    path("test/everything/<int:number>/", everything),
    path("test/plain/<int:number>/", plain),
    path("test/wrong/", wrong),
    path("test/waits/", waits),
    path("test/watch/", watch),
    path("test/stream/<slug:name>/", stream),
    path("test/go-on/<slug:name>/", go_on),
    path("test/streams/", streams),
    path("test/held/", held),
    path("", include("tests.integration.sites.urls")),
]
