"""Reads one bus of ZeroMQ as an asynchronous iterator, with a `Gap` where events are lost."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import zmq

from discorder.bot.bus import Bus
from discorder.bot.cursor import Cursor
from discorder.bot.dealer import Dealer
from discorder.bot.decoding import Decoded, Decoders
from discorder.bot.gap_detector import GapDetector
from discorder.bot.guilds import GuildsClient, ShardGuildsAnswer
from discorder.bot.positions import Gap, Item
from discorder.bot.progress import Progress, close_cursor, open_cursor
from discorder.bot.replays import ReplayClient, ShardItems
from discorder.bot.sockets import CurveKeys, Waiter
from discorder.bot.subscription import E, Subscription
from discorder.wire import ReceivedEvent

READ_AT_ONCE = 256  # messages between two turns of the loop
STEPS_PER_GUILD = 32  # as many messages cost as much as to unpack a guild


class BusSubscription(Subscription[E]):
    """A `Subscription` to one bus of ZeroMQ."""

    def __init__(
        self,
        address: str,
        types: frozenset[str] | None,
        *,
        decode: Any,
        cursor: Cursor | None,
        oldest: bool,
        replay: str | None,
        keys: CurveKeys | None,
        state: bool = False,
    ) -> None:
        self.address = address
        self.types = types
        self._decoders = None if decode is None else Decoders(decode)
        loaded = None if keys is None else keys.load()
        self._pending: deque[ShardItems] = deque()  # the first is iterated to its end before the next
        self._steps = 0
        self._found_nothing = False
        self._waiter = Waiter()
        self._cursor = cursor
        saved = None if cursor is None else open_cursor(cursor)
        self._context = zmq.Context()
        try:
            self._bus = Bus(self._context, address, types, loaded, self._waiter)
        except BaseException:
            self._release()
            raise
        if state:
            saved = ()  # no shard begins without its guilds
        self._detector = GapDetector(types, replay=replay is not None, saved=saved, from_oldest=oldest)
        self._progress = None if cursor is None else Progress(cursor, self._detector)
        self._guilds: GuildsClient | None = None
        self._replays: ReplayClient | None = None
        if replay is not None:
            dealer = Dealer(self._context, replay, loaded, self._waiter)
            if state:
                self._guilds = GuildsClient(Dealer(self._context, replay, loaded, self._waiter))
            self._replays = ReplayClient(dealer, self._detector, needs_shards=oldest or cursor is not None)

    async def __anext__(self) -> E | Gap:
        """See `Subscription.__anext__`."""
        progress = self._progress
        if progress is not None:
            progress.finish()
        while self._bus.is_open:
            if progress is not None and time.monotonic() >= progress.due:
                progress.save_or_log()
            if self._steps >= READ_AT_ONCE:
                self._steps = 0
                await asyncio.sleep(0)  # a flood must not keep the bot's other tasks from running
            read_all = self._bus.drained and not self._pending and (self._replays is None or self._replays.idle)
            if read_all:
                self._bus.read_anew()
            else:
                item = self._next_pending() if self._pending else self._step()
                if item is not None:
                    return item if self._decoders is None else self._decoded(item, self._decoders)  # type: ignore[return-value]
            if read_all or (self._found_nothing and not self._pending):
                found, self._steps = read_all or self._steps > 1, 0
                if found or not self._reconnected():
                    await self._waiter.wait(self._due(found=found), found=found)
        raise StopAsyncIteration

    async def commit(self) -> None:
        """See `Subscription.commit`."""
        if self._progress is not None:
            self._progress.finish()
            self._progress.save()

    async def aclose(self) -> None:
        """See `Subscription.aclose`."""
        if not self._bus.is_open:
            return
        try:
            if self._progress is not None:
                self._progress.save_or_log()
        finally:
            self._release()
            self._waiter.wake()

    def __del__(self) -> None:
        # for a bot that breaks out of its loop
        if hasattr(self, "_context"):
            self._release()

    # ---------------------------------------------------------------- one step

    def _next_pending(self) -> Item | None:
        while self._pending:
            shard, items = self._pending[0]
            before = None if self._progress is None else self._detector.position(shard)
            item = next(items, None)
            if item is not None:
                if self._progress is not None:
                    self._progress.deliver(shard, before)
                return item
            self._pending.popleft()
        return None

    def _step(self) -> ReceivedEvent | None:
        """Read a part of a replay and a message of the bus, if there are any, into ``_pending``.

        Return a message instead that is to be delivered as it is, as most are.
        """
        self._steps += 1
        self._found_nothing = True
        replays = self._replays
        if replays is not None and not replays.idle:
            self._advance(replays)
        guilds = self._guilds
        if guilds is not None and not guilds.idle:
            self._advance_guilds(guilds)
        event = self._bus.receive()
        if event is None:
            return None
        self._found_nothing = False
        self._bus.received_at = time.monotonic()
        if guilds is not None and guilds.lacks(event.shard):
            return None
        progress = self._progress
        before = None if progress is None else self._detector.position(event.shard)
        if not self._pending and self._detector.accept(event):
            if progress is not None:
                progress.deliver(event.shard, before)
            return event
        self._pending.append((event.shard, self._detector.receive(event)))
        return None

    def _advance(self, replays: ReplayClient) -> None:
        now = time.monotonic()
        replays.bus_active_at = max(replays.bus_active_at, self._bus.received_at or replays.bus_active_at)
        items = replays.read(now)
        if items is None:  # only now it is certain that no answer has come
            items = replays.advance(now)
            self._found_nothing = not items and not replays.sent  # to send may have consumed the signal of an answer
        else:
            self._found_nothing = False
        self._pending.extend(items)

    def _advance_guilds(self, guilds: GuildsClient) -> None:
        now = time.monotonic()
        found = guilds.read(now)
        if found is False:
            guilds.advance(now)
        self._found_nothing = self._found_nothing and found is False and not guilds.sent
        if isinstance(found, ShardGuildsAnswer):
            self._pending.append((found.position.shard, self._begin_with(found)))

    def _begin_with(self, answer: ShardGuildsAnswer) -> Iterator[Item]:
        from discorder.guilds.guild import unpack  # noqa: PLC0415  # few bots ask for guilds

        position = answer.position
        yield from self._detector.start(position)
        now = datetime.now(UTC)
        for packed in answer.packed:
            self._steps += STEPS_PER_GUILD
            guild = msgspec.Raw(unpack(packed))
            yield ReceivedEvent("GUILD_CREATE", position.shard, None, None, position.session, now, guild)

    def _reconnected(self) -> bool:
        """Connect again, and request what was missed, when the bus has been silent for too long."""
        reconnected = self._bus.reconnect_if_silent(time.monotonic())
        if reconnected:
            self._detector.request_all()
        return reconnected

    def _decoded(self, item: Item, decoders: Decoders) -> Decoded[Any] | Gap:
        return item if isinstance(item, Gap) else decoders.decoded(item)

    def _due(self, *, found: bool) -> float | None:
        """Return the seconds until something is due without a message. ``found``: one came just now."""
        guilds = None if self._guilds is None or self._guilds.idle else self._guilds
        if found and self._progress is None and guilds is None and (self._replays is None or self._replays.idle):
            return self._bus.silence_timeout
        now = time.monotonic()
        times = []
        if self._replays is not None and (due := self._replays.due(now)) is not None:
            times.append(due)
        if self._progress is not None:
            times.append(self._progress.due - now)
        if guilds is not None:
            times.append(guilds.due - now)
        if (deadline := self._bus.deadline()) is not None:
            times.append(deadline - now)
        return max(0.0, min(times)) if times else None

    # ---------------------------------------------------------------- the end

    def _release(self) -> None:
        self._waiter.close()
        if hasattr(self, "_bus"):
            self._bus.close()
        if hasattr(self, "_replays") and self._replays is not None:
            self._replays.dealer.close()
        if hasattr(self, "_guilds") and self._guilds is not None:
            self._guilds.dealer.close()
        self._context.term()
        if self._cursor is not None:
            close_cursor(self._cursor)
