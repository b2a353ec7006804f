"""Send the commands of the façade's bots over the bus, for a façade in a process of its own: the `CommandTarget` there."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from discorder.bot.bus_link import BusLink, BusRefused, BusRenewed, BusSilent
from discorder.clock import Clock
from discorder.errors import CommandRateLimited, CommandRefused, ShardNotReady
from discorder.outbound.checks import COMMANDS
from discorder.wire import Op

WAIT_SECONDS = 600.0  # that a command may wait in the control plane for Discord's limits and for a session
ANSWER_SECONDS = 10.0  # for the answer, after the time that the command may wait
RETRY_SECONDS = 1.0  # until a command is repeated that the control plane could not take yet
RENEWED_SECONDS = 0.1  # after a connection that broke
AT_ONCE = 64  # commands of one shard in the control plane; the others wait here, where they can be cancelled

_NAMES: dict[int, str] = {op: name for name, op in COMMANDS.items()}


class BusCommands:
    """Sends commands over ``link``. Those on their way when the connection breaks are sent again, in their order."""

    def __init__(self, link: BusLink, clock: Clock) -> None:
        self._link = link
        self._clock = clock
        self._room: defaultdict[int | None, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE))

    async def send(self, op: int, d: Any, *, shard: int | None = None, timeout: float | None = None) -> None:
        """See `discorder.facade.commands.CommandTarget`. A presence waits in the control plane, until a newer one replaces it."""
        wait = WAIT_SECONDS if timeout is None else min(timeout, WAIT_SECONDS)
        if op == Op.PRESENCE_UPDATE:
            await self._send_presence(d, shard)
            return
        async with self._room[shard]:
            await self._ask(op, d, shard, wait)

    async def _send_presence(self, d: Any, shard: int | None) -> None:
        while True:
            try:
                await self._ask(Op.PRESENCE_UPDATE, d, shard, 0.0)
            except ShardNotReady:  # the control plane does not know its shards yet
                await self._clock.sleep(RETRY_SECONDS)
            else:
                return

    async def _ask(self, op: int, d: Any, shard: int | None, wait: float) -> None:
        fields: dict[str, Any] = {"command": _NAMES[op], "d": d, "shard": shard, "wait_s": wait}
        while True:
            try:
                await self._link.ask("command", timeout=wait + ANSWER_SECONDS, **fields)
            except BusRenewed:
                await self._clock.sleep(RENEWED_SECONDS)
                continue
            except BusSilent as error:
                raise CommandRefused("no_answer", str(error)) from None
            except BusRefused as refused:
                raise _as_error(refused) from None
            return


def _as_error(refused: BusRefused) -> CommandRefused:
    if refused.reason in {"rate_limited", "busy"}:
        return CommandRateLimited(str(refused), refused.retry_after or RETRY_SECONDS)
    if refused.reason == "not_ready":
        return ShardNotReady(str(refused), refused.retry_after)
    return CommandRefused(refused.reason, str(refused), refused.retry_after)
