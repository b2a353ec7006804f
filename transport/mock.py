"""Play a recorded session to the client under test, on a fake clock that the recording advances."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from discorder.clock import FakeClock, settle_loop
from discorder.errors import Closed, ConnectFailed, GatewayFailure, RecordingError
from discorder.transport.protocol import MAX_BATCH, Deliver
from discorder.transport.recorded import RecordedConnection, Recording, Shard
from discorder.transport.script import EXTRA_TIME, Script

REMEDY = (
    "record the session again; if nobody has altered the file, the control plane behaves otherwise than it did then"
)
_MAX_TURNS = 50  # times that the loop is settled for a client that has not noticed the end
_STEP = EXTRA_TIME / 4  # seconds; the largest step of the clock, so that each time limit is checked
_MAX_POLLS = 200  # polls, 10 ms apart, of a client that waits without a timer (for a thread)


class MockGateway:
    """Make transports that play ``recording``: the k-th dial of a shard gets its k-th recorded connection.

    ``settle`` is awaited after each step of the clock, for clients that use threads. ``command`` makes the client send a
    bot's recorded command (shard, opcode, ``d``); None: the client sends it by itself.
    """

    def __init__(
        self,
        recording: Recording,
        clock: FakeClock,
        *,
        settle: Callable[[], Awaitable[None]] | None = None,
        command: Callable[[Shard, int, Any], Awaitable[None]] | None = None,
    ) -> None:
        self.recording = recording
        self.clock = clock
        self._hook = settle
        self._command = command
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
        """Return the transport for the next connection of ``shard``. An unrecorded dial is a difference and gets no answer."""
        waiting = self._scripts.get(shard)
        number = self._dialled[shard] = self._dialled.get(shard, 0) + 1
        script = waiting.popleft() if waiting else None
        if script is None and not self.finished:
            recorded = len(self.recording.of_shard(shard))
            self.report_difference(
                f"shard {list(shard)}: dial number {number}, but only {recorded} were recorded", self._last_line(shard)
            )
        transport = MockTransport(self, script)
        self._transports.append(transport)
        return transport

    async def play(self, speed: float | None = None) -> None:
        """Play to the end of the recording. Raises `RecordingError` at the first difference.

        ``speed`` sets the pace in real time (1 = as recorded, 10 = ten times as fast); None does not wait at all. The last
        connection stays open: shut down the client, then call `check`.
        """
        try:
            polls = 0
            while True:
                await self._settle()
                self.check()
                if self._is_over():
                    break
                due = self.clock.next_due()
                if due is None:
                    polls += 1
                    if polls > _MAX_POLLS:
                        self.report_difference(
                            f"nothing is left that could happen; waiting for {self._awaited()}", self.line
                        )
                    await asyncio.sleep(0.01)
                    continue
                polls = 0
                due = min(due, _STEP)
                if speed is not None:
                    await asyncio.sleep(due / speed)
                await self.clock.advance(due, settle=self._settle)
                self._check_idle_time()
            self.finished = True
        finally:
            if not self.finished:
                for transport in self._transports:
                    transport.stop_playing()

    def check(self) -> None:
        """Raise the first difference, if there was one."""
        if self._difference is not None:
            raise self._difference

    def report_difference(self, what: str, line: int) -> None:
        """Store a difference, found at ``line`` of the recording, if it is the first."""
        if self._difference is None:
            self._difference = RecordingError(f"{self.recording.path}:{line}: the replay differs: {what}; {REMEDY}")

    async def command(self, shard: Shard, op: int, d: Any) -> None:
        """Make the client send a bot's recorded command."""
        if self._command is not None:
            await self._command(shard, op, d)

    @property
    def line(self) -> int:
        """Return the line of the recording that is being played; with several shards the last one."""
        return max((transport.line for transport in self._transports), default=1)

    def _last_line(self, shard: Shard) -> int:
        return max((connection.entries[-1].line for connection in self.recording.of_shard(shard)), default=1)

    def connection_ended(self, shard: Shard) -> None:
        """Start the time limit for the next dial of ``shard``."""
        self._idle_since[shard] = self.clock.monotonic()

    def _is_over(self) -> bool:
        return not any(self._scripts.values()) and all(transport.played for transport in self._transports)

    def _check_idle_time(self) -> None:
        for shard, waiting in self._scripts.items():
            if not waiting or any(t.shard == shard and not t.played for t in self._transports):
                continue
            connection = waiting[0].connection
            allowed = EXTRA_TIME + self._recorded_pause(shard, connection)
            if self.clock.monotonic() - self._idle_since[shard] > allowed:
                line = connection.entries[0].line
                self.report_difference(
                    f"shard {list(shard)}: connection {connection.number} (line {line}) was never dialled", line
                )

    def _recorded_pause(self, shard: Shard, connection: RecordedConnection) -> float:
        """Return the seconds between the previous connection's end and this dial; a parked shard waits for hours."""
        dialled = connection.entries[0].t
        ends = [other.entries[-1].t for other in self.recording.of_shard(shard) if other.entries[0].t < dialled]
        return (dialled - max(ends, default=0)) / 1000

    def _awaited(self) -> str:
        waiting = [f"a dial of shard {list(shard)}" for shard, queue in self._scripts.items() if queue]
        return ", ".join(waiting + [t.awaited for t in self._transports if not t.played])

    async def _settle(self) -> None:
        """Run the loop until the client has taken its messages and noticed the end, at most `_MAX_TURNS` times."""
        for _ in range(_MAX_TURNS):
            await settle_loop()
            if all(transport.idle for transport in self._transports):
                break
        if self._hook is not None:
            await self._hook()
            await settle_loop()


class MockTransport:
    """Play one recorded connection as a `Transport`. Made by `MockGateway.dial`."""

    def __init__(self, gateway: MockGateway, script: Script | None) -> None:
        self._gateway = gateway
        self._script = script
        self._task: asyncio.Task[None] | None = None
        self._deliver: Deliver | None = None
        self._inbox: list[bytes] = []
        self._next_turn: asyncio.Handle | None = None  # will deliver the inbox
        self._wake = asyncio.Event()
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
        """Return whether the script has ended."""
        return self._script is None or (self._task is not None and self._task.done())

    @property
    def idle(self) -> bool:
        """Return whether the client has taken every message and noticed the end."""
        return not self._open or (not self._inbox and self._end is None)

    @property
    def awaited(self) -> str:
        """Return what the script waits for, as a text for messages."""
        return "" if self._script is None else self._script.where()

    @property
    def line(self) -> int:
        """Return the line of the recording that the script is playing."""
        return 1 if self._script is None else self._script.line

    async def connect(self, url: str, deliver: Deliver) -> None:
        if self._task is not None or self._end is not None:
            msg = "a transport is dialled once, and not after its end"
            raise ConnectFailed(msg)
        if self._script is not None:  # otherwise there is no answer until the caller cancels
            self._script.start(self, url)
            self._task = asyncio.create_task(self._script.run(), name="recorded gateway")
            self._task.add_done_callback(self._played)
        try:
            while not self._open:
                if self._end is not None:
                    raise self._end if isinstance(self._end, ConnectFailed) else ConnectFailed(str(self._end))
                await self._woken()
        except asyncio.CancelledError:
            self._stop(Closed(None, "us", "the dial was cancelled"))
            raise
        self._deliver = deliver
        self._hand_over_soon()

    async def wait_closed(self) -> None:
        while self._inbox or self._end is None:
            if not self._open:
                raise self._end or Closed(None, "us", "not connected")
            await self._woken()
        self._open = False
        raise Closed(None, "network") if isinstance(self._end, ConnectFailed) else self._end

    async def send(self, data: bytes) -> None:
        if self._end is not None or not self._open or self._script is None:
            raise self._end or Closed(None, "us", "not connected")
        self._script.sent(data)

    async def close(self, code: int) -> None:
        self._stop(Closed(code, "us"))

    def abort(self) -> None:
        self._stop(Closed(None, "us", "aborted"))

    def opened(self) -> None:
        """Complete the upgrade."""
        self._open = True
        self._wake.set()

    def deliver(self, message: bytes) -> None:
        """Deliver a message to the client in a separate turn of the loop."""
        self._inbox.append(message)
        self._hand_over_soon()

    def finish(self, end: GatewayFailure) -> None:
        """End the connection after the client has received the earlier messages."""
        if self._end is None:
            self._end = end
        self._wake.set()

    def stop_playing(self) -> None:
        """Cancel the script and end its connection."""
        if self._task is not None:
            self._task.cancel()
        self.finish(Closed(None, "network", "the replay was ended"))

    def _hand_over_soon(self) -> None:
        if self._deliver is not None and self._next_turn is None:
            self._next_turn = asyncio.get_running_loop().call_soon(self._hand_over, self._deliver)

    def _hand_over(self, deliver: Deliver) -> None:
        self._next_turn = None
        batch, self._inbox = self._inbox[:MAX_BATCH], self._inbox[MAX_BATCH:]
        if batch:
            deliver(batch)
        if self._inbox:
            self._hand_over_soon()
        self._wake.set()

    async def _woken(self) -> None:
        self._wake.clear()
        await self._wake.wait()

    def _played(self, task: asyncio.Task[None]) -> None:
        """Report a failed script, so that the replay does not wait for it."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._gateway.report_difference(f"{self.awaited}: {error}", self.line)

    def _stop(self, end: Closed) -> None:
        """End the connection on the client's side."""
        live, self._open = self._end is None, False
        if live:
            self._end = end
            self._inbox.clear()
            if self._script is not None and self._task is not None:
                self._script.closed_by_client(end.code)
                if not self._task.done():
                    self._task.cancel()
        self._wake.set()
