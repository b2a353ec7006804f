"""Carry out the commands that bots send through a publisher, within bounds, and give each its answer."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Hashable

from discorder.errors import CommandRefused
from discorder.publishers.protocol import BusApi
from discorder.publishers.zeromq.protocol import CommandRequest, Frames, answer, refusal

COMMANDS = 64  # in progress at the same time, that do not wait
WAITING_COMMANDS = 4_096  # that may wait at the same time
WAITING_OF_CLIENT = 1_024  # of these, of one client

logger = logging.getLogger(__name__)

Send = Callable[[Frames], object]


class RunningCommands:
    """The commands that are in progress. Call all methods on the loop."""

    def __init__(self, bus_api: BusApi) -> None:
        self._bus_api = bus_api
        self._tasks: set[asyncio.Task[None]] = set()  # of commands that do not wait
        self._waiting: set[asyncio.Task[None]] = set()  # of commands that may wait
        self._waiting_of: Counter[Hashable] = Counter()

    def begin(self, client: Hashable, request: CommandRequest, send: Send) -> bool:
        """Carry out a command of ``client``, or refuse it if there are too many; ``send`` the answer. Return whether it began."""
        waits = request.wait_s > 0
        if waits:
            is_full = len(self._waiting) >= WAITING_COMMANDS or self._waiting_of[client] >= WAITING_OF_CLIENT
        else:
            is_full = len(self._tasks) >= COMMANDS
        if is_full:
            send(refusal(request.id_frame, "busy", "too many commands at a time", 1.0))
            return False
        task = asyncio.create_task(self._run(request, send), name=f"command {request.command}")
        if waits:
            self._note_waiting(client, task)
        else:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return True

    async def stop(self) -> None:
        """Cancel all commands that have not been sent to Discord."""
        tasks = [*self._tasks, *self._waiting]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _note_waiting(self, client: Hashable, task: asyncio.Task[None]) -> None:
        self._waiting.add(task)
        self._waiting_of[client] += 1

        def end(_: object) -> None:
            self._waiting.discard(task)
            self._waiting_of[client] -= 1
            if not self._waiting_of[client]:
                del self._waiting_of[client]

        task.add_done_callback(end)

    async def _run(self, request: CommandRequest, send: Send) -> None:
        try:
            fields = await self._bus_api.command(
                request.command, request.d, shard=request.shard, guild_id=request.guild_id, wait_s=request.wait_s
            )
        except CommandRefused as error:
            frames = refusal(request.id_frame, error.reason, str(error), error.retry_after)
        except Exception:
            logger.exception("The command %s of a bot failed", request.command)
            frames = refusal(request.id_frame, "internal_error", "the control plane's log says what happened")
        else:
            frames = answer(request.id_frame, fields)
        send(frames)
