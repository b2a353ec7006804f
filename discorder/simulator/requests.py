"""Answer the commands of an identified client: ops 3, 4, 8, 31, 43 (docs/protocol.md#commands).

A payload after which Discord closes the connection raises `ClientError`; what Discord ignores is ignored.
"""

from __future__ import annotations

from typing import Any

import msgspec

from discorder import event_intents as intent
from discorder.simulator.client import SimulatedClient
from discorder.simulator.connection import ClientError
from discorder.simulator.gateway import SimulatedGateway
from discorder.simulator.payloads import load_payloads
from discorder.simulator.records import ViolationKind
from discorder.simulator.session import SimulatedSession
from discorder.wire import Op

CHUNK = 1000  # members in one GUILD_MEMBERS_CHUNK
ASKED_AT_ONCE = 100  # user_ids, or members by prefix, in one op 8
NONCE_BYTES = 32  # a longer nonce is ignored
STATUSES = frozenset({"online", "dnd", "idle", "invisible", "offline"})
SMALLEST_SNOWFLAKE = 10**16  # a smaller id is echoed as an integer in not_found


def check_presence(presence: Any) -> None:
    """Reject a presence that Discord would; it accepts the legacy key ``game`` (docs/protocol.md#presence-update)."""
    if presence is None:
        return
    if not isinstance(presence, dict):
        raise ClientError(4001, "presence is not an object")
    if not isinstance(presence.get("activities", []), list):
        raise ClientError(4001, "activities is not an array")
    if presence.get("status", "online") not in STATUSES:
        raise ClientError(4001, "unknown status")


def update_presence(gateway: SimulatedGateway, client: SimulatedClient, d: Any) -> None:
    """Handle op 3, which has no answer (docs/protocol.md#presence-update)."""
    check_presence(_as_object(d))
    if not client.presences.allow(gateway.clock.monotonic()):
        gateway.records.breach(ViolationKind.PRESENCE_LIMIT, client.shard, "more than 5 in 20 s")


def update_voice_state(gateway: SimulatedGateway, client: SimulatedClient, d: Any) -> None:
    """Answer op 4: the bot's VOICE_STATE_UPDATE, and VOICE_SERVER_UPDATE unless it left (docs/protocol.md#voice-state-update)."""
    session, d = _session(client), _as_object(d)
    guild = gateway.world.find_guild(_snowflake(d.get("guild_id")))
    channel_id = d.get("channel_id")
    if guild is None or guild not in session.guilds:
        return
    channel = None if channel_id is None else str(_snowflake(channel_id))
    muted = {key: bool(d.get(key, False)) for key in ("self_mute", "self_deaf")}
    state: dict[str, Any] = msgspec.json.decode(
        gateway.world.localise(load_payloads()["VOICE_STATE_UPDATE.self"].data, guild)
    )
    if session.intents & intent.GUILD_VOICE_STATES:
        state |= {"channel_id": channel, **muted}
        gateway.deliver(session, "VOICE_STATE_UPDATE", msgspec.json.encode(state))
    if channel is not None:
        server = gateway.world.localise(load_payloads()["VOICE_SERVER_UPDATE"].data, guild)
        gateway.deliver(session, "VOICE_SERVER_UPDATE", server)


def request_members(gateway: SimulatedGateway, client: SimulatedClient, d: Any) -> None:
    """Answer op 8: one GUILD_MEMBERS_CHUNK or more; RATE_LIMITED for a whole guild twice in 30 s."""
    session, d = _session(client), _as_object(d)
    guild_id = d.get("guild_id")
    if isinstance(guild_id, list):  # discordgo sends an array of one
        if len(guild_id) != 1:
            raise ClientError(4001, "one guild_id only")
        guild_id = guild_id[0]
    guild = gateway.world.find_guild(_snowflake(guild_id))
    if "user_ids" not in d and not isinstance(d.get("query"), str):
        raise ClientError(4001, "neither query nor user_ids")
    limit = d.get("limit", 0)
    if type(limit) is not int or limit < 0:
        raise ClientError(4001, "limit is not a number")
    if guild is None or guild not in session.guilds:
        return
    common: dict[str, Any] = {"guild_id": str(guild_id)}
    nonce = d.get("nonce")
    if isinstance(nonce, str) and len(nonce.encode()) <= NONCE_BYTES:
        common["nonce"] = nonce
    whole_guild = "user_ids" not in d and d["query"] == "" and limit == 0
    if whole_guild and not _may_have_whole_guild(gateway, session, guild, common):
        return
    members, extra = _find_members(gateway, d, guild, whole_guild=whole_guild, limit=limit)
    wants_presences = d.get("presences") is True and session.intents & intent.GUILD_PRESENCES
    _send_chunks(gateway, session, members, common, extra | ({"presences": []} if wants_presences else {}))


def _may_have_whole_guild(
    gateway: SimulatedGateway, session: SimulatedSession, guild: int, common: dict[str, Any]
) -> bool:
    if not session.intents & intent.GUILD_MEMBERS:
        raise ClientError(4014, "a whole guild needs GUILD_MEMBERS")
    now, key = gateway.clock.monotonic(), guild
    wait = gateway.member_requests.wait(key, now)
    if not wait:
        gateway.member_requests.hit(key, now)
        return True
    gateway.records.breach(ViolationKind.MEMBER_REQUESTS, session.shard[0], f"guild {common['guild_id']}")
    answer = {"opcode": int(Op.REQUEST_GUILD_MEMBERS), "retry_after": wait, "meta": common}
    gateway.deliver(session, "RATE_LIMITED", msgspec.json.encode(answer))
    return False


def _find_members(
    gateway: SimulatedGateway, d: dict[str, Any], guild: int, *, whole_guild: bool, limit: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the requested members, with the ids of their guild, and the other keys of the chunks."""
    local = gateway.world.localise(msgspec.json.encode(gateway.world.members), guild)
    members: list[dict[str, Any]] = msgspec.json.decode(local)
    if "user_ids" in d:
        asked = d["user_ids"] if isinstance(d["user_ids"], list) else [d["user_ids"]]
        if len(asked) > ASKED_AT_ONCE:
            raise ClientError(4001, "more than 100 user_ids")
        by_id = {int(member["user"]["id"]): member for member in members}
        ids = [_snowflake(user_id) for user_id in asked]
        missing = [i if i < SMALLEST_SNOWFLAKE else str(i) for i in ids if i not in by_id]
        return [by_id[i] for i in dict.fromkeys(ids) if i in by_id], {"not_found": missing} if missing else {}
    if whole_guild:
        return members, {}
    prefix: str = d["query"].lower()
    found = [member for member in members if member["user"]["username"].lower().startswith(prefix)]
    return found[: min(limit or ASKED_AT_ONCE, ASKED_AT_ONCE)], {}


def _send_chunks(
    gateway: SimulatedGateway,
    session: SimulatedSession,
    members: list[dict[str, Any]],
    common: dict[str, Any],
    extra: dict[str, Any],
) -> None:
    count = max(1, -(-len(members) // CHUNK))
    for index in range(count):
        part = members[index * CHUNK : (index + 1) * CHUNK]
        chunk = {"guild_id": common["guild_id"], "members": part, "chunk_index": index, "chunk_count": count}
        gateway.deliver(session, "GUILD_MEMBERS_CHUNK", msgspec.json.encode(chunk | extra | common))


def request_sounds(gateway: SimulatedGateway, client: SimulatedClient, d: Any) -> None:
    """Answer op 31: one SOUNDBOARD_SOUNDS per guild (docs/protocol.md#request-soundboard-sounds)."""
    session, d = _session(client), _as_object(d)
    if not isinstance(d.get("guild_ids"), list):
        raise ClientError(4001, "guild_ids is not an array")
    for guild_id in d["guild_ids"]:
        guild = gateway.world.find_guild(_snowflake(guild_id))
        if guild is not None and guild in session.guilds:
            data = gateway.world.localise(load_payloads()["SOUNDBOARD_SOUNDS"].data, guild)
            gateway.deliver(session, "SOUNDBOARD_SOUNDS", data)


def request_channel_info(gateway: SimulatedGateway, client: SimulatedClient, d: Any) -> None:
    """Answer op 43: CHANNEL_INFO with the requested fields (docs/protocol.md#request-channel-info)."""
    session, d = _session(client), _as_object(d)
    guild = gateway.world.find_guild(_snowflake(d.get("guild_id")))
    fields = d.get("fields")
    if not isinstance(fields, list) or not all(isinstance(field, str) for field in fields):
        raise ClientError(4001, "fields is not an array of strings")
    if guild is None or guild not in session.guilds:
        return
    info = msgspec.json.decode(gateway.world.localise(load_payloads()["CHANNEL_INFO"].data, guild))
    keep = {"id", *fields}
    info["channels"] = [{key: value for key, value in c.items() if key in keep} for c in info["channels"]]
    gateway.deliver(session, "CHANNEL_INFO", msgspec.json.encode(info))


def _session(client: SimulatedClient) -> SimulatedSession:
    if client.session is None:  # the dispatcher has checked it
        raise ClientError(4003, "not authenticated")
    return client.session


def _as_object(d: Any) -> dict[str, Any]:
    if not isinstance(d, dict):
        raise ClientError(4001, "d is not an object")
    return d


def _snowflake(value: Any) -> int:
    """Return an id given as a string, or as an integer, which discord.py sends (docs/protocol.md#request-guild-members)."""
    if type(value) is int and value >= 0:
        return value
    if isinstance(value, str) and len(value) <= 20 and value.isascii() and value.isdecimal():
        return int(value)
    raise ClientError(4001, "not a snowflake")
