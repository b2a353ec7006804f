"""Read and write websocket frames as a client (RFC 6455 §5), without I/O."""

from __future__ import annotations

import os
from enum import IntEnum
from struct import pack

from discorder.errors import Closed, ProtocolBreach
from discorder.transport.protocol import MAX_MESSAGE_BYTES

NO_STATUS_RECEIVED = 1005  # stands for a close frame without a code (RFC 6455 §7.1.5)
MAX_CONTROL_BYTES = 125  # payload of a control frame (RFC 6455 §5.5)

_FINAL = 0x80  # first byte: the frame is the last one of its message
_RESERVED = 0x70  # first byte: bits for extensions, of which we negotiate none
_MASKED = 0x80  # second byte: only a client masks (RFC 6455 §5.1)
_OPCODE = 0x0F  # first byte
_CONTROL = 0x08  # opcode: the bit of control frames
_LENGTH_16, _LENGTH_64 = 126, 127  # second byte: the length follows in two or in eight bytes
# on the wire (RFC 6455 §7.4)
_VALID_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)})


class Opcode(IntEnum):
    """Name the opcodes of frames (RFC 6455 §11.8)."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


_OPCODES = frozenset(int(opcode) for opcode in Opcode)
_WHOLE_MESSAGES = frozenset({_FINAL | Opcode.TEXT, _FINAL | Opcode.BINARY})


class FrameReader:
    """Split the data of a server into messages. Do not check that a text is UTF-8.

    ``end`` is set by a close frame (`Closed`) or by invalid data (`ProtocolBreach`); data after it is not read.
    ``ping`` is the payload of a ping after the messages that `take` returned; the caller answers it and clears ``ping``.
    """

    def __init__(self, limit: int = MAX_MESSAGE_BYTES) -> None:
        self.kind: int = Opcode.BINARY  # kind of the messages that `take` returned last
        self.more = False  # whether `take` can go on without further data
        self.ping: bytes | None = None
        self.end: Closed | ProtocolBreach | None = None
        self._limit = limit
        self._buffer = b""  # the next byte to read is at ``_position``
        self._position = 0
        self._partial = bytearray()  # the beginning of a frame; reading continues at ``_needed`` bytes
        self._needed = 0
        self._fragments: bytearray | None = None  # of a message whose last frame is missing
        self._fragments_kind = 0

    def feed(self, data: bytes) -> None:
        """Add ``data`` for `take` to read."""
        if self.end is not None:
            return
        if self._partial:
            self._partial += data
            if len(self._partial) < self._needed:
                return
            data, self._partial = bytes(self._partial), bytearray()
        elif self.more:
            data = self._buffer[self._position :] + data
        self._buffer, self._position = data, 0
        self.more = True

    def take(self, most: int) -> list[bytes]:
        """Return the next messages, all of one ``kind``, from at most ``most`` frames. Stop at a control frame."""
        messages: list[bytes] = []
        if not self.more:
            return messages
        buffer, position, size, limit = self._buffer, self._position, len(self._buffer), self._limit
        batch_head = -1  # first byte of the frames in this batch
        try:
            for _ in range(most):
                start = position + 2
                if start > size:
                    self._wait_for(2, position)
                    return messages
                head, length = buffer[position], buffer[position + 1]
                if length >= _LENGTH_16:
                    start += 2 if length == _LENGTH_16 else _extra_bytes(length)
                    if start > size:
                        self._wait_for(start - position, position)
                        return messages
                    if length == _LENGTH_16:
                        length = buffer[position + 2] << 8 | buffer[position + 3]
                    else:
                        length = int.from_bytes(buffer[position + 2 : start], "big")
                    if length > limit:
                        raise self._too_large(length)
                stop = start + length
                if stop > size:
                    self._check(head, length)
                    self._wait_for(stop - position, position)
                    return messages
                if head == batch_head:
                    messages.append(buffer[start:stop])
                elif head in _WHOLE_MESSAGES and self._fragments is None:
                    if messages:
                        break  # of the other kind
                    batch_head, self.kind = head, head & _OPCODE
                    messages.append(buffer[start:stop])
                elif messages and head == _FINAL | Opcode.CONTINUATION:
                    break  # the end of a message that may be of the other kind
                else:
                    self._check(head, length)
                    position = stop
                    if head & _CONTROL:
                        self._take_control(head & _OPCODE, buffer[start:stop])
                        break
                    whole = self._add_fragment(head, buffer[start:stop])
                    if whole is not None:
                        messages.append(whole)
                        break
                position = stop
        except ProtocolBreach as breach:
            self.end = breach
            self.more = False
        self._position = position
        return messages

    def _wait_for(self, needed: int, position: int) -> None:
        """Keep the rest of the buffer until it has ``needed`` bytes."""
        self._partial = bytearray(self._buffer[position:])
        self._needed = needed
        self._buffer, self._position = b"", 0
        self.more = False

    def _too_large(self, size: int) -> ProtocolBreach:
        return ProtocolBreach(f"a message is larger than {self._limit} bytes: {size} and more are announced")

    def _check(self, head: int, length: int) -> None:
        """Check a frame that is not a whole message of the batch, before its payload has arrived."""
        opcode = head & _OPCODE
        if head & _RESERVED:
            breach = "reserved bits are set"
        elif opcode not in _OPCODES:
            breach = f"the opcode {opcode} is unknown"
        elif opcode & _CONTROL:
            if head & _FINAL and length <= MAX_CONTROL_BYTES:
                return
            breach = "a control frame is fragmented or longer than 125 bytes"
        elif (opcode == Opcode.CONTINUATION) == (self._fragments is None):
            breach = "the fragments of a message are out of order"
        else:
            return
        msg = f"not a websocket: {breach}"
        raise ProtocolBreach(msg)

    def _take_control(self, opcode: int, payload: bytes) -> None:
        if opcode == Opcode.PING:
            self.ping = payload
        elif opcode == Opcode.CLOSE:
            self.end = _read_close(payload)
            self.more = False

    def _add_fragment(self, head: int, payload: bytes) -> bytes | None:
        """Return the message that the fragment completes, None if it completes none."""
        if self._fragments is None:
            self._fragments, self._fragments_kind = bytearray(), head & _OPCODE
        if (size := len(self._fragments) + len(payload)) > self._limit:
            raise self._too_large(size)
        self._fragments += payload
        if not head & _FINAL:
            return None
        whole, self._fragments = bytes(self._fragments), None
        self.kind = self._fragments_kind
        return whole


def masked_frame(payload: bytes, opcode: Opcode = Opcode.TEXT) -> bytes:
    """Return a complete client frame, masked with a fresh key (RFC 6455 §5.3)."""
    size = len(payload)
    if size < _LENGTH_16:
        header = pack("!BB", _FINAL | opcode, _MASKED | size)
    elif size < 1 << 16:
        header = pack("!BBH", _FINAL | opcode, _MASKED | _LENGTH_16, size)
    else:
        header = pack("!BBQ", _FINAL | opcode, _MASKED | _LENGTH_64, size)
    key = os.urandom(4)
    mask = (key * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "little") ^ int.from_bytes(mask, "little")
    return header + key + masked.to_bytes(size, "little")


def _extra_bytes(length: int) -> int:
    """Return how many bytes after the second byte of a frame hold a long length."""
    if length & _MASKED:
        msg = "not a websocket: a server's frame is masked"
        raise ProtocolBreach(msg)
    return 8


def _read_close(payload: bytes) -> Closed:
    if not payload:
        return Closed(NO_STATUS_RECEIVED, "peer")
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or code not in _VALID_CODES:
        msg = f"not a websocket: a close frame with the invalid code {code}"
        raise ProtocolBreach(msg)
    return Closed(code, "peer", payload[2:].decode("utf-8", "replace"))
