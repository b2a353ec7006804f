"""The commands of one shard on their way out: they wait here, in order, for a session and for room in the send window.

It outlives connections. It knows frames and their quotas, not what they say; heartbeats, IDENTIFY and RESUME do not come here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from discorder.clock import Clock, within
from discorder.errors import Closed, CommandRateLimited, CommandRefused, CommandTooLarge, ShardNotReady
from discorder.runtime.alarm import Alarm
from discorder.statemachine.send_window import PRESENCE, Kind, Quota, SendWindow
from discorder.stats import GatewayStats
from discorder.wire import MAX_SEND_BYTES

WRITE_SECONDS = 1.0  # for the write of a command that may not wait
QUEUE_LIMIT = 1000  # commands that may wait: some nine minutes of sending as fast as Discord allows

Write = Callable[[bytes], Awaitable[None]]


@dataclass(slots=True, eq=False)
class _Waiting:
    frame: bytes
    quota: Quota
    done: asyncio.Future[None] | None  # None: nobody waits for it

    def settle(self, error: CommandRefused | None = None) -> None:
        if self.done is None or self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


class Outbox:
    """Sends each command once it may go. Two commands under the same quota keep their order, whatever happens in between.

    When Ready is lost, what waits goes on waiting and is sent on the next session, in its place. A command that was being written
    at that moment is written again: Discord may see it twice, which changes nothing for any of its commands. One that was written
    before is sent; whether Discord read it nobody can tell. A session that begins anew has no presence, so the last one that was
    sent is sent again.
    """

    def __init__(self, shard_id: int, clock: Clock, stats: GatewayStats) -> None:
        self._shard_id = shard_id
        self._clock = clock
        self._stats = stats
        self._window = SendWindow()
        self._queue: list[_Waiting] = []  # no deque: there is one of these per shard, and nearly all are empty
        self._alarm: Alarm | None = None  # that of the pump
        self._write: Write | None = None
        self._failed: Callable[[BaseException], None] | None = None
        self._pump: asyncio.Task[None] | None = None
        self._presence: bytes | None = None
        self._closed = False

    # ---------------------------------------------------------------- for callers

    async def send(self, frame: bytes, quota: Quota, *, timeout: float | None = None) -> None:
        """Return once ``frame`` is written to the socket of a session.

        ``timeout``: seconds that it may wait for its turn and for a session; None: as long as it takes, 0: only if it may go at
        once. Being cancelled takes it out of the queue. Raises `CommandTooLarge`, `CommandRateLimited`, `ShardNotReady`.
        """
        try:
            await self._send(frame, quota, timeout)
        except CommandRefused:
            self._stats.command_refused_count += 1
            raise

    async def _send(self, frame: bytes, quota: Quota, timeout: float | None) -> None:
        if len(frame) > MAX_SEND_BYTES:
            raise CommandTooLarge(len(frame), MAX_SEND_BYTES)
        if self._closed:
            raise self._ended()
        if len(self._queue) >= QUEUE_LIMIT:
            msg = f"{len(self._queue):,} commands wait for shard {self._shard_id} already"
            raise CommandRateLimited(msg, max(self._wait(quota), 1.0))
        if timeout is not None and timeout <= 0:
            if not self._may_go(quota):
                raise self._too_late(quota)
            timeout = WRITE_SECONDS
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(frame, quota, done)
        self._queue.append(waiting)
        self._stir()
        try:
            await (done if timeout is None else within(self._clock, timeout, done))
        except TimeoutError:
            raise self._too_late(quota) from None
        finally:
            self._withdraw(waiting)

    @property
    def is_open(self) -> bool:
        """Whether the shard is Ready."""
        return self._write is not None

    def hold_guild(self, guild_id: int, seconds: float) -> None:
        """Discord wants no request for all members of ``guild_id`` within ``seconds``."""
        self._window.hold_guild(guild_id, self._clock.monotonic(), seconds)

    # ---------------------------------------------------------------- told by the driver and its generation

    def hello(self, interval: float) -> None:
        """A new connection that beats every ``interval`` seconds: Discord counts anew."""
        self._window.connection_opened(interval)

    def control_sent(self) -> None:
        """A heartbeat, an IDENTIFY or a RESUME is being written; it waits for nothing and is counted."""
        self._window.control_sent(self._clock.monotonic())

    def open(self, write: Write, failed: Callable[[BaseException], None], *, new_session: bool) -> None:
        """The shard is Ready: commands may go, by ``write``. ``failed`` hears of what breaks beside a closed socket."""
        self._write, self._failed = write, failed
        if new_session and self._presence is not None and not self._holds_presence():
            self._queue.insert(0, _Waiting(self._presence, PRESENCE, None))
        self._stir()

    def shut(self) -> None:
        """The shard is not Ready any more: what is not written waits for the next session."""
        self._write = None
        if self._pump is not None:
            self._pump.cancel()
            self._pump = self._alarm = None

    def slow_down(self, seconds: float) -> None:
        """Half as many commands for ``seconds``."""
        self._window.slow_down(self._clock.monotonic() + seconds)

    def close(self) -> None:
        """The shard has ended: nothing goes out any more, and who waits is told."""
        self._closed = True
        self.shut()
        while self._queue:
            self._queue.pop(0).settle(self._ended())

    # ---------------------------------------------------------------- the pump

    def _stir(self) -> None:
        """There may be something to send. The pump is a task only while something waits and a session is there."""
        if self._write is None or not self._queue:
            return
        if self._pump is not None and self._alarm is not None and not self._pump.done():  # a done one hears no alarm
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
            if asyncio.current_task() is not self._pump:  # a write that ignored its cancellation went to an old socket
                return
            self._written(waiting)

    def _next(self) -> tuple[_Waiting, float]:
        """The first command that may go now, else the one that may go first, and when. A spent quota holds up no other."""
        now = self._clock.monotonic()
        dues: dict[Quota, float] = {}
        best: tuple[_Waiting, float] | None = None
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

    def _written(self, waiting: _Waiting) -> None:
        self._window.sent(waiting.quota, self._clock.monotonic())  # after the write: one that hung arrives late
        self._stats.command_sent_count += 1
        if waiting.quota.kind is Kind.PRESENCE:
            self._presence = waiting.frame
        self._withdraw(waiting)
        waiting.settle()

    def _pump_ended(self, pump: asyncio.Task[None]) -> None:
        if self._pump is pump:
            self._pump = self._alarm = None
        if pump.cancelled() or (error := pump.exception()) is None:
            return
        if not isinstance(error, Closed) and self._failed is not None:  # a closed socket is the processor's to report
            self._failed(error)

    # ---------------------------------------------------------------- inside

    def _withdraw(self, waiting: _Waiting) -> None:
        if waiting in self._queue:
            self._queue.remove(waiting)

    def _holds_presence(self) -> bool:
        return any(waiting.quota.kind is Kind.PRESENCE for waiting in self._queue)

    def _may_go(self, quota: Quota) -> bool:
        queued = any(waiting.quota == quota for waiting in self._queue)
        return self._write is not None and not queued and self._wait(quota) <= 0

    def _wait(self, quota: Quota) -> float:
        now = self._clock.monotonic()
        return self._window.due(quota, now) - now

    def _too_late(self, quota: Quota) -> CommandRefused:
        if self._write is None:
            return ShardNotReady(f"shard {self._shard_id} has no session right now; wait for it, or give it more time")
        what = "updates of the presence" if quota.kind is Kind.PRESENCE else "commands"
        if quota.kind is Kind.WHOLE_GUILD:
            what = f"requests for all members of guild {quota.guild_id}"
        return CommandRateLimited(
            f"shard {self._shard_id} has sent as many {what} as Discord allows", self._wait(quota)
        )

    def _ended(self) -> ShardNotReady:
        return ShardNotReady(f"shard {self._shard_id} has ended")
