"""Offer the bot's commands to the gateway as methods of the tracker, callable from any event loop."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from discorder.outbound.members import GuildMembers
from discorder.runtime.loops import on_loop
from discorder.tracking.protocol import CommandPlane
from discorder.wire import Op

T = TypeVar("T")


class GatewayCommands:
    """The outbound methods of a tracker. They can be awaited on any event loop; a thread uses `BackgroundPlane.call`.

    Ids may be integers, or strings as in events.
    """

    def __init__(self, plane: CommandPlane) -> None:
        self._command_plane = plane

    async def send(self, op: int, d: Any, *, shard: int | None = None, timeout: float | None = None) -> None:
        """Send a command: op 3, 4, 8, 31, 43, or one that is newer than this version. Return once it is written to the socket.

        ``shard``: None means the shard of ``d["guild_id"]``, and every shard for a presence. Commands wait in order for Discord's
        limits, and after a lost connection for the next one. ``timeout``: the seconds that it may wait; None: without a limit,
        0: send at once or raise. Cancelling removes a command that is not written yet.

        Raises `CommandRefused`: `InvalidCommand`, `CommandTooLarge`, `NoSuchShard`, `CommandRateLimited`, `ShardNotReady`.
        """
        await self._on_plane_loop(self._command_plane.outbound.send(op, d, shard=shard, timeout=timeout))

    async def command(
        self,
        name: str,
        d: Any,
        *,
        shard: int | None = None,
        guild_id: int | str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Send a command by its name on the bus: presence, members, voice_state, soundboard_sounds or channel_info.

        ``guild_id`` is added to ``d`` if that has none. Otherwise as `send`.
        """
        await self._on_plane_loop(
            self._command_plane.outbound.command(name, d, shard=shard, guild_id=guild_id, timeout=timeout)
        )

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
        """Set ``status`` and ``activities`` (docs/protocol.md#presence-update) on every shard or on one, in later sessions too.

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
        """Join or move to ``channel_id`` of a guild, or leave with None (docs/protocol.md#voice-state-update). Else as `send`.

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
        limit: int | None = None,
        user_ids: Sequence[int | str] | None = None,
        presences: bool = False,
        timeout: float = 30.0,
        wait: bool = True,
    ) -> GuildMembers:
        """Request members of a guild and return them when all chunks have arrived (docs/protocol.md#request-guild-members).

        ``query``: a prefix of user names, with at most ``limit`` of them (None: 100); "" with 0 or None: all members, which
        Discord allows once in 30 s per guild. ``user_ids``: at most 100, instead of a query. ``timeout``: seconds without a chunk
        while the shard is Ready. ``wait``: wait for a session, for the limits, and after RATE_LIMITED; False: raise with
        ``retry_after`` instead.

        Raises the errors of `send`, and `CommandUnanswered` if chunks are missing.
        """
        outbound = self._command_plane.outbound
        return await self._on_plane_loop(
            outbound.request_guild_members(
                guild_id, query=query, limit=limit, user_ids=user_ids, presences=presences, timeout=timeout, wait=wait
            )
        )

    async def _on_plane_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return await on_loop(self._command_plane.loop, coroutine)
