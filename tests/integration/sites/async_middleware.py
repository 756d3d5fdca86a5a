"""Middleware of all kinds; each adds to a header what it has seen."""

import asyncio
from inspect import iscoroutinefunction

from django.contrib.auth.models import User
from django.utils.decorators import async_only_middleware, sync_and_async_middleware


def passed(response, name):
    response["X-Passed"] = f"{response.get('X-Passed', '')} {name}".strip()
    return response


class Outer:
    """Around those of Django, so that the site is one of a WSGI server: its first middleware is plain."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        return passed(self.get_response(request), "outer")


@async_only_middleware
def asynchronous(get_response):
    async def middleware(request):
        await asyncio.sleep(0.001)
        user = await request.auser()
        return passed(await get_response(request), f"async-{user.username or 'nobody'}")

    return middleware


class Plain:
    """Uses the ORM, as plain code may."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        count = User.objects.filter(username="john").count()
        return passed(self.get_response(request), f"plain-{count}")


@sync_and_async_middleware
def both(get_response):
    if iscoroutinefunction(get_response):

        async def middleware(request):
            return passed(await get_response(request), "both-async")

    else:

        def middleware(request):
            return passed(get_response(request), "both-sync")

    return middleware
