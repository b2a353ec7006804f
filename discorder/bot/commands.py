"""Sends commands to the gateway from a bot in another process, through the ROUTER beside the bus.

Imports only ``wire``, ``errors``, ZeroMQ, msgspec and its own parts: so that a bot loads nothing of the control plane.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import zmq

from discorder.bot.brokers import COMMAND_ADDRESSES, Requests, broker_of, open_requests
from discorder.bot.dealer import Dealer, ForeignAnswer
from discorder.bot.sockets import CurveKeys, Waiter, check_address
from discorder.errors import CommandRefused
from discorder.paths import DEFAULT_ADDRESS
from discorder.wire import default_members_limit, replay_address

TIMEOUT = 10.0  # seconds for an answer
LONGEST_WAIT = 600.0  # seconds that a command may wait in the control plane
MAX_WAIT = 86_400.0  # seconds; the control plane sends no longer retry_after


class Commands:
    """Sends commands through the control plane that publishes at ``address``.

    ::

        async with discorder.Commands() as commands:
            await commands.presence(status="idle")

    ``address`` may be that of NATS servers, as in `subscribe`; the publisher there needs ``commands = true``.
    ``router``: where its ROUTER is (None: the port after that of ``address``, or its path + ``.replay``). ``keys`` are for a bus
    with CURVE. ``timeout``: seconds for an answer, including the time until the control plane listens. ``wait``: seconds, at most
    600, that a command may wait in the control plane for Discord's limits and for a session; the commands after it wait, too.

    A command that would have to wait longer raises `CommandRefused` with ``reason`` (rate_limited, not_ready, too_large,
    no_such_shard, invalid, busy, commands_off, no_answer) and, where waiting helps, ``retry_after`` in seconds. A command that
    got no_answer may have been sent. Raises ValueError for an address, keys or a ``wait`` that cannot be used.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        router: str | None = None,
        keys: CurveKeys | None = None,
        timeout: float = TIMEOUT,
        wait: float = 0.0,
    ) -> None:
        if not 0 <= wait <= LONGEST_WAIT:
            msg = f"wait is {wait:g} s, and must be 0 to {LONGEST_WAIT:g}"
            raise ValueError(msg)
        self._timeout = timeout
        self._wait = wait
        self._requests: Requests
        if broker_of(address) is None:
            self._requests = RouterRequests(address, router, keys)
        else:
            self._requests = open_requests(address, router, keys)
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
        limit: int | None = None,
        user_ids: Sequence[int] | None = None,
        presences: bool = False,
        nonce: str | None = None,
    ) -> str:
        """Request members of a guild; return the nonce once the request is sent.

        The members come on the bus, as events GUILD_MEMBERS_CHUNK with this nonce; the one whose ``chunk_index`` is its
        ``chunk_count`` minus 1 is the last. A RATE_LIMITED with the nonce in its ``meta`` comes instead when Discord refuses the
        request for now. ``query``: a prefix of names, with at most ``limit`` of them (None: 100); "" with 0 or None: all. Or
        at most 100 ``user_ids``. ``nonce``: chosen by the bot, at most 32 bytes, if it has to know it before the answer.
        """
        wanted: dict[str, Any] = {"presences": presences}
        if user_ids is None or query:  # both are refused by the control plane
            wanted |= {"query": query, "limit": default_members_limit(query) if limit is None else limit}
        if user_ids is not None:
            wanted["user_ids"] = [str(user_id) for user_id in user_ids]
        if nonce is not None:
            wanted["nonce"] = nonce
        return str((await self.send("members", wanted, guild_id=guild_id))["nonce"])

    async def send(
        self, command: str, d: Mapping[str, Any], *, shard: int | None = None, guild_id: int | None = None
    ) -> dict[str, Any]:
        """Send any command by its name, with the body ``d``; return the fields of the answer."""
        target = {"shard": shard} if guild_id is None else {"guild_id": str(guild_id)}
        waiting = {"wait_s": self._wait} if self._wait else {}
        return await self._ask("command", self._timeout + self._wait, {"command": command, "d": d, **target, **waiting})

    async def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Send any request that is answered in one part; return its fields. One request runs at a time."""
        return await self._ask(op, self._timeout, fields)

    async def _ask(self, op: str, seconds: float, fields: Mapping[str, Any]) -> dict[str, Any]:
        async with self._turn:
            answer = await self._requests.ask(op, fields, seconds)
        if not answer.get("ok"):
            reason = str(answer.get("error"))
            retry_after = answer.get("retry_after")
            after = (
                float(retry_after) if isinstance(retry_after, int | float) and 0 <= retry_after <= MAX_WAIT else None
            )
            raise CommandRefused(reason, str(answer.get("message") or reason), after)
        return answer

    async def aclose(self) -> None:
        """Close the connection. Idempotent."""
        await self._requests.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class RouterRequests:
    """Requests to the ROUTER of one bus. See `Requests`."""

    def __init__(self, address: str, router: str | None, keys: CurveKeys | None) -> None:
        check_address(address, COMMAND_ADDRESSES)
        where = router or replay_address(address)
        check_address(where)
        loaded = None if keys is None else keys.load()
        self._has_keys = keys is not None
        self._context = zmq.Context()
        self._waiter = Waiter()
        self._dealer = Dealer(self._context, where, loaded, self._waiter)

    async def ask(self, op: str, fields: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """See `Requests`."""
        try:
            async with asyncio.timeout(seconds):
                return await self._answer(op, fields)
        except TimeoutError:
            where = f"{self._dealer.address} within {seconds:g} s"
            key = ", and is this client's key in its curve_clients" if self._has_keys else ""
            msg = f"no answer from {where}; does the control plane run, with replay on{key}?"
            raise CommandRefused("no_answer", msg) from None
        finally:
            self._dealer.close()  # the next one gets a new connection, and a request that was not sent is dropped

    async def aclose(self) -> None:
        """See `Requests`."""
        self._release()

    def __del__(self) -> None:
        if hasattr(self, "_waiter"):
            self._release()

    async def _answer(self, op: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        number = self._dealer.request(op, **fields)
        while True:
            try:
                part = self._dealer.read()
                if part is not None and part.id == number and not part.topic:
                    return part.fields()
            except ForeignAnswer as error:
                msg = f"something else than Discorder's bus answers at {self._dealer.address}: {error}"
                raise CommandRefused("no_answer", msg) from error
            if part is None:
                await self._waiter.wait(None)

    def _release(self) -> None:
        self._waiter.wake()
        self._waiter.close()
        self._dealer.close()
        self._context.term()
