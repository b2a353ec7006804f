"""Reads the stream that a broker keeps as an asynchronous iterator, with a `Gap` where events are lost."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import msgspec

from discorder.bot.cursor import Cursor, FileCursor, dump
from discorder.bot.decoding import Decoders
from discorder.bot.gap_detector import GapDetector
from discorder.bot.positions import Gap, Item, SavedPosition, Shard
from discorder.bot.progress import Progress, close_cursor
from discorder.bot.subscription import E, Subscription
from discorder.wire import decode_document

READ_AT_ONCE = 256  # entries between two turns of the loop
NOT_STORED = "the stream does not have it: it had been dropped before it was read, or was never stored"
VERSION = 3  # of the cursor; that of one bus of ZeroMQ has 1, that of several has 2

logger = logging.getLogger(__name__)


class Lane:
    """Entries that come in the order in which they were stored. ``torn``: shards whose next event may follow on a loss."""

    def __init__(self, types: frozenset[str] | None, saved: tuple[SavedPosition, ...] | None = None) -> None:
        self.detector = GapDetector(types, replay=False, saved=saved, lost=NOT_STORED)
        self.torn: set[Shard] = set()
        self.resumes = saved is not None  # an earlier run

    def tear(self, shard: Shard | None = None) -> None:
        """Note that the next event of ``shard``, None: of each, may follow on a loss."""
        self.torn |= set(self.detector.shards) if shard is None else {shard}


class Entry(NamedTuple):
    """One document of a stream. ``document`` None: something before the next entry of this lane, or of ``shard``, may be lost.

    ``place`` is where it is in the stream, and ``reply`` what acknowledges it; both mean something to the source only.
    """

    lane: Lane
    document: bytes | None
    place: Any
    reply: str = ""
    shard: Shard | None = None


class StreamSource(Protocol):
    """Delivers the entries of a stream, and reconnects by itself."""

    def take(self) -> Entry | None:
        """Return the next entry, None if there is none now. Raises `SubscriptionFailed` if there will be no more."""
        ...

    async def wait(self, seconds: float | None) -> None:
        """Return when there is an entry, when `close` is called, or after ``seconds``."""
        ...

    def done(self, entry: Entry) -> None:
        """Note that the bot has processed every item of ``entry``."""
        ...

    async def flush(self) -> None:
        """Return once the broker has got what `done` noted."""
        ...

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        ...

    def release(self) -> None:
        """Drop the connection without a turn of the loop, for a bot that breaks out of its loop."""
        ...


class StreamSubscription(Subscription[E]):
    """A `Subscription` to what ``source`` delivers. ``lane``: the one that ``cursor`` follows."""

    def __init__(
        self,
        address: str,
        types: frozenset[str] | None,
        source: StreamSource,
        *,
        decode: Any = None,
        cursor: StreamCursor | None = None,
        lane: Lane | None = None,
    ) -> None:
        self.address = address
        self.types = types
        self._source = source
        self._decoders = None if decode is None else Decoders(decode)
        self._cursor = cursor
        self._lane = lane
        self._progress = None if cursor is None or lane is None else Progress(cursor, lane.detector)
        self._entry: Entry | None = None  # whose items the bot is processing
        self._items: Iterator[Item] | None = None  # the rest of them
        self._ahead: Item | None = None  # the next of them, if `commit` had to look
        self._shard: Shard = (0, 0)
        self._steps = 0
        self._is_open = True

    async def __anext__(self) -> E | Gap:
        """See `Subscription.__anext__`."""
        self._finish()
        progress = self._progress
        while self._is_open:
            if progress is not None and time.monotonic() >= progress.due:
                progress.save_or_log()
            item, self._ahead = self._ahead, None
            if item is None and self._items is not None:
                item = self._next_of_entry()
            if item is None:
                entry = self._source.take()
                if entry is None:
                    self._steps = 0
                    await self._source.wait(None if progress is None else max(0.0, progress.due - time.monotonic()))
                    continue
                self._steps += 1
                if self._steps >= READ_AT_ONCE:
                    self._steps = 0
                    await asyncio.sleep(0)  # a flood must not keep the bot's other tasks from running
                item = self._begin(entry)
            if item is not None:
                return item if self._decoders is None or isinstance(item, Gap) else self._decoders.decoded(item)  # type: ignore[return-value]
        raise StopAsyncIteration

    async def commit(self) -> None:
        """See `Subscription.commit`."""
        self._finish()
        if self._progress is not None:
            self._progress.save()
        elif self._items is not None and self._ahead is None:
            self._ahead = self._next_of_entry()  # nothing: the entry is finished
        await self._source.flush()

    async def aclose(self) -> None:
        """See `Subscription.aclose`."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            if self._progress is not None:
                self._progress.save_or_log()
        finally:
            self._close_cursor()
            await self._source.close()

    def __del__(self) -> None:
        if getattr(self, "_is_open", False):
            self._close_cursor()
            self._source.release()

    def _begin(self, entry: Entry) -> Item | None:
        """Return the first item of an entry, None if it has none."""
        lane, document = entry.lane, entry.document
        if document is None:
            lane.tear(entry.shard)
            return None
        self._entry = entry
        event = decode_document(document)
        progress, detector = self._progress, lane.detector
        if not lane.torn:
            before = None if progress is None else detector.position(event.shard)
            if detector.accept(event):
                if progress is not None:
                    progress.deliver(event.shard, before)
                return event
            self._items = detector.receive(event)
        elif event.shard in lane.torn and event.seq is not None:
            lane.torn.discard(event.shard)
            self._items = detector.receive_after_loss(event)
        else:
            self._items = detector.receive(event)
        self._shard = event.shard
        return self._next_of_entry()

    def _next_of_entry(self) -> Item | None:
        items, progress, entry = self._items, self._progress, self._entry
        if items is None or entry is None:
            return None
        before = None if progress is None else entry.lane.detector.position(self._shard)
        item = next(items, None)
        if item is None:
            self._items = None
            self._finish()
        elif progress is not None:
            progress.deliver(self._shard, before)
        return item

    def _finish(self) -> None:
        """Count the item as processed, and its entry if that was its last item."""
        if self._progress is not None:
            self._progress.finish()
        if self._items is None and self._entry is not None:
            if self._cursor is not None:
                self._cursor.place = self._entry.place
            self._source.done(self._entry)
            self._entry = None

    def _close_cursor(self) -> None:
        if self._cursor is not None:
            self._cursor.close()


class _State(msgspec.Struct):
    v: int
    place: msgspec.Raw
    shards: msgspec.Raw


class _Shards(msgspec.Struct):
    v: int
    shards: msgspec.Raw


class StreamCursor:
    """A cursor that also holds the place in the stream. ``into``: the type of a place."""

    def __init__(self, cursor: Cursor, into: type[Any]) -> None:
        self.place: Any = None  # up to which everything was processed; None: not known
        self._cursor = cursor
        self._into = into
        if isinstance(cursor, FileCursor):
            cursor.lock()

    def load(self) -> bytes | None:
        """See `Cursor`. Raises OSError for a file that exists and cannot be read; the lock is released then."""
        try:
            state = self._cursor.load()
        except BaseException:
            self.close()
            raise
        if state is None:
            return None
        try:
            decoded = msgspec.json.decode(state, type=_State)
            if decoded.v != VERSION:
                msg = f"version {decoded.v} of a cursor is not that of a stream"
                raise ValueError(msg)
            self.place = msgspec.json.decode(decoded.place, type=self._into | None)
        except (ValueError, RecursionError) as error:
            logger.warning(
                "The cursor is not one of this stream, so this starts at the oldest event that there is: %s", error
            )
            return dump(())
        return msgspec.json.encode(_Shards(1, decoded.shards))

    def save(self, state: bytes) -> None:
        """See `Cursor`."""
        shards = msgspec.json.decode(state, type=_Shards).shards
        place = msgspec.Raw(msgspec.json.encode(self.place))
        self._cursor.save(msgspec.json.encode(_State(VERSION, place, shards)))

    def close(self) -> None:
        """Release the lock of a file."""
        close_cursor(self._cursor)
