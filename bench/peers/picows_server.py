"""``picows``, WebSockets for asyncio in Cython, on uvloop. Started with port, port of Redis and topic.

A socket of a user has their name as its path.
"""

import sys

import redis.asyncio
import uvloop
from picows import WSListener, WSMsgType, WSTransport, ws_create_server

PORT, REDIS_PORT, TOPIC = sys.argv[1:]
transports: set[WSTransport] = set()
users: dict[bytes, WSTransport] = {}


class Listener(WSListener):
    def __init__(self, user):
        self.user = user

    def on_ws_connected(self, transport):
        if self.user:
            users[self.user] = transport
        else:
            transports.add(transport)

    def on_ws_disconnected(self, transport):
        users.pop(self.user, None)
        transports.discard(transport)


async def main():
    async with redis.asyncio.Redis(port=int(REDIS_PORT)).pubsub() as subscription:
        await subscription.subscribe(TOPIC)
        await subscription.psubscribe(f"{TOPIC}:*")
        await ws_create_server(lambda request: Listener(request.path[1:]), "127.0.0.1", int(PORT), backlog=1000)
        async for message in subscription.listen():
            if message["type"] == "message":
                for transport in transports:
                    transport.send(WSMsgType.TEXT, message["data"])
            elif message["type"] == "pmessage":
                users[message["channel"].partition(b":")[2]].send(WSMsgType.TEXT, message["data"])


uvloop.run(main())
