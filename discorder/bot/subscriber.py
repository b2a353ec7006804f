"""A bot's end of the bus: typed events from a ZeroMQ endpoint, as an asynchronous iterator that says where it lacks some.

Imports only ``wire``, ZeroMQ, msgspec and its own parts: a bot needs nothing else of the control plane.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, overload

import msgspec
import zmq

from discorder.bot.continuity import Continuity
from discorder.bot.cursor import Cursor, FileCursor, dump, load
from discorder.bot.dealer import Dealer
from discorder.bot.places import GAP_RECORD, POSITION_RECORD, Gap, GapKind, Item, Saved, Shard
from discorder.bot.replays import Flow, Replays
from discorder.bot.sockets import DEFAULT_ADDRESS, CurveKeys, Waiter, check_address, connect
from discorder.wire import ReceivedEvent, decode_document, replay_address

__all__ = ["CurveKeys", "Decoded", "FileCursor", "Gap", "GapKind", "Subscription", "subscribe"]

RECEIVE_HWM = 10_000  # messages that wait in this process while the bot is busy
READ_AT_ONCE = 256  # messages between two turns of the loop
SAVE_EVERY = 1.0  # seconds between two writes of a cursor

T = TypeVar("T")
E = TypeVar("E", bound=ReceivedEvent)
_DONTWAIT = int(zmq.DONTWAIT)

logger = logging.getLogger(__name__)


class Decoded(ReceivedEvent, Generic[T], frozen=True):
    """An event whose ``data`` was decoded as `subscribe` was told: ``value``."""

    value: T


Types = str | Iterable[str] | None
CursorOrPath = Cursor | str | os.PathLike[str] | None


@overload
def subscribe(
    address: str = ...,
    types: Types = ...,
    *,
    decode: None = None,
    cursor: CursorOrPath = ...,
    start: Literal["now", "oldest"] = ...,
    live_only: bool = ...,
    replay: str | None = ...,
    keys: CurveKeys | None = ...,
) -> Subscription[ReceivedEvent]: ...


@overload
def subscribe(
    address: str = ...,
    types: Types = ...,
    *,
    decode: type[T],
    cursor: CursorOrPath = ...,
    start: Literal["now", "oldest"] = ...,
    live_only: bool = ...,
    replay: str | None = ...,
    keys: CurveKeys | None = ...,
) -> Subscription[Decoded[T]]: ...


@overload
def subscribe(
    address: str = ...,
    types: Types = ...,
    *,
    decode: Mapping[str, Any],
    cursor: CursorOrPath = ...,
    start: Literal["now", "oldest"] = ...,
    live_only: bool = ...,
    replay: str | None = ...,
    keys: CurveKeys | None = ...,
) -> Subscription[Decoded[Any]]: ...


def subscribe(
    address: str = DEFAULT_ADDRESS,
    types: Types = None,
    *,
    decode: Any = None,
    cursor: CursorOrPath = None,
    start: Literal["now", "oldest"] = "now",
    live_only: bool = False,
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

    Each item is an event, once and in the order of its type, or a `Gap` where events are lost for good. What was lost on the way
    is asked for again at ``replay`` (None: the port after that of ``address``, or its path + ``.replay``), and comes late.
    ``live_only``: nothing is asked for; every hole is a `Gap`.

    ``cursor``: a path, or an object with ``load`` and ``save``, that remembers how far the bot has come, so that its next start
    goes on there. An item counts as dealt with when the bot asks for the next one, or calls `Subscription.commit`. It is written
    once a second and at the end: after a crash what was dealt with in the last second comes again. ``start``: where to begin
    without one, now or with the "oldest" event that the bus can repeat.

    ``decode``: a type such as a `msgspec.Struct` for every event, or a mapping from event names to types, which then are the
    default of ``types``; the items are `Decoded`. ``keys`` are for a bus with CURVE.

    Nobody needs to listen at ``address`` yet: the connection is made, and made again, in the background. Raises ValueError for an
    address that is no endpoint, keys that cannot be used and an empty ``types``; OSError for a cursor that cannot be read.
    """
    if isinstance(decode, Mapping) and types is None:
        types = list(decode)
    place = FileCursor(cursor) if isinstance(cursor, str | os.PathLike) else cursor
    asks = None if live_only else replay or replay_address(_checked(address))
    return Subscription(
        _checked(address), _names(types), decode=decode, cursor=place, oldest=start == "oldest", replay=asks, keys=keys
    )


class Subscription(Generic[E]):
    """Made by `subscribe`. Iterate on one loop, one task at a time; `aclose` ends the iteration."""

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
    ) -> None:
        self.address = address
        self.types = types
        self._decoders = None if decode is None else _Decoders(decode)
        self._cursor = cursor
        self._continuity = Continuity(types, replay=replay is not None, saved=_load(cursor), from_oldest=oldest)
        self._flows: deque[Flow] = deque()  # the first is gone through to its end before the next
        self._in_hand: tuple[Shard, Saved | None] | None = None  # of the item that the bot has: its shard before it
        self._written = b""
        self._save_at = time.monotonic()
        self._steps = 0
        self._found_nothing = False
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._replays: Replays | None = None
        try:
            self._connect(keys)
            if replay is not None:
                dealer = Dealer(self._context, replay, keys)
                self._replays = Replays(dealer, self._continuity, census_wanted=oldest or cursor is not None)
        except BaseException:
            self._give_back()
            raise
        sockets = [self._socket] if self._replays is None else [self._socket, self._replays.dealer.socket]
        self._waiter = Waiter(sockets)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E | Gap:
        """The next item; the one before counts as dealt with.

        Raises ValueError for a message that is no event: then something else publishes at the address; `msgspec.ValidationError`
        for data that does not fit ``decode``. The iteration may go on after both. OSError: the cursor cannot be written.
        """
        self._in_hand = None
        while not self._socket.closed:
            self._save_if_due()
            if self._steps >= READ_AT_ONCE:
                self._steps = 0
                await asyncio.sleep(0)  # a flood must not keep the bot's other tasks from running
            while self._flows:
                shard, items = self._flows[0]
                before = self._place(shard)
                item = next(items, None)
                if item is not None:
                    self._in_hand = (shard, before)
                    return self._handed(item)
                self._flows.popleft()
            event = self._step()
            if event is not None:
                return self._handed(event)
            if self._found_nothing:
                await self._waiter.wait(self._due())
        raise StopAsyncIteration

    async def commit(self) -> None:
        """Count the item that the bot has as dealt with, and write the cursor now."""
        self._in_hand = None
        self._save()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Write the cursor, unsubscribe and give the sockets back; an iteration that waits ends. Idempotent.

        The item that the bot has does not count as dealt with, unless `commit` said so: it may have failed.
        """
        if self._socket.closed:
            return
        try:
            self._save()
        finally:
            self._give_back()
            self._waiter.wake()

    def __del__(self) -> None:
        # A bot that just breaks out of its loop leaves nothing behind.
        if hasattr(self, "_socket"):
            self._give_back()

    def _connect(self, keys: CurveKeys | None) -> None:
        self._socket.set(zmq.RCVHWM, RECEIVE_HWM)
        for topic in ("",) if self.types is None else sorted({*self.types, GAP_RECORD, POSITION_RECORD}):
            self._socket.subscribe(topic)
        connect(self._socket, self.address, keys)

    # ---------------------------------------------------------------- one step

    def _step(self) -> ReceivedEvent | None:
        """Take in a part of a replay and a message of the bus, if there are any, into ``_flows``.

        A message that is to be handed on as it is, which is what nearly all are, is returned instead.
        """
        self._steps += 1
        self._found_nothing = True
        replays = self._replays
        if replays is not None and not replays.idle:
            self._tend(replays)
        event = self._receive()
        if event is None:
            return None
        self._found_nothing = False
        before = self._place(event.shard)
        if not self._flows and self._continuity.accept(event):
            self._in_hand = (event.shard, before)
            return event
        self._flows.append((event.shard, self._continuity.live(event)))
        return None

    def _tend(self, replays: Replays) -> None:
        now = time.monotonic()
        flows = replays.read(now)
        if flows is None:  # only now is it certain that an answer did not come
            flows = replays.tend(now)
            self._found_nothing = not flows and not replays.sent  # sending may have swallowed the news of an answer
        else:
            self._found_nothing = False
        self._flows.extend(flows)

    def _receive(self) -> ReceivedEvent | None:
        """The next message that concerns this subscription; topics match by prefix, so others come too."""
        while True:
            try:
                topic, *frames = self._socket.recv_multipart(_DONTWAIT)
            except zmq.Again:
                return None
            try:
                (document,) = frames
                name = topic.decode()
                if self.types is None or name in self.types or name in {GAP_RECORD, POSITION_RECORD}:
                    return decode_document(document)
            except ValueError as error:
                msg = f"{self.address} carries something else than Discorder's events: {error}"
                raise ValueError(msg) from error

    def _handed(self, item: Item) -> E | Gap:
        if self._decoders is None or isinstance(item, Gap):
            return item  # type: ignore[return-value]  # without decoders E is ReceivedEvent
        return self._decoders.decoded(item)  # type: ignore[return-value]  # with them it is Decoded

    def _due(self) -> float | None:
        """Seconds until something is to be done without any news."""
        times = []
        if self._replays is not None and (due := self._replays.due(time.monotonic())) is not None:
            times.append(due)
        if self._cursor is not None:
            times.append(max(0.0, self._save_at - time.monotonic()))
        return min(times, default=None)

    # ---------------------------------------------------------------- the cursor

    def _place(self, shard: Shard) -> Saved | None:
        return None if self._cursor is None else self._continuity.place(shard)

    def _save_if_due(self) -> None:
        if self._cursor is not None and time.monotonic() >= self._save_at:
            self._save()

    def _save(self) -> None:
        """Write the cursor, if it has moved, as it was before the item that the bot still has."""
        if self._cursor is None:
            return
        self._save_at = time.monotonic() + SAVE_EVERY
        state = self._state()
        if state != self._written:
            self._cursor.save(state)
            self._written = state

    def _state(self) -> bytes:
        places = {shard: self._continuity.place(shard) for shard in self._continuity.shards}
        if self._in_hand is not None:
            places[self._in_hand[0]] = self._in_hand[1]
        return dump(tuple(place for place in places.values() if place is not None))

    # ---------------------------------------------------------------- the end

    def _give_back(self) -> None:
        if hasattr(self, "_waiter"):
            self._waiter.close()
        self._socket.close(linger=0)
        if self._replays is not None:
            self._replays.dealer.close()
        self._context.term()


class _Decoders:
    """What becomes of ``data``; of an event that none is named for, plain dicts and lists."""

    def __init__(self, decode: Any) -> None:
        self._of: dict[str, msgspec.json.Decoder[Any]] = {}
        self._others: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
        if isinstance(decode, Mapping):
            self._of = {name: msgspec.json.Decoder(into) for name, into in decode.items()}
        else:
            self._others = msgspec.json.Decoder(decode)

    def decoded(self, event: ReceivedEvent) -> Decoded[Any]:
        try:
            value = self._of.get(event.type, self._others).decode(event.raw)
        except msgspec.ValidationError as error:
            msg = f"{event.type} seq {event.seq} of shard {event.shard[0]}: {error}"
            raise msgspec.ValidationError(msg) from error
        return Decoded(
            event.type, event.shard, event.seq, event.prev, event.session, event.timestamp, event.raw, value=value
        )


def _load(cursor: Cursor | None) -> tuple[Saved, ...] | None:
    """What the cursor keeps; None without one, and before it is saved for the first time."""
    state = None if cursor is None else cursor.load()
    if state is None:
        return None
    try:
        return load(state)
    except ValueError as error:
        logger.warning("The cursor cannot be read, so this starts at the oldest event that there is: %s", error)
        return ()


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
