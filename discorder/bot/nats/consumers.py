"""The durable consumers of a group on the server: one for each shard, made when the shard appears in the stream."""

from __future__ import annotations

import logging
import re
import time
from typing import Any

import msgspec

from discorder.bot.nats.consumer_config import ConsumerConfig, faults, group_config, start_fault
from discorder.bot.nats.link import ApiError, Link
from discorder.bot.nats.pinned import ACK_WAIT, PRIORITY_GROUP, PinnedShard
from discorder.bot.nats.streams import EventStream, stream_info
from discorder.bot.positions import GAP_RECORD, GapData, SavedPosition, Shard
from discorder.bot.stream_subscription import Lane
from discorder.errors import SubscriptionFailed
from discorder.nats_access import event_subjects
from discorder.wire import ReceivedEvent, decode_document

ALL_EVERY = 60.0  # seconds between two looks at every subject; in between only at those of READY
SETTLE_WITHIN = ACK_WAIT + 2.0  # seconds; then what the last worker had must have come, or that worker is still at it
EXISTS = 10_148  # JetStream's error codes: a consumer with this name and another configuration
NO_MESSAGE = 10_037
NO_CONSUMER = 10_014

logger = logging.getLogger(__name__)


class _Floor(msgspec.Struct):
    stream_seq: int = 0


class _Consumer(msgspec.Struct):
    config: ConsumerConfig
    ack_floor: _Floor
    num_ack_pending: int = 0


class _Names(msgspec.Struct):
    total: int = 0
    consumers: tuple[str, ...] | None = None


class _Message(msgspec.Struct):
    subject: str
    seq: int
    data: bytes = b""


class _Stored(msgspec.Struct):
    message: _Message


class Consumers:
    """The consumers of one group, seen over one connection. All methods raise what `Link.ask` raises."""

    def __init__(
        self, link: Link, stream: EventStream, group: str, types: frozenset[str] | None, *, oldest: bool
    ) -> None:
        self._link = link
        self._stream = stream
        self._group = group
        self._types = types
        self._oldest = oldest
        self._start: ConsumerConfig | None = None  # where consumers of this group begin; None: not known yet
        self._all_due = 0.0

    def name_of(self, shard: Shard) -> str:
        """Return the name of the consumer of a shard."""
        return f"{self._group}_{shard[1]}_{shard[0]}"

    async def new_shards(self, known: set[Shard]) -> list[Shard]:
        """Make the consumers of the shards of the stream that are not ``known``, and return these.

        Raises `SubscriptionFailed` if one exists with a configuration that would lose events, such as other types.
        """
        if self._start is None:
            self._start = await self._find_start()
            for one in sorted(known):
                await self._make_again(one, self._start)
        now = time.monotonic()
        subjects = event_subjects(self._stream.prefix)
        if now < self._all_due:
            subjects = f"{subjects[:-1]}READY"
        else:
            self._all_due = now + ALL_EVERY
        info = await stream_info(self._link, self._stream.name, subjects)
        found = {
            shard for subject in info.state.subjects or () if (shard := self._stream.shard_of(subject)) is not None
        }
        new = sorted(found - known)
        for shard in new:
            await self._make(shard, self._start)
        return new

    async def settle(self, shard: PinnedShard) -> bool:
        """Return whether all that the server has sent and nobody acknowledged is here; then the lane knows where it begins."""
        lane = shard.lane
        if lane is None or time.monotonic() >= shard.sure_until:
            return False  # a pull request that tells is under way
        consumer = await self._info(shard.consumer)
        waited = time.monotonic() - shard.settling_since
        if consumer.num_ack_pending > shard.open_count and waited < SETTLE_WITHIN:
            return False
        if not lane.detector.shards:
            await self._begin(shard, lane, consumer.ack_floor.stream_seq)
        return shard.lane is lane  # the pin may have ended meanwhile

    async def release(self, shard: PinnedShard) -> None:
        """Let another worker have a shard."""
        await self._link.ask(f"CONSUMER.UNPIN.{self._stream.name}.{shard.consumer}", group=PRIORITY_GROUP)

    # ---------------------------------------------------------------- where a worker begins

    async def _begin(self, shard: PinnedShard, lane: Lane, floor: int) -> None:
        """Let the lane begin after ``floor``, the last message of the stream that the group acknowledged; 0: none."""
        first = shard.first_held()
        if first is None:
            return
        position = None
        if floor:
            stored = await self._message(seq=floor)
            if stored is not None and self._stream.shard_of(stored.subject) == shard.shard:
                position = _position(decode_document(stored.data))
            elif stored is None and await self._may_have_lost(shard.shard, first.place[1]):
                lane.torn = {shard.shard}
        event = decode_document(first.document or b"")
        reached = shard.reached
        if position is None and not floor:
            position = reached
        elif position is not None and reached is not None and reached.session == position.session:
            position = SavedPosition(shard.shard, position.session, max(position.seq, reached.seq), reached.seen)
        if position is None and event.type == GAP_RECORD and event.session is not None:
            position = SavedPosition(shard.shard, event.session, event.decode(GapData).from_seq - 1)
        if position is not None:
            for _ in lane.detector.start(position):
                pass  # a lane of one shard has no other layout that would end

    async def _may_have_lost(self, shard: Shard, seq: int) -> bool:
        """Return whether the stream may have dropped messages before ``seq``, the next one of the consumer, that were not read.

        Not if it still has an older message of the shard, which is an acknowledged one.
        """
        for subject in self._stream.filters(self._types, shard):
            stored = await self._message(seq=1, next_by_subj=subject)
            if stored is not None and stored.seq < seq:
                return False
        return True

    async def _message(self, **which: Any) -> _Message | None:
        try:
            answer = await self._link.ask(f"STREAM.MSG.GET.{self._stream.name}", **which)
        except ApiError as error:
            if error.code == NO_MESSAGE:
                return None
            raise
        return msgspec.json.decode(answer, type=_Stored).message

    # ---------------------------------------------------------------- making them

    async def _find_start(self) -> ConsumerConfig:
        """Return where consumers begin: where those of this group did, or where it is to begin."""
        pattern = re.compile(rf"{re.escape(self._group)}_\d+_\d+", re.ASCII)
        offset = 0
        while True:
            answer = await self._link.ask(f"CONSUMER.NAMES.{self._stream.name}", offset=offset)
            page = msgspec.json.decode(answer, type=_Names)
            names = page.consumers or ()
            for name in names:
                if pattern.fullmatch(name):
                    config = (await self._info(name)).config
                    if fault := start_fault(config):
                        raise self._unusable(name, fault)
                    return config
            offset += len(names)
            if not names or offset >= page.total:
                break
        if self._oldest:
            return ConsumerConfig(deliver_policy="all")
        now = (await stream_info(self._link, self._stream.name)).ts  # of the server: clocks differ
        return ConsumerConfig(deliver_policy="by_start_time", opt_start_time=now.isoformat())

    async def _make_again(self, shard: Shard, start: ConsumerConfig) -> None:
        """Make the consumer of a shard that this worker reads if it is gone since the last connection."""
        name = self.name_of(shard)
        try:
            await self._info(name)
        except ApiError as error:
            if error.code != NO_CONSUMER:
                raise
            logger.warning(
                "NATS: the consumer %s of the group %s is gone: it was removed, or the server lost it. It is made again, and "
                "begins as that of a new group does",
                *(name, self._group),
            )
            await self._make(shard, start)

    async def _make(self, shard: Shard, start: ConsumerConfig) -> None:
        name = self.name_of(shard)
        config = group_config(name, self._stream.filters(self._types, shard), start)
        subject = f"CONSUMER.CREATE.{self._stream.name}.{name}"
        try:
            await self._link.ask(subject, stream_name=self._stream.name, action="create", config=config)
        except ApiError as error:
            if error.code != EXISTS:
                raise
            for fault in faults((await self._info(name)).config, config):
                raise self._unusable(name, fault) from None

    def _unusable(self, name: str, fault: str) -> SubscriptionFailed:
        return SubscriptionFailed(
            f"the group {self._group} cannot use the consumer {name}, which exists: {fault}; choose another group, or remove the "
            f"consumer (nats consumer rm {self._stream.name} {name})"
        )

    async def _info(self, name: str) -> _Consumer:
        return msgspec.json.decode(await self._link.ask(f"CONSUMER.INFO.{self._stream.name}.{name}"), type=_Consumer)


def _position(event: ReceivedEvent) -> SavedPosition | None:
    """Return the position after an event, None for a record."""
    return None if event.seq is None else SavedPosition(event.shard, event.session or "", event.seq)
