"""Request the members of a guild and collect the chunks (docs/protocol.md#request-guild-members).

Chunks are published like every event. Events are inspected here only while a request is open.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from discorder.clock import Clock, within
from discorder.errors import CommandRateLimited, CommandUnanswered, ShardNotReady
from discorder.logs import logger
from discorder.outbound.checks import as_snowflake, snowflake
from discorder.outbound.outbox import Outbox
from discorder.statemachine.send_window import Quota
from discorder.wire import Event, Op, command_frame, decode_leniently, default_members_limit

Watcher = Callable[[Event], None]

LONGEST_RETRY = 3_600.0  # seconds; Discord's are some 30, a larger number is replaced by this one
MAX_CHUNKS = 1_000_000  # of 1,000 members each: more than any guild has


@dataclass(frozen=True, slots=True)
class GuildMembers:
    """The result of one request: Discord's member objects in the order of the chunks.

    ``not_found``: requested ids that are not members. ``presences``: empty unless requested and allowed.
    """

    guild_id: int
    members: tuple[dict[str, Any], ...]
    not_found: tuple[int, ...]
    presences: tuple[dict[str, Any], ...]

    def __repr__(self) -> str:
        counts = f"{len(self.members)} members, {len(self.not_found)} not found, {len(self.presences)} presences"
        return f"GuildMembers(guild_id={self.guild_id}, {counts})"


class _Nonce(msgspec.Struct):
    nonce: str = ""


class _MembersChunk(msgspec.Struct):
    chunk_index: Annotated[int, Meta(ge=0, lt=MAX_CHUNKS)]
    chunk_count: Annotated[int, Meta(ge=1, le=MAX_CHUNKS)]
    members: list[dict[str, Any]]
    not_found: list[int | str] = []  # Discord returns an id beyond a snowflake's size as an integer
    presences: list[dict[str, Any]] = []


class _RateLimitNotice(msgspec.Struct):
    retry_after: float
    opcode: int = 0
    meta: _Nonce = msgspec.field(default_factory=_Nonce)


class _Update(Enum):
    CHUNK = auto()
    COMPLETE = auto()
    LIMITED = auto()
    SESSION_LOST = auto()
    ENDED = auto()


@dataclass(slots=True)
class _MembersRequest:
    """One open request and its chunks so far. The caller of the request reads ``updates``."""

    guild_id: int
    chunks: dict[int, _MembersChunk] = field(default_factory=dict)
    retry_after: float = 0.0
    updates: asyncio.Queue[_Update] = field(default_factory=asyncio.Queue)

    def take(self, chunk: _MembersChunk) -> None:
        self.chunks[chunk.chunk_index] = chunk  # a replayed chunk replaces itself
        complete = len(self.chunks) >= chunk.chunk_count
        self.updates.put_nowait(_Update.COMPLETE if complete else _Update.CHUNK)

    def result(self) -> GuildMembers:
        chunks = [self.chunks[index] for index in sorted(self.chunks)]
        return GuildMembers(
            self.guild_id,
            tuple(member for chunk in chunks for member in chunk.members),
            tuple(number for chunk in chunks for one in chunk.not_found if (number := as_snowflake(one)) is not None),
            tuple(presence for chunk in chunks for presence in chunk.presences),
        )


class MemberRequests:
    """The open requests of one shard. ``watch`` sets the function that inspects events, or None."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        clock: Clock,
        rng: random.Random,
        watch: Callable[[Watcher | None], None],
    ) -> None:
        self._outbox = outbox
        self._clock = clock
        self._rng = rng
        self._watch = watch
        self._open: dict[str, _MembersRequest] = {}

    async def request(
        self, guild_id: int, body: dict[str, Any], quota: Quota, *, timeout: float, wait: bool
    ) -> GuildMembers:
        """Send ``body`` (op 8's ``d`` without a nonce) and return once all chunks have arrived.

        ``timeout``: seconds without a chunk, while the shard is Ready, after which `CommandUnanswered` is raised. Without
        ``wait``, raise `CommandRateLimited` or `ShardNotReady` where the request would have to wait, also after RATE_LIMITED.
        """
        nonce = f"{self._rng.getrandbits(64):016x}"
        request = self._open[nonce] = _MembersRequest(guild_id)
        self._watch(self._take)
        frame = command_frame(Op.REQUEST_GUILD_MEMBERS, {**body, "nonce": nonce})
        try:
            while True:
                await self._outbox.send(frame, quota, timeout=None if wait else 0.0)
                if await self._collect(request, timeout) is _Update.COMPLETE:
                    return request.result()
                if not wait and request.retry_after:
                    msg = f"Discord allows no further request for all members of guild {guild_id} yet"
                    raise CommandRateLimited(msg, request.retry_after)
        finally:
            del self._open[nonce]
            if not self._open:
                self._watch(None)

    def session_lost(self) -> None:
        """Repeat the open requests in a new session, because the missing chunks of the old one do not come any more."""
        for request in self._open.values():
            request.updates.put_nowait(_Update.SESSION_LOST)

    def close(self) -> None:
        """End the open requests, because the shard has ended."""
        for request in self._open.values():
            request.updates.put_nowait(_Update.ENDED)

    async def _collect(self, request: _MembersRequest, timeout: float) -> _Update:
        """Wait for the last chunk, or for an update that requires another request."""
        while True:
            update = await self._next_update(request, timeout)
            if update is _Update.ENDED:
                msg = f"the control plane ended before all members of guild {request.guild_id} had arrived"
                raise ShardNotReady(msg)
            if update is not _Update.CHUNK:
                if update is _Update.SESSION_LOST:
                    request.chunks.clear()
                return update

    async def _next_update(self, request: _MembersRequest, timeout: float) -> _Update:
        while True:
            try:
                return await within(self._clock, timeout, request.updates.get())
            except TimeoutError:
                if self._outbox.is_open:
                    got = len(request.chunks)
                    msg = f"the members of guild {request.guild_id} are incomplete: {got} chunks, then none for {timeout:g} s"
                    raise CommandUnanswered(msg) from None

    # ---------------------------------------------------------------- called for each event while a request is open

    def _take(self, event: Event) -> None:
        """Store a chunk or a RATE_LIMITED. An event that cannot be parsed is logged; the request then ends by its timeout."""
        try:
            if event.type == "GUILD_MEMBERS_CHUNK":
                request = self._open.get(decode_leniently(event.data, _Nonce).nonce)
                if request is not None:
                    request.take(decode_leniently(event.data, _MembersChunk))
            elif event.type == "RATE_LIMITED":
                self._rate_limited(decode_leniently(event.data, _RateLimitNotice))
        except ValueError as error:
            logger.warning("An answer to a request for members cannot be read", type=event.type, error=str(error))

    def _rate_limited(self, limited: _RateLimitNotice) -> None:
        request = self._open.get(limited.meta.nonce)
        if limited.opcode != Op.REQUEST_GUILD_MEMBERS or request is None:
            return
        request.retry_after = min(max(limited.retry_after, 0.0), LONGEST_RETRY)
        self._outbox.hold_guild(request.guild_id, request.retry_after)
        request.updates.put_nowait(_Update.LIMITED)


def members_request(
    guild_id: int | str, *, query: str, limit: int | None, user_ids: Sequence[int | str] | None, presences: bool
) -> dict[str, Any]:
    """Return op 8's ``d`` without a nonce; `check_command` refuses contradictions. Raises `InvalidCommand`."""
    body: dict[str, Any] = {"guild_id": str(snowflake(guild_id)), "presences": presences}
    if limit is None:
        limit = default_members_limit(query)
    if user_ids is None:
        return {**body, "query": query, "limit": limit}
    both = {"query": query, "limit": limit} if query else {}
    return {**body, **both, "user_ids": [str(snowflake(user_id)) for user_id in user_ids]}
