"""Check the bot's commands: refuse those that Discord would ignore or close the connection for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from discorder.errors import InvalidCommand
from discorder.statemachine.send_window import PLAIN, PRESENCE, CommandLimit, Quota
from discorder.wire import MAX_REQUESTED, Op, command_frame

COMMANDS: Mapping[str, Op] = MappingProxyType(
    {
        "presence": Op.PRESENCE_UPDATE,
        "members": Op.REQUEST_GUILD_MEMBERS,
        "voice_state": Op.VOICE_STATE_UPDATE,
        "soundboard_sounds": Op.REQUEST_SOUNDBOARD_SOUNDS,
        "channel_info": Op.REQUEST_CHANNEL_INFO,
    }
)
"""The names of the commands on the bus."""

RESERVED_OPS = frozenset(Op) - frozenset(COMMANDS.values())
STATUSES = ("online", "dnd", "idle", "invisible", "offline")
NONCE_BYTES = 32  # Discord ignores a longer nonce; the chunks then have none, and the request would never end
MAX_OP = 255  # opcodes are below 100 today; a larger number is a mistake
MAX_SNOWFLAKE = (1 << 64) - 1  # an id is an unsigned 64-bit integer
SNOWFLAKE_DIGITS = 20  # of the largest id; checked before the text is converted, which takes quadratic time
MAX_SINCE = 1 << 53  # milliseconds since the epoch: beyond this JSON numbers are not exact
# the intent; after a request for a whole guild without it Discord closes with 4014, which is fatal
GUILD_MEMBERS = 1 << 1
SHOWN = 64  # characters of an invalid value in an error message


def check_command(op: Any, d: Any, intents: int) -> Quota:
    """Return the quota of the command. Raises `InvalidCommand` if Discord would not execute it."""
    if isinstance(op, bool) or not isinstance(op, int) or not 0 <= op <= MAX_OP:
        msg = f"an opcode is an integer from 0 to {MAX_OP}, not {shown(op)}"
        raise InvalidCommand(msg)
    if op in RESERVED_OPS:
        msg = f"op {int(op)} cannot be sent by a bot; only the control plane sends heartbeats, IDENTIFY and RESUME"
        raise InvalidCommand(msg)
    if not isinstance(d, Mapping):
        msg = f"d of op {int(op)} must be an object, not {type(d).__name__}"
        raise InvalidCommand(msg)
    try:
        command_frame(op, d)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        msg = f"d of op {int(op)} cannot be written as JSON: {error}"
        raise InvalidCommand(msg) from error
    match op:
        case Op.PRESENCE_UPDATE:
            return _check_presence(d)
        case Op.REQUEST_GUILD_MEMBERS:
            return _check_members(d, intents)
        case Op.VOICE_STATE_UPDATE:
            _check_voice_state(d)
        case Op.REQUEST_CHANNEL_INFO:
            snowflake(d.get("guild_id"))
        case Op.REQUEST_SOUNDBOARD_SOUNDS:
            _check_sounds(d)
        case _:
            pass  # an opcode newer than this version: Discord checks it
    return PLAIN


def snowflake(value: Any) -> int:
    """Return an id as an integer. Raises `InvalidCommand` for an invalid id."""
    number = as_snowflake(value)
    if number is None:
        msg = f"{shown(value)} is not a guild or user id"
        raise InvalidCommand(msg)
    return number


def as_snowflake(value: Any) -> int | None:
    """Return an id, an integer or a string as in JSON, as an integer. None for an invalid id."""
    if isinstance(value, str) and len(value) <= SNOWFLAKE_DIGITS and value.isascii() and value.isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SNOWFLAKE:
        return None
    return value


def shown(value: Any) -> str:
    """Return ``repr(value)``, shortened for a message."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer with more digits than Python converts
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text):,} characters)"


def _check_members(d: Mapping[str, Any], intents: int) -> Quota:
    guild_id = snowflake(d.get("guild_id"))
    _check_nonce(d.get("nonce"))
    if not isinstance(d.get("presences", False), bool | None):
        msg = f"presences must be true or false, not {shown(d['presences'])}"
        raise InvalidCommand(msg)
    if d.get("user_ids") is None:
        return _check_query(d, guild_id, intents)
    if d.get("query") is not None:
        msg = "a request for members takes user_ids or a query, not both: Discord ignores one of them"
        raise InvalidCommand(msg)
    user_ids = d["user_ids"]
    requested = user_ids if isinstance(user_ids, list | tuple) else [user_ids]
    if not 1 <= len(requested) <= MAX_REQUESTED:
        msg = f"{len(requested)} user_ids; Discord takes 1 to {MAX_REQUESTED} at once"
        raise InvalidCommand(msg)
    for user_id in requested:
        snowflake(user_id)
    return PLAIN


def _check_query(d: Mapping[str, Any], guild_id: int, intents: int) -> Quota:
    """Check a request by the beginning of a name, "" for all members."""
    query, limit = d.get("query"), d.get("limit")
    if not isinstance(query, str) or isinstance(limit, bool) or not isinstance(limit, int):
        msg = "a request for members needs user_ids, or a query (a string) with a limit (an integer; 0 = all)"
        raise InvalidCommand(msg)
    if not (1 if query else 0) <= limit <= MAX_REQUESTED:
        msg = f'limit is {shown(limit)}; Discord takes 1 to {MAX_REQUESTED} with a query, and 0 with "" for all members'
        raise InvalidCommand(msg)
    if query or limit:
        return PLAIN
    if not intents & GUILD_MEMBERS:
        msg = "all members of a guild need the intent guild_members, which gateway.intents does not have"
        raise InvalidCommand(msg)
    return Quota(CommandLimit.WHOLE_GUILD, guild_id)


def _check_nonce(nonce: Any) -> None:
    if nonce is None:
        return
    if not isinstance(nonce, str):
        msg = f"nonce must be a string, not {type(nonce).__name__}"
        raise InvalidCommand(msg)
    size = len(nonce.encode())
    if size > NONCE_BYTES:
        msg = f"nonce has {size:,} bytes; Discord takes {NONCE_BYTES}, and ignores a longer one"
        raise InvalidCommand(msg)


def _check_presence(d: Mapping[str, Any]) -> Quota:
    if d.get("status") not in STATUSES:
        msg = f"status is {shown(d.get('status'))}; allowed: {', '.join(STATUSES)}"
        raise InvalidCommand(msg)
    if not isinstance(d.get("activities"), list | tuple):
        msg = "activities must be an array; empty for none"  # null disconnects (docs/protocol.md#presence-update)
        raise InvalidCommand(msg)
    since = d.get("since")
    if since is not None and (isinstance(since, bool) or not isinstance(since, int) or not 0 <= since <= MAX_SINCE):
        msg = f"since is {shown(since)}; it must be milliseconds since the epoch, or null"
        raise InvalidCommand(msg)
    return PRESENCE


def _check_voice_state(d: Mapping[str, Any]) -> None:
    snowflake(d.get("guild_id"))
    if d.get("channel_id") is not None:
        snowflake(d["channel_id"])


def _check_sounds(d: Mapping[str, Any]) -> None:
    guild_ids = d.get("guild_ids")
    if not isinstance(guild_ids, list | tuple) or not guild_ids:
        msg = "guild_ids must be an array with at least one guild id"
        raise InvalidCommand(msg)
    for guild_id in guild_ids:
        snowflake(guild_id)
