"""Copy the journal of a control plane in another process, over its bus, into a journal of the façade's own."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from discorder.bot.bus_link import BusLink, BusRefused, BusRenewed, BusSilent
from discorder.clock import Clock
from discorder.errors import GuildsNotKept, PublisherError
from discorder.guilds import pack_again
from discorder.logs import logger
from discorder.publishers.journal import Journal
from discorder.publishers.journal.takeover import PackedGuilds
from discorder.wire import Event, StreamPosition

WAIT_SECONDS = 1.0  # for which the control plane sends parts of one answer
PARTS = 16  # at most, of one answer
ANSWER_SECONDS = 2.0  # after those for the last part; doubled after each failure
MOST_ANSWER_SECONDS = 10.0  # of which no failure makes more
GUILDS_SECONDS = 10.0  # for each part of an answer with guilds
RETRY_SECONDS = 0.5  # between two attempts to follow
RENEWED_SECONDS = 0.1  # after a connection that broke
WRITE_RETRY_SECONDS = 1.0  # while the journal cannot be written
NOT_FED = "No control plane feeds the façade; its bots wait"
REMEDY = "start discorder serve with this configuration; --bus names its bus, whose replay must not be off"
OLDER_BUS = "this control plane is of an older version, which feeds no façade in a process of its own; upgrade it"

NewInstance = Callable[[], None]
Shard = tuple[int, int]


class _Event(msgspec.Struct, array_like=True):
    shard: int
    session: str
    seq: int | None
    type: str
    received_at: float
    data: msgspec.Raw


class _Followed(msgspec.Struct):
    ids: tuple[int, ...]
    count: int
    intents: int
    instance: str
    events: list[_Event]
    lost: list[int]


class _GuildsEnd(msgspec.Struct):
    shard: Shard
    session: str
    seq: int
    guilds: list[str]
    ready: msgspec.Raw


_decode = msgspec.json.Decoder(_Followed).decode
_decode_events = msgspec.json.Decoder(list[_Event]).decode
_decode_guilds = msgspec.json.Decoder(_GuildsEnd).decode


class Follower:
    """Keeps ``journal`` equal to the one of the control plane behind ``link``.

    A shard of which the journal has nothing, or whose next events are not held any more, begins with its guilds as they are
    now. ``new_instance`` is called when another process answers than before.
    """

    def __init__(self, link: BusLink, journal: Journal, clock: Clock, new_instance: NewInstance) -> None:
        self._link = link
        self._journal = journal
        self._clock = clock
        self._new_instance = new_instance
        self._instance: str | None = None
        self._failures = 0
        self._is_fed = False  # a control plane that knows its shards has answered
        self._trouble = ""  # what is logged and has not ended
        self._order: list[int] = []  # of the shards in a request: those that were served last come last

    async def run(self) -> None:
        """Follow the control plane for ever, through its restarts. Raises `GuildsNotKept` if the first one keeps no journal."""
        while True:
            try:
                await self._advance()
            except BusRenewed as error:
                self._log_trouble(NOT_FED, str(error))
                await self._clock.sleep(RENEWED_SECONDS)
            except BusSilent as error:
                self._failures += 1
                self._link.renew()
                self._log_trouble(NOT_FED, str(error))
            except BusRefused as refused:
                await self._refused(refused)
            except (ValueError, OverflowError, RecursionError) as error:
                self._log_trouble("The control plane's answer is not understood", str(error))
                await self._clock.sleep(WRITE_RETRY_SECONDS)

    async def _advance(self) -> None:
        count = 0 if self._journal.layout is None else self._journal.layout[1]
        parts = self._link.stream(
            "follow",
            timeout=WAIT_SECONDS + min(ANSWER_SECONDS * 2 ** min(self._failures, 8), MOST_ANSWER_SECONDS),
            places=[self._place(shard) for shard in self._order],
            count=count,
            wait_s=WAIT_SECONDS,
            parts=PARTS,
        )
        async with contextlib.aclosing(parts):
            async for part in parts:
                if part.topic:
                    await self._take_events(_decode_events(part.document), count)
                else:
                    await self._take_last(_decode(part.document))

    async def _take_last(self, followed: _Followed) -> None:
        self._note_answer(followed)
        if not followed.count:
            await self._clock.sleep(RETRY_SECONDS)
            return
        self._use_layout(followed)
        await self._take_events(followed.events, followed.count)
        if followed.lost:
            await self._take_guilds(followed.lost, followed.count)

    def _place(self, shard: int) -> tuple[int, str, int]:
        end = self._journal.end(shard)
        return (shard, "", 0) if end is None else (shard, end.session, end.seq)

    def _note_answer(self, followed: _Followed) -> None:
        self._failures = 0
        before, self._instance = self._instance, followed.instance
        if before is not None and before != followed.instance:
            self._new_instance()
        if followed.count and (self._trouble or not self._is_fed):
            logger.info("The façade is fed by the control plane", shards=followed.count)
            self._is_fed, self._trouble = True, ""

    def _use_layout(self, followed: _Followed) -> None:
        self._journal.intents = followed.intents
        layout = followed.ids, followed.count
        if self._journal.layout != layout:
            self._journal.use_layout(*layout)
            self._order = list(followed.ids)

    # ---------------------------------------------------------------- what comes

    async def _take_events(self, found: Sequence[_Event], count: int) -> None:
        events = [
            Event(
                one.type,
                (one.shard, count),
                one.seq,
                None,
                one.session,
                datetime.fromtimestamp(one.received_at, UTC),
                bytes(one.data),
            )
            for one in found
        ]
        if events:
            await self._write(lambda: self._journal.publish(events))
            served = {event.shard[0] for event in events}
            self._order.sort(key=served.__contains__)

    async def _take_guilds(self, shards: Iterable[int], count: int) -> None:
        states: dict[Shard, PackedGuilds] = {}
        for shard in shards:
            try:
                answer = await self._link.ask("guilds", timeout=GUILDS_SECONDS, shard=shard)
            except BusRefused as refused:
                logger.debug("The guilds of a shard did not come", shard=shard, reason=str(refused))
                continue
            end = _decode_guilds(answer.last)
            before = self._journal.end(shard)
            if before is not None and before.session == end.session:
                logger.warning(
                    "The control plane does not hold the next events of a shard any more; the façade goes on with its guilds",
                    shard=shard,
                    after=before.seq,
                    seq=end.seq,
                )
            if end.shard[1] == count:
                packed = pack_again(end.session, bytes(end.ready), [int(one) for one in end.guilds], answer.parts)
                states[end.shard] = PackedGuilds(StreamPosition(end.session, end.seq), list(packed))
        if states:
            await self._write(lambda: self._journal.begin_with(states))
        else:
            await self._clock.sleep(RETRY_SECONDS)

    async def _write(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write to the journal, again and again if that fails: nothing more is read until it succeeds."""
        while True:
            try:
                await write()
            except PublisherError as error:
                self._log_trouble("The façade cannot write its journal, and reads nothing until it can", str(error))
                await self._clock.sleep(WRITE_RETRY_SECONDS)
            else:
                return

    # ---------------------------------------------------------------- trouble

    async def _refused(self, refused: BusRefused) -> None:
        if refused.reason in {"guilds_off", "bad_request"}:
            text = str(refused) if refused.reason == "guilds_off" else f"{OLDER_BUS} ({refused})"
            if self._instance is None:
                msg = f"{self._link.address}: {text}"
                raise GuildsNotKept(msg) from None
            self._log_trouble("The control plane feeds the façade no more", text)
        await self._clock.sleep(RETRY_SECONDS)

    def _log_trouble(self, text: str, error: str) -> None:
        if self._trouble != text:
            remedy = f"; {REMEDY}" if text == NOT_FED else ""
            logger.warning(f"{text}: {error}{remedy}")
        self._trouble = text
