"""The members of a guild, asked for and collected: op 8 out, GUILD_MEMBERS_CHUNK and RATE_LIMITED in (gateway-protocol.md §13.1).

The chunks are events like any other and reach the publishers untouched. Nothing is looked at here unless a request is open, and
then only events of these two types.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import msgspec

from discorder.clock import Clock, within
from discorder.errors import CommandRateLimited, CommandUnanswered, ShardNotReady
from discorder.logs import logger
from discorder.outbound.outbox import Outbox
from discorder.statemachine.send_window import Quota
from discorder.wire import Event, Op, command_frame

Watcher = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class GuildMembers:
    """What one request brought: Discord's member objects in the order of the chunks.

    ``not_found``: ids that were asked for and are no members. ``presences``: empty unless asked for and allowed.
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


class _Chunk(msgspec.Struct):
    chunk_index: int
    chunk_count: int
    members: list[dict[str, Any]]
    not_found: list[int | str] = []  # an id that is not of a snowflake's size comes back as an integer
    presences: list[dict[str, Any]] = []


class _Limited(msgspec.Struct):
    retry_after: float
    opcode: int = 0
    meta: _Nonce = msgspec.field(default_factory=_Nonce)


_decode_nonce = msgspec.json.Decoder(_Nonce).decode
_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_limited = msgspec.json.Decoder(_Limited).decode


class _News(Enum):
    CHUNK = auto()
    COMPLETE = auto()
    LIMITED = auto()
    SESSION_LOST = auto()
    ENDED = auto()


@dataclass(slots=True)
class _Request:
    """One open request and what has come for it. ``news`` is for whoever waits."""

    guild_id: int
    chunks: dict[int, _Chunk] = field(default_factory=dict)
    retry_after: float = 0.0
    news: asyncio.Queue[_News] = field(default_factory=asyncio.Queue)

    def take(self, chunk: _Chunk) -> None:
        self.chunks[chunk.chunk_index] = chunk  # a chunk that is replayed takes its own place
        complete = len(self.chunks) >= chunk.chunk_count
        self.news.put_nowait(_News.COMPLETE if complete else _News.CHUNK)

    def result(self) -> GuildMembers:
        chunks = [self.chunks[index] for index in sorted(self.chunks)]
        return GuildMembers(
            self.guild_id,
            tuple(member for chunk in chunks for member in chunk.members),
            tuple(int(user_id) for chunk in chunks for user_id in chunk.not_found),
            tuple(presence for chunk in chunks for presence in chunk.presences),
        )


class MemberRequests:
    """The open requests of one shard. ``watch`` turns the looking at events on and off."""

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
        self._open: dict[str, _Request] = {}

    async def request(
        self, guild_id: int, wanted: dict[str, Any], quota: Quota, *, timeout: float, wait: bool
    ) -> GuildMembers:
        """Send ``wanted`` (op 8's ``d`` without a nonce) and return once every chunk has come.

        ``timeout``: seconds of silence, while the shard is Ready, after which `CommandUnanswered` is raised. Without ``wait``,
        `CommandRateLimited` or `ShardNotReady` is raised where the request would have to wait, for Discord's limit included.
        """
        nonce = f"{self._rng.getrandbits(64):016x}"
        request = self._open[nonce] = _Request(guild_id)
        self._watch(self._take)
        frame = command_frame(Op.REQUEST_GUILD_MEMBERS, {**wanted, "nonce": nonce})
        try:
            while True:
                await self._outbox.send(frame, quota, timeout=None if wait else 0.0)
                if await self._collect(request, timeout) is _News.COMPLETE:
                    return request.result()
                if not wait and request.retry_after:
                    msg = f"Discord wants no request for all members of guild {guild_id} yet"
                    raise CommandRateLimited(msg, request.retry_after)
        finally:
            del self._open[nonce]
            if not self._open:
                self._watch(None)

    def session_lost(self) -> None:
        """A new session has begun: what the old one still owed does not come any more, and is asked for again."""
        for request in self._open.values():
            request.news.put_nowait(_News.SESSION_LOST)

    def close(self) -> None:
        """The shard has ended: nothing comes any more."""
        for request in self._open.values():
            request.news.put_nowait(_News.ENDED)

    async def _collect(self, request: _Request, timeout: float) -> _News:
        """Wait for the last chunk, or for what makes it necessary to ask again."""
        while True:
            news = await self._next_news(request, timeout)
            if news is _News.ENDED:
                msg = f"the control plane ended before the members of guild {request.guild_id} had come"
                raise ShardNotReady(msg)
            if news is not _News.CHUNK:
                if news is _News.SESSION_LOST:
                    request.chunks.clear()
                return news

    async def _next_news(self, request: _Request, timeout: float) -> _News:
        while True:
            try:
                return await within(self._clock, timeout, request.news.get())
            except TimeoutError:
                if self._outbox.is_open:
                    got = len(request.chunks)
                    msg = f"the members of guild {request.guild_id} did not come: {got} chunks, then {timeout:g} s of silence"
                    raise CommandUnanswered(msg) from None

    # ---------------------------------------------------------------- told by the reception

    def _take(self, event: Event) -> None:
        """An event came while a request is open. What cannot be read is left to the silence."""
        try:
            if event.type == "GUILD_MEMBERS_CHUNK":
                request = self._open.get(_decode_nonce(event.data).nonce)
                if request is not None:
                    request.take(_decode_chunk(event.data))
            elif event.type == "RATE_LIMITED":
                self._limited(_decode_limited(event.data))
        except ValueError as error:
            logger.warning("An answer to a request for members cannot be read", type=event.type, error=str(error))

    def _limited(self, limited: _Limited) -> None:
        request = self._open.get(limited.meta.nonce)
        if limited.opcode != Op.REQUEST_GUILD_MEMBERS or request is None:
            return
        self._outbox.hold_guild(request.guild_id, limited.retry_after)
        request.retry_after = limited.retry_after
        request.news.put_nowait(_News.LIMITED)


def members_request(
    guild_id: int | str, *, query: str, limit: int, user_ids: Sequence[int | str] | None, presences: bool
) -> dict[str, Any]:
    """Op 8's ``d`` without a nonce. ``user_ids`` take the place of ``query`` and ``limit``."""
    wanted: dict[str, Any] = {"guild_id": str(guild_id), "presences": presences}
    if user_ids is None:
        return {**wanted, "query": query, "limit": limit}
    return {**wanted, "user_ids": [str(user_id) for user_id in user_ids]}
