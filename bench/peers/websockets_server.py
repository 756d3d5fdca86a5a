"""``websockets``: its asyncio server and its broadcast(). Started with port, port of Redis, topic and event loop.

A socket of a user has their name as its path.
"""

import asyncio
import sys

import redis.asyncio
from websockets.asyncio.server import ServerConnection, broadcast, serve

PORT, REDIS_PORT, TOPIC, LOOP = sys.argv[1:]
listeners: set[ServerConnection] = set()
users: dict[str, set[ServerConnection]] = {}


async def handler(websocket):
    user = websocket.request.path[1:]
    if user:
        users[user] = {websocket}
    else:
        listeners.add(websocket)
    await websocket.wait_closed()
    users.pop(user, None)
    listeners.discard(websocket)


async def main():
    async with redis.asyncio.Redis(port=int(REDIS_PORT)).pubsub() as subscription:
        await subscription.subscribe(TOPIC)
        await subscription.psubscribe(f"{TOPIC}:*")
        # Its pings would come between the bytes that are compared.
        async with serve(handler, "127.0.0.1", int(PORT), compression=None, ping_interval=None, backlog=1000):
            async for message in subscription.listen():
                if message["type"] == "message":
                    broadcast(listeners, message["data"].decode())
                elif message["type"] == "pmessage":
                    broadcast(users[message["channel"].decode().partition(":")[2]], message["data"].decode())


if LOOP == "uvloop":
    import uvloop

    uvloop.run(main())
else:
    asyncio.run(main())
