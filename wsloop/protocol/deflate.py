"""permessage-deflate (RFC 7692) without context takeover: no state is kept between messages, in either direction.

So an idle connection has neither compressor nor decompressor, and a message is compressed once for all connections with
the same window. The ``websockets`` library negotiates and compresses; this module adds the checks that it lacks.
This module must not know connections.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence
from typing import Any

from websockets.exceptions import NegotiationError, ProtocolError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import CTRL_OPCODES, Frame
from websockets.typing import ExtensionParameter

LEVEL = 1  # of zlib: 64 KiB of JSON in a fifth of the time of its default, a third larger; all others wait meanwhile
WINDOW_BITS = 12  # 4 KiB: the window that clients without much memory ask for; quick, and at this level nearly as good
SMALLEST_WINDOW_BITS = 9  # of zlib; the RFC has 8 too, which the library takes up to its release 16
PROBE = 4096  # bytes of a large message that decide whether to compress it
# Behind a last block may come the byte that ends the message (RFC 7692, section 7.2.3.4), and what a receiver appends.
BEHIND_LAST_BLOCK = 5


class Deflate(PerMessageDeflate):
    """The extension of one connection; only the receiving half keeps state, while a message arrives.

    A deflate stream that has ended takes no more input, but zlib keeps all later data, without any output that a limit
    could be compared with. So a message must end with its stream.

    Args:
        remote_max_window_bits: of the client's messages.
        local_max_window_bits: of the server's.
    """

    decoder: Any

    def __init__(self, remote_max_window_bits: int, local_max_window_bits: int) -> None:
        # "False": else the library would make the decoder itself, and drop it before it could be looked at.
        super().__init__(False, True, remote_max_window_bits, local_max_window_bits, {"level": LEVEL})
        self.decoder = None

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Decompress a frame of the client.

        Raises:
            ProtocolError: if its data is not valid.
            PayloadTooBig: if it is larger than ``max_size`` bytes when decompressed.
        """
        if frame.opcode in CTRL_OPCODES:
            return frame
        if frame.rsv1 and self.decoder is None:
            self.decoder = zlib.decompressobj(wbits=-self.remote_max_window_bits)
        decoded = super().decode(frame, max_size=max_size)
        if self.decoder is not None:
            if len(self.decoder.unused_data) > BEHIND_LAST_BLOCK:
                raise ProtocolError("data behind the end of a compressed message")
            if frame.fin:
                self.decoder = None
        return decoded


class DeflateFactory(ServerPerMessageDeflateFactory):
    """Negotiates the extension with a client, whichever parameters it offers."""

    def __init__(self) -> None:
        super().__init__(server_no_context_takeover=True, client_no_context_takeover=True)

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], PerMessageDeflate]:
        answer, agreed = super().process_request_params(params, accepted_extensions)
        if agreed.local_max_window_bits < SMALLEST_WINDOW_BITS:
            raise NegotiationError("zlib does not compress with so small a window")
        return answer, Deflate(agreed.remote_max_window_bits, agreed.local_max_window_bits)


def window_bits(agreed: Deflate) -> int:
    """Return the window with which messages are compressed for a client, the same for all; 0 if not at all.

    A client that asks for a smaller window gets messages uncompressed, which it must accept (RFC 7692, section 6):
    messages would have to be compressed once more for each size, and a small window costs more work and saves less.
    """
    return WINDOW_BITS if agreed.local_max_window_bits >= WINDOW_BITS else 0


def pays(payload: bytes) -> bool:
    """Return whether the beginning of a message compresses well: to try all of a picture costs ten times as much."""
    return len(payload) <= PROBE or len(zlib.compress(payload[:PROBE], LEVEL)) < PROBE * 9 // 10


def parameters(extensions: Sequence[Extension]) -> tuple[int, int] | None:
    """Return the arguments of the :class:`Deflate` among the extensions of a handshake; None if there is none."""
    agreed = next((each for each in extensions if isinstance(each, Deflate)), None)
    return None if agreed is None else (agreed.remote_max_window_bits, agreed.local_max_window_bits)


@functools.cache
def compressor(window_bits: int) -> Deflate:
    """Return the extension whose sending half is shared by all connections with the same window."""
    return Deflate(15, window_bits)
