"""Handle the frames that a client may send before it has a session: heartbeat, IDENTIFY, RESUME.

Each raises `ClientError` for a frame after which Discord closes the connection.
"""

from __future__ import annotations

from typing import Any

from discorder import event_intents as intent
from discorder.simulator.client import SimulatedClient
from discorder.simulator.compression import PayloadCompression
from discorder.simulator.connection import ClientError
from discorder.simulator.gateway import SimulatedGateway
from discorder.simulator.limits import IdentifyResult
from discorder.simulator.records import ViolationKind
from discorder.simulator.requests import check_presence
from discorder.simulator.session import encode_op
from discorder.wire import Op

DEFAULT_LARGE_THRESHOLD = 50  # docs/protocol.md#identify
RESUMED = b'{"_trace":["gateway-sim-0001"]}'  # an object: discord.py writes a key into it (docs/protocol.md#resume)


def heartbeat(gateway: SimulatedGateway, client: SimulatedClient, d: Any) -> None:
    """Acknowledge op 1 at once; it is allowed at any time (docs/protocol.md#heartbeats)."""
    if d is not None and type(d) is not int:
        raise ClientError(4001, "heartbeat without a sequence")
    client.watch.beat()
    if gateway.faults.acknowledges(client.shard):
        client.connection.send(encode_op(Op.HEARTBEAT_ACK, b"null"))


def identify(gateway: SimulatedGateway, client: SimulatedClient, d: Any) -> None:
    """Handle op 2: check it in Discord's order, then the identify limits, then start a session."""
    gateway.records.identifies += 1
    gateway.records.changed()
    if gateway.faults.ignore_openings:
        return
    if client.session is not None:
        raise ClientError(4005, "already authenticated")
    d = _authenticated(gateway, d)
    intents = _intents(gateway, client, d)
    shard = _shard(d)
    if len(gateway.world.guilds_of(*shard)) > gateway.options.max_guilds_per_shard:
        raise ClientError(4011, "sharding required")
    check_presence(d.get("presence"))
    large_threshold = d.get("large_threshold", DEFAULT_LARGE_THRESHOLD)
    if type(large_threshold) is not int or not 50 <= large_threshold <= 250:
        raise ClientError(4001, "large_threshold is not a number from 50 to 250")
    verdict = gateway.gate.ask(shard[0], gateway.clock.monotonic())
    if verdict is IdentifyResult.TOO_SOON:
        bucket = shard[0] % gateway.options.max_concurrency
        gateway.records.breach(ViolationKind.IDENTIFY_SPACING, shard[0], f"bucket {bucket}")
        gateway.invalidate(client, resumable=False)
        return
    if verdict is IdentifyResult.BUDGET_SPENT:
        gateway.records.breach(ViolationKind.IDENTIFY_BUDGET, shard[0], f"{gateway.gate.total} in 24 h")
        if gateway.options.enforce_budget:
            gateway.reset_token()
            return
    if d.get("compress") is True and client.may_compress:
        client.connection.encoder = PayloadCompression()
    gateway.start_session(client, shard=shard, sharded="shard" in d, intents=intents, large_threshold=large_threshold)


def resume(gateway: SimulatedGateway, client: SimulatedClient, d: Any) -> None:
    """Answer op 6: the missed events with their own ``s``, then RESUMED; or op 9 false on a connection that stays open."""
    gateway.records.resumes += 1
    gateway.records.changed()
    if gateway.faults.ignore_openings:
        return
    if gateway.faults.resume_close is not None:
        client.connection.end_as_seen(gateway.faults.resume_close)
        return
    if client.session is not None:
        raise ClientError(4005, "already authenticated")
    d = _authenticated(gateway, d)
    seq, session_id = d.get("seq"), d.get("session_id")
    if type(seq) is not int or seq < 0:
        raise ClientError(4007, "seq is not a sequence")
    session = gateway.sessions.get(session_id) if isinstance(session_id, str) else None
    if session is None:
        gateway.invalidate(client, resumable=False)
        return
    if seq > session.seq:
        gateway.end_session(session)
        raise ClientError(4007, "seq is ahead of the session")
    missed = session.missed_since(seq)
    if missed is None:
        gateway.end_session(session)
        gateway.invalidate(client, resumable=False)
        return
    gateway.attach(client, session)
    for frame in missed:
        client.connection.send(frame)
    gateway.records.resumed += 1
    gateway.deliver(session, "RESUMED", RESUMED)


def _authenticated(gateway: SimulatedGateway, d: Any) -> dict[str, Any]:
    if not isinstance(d, dict):
        raise ClientError(4001, "d is not an object")
    if not gateway.authenticates(d.get("token")):
        raise ClientError(4004, "authentication failed")
    return d


def _intents(gateway: SimulatedGateway, client: SimulatedClient, d: dict[str, Any]) -> int:
    """Return the intents of an IDENTIFY. Required since v8; older versions get all that need no approval."""
    intents = d.get("intents")
    if intents is None and client.version < 8:
        return intent.UNPRIVILEGED
    if type(intents) is not int or intents < 0 or intents & ~intent.ALL:
        raise ClientError(4013, "invalid intents")
    if intents & intent.PRIVILEGED & ~gateway.options.approved_intents:
        raise ClientError(4014, "disallowed intents")
    return intents


def _shard(d: dict[str, Any]) -> tuple[int, int]:
    shard = d.get("shard", [0, 1])
    if not isinstance(shard, list) or len(shard) != 2 or any(type(number) is not int for number in shard):
        raise ClientError(4010, "shard is not [id, count]")
    shard_id, count = shard
    if not 0 <= shard_id < count:
        raise ClientError(4010, "shard id out of range")
    return shard_id, count
