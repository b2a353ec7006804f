"""Finds out who listens at the address of a bus, and whether it accepts our key."""

from __future__ import annotations

from enum import Enum

import zmq
from zmq.utils.monitor import parse_monitor_message

from discorder.bot.sockets import LoadedKeys, Socket, connect

_REFUSED, _CONNECTED = zmq.Event.HANDSHAKE_FAILED_AUTH, zmq.Event.HANDSHAKE_SUCCEEDED
_MISMATCH = zmq.Event.HANDSHAKE_FAILED_PROTOCOL | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL


class BusAnswer(Enum):
    """What a connection met: nobody, a bus, a bus that refuses our key, or something that speaks otherwise."""

    NONE = "none"
    BUS = "bus"
    REFUSED = "refused"
    MISMATCH = "mismatch"


class Probe:
    """A connection to one bus, beside that of the command. It subscribes to nothing."""

    def __init__(self, address: str, keys: LoadedKeys | None) -> None:
        self.address = address
        self.answer = BusAnswer.NONE
        self._context = zmq.Context()
        self._socket: Socket = self._context.socket(zmq.SUB)
        self._monitor = self._socket.get_monitor_socket(_REFUSED | _CONNECTED | _MISMATCH)
        connect(self._socket, address, keys)

    def read(self) -> BusAnswer:
        """Return the newest answer."""
        while self._monitor.poll(0):
            event = parse_monitor_message(self._monitor.recv_multipart())["event"]
            self.answer = (
                BusAnswer.BUS if event == _CONNECTED else BusAnswer.REFUSED if event == _REFUSED else BusAnswer.MISMATCH
            )
        return self.answer

    def close(self) -> None:
        """Close the connection."""
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)
        self._context.term()
