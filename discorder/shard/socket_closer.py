"""Close the socket of a connection in the background, within the time that the state allows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from discorder.clock import Clock, within
from discorder.logs import logger
from discorder.shard.transition_log import TransitionLog
from discorder.statemachine.commands import CloseSocket
from discorder.transport.protocol import Transport
from discorder.wire import GOODBYE_CLOSE, RESUMABLE_CLOSE


class SocketCloser:
    """Close the sockets of one shard, one after the other."""

    def __init__(self, clock: Clock, transition_log: TransitionLog) -> None:
        self._clock = clock
        self._transition_log = transition_log
        self._closings: set[asyncio.Task[None]] = set()  # the current close, and closes that ignored their cancellation

    def close(self, transport: Transport, wanted: CloseSocket, closed: Callable[[], None]) -> None:
        """Begin to close ``transport``, and call ``closed`` in the end. A socket that cannot be closed in time is dropped."""
        closing = asyncio.get_running_loop().create_task(self._close(transport, wanted))
        self._closings.add(closing)
        closing.add_done_callback(lambda task: self._ended(task, transport, closed))

    def cancel(self) -> None:
        """Cancel the close, because the state was left; ``closed`` is not called."""
        for closing in self._closings:
            closing.cancel()

    async def finish(self) -> None:
        """Cancel what is under way and wait for its end."""
        self.cancel()
        await asyncio.gather(*self._closings, return_exceptions=True)

    async def _close(self, transport: Transport, wanted: CloseSocket) -> None:
        code = RESUMABLE_CLOSE if wanted.keeps_session else GOODBYE_CLOSE
        await within(self._clock, wanted.seconds, transport.close(code))

    def _ended(self, closing: asyncio.Task[None], transport: Transport, closed: Callable[[], None]) -> None:
        self._closings.discard(closing)
        if closing.cancelled():
            return
        error = closing.exception()
        if error is not None:
            transport.abort()
        if error is not None and not isinstance(error, TimeoutError):
            who = self._transition_log.who
            logger.warning("The socket could not be closed, so it was dropped", error=repr(error), **who)
        closed()
