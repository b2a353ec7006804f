"""Queue the commands of one shard, in order, until there is a session and the send window has room.

Heartbeats, IDENTIFY and RESUME do not pass through this queue; they are only counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from discorder.clock import Clock, within
from discorder.errors import Closed, CommandRateLimited, CommandRefused, CommandTooLarge, ShardNotReady
from discorder.runtime.alarm import Alarm
from discorder.statemachine.send_window import PRESENCE, CommandLimit, Quota, SendWindow
from discorder.stats import GatewayStats
from discorder.wire import MAX_SEND_BYTES

WRITE_SECONDS = 1.0  # for the write of a command with timeout 0
QUEUE_LIMIT = 1000  # commands that may wait: some nine minutes at the highest rate that Discord allows

Write = Callable[[bytes], Awaitable[None]]


@dataclass(slots=True, eq=False)
class _QueuedCommand:
    frame: bytes
    quota: Quota
    done: asyncio.Future[None] | None  # None: no caller waits for it

    def settle(self, error: CommandRefused | None = None) -> None:
        if self.done is None or self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


class Outbox:
    """Sends each command as soon as its quota allows. Commands of the same quota keep their order, across reconnects too.

    When the shard leaves Ready, the waiting commands stay queued for the next session. A command that was being written is
    written again: receiving it twice has no effect on Discord. A command that was written before may be lost. A new session has
    no presence, so the last presence is sent again.
    """

    def __init__(
        self, shard_id: int, clock: Clock, stats: GatewayStats, *, pause_reason: Callable[[], str | None]
    ) -> None:
        """``pause_reason`` returns why the shard is paused and what ends it, None while it is not."""
        self._shard_id = shard_id
        self._pause_reason = pause_reason
        self._clock = clock
        self._stats = stats
        self._window = SendWindow()
        self._queue: list[_QueuedCommand] = []  # a list: nearly all are empty, and a deque takes more memory
        self._alarm: Alarm | None = None  # wakes the pump
        self._write: Write | None = None
        self._failed: Callable[[BaseException], None] | None = None
        self._pump: asyncio.Task[None] | None = None
        self._presence: bytes | None = None
        self._closed = False

    # ---------------------------------------------------------------- for callers

    async def send(self, frame: bytes, quota: Quota, *, timeout: float | None = None) -> None:
        """Queue ``frame`` and return once it is written to the socket of a session.

        ``timeout``: the seconds that it may wait; None: without a limit, 0: send at once or raise. Cancelling removes it from the
        queue. Raises `CommandTooLarge`, `CommandRateLimited`, `ShardNotReady`.
        """
        try:
            await self._send(frame, quota, timeout)
        except CommandRefused:
            self._stats.command_refused_count += 1
            raise

    async def _send(self, frame: bytes, quota: Quota, timeout: float | None) -> None:
        self._check_room(frame, quota)
        now = timeout is not None and timeout <= 0
        if now:
            timeout = WRITE_SECONDS
            if not self._may_send(quota):
                raise self._refusal(quota, "try again later")
        remedy = "try again later" if now else "try again later, or use a longer timeout"
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = _QueuedCommand(frame, quota, done)
        self._queue.append(waiting)
        self._wake_pump()
        try:
            await (done if timeout is None else within(self._clock, timeout, done))
        except TimeoutError:
            raise self._refusal(quota, remedy) from None
        finally:
            self._remove(waiting)

    async def show_presence(self, frame: bytes) -> float:
        """Send a presence, or queue it until Discord's limit allows one more, instead of one that is queued already.

        Returns 0 once it is written, or at once the seconds until it will be sent. Raises as `send` does.
        """
        if self._write is None or self._may_send(PRESENCE):
            await self.send(frame, PRESENCE, timeout=0.0)
            return 0.0
        self._check_room(frame, PRESENCE)
        for replaced in [one for one in self._queue if one.quota is PRESENCE and one.done is None]:
            self._remove(replaced)
        self._queue.append(_QueuedCommand(frame, PRESENCE, None))
        self._wake_pump()
        return max(0.0, self._wait(PRESENCE))

    @property
    def is_open(self) -> bool:
        """Whether the shard is Ready."""
        return self._write is not None

    def hold_guild(self, guild_id: int, seconds: float) -> None:
        """Delay requests for all members of ``guild_id`` by ``seconds``, as Discord's RATE_LIMITED demands."""
        self._window.hold_guild(guild_id, self._clock.monotonic(), seconds)

    # ---------------------------------------------------------------- called by the driver and its connection

    def hello(self, interval: float) -> None:
        """Reset the send window for a new connection with heartbeats every ``interval`` seconds."""
        self._window.connection_opened(interval)

    def control_sent(self) -> None:
        """Count a heartbeat, an IDENTIFY or a RESUME in the send window."""
        self._window.control_sent(self._clock.monotonic())

    def open(self, write: Write, failed: Callable[[BaseException], None], *, new_session: bool) -> None:
        """Start sending with ``write``. ``failed`` is called for every write error except a closed socket."""
        self._write, self._failed = write, failed
        if new_session and self._presence is not None and not self._holds_presence():
            self._queue.insert(0, _QueuedCommand(self._presence, PRESENCE, None))
        self._wake_pump()

    def shut(self) -> None:
        """Stop sending, because the shard is not Ready any more. The queue is kept."""
        self._write = None
        if self._pump is not None:
            self._pump.cancel()
            self._pump = self._alarm = None

    def slow_down(self, seconds: float) -> None:
        """Halve the rate of commands for ``seconds``."""
        self._window.slow_down(self._clock.monotonic() + seconds)

    def close(self) -> None:
        """Refuse all waiting and later commands, because the shard has ended."""
        self._closed = True
        self.shut()
        while self._queue:
            self._queue.pop(0).settle(self._ended())

    # ---------------------------------------------------------------- the pump

    def _wake_pump(self) -> None:
        """Start or wake the pump if a command waits and there is a session."""
        if self._write is None or not self._queue:
            return
        is_running = self._pump is not None and not self._pump.done()
        if is_running and self._alarm is not None:
            self._alarm.ring()
            return
        alarm = self._alarm = Alarm(self._clock)
        pump = self._run(self._write, alarm)
        self._pump = asyncio.get_running_loop().create_task(pump, name=f"outbox-{self._shard_id}")
        self._pump.add_done_callback(self._pump_ended)

    async def _run(self, write: Write, alarm: Alarm) -> None:
        while self._queue:
            waiting, due = self._next()
            if due > self._clock.monotonic():
                await alarm.sleep_until(due)
                continue
            await write(waiting.frame)
            if asyncio.current_task() is not self._pump:  # the write ignored its cancellation and used an old socket
                return
            self._written(waiting)

    def _next(self) -> tuple[_QueuedCommand, float]:
        """Return the first command that may be sent, else the earliest, and its time. A spent quota delays no other."""
        now = self._clock.monotonic()
        dues: dict[Quota, float] = {}
        best: tuple[_QueuedCommand, float] | None = None
        for waiting in self._queue:
            if waiting.quota in dues:
                continue
            due = dues[waiting.quota] = self._window.due(waiting.quota, now)
            if best is None or due < best[1]:
                best = waiting, due
            if due <= now:
                break
        assert best is not None  # noqa: S101  # the queue is not empty
        return best

    def _written(self, waiting: _QueuedCommand) -> None:
        self._window.sent(waiting.quota, self._clock.monotonic())  # after the write, which may have taken long
        self._stats.command_sent_count += 1
        if waiting.quota.kind is CommandLimit.PRESENCE:
            self._presence = waiting.frame
        self._remove(waiting)
        waiting.settle()

    def _pump_ended(self, pump: asyncio.Task[None]) -> None:
        if self._pump is pump:
            self._pump = self._alarm = None
        if pump.cancelled() or (error := pump.exception()) is None:
            return
        if not isinstance(error, Closed) and self._failed is not None:  # the processor task reports a closed socket
            self._failed(error)

    # ---------------------------------------------------------------- inside

    def _check_room(self, frame: bytes, quota: Quota) -> None:
        if len(frame) > MAX_SEND_BYTES:
            raise CommandTooLarge(len(frame), MAX_SEND_BYTES)
        if self._closed:
            raise self._ended()
        if len(self._queue) >= QUEUE_LIMIT:
            msg = f"{len(self._queue):,} commands already wait for shard {self._shard_id}"
            raise CommandRateLimited(msg, max(self._wait(quota), 1.0))

    def _remove(self, waiting: _QueuedCommand) -> None:
        if waiting in self._queue:
            self._queue.remove(waiting)

    def _holds_presence(self) -> bool:
        return any(waiting.quota.kind is CommandLimit.PRESENCE for waiting in self._queue)

    def _may_send(self, quota: Quota) -> bool:
        queued = any(waiting.quota == quota for waiting in self._queue)
        return self._write is not None and not queued and self._wait(quota) <= 0

    def _wait(self, quota: Quota) -> float:
        now = self._clock.monotonic()
        return self._window.due(quota, now) - now

    def _refusal(self, quota: Quota, remedy: str) -> CommandRefused:
        if self._write is None:
            paused = self._pause_reason()
            why = f"is {paused}" if paused is not None else f"has no session now; {remedy}"
            return ShardNotReady(f"shard {self._shard_id} {why}")
        what = "presence updates" if quota.kind is CommandLimit.PRESENCE else "commands"
        if quota.kind is CommandLimit.WHOLE_GUILD:
            what = f"requests for all members of guild {quota.guild_id}"
        return CommandRateLimited(
            f"shard {self._shard_id} has sent as many {what} as Discord allows", self._wait(quota)
        )

    def _ended(self) -> ShardNotReady:
        return ShardNotReady(f"shard {self._shard_id} has ended")
