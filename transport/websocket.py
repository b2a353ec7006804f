"""Run the client side of an open websocket: messages, pings, the closing handshake (RFC 6455 §7).

Close frames are sent only by `close` and as the answer to the peer's, never with a code in the answer that would end the session
(docs/protocol.md#closing-a-connection).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from discorder.errors import Closed, ProtocolBreach
from discorder.transport.frames import FrameReader, Opcode, masked_frame
from discorder.transport.inflate import Inflater
from discorder.transport.protocol import MAX_BATCH, Deliver
from discorder.wire import RESUMABLE_CLOSE

# bytes, decompressed; a larger message ends its batch, which bounds the memory and time of one turn of the loop
LARGE_MESSAGE = 1 << 16
FLUSH_SECONDS = 1.0  # for unsent data when the connection is dropped after a close frame
_APPLICATION_CODES = range(3000, 5000)  # the codes that may be sent back as they came (RFC 6455 §7.4.2)


def answer_to(code: int | None) -> int:
    """Return the code that answers a peer's close frame: the same code, or 4000 if that code could end the session.

    Never echoes 1000, 1001 or the codes that RFC 6455 §7.4.1 reserves.
    """
    return RESUMABLE_CLOSE if code is None or code not in _APPLICATION_CODES else code


class WebSocket(asyncio.Protocol):
    """Run one websocket on ``transport``, which is upgraded already. See `Transport` for the methods.

    ``inflater`` decompresses binary messages. If there is one, text messages are unexpected (they are never
    compressed), and ``plain_text`` is called for them.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        deliver: Deliver,
        inflater: Inflater | None = None,
        plain_text: Callable[[], None] = lambda: None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._transport = transport
        self._deliver = deliver
        self._inflater = inflater
        self._plain_text = plain_text
        self._reader = FrameReader()
        self._frames: list[bytes] = []  # messages to decompress in the next turn of the loop
        self._next_turn: asyncio.Handle | None = None  # takes what the last turn of the loop left in the reader
        self._end: asyncio.Future[Closed | ProtocolBreach] = self.loop.create_future()
        self._gone: asyncio.Future[None] = self.loop.create_future()  # done when the socket is dropped
        self._lost: Closed | None = None  # the end of the connection, while messages are left in the reader
        self._close_sent = False
        self._writable: asyncio.Future[None] | None = None  # while too much data is unsent
        self._flushing: asyncio.TimerHandle | None = None

    def begin(self, data: bytes) -> None:
        """Read ``data``, which arrived after the answer to the upgrade, in the next turn of the loop."""
        self._reader.feed(data)
        self._next_turn = self.loop.call_soon(self._take_rest)

    @property
    def closed(self) -> bool:
        return self._gone.done()

    async def wait_closed(self) -> None:
        raise await asyncio.shield(self._end)

    async def send(self, data: bytes) -> None:
        if self._close_sent or self.closed:
            raise self._closed_end()
        if self._transport.is_closing():
            raise Closed(None, "network", "the connection is gone")
        self._transport.write(masked_frame(data))
        while self._writable is not None:
            await asyncio.shield(self._writable)
            if self.closed:
                raise self._closed_end()

    async def close(self, code: int) -> None:
        if self.closed:
            return
        if not self._close_sent and not self._transport.is_closing():
            self._write_close(code)
            self._finish(Closed(code, "us"))
        await asyncio.shield(self._gone)

    def abort(self) -> None:
        self._finish(Closed(None, "us", "aborted"))
        self._release()
        self._transport.abort()

    # ---------------------------------------------------------------- called by the transport

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        if self._next_turn is None:
            self._take()

    def pause_writing(self) -> None:
        self._writable = self.loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None:
            writable.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
        self._lost = Closed(None, "network", "the connection ended without a close frame" if exc is None else str(exc))
        self._release()
        if self._next_turn is None:
            self._finish(self._lost)

    # ---------------------------------------------------------------- reading

    def _take(self) -> None:
        """Deliver the received messages, up to `MAX_BATCH` or one large one. The rest waits for the next turn of the loop."""
        self._next_turn = None
        reader, room = self._reader, MAX_BATCH
        while reader.more and room > 0 and not self._frames:
            frames = reader.take(room)
            room -= max(1, len(frames))
            if frames:
                self._deliver_frames(frames)
            if reader.ping is not None:
                self._answer_ping(reader.ping)
                reader.ping = None
        if self._frames or reader.more:
            self._transport.pause_reading()
            self._next_turn = self.loop.call_soon(self._take_rest)
        elif reader.end is not None:
            self._peer_ended(reader.end)
        elif self._lost is not None:
            self._finish(self._lost)

    def _take_rest(self) -> None:
        frames, self._frames = self._frames, []
        if frames:
            self._deliver_frames(frames)
        self._take()
        if self._next_turn is None:
            self._transport.resume_reading()

    def _deliver_frames(self, frames: list[bytes]) -> None:
        """Deliver messages of one kind. After a large one, keep the rest in ``_frames``."""
        if self._end.done():
            return
        if self._inflater is None or self._reader.kind == Opcode.TEXT:
            if self._inflater is not None:
                self._plain_text()
            self._deliver(frames)
            return
        inflate = self._inflater.feed
        messages: list[bytes] = []
        breach: ProtocolBreach | None = None
        for number, frame in enumerate(frames, 1):
            try:
                message = inflate(frame)
            except ProtocolBreach as error:
                breach = error
                break
            if message:
                messages.append(message)
                if len(message) > LARGE_MESSAGE:
                    self._frames = frames[number:]
                    break
        if messages:
            self._deliver(messages)
        if breach is not None:
            self._finish(breach)

    def _answer_ping(self, payload: bytes) -> None:
        if not self._close_sent and self._writable is None and not self.closed:
            self._transport.write(masked_frame(payload, Opcode.PONG))

    # ---------------------------------------------------------------- the end

    def _peer_ended(self, end: Closed | ProtocolBreach) -> None:
        """Answer a close frame, unless it answers ours, and drop the connection."""
        if isinstance(end, Closed) and not self._close_sent and not self.closed:
            self._write_close(answer_to(end.code))
        self._finish(end)
        self._drop()

    def _write_close(self, code: int) -> None:
        self._close_sent = True
        self._transport.write(masked_frame(code.to_bytes(2, "big"), Opcode.CLOSE))

    def _finish(self, end: Closed | ProtocolBreach) -> None:
        """Store the end, if it is the first one."""
        if not self._end.done():
            self._end.set_result(end)

    def _drop(self) -> None:
        """Drop the connection after a close frame. If no data is unsent, do not wait: a TLS peer that is gone would take half
        a minute.
        """
        if self.closed:
            return
        self._release()
        if self._transport.get_write_buffer_size():
            self._transport.close()
            self._flushing = self.loop.call_later(FLUSH_SECONDS, self._transport.abort)
        else:
            self._transport.abort()

    def _release(self) -> None:
        if not self._gone.done():
            self._gone.set_result(None)
        self.resume_writing()

    def _closed_end(self) -> Closed:
        end = self._end.result() if self._end.done() else self._lost
        return end if isinstance(end, Closed) else Closed(None, "us", "the connection was dropped")
