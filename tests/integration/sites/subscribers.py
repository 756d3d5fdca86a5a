"""Subclasses of ws4redis's subscriber, written the way its documentation and its users write them."""

from ws4redis.redis_store import RedisMessage
from ws4redis.subscriber import RedisSubscriber


class ExtraChannels(RedisSubscriber):
    """Every socket also listens to the announcements of the whole site."""

    def set_pubsub_channels(self, request, channels):
        super().set_pubsub_channels(request, channels)
        self._subscription.subscribe(f"{self.get_prefix()}broadcast:announcements")


class LastThree(RedisSubscriber):
    """Keep the last three messages of a facility in a list; a new socket is sent all of them, oldest first."""

    def set_pubsub_channels(self, request, channels):
        super().set_pubsub_channels(request, channels)
        self.list_key = f"{self.get_prefix()}last-three:{request.path_info}"

    def publish_message(self, message, expire=None):
        super().publish_message(message, expire)
        self._connection.lpush(self.list_key, message)
        self._connection.ltrim(self.list_key, 0, 2)

    def send_persisted_messages(self, websocket):
        for message in reversed(self._connection.lrange(self.list_key, 0, 2)):
            websocket.send(RedisMessage(message))
