"""Append the events of all shards to files, fold them into the guilds, and serve both to the façade."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from discorder.clock import Clock, SystemClock
from discorder.daemon_thread import in_daemon_thread
from discorder.errors import PublisherError
from discorder.guilds import ShardGuilds
from discorder.guilds.feed import Entry, NotHeld, Snapshot
from discorder.publishers.journal.copying import copy_into_empty
from discorder.publishers.journal.directory import Directory, read_places
from discorder.publishers.journal.loading import Loaded, Loader
from discorder.publishers.journal.records import Damaged, Encoder
from discorder.publishers.journal.ring import ShardRing
from discorder.publishers.journal.shard import JournaledShard
from discorder.publishers.journal.snapshots import Snapshots
from discorder.publishers.journal.takeover import PackedGuilds, Shard, replace_shards
from discorder.wire import Event, StreamPosition

NAME = "journal"
RING_BYTES = 2**28
RING_SECONDS = 3600.0
MOST_SEGMENT_BYTES = 2**25  # what a start reads after the newest snapshot
SEGMENTS = 8  # that the ring is divided into, at least
STEP_BYTES = 131_072  # of data between two turns of the loop: a GUILD_CREATE costs a millisecond per 40 KB
HISTORY_BYTES = 262_144  # that `history` reads at once
CLOSE_SECONDS = 0.25  # for the snapshot at a close; without it the next start reads more records

logger = logging.getLogger(__name__)


class Journal:
    """A publisher that keeps the newest events and the guilds of every shard in ``directory``, and a `Feed` of both.

    Events are kept while all files together have at most ``ring_bytes`` and the events are younger than ``ring_seconds``, about;
    they are written with one write per batch, on the loop, and not synced: after a power cut the journal may end earlier than
    the last event that it has accepted. ``presences``: whether the guilds contain them.

    ``other``: the directory of the journal that may have served the same bots before: that of the control plane, or that of a
    façade in a process of its own. ``begin_as_copy``: an empty journal begins with what the other one holds.
    """

    name = NAME
    durable = True

    def __init__(
        self,
        directory: Path,
        *,
        ring_bytes: int = RING_BYTES,
        ring_seconds: float = RING_SECONDS,
        presences: bool = True,
        intents: int = 0,
        clock: Clock | None = None,
        other: Path | None = None,
        begin_as_copy: bool = False,
    ) -> None:
        self.intents = intents
        self.layout: tuple[Sequence[int], int] | None = None
        self._directory = Directory(directory)
        self._other = other
        self._original = other if begin_as_copy else None
        self._presences = presences
        self._clock = clock or SystemClock()
        self._segment_bytes = min(MOST_SEGMENT_BYTES, max(ring_bytes // SEGMENTS, 1))
        self._segment_seconds = ring_seconds / SEGMENTS
        self._encoder = Encoder()
        self._opening: asyncio.Task[Loaded] | None = None
        self._loaded: Loaded | None = None  # None while it is closed
        self._snapshots = Snapshots(self._directory, self._clock, ring_bytes=ring_bytes, ring_seconds=ring_seconds)
        self._wakes: list[Callable[[int], None]] = []
        self._places_saved = True

    # ---------------------------------------------------------------- publisher

    async def open(self) -> None:
        """Lock the directory and read what it holds. Raises UnusableFile and JournalInUse."""
        if self._loaded is not None:
            return
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open(), name="open-journal")
        self._loaded = await asyncio.shield(
            self._opening
        )  # a thread that reads cannot be cancelled: the next call goes on

    async def _open(self) -> Loaded:
        def load() -> Loaded:
            self._directory.hold()
            try:
                if self._original is not None:
                    copy_into_empty(self._original, self._directory.path)
                return Loader(self._directory.path, lambda: ShardGuilds(presences=self._presences)).load()
            except BaseException:
                self._directory.release()
                raise

        if self._snapshots.saving is not None:
            await asyncio.wait([self._snapshots.saving])
        return await in_daemon_thread(load, "journal")

    def publish_nowait(self, events: Sequence[Event]) -> int:
        """Write the events like `publish`, all or, if they would hold up the loop, none of them. Raises PublisherError."""
        if _size(events) > STEP_BYTES:
            return 0
        self._append(events)
        return len(events)

    async def publish(self, events: Sequence[Event]) -> None:
        """Write the events that are new and fold them into the guilds. Raises PublisherError, for instance for a full disk."""
        for number, step in enumerate(_steps(events)):
            if number:
                await asyncio.sleep(0)
            self._append(step)

    async def close(self) -> None:
        """Write a snapshot if that takes no longer than `CLOSE_SECONDS`, and close the files. Idempotent."""
        loaded, self._opening = self._loaded, None
        if loaded is None:
            return
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._last_snapshot(loaded)
        finally:
            self._loaded = None
            loaded.segments.close()
            self._directory.release()

    async def _last_snapshot(self, loaded: Loaded) -> None:
        if self._snapshots.saving is not None:
            await asyncio.wait([self._snapshots.saving])
        if loaded.snapshot_at != loaded.segments.newest.end:
            await asyncio.wait([self._snapshots.begin(loaded)])

    # ---------------------------------------------------------------- feed

    def snapshot(self, shard: int) -> Snapshot | None:
        """See `Feed.snapshot`."""
        one = self._shard(shard)
        place = None if one is None else one.place
        guilds = None if one is None or place is None else one.guilds.freeze()
        return None if place is None or guilds is None else Snapshot(place, guilds)

    def end(self, shard: int) -> StreamPosition | None:
        """See `Feed.end`."""
        one = self._shard(shard)
        return None if one is None else one.place

    def entries(self, shard: int, after: StreamPosition, most_bytes: int) -> Sequence[Entry]:
        """See `Feed.entries`."""
        one = self._shard(shard)
        if one is None or one.ring is None or one.place is None or one.ring.session != after.session:
            msg = f"session {after.session} is not the present one of shard {shard}"
            raise NotHeld(msg)
        try:
            return one.ring.after(after.seq, most_bytes)
        except (OSError, Damaged) as error:
            logger.error("The journal cannot read events of shard %d: %s", shard, error)
            msg = f"the events after {after.seq} cannot be read"
            raise NotHeld(msg) from error

    def history(self, shard: tuple[int, int], session: str, last: int, most_bytes: int) -> Iterator[Event]:
        """Yield the newest events of ``session`` (a label) up to ``last``, at most so many bytes, as they were published.

        The previous event of a type is not known if it is not among them.
        """
        one = self._shard(shard[0])
        ring = None if one is None or one.shard != shard else one.ring
        if ring is None or ring.session != session:
            return
        after, previous = ring.newest(most_bytes), dict[str, int]()
        first = 0 if after <= 0 else None  # READY is the first of a session
        while after < last and (entries := self._read(shard[0], ring, after)):
            for seq, kind, received_at, data in entries:
                if seq is not None and seq <= last:
                    moment = datetime.fromtimestamp(received_at, UTC)
                    yield Event(kind, shard, seq, previous.get(kind, first), session, moment, data)
                    previous[kind] = seq
                after = after if seq is None else seq

    @staticmethod
    def _read(shard: int, ring: ShardRing, after: int) -> Sequence[Entry]:
        try:
            return ring.after(after, HISTORY_BYTES)
        except (OSError, Damaged) as error:
            logger.error("The journal cannot read events of shard %d: %s", shard, error)
            return ()

    def watch(self, wake: Callable[[int], None]) -> Callable[[], None]:
        """See `Feed.watch`. ``wake`` must not raise."""
        self._wakes = [*self._wakes, wake]

        def end() -> None:
            self._wakes = [one for one in self._wakes if one is not wake]

        return end

    def use_layout(self, ids: Sequence[int], count: int) -> None:
        """Forget the shards of another layout."""
        self.layout = ids, count
        if self._loaded is not None:
            for shard in [
                one for one in self._loaded.shards.values() if one.shard[0] not in ids or one.shard[1] != count
            ]:
                del self._loaded.shards[shard.shard[0]]
                self._wake([shard.shard[0]])

    async def begin_with(self, states: Mapping[Shard, PackedGuilds]) -> None:
        """Replace what is known of some shards by guilds from elsewhere, at a place after which their events follow.

        Returns once that is on the disk. Raises PublisherError; the shards then have to be replaced again before more of their
        events are published.
        """
        loaded = self._open_files()
        await replace_shards(loaded, self._snapshots, states, lambda: ShardGuilds(presences=self._presences))
        self._wake([shard[0] for shard in states])

    def _shard(self, shard: int) -> JournaledShard | None:
        return None if self._loaded is None else self._loaded.shards.get(shard)

    # ---------------------------------------------------------------- places of the clients

    def load_places(self) -> list[bytes]:
        """Return the texts that were saved last about the places of the façade's clients, here and in the other journal."""
        texts = []
        for directory in (self._directory.path, *([] if self._other is None else [self._other])):
            try:
                texts.append(read_places(directory))
            except OSError as error:
                logger.warning("The places of the façade's clients cannot be read, so some do not catch up: %s", error)
        return [text for text in texts if text]

    def save_places(self, text: bytes) -> None:
        """Save a small text about the places of the façade's clients."""
        try:
            if self._loaded is not None:
                self._directory.write_places(text)
                self._places_saved = True
        except OSError as error:
            if self._places_saved:  # once, although it is tried again every second
                logger.warning("The places of the façade's clients cannot be saved now: %s", error)
            self._places_saved = False

    # ---------------------------------------------------------------- writing

    def _append(self, events: Sequence[Event]) -> None:
        loaded = self._open_files()
        news = self._news(loaded, events)
        if not news:
            return
        self._begin_segment_if_full(loaded, news[0].received_at)
        encode, moment, received_at = self._encoder.encode, None, 0.0
        records: list[tuple[Event, float, int]] = []  # event, seconds since the epoch, length
        parts: list[bytes] = []
        for event in news:
            if event.received_at is not moment:
                moment, received_at = event.received_at, event.received_at.timestamp()
            head, data = encode(event, received_at)
            parts += head, data
            records.append((event, received_at, len(head) + len(data)))
        loaded.segments.append(b"".join(parts))
        self._take_in(loaded, records)
        self._wake({event.shard[0] for event in news})

    def _open_files(self) -> Loaded:
        if self._loaded is None:
            msg = "the journal is closed"
            raise PublisherError(msg)
        return self._loaded

    def _wake(self, shards: Iterable[int]) -> None:
        for shard in shards:
            for wake in self._wakes:
                wake(shard)

    @staticmethod
    def _news(loaded: Loaded, events: Sequence[Event]) -> list[Event]:
        """Return the events without those that were written before: a new process resumes from a point that lags."""
        news: list[Event] = []
        ends: dict[int, tuple[str | None, int]] = {}
        for event in events:
            seq, shard = event.seq, event.shard[0]
            if seq is not None:
                end = ends.get(shard)
                if end is None:
                    known = loaded.shards.get(shard)
                    end = (None, 0) if known is None or known.ring is None else (known.ring.session, known.ring.seq)
                if end[0] == event.session and seq <= end[1]:
                    continue
                ends[shard] = event.session, seq
            news.append(event)
        return news

    def _take_in(self, loaded: Loaded, records: list[tuple[Event, float, int]]) -> None:
        segment, shards = loaded.segments.newest, loaded.shards
        start = segment.size
        for event, received_at, length in records:
            shard_id, session, seq, kind = event.shard[0], event.session or "", event.seq, event.type
            shard = shards.get(shard_id)
            if shard is None or shard.shard != event.shard:
                shard = shards[shard_id] = JournaledShard(event.shard, ShardGuilds(presences=self._presences))
            if shard.note(session, seq, kind, segment, start, length):
                shard.remember(Entry(seq, kind, received_at, event.data))
                shard.fold(session, kind, event.data)
            start += length
            segment.note(received_at, start)

    def _begin_segment_if_full(self, loaded: Loaded, now: datetime) -> None:
        newest = loaded.segments.newest
        if newest.end == newest.first:
            return
        is_old = newest.began_at < now.timestamp() - self._segment_seconds
        if newest.size < self._segment_bytes and not is_old:
            return
        try:
            loaded.segments.begin(newest.end)
        except OSError as error:
            msg = f"cannot begin a file in {self._directory.path}: {error.strerror or error}"
            raise PublisherError(msg) from error
        if self._snapshots.saving is None:
            self._snapshots.begin(loaded, newest)
        self._snapshots.remove_old(loaded)


def _steps(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    """Divide a batch, so that the loop is not held up for long by one that is full of guilds."""
    if _size(events) <= STEP_BYTES:
        yield events
        return
    begin, size = 0, 0
    for place, event in enumerate(events):
        size += len(event.data)
        if size > STEP_BYTES:
            yield events[begin : place + 1]
            begin, size = place + 1, 0
    if begin < len(events):
        yield events[begin:]


def _size(events: Sequence[Event]) -> int:
    return sum([len(event.data) for event in events])
