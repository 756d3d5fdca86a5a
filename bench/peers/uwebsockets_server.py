"""uWebSockets, in C++, through ``socketify``. Started with port, port of Redis and topic.

Its event loop spins while it has something to do, and for some time after that.
"""

import sys

import redis.asyncio
from socketify import App, OpCode

PORT, REDIS_PORT, TOPIC = sys.argv[1:]


def upgrade(response, request, context):
    user = request.get_url()[1:]
    key, protocol, extensions = map(
        request.get_header, ("sec-websocket-key", "sec-websocket-protocol", "sec-websocket-extensions")
    )
    response.upgrade(key, protocol, extensions, context, user)


def opened(websocket):
    user = websocket.get_user_data()
    websocket.subscribe(f"{TOPIC}:{user}" if user else TOPIC)


async def subscribe():
    subscription = redis.asyncio.Redis(port=int(REDIS_PORT)).pubsub()
    await subscription.subscribe(TOPIC)
    await subscription.psubscribe(f"{TOPIC}:*")
    return subscription


async def forward(subscription):
    async for message in subscription.listen():
        if message["type"] in ("message", "pmessage"):
            app.loop.is_idle = False  # or its loop sleeps for up to 10 ms before it sends
            app.publish(message["channel"].decode(), message["data"].decode(), OpCode.TEXT)


app = App()
app.ws("/*", {"upgrade": upgrade, "open": opened, "idle_timeout": 0})
subscribed = app.loop.loop.run_until_complete(subscribe())
app.listen(int(PORT), lambda config: app.loop.create_task(forward(subscribed)))
app.run()
