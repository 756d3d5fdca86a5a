"""Exceptions of consumers and of the channel layer. Names are those of Django Channels."""

from greenlet import GreenletExit


class AcceptConnection(Exception):
    """Raised in ``connect()``: accept the socket."""


class DenyConnection(Exception):
    """Raised in ``connect()``: reject the socket."""


class StopConsumer(Exception):
    """Raised in a handler: the consumer has finished its work."""


class Disconnected(GreenletExit):
    """Raised in a running handler by the engine: the socket has ended.

    Not an ``Exception``, so that a loop with ``except Exception:`` in it ends, too.
    """


class MessageTooLarge(Exception):
    """A message exceeds the maximum size of the channel layer."""


class InvalidChannelLayerError(ValueError):
    """There is no channel layer with this alias, or its entry in ``CHANNEL_LAYERS`` cannot be used."""


class ChannelFull(Exception):
    """The inbox of the addressed consumer is full at the moment."""


__all__ = [
    "AcceptConnection",
    "ChannelFull",
    "DenyConnection",
    "Disconnected",
    "InvalidChannelLayerError",
    "MessageTooLarge",
    "StopConsumer",
]
