"""Asks the bus's ROUTER and reads what it answers: requests out, parts in. It waits for nothing and keeps no promise.

The protocol: docs/bus.md.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import msgspec
import zmq

from discorder.bot.sockets import CurveKeys, Socket, connect

VERSION = 1
RECEIVE_HWM = 256  # parts that wait here while the bot is busy; the rest waits on the bus


class Part(NamedTuple):
    """One part of an answer. ``topic`` is empty in the last one."""

    id: bytes
    topic: bytes
    document: bytes

    def fields(self) -> dict[str, Any]:
        """What the last part says. Raises ValueError when it is no JSON object."""
        return msgspec.json.decode(self.document, type=dict[str, Any])


class Dealer:
    """The DEALER socket of one bot."""

    def __init__(self, context: zmq.Context[Socket], address: str, keys: CurveKeys | None) -> None:
        self.address = address
        self.socket: Socket = context.socket(zmq.DEALER)
        self._ids = itertools.count(1)
        self.socket.set(zmq.IMMEDIATE, 1)  # what cannot be sent now is not sent behind the caller's back later
        self.socket.set(zmq.RCVHWM, RECEIVE_HWM)
        try:
            connect(self.socket, address, keys)
        except BaseException:
            self.close()
            raise

    def ask(self, op: str, **fields: Any) -> bytes | None:
        """Send a request; the id of the parts that will answer it, or None while nobody is there to take it."""
        number = next(self._ids)
        try:
            self.socket.send(msgspec.json.encode({"v": VERSION, "id": number, "op": op, **fields}), zmq.DONTWAIT)
        except zmq.Again:
            return None
        return b"%d" % number

    def read(self) -> Part | None:
        """The next part, None when there is none. Raises ValueError for what is no part of an answer."""
        try:
            frames = self.socket.recv_multipart(zmq.DONTWAIT)
        except zmq.Again:
            return None
        if len(frames) != 3:  # a part has three frames
            msg = f"{self.address} answers something else than Discorder's bus does"
            raise ValueError(msg)
        return Part(*frames)

    def close(self) -> None:
        """Idempotent."""
        self.socket.close(linger=0)
