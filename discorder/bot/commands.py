"""Commands to the gateway from a bot in another process, through the ROUTER beside the bus.

Imports only ``wire``, ``errors``, ZeroMQ, msgspec and its own parts: a bot needs nothing else of the control plane.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import zmq

from discorder.bot.dealer import Dealer
from discorder.bot.sockets import DEFAULT_ADDRESS, CurveKeys, Waiter, check_address
from discorder.errors import CommandRefused
from discorder.wire import replay_address

TIMEOUT = 10.0  # seconds for an answer
TRY_AGAIN = 0.05  # seconds, while the control plane is not there


class Commands:
    """Speaks to the gateway through the control plane that publishes at ``address``.

    ::

        async with discorder.Commands() as commands:
            await commands.presence(status="idle")

    ``router``: where its ROUTER is (None: the port after that of ``address``, or its path + ``.replay``). ``keys`` are for a bus
    with CURVE. ``timeout``: seconds for an answer, the time included in which nobody is there.

    The control plane never makes a command wait: each raises `CommandRefused` with ``reason`` (rate_limited, not_ready,
    too_large, no_such_shard, invalid, busy, commands_off, no_answer) and, where waiting helps, ``retry_after`` in seconds. After
    no_answer it may have been sent.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        router: str | None = None,
        keys: CurveKeys | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        check_address(address)
        self._timeout = timeout
        self._keys = keys
        self._context = zmq.Context()
        try:
            self._dealer = Dealer(self._context, router or replay_address(address), keys)
        except BaseException:
            self._context.term()
            raise
        self._waiter = Waiter([self._dealer.socket])
        self._turn = asyncio.Lock()

    async def presence(
        self,
        *,
        status: str = "online",
        activities: Sequence[Mapping[str, Any]] = (),
        afk: bool = False,
        since: int | None = None,
        shard: int | None = None,
    ) -> None:
        """Show ``status`` (online, dnd, idle, invisible, offline) and ``activities`` on every shard, or on one.

        ``since``: milliseconds since the epoch, for idle.
        """
        d = {"since": since, "activities": list(activities), "status": status, "afk": afk}
        await self.send("presence", d, shard=shard)

    async def voice_state(
        self, guild_id: int, channel_id: int | None, *, self_mute: bool = False, self_deaf: bool = False
    ) -> None:
        """Join ``channel_id`` of a guild, move to it, or with None leave. Discord answers with events on the bus."""
        channel = None if channel_id is None else str(channel_id)
        await self.send(
            "voice_state",
            {"channel_id": channel, "self_mute": self_mute, "self_deaf": self_deaf},
            guild_id=guild_id,
        )

    async def members(
        self,
        guild_id: int,
        *,
        query: str = "",
        limit: int = 0,
        user_ids: Sequence[int] | None = None,
        presences: bool = False,
        nonce: str | None = None,
    ) -> str:
        """Ask for members of a guild; returns the nonce once it is sent.

        They come on the bus, as events GUILD_MEMBERS_CHUNK with this nonce; the one whose ``chunk_index`` is its ``chunk_count``
        minus 1 is the last. A RATE_LIMITED with the nonce in its ``meta`` comes instead when Discord wants none yet. ``query``: a
        prefix of names with at most ``limit`` of them, "" with 0: all; or at most 100 ``user_ids``. ``nonce``: of the bot's own,
        at most 32 bytes, for one that listens before it asks.
        """
        wanted: dict[str, Any] = {"presences": presences}
        if user_ids is None:
            wanted |= {"query": query, "limit": limit}
        else:
            wanted["user_ids"] = [str(user_id) for user_id in user_ids]
        if nonce is not None:
            wanted["nonce"] = nonce
        return str((await self.send("members", wanted, guild_id=guild_id))["nonce"])

    async def send(
        self, command: str, d: Mapping[str, Any], *, shard: int | None = None, guild_id: int | None = None
    ) -> dict[str, Any]:
        """Any command by its name, with the body ``d``; returns the fields of the answer."""
        target = {"shard": shard} if guild_id is None else {"guild_id": str(guild_id)}
        return await self.ask("command", command=command, d=d, **target)

    async def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Any request that is answered in one part; returns its fields. One at a time."""
        async with self._turn:
            try:
                async with asyncio.timeout(self._timeout):
                    answer = await self._answer(await self._sent(op, fields))
            except TimeoutError:
                where = f"{self._dealer.address} within {self._timeout:g} s"
                key = "" if self._keys is None else ", and is this client's key in its curve_clients"
                msg = f"no answer from {where}; does the control plane run, with replay on{key}?"
                raise CommandRefused("no_answer", msg) from None
        if not answer.get("ok"):
            reason = str(answer.get("error"))
            raise CommandRefused(reason, str(answer.get("message") or reason), answer.get("retry_after"))
        return answer

    async def aclose(self) -> None:
        """Give the socket back. Idempotent."""
        self._give_back()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if hasattr(self, "_waiter"):
            self._give_back()

    async def _sent(self, op: str, fields: Mapping[str, Any]) -> bytes:
        while (number := self._dealer.ask(op, **fields)) is None:  # noqa: ASYNC110  # ZeroMQ does not say when one may send
            await asyncio.sleep(TRY_AGAIN)
        return number

    async def _answer(self, number: bytes) -> dict[str, Any]:
        while True:
            part = self._dealer.read()
            if part is None:
                await self._waiter.wait(None)
            elif part.id == number and not part.topic:
                return part.fields()

    def _give_back(self) -> None:
        self._waiter.wake()
        self._waiter.close()
        self._dealer.close()
        self._context.term()
