"""Reads the bus: a SUB socket, replaced when the bus falls silent."""

from __future__ import annotations

import logging

import zmq

from discorder.bot.positions import GAP_RECORD, POSITION_RECORD
from discorder.bot.sockets import LoadedKeys, Socket, Waiter, connect, has_message
from discorder.wire import ReceivedEvent, decode_document

RECEIVE_HWM = 10_000  # messages that wait in this process while the bot is busy
SILENT = 20.0  # seconds; the bus publishes a position of each shard at least every 10 s, and one may be lost
_DONTWAIT = int(zmq.DONTWAIT)

logger = logging.getLogger(__name__)


class Bus:
    """The messages of one subscription. ``types``: the wanted names, None for all."""

    def __init__(
        self,
        context: zmq.Context[Socket],
        address: str,
        types: frozenset[str] | None,
        keys: LoadedKeys | None,
        waiter: Waiter,
    ) -> None:
        self.received_at: float | None = None  # None: nothing came through this connection yet
        self._context = context
        self._address = address
        self._types = types
        self._names = None if types is None else {name.encode() for name in (*types, GAP_RECORD, POSITION_RECORD)}
        self._keys = keys
        self._waiter = waiter
        self.is_open = False
        self.silence_timeout = SILENT  # seconds of silence after which to connect again
        self._read = 0  # messages since the last time that there was none
        self.drained = False  # the message that was read was the last one
        self._socket: Socket | None = None
        self._connect()

    def receive(self) -> ReceivedEvent | None:
        """Return the next wanted message, None when there is none. Topics match by prefix, so others come too.

        Raises ValueError for a message that is no event.
        """
        sock, names = self._socket, self._names
        while sock is not None and not self.drained:
            try:
                topic = sock.recv(_DONTWAIT)
            except zmq.Again:
                break
            self._read += 1
            document = self._last_frame(sock)
            self.drained = self._read == 1 and not has_message(sock)  # cheaper than zmq.Again, on a quiet bus
            if names is None or topic in names:
                try:
                    return decode_document(document)
                except ValueError as error:
                    raise self._foreign(error) from error
        self.read_anew()
        return None

    def read_anew(self) -> None:
        """Note that the socket was read until it was empty."""
        self._read, self.drained = 0, False

    def deadline(self) -> float | None:
        """Return when to call `reconnect_if_silent`, in monotonic seconds; None: nothing came yet, so ZeroMQ alone reconnects."""
        return None if self.received_at is None else self.received_at + self.silence_timeout

    def reconnect_if_silent(self, now: float) -> bool:
        """Connect again if the bus has been silent too long; return whether it did. Call it when there is nothing to read."""
        deadline = self.deadline()
        if deadline is None or now < deadline or self._socket is None:
            return False
        logger.warning("Nothing came from %s for %.0f s; connecting anew.", self._address, self.silence_timeout)
        self.close()
        self._connect()
        return True

    def close(self) -> None:
        """Close the socket. Idempotent."""
        sock, self._socket, self.is_open = self._socket, None, False
        if sock is not None:
            self._waiter.remove(sock)
            sock.close(linger=0)

    def _last_frame(self, sock: Socket) -> bytes:
        """Return the second frame of a message. `recv_multipart` costs four times as much as this."""
        try:
            frame = sock.recv(_DONTWAIT, copy=False)
        except zmq.Again:
            raise self._foreign("a message of one frame") from None
        if not frame.more:
            return frame.bytes
        while sock.get(zmq.RCVMORE):
            sock.recv(_DONTWAIT)
        raise self._foreign("a message of more than two frames")

    def _foreign(self, what: object) -> ValueError:
        return ValueError(f"{self._address} carries something else than Discorder's events: {what}")

    def _connect(self) -> None:
        sock = self._context.socket(zmq.SUB)
        try:
            sock.set(zmq.RCVHWM, RECEIVE_HWM)
            for topic in (b"",) if self._names is None else sorted(self._names):
                sock.subscribe(topic)
            connect(sock, self._address, self._keys)
        except BaseException:
            sock.close(linger=0)
            raise
        self._socket, self.is_open, self.received_at = sock, True, None
        self._waiter.add(sock, always_read=True)
