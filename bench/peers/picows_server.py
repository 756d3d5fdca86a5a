"""``picows``, WebSockets for asyncio in Cython, on uvloop. Started with port, port of Redis and channel."""

import sys

import redis.asyncio
import uvloop
from picows import WSListener, WSMsgType, WSTransport, ws_create_server

PORT, REDIS_PORT, CHANNEL = sys.argv[1:]
transports: set[WSTransport] = set()


class Listener(WSListener):
    def on_ws_connected(self, transport):
        transports.add(transport)

    def on_ws_disconnected(self, transport):
        transports.discard(transport)


async def main():
    async with redis.asyncio.Redis(port=int(REDIS_PORT)).pubsub() as subscription:
        await subscription.subscribe(CHANNEL)
        await ws_create_server(lambda request: Listener(), "127.0.0.1", int(PORT))
        async for message in subscription.listen():
            if message["type"] == "message":
                for transport in transports:
                    transport.send(WSMsgType.TEXT, message["data"])


uvloop.run(main())
