"""What a bot says to the gateway, as methods of the tracker. Checks, routing and waiting are done behind them (`outbound.py`)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from discorder.outbound.members import GuildMembers
from discorder.outbound.outbound import Outbound
from discorder.runtime.loops import on_loop
from discorder.wire import Op

T = TypeVar("T")


class CommandPlane(Protocol):
    """What these methods ask of the control plane."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    @property
    def outbound(self) -> Outbound: ...


class GatewayCommands:
    """The outbound half of a tracker. Its methods may be awaited on any loop; a thread has `BackgroundPlane.call` for them.

    Ids may be the strings that events have.
    """

    def __init__(self, plane: CommandPlane) -> None:
        self._commanded = plane

    async def send(self, op: int, d: Any, *, shard: int | None = None, timeout: float | None = None) -> None:
        """Send a command: op 3, 4, 8, 31, 43, or one that is newer than this version. Returns once it is written to the socket.

        ``shard``: None means the shard of ``d["guild_id"]``, and every shard for a presence. Commands wait in order for room in
        Discord's limits and, across reconnects, for the next session. ``timeout``: seconds that it may wait; None: as long as it
        takes, 0: only if it may go at once. Being cancelled withdraws it.

        Raises `CommandRefused`: `InvalidCommand`, `CommandTooLarge`, `NoSuchShard`, `CommandRateLimited`, `ShardNotReady`.
        """
        await self._ask(self._commanded.outbound.send(op, d, shard=shard, timeout=timeout))

    async def command(
        self,
        name: str,
        d: Any,
        *,
        shard: int | None = None,
        guild_id: int | str | None = None,
        timeout: float | None = None,
    ) -> None:
        """`send` with a name, as on the bus: presence, members, voice_state, soundboard_sounds or channel_info.

        ``guild_id`` goes into a ``d`` that has none.
        """
        await self._ask(self._commanded.outbound.command(name, d, shard=shard, guild_id=guild_id, timeout=timeout))

    async def set_presence(
        self,
        *,
        status: str = "online",
        activities: Sequence[Mapping[str, Any]] = (),
        afk: bool = False,
        since: int | None = None,
        shard: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Show ``status`` and ``activities`` (gateway-protocol.md §13.3) on every shard, or on one; it outlives sessions.

        ``status``: online, dnd, idle, invisible or offline. ``since``: milliseconds since the epoch, for idle. Else as `send`.
        """
        d = {"since": since, "activities": list(activities), "status": status, "afk": afk}
        await self.send(Op.PRESENCE_UPDATE, d, shard=shard, timeout=timeout)

    async def update_voice_state(
        self,
        guild_id: int | str,
        channel_id: int | str | None,
        *,
        self_mute: bool = False,
        self_deaf: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Join ``channel_id`` of a guild, move to it, or with None leave (gateway-protocol.md §13.4). Else as `send`.

        Discord answers with the events VOICE_STATE_UPDATE and VOICE_SERVER_UPDATE.
        """
        channel = None if channel_id is None else str(channel_id)
        d = {"guild_id": str(guild_id), "channel_id": channel, "self_mute": self_mute, "self_deaf": self_deaf}
        await self.send(Op.VOICE_STATE_UPDATE, d, timeout=timeout)

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
        """Ask for members of a guild and return them when every chunk has come (gateway-protocol.md §13.1).

        ``query``: a prefix of user names with at most ``limit`` of them; "" with 0: all members, which Discord allows once in
        30 s per guild. ``user_ids``: at most 100, instead. ``timeout``: seconds of silence, while the shard is Ready. ``wait``:
        wait for a session, for room in the limits, and when Discord says RATE_LIMITED; False: raise with ``retry_after``.

        Raises what `send` raises, and `CommandUnanswered` when the chunks do not come.
        """
        outbound = self._commanded.outbound
        return await self._ask(
            outbound.request_guild_members(
                guild_id, query=query, limit=limit, user_ids=user_ids, presences=presences, timeout=timeout, wait=wait
            )
        )

    async def _ask(self, wanted: Coroutine[Any, Any, T]) -> T:
        return await on_loop(self._commanded.loop, wanted)
