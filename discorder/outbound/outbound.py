"""What a bot may say to the gateway: checked, turned into frames, and sent by the shard that it concerns.

One door for all of them: the tracker's methods, the bus and the command line come through `Outbound`. What waits and when it
goes is the outbox's affair (`outbox.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from discorder.clock import Clock, within
from discorder.errors import InvalidCommand, NoSuchShard, ShardNotReady
from discorder.outbound.members import GuildMembers, members_request
from discorder.outbound.sender import Sender
from discorder.statemachine.send_window import PLAIN, PRESENCE, Kind, Quota
from discorder.wire import Op, command_frame, shard_of_guild

COMMANDS: Mapping[str, Op] = MappingProxyType(
    {
        "presence": Op.PRESENCE_UPDATE,
        "members": Op.REQUEST_GUILD_MEMBERS,
        "voice_state": Op.VOICE_STATE_UPDATE,
        "soundboard_sounds": Op.REQUEST_SOUNDBOARD_SOUNDS,
        "channel_info": Op.REQUEST_CHANNEL_INFO,
    }
)
"""The names under which commands go over the bus."""

OF_A_GUILD = frozenset({Op.REQUEST_GUILD_MEMBERS, Op.VOICE_STATE_UPDATE, Op.REQUEST_CHANNEL_INFO})
NOT_A_BOTS = frozenset(Op) - frozenset(COMMANDS.values())
STATUSES = ("online", "dnd", "idle", "invisible", "offline")
ASKED_AT_ONCE = 100  # user_ids, or members by prefix, in one request (gateway-protocol.md §13.1)
GUILD_MEMBERS = 1 << 1  # the intent; a request for a whole guild without it ends the connection for good (4014)


class Outbound:
    """The commands of one control plane; every method belongs to its loop. Each may raise any `CommandRefused`."""

    def __init__(self, intents: int, clock: Clock) -> None:
        self._intents = intents
        self._clock = clock
        self._senders: dict[int, Sender] = {}
        self._shard_count = 1
        self._settled = asyncio.Event()  # the first shard is there, or none will be

    def add(self, shard: tuple[int, int], sender: Sender) -> None:
        """A shard, (id, count), has a way out from now on."""
        shard_id, self._shard_count = shard
        self._senders[shard_id] = sender
        self._settled.set()

    def close(self) -> None:
        """The control plane has ended: who waits for a first shard is told."""
        self._settled.set()

    async def send(self, op: int, d: Any, *, shard: int | None = None, timeout: float | None = None) -> None:
        """See `GatewayTracker.send`."""
        quota = self._check(op, d)
        timeout = await self._await_layout(timeout)
        parts = self._route(op, d, shard)
        sends = [self._sender(one).outbox.send(command_frame(op, part), quota, timeout=timeout) for one, part in parts]
        outcomes = await asyncio.gather(*sends, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def command(
        self,
        name: str,
        d: Any,
        *,
        shard: int | None = None,
        guild_id: int | str | None = None,
        timeout: float | None = None,
    ) -> None:
        """See `GatewayTracker.command`."""
        op = COMMANDS.get(name)
        if op is None:
            msg = f"there is no command {name!r}; there are: {', '.join(COMMANDS)}"
            raise InvalidCommand(msg)
        if guild_id is not None and isinstance(d, Mapping) and op in OF_A_GUILD:
            d = {"guild_id": str(guild_id), **d}
        await self.send(op, d, shard=shard, timeout=timeout)

    async def request_guild_members(
        self,
        guild_id: int | str,
        *,
        query: str = "",
        limit: int = 0,
        user_ids: Sequence[int | str] | None = None,
        presences: bool = False,
        timeout: float = 30.0,
        wait: bool = True,
    ) -> GuildMembers:
        """See `GatewayTracker.request_guild_members`."""
        wanted = members_request(guild_id, query=query, limit=limit, user_ids=user_ids, presences=presences)
        quota = self._check(Op.REQUEST_GUILD_MEMBERS, wanted)
        await self._await_layout(None if wait else 0.0)
        sender = self._sender(self._shard_of(guild_id))
        return await sender.members.request(_snowflake(guild_id), wanted, quota, timeout=timeout, wait=wait)

    # ---------------------------------------------------------------- which shard

    def _route(self, op: int, d: Mapping[str, Any], shard: int | None) -> list[tuple[int, Mapping[str, Any]]]:
        """Shards, and what each is to send."""
        if shard is not None:
            return [(shard, d)]
        if op == Op.PRESENCE_UPDATE:
            return [(one, d) for one in sorted(self._senders)]
        if op == Op.REQUEST_SOUNDBOARD_SOUNDS:
            return self._by_shard(d, d["guild_ids"])
        if "guild_id" in d:
            return [(self._shard_of(d["guild_id"]), d)]
        if len(self._senders) == 1:
            return [(next(iter(self._senders)), d)]
        msg = f"op {op} without a guild_id could go to any of {len(self._senders)} shards; pass shard="
        raise NoSuchShard(msg)

    async def _await_layout(self, timeout: float | None) -> float | None:
        """Wait until it is known which shards there are, and return what is left of ``timeout`` then."""
        began = self._clock.monotonic()
        if not self._settled.is_set() and timeout is None:
            await self._settled.wait()
        elif not self._settled.is_set() and timeout is not None and timeout > 0:
            with contextlib.suppress(TimeoutError):
                await within(self._clock, timeout, self._settled.wait())
        if not self._senders:
            why = "the control plane has ended" if self._settled.is_set() else "the gateway is being looked up"
            msg = f"no shard is there: {why}"
            raise ShardNotReady(msg)
        return None if timeout is None else timeout - (self._clock.monotonic() - began)

    def _by_shard(self, d: Mapping[str, Any], guild_ids: Iterable[Any]) -> list[tuple[int, Mapping[str, Any]]]:
        parts: dict[int, list[Any]] = {}
        for guild_id in guild_ids:
            parts.setdefault(self._shard_of(guild_id), []).append(guild_id)
        return [(shard, {**d, "guild_ids": part}) for shard, part in parts.items()]

    def _shard_of(self, guild_id: Any) -> int:
        return shard_of_guild(_snowflake(guild_id), self._shard_count)

    def _sender(self, shard: int) -> Sender:
        sender = self._senders.get(shard)
        if sender is None:
            known = ", ".join(str(one) for one in sorted(self._senders))
            msg = f"there is no shard {shard} of {self._shard_count} here; there are: {known}"
            raise NoSuchShard(msg)
        return sender

    # ---------------------------------------------------------------- what Discord would close the connection for

    def _check(self, op: int, d: Any) -> Quota:
        if isinstance(op, bool) or not isinstance(op, int):
            msg = f"an opcode is an integer, not {op!r}"
            raise InvalidCommand(msg)
        if op in NOT_A_BOTS:
            msg = f"op {int(op)} is not a bot's to send; heartbeats, IDENTIFY and RESUME are the control plane's"
            raise InvalidCommand(msg)
        if not isinstance(d, Mapping):
            msg = f"d of op {int(op)} must be an object, not {type(d).__name__}"
            raise InvalidCommand(msg)
        try:
            command_frame(op, d)
        except (TypeError, ValueError) as error:
            msg = f"d of op {int(op)} cannot be written as JSON: {error}"
            raise InvalidCommand(msg) from error
        match op:
            case Op.PRESENCE_UPDATE:
                return _check_presence(d)
            case Op.REQUEST_GUILD_MEMBERS:
                return self._check_members(d)
            case Op.VOICE_STATE_UPDATE | Op.REQUEST_CHANNEL_INFO:
                _snowflake(d.get("guild_id"))
            case Op.REQUEST_SOUNDBOARD_SOUNDS:
                _check_sounds(d)
            case _:
                pass  # an opcode newer than this version: Discord knows
        return PLAIN

    def _check_members(self, d: Mapping[str, Any]) -> Quota:
        guild_id = _snowflake(d.get("guild_id"))
        query, limit, user_ids = d.get("query"), d.get("limit", 0), d.get("user_ids")
        if user_ids is not None:
            asked = user_ids if isinstance(user_ids, list | tuple) else [user_ids]
            if not 1 <= len(asked) <= ASKED_AT_ONCE:
                msg = f"{len(asked)} user_ids; Discord takes 1 to {ASKED_AT_ONCE} at once"
                raise InvalidCommand(msg)
            for user_id in asked:
                _snowflake(user_id)
            return PLAIN
        if not isinstance(query, str) or isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
            msg = "a request for members needs user_ids, or a query (a string) with a limit (0 = all)"
            raise InvalidCommand(msg)
        if query or limit:
            return PLAIN
        if not self._intents & GUILD_MEMBERS:
            msg = "all members of a guild need the intent guild_members, which gateway.intents does not have"
            raise InvalidCommand(msg)
        return Quota(Kind.WHOLE_GUILD, guild_id)


def _check_presence(d: Mapping[str, Any]) -> Quota:
    if d.get("status") not in STATUSES:
        msg = f"status is {d.get('status')!r}; allowed: {', '.join(STATUSES)}"
        raise InvalidCommand(msg)
    if not isinstance(d.get("activities"), list | tuple):
        msg = "activities must be an array; empty for none"  # null disconnects (gateway-protocol.md §13.3)
        raise InvalidCommand(msg)
    return PRESENCE


def _check_sounds(d: Mapping[str, Any]) -> None:
    guild_ids = d.get("guild_ids")
    if not isinstance(guild_ids, list | tuple) or not guild_ids:
        msg = "guild_ids must be an array with at least one guild id"
        raise InvalidCommand(msg)
    for guild_id in guild_ids:
        _snowflake(guild_id)


def _snowflake(value: Any) -> int:
    """An id as JSON has it, a string, or as an integer."""
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 64:
        msg = f"{value!r} is no guild or user id"
        raise InvalidCommand(msg)
    return value
