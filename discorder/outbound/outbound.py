"""Check commands, turn them into frames and route them to the outbox of their shard.

The tracker's methods, the bus and the command line all use `Outbound`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from discorder.clock import Clock, within
from discorder.errors import InvalidCommand, NoSuchShard, ShardNotReady
from discorder.outbound.checks import COMMANDS, check_command, shown, snowflake
from discorder.outbound.members import GuildMembers, MemberRequests, Watcher, members_request
from discorder.outbound.outbox import Outbox, Write
from discorder.stats import GatewayStats
from discorder.wire import Op, command_frame, shard_of_guild

T = TypeVar("T")

GUILD_OPS = frozenset({Op.REQUEST_GUILD_MEMBERS, Op.VOICE_STATE_UPDATE, Op.REQUEST_CHANNEL_INFO})


class Sender:
    """The outbox of one shard and its open requests for members. The shard's driver creates it and reports its life cycle."""

    def __init__(
        self,
        shard_id: int,
        *,
        clock: Clock,
        rng: random.Random,
        stats: GatewayStats,
        watch: Callable[[Watcher | None], None],
        pause_reason: Callable[[], str | None],
    ) -> None:
        self.outbox = Outbox(shard_id, clock, stats, pause_reason=pause_reason)
        self.members = MemberRequests(self.outbox, clock=clock, rng=rng, watch=watch)

    def ready(self, write: Write, failed: Callable[[BaseException], None], *, new_session: bool) -> None:
        """Open the outbox, because the shard is Ready. In a new session, repeat the open requests for members."""
        self.outbox.open(write, failed, new_session=new_session)
        if new_session:
            self.members.session_lost()

    def close(self) -> None:
        """Refuse the waiting commands, because the shard has ended."""
        self.outbox.close()
        self.members.close()


class Outbound:
    """Sends the commands of one control plane, on its event loop. Every method may raise any `CommandRefused`."""

    def __init__(self, intents: int, clock: Clock) -> None:
        self._intents = intents
        self._clock = clock
        self._senders: dict[int, Sender] = {}
        self._shard_count = 1
        self._settled = asyncio.Event()  # set once the shards are known, and by the end of the control plane
        self._closed = False

    def add(self, shard: tuple[int, int], sender: Sender) -> None:
        """Add the sender of ``shard``, (id, count)."""
        shard_id, self._shard_count = shard
        self._senders[shard_id] = sender
        self._settled.set()

    def remove(self, shard_id: int) -> None:
        """Refuse the commands of a shard that has left."""
        self._senders.pop(shard_id, None)

    def use_layout(self, shard_count: int) -> None:
        """Wait for no shard: there are ``shard_count``, and none of them runs here now."""
        self._shard_count = shard_count
        self._settled.set()

    def close(self) -> None:
        """Wake the callers that wait for the first shard, because the control plane has ended."""
        self._closed = True
        self._settled.set()

    async def send(self, op: int, d: Any, *, shard: int | None = None, timeout: float | None = None) -> None:
        """See `GatewayTracker.send`."""
        quota = check_command(op, d, self._intents)
        timeout = await self._await_layout(timeout)
        parts = self._route(op, d, shard)
        sends = [self._sender(one).outbox.send(command_frame(op, part), quota, timeout=timeout) for one, part in parts]
        await _all_of(sends)

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
            msg = f"there is no command {shown(name)}; the commands are: {', '.join(COMMANDS)}"
            raise InvalidCommand(msg)
        if guild_id is not None and isinstance(d, Mapping) and op in GUILD_OPS:
            d = {"guild_id": str(snowflake(guild_id)), **d}
        await self.send(op, d, shard=shard, timeout=timeout)

    async def show_presence(self, d: Any, *, shard: int | None = None) -> float:
        """Set the presence ``d`` on every shard, or on one, as soon as Discord's limit allows; drop one that waits already.

        Returns the seconds until the last shard has sent it, 0 if all have.
        """
        check_command(Op.PRESENCE_UPDATE, d, self._intents)
        await self._await_layout(0.0)
        frame = command_frame(Op.PRESENCE_UPDATE, d)
        outboxes = [self._sender(one).outbox for one, _ in self._route(Op.PRESENCE_UPDATE, d, shard)]
        return max(await _all_of(outbox.show_presence(frame) for outbox in outboxes))

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
        """See `GatewayTracker.request_guild_members`."""
        wanted = members_request(guild_id, query=query, limit=limit, user_ids=user_ids, presences=presences)
        quota = check_command(Op.REQUEST_GUILD_MEMBERS, wanted, self._intents)
        await self._await_layout(None if wait else 0.0)
        sender = self._sender(self._shard_of(guild_id))
        return await sender.members.request(snowflake(guild_id), wanted, quota, timeout=timeout, wait=wait)

    # ---------------------------------------------------------------- which shard

    def _route(self, op: int, d: Mapping[str, Any], shard: int | None) -> list[tuple[int, Mapping[str, Any]]]:
        """Return the shards, each with its ``d``."""
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
        msg = f"op {op} without a guild_id does not determine one of {len(self._senders)} shards; pass shard="
        raise NoSuchShard(msg)

    async def _await_layout(self, timeout: float | None) -> float | None:
        """Wait until the shards are known, and return the rest of ``timeout``."""
        began = self._clock.monotonic()
        if not self._settled.is_set() and timeout is None:
            await self._settled.wait()
        elif not self._settled.is_set() and timeout is not None and timeout > 0:
            with contextlib.suppress(TimeoutError):
                await within(self._clock, timeout, self._settled.wait())
        if not self._senders and (self._closed or not self._settled.is_set()):
            why = "the control plane has ended" if self._closed else "the look-up of the gateway is not done"
            msg = f"there is no shard: {why}"
            raise ShardNotReady(msg)
        if not self._senders:
            msg = f"none of the {self._shard_count} shards runs in this process; ask the one that runs them"
            raise NoSuchShard(msg)
        return None if timeout is None else timeout - (self._clock.monotonic() - began)

    def _by_shard(self, d: Mapping[str, Any], guild_ids: Iterable[Any]) -> list[tuple[int, Mapping[str, Any]]]:
        parts: dict[int, list[Any]] = {}
        for guild_id in guild_ids:
            parts.setdefault(self._shard_of(guild_id), []).append(guild_id)
        return [(shard, {**d, "guild_ids": part}) for shard, part in parts.items()]

    def _shard_of(self, guild_id: Any) -> int:
        return shard_of_guild(snowflake(guild_id), self._shard_count)

    def _sender(self, shard: int) -> Sender:
        sender = self._senders.get(shard)
        if sender is None:
            known = ", ".join(str(one) for one in sorted(self._senders))
            msg = f"there is no shard {shard} of {self._shard_count} in this process; its shards are: {known}"
            raise NoSuchShard(msg)
        return sender


async def _all_of(sends: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Wait for all coroutines, also if one fails. Raises the first error."""
    outcomes = await asyncio.gather(*sends, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
