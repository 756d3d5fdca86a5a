"""``websockets``: its asyncio server and its broadcast(). Started with port, port of Redis, channel and event loop."""

import asyncio
import sys

import redis.asyncio
from websockets.asyncio.server import broadcast, serve

PORT, REDIS_PORT, CHANNEL, LOOP = sys.argv[1:]


async def main():
    async with redis.asyncio.Redis(port=int(REDIS_PORT)).pubsub() as subscription:
        await subscription.subscribe(CHANNEL)
        # Its pings would come between the bytes that are compared.
        handler, port = lambda websocket: websocket.wait_closed(), int(PORT)
        async with serve(handler, "127.0.0.1", port, compression=None, ping_interval=None) as server:
            async for message in subscription.listen():
                if message["type"] == "message":
                    broadcast(server.connections, message["data"].decode())


if LOOP == "uvloop":
    import uvloop

    uvloop.run(main())
else:
    asyncio.run(main())
