"""Reads the events of a stream for one bot: an unacknowledged consumer that is made anew on each connection."""

from __future__ import annotations

import secrets
import time
from datetime import datetime

import msgspec
from nats.aio.msg import Msg

from discorder.bot.broker_source import Broken
from discorder.bot.nats.address import NatsAddress
from discorder.bot.nats.link import Link
from discorder.bot.nats.source import ACK, OWN_CONSUMER, NatsSource, Pull, stream_seq
from discorder.bot.nats.streams import EventStream, StreamInfo, stream_info
from discorder.bot.stream_subscription import Entry, Lane, StreamCursor

BATCH = 256  # messages of one pull request
PULL_SECONDS = 10.0  # after which the server ends a request
KEPT_SECONDS = 60  # a consumer that nobody reads is removed by the server


class NatsPlace(msgspec.Struct, frozen=True):
    """A place in a stream. ``created`` tells a stream from an earlier one with its name, whose sequences mean nothing in it."""

    stream: str
    created: datetime
    seq: int


class NatsReader(NatsSource):
    """All shards in one lane. ``oldest``: where to begin without a place in the cursor."""

    def __init__(
        self,
        address: NatsAddress,
        types: frozenset[str] | None,
        lane: Lane,
        cursor: StreamCursor | None,
        *,
        oldest: bool,
        live_only: bool,
    ) -> None:
        super().__init__(address, types)
        self._lane = lane
        self._cursor = cursor
        self._oldest = oldest
        self._live_only = live_only
        self._place: NatsPlace | None = None if cursor is None else cursor.place  # up to which it was read
        self._pull: Pull | None = None
        self._lags = False  # more messages waited behind the last one
        self._broken: Broken | None = None

    def take(self) -> Entry | None:
        """See `StreamSource`."""
        entry = super().take()
        if len(self._entries) == BATCH // 2:
            self._woken.set()
        return entry

    def done(self, entry: Entry) -> None:
        """See `StreamSource`: nothing is acknowledged."""

    async def flush(self) -> None:
        """See `StreamSource`: there is nothing to send."""

    async def _read(self, link: Link, stream: EventStream) -> None:
        self._place = place = self._begin(stream, await stream_info(link, stream.name))
        if self._cursor is not None and self._cursor.place is None:
            self._cursor.place = place
        name = f"{OWN_CONSUMER}{secrets.token_hex(8)}"
        config = {
            "name": name,
            "ack_policy": "none",
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": place.seq + 1,
            "filter_subjects": stream.filters(self._types),
            "inactive_threshold": KEPT_SECONDS * 1_000_000_000,
            "mem_storage": True,
            "num_replicas": 1,
        }
        await link.ask(f"CONSUMER.CREATE.{stream.name}.{name}", stream_name=stream.name, action="create", config=config)
        inbox = link.client.new_inbox()
        self._broken, self._lags = None, False
        pull = self._pull = Pull(link, stream.name, name, inbox)
        await link.client.subscribe(f"{inbox}.*", cb=self._receive, pending_msgs_limit=0, pending_bytes_limit=0)
        self._note_attached()
        while True:
            if self._broken is not None:
                raise self._broken
            pull.check()
            if not pull.left and len(self._entries) <= BATCH // 2:
                if self._lags:
                    await self._look_for_loss(link, stream)
                await pull.request(BATCH, PULL_SECONDS)
            await self._rest(pull.overdue_at - time.monotonic() if pull.left else PULL_SECONDS, link)

    def _begin(self, stream: EventStream, info: StreamInfo) -> NatsPlace:
        """Return the place after which to read, and note if something was lost before it."""
        known, first, last = self._place, info.state.first_seq, info.state.last_seq
        seq = last if known is None and self._starts_now else first - 1
        if known is not None:
            same = (known.stream, known.created) == (stream.name, info.created) and known.seq <= last
            if same and not self._live_only:
                seq = known.seq
            elif same:
                seq = last
            if not same or first > known.seq + 1 or seq > known.seq:
                self._entries.append(Entry(self._lane, None, None))
        return NatsPlace(stream.name, info.created, seq)

    @property
    def _starts_now(self) -> bool:
        return not self._oldest and not self._lane.resumes

    async def _look_for_loss(self, link: Link, stream: EventStream) -> None:
        """Note if the stream has dropped messages before they were read: this reader is slower than the stream is short."""
        info = await stream_info(link, stream.name)
        if self._place is not None and info.state.first_seq > self._place.seq + 1:
            self._entries.append(Entry(self._lane, None, None))

    async def _receive(self, message: Msg) -> None:
        pull, place = self._pull, self._place
        if pull is None or place is None:
            return
        reply = message.reply
        if reply.startswith(ACK):
            pull.left -= 1
            _, seq, behind = stream_seq(reply)
            self._lags = behind > 0
            self._place = place = NatsPlace(place.stream, place.created, seq)
            self._entries.append(Entry(self._lane, message.data, place))
            self._wake_reader()
        else:
            try:
                pull.end(message)
            except Broken as error:
                self._broken = error
        if not pull.left:
            self._woken.set()
