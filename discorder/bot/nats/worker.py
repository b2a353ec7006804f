"""Reads the events of a stream as one worker of a group: a durable consumer for each shard, pinned to one worker at a time.

The server pins a consumer to the worker whose pull request it serves first, for as long as that worker goes on requesting
(`PIN`). What a worker has not acknowledged comes again `ACK_WAIT` after it was sent, so before the pin is free: the next worker
gets it first, and the order of the shard is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as Inbox

from discorder.bot.broker_source import Broken
from discorder.bot.nats.address import NatsAddress
from discorder.bot.nats.consumers import Consumers
from discorder.bot.nats.link import FAILURES, ApiError, Link
from discorder.bot.nats.peers import TELL_EVERY, Peers
from discorder.bot.nats.pinned import PIN, PinnedShard
from discorder.bot.nats.source import ACK, NatsSource, stream_seq
from discorder.bot.nats.streams import EventStream
from discorder.bot.positions import Shard
from discorder.bot.stream_subscription import Entry, Lane
from discorder.errors import SubscriptionFailed

ACK_DELAY = 0.01  # seconds in which acknowledgements are collected
TICK = 1.0  # seconds between two looks at what is due
SOON = 0.05  # seconds between two looks while a shard settles or is released
SHARDS_EVERY = 2.0  # seconds between two looks for new shards
REST = 5.0  # seconds for which a worker leaves a shard to others that it has released
CLOSE_WITHIN = 2.0  # seconds
OLDEST_SERVER = (2, 11)  # has pinned consumers


class NatsWorker(NatsSource):
    """One worker of ``group``. ``oldest``: where a new group begins."""

    def __init__(self, address: NatsAddress, types: frozenset[str] | None, group: str, *, oldest: bool) -> None:
        super().__init__(address, types)
        self._group = group
        self._oldest = oldest
        self._shards: dict[Shard, PinnedShard] = {}
        self._by_consumer: dict[str, PinnedShard] = {}
        self._acks: list[str] = []  # reply subjects
        self._link: Link | None = None
        self._inbox: Inbox | None = None
        self._consumers: Consumers | None = None
        self._broken: Broken | None = None
        self._is_due = False  # something of a shard
        self._peers = Peers()
        self._talk = ""  # the subject where the workers tell each other

    def take(self) -> Entry | None:
        """See `StreamSource`. Returns nothing that another worker may have got meanwhile."""
        while self._entries:
            entry = self._entries[0]
            shard, seq = entry.place
            if shard.lane is not entry.lane:
                self._entries.popleft()
            elif time.monotonic() >= shard.sure_until:  # this process stood still
                shard.settle()
                self._entries = shard.hold(self._entries)
                self._attend_soon()
            else:
                self._entries.popleft()
                return entry._replace(lane=Lane(self._types)) if shard.begin_work(seq) else entry
        return super().take()

    def done(self, entry: Entry) -> None:
        """See `StreamSource`: the entry is acknowledged within `ACK_DELAY`."""
        shard, seq = entry.place
        shard.done(seq)
        self._acknowledge(entry.reply)

    async def flush(self) -> None:
        """See `StreamSource`."""
        if self._link is not None:
            await self._send_acks(self._link)
            await self._link.client.flush()

    async def _leave(self, link: Link) -> None:
        """Give back what was not processed, so that other workers need not wait for this one."""
        if self._is_closed and not link.client.is_closed:
            with contextlib.suppress(*FAILURES, ApiError):
                async with asyncio.timeout(CLOSE_WITHIN):
                    await self._give_back(link)
        await super()._leave(link)

    async def _give_back(self, link: Link) -> None:
        await self._send_acks(link)
        if self._inbox is None or self._consumers is None:
            return
        await link.client.publish(self._talk, self._peers.word({}, leaves=True))
        await self._inbox.unsubscribe()  # what is given back must not come here again
        await link.client.flush()
        for shard in self._shards.values():
            if shard.pin:
                for reply in shard.replies_to_return():
                    await link.client.publish(reply, b"-NAK")
                await self._consumers.release(shard)

    # ---------------------------------------------------------------- the task

    async def _read(self, link: Link, stream: EventStream) -> None:
        version = link.client.connected_server_version
        if (version.major, version.minor) < OLDEST_SERVER:
            msg = f"group needs a NATS server 2.11 or later, and this is {version}; leave out group, or upgrade the server"
            raise SubscriptionFailed(msg)
        inbox = link.client.new_inbox()
        self._link, self._broken = link, None
        consumers = self._consumers = Consumers(link, stream, self._group, self._types, oldest=self._oldest)
        self._inbox = await link.client.subscribe(
            f"{inbox}.*.*", cb=self._receive, pending_msgs_limit=0, pending_bytes_limit=0
        )
        for shard in self._shards.values():
            shard.connect(link, stream.name, inbox)
            self._entries = shard.hold(self._entries) if shard.is_settling else self._entries
        tick = shards_due = 0.0  # the first turn attends to every shard
        self._talk = f"_INBOX.discorder.{stream.name}.{self._group}"
        await link.client.subscribe(self._talk, cb=self._hear)
        await link.client.publish(self._talk, self._peers.word(self._loads()))
        share_due = time.monotonic() + TELL_EVERY
        while True:
            now = time.monotonic()
            if now >= shards_due:
                shards_due = now + SHARDS_EVERY
                for one in await consumers.new_shards(set(self._shards)):
                    self._add(one, consumers).connect(link, stream.name, inbox)
            await self._send_acks(link)
            if self._is_due or now >= tick:
                self._is_due = False
                takes = {count: self._peers.may_take(count, mine) for count, mine in self._loads().items()}
                for shard in self._shards.values():
                    await self._attend(shard, consumers, takes=takes[shard.shard[1]])
                    self._is_due = self._is_due or shard.is_settling or shard.releasing_since is not None
            if now >= tick:
                tick = now + TICK
                for reply in [reply for shard in self._shards.values() for reply in shard.replies_to_extend()]:
                    await link.client.publish(reply, b"+WPI")
            if now >= share_due:
                share_due = now + TELL_EVERY
                self._share()
                await link.client.publish(self._talk, self._peers.word(self._loads()))
            if self._broken is not None:
                raise self._broken
            self._note_attached()
            await self._rest(SOON if self._is_due else tick - time.monotonic(), link)

    def _add(self, shard: Shard, consumers: Consumers) -> PinnedShard:
        made = self._shards[shard] = PinnedShard(shard, consumers.name_of(shard))
        self._by_consumer[made.consumer] = made
        return made

    async def _attend(self, shard: PinnedShard, consumers: Consumers, *, takes: bool) -> None:
        """Do what is due for one shard: settle, release, or request more. ``takes``: this worker may have more shards."""
        shard.pull.check()
        if shard.is_settling and await consumers.settle(shard):
            self._entries.extend(shard.settled())
            self._wake_reader()
        if shard.releasing_since is not None:
            if not shard.open_count and shard.pull.left <= 0:
                await consumers.release(shard)
                shard.end(REST)
            elif time.monotonic() - shard.releasing_since > PIN / 2:  # the bot is slow: the pin must be renewed
                shard.releasing_since = None
        if shard.wants_more and (shard.pin or takes):
            await shard.request()

    def _loads(self) -> dict[int, int]:
        """Return how many shards this worker has of each layout, by the number of shards."""
        loads: dict[int, int] = {}
        for one in self._shards.values():
            has_it = bool(one.pin) and one.releasing_since is None
            loads[one.shard[1]] = loads.get(one.shard[1], 0) + has_it
        return loads

    def _share(self) -> None:
        """Begin to release a shard if another worker has less."""
        for count, mine in self._loads().items():
            if self._peers.is_surplus(count, mine):
                settled = [
                    one for one in self._shards.values() if one.pin and one.shard[1] == count and not one.is_settling
                ]
                for one in [one for one in settled if one.releasing_since is None][:1]:
                    one.releasing_since = time.monotonic()

    async def _hear(self, message: Msg) -> None:
        with contextlib.suppress(ValueError):  # of somebody else
            self._peers.hear(message.data)

    # ---------------------------------------------------------------- messages

    async def _receive(self, message: Msg) -> None:
        reply = message.reply
        if not reply.startswith(ACK):
            self._receive_status(message)
            return
        consumer, seq, _ = stream_seq(reply)
        shard = self._by_consumer.get(consumer)
        if shard is None:
            return
        pin = (message.headers or {}).get("Nats-Pin-Id", "")
        if pin != shard.pin:
            shard.begin(pin, Lane(self._types))
        shard.came()
        if shard.was_done(seq):
            self._acknowledge(reply)
        elif not shard.is_open(seq) and shard.lane is not None:
            entry = Entry(shard.lane, message.data, (shard, seq), reply)
            if shard.add(seq, entry):
                self._entries.append(entry)
                self._wake_reader()
        if shard.is_settling or shard.wants_more:
            self._attend_soon()

    def _receive_status(self, status: Msg) -> None:
        shard = self._by_consumer.get(status.subject.split(".")[-2])
        if shard is None:
            return
        try:
            shard.end_pull(status)
        except Broken as error:
            self._broken = error
        self._attend_soon()

    def _attend_soon(self) -> None:
        """Let the task look at all shards; to send acknowledgements it need not."""
        self._is_due = True
        self._woken.set()

    def _acknowledge(self, reply: str) -> None:
        if not self._acks:
            asyncio.get_running_loop().call_later(ACK_DELAY, self._woken.set)
        self._acks.append(reply)

    async def _send_acks(self, link: Link) -> None:
        acks, self._acks = self._acks, []
        for reply in acks:
            await link.client.publish(reply, b"+ACK")
