"""What consumers and the channel layer raise, or are told by raising. Names are those of Django Channels."""

from greenlet import GreenletExit


class AcceptConnection(Exception):
    """Raised in ``connect()``: accept the socket."""


class DenyConnection(Exception):
    """Raised in ``connect()``: reject the socket."""


class StopConsumer(Exception):
    """Raised in a handler: the consumer has done its work."""


class Disconnected(GreenletExit):
    """The socket has ended, so the handler that is running has nobody to work for.

    No ``Exception``, so that a loop with ``except Exception:`` in it ends, too.
    """


class MessageTooLarge(Exception):
    """A message is larger than the channel layer carries."""


class ChannelFull(Exception):
    """The consumer that a message is for has no room for it at the moment."""


__all__ = ["AcceptConnection", "ChannelFull", "DenyConnection", "Disconnected", "MessageTooLarge", "StopConsumer"]
