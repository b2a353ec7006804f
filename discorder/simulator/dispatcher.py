"""Check a client's frame and pass it to the handler of its opcode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from discorder.simulator import handshake, requests
from discorder.simulator.client import SimulatedClient
from discorder.simulator.connection import ClientError, Ending, SimulatedConnection
from discorder.simulator.gateway import SimulatedGateway
from discorder.simulator.records import Frame, ViolationKind
from discorder.wire import Op

Handler = Callable[[SimulatedGateway, SimulatedClient, Any], None]

_WITHOUT_SESSION: dict[int, Handler] = {
    Op.HEARTBEAT: handshake.heartbeat,
    Op.IDENTIFY: handshake.identify,
    Op.RESUME: handshake.resume,
}
_WITH_SESSION: dict[int, Handler] = {
    Op.PRESENCE_UPDATE: requests.update_presence,
    Op.VOICE_STATE_UPDATE: requests.update_voice_state,
    Op.REQUEST_GUILD_MEMBERS: requests.request_members,
    Op.REQUEST_SOUNDBOARD_SOUNDS: requests.request_sounds,
    Op.REQUEST_CHANNEL_INFO: requests.request_channel_info,
}


class Dispatcher:
    """The `Peer` of every connection of one gateway."""

    def __init__(self, gateway: SimulatedGateway) -> None:
        self._gateway = gateway

    def frame_received(self, connection: SimulatedConnection, frame: bytes) -> None:
        gateway, client = self._gateway, self._gateway.clients[connection]
        records = gateway.records
        records.frames_received += 1
        op, d = _parse(frame)
        records.add(records.received, Frame(client.shard, op, _without_token(d)))
        if len(frame) > gateway.options.max_payload:
            detail = f"op {op} of {len(frame)} bytes"
            records.breach(ViolationKind.PAYLOAD_SIZE, client.shard, detail)
            raise ClientError(4002, f"payload above {gateway.options.max_payload} bytes")
        if not client.frames.allow(gateway.clock.monotonic()):
            records.breach(ViolationKind.SEND_LIMIT, client.shard, f"op {op}")
            raise ClientError(4008, "too many frames")
        handler = _WITHOUT_SESSION.get(op)
        if handler is None:
            handler = _WITH_SESSION.get(op)
            if handler is None:
                raise ClientError(4001, f"unknown opcode {op}")
            if client.session is None:
                raise ClientError(4003, "not authenticated")
        handler(gateway, client, d)

    def connection_closing(self, connection: SimulatedConnection, ending: Ending) -> None:
        self._gateway.closing(connection, ending)


def _parse(frame: bytes) -> tuple[int, Any]:
    try:
        document = msgspec.json.decode(frame)
    except ValueError as error:  # msgspec's errors and UnicodeDecodeError are both
        raise ClientError(4002, "not JSON") from error
    if not isinstance(document, dict) or type(document.get("op")) is not int:
        raise ClientError(4002, "no opcode")
    return document["op"], document.get("d")


def _without_token(d: Any) -> Any:
    return {**d, "token": "<token>"} if isinstance(d, dict) and "token" in d else d
