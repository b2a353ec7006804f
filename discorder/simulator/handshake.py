"""The frames that a connection may carry before it has a session: heartbeat, IDENTIFY, RESUME (§5, §6, §9).

A frame that Discord closes the connection for raises `Rejected`.
"""

from __future__ import annotations

from typing import Any

from discorder.simulator import intents as intent
from discorder.simulator.client import Client
from discorder.simulator.compression import PayloadCompression
from discorder.simulator.connection import Rejected
from discorder.simulator.gateway import Gateway
from discorder.simulator.limits import Verdict
from discorder.simulator.records import ViolationKind
from discorder.simulator.requests import check_presence
from discorder.simulator.session import encode_op
from discorder.wire import Op

DEFAULT_LARGE_THRESHOLD = 50  # §6
RESUMED = b'{"_trace":["gateway-sim-0001"]}'  # an object: discord.py writes a key into it (§9)


def heartbeat(gateway: Gateway, client: Client, d: Any) -> None:
    """Op 1, legal at any time, acknowledged at once (§5)."""
    if d is not None and type(d) is not int:
        raise Rejected(4001, "heartbeat without a sequence")
    client.watch.beat()
    if gateway.faults.acknowledges(client.shard):
        client.connection.send(encode_op(Op.HEARTBEAT_ACK, b"null"))


def identify(gateway: Gateway, client: Client, d: Any) -> None:
    """Op 2: checks in Discord's order, then the identify gate, then a session."""
    gateway.records.identifies += 1
    gateway.records.changed()
    if gateway.faults.ignore_openings:
        return
    if client.session is not None:
        raise Rejected(4005, "already authenticated")
    d = _authenticated(gateway, d)
    intents = _intents(gateway, client, d)
    shard = _shard(d)
    if len(gateway.world.guilds_of(*shard)) > gateway.options.max_guilds_per_shard:
        raise Rejected(4011, "sharding required")
    check_presence(d.get("presence"))
    large_threshold = d.get("large_threshold", DEFAULT_LARGE_THRESHOLD)
    if type(large_threshold) is not int or not 50 <= large_threshold <= 250:
        raise Rejected(4001, "large_threshold is not a number from 50 to 250")
    verdict = gateway.gate.ask(shard[0], gateway.clock.monotonic())
    if verdict is Verdict.TOO_SOON:
        bucket = shard[0] % gateway.options.max_concurrency
        gateway.records.breach(ViolationKind.IDENTIFY_SPACING, shard[0], f"bucket {bucket}")
        gateway.invalidate(client, resumable=False)
        return
    if verdict is Verdict.BUDGET_SPENT:
        gateway.records.breach(ViolationKind.IDENTIFY_BUDGET, shard[0], f"{gateway.gate.total} in 24 h")
        if gateway.options.enforce_budget:
            gateway.reset_token()
            return
    if d.get("compress") is True and client.may_compress:
        client.connection.encoder = PayloadCompression()
    gateway.start_session(client, shard=shard, sharded="shard" in d, intents=intents, large_threshold=large_threshold)


def resume(gateway: Gateway, client: Client, d: Any) -> None:
    """Op 6: what was missed in order, with its own ``s``, then RESUMED; or op 9 false on a connection that stays open."""
    gateway.records.resumes += 1
    gateway.records.changed()
    if gateway.faults.ignore_openings:
        return
    if gateway.faults.resume_close is not None:
        client.connection.end_as_seen(gateway.faults.resume_close)
        return
    if client.session is not None:
        raise Rejected(4005, "already authenticated")
    d = _authenticated(gateway, d)
    seq, session_id = d.get("seq"), d.get("session_id")
    if type(seq) is not int or seq < 0:
        raise Rejected(4007, "seq is not a sequence")
    session = gateway.sessions.get(session_id) if isinstance(session_id, str) else None
    if session is None:
        gateway.invalidate(client, resumable=False)
        return
    if seq > session.seq:
        gateway.end_session(session)
        raise Rejected(4007, "seq is ahead of the session")
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


def _authenticated(gateway: Gateway, d: Any) -> dict[str, Any]:
    if not isinstance(d, dict):
        raise Rejected(4001, "d is not an object")
    if not gateway.authenticates(d.get("token")):
        raise Rejected(4004, "authentication failed")
    return d


def _intents(gateway: Gateway, client: Client, d: dict[str, Any]) -> int:
    """The intents asked for. Required since v8; older versions get all that need no approval."""
    intents = d.get("intents")
    if intents is None and client.version < 8:
        return intent.UNPRIVILEGED
    if type(intents) is not int or intents < 0 or intents & ~intent.ALL:
        raise Rejected(4013, "invalid intents")
    if intents & intent.PRIVILEGED & ~gateway.options.approved_intents:
        raise Rejected(4014, "disallowed intents")
    return intents


def _shard(d: dict[str, Any]) -> tuple[int, int]:
    shard = d.get("shard", [0, 1])
    if not isinstance(shard, list) or len(shard) != 2 or any(type(number) is not int for number in shard):
        raise Rejected(4010, "shard is not [id, count]")
    shard_id, count = shard
    if not 0 <= shard_id < count:
        raise Rejected(4010, "shard id out of range")
    return shard_id, count
