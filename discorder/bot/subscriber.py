"""Reads the events of a bus as an asynchronous iterator, with a `Gap` where some are lost.

Imports only ``wire``, ZeroMQ, msgspec and its own parts, so that a bot loads nothing of the control plane.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, overload

import msgspec
import zmq

from discorder.bot.bus import Bus
from discorder.bot.cursor import Cursor, FileCursor
from discorder.bot.dealer import Dealer
from discorder.bot.gap_detector import GapDetector
from discorder.bot.guilds import GuildsClient, ShardGuildsAnswer
from discorder.bot.positions import Gap, GapKind, Item
from discorder.bot.progress import Progress, close_cursor, open_cursor
from discorder.bot.replays import ReplayClient, ShardItems
from discorder.bot.sockets import CurveKeys, Waiter, check_address
from discorder.paths import DEFAULT_ADDRESS
from discorder.wire import ReceivedEvent, replay_address

__all__ = ["CurveKeys", "Decoded", "FileCursor", "Gap", "GapKind", "Subscription", "subscribe"]

READ_AT_ONCE = 256  # messages between two turns of the loop
STEPS_PER_GUILD = 32  # as many messages cost as much as to unpack a guild

T = TypeVar("T")
E = TypeVar("E", bound=ReceivedEvent)

Addresses = str | Sequence[str]
Types = str | Iterable[str] | None
CursorOrPath = Cursor | str | os.PathLike[str] | None


class Decoded(ReceivedEvent, Generic[T], frozen=True):
    """An event with its ``data`` decoded as the ``decode`` of `subscribe` says: ``value``."""

    value: T


@overload
def subscribe(
    address: Addresses = ...,
    types: Types = ...,
    *,
    decode: None = None,
    cursor: CursorOrPath = ...,
    start: Literal["now", "oldest"] = ...,
    live_only: bool = ...,
    state: bool = ...,
    replay: str | None = ...,
    keys: CurveKeys | None = ...,
) -> Subscription[ReceivedEvent]: ...


@overload
def subscribe(
    address: Addresses = ...,
    types: Types = ...,
    *,
    decode: type[T],
    cursor: CursorOrPath = ...,
    start: Literal["now", "oldest"] = ...,
    live_only: bool = ...,
    state: bool = ...,
    replay: str | None = ...,
    keys: CurveKeys | None = ...,
) -> Subscription[Decoded[T]]: ...


@overload
def subscribe(
    address: Addresses = ...,
    types: Types = ...,
    *,
    decode: Mapping[str, Any],
    cursor: CursorOrPath = ...,
    start: Literal["now", "oldest"] = ...,
    live_only: bool = ...,
    state: bool = ...,
    replay: str | None = ...,
    keys: CurveKeys | None = ...,
) -> Subscription[Decoded[Any]]: ...


def subscribe(
    address: Addresses = DEFAULT_ADDRESS,
    types: Types = None,
    *,
    decode: Any = None,
    cursor: CursorOrPath = None,
    start: Literal["now", "oldest"] = "now",
    live_only: bool = False,
    state: bool = False,
    replay: str | None = None,
    keys: CurveKeys | None = None,
) -> Subscription[Any]:
    """Subscribe to the events named in ``types`` (None: all) on the bus at ``address``.

    ::

        async with discorder.subscribe(types=["MESSAGE_CREATE"], cursor="bot.cursor") as events:
            async for event in events:
                if isinstance(event, discorder.Gap):
                    print("missed", event)
                else:
                    print(event.json()["content"])

    Each item is an event, once and in the order of its type, or a `Gap` where events are lost for good. Events that were lost on
    the way are requested again at ``replay`` (None: the port after that of ``address``, or its path + ``.replay``), and come
    late. ``live_only``: nothing is requested; all lost events become a `Gap`.

    ``cursor``: a path, or an object with ``load`` and ``save``, that saves the position of the bot, so that its next start
    continues there. An item counts as processed when the bot requests the next one, or calls `Subscription.commit`. The cursor is
    written once a second, before the first item of a shard, and at the end: after a crash the items of the last second come
    again. ``start``: where to begin without one, now or with the "oldest" event that the bus can repeat.

    ``state``: of each shard its guilds come first, as they are now, each as an event GUILD_CREATE without ``seq``; then the
    events that followed, without a gap and none twice. Needs a control plane with a journal (``facade.journal``);
    without one the first item raises `GuildsNotKept`.

    ``decode``: a type such as a `msgspec.Struct` for every event, or a mapping from event names to types, which then are the
    default of ``types``; the items are `Decoded`. ``keys`` are for a bus with CURVE.

    ``address`` may be a list: the buses of several control planes of one bot are read as one, as long as each shard is on one of
    them. A folder, ``ipc://PATH/``, stands for all sockets in it, now and later.

    The bus need not run yet: the connection is made, and made again, in the background. Raises ValueError for an
    address that is no endpoint, keys that cannot be used, an empty ``types``, and ``state`` with ``cursor``, ``start`` or
    ``live_only``; OSError for a cursor that cannot be read;
    `CursorInUse` for a file that another subscription uses. A cursor that cannot be written is logged and written later.
    """
    if isinstance(decode, Mapping) and types is None:
        types = list(decode)
    store = FileCursor(cursor) if isinstance(cursor, str | os.PathLike) else cursor
    names = _names(types)
    if not isinstance(address, str) and not address:
        msg = "address names no bus"
        raise ValueError(msg)

    if state and (cursor is not None or start != "now" or live_only):
        msg = "state begins with the guilds as they are now; leave out cursor, start and live_only"
        raise ValueError(msg)

    def open_bus(one: str, part: Cursor | None) -> Subscription[Any]:
        router = None if live_only else _checked(replay or replay_address(_checked(one)))
        oldest = start == "oldest"
        return Subscription(
            _checked(one), names, decode=decode, cursor=part, oldest=oldest, replay=router, keys=keys, state=state
        )

    from discorder.bot.merged import MergedSubscription, folder_of  # noqa: PLC0415  # it builds on this module

    if isinstance(address, str) and folder_of(address) is None:
        return open_bus(address, store)
    if replay is not None:
        msg = "replay is the address of one bus; leave it out to read several"
        raise ValueError(msg)
    return MergedSubscription([address] if isinstance(address, str) else address, names, open_bus, store)


class Subscription(Generic[E]):
    """An iterator that `subscribe` returns. Iterate on one loop, in one task at a time; `aclose` ends the iteration."""

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
        self._decoders = None if decode is None else _Decoders(decode)
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

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E | Gap:
        """Return the next item; the previous one counts as processed.

        Raises ValueError for a message that is no event, from another program at the address; `msgspec.ValidationError`
        for data that does not fit ``decode``. The iteration may continue after both.
        """
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
        """Count the current item as processed, and write the cursor now. Raises OSError when it cannot be written."""
        if self._progress is not None:
            self._progress.finish()
            self._progress.save()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Write the cursor and close the sockets; an iteration that waits ends. Idempotent.

        The current item counts as processed only after `commit`: the bot may have failed on it.
        """
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

    def _decoded(self, item: Item, decoders: _Decoders) -> Decoded[Any] | Gap:
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


def _checked(address: str) -> str:
    check_address(address)
    return address


def _names(types: Types) -> frozenset[str] | None:
    if types is None:
        return None
    names = frozenset([types] if isinstance(types, str) else types)
    if not names or "" in names:
        msg = "types names no event; leave it out to get all of them"
        raise ValueError(msg)
    return names


class _Decoders:
    """One decoder for each name; events of other names become plain dicts and lists."""

    def __init__(self, decode: Any) -> None:
        self._of: dict[str, msgspec.json.Decoder[Any]] = {}
        self._others: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
        if isinstance(decode, Mapping):
            self._of = {name: msgspec.json.Decoder(into) for name, into in decode.items()}
        else:
            self._others = msgspec.json.Decoder(decode)

    def decoded(self, event: ReceivedEvent) -> Decoded[Any]:
        """Decode one event. Raises `msgspec.ValidationError` for data that does not fit."""
        try:
            value = self._of.get(event.type, self._others).decode(event.raw)
        except msgspec.ValidationError as error:
            msg = f"{event.type} seq {event.seq} of shard {event.shard[0]}: {error}"
            raise msgspec.ValidationError(msg) from error
        return Decoded(
            event.type, event.shard, event.seq, event.prev, event.session, event.timestamp, event.raw, value=value
        )
