"""Messages that come in several frames. This module must not know connections."""

from __future__ import annotations

import codecs
from typing import Any

Data = bytes | bytearray | memoryview  # as the parser types it; in fact bytes


class TooBig(Exception):
    """A message is larger than the bound."""


class Fragments:
    """The frames of one message so far (RFC 6455, section 5.4); of text, checked to be UTF-8 (section 8.1).

    Args:
        text: whether it is a text message.
    """

    __slots__ = ("_decoder", "_payload")

    def __init__(self, text: bool) -> None:
        self._payload = bytearray()
        self._decoder: Any = codecs.getincrementaldecoder("utf-8")() if text else None

    @property
    def text(self) -> bool:
        """Whether it is a text message."""
        return self._decoder is not None

    def add(self, data: Data, final: bool, most: int) -> bytes | None:
        """Add the payload of a frame, and return that of the message if the frame is the ``final`` one.

        Raises:
            TooBig: if the message has more than ``most`` bytes.
            UnicodeDecodeError: if text cannot be UTF-8, whatever follows.
        """
        self._payload += data
        if len(self._payload) > most:
            raise TooBig
        if self._decoder is not None:
            self._decoder.decode(data, final=final)
        return bytes(self._payload) if final else None


def whole(data: Data, text: bool, most: int) -> bytes:
    """Return the payload of a message of one frame; raises what :meth:`Fragments.add` raises."""
    if len(data) > most:
        raise TooBig
    payload = bytes(data)
    if text:
        payload.decode()
    return payload


__all__ = ["Fragments", "TooBig", "whole"]
