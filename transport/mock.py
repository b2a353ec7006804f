"""A gateway that plays a recorded session to the client under test, on a fake clock that the recording itself advances.

The recording drives the clock, so that zombies and back-offs really happen; what a connection does is `script`'s. Nothing here
decides what a client should do: the recording does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from discorder.clock import FakeClock, settle_loop
from discorder.errors import Closed, ConnectFailed, GatewayFailure, RecordingError
from discorder.transport.recorded import Connection, Recording, Shard
from discorder.transport.script import PATIENCE, Script

_TURNS = 50  # rounds of the loop granted to a client that has not come back to `receive`
_STEP = PATIENCE / 4  # seconds; the clock is not moved further at once, so that nobody's patience is overrun unseen
_REAL_WAIT = 200  # looks, 10 ms apart, at a client that waits for something that is not on the clock (a thread)


class MockGateway:
    """Transports that play ``recording``: the k-th dial of a shard gets its k-th recorded connection.

    ``settle`` is awaited after each step of the clock, for clients that hand work to threads.
    """

    def __init__(
        self, recording: Recording, clock: FakeClock, *, settle: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self.recording = recording
        self.clock = clock
        self._hook = settle
        self._scripts: dict[Shard, deque[Script]] = {}
        for connection in recording.connections:
            queue = self._scripts.setdefault(connection.shard, deque())
            queue.append(Script(self, connection))
        for queue in self._scripts.values():
            queue[-1].is_last = True
        self._dialled: dict[Shard, int] = dict.fromkeys(self._scripts, 0)
        self._idle_since: dict[Shard, float] = dict.fromkeys(self._scripts, clock.monotonic())
        self._transports: list[MockTransport] = []
        self._difference: RecordingError | None = None
        self.finished = False

    def dial(self, shard: Shard) -> MockTransport:
        """The transport for the next connection of ``shard``. One dial too many is a difference, and gets no answer."""
        waiting = self._scripts.get(shard)
        number = self._dialled[shard] = self._dialled.get(shard, 0) + 1
        script = waiting.popleft() if waiting else None
        if script is None and not self.finished:
            recorded = len(self.recording.of_shard(shard))
            self.differ(f"shard {list(shard)}: dial number {number}, but only {recorded} were recorded")
        transport = MockTransport(self, script)
        self._transports.append(transport)
        return transport

    async def play(self, speed: float | None = None) -> None:
        """Play to the end of the recording. Raises `RecordingError` at the first difference.

        ``speed`` paces it in real time (1 = as recorded, 10 = ten times as fast); None does not wait at all. The client is
        left as the recording left it, its last connection open: shut it down, then `check`.
        """
        try:
            looks = 0
            while True:
                await self._settle()
                self.check()
                if self._is_over():
                    break
                due = self.clock.next_due()
                if due is None:
                    looks += 1
                    if looks > _REAL_WAIT:
                        self.differ(f"nothing is left that could happen; waiting for {self._awaited()}")
                    await asyncio.sleep(0.01)
                    continue
                looks = 0
                due = min(due, _STEP)
                if speed is not None:
                    await asyncio.sleep(due / speed)
                await self.clock.advance(due, settle=self._settle)
                self._check_patience()
            self.finished = True
        finally:
            if not self.finished:
                for transport in self._transports:
                    transport.stop_playing()

    def check(self) -> None:
        """Raise the first difference, if there was one."""
        if self._difference is not None:
            raise self._difference

    def differ(self, what: str) -> None:
        """Note a difference; the first one stays."""
        if self._difference is None:
            self._difference = RecordingError(f"{self.recording.path}: the replay differs: {what}")

    def rest(self, shard: Shard) -> None:
        """A connection of ``shard`` has ended: the client has time from now to dial again."""
        self._idle_since[shard] = self.clock.monotonic()

    def _is_over(self) -> bool:
        return not any(self._scripts.values()) and all(transport.played for transport in self._transports)

    def _check_patience(self) -> None:
        for shard, waiting in self._scripts.items():
            if not waiting or any(t.shard == shard and not t.played for t in self._transports):
                continue
            connection = waiting[0].connection
            allowed = PATIENCE + self._recorded_pause(shard, connection)
            if self.clock.monotonic() - self._idle_since[shard] > allowed:
                line = connection.entries[0].line
                self.differ(f"shard {list(shard)}: connection {connection.number} (line {line}) was never dialled")

    def _recorded_pause(self, shard: Shard, connection: Connection) -> float:
        """Seconds between the end of the connection before and this dial: a parked shard waits for hours."""
        dialled = connection.entries[0].t
        ends = [other.entries[-1].t for other in self.recording.of_shard(shard) if other.entries[0].t < dialled]
        return (dialled - max(ends, default=0)) / 1000

    def _awaited(self) -> str:
        waiting = [f"a dial of shard {list(shard)}" for shard, queue in self._scripts.items() if queue]
        return ", ".join(waiting + [t.awaited for t in self._transports if not t.played])

    async def _settle(self) -> None:
        """Let the client consume what it got: until each reader waits again, or evidently does something else."""
        for _ in range(_TURNS):
            await settle_loop()
            if all(transport.idle for transport in self._transports):
                break
        if self._hook is not None:
            await self._hook()
            await settle_loop()


class MockTransport:
    """One recorded connection as a `Transport`. Made by `MockGateway.dial`."""

    def __init__(self, gateway: MockGateway, script: Script | None) -> None:
        self._gateway = gateway
        self._script = script
        self._task: asyncio.Task[None] | None = None
        self._inbox: list[bytes] = []
        self._wake = asyncio.Event()
        self._reading = False
        self._open = False
        self._end: GatewayFailure | None = None

    @property
    def closed(self) -> bool:
        return not self._open

    @property
    def shard(self) -> Shard | None:
        return None if self._script is None else self._script.connection.shard

    @property
    def played(self) -> bool:
        """The script has come to its end."""
        return self._script is None or (self._task is not None and self._task.done())

    @property
    def idle(self) -> bool:
        """Nothing that was delivered still waits for the client."""
        return not self._open or (self._reading and not self._inbox and self._end is None)

    @property
    def awaited(self) -> str:
        """For a message: what the script waits for."""
        return "" if self._script is None else self._script.where()

    async def connect(self, url: str) -> None:
        if self._task is not None or self._end is not None:
            msg = "a transport is dialled once, and not after its end"
            raise ConnectFailed(msg)
        if self._script is not None:  # else there is no answer, until the caller gives up
            self._script.start(self, url)
            self._task = asyncio.create_task(self._script.run(), name="recorded gateway")
        try:
            while not self._open:
                if self._end is not None:
                    raise self._end if isinstance(self._end, ConnectFailed) else ConnectFailed(str(self._end))
                self._wake.clear()
                await self._wake.wait()
        except asyncio.CancelledError:
            self._stop(Closed(None, "us", "the dial was cancelled"))
            raise

    async def receive(self) -> list[bytes]:
        while not self._inbox:
            if self._end is not None:
                self._open = False
                raise Closed(None, "network") if isinstance(self._end, ConnectFailed) else self._end
            if not self._open:
                raise Closed(None, "us", "not connected")
            self._wake.clear()
            self._reading = True
            try:
                await self._wake.wait()
            finally:
                self._reading = False
        batch, self._inbox = self._inbox, []
        return batch

    async def send(self, data: bytes) -> None:
        if self._end is not None or not self._open or self._script is None:
            raise self._end or Closed(None, "us", "not connected")
        self._script.sent(data)

    async def close(self, code: int) -> None:
        self._stop(Closed(code, "us"))

    def abort(self) -> None:
        self._stop(Closed(None, "us", "aborted"))

    def opened(self) -> None:
        """The script: the upgrade has succeeded."""
        self._open = True
        self._wake.set()

    def deliver(self, message: bytes) -> None:
        """The script: a message has arrived."""
        self._inbox.append(message)
        self._wake.set()

    def finish(self, end: GatewayFailure) -> None:
        """The script: the connection has ended. The client learns it after what was delivered before."""
        if self._end is None:
            self._end = end
        self._wake.set()

    def stop_playing(self) -> None:
        """End the script without a word, and with it the connection."""
        if self._task is not None:
            self._task.cancel()
        self.finish(Closed(None, "network", "the replay was ended"))

    def _stop(self, end: Closed) -> None:
        """The client ends the connection."""
        live, self._open = self._end is None, False
        if live:
            self._end = end
            self._inbox.clear()
            if self._script is not None and self._task is not None:
                self._script.closed_by_client(end.code)
                if not self._task.done():
                    self._task.cancel()
        self._wake.set()
